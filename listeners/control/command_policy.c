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
	char *text = check_memory(strndup(output, len), "a command");

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

/* What one scheduler's scripts did at one hook. */
SINGLE
struct hook_found {
	char module[POLICY_MODULE_NAME];
	enum policy_hook hook;
	uint64_t calls;
	uint64_t errors;
	uint64_t stopped;
	uint64_t suspended;
	struct histogram ns;
	/* It is in a row already. */
	bool told;
};

/* A part's, in part->found: of one scheduler. */
SINGLE
struct hooks_found {
	uint64_t memory;
	uint64_t memory_max;
	uint64_t in_place;
	uint64_t states;
	uint32_t count;
	struct hook_found list[];
};

static uint32_t count_hooks(const struct policy *p)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < policy_module_count(p); i++) {
		count += (uint32_t)__builtin_popcount(policy_module_at(p, i)->hooks &
						      ~(POLICY_BIT(POLICY_CONNECT) - 1));
	}
	return count;
}

static void find_hook(struct hook_found *f, const struct policy_module *m, enum policy_hook hook)
{
	const struct policy_stats *s = m->stats[hook];

	snprintf(f->module, sizeof(f->module), "%s", m->name);
	f->hook = hook;
	f->calls = atomic_load_explicit(&s->calls, memory_order_relaxed);
	f->errors = atomic_load_explicit(&s->errors, memory_order_relaxed);
	f->stopped = atomic_load_explicit(&s->stopped, memory_order_relaxed);
	f->suspended = atomic_load_explicit(&s->suspended, memory_order_relaxed);
	histogram_merge(&f->ns, &s->ns);
}

static void add_state(struct hooks_found *found, const struct policy *p)
{
	found->states++;
	found->memory += policy_memory(p);
	found->in_place += policy_ran_in_place(p);
	if (policy_memory_max(p) > found->memory_max) {
		found->memory_max = policy_memory_max(p);
	}
}

/* On each scheduler, whose states nobody else may look at. */
static bool find_hooks(struct part *part, struct agent *self)
{
	const struct policy_host *h = &order_scheduler_of(self)->policy;
	struct hooks_found *found = check_memory(
		calloc(1, sizeof(*found) + count_hooks(h->policy) * sizeof(found->list[0])),
		"a command");

	part->found = found;
	for (int hook = POLICY_CONNECT; hook < POLICY_HOOKS; hook++) {
		for (uint32_t i = 0; i < policy_module_count(h->policy); i++) {
			const struct policy_module *m = policy_module_at(h->policy, i);

			if ((m->hooks & POLICY_BIT(hook)) != 0) {
				find_hook(&found->list[found->count++], m, (enum policy_hook)hook);
			}
		}
	}
	if (h->policy != NULL) {
		add_state(found, h->policy);
	}
	for (const struct policy_old *old = h->old; old != NULL; old = old->next) {
		add_state(found, old->policy);
	}
	return true;
}

/* What the others found of the same goes into it. */
static void gather(const struct order *o, unsigned from, struct hook_found *into)
{
	for (unsigned i = from; i < o->part_count; i++) {
		struct hooks_found *found = o->parts[i].found;

		for (uint32_t k = 0; k < found->count; k++) {
			struct hook_found *f = &found->list[k];

			if (f != into && f->hook == into->hook &&
			    strcmp(f->module, into->module) == 0) {
				into->calls += f->calls;
				into->errors += f->errors;
				into->stopped += f->stopped;
				into->suspended += f->suspended;
				histogram_merge(&into->ns, &f->ns);
				f->told = true;
			}
		}
	}
}

static json_t *hook_row(const struct hook_found *f)
{
	json_t *row = value_object();

	value_set_text(row, "hook", policy_hook_name(f->hook));
	value_set_text(row, "module", f->module);
	value_set_number(row, "calls", f->calls);
	value_set_number(row, "errors", f->errors);
	value_set_number(row, "stopped", f->stopped);
	value_set_number(row, "suspended", f->suspended);
	value_set_number(row, "time_p50_us", histogram_quantile(&f->ns, 0.5) / NS_PER_US);
	value_set_number(row, "time_p99_us", histogram_quantile(&f->ns, 0.99) / NS_PER_US);
	return row;
}

static void answer_hooks(struct order *o)
{
	struct hooks_found all = {0};
	json_t *v = value_object();
	json_t *rows = value_array();

	for (unsigned i = 0; i < o->part_count; i++) {
		struct hooks_found *found = o->parts[i].found;

		all.memory += found->memory;
		all.in_place += found->in_place;
		all.states += found->states;
		all.memory_max =
			found->memory_max > all.memory_max ? found->memory_max : all.memory_max;
		for (uint32_t k = 0; k < found->count; k++) {
			if (!found->list[k].told) {
				gather(o, i, &found->list[k]);
				value_append(rows, hook_row(&found->list[k]));
			}
		}
	}
	value_set_number(v, "max_instructions", o->scheduler->global->policy_instructions);
	value_set_number(v, "max_memory_bytes", o->scheduler->global->policy_memory_bytes);
	value_set_number(v, "states", all.states);
	value_set_number(v, "memory_bytes", all.memory);
	value_set_number(v, "memory_peak_bytes", all.memory_max);
	value_set_number(v, "ran_in_place", all.in_place);
	value_set(v, "hooks", rows);
	order_answer(o, v);
}

void command_hooks(struct order *o)
{
	order_on_schedulers(o, find_hooks, answer_hooks);
}
