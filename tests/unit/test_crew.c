/*
 * Schedulers that come and go: who is there, who takes connections, where mail is and what is left
 * of who has gone; what cannot be done and what is there then; and a stop at any step.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "agents/crew.h"
#include "agents/master.h"
#include "tests/unit/move_world.h"

#define PASS_MS 5
#define SESSIONS_MAX 8
#define NOBODY UINT32_MAX
#define DOMAINS 24

/* ---- a service ---- */

struct door {
	bool open;
	bool hurried;
	struct accept *sessions[SESSIONS_MAX];
	unsigned session_count;
};

static struct door doors[SCHEDULERS_MAX];
/* The scheduler whose second service cannot be opened. */
static uint32_t fails_at;
static struct listen_options door_options;

static uint32_t one_listen(const struct config *config)
{
	(void)config;
	return 1;
}

static uint32_t no_listen(const struct config *config)
{
	(void)config;
	return 0;
}

static const struct listen_options *listen_at(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return &door_options;
}

static void close_sessions(struct scheduler *s, struct door *d)
{
	while (d->session_count > 0) {
		struct accept *a = d->sessions[--d->session_count];

		accept_let_go(a);
		scheduler_close_accept(s, a);
	}
}

static int door_open(struct scheduler *s, void **state)
{
	struct door *d = &doors[s->index];

	assert_false(d->open);
	d->open = true;
	*state = d;
	return 0;
}

static void door_serve(struct scheduler *s, void *state, struct accept *a)
{
	struct door *d = state;

	(void)s;
	assert_true(d->open && d->session_count < SESSIONS_MAX);
	d->sessions[d->session_count++] = a;
}

static void door_stop(struct scheduler *s, void *state, bool hurry)
{
	struct door *d = state;

	d->hurried |= hurry;
	if (hurry) {
		close_sessions(s, d);
	}
}

static bool door_drained(struct scheduler *s, void *state)
{
	(void)s;
	return ((struct door *)state)->session_count == 0;
}

static void door_close(struct scheduler *s, void *state)
{
	struct door *d = state;

	(void)s;
	assert_true(d->open && d->session_count == 0);
	d->open = false;
}

static int second_open(struct scheduler *s, void **state)
{
	*state = NULL;
	return s->index == fails_at ? -EIO : 0;
}

static const struct listener_ops door = {
	.name = "door",
	.listen_count = one_listen,
	.listen = listen_at,
	.open = door_open,
	.serve = door_serve,
	.stop = door_stop,
	.drained = door_drained,
	.close = door_close,
};

static const struct listener_ops second = {
	.name = "second",
	.listen_count = no_listen,
	.listen = listen_at,
	.open = second_open,
};

static unsigned doors_open(void)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
		count += doors[i].open;
	}
	return count;
}

/* ---- the program ---- */

/* What was asked since begin(), and what the last answers were, and whose. */
static int result;
static unsigned asked;
static unsigned answers;
static unsigned last_answer;
/* Groups that nobody is in yet: one of this name, or as many as there may be. */
static const char *spare_group;
static bool no_group_left;

static void add_groups(struct runtime *rt)
{
	static const struct idle idle = {.kind = IDLE_PARK};

	if (spare_group != NULL) {
		runtime_group(rt, spare_group, -1, &idle);
	}
	while (no_group_left && rt->group_count < RUNTIME_GROUPS_MAX) {
		runtime_group(rt, "spare", -1, &idle);
	}
}

static void make_crew(void)
{
	struct program *p = &rig->program;

	memset(doors, 0, sizeof doors);
	p->listeners[0] = &door;
	p->listeners[1] = &second;
	p->listener_count = 2;
	p->master = master_create("master", p, stderr);
	assert_non_null(p->master);
	runtime_add(&p->runtime, p->runtime.groups[0], master_agent(p->master));
	p->crew = crew_create(p);
	add_groups(&p->runtime);
}

static void end_crew(void)
{
	struct program *p = &rig->program;

	for (uint32_t i = SCHEDULERS; i < SCHEDULERS_MAX; i++) {
		if (p->schedulers[i] != NULL) {
			scheduler_close(p->schedulers[i]);
			free(p->schedulers[i]);
		}
	}
	crew_destroy(p->crew);
	master_destroy(rig->program.master);
	assert_int_equal(doors_open(), 0);
}

static void listen_in(const char *folder)
{
	struct sockaddr_un *a = (struct sockaddr_un *)(void *)&door_options.address;
	static char path[80];

	snprintf(path, sizeof path, "%s/door", folder);
	door_options = (struct listen_options){
		.name = path, .address_len = sizeof *a, .backlog = SESSIONS_MAX, .file_mode = 0600};
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof a->sun_path, "%s", path);
}

/* From the beginning, with `more` in the configuration. */
static void configure(const char *more)
{
	size_t used = strlen(rig->config);

	stop(false);
	snprintf(rig->config + used, sizeof rig->config - used, "%s", more);
	start();
}

