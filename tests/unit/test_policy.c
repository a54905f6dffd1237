/*
 * policy.h: what scripts may take, what goes wrong in them, what waits, and how long objects live.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mail/dns.h"
#include "tests/unit/policy_script.h"

#define PRINTED 4096

/* A policy with a script, and what it asked for. */
struct world {
	struct agent agent;
	struct policy *policy;
	struct policy_subject subject;
	struct policy_lookup *asked;
	char printed[PRINTED];
	char errors[PRINTED];
	unsigned error_count;
	/* So many errors are told. */
	unsigned errors_max;
	unsigned done;
};

static void on_print(void *context, const char *text, size_t len)
{
	struct world *w = context;

	snprintf(w->printed + strlen(w->printed), PRINTED - strlen(w->printed), "%.*s;", (int)len,
		 text);
}

static void on_error(void *context, const char *text)
{
	struct world *w = context;

	snprintf(w->errors, PRINTED, "%s", text != NULL ? text : "one more");
	w->error_count++;
}

static bool tells_errors(void *context)
{
	struct world *w = context;

	return w->error_count < w->errors_max;
}

static void on_lookup(void *context, struct policy_lookup *q)
{
	struct world *w = context;

	assert_null(w->asked);
	w->asked = q;
}

static bool is_binding(void *context, const char *name)
{
	(void)context;
	return strcmp(name, "known") == 0;
}

static const struct policy_ops ops = {
	.print = on_print,
	.error = on_error,
	.tells = tells_errors,
	.lookup = on_lookup,
	.is_binding = is_binding,
};
static const struct policy_subject_ops no_facts = {.known = NULL};

/* What one call may take; of processor time, too. */
static uint64_t instructions = 100000;

static struct policy *load(struct world *w, const char *text, FILE *errors)
{
	struct policy_scripts scripts = {0};
	const struct policy_start start = {
		.scripts = &scripts,
		.limits = {.memory_bytes = 4 << 20, .instructions = instructions},
		.ops = &ops,
		.context = w,
		.before = w->policy,
	};
	struct policy *p;

	add_script(&scripts, "test", text);
	w->agent.clock = &fixed;
	p = policy_create(&w->agent, &start, errors);
	policy_scripts_close(&scripts);
	return p;
}

static struct world *open_world(const char *text)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->errors_max = UINT32_MAX;
	w->policy = load(w, text, stderr);
	assert_non_null(w->policy);
	policy_subject_init(&w->subject, w->policy, &no_facts, w);
	return w;
}

static void close_world(struct world *w)
{
	policy_subject_close(&w->subject);
	assert_true(policy_drained(w->policy));
	policy_destroy(w->policy);
	free(w);
}

static void on_done(struct policy_call *c)
{
	struct world *w = c->subject->owner;

	w->done++;
}

static struct policy_call call_of(struct world *w, enum policy_hook hook, const char *argument)
{
	return (struct policy_call){
		.subject = &w->subject,
		.hook = hook,
		.argument = argument,
		.on_done = on_done,
	};
}

/* A hook that ends at once. */
static enum policy_result run(struct world *w, enum policy_hook hook, const char *argument)
{
	struct policy_call c = call_of(w, hook, argument);

	assert_true(policy_call_begin(&c));
	return c.result;
}

static uint64_t count(const _Atomic uint64_t *value)
{
	return atomic_load(value);
}

#define EHLO(body) "msys.registerModule('m', { validate_ehlo = function(self, str) " body " end })"

static void test_hooks_are_those_of_all_modules(void **state)
{
	struct world *w = open_world(
		"msys.registerModule('a', { validate_ehlo = print, other = print })"
		"msys.registerModule('b', { validate_data = print, validate_ehlo = 1 })");

	(void)state;
	assert_int_equal(policy_hooks(w->policy),
			 POLICY_BIT(POLICY_EHLO) | POLICY_BIT(POLICY_DATA));
	assert_int_equal(policy_module_count(w->policy), 2);
	close_world(w);
	assert_int_equal(policy_hooks(NULL), 0);
}

