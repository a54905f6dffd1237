/*
 * Schedulers that come and go: who is there, who takes connections, where mail is and what is left
 * of who has gone; what cannot be done and what is there then.
 */
#include "tests/unit/crew_world.h"

/* ---- who comes and who goes ---- */

static void test_schedulers_join(void **state)
{
	const struct scheduler *s;

	(void)state;
	check_crew(2);
	nothing_is_sent();
	mail_for_all();
	settle();
	check_records(2, DOMAINS);
	change(4);
	check_records(4, DOMAINS);
	assert_int_equal(rig->program.scheduler_count, 4);
	s = rig->program.schedulers[3];
	assert_string_equal(s->base.name, "scheduler.3");
	assert_string_equal(s->base.group->name, "scheduler.3");
	assert_int_equal(s->index, 3);
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	assert_int_equal(delivered(), DOMAINS);
	assert_true(counter_get(s->delivered) > 0);
	check_service(4);
}

/* One that has left keeps its place, its id and its counters, and comes back to them. */
static void test_schedulers_leave_and_come_back(void **state)
{
	struct scheduler *s = &rig->schedulers[1];
	uint64_t counted;
	uint64_t ids;
	uint8_t id = s->base.id;

	(void)state;
	check_service(2);
	counted = counter_get(s->delivered);
	assert_true(counted > 0);
	nothing_is_sent();
	mail_for_all();
	settle();
	ids = s->id_count;
	change(1);
	check_records(1, DOMAINS);
	assert_int_equal(counter_get(s->delivered), counted);
	assert_int_equal(rig->program.scheduler_count, 2);
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	assert_int_equal(delivered(), 2UL * DOMAINS);
	change(3);
	assert_ptr_equal(rig->program.schedulers[1], s);
	assert_int_equal(s->base.id, id);
	assert_int_equal(s->id_count, ids);
	assert_int_equal(counter_get(s->delivered), counted);
	check_service(3);
	change(1);
	change(2);
	check_service(2);
	assert_nothing_left();
}

struct sums {
	uint64_t received;
	uint64_t delivered;
	uint64_t failed;
	uint64_t refused;
};

static struct sums sums_of(uint32_t schedulers)
{
	struct sums sum = {0};

	for (uint32_t i = 0; i < schedulers; i++) {
		const struct scheduler *s = rig->program.schedulers[i];
		const struct binding_record *b = binding_default(&s->dispatcher.bindings);

		sum.received += b->received;
		sum.delivered += b->delivered;
		sum.failed += b->failed;
		for (uint32_t n = 0; n < s->refusals.used; n++) {
			sum.refused += s->refusals.entries[n].count;
		}
	}
	return sum;
}

static void assert_same_sums(const struct sums *a, const struct sums *b)
{
	assert_int_equal(a->received, b->received);
	assert_int_equal(a->delivered, b->delivered);
	assert_int_equal(a->failed, b->failed);
	assert_int_equal(a->refused, b->refused);
}

/* Sums of bindings and of what next hops said are complete, and nothing is counted twice. */
static void test_totals_stay_with_the_first(void **state)
{
	struct sums before;
	struct sums first;
	struct sums now;

	(void)state;
	check_service(2);
	rig->good->reply[PEER_RCPT] = "550 5.1.1 nobody";
	mail_for_all();
	pass_ms(1000);
	first = sums_of(1);
	before = sums_of(2);
	assert_true(first.received > 0 && first.received < before.received);
	assert_true(first.delivered < before.delivered);
	assert_int_equal(before.failed, DOMAINS);
	assert_int_equal(before.refused, DOMAINS);
	assert_true(first.failed < DOMAINS && first.refused < DOMAINS);
	change(1);
	now = sums_of(1);
	assert_same_sums(&now, &before);
	change(2);
	now = sums_of(2);
	assert_same_sums(&now, &before);
	change(1);
	now = sums_of(1);
	assert_same_sums(&now, &before);
}