/* All mail goes by one gateway, so that each scheduler has its part of the domains. */
static int set_up_crew(void **state)
{
	char gateway[64];

	by = BINDING_DEFAULT;
	fails_at = NOBODY;
	spare_group = NULL;
	no_group_left = false;
	on_made = NULL;
	on_ended = NULL;
	set_up(state);
	stop(false);
	on_made = make_crew;
	on_ended = end_crew;
	listen_in(rig->path);
	snprintf(gateway, sizeof gateway, "gateway = \"127.0.0.1:%u\"\n", rig->good->port);
	strcat(rig->config, gateway);
	start();
	return 0;
}

static void on_done(struct agent *self, void *context, int rc, const char *why)
{
	(void)why;
	assert_ptr_equal(self, &rig->schedulers[0].base);
	result = rc;
	answers++;
	last_answer = (unsigned)(uintptr_t)context;
}

static struct crew_plan plan_of(uint32_t schedulers)
{
	struct crew_plan plan = {.schedulers = schedulers, .idle = {.kind = IDLE_PARK}};

	for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
		plan.cores[i] = -1;
	}
	return plan;
}

static void set(const struct crew_plan *plan, unsigned number)
{
	struct scheduler *s = &rig->schedulers[0];

	asked++;
	enter(s);
	crew_set(rig->program.crew, &s->base, plan, on_done, (void *)(uintptr_t)number);
	leave(s);
}

/* Nobody has been answered yet. */
static void begin(uint32_t schedulers)
{
	const struct crew_plan plan = plan_of(schedulers);

	result = 1;
	asked = 0;
	answers = 0;
	set(&plan, 1);
}

static void wait_until_answered(void)
{
	unsigned i = 0;

	do {
		assert_true(i++ < 1000);
		pass_ms(PASS_MS);
	} while (answers < asked);
}

/* The first `count` run, and are homes; each of them serves. */
static void check_crew(uint32_t count)
{
	struct program *p = &rig->program;

	assert_int_equal(p->home_count, count);
	assert_true(p->scheduler_count >= count);
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		assert_int_equal(p->schedulers[i]->base.live, i < count);
		assert_int_equal(doors[i].open, i < count);
		if (i < count) {
			assert_int_equal(p->dispatchers[i]->peer_count, count);
			assert_int_equal(p->dispatchers[i]->peer_count_before, 0);
		}
	}
	assert_int_equal(doors_open(), count);
}

static void change_by(const struct crew_plan *plan, int expected)
{
	result = 1;
	asked = 0;
	answers = 0;
	set(plan, 1);
	wait_until_answered();
	assert_int_equal(answers, 1);
	assert_int_equal(result, expected);
}

static void change(uint32_t count)
{
	const struct crew_plan plan = plan_of(count);

	change_by(&plan, 0);
	check_crew(count);
}

/* ---- mail ---- */

static void mail_for_all(void)
{
	char name[32];

	for (unsigned i = 0; i < DOMAINS; i++) {
		snprintf(name, sizeof name, "n%u.test", i);
		mail("a", name);
	}
}

/* From now on: connections that are idle end. */
static void nothing_is_sent(void)
{
	rig->program.limits.connections_max = 0;
	pass_ms(60000);
}

/* How many domains each of the first has, that have some, and no others. */
static void check_records(uint32_t schedulers, unsigned all)
{
	unsigned sum = 0;

	for (uint32_t i = 0; i < schedulers; i++) {
		assert_true(dispatcher_at(i)->domains.count > 0);
		sum += dispatcher_at(i)->domains.count;
	}
	assert_int_equal(sum, all);
}

static uint64_t delivered(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < rig->program.scheduler_count; i++) {
		sum += counter_get(rig->program.schedulers[i]->delivered);
	}
	return sum;
}

/* Mail is taken and delivered by all who are there. */
static void check_service(uint32_t schedulers)
{
	uint64_t before = delivered();

	mail_for_all();
	pass_ms(1000);
	assert_int_equal(delivered(), before + DOMAINS);
	check_records(schedulers, DOMAINS);
}

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

static const char *domain_of(uint32_t home, uint32_t homes)
{
	static char name[32];

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof name, "h%u.test", i);
		if (domain_hash(by, name, strlen(name)) % homes == home) {
			return name;
		}
	}
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
				       "somebody", now_ms, now_ms + 3600000);
		dispatch_order_binding(x, binding_open(&x->bindings, "other"), BINDING_RESUMED,
				       NULL, 0, 0);
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

/* ---- sessions ---- */

static int connect_client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&door_options.address,
				 door_options.address_len),
			 0);
	settle();
	return fd;
}

/* One on each of two schedulers. */
static void connect_two(int clients[2])
{
	clients[0] = connect_client();
	clients[1] = connect_client();
	assert_int_equal(doors[0].session_count, 1);
	assert_int_equal(doors[1].session_count, 1);
}

static void close_two(const int clients[2])
{
	close(clients[0]);
	close(clients[1]);
}