static void test_script_that_fails_ends_the_start(void **state)
{
	static const char *const scripts[] = {
		"error('no')",
		"msys.registerModule('m', { })",
		"while true do end",
		"msys.registerModule('m', { init = function() return false end })",
		"msys.sleep(1)",
		"local t = {} while true do t[#t + 1] = ('x'):rep(9999) .. #t end",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		struct world *w = calloc(1, sizeof(*w));
		char said[1024] = "";
		FILE *errors = fmemopen(said, sizeof(said), "w");

		assert_null(load(w, scripts[i], errors));
		fclose(errors);
		assert_true(said[0] != '\0');
		free(w);
	}
}

static void test_error_names_its_place_and_way(void **state)
{
	struct world *w = open_world(EHLO("local t = nil\nreturn t.x"));
	char told[128];

	(void)state;
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
	assert_int_equal(w->error_count, 1);
	snprintf(told, sizeof(told), "%s:2: attempt to index local 't'",
		 strrchr(script_path(), '/') + 1);
	assert_non_null(strstr(w->errors, told));
	assert_non_null(strstr(w->errors, "stack traceback:"));
	assert_int_equal(count(&policy_module_at(w->policy, 0)->stats[POLICY_EHLO]->errors), 1);
	close_world(w);
}

static void test_error_of_any_kind_is_told(void **state)
{
	static const char *const bodies[] = {"error()",
					     "error({})",
					     "error(12)",
					     "error(nil, 0)",
					     "coroutine.yield(1)",
					     "local function f() return 1 + f() end return f()"};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		char text[256];
		struct world *w;

		snprintf(text, sizeof(text), EHLO("%s"), bodies[i]);
		w = open_world(text);
		assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
		assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
		assert_int_equal(w->error_count, 2);
		close_world(w);
	}
}

static void test_errors_are_counted_beyond_what_is_told(void **state)
{
	struct world *w = open_world(EHLO("error('wrong')"));

	(void)state;
	w->errors_max = 1;
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
	assert_non_null(strstr(w->errors, "wrong"));
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
	assert_string_equal(w->errors, "one more");
	assert_int_equal(w->error_count, 2);
	close_world(w);
}

static void test_budget_stops_whatever_catches_errors(void **state)
{
	static const char *const bodies[] = {
		"while true do end",
		"while true do pcall(function() while true do end end) end",
		"local function f() pcall(f) end f() while true do end",
		"while true do xpcall(function() while true do end end, "
		"function() while true do end end) end",
		"local c = coroutine.wrap(function() while true do end end) "
		"while true do pcall(c) end",
		"pcall(function() while true do end end) return 0",
		"do return pcall(function() while true do end end) end",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		char text[256];
		struct world *w;

		snprintf(text, sizeof(text), EHLO("if str == 'x' then %s end return 0"), bodies[i]);
		w = open_world(text);
		assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
		assert_int_equal(
			count(&policy_module_at(w->policy, 0)->stats[POLICY_EHLO]->stopped), 1);
		/* The next one has a budget of its own. */
		assert_int_equal(run(w, POLICY_EHLO, "y"), POLICY_GO_ON);
		close_world(w);
	}
}

static void test_memory_is_capped_and_had_again(void **state)
{
	struct world *w;

	(void)state;
	/* Memory ends first, however slow the machine is. */
	instructions *= 1000;
	w = open_world(
		EHLO("if str == 'x' then local t = {} while true do t[#t + 1] = ('x'):rep(9999) .. "
		     "#t end end local s = ('x'):rep(1000000) return 0"));
	instructions /= 1000;
	for (int i = 0; i < 10; i++) {
		assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_FAILED);
		assert_non_null(strstr(w->errors, "not enough memory"));
		assert_int_equal(run(w, POLICY_EHLO, "y"), POLICY_GO_ON);
	}
	assert_true(policy_memory_max(w->policy) <= (4 << 20) + (256 << 10));
	close_world(w);
}

static void test_only_what_is_safe_is_there(void **state)
{
	struct world *w = open_world(
		"for _, n in ipairs { 'io', 'ffi', 'jit', 'package', 'dofile', 'loadfile', 'newproxy' } do "
		"assert(_G[n] == nil, n) end assert(not os.execute and not os.exit and not debug.sethook) "
		"assert(not string.dump) "
		"assert(select(2, loadstring('\\27LJ\\2')):find('wrong mode')) "
		"assert(load('return 1')() == 1) "
		"assert(not pcall(collectgarbage, 'stop')) assert(collectgarbage('count') > 0)");

	(void)state;
	close_world(w);
}

