/*
 * Addresses of the simulated network: IPv4, IPv6 with IPv4 mapped into it, and paths.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Whether who listens at `l` is reached at `to`; the unspecified address is all of them. */
bool address_reaches(const struct sockaddr_storage *l, const struct sockaddr_storage *to);
/* 0 for a path. */
uint16_t address_port(const struct sockaddr_storage *s);
/* Fills in where a connection comes from: `from`, NULL for 127.0.0.1, with `port` where it has
 * none; from a path nothing is known. Returns the length. */
socklen_t address_origin(struct sockaddr_storage *s, const struct sockaddr *from, bool path,
			 uint16_t port);
/* The same as who listens by `family` sees it: IPv4 mapped into IPv6. Returns the length. */
socklen_t address_as_seen(struct sockaddr_storage *s, sa_family_t family);