/* Who has just come has heard of no order, but obeys it, for as long as it was given. */
static void test_orders_to_bindings_reach_who_joins(void **state)
{
	uint64_t now_ms = rig->now.wall_ns / NS_PER_MS;
	const struct binding_record *b;
	const char *name;

	(void)state;
	by = "lost";
	for (uint32_t i = 0; i < 2; i++) {
		struct dispatcher *x = dispatcher_at(i);

		enter(&rig->schedulers[i]);
		dispatch_order_binding(x, binding_open(&x->bindings, by), BINDING_SUSPENDED,
				       suspension_new("somebody", now_ms, now_ms + 3600000));
		dispatch_order_binding(x, binding_open(&x->bindings, "other"), BINDING_RESUMED,
				       NULL);
		leave(&rig->schedulers[i]);
	}
	change(3);
	b = binding_find(&dispatcher_at(2)->bindings, by);
	assert_non_null(b);
	assert_int_equal(b->order, BINDING_SUSPENDED);
	assert_string_equal(b->suspension->by, "somebody");
	assert_int_equal(b->suspension->since_ms, now_ms);
	assert_int_equal(b->suspension->until_ms, now_ms + 3600000);
	b = binding_find(&dispatcher_at(2)->bindings, "other");
	assert_int_equal(b->order, BINDING_RESUMED);
	assert_null(b->suspension);
	name = domain_of(2, 3);
	enter(rig->program.schedulers[2]);
	scheduler_on_delivery(&rig->program.schedulers[2]->base,
			      delivery_for(rig->program.schedulers[2], name), 0);
	leave(rig->program.schedulers[2]);
	pass_ms(1000);
	assert_int_equal(record_at(2, name)->active_count, 1);
	assert_int_equal(record_at(2, name)->hold, DOMAIN_BINDING_SUSPENDED);
	pass_ms(3600000);
	assert_int_equal(delivered(), 1);
}

/* ---- plans ---- */

/* One is under way when the others come, of which the last is carried out. */
static void test_last_of_several_plans_is_carried_out(void **state)
{
	struct crew_plan plan = plan_of(3);

	(void)state;
	begin(3);
	set(&(struct crew_plan){.schedulers = 1}, 2);
	plan.schedulers = 4;
	set(&plan, 3);
	while (answers == 0) {
		runtime_step(&rig->program.runtime);
	}
	assert_int_equal(last_answer, 1);
	assert_int_equal(rig->program.home_count, 3);
	wait_until_answered();
	assert_int_equal(answers, 3);
	assert_int_equal(result, 0);
	check_crew(4);
	/* Nobody has left in between. */
	assert_int_equal(counter_get(dispatcher_at(1)->moved), 0);
	assert_int_equal(rig->program.scheduler_count, 4);
}

/* Threads get their cores and strategies; those that nothing is said of, and that are not there,
 * do not. */
static void test_threads_are_tuned(void **state)
{
	static const struct idle backoff = {.kind = IDLE_BACKOFF, .max_park_ns = 1000};
	struct crew_plan plan = plan_of(2);
	struct group *log = rig->program.log->group;
	struct group *wheel = wheel_agent_base(rig->wheel)->group;
	struct group *own = rig->schedulers[1].base.group;

	(void)state;
	plan.idle = backoff;
	plan.cores[1] = 0;
	plan.threads[0] = (struct crew_thread){.name = "nobody", .core = 0, .idle = backoff};
	plan.threads[1] = (struct crew_thread){.name = "wheel", .core = 0, .idle = backoff};
	plan.thread_count = 2;
	change_by(&plan, 0);
	check_crew(2);
	assert_int_equal(wheel->idle_kind, IDLE_BACKOFF);
	assert_int_equal(wheel->core, 0);
	assert_int_equal(own->idle_kind, IDLE_BACKOFF);
	assert_int_equal(own->core, 0);
	assert_int_equal(rig->schedulers[0].base.group->idle_kind, IDLE_BACKOFF);
	assert_int_equal(rig->schedulers[0].base.group->core, -1);
	assert_int_equal(log->idle_kind, IDLE_PARK);
	/* One that comes back, and one that is new, have what is said then. */
	change(1);
	plan.schedulers = 3;
	plan.cores[1] = -1;
	plan.cores[2] = 0;
	change_by(&plan, 0);
	assert_ptr_equal(rig->schedulers[1].base.group, own);
	assert_int_equal(own->idle_kind, IDLE_BACKOFF);
	assert_int_equal(own->core, -1);
	assert_int_equal(rig->program.schedulers[2]->base.group->core, 0);
	assert_int_equal(rig->program.schedulers[2]->base.group->idle_kind, IDLE_BACKOFF);
}

static void test_schedulers_share_a_group(void **state)
{
	struct crew_plan plan = plan_of(4);
	const struct group *shared;

	(void)state;
	spare_group = "work";
	configure("");
	strcpy(plan.group, "work");
	change_by(&plan, 0);
	check_crew(4);
	shared = rig->program.schedulers[3]->base.group;
	assert_string_equal(shared->name, "work");
	assert_ptr_equal(rig->program.schedulers[2]->base.group, shared);
	assert_int_equal(shared->agent_count, 2);
	check_service(4);
	plan.schedulers = 3;
	change_by(&plan, 0);
	assert_true(shared->live);
	plan.schedulers = 2;
	change_by(&plan, 0);
	check_crew(2);
	assert_false(shared->live);
	plan.schedulers = 3;
	change_by(&plan, 0);
	assert_true(shared->live);
	check_service(3);
}

/* ---- what cannot be done ---- */