static void test_session_has_a_self_of_its_own(void **state)
{
	struct world *w =
		open_world("local m = { shared = 1 } function m:validate_ehlo(str) "
			   "self.n = (self.n or 0) + self.shared print(self.n) return 0 end "
			   "msys.registerModule('m', m)");
	struct policy_subject other;
	struct policy_call c;

	(void)state;
	run(w, POLICY_EHLO, "x");
	run(w, POLICY_EHLO, "x");
	policy_subject_init(&other, w->policy, &no_facts, w);
	c = call_of(w, POLICY_EHLO, "x");
	c.subject = &other;
	assert_true(policy_call_begin(&c));
	policy_subject_close(&other);
	assert_string_equal(w->printed, "1;2;1;");
	close_world(w);
}

static void test_object_that_is_over_says_so(void **state)
{
	struct world *w = open_world(
		"msys.registerModule('m', { validate_data = function(self, msg, ac, vctx) "
		"if kept then print(select(2, pcall(kept.id, kept))) else kept = msg end "
		"print(msg:mailfrom()) return 0 end })");
	struct policy_mail mail;

	(void)state;
	for (int i = 0; i < 2; i++) {
		policy_mail_init(&mail);
		snprintf(mail.sender, sizeof(mail.sender), "sender%d@x.test", i);
		policy_subject_set_mail(&w->subject, &mail);
		assert_int_equal(run(w, POLICY_DATA, ""), POLICY_GO_ON);
		policy_subject_set_mail(&w->subject, NULL);
		policy_mail_close(&mail);
	}
	assert_string_equal(w->printed, "sender0@x.test;this msg is over: it cannot be kept beyond "
					"its transaction;sender1@x.test;");
	close_world(w);
}

static void test_wrong_objects_are_refused(void **state)
{
	struct world *w = open_world(
		"msys.registerModule('m', { validate_connect = function(self, ac, vctx) "
		"print(pcall(ac.peer, vctx)) print(pcall(vctx.set, ac)) print(pcall(ac.peer, {})) "
		"print(getmetatable(ac)) print(pcall(setmetatable, ac, {})) return 0 end })");

	(void)state;
	assert_int_equal(run(w, POLICY_CONNECT, ""), POLICY_GO_ON);
	assert_non_null(strstr(w->printed, "accept expected, got userdata"));
	assert_non_null(strstr(w->printed, "accept expected, got table"));
	close_world(w);
}

#define ASKS EHLO("local r, why = msys.dnsLookup('a.test') print(r and r[1] or why) return 0")

static void answer(struct world *w, enum dns_status status)
{
	const struct dns_answer a = {.type = DNS_A, .status = status};
	struct policy_lookup *q = w->asked;

	assert_non_null(q);
	w->asked = NULL;
	q->on_answer(q, &a);
}

static void test_hook_that_waits_suspends_its_session_only(void **state)
{
	struct world *w = open_world(ASKS);
	struct policy_call c = call_of(w, POLICY_EHLO, "x");
	struct policy_stats *stats = policy_module_at(w->policy, 0)->stats[POLICY_EHLO];

	(void)state;
	assert_false(policy_call_begin(&c));
	assert_int_equal(count(&stats->suspended), 1);
	assert_false(policy_drained(w->policy));
	assert_int_equal(w->done, 0);
	answer(w, DNS_NXDOMAIN);
	assert_int_equal(w->done, 1);
	assert_int_equal(c.result, POLICY_GO_ON);
	assert_int_equal(count(&stats->suspended), 0);
	assert_string_equal(w->printed, "nxdomain;");
	close_world(w);
}

static void test_hook_may_be_dropped_while_it_waits(void **state)
{
	struct world *w = open_world(ASKS);
	struct policy_call c = call_of(w, POLICY_EHLO, "x");

	(void)state;
	assert_false(policy_call_begin(&c));
	policy_call_cancel(&c);
	policy_call_cancel(&c);
	/* The answer finds nobody. */
	assert_false(policy_drained(w->policy));
	answer(w, DNS_NXDOMAIN);
	assert_int_equal(w->done, 0);
	assert_string_equal(w->printed, "");
	close_world(w);
}

