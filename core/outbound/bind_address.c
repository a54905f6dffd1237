#include "core/outbound/bind_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/outbound/dispatch_parts.h"
#include "core/runtime/check.h"

/* Of the family; NULL: none. */
static const struct in6_addr *address_of(const struct domain_options *o, sa_family_t family)
{
	for (uint32_t i = 0; i < o->bind_address_count; i++) {
		if (IN6_IS_ADDR_V4MAPPED(&o->bind_addresses[i]) == (family == AF_INET)) {
			return &o->bind_addresses[i];
		}
	}
	return NULL;
}

bool bind_address_allows(const struct domain_options *options, sa_family_t family)
{
	return options->bind_address_count == 0 || address_of(options, family) != NULL;
}

int bind_address_apply(const struct domain_options *options, int fd, sa_family_t family)
{
	const struct in6_addr *ip = address_of(options, family);
	union host_address address = {.v6 = {.sin6_family = AF_INET6}};
	socklen_t len = sizeof(address.v6);
	int on = 1;

	if (options->bind_address_count == 0) {
		return 0;
	}
	ASSERT(ip != NULL);
	if (family == AF_INET) {
		address.v4 = (struct sockaddr_in){.sin_family = AF_INET};
		memcpy(&address.v4.sin_addr, ip->s6_addr + 12, sizeof(address.v4.sin_addr));
		len = sizeof(address.v4);
	} else {
		address.v6.sin6_addr = *ip;
	}
	/* The port is chosen by connect, which knows the other end: as many connections from one
	 * address as there are ports, to each host. An old kernel does without. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	return bind(fd, &address.any, len) == 0 ? 0 : -errno;
}

bool bind_address_is_wrong(const struct domain_options *options, int error)
{
	return options->bind_address_count != 0 && (error == -EADDRNOTAVAIL || error == -EINVAL ||
						    error == -EACCES || error == -EAFNOSUPPORT);
}

static void format_address(const struct in6_addr *ip, char text[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED(ip)) {
		inet_ntop(AF_INET, ip->s6_addr + 12, text, INET6_ADDRSTRLEN);
	} else {
		inet_ntop(AF_INET6, ip, text, INET6_ADDRSTRLEN);
	}
}

void bind_address_format(const struct domain_options *options, sa_family_t family,
			 char text[INET6_ADDRSTRLEN])
{
	const struct in6_addr *ip = address_of(options, family);

	text[0] = '\0';
	if (ip != NULL) {
		format_address(ip, text);
	}
}

struct attempt bind_address_trouble(const struct lane *l, const struct host *host, int error)
{
	char ip[INET6_ADDRSTRLEN];
	char text[ATTEMPT_TEXT];

	if (host != NULL) {
		format_address(address_of(l->options, host->address.any.sa_family), ip);
		snprintf(text, sizeof text,
			 "451 4.3.5 [internal] bind_address %s of binding %s cannot be used: %s",
			 ip, l->site->binding, strerror(-error));
	} else {
		format_address(&l->options->bind_addresses[0], ip);
		snprintf(text, sizeof text,
			 "451 4.3.5 [internal] binding %s has no bind_address of the family of any "
			 "next hop, only %s",
			 l->site->binding, ip);
	}
	return dispatch_attempt_text(451, "4.3.5", text);
}
