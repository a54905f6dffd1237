#include "agents/signing.h"

#include <errno.h>

#include "agents/scheduler.h"

void signing_init(struct signing *g, struct counter_set *set)
{
	g->messages = counter_create(set, "dkim_signed", COUNTER_SUM, "Messages signed by DKIM");
	g->signatures = counter_create(set, "dkim_signatures", COUNTER_SUM,
				       "DKIM signatures made: a message may get several");
	g->failed = counter_create(set, "dkim_failed", COUNTER_SUM,
				   "DKIM signatures that could not be made");
	g->no_author =
		counter_create(set, "dkim_unsigned_from", COUNTER_SUM,
			       "Messages not signed: no From field, or none with a domain, or two");
	g->no_policy = counter_create(set, "dkim_unsigned_domain", COUNTER_SUM,
				      "Messages not signed: no dkim scope for their domain");
	g->too_many_fields = counter_create(set, "dkim_unsigned_fields", COUNTER_SUM,
					    "Messages not signed: too many header fields");
	g->unsigned_failed = counter_create(set, "dkim_unsigned_failed", COUNTER_SUM,
					    "Messages not signed: all their signatures failed");
}

void signing_close(struct signing *g)
{
	if (g->signer != NULL) {
		dkim_signer_destroy(g->signer);
		g->signer = NULL;
	}
}

void signing_forget_keys(struct signing *g)
{
	if (g->signer != NULL) {
		dkim_signer_forget(g->signer);
	}
}

static uint64_t now_ns(const struct scheduler *s)
{
	return s->base.clock->monotonic_ns(s->base.clock->context);
}

/* What to sign with; NULL, and counted, when nothing. */
static const struct dkim_policy *find_policy(struct scheduler *s, const struct chain *message)
{
	struct signing *g = &s->signing;
	const struct dkim_policy *policy = NULL;
	char author[DKIM_DOMAIN_MAX];
	int rc;

	if (g->signer == NULL) {
		g->signer = dkim_signer_create();
	}
	rc = dkim_read(g->signer, message, author);
	if (rc == -E2BIG) {
		counter_inc(g->too_many_fields);
	} else if (rc != 0) {
		counter_inc(g->no_author);
	} else {
		policy = config_dkim(s->config, author);
		counter_add(g->no_policy, policy == NULL);
	}
	return policy;
}

const struct dkim_policy *scheduler_sign(struct scheduler *s, struct chain *message)
{
	struct signing *g = &s->signing;
	struct chain fields = CHAIN_EMPTY;
	const struct dkim_policy *policy;
	uint64_t began_ns;
	uint32_t made;

	if (config_dkim_count(s->config) == 0) {
		return NULL;
	}
	began_ns = now_ns(s);
	policy = find_policy(s, message);
	if (policy == NULL) {
		return NULL;
	}
	made = dkim_sign(g->signer, policy, agent_wall_ms(&s->base) / 1000, &fields,
			 &s->pools.buffers);
	chain_prepend_chain(message, &fields);
	counter_add(g->signatures, made);
	counter_inc(made > 0 ? g->messages : g->unsigned_failed);
	if (made < policy->count) {
		counter_add(g->failed, policy->count - made);
		agent_error(&s->base, 0, "a DKIM signature for %s could not be made",
			    policy->signatures[0].domain);
	}
	histogram_record(&g->ns, now_ns(s) - began_ns);
	return made > 0 ? policy : NULL;
}
