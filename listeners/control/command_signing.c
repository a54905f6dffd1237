/*
 * `signing_stats`: what was signed by DKIM, what was not and why, and how long it took.
 * `dkim reload`: keys are read anew (reload.h); each scheduler lets go of those from before.
 */
#include <stdlib.h>

#include "listeners/control/reload.h"

/* Keys that are shown. */
#define ROWS_MAX 100

/* Sums over schedulers of what anybody may read. */
static void set_counts(json_t *v)
{
	static const char *const causes[][2] = {
		{"dkim_unsigned_from", "without_one_author"},
		{"dkim_unsigned_domain", "domain_without_key"},
		{"dkim_unsigned_fields", "too_many_fields"},
		{"dkim_unsigned_failed", "signing_failed"},
	};
	json_t *not_signed = value_object();

	value_set_number(v, "signed_messages", counter_total("dkim_signed"));
	value_set_number(v, "signatures", counter_total("dkim_signatures"));
	value_set_number(v, "failed_signatures", counter_total("dkim_failed"));
	for (unsigned i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
		value_set_number(not_signed, causes[i][1], counter_total(causes[i][0]));
	}
	value_set(v, "unsigned_messages", not_signed);
}

static void set_times(json_t *v, const struct program *program)
{
	struct histogram *all = calloc(1, sizeof *all);

	if (all == NULL) {
		return;
	}
	for (uint32_t i = 0; i < program->scheduler_count; i++) {
		histogram_merge(all, &program->schedulers[i]->signing.ns);
	}
	value_set_number(v, "signing_time_p50_us", histogram_quantile(all, 0.5) / NS_PER_US);
	value_set_number(v, "signing_time_p99_us", histogram_quantile(all, 0.99) / NS_PER_US);
	value_set_number(v, "signing_time_max_us", histogram_quantile(all, 1) / NS_PER_US);
	free(all);
}

static json_t *signature_row(const struct dkim_signature *g, const struct dkim_key *key)
{
	json_t *row = value_object();

	value_set_text(row, "domain", g->domain);
	value_set_text(row, "selector", g->selector);
	value_set_text(row, "key", dkim_key_algorithm(key) == DKIM_RSA_SHA256 ? "rsa" : "ed25519");
	value_set_number(row, "key_bits", dkim_key_bits(key));
	return row;
}

void command_signing_stats(struct order *o)
{
	const struct config *config = order_config(o);
	json_t *v = value_object();
	json_t *rows = value_array();

	set_counts(v);
	set_times(v, o->program);
	for (uint32_t i = 0; i < config_dkim_count(config) && json_array_size(rows) < ROWS_MAX;
	     i++) {
		const struct dkim_policy *policy = config_dkim_at(config, i);
		const struct dkim_key *const *keys = dkim_keys_now(policy->keys);

		for (uint32_t j = 0; j < policy->count; j++) {
			const struct dkim_signature *g = &policy->signatures[j];

			value_append(rows, signature_row(g, keys[g->key]));
		}
	}
	value_set_number(v, "domains_with_keys", config_dkim_count(config));
	value_set(v, "keys", rows);
	order_answer(o, v);
}

/* ---- dkim reload ---- */

static void *renew(const struct config *config, char why[RELOAD_WHY])
{
	return config_dkim_renew(config, why);
}

static bool changes(const void *renewal)
{
	return config_dkim_renewal_changed(renewal) > 0;
}

static void publish(void *renewal)
{
	config_dkim_publish(renewal);
}

/* No message is being signed. */
static void notice(struct scheduler *s)
{
	signing_forget_keys(&s->signing);
}

static json_t *answer(const void *renewal)
{
	json_t *v = value_object();

	value_set_number(v, "keys_reloaded", config_dkim_renewal_changed(renewal));
	value_set_number(v, "keys_unchanged", config_dkim_renewal_unchanged(renewal));
	return v;
}

static void free_renewal(void *renewal)
{
	config_dkim_renewal_free(renewal);
}

void command_dkim_reload(struct order *o)
{
	static const struct reload_kind kind = {
		renew, changes, publish, notice, answer, free_renewal,
	};

	reload_begin(o, &kind);
}
