#include "core/outbound/host_list.h"

#include <stdlib.h>
#include <string.h>

#include "core/outbound/bind_address.h"
#include "core/outbound/connection.h"

struct host *host_choose(struct lane *l, uint64_t now_ms, uint64_t *until_ms)
{
	struct host *best = NULL;

	*until_ms = UINT64_MAX;
	for (uint32_t i = 0; i < l->host_count; i++) {
		struct host *h = &l->hosts[i];

		if (!bind_address_allows(l->options, h->address.any.sa_family)) {
			continue;
		}
		if (h->failed_until_ms > now_ms) {
			*until_ms = h->failed_until_ms < *until_ms ? h->failed_until_ms : *until_ms;
		} else if (best == NULL || h->preference < best->preference ||
			   (h->preference == best->preference &&
			    h->connections < best->connections)) {
			best = h;
		}
	}
	return best;
}

void host_fail(struct host *h, uint64_t until_ms, const char *text, bool tls)
{
	h->failures++;
	h->failed_until_ms = until_ms;
	h->tls_failed = tls;
	free(h->trouble);
	h->trouble = strdup(text);
}

bool host_all_lack_tls(const struct lane *l)
{
	bool some = false;

	for (uint32_t i = 0; i < l->host_count; i++) {
		const struct host *h = &l->hosts[i];

		if (bind_address_allows(l->options, h->address.any.sa_family)) {
			some = true;
			if (!h->tls_failed) {
				return false;
			}
		}
	}
	return some;
}

static bool has_address(const struct host *h, const void *address, socklen_t len)
{
	return h->address_len == len && memcmp(&h->address, address, len) == 0;
}

struct host *host_of(const struct connection *c)
{
	struct lane *l = c->lane;

	for (uint32_t i = 0; i < l->host_count; i++) {
		if (has_address(&l->hosts[i], &c->address, c->address_len)) {
			return &l->hosts[i];
		}
	}
	return NULL;
}

/* An address that is listed twice is one host, with the lower preference: what is remembered of it
 * must be in one place. Returns how many remain. */
static uint32_t hosts_unique(struct host *hosts, uint32_t count)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t j = 0;

		while (j < kept &&
		       !has_address(&hosts[j], &hosts[i].address, hosts[i].address_len)) {
			j++;
		}
		if (j == kept) {
			hosts[kept++] = hosts[i];
		} else if (hosts[i].preference < hosts[j].preference) {
			hosts[j].preference = hosts[i].preference;
		}
	}
	return kept;
}

/* What was remembered of hosts that are in the new list too, and who is connected to them: maybe
 * since before the old list. */
static void hosts_carry_over(struct lane *l, struct host *hosts, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct host *h = &hosts[i];

		for (uint32_t j = 0; j < l->host_count; j++) {
			struct host *old = &l->hosts[j];

			if (has_address(h, &old->address, old->address_len)) {
				h->failed_until_ms = old->failed_until_ms;
				h->plain_until_ms = old->plain_until_ms;
				h->plain_owed = old->plain_owed;
				h->failures = old->failures;
				h->deliveries = old->deliveries;
				h->tls_failed = old->tls_failed;
				h->trouble = old->trouble;
				old->trouble = NULL;
			}
		}
		for (const struct connection *c = l->site->connections; c != NULL;
		     c = c->site_next) {
			h->connections +=
				c->lane == l && has_address(h, &c->address, c->address_len) ? 1 : 0;
		}
	}
}

/* The name service gives the same addresses in another order: nothing is new. TLSA records are not
 * compared. */
static bool is_known(const struct lane *l, const struct host *h)
{
	for (uint32_t i = 0; i < l->host_count; i++) {
		const struct host *old = &l->hosts[i];

		if (has_address(h, &old->address, old->address_len)) {
			return old->preference == h->preference && old->secure == h->secure &&
			       old->dane == NULL && h->dane == NULL && old->sts == h->sts &&
			       strcmp(old->name, h->name) == 0;
		}
	}
	return false;
}

static bool all_known(const struct lane *l, const struct host *hosts, uint32_t count)
{
	uint32_t known = 0;

	while (known < count && is_known(l, &hosts[known])) {
		known++;
	}
	return known == count && count == l->host_count;
}

void host_list_replace(struct lane *l, struct host *hosts, uint32_t count)
{
	count = hosts_unique(hosts, count);
	if (all_known(l, hosts, count)) {
		free(hosts);
		return;
	}
	hosts_carry_over(l, hosts, count);
	lane_free_hosts(l);
	l->hosts = hosts;
	l->host_count = count;
}