/* Who has come for it leaves again, and nothing is left behind. */
static void test_change_when_one_cannot_start(void **state)
{
	const struct crew_plan plan = plan_of(4);

	(void)state;
	fails_at = 3;
	change_by(&plan, -EIO);
	check_crew(2);
	check_service(2);
	fails_at = 2;
	change_by(&plan, -EIO);
	check_crew(2);
	fails_at = NOBODY;
	change(4);
	check_service(4);
	fails_at = 1;
	change(1);
	change_by(&plan, -EIO);
	check_crew(1);
}

/* Its scripts fail when they are loaded. */
static void test_change_when_scripts_fail(void **state)
{
	const struct crew_plan plan = plan_of(3);
	char path[80];
	char scriptlet[160];
	FILE *f;

	(void)state;
	snprintf(path, sizeof path, "%s/fails.lua", rig->path);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("error(\"not here\")\n", f);
	fclose(f);
	snprintf(scriptlet, sizeof scriptlet,
		 "scriptlet \"scriptlet\" { script \"s\" { source = \"%s\" } }\n", path);
	configure(scriptlet);
	unlink(path);
	change_by(&plan, -EINVAL);
	check_crew(2);
	check_service(2);
	/* Again: what was made of it has been freed. */
	change_by(&plan, -EINVAL);
	change(1);
}

static void test_change_when_no_group_is_left(void **state)
{
	const struct crew_plan plan = plan_of(3);

	(void)state;
	no_group_left = true;
	configure("");
	change_by(&plan, -ENOSPC);
	check_crew(2);
	check_service(2);
	/* One that has left has a group. */
	change(1);
	change(2);
	check_service(2);
}

/* A group takes so many agents, and no more. */
static void test_change_when_a_group_is_full(void **state)
{
	struct crew_plan plan = plan_of(2 + GROUP_AGENTS_MAX + 1);

	(void)state;
	spare_group = "work";
	configure("");
	strcpy(plan.group, "work");
	change_by(&plan, -ENOSPC);
	check_crew(2);
	check_service(2);
}

/* ---- another change of threads is under way ---- */

static void on_tuned(void *context, int rc)
{
	(void)context;
	assert_int_equal(rc, 0);
}

/* The thread of the resolver, which nobody needs, is to be tuned, and does not come to it. */
static void keep_roster_busy(void)
{
	static const struct idle idle = {.kind = IDLE_PARK};
	struct runtime *rt = &rig->program.runtime;

	assert_int_equal(roster_tune(rt, resolver_agent(rig->program.resolver)->group, -1, &idle,
				     on_tuned, NULL),
			 0);
}

static void wait_without_resolver(void)
{
	const struct group *out = resolver_agent(rig->program.resolver)->group;
	struct runtime *rt = &rig->program.runtime;

	for (unsigned i = 0; answers == 0; i++) {
		assert_true(i < 10000);
		for (uint32_t n = 0; n < rt->group_count; n++) {
			if (rt->groups[n]->live && rt->groups[n] != out) {
				group_cycle(rt->groups[n]);
			}
		}
		rig->now.mono_ns += NS_PER_MS;
	}
}

static void test_change_when_the_roster_is_busy(void **state)
{
	struct program *p = &rig->program;

	(void)state;
	/* To join. */
	keep_roster_busy();
	begin(3);
	wait_without_resolver();
	assert_int_equal(result, -EBUSY);
	settle();
	check_crew(2);
	change(3);
	/* To be tuned. */
	keep_roster_busy();
	begin(3);
	wait_without_resolver();
	assert_int_equal(result, -EBUSY);
	settle();
	check_crew(3);
	/* To leave: what is left is no home any more. */
	keep_roster_busy();
	begin(1);
	wait_without_resolver();
	assert_int_equal(result, -EBUSY);
	settle();
	assert_int_equal(p->home_count, 1);
	assert_true(p->schedulers[2]->base.live);
	mail_for_all();
	pass_ms(1000);
	assert_int_equal(delivered(), DOMAINS);
	check_records(1, DOMAINS);
	/* What was wanted is done when it is asked for again; or it is used. */
	change(3);
	check_service(3);
	change(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CREW(test_schedulers_join),
		CREW(test_schedulers_leave_and_come_back),
		CREW(test_totals_stay_with_the_first),
		CREW(test_orders_to_bindings_reach_who_joins),
		CREW(test_last_of_several_plans_is_carried_out),
		CREW(test_threads_are_tuned),
		CREW(test_schedulers_share_a_group),
		CREW(test_change_when_one_cannot_start),
		CREW(test_change_when_scripts_fail),
		CREW(test_change_when_no_group_is_left),
		CREW(test_change_when_a_group_is_full),
		CREW(test_change_when_the_roster_is_busy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
