#include "perf/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Cuts "host:port" in two, in `copy`. The colon that counts is the last one. */
static int split(char *copy, char **host, char **port)
{
	char *colon = strrchr(copy, ':');
	size_t len;

	if (colon == NULL || colon[1] == '\0') {
		return -EINVAL;
	}
	*colon = '\0';
	*host = copy;
	*port = colon + 1;
	len = strlen(copy);
	if (copy[0] == '[') {
		if (len < 3 || copy[len - 1] != ']') {
			return -EINVAL;
		}
		copy[len - 1] = '\0';
		*host = copy + 1;
	}
	return 0;
}

static bool is_loopback(const struct sockaddr *address)
{
	const void *p = address;

	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *v4 = p;
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	}
	if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = p;
		return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
	}
	return false;
}

int endpoint_parse(struct endpoint *e, const char *spec)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *found;
	char copy[256];
	char *host;
	char *port;
	int rc = 0;

	if (strlen(spec) >= sizeof(copy)) {
		return -EINVAL;
	}
	strcpy(copy, spec);
	if (split(copy, &host, &port) != 0 || host[0] == '\0') {
		return -EINVAL;
	}
	if (getaddrinfo(host, port, &hints, &found) != 0) {
		return -EINVAL;
	}
	if (is_loopback(found->ai_addr)) {
		memcpy(&e->address, found->ai_addr, found->ai_addrlen);
		e->len = found->ai_addrlen;
	} else {
		rc = -EPERM;
	}
	freeaddrinfo(found);
	return rc;
}

static int stream_socket(const struct endpoint *e)
{
	int fd = socket(e->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd >= 0 ? fd : -errno;
}

int endpoint_listen(const struct endpoint *e, int backlog)
{
	const void *address = &e->address;
	int on = 1;
	int fd = stream_socket(e);
	int rc;

	if (fd < 0) {
		return fd;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* Accepted sockets inherit it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (bind(fd, address, e->len) != 0 || listen(fd, backlog) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

int endpoint_connect(const struct endpoint *e)
{
	const void *address = &e->address;
	int on = 1;
	int fd = stream_socket(e);
	int rc;

	if (fd < 0) {
		return fd;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, address, e->len) != 0 && errno != EINPROGRESS) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

void endpoint_local_name(int fd, char text[ENDPOINT_TEXT_MAX])
{
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof(address);
	void *p = &address;
	char host[INET6_ADDRSTRLEN] = "";

	getsockname(fd, p, &len);
	if (address.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = p;
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(text, ENDPOINT_TEXT_MAX, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		const struct sockaddr_in *v4 = p;
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(text, ENDPOINT_TEXT_MAX, "%s:%u", host, ntohs(v4->sin_port));
	}
}
