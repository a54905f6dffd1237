#include "listeners/smtp/relay.h"

#include <string.h>

#define BITS 8

static bool cidr_holds(const struct cidr *c, const struct in6_addr *peer)
{
	unsigned bytes = c->prefix / BITS;
	unsigned bits = c->prefix % BITS;
	unsigned char mask = (unsigned char)(0xff00U >> bits);

	return memcmp(c->address.s6_addr, peer->s6_addr, bytes) == 0 &&
	       (bits == 0 || ((c->address.s6_addr[bytes] ^ peer->s6_addr[bytes]) & mask) == 0);
}

static bool any_holds(const struct cidr *networks, uint32_t count, const struct in6_addr *peer)
{
	for (uint32_t i = 0; i < count; i++) {
		if (cidr_holds(&networks[i], peer)) {
			return true;
		}
	}
	return false;
}

bool relay_host_allowed(const struct smtp_options *options, const struct in6_addr *peer)
{
	return any_holds(options->relay_hosts, options->relay_host_count, peer);
}

bool relay_xclient_allowed(const struct smtp_options *options, const struct in6_addr *peer)
{
	return any_holds(options->xclient_hosts, options->xclient_host_count, peer);
}

static bool pattern_holds(const char *pattern, const char *domain, size_t len)
{
	size_t n = strlen(pattern);

	if (strcmp(pattern, "*") == 0) {
		return true;
	}
	if (pattern[0] == '.') {
		return len > n && memcmp(domain + len - n, pattern, n) == 0;
	}
	return len == n && memcmp(domain, pattern, n) == 0;
}

static bool list_holds(const char *const *list, uint32_t count, const char *domain, size_t len)
{
	for (uint32_t i = 0; i < count; i++) {
		if (pattern_holds(list[i], domain, len)) {
			return true;
		}
	}
	return false;
}

bool relay_domain_allowed(const struct smtp_options *options, const char *domain, size_t len)
{
	return list_holds(options->relay_domains, options->relay_domain_count, domain, len);
}

bool relay_domain_bounces(const struct smtp_options *options, const char *domain, size_t len)
{
	return list_holds(options->bounce_domains, options->bounce_domain_count, domain, len);
}