static void test_nothing_waits_where_it_cannot(void **state)
{
	struct world *w = open_world(EHLO(
		"print(pcall(coroutine.wrap(function() msys.dnsLookup('a.test') end))) "
		"print(pcall(table.sort, { 1, 2, 3 }, function() msys.dnsLookup('a.test') end)) "
		"return 0"));

	(void)state;
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	assert_null(w->asked);
	assert_non_null(strstr(w->printed, "not a coroutine in it"));
	assert_non_null(strstr(w->printed, "sort or gsub"));
	close_world(w);
}

static void test_error_behind_a_wait_is_told(void **state)
{
	struct world *w = open_world(EHLO("msys.dnsLookup('a.test') while true do end"));
	struct policy_call c = call_of(w, POLICY_EHLO, "x");

	(void)state;
	assert_false(policy_call_begin(&c));
	answer(w, DNS_NODATA);
	assert_int_equal(w->done, 1);
	assert_int_equal(c.result, POLICY_FAILED);
	close_world(w);
}

static void test_missing_return_is_told_once(void **state)
{
	struct world *w = open_world(EHLO(""));

	(void)state;
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	assert_string_equal(w->printed,
			    "validate_ehlo of module m returns nothing: taken as VALIDATE_CONT;");
	close_world(w);
}

/* ---- one state after the other ---- */

#define NAMED(name)                                                                                \
	"local m = {} function m:validate_ehlo(str, ac, vctx) self.n = (self.n or 0) + 1 "         \
	"print('" name "', self.n, vctx:get(msys.core.VCTX_CONN, 'k')) "                           \
	"vctx:set(msys.core.VCTX_CONN, 'k', 'v') "                                                 \
	"if str == 'wait' then msys.dnsLookup('a.test') print('" name " goes on') end return 0 "   \
	"end function m:deinit() print('" name " ends') end msys.registerModule('m', m)"

static void test_what_waits_ends_in_a_state_that_is_retired(void **state)
{
	struct world *w = open_world(NAMED("old"));
	struct policy *old = w->policy;
	struct policy_call c = call_of(w, POLICY_EHLO, "wait");

	(void)state;
	assert_true(policy_idle(old));
	assert_false(policy_call_begin(&c));
	policy_stop_timers(old);
	assert_false(policy_idle(old));
	answer(w, DNS_NODATA);
	assert_int_equal(c.result, POLICY_GO_ON);
	assert_true(policy_idle(old));
	assert_string_equal(w->printed, "old\t1\tnil;old goes on;");
	close_world(w);
}

static void test_session_goes_from_a_state_to_the_next(void **state)
{
	struct world *w = open_world(NAMED("old"));
	struct policy *old = w->policy;
	struct policy_subject idle;

	(void)state;
	policy_subject_init(&idle, old, &no_facts, w);
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	w->policy = load(w, NAMED("new"), stderr);
	assert_non_null(w->policy);
	policy_subject_move(&w->subject, w->policy);
	/* Nobody is in the way of its end: not who has not moved. */
	assert_true(policy_idle(old));
	policy_destroy(old);
	w->printed[0] = '\0';
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	assert_string_equal(w->printed, "new\t1\tv;");
	policy_subject_set_mail(&idle, NULL);
	policy_subject_close(&idle);
	close_world(w);
}

static void test_session_moves_when_its_state_is_closed(void **state)
{
	struct world *w = open_world(NAMED("old"));
	struct policy *old = w->policy;

	(void)state;
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	w->policy = load(w, NAMED("new"), stderr);
	policy_destroy(old);
	policy_subject_move(&w->subject, w->policy);
	w->printed[0] = '\0';
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	assert_string_equal(w->printed, "new\t1\tv;");
	close_world(w);
}

static void test_counts_of_a_module_go_on(void **state)
{
	struct world *w = open_world(NAMED("old"));
	struct policy *old = w->policy;
	const struct policy_stats *stats;

	(void)state;
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	/* One that fails leaves them as they are. */
	assert_null(load(w, NAMED("bad") " error('no')", stderr));
	w->policy = load(w, NAMED("new"), stderr);
	policy_subject_move(&w->subject, w->policy);
	policy_destroy(old);
	stats = policy_module_at(w->policy, 0)->stats[POLICY_EHLO];
	assert_int_equal(count(&stats->calls), 1);
	assert_int_equal(run(w, POLICY_EHLO, "x"), POLICY_GO_ON);
	assert_int_equal(count(&stats->calls), 2);
	assert_int_equal(stats->users, 1);
	close_world(w);
}

