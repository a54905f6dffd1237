/*
 * Commands about policy: those that scripts have registered; `lua eval` and `lua check`; `hooks`.
 * Scripts run in the state of the console's scheduler.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/scripts.h"
#include "listeners/control/command.h"

/* ---- what runs in a state ---- */

static void on_ordered(void *context, const char *output, size_t len, bool failed)
{
	struct order *o = context;
	char *text = strndup(output, len);

	if (text == NULL) {
		fatal("out of memory for a command");
	}
	while (len > 0 && text[len - 1] == '\n') {
		text[--len] = '\0';
	}
	if (order_back(o)) {
		if (failed && o->command != NULL) {
			order_fail(o, "%s", text);
		} else {
			json_t *v = json_string(text);

			order_answer(o, v != NULL ? v : json_string("(no UTF-8 text)"));
		}
	}
	free(text);
}

static void begin(struct order *o, char *const *words, const char *code)
{
	struct policy *p = o->scheduler->policy.policy;

	if (p == NULL) {
		order_fail(o, "there are no scripts (scriptlet \"scriptlet\" { })");
		return;
	}
	order_wait(o);
	policy_order(p, words, o->word_count, code, on_ordered, o);
}

bool command_is_policy(const struct order *o)
{
	return policy_has_control(o->scheduler->policy.policy, o->words[0]);
}

void command_policy(struct order *o)
{
	begin(o, o->words, NULL);
}

/* The line as it was sent, behind the name of the command: quotes are Lua's, but for those around
 * all of it. */
void command_lua_eval(struct order *o)
{
	const char *at = o->line;
	size_t len;

	for (int word = 0; word < 2; word++) {
		at += strspn(at, " \t");
		at += strcspn(at, " \t");
	}
	at += strspn(at, " \t");
	len = strlen(at);
	while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t')) {
		len--;
	}
	if (len >= 2 && at[0] == '"' && at[len - 1] == '"') {
		at++;
		len -= 2;
	}
	memcpy(o->code, at, len);
	o->code[len] = '\0';
	begin(o, NULL, o->code);
}

/* ---- lua check ---- */

void command_lua_check(struct order *o)
{
	struct policy_scripts scripts = {0};
	char why[POLICY_WHY];

	if (o->arguments[0][0] != '/') {
		order_fail(o, "\"%.64s\": expected the whole path of a file, from / on",
			   o->arguments[0]);
		return;
	}
	if (policy_scripts_add(&scripts, "check", o->arguments[0], why) != 0) {
		order_fail(o, "%s", why);
	} else {
		order_answer(o, json_string("script valid"));
	}
	policy_scripts_close(&scripts);
}

/* ---- hooks ---- */

/* Sums over schedulers, which have the same modules, of what anybody may read. */
static json_t *hook_row(const struct program *p, const struct policy_module *m, uint32_t index,
			enum policy_hook hook)
{
	struct histogram *all = calloc(1, sizeof(*all));
	json_t *row = value_object();
	uint64_t sums[4] = {0};

	if (all == NULL) {
		fatal("out of memory for a command");
	}
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const struct policy *policy = p->schedulers[i]->policy.policy;
		const struct policy_stats *s =
			index < policy_module_count(policy)
				? policy_module_at(policy, index)->stats[hook]
				: NULL;

		if (s == NULL) {
			continue;
		}
		sums[0] += atomic_load_explicit(&s->calls, memory_order_relaxed);
		sums[1] += atomic_load_explicit(&s->errors, memory_order_relaxed);
		sums[2] += atomic_load_explicit(&s->stopped, memory_order_relaxed);
		sums[3] += atomic_load_explicit(&s->suspended, memory_order_relaxed);
		histogram_merge(all, &s->ns);
	}
	value_set_text(row, "hook", policy_hook_name(hook));
	value_set_text(row, "module", m->name);
	value_set_number(row, "calls", sums[0]);
	value_set_number(row, "errors", sums[1]);
	value_set_number(row, "stopped", sums[2]);
	value_set_number(row, "suspended", sums[3]);
	value_set_number(row, "time_p50_us", histogram_quantile(all, 0.5) / NS_PER_US);
	value_set_number(row, "time_p99_us", histogram_quantile(all, 0.99) / NS_PER_US);
	free(all);
	return row;
}

void command_hooks(struct order *o)
{
	const struct program *p = o->program;
	const struct policy *policy = o->scheduler->policy.policy;
	json_t *v = value_object();
	json_t *rows = value_array();
	uint64_t memory = 0;
	uint64_t memory_max = 0;

	for (int hook = POLICY_CONNECT; hook < POLICY_HOOKS; hook++) {
		for (uint32_t i = 0; i < policy_module_count(policy); i++) {
			const struct policy_module *m = policy_module_at(policy, i);

			if ((m->hooks & POLICY_BIT(hook)) != 0) {
				value_append(rows, hook_row(p, m, i, (enum policy_hook)hook));
			}
		}
	}
	for (uint32_t i = 0; policy != NULL && i < p->scheduler_count; i++) {
		const struct policy *one = p->schedulers[i]->policy.policy;

		memory += policy_memory(one);
		memory_max =
			policy_memory_max(one) > memory_max ? policy_memory_max(one) : memory_max;
	}
	value_set_number(v, "max_instructions", o->scheduler->global->policy_instructions);
	value_set_number(v, "max_memory_bytes", o->scheduler->global->policy_memory_bytes);
	value_set_number(v, "memory_bytes", memory);
	value_set_number(v, "memory_peak_bytes", memory_max);
	value_set(v, "hooks", rows);
	order_answer(o, v);
}
