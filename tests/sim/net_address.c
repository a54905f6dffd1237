#include "tests/sim/net_address.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

/* The address as IPv6, and its port. */
static void place_of(const struct sockaddr_storage *s, unsigned char ip[16], uint16_t *port)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)s;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)s;

	memset(ip, 0, 16);
	if (s->ss_family == AF_INET) {
		*port = ntohs(v4->sin_port);
		if (v4->sin_addr.s_addr != htonl(INADDR_ANY)) {
			memset(ip + 10, 0xff, 2);
			memcpy(ip + 12, &v4->sin_addr, 4);
		}
	} else {
		*port = ntohs(v6->sin6_port);
		memcpy(ip, &v6->sin6_addr, 16);
	}
}

static const char *path_of(const struct sockaddr_storage *s)
{
	return ((const struct sockaddr_un *)(const void *)s)->sun_path;
}

bool address_reaches(const struct sockaddr_storage *l, const struct sockaddr_storage *to)
{
	static const unsigned char any[16];
	unsigned char ip[2][16];
	uint16_t port[2];

	if (l->ss_family == AF_UNIX || to->ss_family == AF_UNIX) {
		return l->ss_family == to->ss_family && strcmp(path_of(l), path_of(to)) == 0;
	}
	place_of(l, ip[0], &port[0]);
	place_of(to, ip[1], &port[1]);
	return port[0] == port[1] && (memcmp(ip[0], any, 16) == 0 || memcmp(ip[0], ip[1], 16) == 0);
}

uint16_t address_port(const struct sockaddr_storage *s)
{
	unsigned char ip[16];
	uint16_t port = 0;

	if (s->ss_family != AF_UNIX) {
		place_of(s, ip, &port);
	}
	return port;
}

static socklen_t length_of(sa_family_t family)
{
	return family == AF_INET    ? sizeof(struct sockaddr_in)
	       : family == AF_INET6 ? sizeof(struct sockaddr_in6)
				    : sizeof(sa_family_t);
}

socklen_t address_origin(struct sockaddr_storage *s, const struct sockaddr *from, bool path,
			 uint16_t port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)s;

	memset(s, 0, sizeof *s);
	if (path) {
		s->ss_family = AF_UNIX;
		return length_of(AF_UNIX);
	}
	if (from != NULL) {
		memcpy(s, from, length_of(from->sa_family));
	} else {
		v4->sin_family = AF_INET;
		v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	/* In the same place in both families. */
	if (v4->sin_port == 0) {
		v4->sin_port = htons(port);
	}
	return length_of(s->ss_family);
}

socklen_t address_as_seen(struct sockaddr_storage *s, sa_family_t family)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	uint16_t port;

	if (family == AF_INET6 && s->ss_family == AF_INET) {
		place_of(s, v6.sin6_addr.s6_addr, &port);
		v6.sin6_port = htons(port);
		memcpy(s, &v6, sizeof v6);
	}
	return length_of(s->ss_family);
}
