/*
 * bind_address: where connections of a binding come from. A host of a family that it has no address
 * of is left out; one whose address the kernel refuses is left alone for a while.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "core/outbound/dispatch.h"

/* Whether connections to addresses of `family` may be made. */
READONLY
bool bind_address_allows(const struct domain_options *options, sa_family_t family);

/* Binds a socket of `family`, which bind_address_allows(), before it connects. 0 or a negative
 * errno: -EADDRNOTAVAIL when the address is none of this machine's. */
BOUND
int bind_address_apply(const struct domain_options *options, int fd, sa_family_t family);

/* The address that sockets of `family` are bound to, as text; empty: none. */
READONLY
void bind_address_format(const struct domain_options *options, sa_family_t family,
			 char text[INET6_ADDRSTRLEN]);

/* Whether `error` (negative errno), of making a socket, is of the address, not of a lack of room.
 */
READONLY
bool bind_address_is_wrong(const struct domain_options *options, int error);

/* What mail of the lane is told, and operators: `error` (negative errno) came of the address of
 * `host`'s family; NULL: none of the next hops has an address of a family of bind_address. */
BOUND
struct attempt bind_address_trouble(const struct lane *l, const struct host *host, int error);
