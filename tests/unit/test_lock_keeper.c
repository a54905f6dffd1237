/*
 * msys.lock across schedulers: who gets a lock in which order, who waits too long, and what those
 * leave who go. Agents on one thread, stepped by hand; lookups keep hooks waiting.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/lock_keeper.h"
#include "core/mail/dns.h"
#include "core/runtime/runtime.h"
#include "tests/unit/policy_script.h"

#define PLAYERS 2
#define ASKED_MAX 8

/* A scheduler, as far as policy sees it. */
struct player {
	struct agent agent;
	struct policy *policy;
	struct policy_subject subject;
	struct policy_call calls[ASKED_MAX];
	unsigned call_count;
	unsigned done;
};

struct world {
	struct player players[PLAYERS];
	struct agent wheel;
	struct agent home;
	struct runtime rt;
	struct lock_keeper *keeper;
	struct policy_lookup *asked[ASKED_MAX];
	char printed[1024];
	/* The newest request for a timer. */
	struct agent *armed_by;
	uint64_t due_ms;
	uint64_t value;
};

static struct world *world;

static int do_nothing(struct agent *self)
{
	(void)self;
	return 0;
}

static void on_arm(struct agent *self, void *object, uint64_t value)
{
	if (object != NULL) {
		world->armed_by = self->sender;
		world->due_ms = (uintptr_t)object;
		world->value = value;
	}
}

static void on_print(void *context, const char *text, size_t len)
{
	size_t used = strlen(world->printed);

	(void)context;
	snprintf(world->printed + used, sizeof(world->printed) - used, "%.*s;", (int)len, text);
}

static void on_error(void *context, const char *text)
{
	on_print(context, text, strlen(text));
}

static void on_lookup(void *context, struct policy_lookup *q)
{
	unsigned i = 0;

	(void)context;
	while (world->asked[i] != NULL) {
		i++;
		assert_true(i < ASKED_MAX);
	}
	world->asked[i] = q;
}

static void ask(void *context, struct policy_lock *l)
{
	lock_keeper_ask(world->keeper, &((struct player *)context)->agent, l);
}

static void give_back(void *context, struct policy_lock *l)
{
	lock_keeper_release(world->keeper, &((struct player *)context)->agent, l);
}

static const struct policy_ops ops = {.print = on_print,
				      .error = on_error,
				      .lookup = on_lookup,
				      .lock = ask,
				      .unlock = give_back};
static const struct policy_subject_ops no_facts = {.known = NULL};

static void on_done(struct policy_call *c)
{
	((struct player *)c->subject->owner)->done++;
}

/* The argument is who asks: that is printed with the answer, and then looked up. */
static const char script[] =
	"msys.registerModule('m', { validate_ehlo = function(self, str) "
	"print(str, msys.lock('one')) msys.dnsLookup(str .. '.test') return 0 end })";

static void open_player(struct player *p, const struct policy_scripts *scripts)
{
	const struct policy_start start = {
		.scripts = scripts,
		.limits = {.memory_bytes = 8 << 20, .instructions = 100000},
		.ops = &ops,
		.context = p,
	};

	p->policy = policy_create(&p->agent, &start, stderr);
	assert_non_null(p->policy);
	policy_subject_init(&p->subject, p->policy, &no_facts, p);
}

static void load(void)
{
	struct policy_scripts scripts = {0};

	add_script(&scripts, "test", script);
	for (int i = 0; i < PLAYERS; i++) {
		open_player(&world->players[i], &scripts);
	}
	policy_scripts_close(&scripts);
}

static int setup(void **state)
{
	static const struct agent_ops agent_ops = {.kind = "test", .do_work = do_nothing};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct group *g;

	(void)state;
	world = aligned_alloc(CACHE_LINE, sizeof(*world));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	runtime_init(&world->rt, &fixed);
	world->rt.backend = MUX_POLL;
	g = runtime_group(&world->rt, "group", -1, &idle);
	agent_init(&world->players[0].agent, &agent_ops, "a", 0);
	agent_init(&world->players[1].agent, &agent_ops, "b", 0);
	agent_init(&world->home, &agent_ops, "home", 1);
	agent_init(&world->wheel, &agent_ops, "wheel", 6);
	runtime_add(&world->rt, g, &world->players[0].agent);
	runtime_add(&world->rt, g, &world->players[1].agent);
	runtime_add(&world->rt, g, &world->home);
	runtime_add(&world->rt, g, &world->wheel);
	runtime_set_wheel(&world->rt, &world->wheel, on_arm);
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	world->keeper = lock_keeper_create(&world->home);
	load();
	return 0;
}