static void end_sessions(uint32_t index)
{
	struct scheduler *s = rig->program.schedulers[index];

	enter(s);
	close_sessions(s, &doors[index]);
	leave(s);
}

/* New ones come to who stays; whose that goes on is waited for. */
static void test_sessions_are_waited_for(void **state)
{
	int clients[2];
	int third;

	(void)state;
	connect_two(clients);
	begin(1);
	for (unsigned i = 0; i < 20; i++) {
		pass_ms(PASS_MS);
	}
	assert_int_equal(answers, 0);
	assert_int_equal(rig->program.home_count, 1);
	assert_true(rig->schedulers[1].base.live);
	third = connect_client();
	assert_int_equal(doors[0].session_count, 2);
	assert_int_equal(doors[1].session_count, 1);
	mail_for_all();
	settle();
	check_records(1, DOMAINS);
	end_sessions(1);
	wait_until_answered();
	assert_int_equal(answers, 1);
	assert_int_equal(result, 0);
	check_crew(1);
	assert_false(doors[1].hurried);
	end_sessions(0);
	close_two(clients);
	close(third);
}

static void test_sessions_end_when_it_takes_too_long(void **state)
{
	int clients[2];

	(void)state;
	connect_two(clients);
	begin(1);
	settle();
	pass_ms(PASS_MS);
	assert_int_equal(answers, 0);
	pass_ms(rig->program.runtime.stop_timeout_ns / NS_PER_MS + 1);
	wait_until_answered();
	assert_int_equal(answers, 1);
	assert_int_equal(result, 0);
	check_crew(1);
	assert_true(doors[1].hurried);
	assert_int_equal(doors[0].session_count, 1);
	end_sessions(0);
	close_two(clients);
}

/* Mail on a connection is waited for before anybody leaves. */
static void test_transactions_are_waited_for(void **state)
{
	const char *name = domain_of(1, 2);

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mail("a", name);
	settle();
	assert_int_equal(record_at(1, name)->attempt_count, 1);
	begin(1);
	for (unsigned i = 0; i < 20; i++) {
		pass_ms(PASS_MS);
	}
	assert_int_equal(answers, 0);
	assert_int_equal(doors_open(), 2);
	outbound_answer_bodies(rig->good);
	wait_until_answered();
	assert_int_equal(answers, 1);
	check_crew(1);
	assert_int_equal(delivered(), 1);
	assert_non_null(record_at(0, name));
}

/* ---- stops ---- */

/* At any step of a change: who asked is told once, and all mail is there. */
static void stop_at_each_step(uint32_t count, unsigned steps_max)
{
	bool done = false;
	bool was_stopped = false;

	for (unsigned steps = 0; steps < steps_max; steps++) {
		nothing_is_sent();
		mail_for_all();
		settle();
		begin(count);
		set(&(struct crew_plan){.schedulers = 2}, 2);
		for (unsigned i = 0; i < steps; i++) {
			rig->now.mono_ns += NS_PER_MS;
			runtime_step(&rig->program.runtime);
		}
		stop(false);
		assert_int_equal(answers, 2);
		assert_true(result == 0 || result == -ESHUTDOWN);
		done |= result == 0;
		was_stopped |= result != 0;
		start();
		assert_int_equal(rig->found.messages, DOMAINS);
		pass_ms(1000);
		assert_int_equal(delivered(), DOMAINS);
	}
	assert_true(was_stopped);
	assert_true(done);
}

static void test_stop_while_schedulers_join(void **state)
{
	(void)state;
	stop_at_each_step(4, 60);
}

static void test_stop_while_schedulers_leave(void **state)
{
	(void)state;
	stop_at_each_step(1, 60);
}

/* It goes with all the others. */
static void test_stop_while_one_waits_for_its_sessions(void **state)
{
	int clients[2];

	(void)state;
	connect_two(clients);
	begin(1);
	for (unsigned i = 0; i < 20; i++) {
		pass_ms(PASS_MS);
	}
	assert_int_equal(answers, 0);
	stop(true);
	assert_int_equal(answers, 1);
	assert_int_equal(result, -ESHUTDOWN);
	close_two(clients);
	start();
	check_crew(2);
}

/* Sessions keep the program from ending for as long. */
static void test_plan_when_the_program_stops(void **state)
{
	int clients[2];

	(void)state;
	connect_two(clients);
	runtime_stop(&rig->program.runtime);
	settle();
	begin(3);
	settle();
	assert_int_equal(answers, 1);
	assert_int_equal(result, -ESHUTDOWN);
	assert_int_equal(rig->program.scheduler_count, 2);
	close_two(clients);
}

#define CREW(function) cmocka_unit_test_setup_teardown(function, set_up_crew, tear_down)

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
		CREW(test_sessions_are_waited_for),
		CREW(test_sessions_end_when_it_takes_too_long),
		CREW(test_transactions_are_waited_for),
		CREW(test_stop_while_schedulers_join),
		CREW(test_stop_while_schedulers_leave),
		CREW(test_stop_while_one_waits_for_its_sessions),
		CREW(test_plan_when_the_program_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