static void test_all_that_waits_may_be_ended(void **state)
{
	struct world *w = open_world(NAMED("old"));
	struct policy_stats *stats = policy_module_at(w->policy, 0)->stats[POLICY_EHLO];
	struct policy_call c = call_of(w, POLICY_EHLO, "wait");

	(void)state;
	assert_false(policy_call_begin(&c));
	policy_stop_timers(w->policy);
	assert_int_equal(policy_end_all(w->policy, "because"), 1);
	assert_int_equal(w->done, 1);
	assert_int_equal(c.result, POLICY_FAILED);
	assert_int_equal(count(&stats->stopped), 1);
	assert_int_equal(count(&stats->suspended), 0);
	assert_int_equal(policy_end_all(w->policy, "because"), 0);
	/* The one who was asked still has the question. */
	assert_false(policy_idle(w->policy));
	answer(w, DNS_NODATA);
	assert_true(policy_idle(w->policy));
	assert_null(strstr(w->printed, "goes on"));
	close_world(w);
}

static void test_deinit_may_not_require(void **state)
{
	struct world *w = open_world(
		"local m = {} function m:deinit() print(select(2, pcall(require, 'nothing'))) end "
		"msys.registerModule('m', m)");
	struct policy *p = w->policy;

	(void)state;
	policy_subject_close(&w->subject);
	policy_destroy(p);
	assert_non_null(strstr(w->printed, "only while scripts are loaded"));
	free(w);
}

static void make_scripts(struct policy_scripts *s, const char *first, const char *second)
{
	*s = (struct policy_scripts){0};
	add_script(s, "a", first);
	add_script(s, "b", second);
}

static void test_digest_tells_other_scripts(void **state)
{
	static const struct {
		const char *first;
		const char *second;
		bool same;
	} cases[] = {
		{"x = 1", "y = 2", true},  {"x = 2", "y = 2", false},  {"x = 1", "y = 1", false},
		{"y = 2", "x = 1", false}, {"x = 1 ", "y = 2", false}, {"x = 1", "", false},
	};
	struct policy_scripts one;

	(void)state;
	make_scripts(&one, "x = 1", "y = 2");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct policy_scripts other;

		make_scripts(&other, cases[i].first, cases[i].second);
		assert_int_equal(memcmp(one.digest, other.digest, POLICY_DIGEST) == 0,
				 cases[i].same);
		policy_scripts_close(&other);
	}
	policy_scripts_close(&one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hooks_are_those_of_all_modules),
		cmocka_unit_test(test_script_that_fails_ends_the_start),
		cmocka_unit_test(test_error_names_its_place_and_way),
		cmocka_unit_test(test_error_of_any_kind_is_told),
		cmocka_unit_test(test_errors_are_counted_beyond_what_is_told),
		cmocka_unit_test(test_budget_stops_whatever_catches_errors),
		cmocka_unit_test(test_memory_is_capped_and_had_again),
		cmocka_unit_test(test_only_what_is_safe_is_there),
		cmocka_unit_test(test_session_has_a_self_of_its_own),
		cmocka_unit_test(test_object_that_is_over_says_so),
		cmocka_unit_test(test_wrong_objects_are_refused),
		cmocka_unit_test(test_hook_that_waits_suspends_its_session_only),
		cmocka_unit_test(test_hook_may_be_dropped_while_it_waits),
		cmocka_unit_test(test_nothing_waits_where_it_cannot),
		cmocka_unit_test(test_error_behind_a_wait_is_told),
		cmocka_unit_test(test_missing_return_is_told_once),
		cmocka_unit_test(test_what_waits_ends_in_a_state_that_is_retired),
		cmocka_unit_test(test_session_goes_from_a_state_to_the_next),
		cmocka_unit_test(test_session_moves_when_its_state_is_closed),
		cmocka_unit_test(test_counts_of_a_module_go_on),
		cmocka_unit_test(test_all_that_waits_may_be_ended),
		cmocka_unit_test(test_deinit_may_not_require),
		cmocka_unit_test(test_digest_tells_other_scripts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
