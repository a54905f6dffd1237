/*
 * Where the tools listen and connect: HOST:PORT or [V6]:PORT. Only loopback addresses are taken,
 * so that a load generator or an open sink never meets anybody else's network.
 */
#pragma once

#include <stddef.h>
#include <sys/socket.h>

/* Room for the text form of any endpoint, with its end. */
#define ENDPOINT_TEXT_MAX 64

struct endpoint {
	struct sockaddr_storage address;
	socklen_t len;
};

/*
 * Reads `spec` ("127.0.0.1:2525", "[::1]:2525", "localhost:2525").
 * Returns 0, -EINVAL when it is none, or -EPERM when the address is not a loopback address.
 */
int endpoint_parse(struct endpoint *e, const char *spec);

/* Returns a listening socket that does not block, or a negative errno. */
int endpoint_listen(const struct endpoint *e, int backlog);

/* Returns a socket that does not block and is connected or being connected, or a negative errno. */
int endpoint_connect(const struct endpoint *e);

/* Writes the local address of `fd` to `text`, in the form that endpoint_parse() reads. */
void endpoint_local_name(int fd, char text[ENDPOINT_TEXT_MAX]);
