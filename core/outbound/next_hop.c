#include "core/outbound/next_hop.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

static bool parse_address(const char *text, uint16_t port, struct host *h)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&h->address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&h->address;

	memset(h, 0, sizeof *h);
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		h->address_len = sizeof *v4;
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		h->address_len = sizeof *v6;
	} else {
		return false;
	}
	snprintf(h->name, sizeof h->name, "%s", text);
	return true;
}

static struct host *hosts_allocate(uint32_t count)
{
	struct host *hosts = calloc(count, sizeof *hosts);

	if (hosts == NULL) {
		fatal("out of memory for next hops");
	}
	return hosts;
}

bool next_hop_literal(const struct domain_options *options, struct host **hosts, uint32_t *count)
{
	struct host h;

	if (options->gateway_count == 0) {
		return false;
	}
	for (uint32_t i = 0; i < options->gateway_count; i++) {
		if (!parse_address(options->gateways[i].host, 0, &h)) {
			return false;
		}
	}
	*count = options->gateway_count;
	*hosts = hosts_allocate(*count);
	for (uint32_t i = 0; i < *count; i++) {
		const struct gateway *g = &options->gateways[i];

		parse_address(g->host, g->port, &(*hosts)[i]);
		(*hosts)[i].preference = g->preference;
	}
	return true;
}

static void add_addresses(struct next_hop_answer *a, const struct addrinfo *list, const char *name,
			  uint16_t preference)
{
	for (const struct addrinfo *i = list; i != NULL && a->count < NEXT_HOP_MAX;
	     i = i->ai_next) {
		struct host *h = &a->hosts[a->count++];

		memset(h, 0, sizeof *h);
		memcpy(&h->address, i->ai_addr, i->ai_addrlen);
		h->address_len = i->ai_addrlen;
		h->preference = preference;
		snprintf(h->name, sizeof h->name, "%s", name);
	}
}

static void lookup(struct next_hop_answer *a, const char *name, uint16_t port, uint16_t preference)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	char service[8];
	int rc;

	snprintf(service, sizeof service, "%u", port);
	rc = getaddrinfo(name, service, &hints, &list);
	if (rc != 0) {
		snprintf(a->trouble, sizeof a->trouble, "cannot look up %.80s: %s", name,
			 gai_strerror(rc));
		return;
	}
	add_addresses(a, list, name, preference);
	freeaddrinfo(list);
}

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]", RFC 5321 section 4.1.3. */
static bool lookup_literal(struct next_hop_answer *a, const char *domain, uint16_t port)
{
	char text[INET6_ADDRSTRLEN];
	size_t len = strlen(domain);
	const char *from = domain + 1;
	size_t inside;

	if (len < 3 || domain[0] != '[' || domain[len - 1] != ']') {
		return false;
	}
	if (strncasecmp(from, "ipv6:", 5) == 0) {
		from += 5;
	}
	inside = (size_t)(domain + len - 1 - from);
	if (inside >= sizeof text) {
		return false;
	}
	memcpy(text, from, inside);
	text[inside] = '\0';
	if (!parse_address(text, port, &a->hosts[0])) {
		return false;
	}
	a->count = 1;
	return true;
}

void next_hop_lookup(const struct domain_options *options, const char *domain,
		     struct next_hop_answer *answer)
{
	memset(answer, 0, sizeof *answer);
	answer->hosts = hosts_allocate(NEXT_HOP_MAX);
	for (uint32_t i = 0; i < options->gateway_count; i++) {
		const struct gateway *g = &options->gateways[i];

		lookup(answer, g->host, g->port, g->preference);
	}
	if (options->gateway_count == 0 &&
	    !lookup_literal(answer, domain, options->remote_smtp_port)) {
		lookup(answer, domain, options->remote_smtp_port, 0);
	}
	if (answer->count == 0) {
		free(answer->hosts);
		answer->hosts = NULL;
	}
}