static void settle(void)
{
	for (int i = 0; i < 10; i++) {
		runtime_step(&world->rt);
	}
}

static int teardown(void **state)
{
	(void)state;
	settle();
	for (int i = 0; i < PLAYERS; i++) {
		struct player *p = &world->players[i];

		policy_subject_close(&p->subject);
		assert_true(policy_drained(p->policy));
		policy_destroy(p->policy);
	}
	lock_keeper_destroy(world->keeper);
	assert_true(runtime_invoke_stop(&world->rt, 100));
	runtime_close(&world->rt);
	for (int i = 0; i < PLAYERS; i++) {
		agent_close(&world->players[i].agent);
	}
	agent_close(&world->home);
	agent_close(&world->wheel);
	free(world);
	return 0;
}

/* A hook that asks for the lock. */
static struct policy_call *begin(struct player *p, const char *who)
{
	struct policy_call *c = &p->calls[p->call_count++];

	*c = (struct policy_call){
		.subject = &p->subject, .hook = POLICY_EHLO, .argument = who, .on_done = on_done};
	assert_false(policy_call_begin(c));
	settle();
	return c;
}

/* Its lookup is answered: the hook that holds the lock ends. */
static void end(const char *who)
{
	const struct dns_answer none = {.type = DNS_A, .status = DNS_NXDOMAIN};
	char name[64];

	snprintf(name, sizeof(name), "%s.test", who);
	for (unsigned i = 0; i < ASKED_MAX; i++) {
		struct policy_lookup *q = world->asked[i];

		if (q != NULL && strcmp(q->name, name) == 0) {
			world->asked[i] = NULL;
			q->on_answer(q, &none);
			settle();
			return;
		}
	}
	fail_msg("%s looked nothing up", who);
}

static void test_get_when_it_is_ones_turn(void **state)
{
	struct player *p = world->players;

	(void)state;
	begin(&p[0], "a1");
	begin(&p[1], "b1");
	begin(&p[0], "a2");
	begin(&p[1], "b2");
	assert_string_equal(world->printed, "a1\ttrue;");
	end("a1");
	assert_string_equal(world->printed, "a1\ttrue;b1\ttrue;");
	end("b1");
	assert_string_equal(world->printed, "a1\ttrue;b1\ttrue;a2\ttrue;");
	end("a2");
	end("b2");
	assert_string_equal(world->printed, "a1\ttrue;b1\ttrue;a2\ttrue;b2\ttrue;");
	assert_int_equal(p[0].done + p[1].done, 4);
}

static void test_refuse_when_it_takes_too_long(void **state)
{
	struct player *p = world->players;

	(void)state;
	begin(&p[0], "a1");
	begin(&p[1], "b1");
	assert_ptr_equal(world->armed_by, &p[1].agent);
	assert_int_equal(world->due_ms, 1000 + 30000);
	agent_send(&world->wheel, &p[1].agent, timer_on_expired, (void *)(uintptr_t)world->due_ms,
		   world->value);
	settle();
	assert_string_equal(world->printed, "a1\ttrue;b1\tfalse\twaited 30 seconds;");
	/* The lock comes to who waits no more, and goes on. */
	begin(&p[0], "a2");
	end("a1");
	assert_string_equal(world->printed, "a1\ttrue;b1\tfalse\twaited 30 seconds;a2\ttrue;");
	end("a2");
	end("b1");
}

static void test_give_back_when_the_holder_is_gone(void **state)
{
	struct player *p = world->players;
	struct policy_call *holder = begin(&p[0], "a1");

	(void)state;
	begin(&p[1], "b1");
	policy_call_cancel(holder);
	settle();
	assert_string_equal(world->printed, "a1\ttrue;b1\ttrue;");
	end("a1");
	end("b1");
	assert_int_equal(p[0].done, 0);
	assert_int_equal(p[1].done, 1);
}

static void test_pass_over_when_one_who_waits_is_gone(void **state)
{
	struct player *p = world->players;
	struct policy_call *gone;

	(void)state;
	begin(&p[0], "a1");
	gone = begin(&p[1], "b1");
	begin(&p[0], "a2");
	policy_call_cancel(gone);
	settle();
	end("a1");
	assert_string_equal(world->printed, "a1\ttrue;a2\ttrue;");
	end("a2");
	assert_int_equal(p[1].done, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_get_when_it_is_ones_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuse_when_it_takes_too_long, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_give_back_when_the_holder_is_gone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_pass_over_when_one_who_waits_is_gone, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
