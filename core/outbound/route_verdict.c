/*
 * What a verdict means: to the domain that published a policy, and to whoever sent the mail.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/outbound/route.h"

void route_verdict_free(struct route_verdict *v)
{
	free(v->hosts);
	free(v->mx);
	v->hosts = NULL;
	v->mx = NULL;
}

/* ---- MTA-STS ---- */

/* False: the host is not to be used. */
static bool obey(struct host *h, const struct sts_policy *policy)
{
	bool listed = sts_policy_lists(policy, h->name);

	if (h->dane != NULL) {
		return true;
	}
	if (policy->mode == STS_MODE_ENFORCE) {
		h->sts = HOST_STS_ENFORCE;
		return listed;
	}
	h->sts = listed ? HOST_STS_TESTING : HOST_STS_TESTING_UNLISTED;
	return true;
}

void route_obey(struct route_verdict *v, const char *domain, const struct sts_policy *policy)
{
	uint32_t kept = 0;

	if (policy == NULL || policy->mode == STS_MODE_NONE || v->result != ROUTE_HOSTS) {
		return;
	}
	for (uint32_t i = 0; i < v->count; i++) {
		if (obey(&v->hosts[i], policy)) {
			v->hosts[kept++] = v->hosts[i];
		}
	}
	v->count = kept;
	if (kept == 0) {
		snprintf(v->text, sizeof v->text,
			 "the MTA-STS policy of %.80s lists none of its mail exchangers, such as "
			 "%.80s",
			 domain, v->hosts[0].name);
		route_verdict_free(v);
		v->result = ROUTE_STS;
		v->ttl_ms = 0;
	}
}

/* ---- what it means to a sender ---- */

bool route_is_permanent(enum route_result result)
{
	return result >= ROUTE_NXDOMAIN && result <= ROUTE_BAD_LITERAL;
}

uint16_t route_code(enum route_result result)
{
	return result == ROUTE_NULL_MX ? 556 : route_is_permanent(result) ? 550 : 451;
}

const char *route_enhanced(enum route_result result)
{
	switch (result) {
	case ROUTE_NXDOMAIN:
		return "5.1.2";
	case ROUTE_NULL_MX:
		return "5.1.10";
	case ROUTE_NO_ADDRESS:
		/* RFC 3463 section 3.5 names a domain with nothing but an SOA record. */
		return "5.4.4";
	case ROUTE_LOOP:
		return "5.4.6";
	case ROUTE_BAD_LITERAL:
		return "5.1.3";
	case ROUTE_BOGUS:
	case ROUTE_DANE:
	case ROUTE_STS:
		return "4.7.5";
	case ROUTE_HOSTS:
	case ROUTE_SERVFAIL:
	case ROUTE_TIMEOUT:
	case ROUTE_CANCELLED:
	case ROUTE_RESULTS:
		break;
	}
	return "4.4.3";
}
