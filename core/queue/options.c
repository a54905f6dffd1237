#include "core/queue/options.h"

#include <string.h>

#include "core/queue/throttle.h"
#include "core/runtime/text.h"
#include "core/runtime/tls.h"

bool domain_options_same_gateways(const struct domain_options *a, const struct domain_options *b)
{
	if (a->gateway_count != b->gateway_count) {
		return false;
	}
	for (uint32_t i = 0; a->gateways != b->gateways && i < a->gateway_count; i++) {
		const struct gateway *x = &a->gateways[i];
		const struct gateway *y = &b->gateways[i];

		if (x->port != y->port || x->preference != y->preference ||
		    strcmp(x->host, y->host) != 0) {
			return false;
		}
	}
	return true;
}

static bool same_suffixes(const struct domain_options *a, const struct domain_options *b)
{
	if (a->mx_suffix_count != b->mx_suffix_count) {
		return false;
	}
	for (uint32_t i = 0; i < a->mx_suffix_count; i++) {
		if (strcmp(a->mx_suffixes[i], b->mx_suffixes[i]) != 0) {
			return false;
		}
	}
	return true;
}

bool domain_options_same_bind(const struct domain_options *a, const struct domain_options *b)
{
	return a->bind_address_count == b->bind_address_count &&
	       (a->bind_address_count == 0 ||
		memcmp(a->bind_addresses, b->bind_addresses,
		       a->bind_address_count * sizeof(a->bind_addresses[0])) == 0);
}

/* The rate is the slot's: who shares one has the same. */
static bool same_throttle(const struct throttle *a, const struct throttle *b)
{
	return a == b ||
	       (throttle_same_slot(a, b) && a->count == b->count && a->period_s == b->period_s);
}

/* All that is no pointer; what pads the struct is zero, as it is interned. */
static bool same_numbers(const struct domain_options *a, const struct domain_options *b)
{
	struct domain_options x;
	struct domain_options y;
	struct domain_options *both[] = {&x, &y};

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	for (int i = 0; i < 2; i++) {
		both[i]->gateways = NULL;
		both[i]->bind_addresses = NULL;
		both[i]->tls_client = NULL;
		both[i]->ehlo_hostname = NULL;
		both[i]->mailerdaemon = NULL;
		both[i]->throttle_messages = NULL;
		both[i]->throttle_connections = NULL;
		both[i]->mx_suffixes = NULL;
	}
	return memcmp(&x, &y, sizeof(x)) == 0;
}

bool domain_options_same(const struct domain_options *a, const struct domain_options *b)
{
	return a == b || (same_numbers(a, b) && domain_options_same_gateways(a, b) &&
			  domain_options_same_bind(a, b) &&
			  tls_client_same_roots(a->tls_client, b->tls_client) &&
			  text_same(a->ehlo_hostname, b->ehlo_hostname) &&
			  text_same(a->mailerdaemon, b->mailerdaemon) &&
			  same_throttle(a->throttle_messages, b->throttle_messages) &&
			  same_throttle(a->throttle_connections, b->throttle_connections) &&
			  same_suffixes(a, b));
}
