/*
 * The program of move_world.h with a master, a crew and two services, one of which can fail to
 * open; schedulers come and go by plans. All mail goes by one gateway, so that each scheduler has
 * its part of the domains.
 *
 * Start reading at change(), then at check_service(). For test_crew*.c only, each of which has its
 * own copy.
 */
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include "agents/crew.h"
#include "agents/master.h"
#include "tests/unit/move_world.h"

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

static inline uint32_t one_listen(const struct config *config)
{
	(void)config;
	return 1;
}

static inline uint32_t no_listen(const struct config *config)
{
	(void)config;
	return 0;
}

static inline const struct listen_options *listen_at(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return &door_options;
}

static inline void close_sessions(struct scheduler *s, struct door *d)
{
	while (d->session_count > 0) {
		struct accept *a = d->sessions[--d->session_count];

		accept_let_go(a);
		scheduler_close_accept(s, a);
	}
}

static inline int door_open(struct scheduler *s, void **state)
{
	struct door *d = &doors[s->index];

	assert_false(d->open);
	d->open = true;
	*state = d;
	return 0;
}

static inline void door_serve(struct scheduler *s, void *state, struct accept *a)
{
	struct door *d = state;

	(void)s;
	assert_true(d->open && d->session_count < SESSIONS_MAX);
	d->sessions[d->session_count++] = a;
}

static inline void door_stop(struct scheduler *s, void *state, bool hurry)
{
	struct door *d = state;

	d->hurried |= hurry;
	if (hurry) {
		close_sessions(s, d);
	}
}

static inline bool door_drained(struct scheduler *s, void *state)
{
	(void)s;
	return ((struct door *)state)->session_count == 0;
}

static inline void door_close(struct scheduler *s, void *state)
{
	struct door *d = state;

	(void)s;
	assert_true(d->open && d->session_count == 0);
	d->open = false;
}

static inline int second_open(struct scheduler *s, void **state)
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

static inline unsigned doors_open(void)
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

static inline void add_groups(struct runtime *rt)
{
	static const struct idle idle = {.kind = IDLE_PARK};

	if (spare_group != NULL) {
		runtime_group(rt, spare_group, -1, &idle);
	}
	while (no_group_left && rt->group_count < RUNTIME_GROUPS_MAX) {
		runtime_group(rt, "spare", -1, &idle);
	}
}

static inline void make_crew(void)
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

static inline void end_crew(void)
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

static inline void listen_in(const char *folder)
{
	struct sockaddr_un *a = (struct sockaddr_un *)(void *)&door_options.address;
	static char path[80];

	snprintf(path, sizeof path, "%s/door", folder);
	door_options = (struct listen_options){
		.name = path, .address_len = sizeof *a, .backlog = SESSIONS_MAX, .file_mode = 0600};
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof a->sun_path, "%s", path);
}

/* All mail goes by one gateway, so that each scheduler has its part of the domains. */
static inline int set_up_crew(void **state)
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

static inline void on_done(struct agent *self, void *context, int rc, const char *why)
{
	(void)why;
	assert_ptr_equal(self, &rig->schedulers[0].base);
	result = rc;
	answers++;
	last_answer = (unsigned)(uintptr_t)context;
}

static inline struct crew_plan plan_of(uint32_t schedulers)
{
	struct crew_plan plan = {.schedulers = schedulers, .idle = {.kind = IDLE_PARK}};

	for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
		plan.cores[i] = -1;
	}
	return plan;
}

static inline void set(const struct crew_plan *plan, unsigned number)
{
	struct scheduler *s = &rig->schedulers[0];

	asked++;
	enter(s);
	crew_set(rig->program.crew, &s->base, plan, on_done, (void *)(uintptr_t)number);
	leave(s);
}

/* Nobody has been answered yet. */
static inline void begin_by(const struct crew_plan *plan)
{
	result = 1;
	asked = 0;
	answers = 0;
	set(plan, 1);
}

static inline void begin(uint32_t schedulers)
{
	const struct crew_plan plan = plan_of(schedulers);

	begin_by(&plan);
}

static inline void wait_until_answered(void)
{
	unsigned i = 0;

	do {
		assert_true(i++ < 1000);
		pass_ms(PASS_MS);
	} while (answers < asked);
}

/* The first `count` run, and are homes; each of them serves. */
static inline void check_crew(uint32_t count)
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

static inline void change_by(const struct crew_plan *plan, int expected)
{
	begin_by(plan);
	wait_until_answered();
	assert_int_equal(answers, 1);
	assert_int_equal(result, expected);
}

static inline void change(uint32_t count)
{
	const struct crew_plan plan = plan_of(count);

	change_by(&plan, 0);
	check_crew(count);
}

/* ---- mail ---- */

static inline const char *domain_of(uint32_t home, uint32_t homes)
{
	static char name[32];

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof name, "h%u.test", i);
		if (domain_hash(by, name, strlen(name)) % homes == home) {
			return name;
		}
	}
}

static inline void mail_for_all(void)
{
	char name[32];

	for (unsigned i = 0; i < DOMAINS; i++) {
		snprintf(name, sizeof name, "n%u.test", i);
		mail("a", name);
	}
}

/* From now on: connections that are idle end. */
static inline void nothing_is_sent(void)
{
	rig->program.limits.connections_max = 0;
	pass_ms(60000);
}

/* How many domains each of the first has, that have some, and no others. */
static inline void check_records(uint32_t schedulers, unsigned all)
{
	unsigned sum = 0;

	for (uint32_t i = 0; i < schedulers; i++) {
		assert_true(dispatcher_at(i)->domains.count > 0);
		sum += dispatcher_at(i)->domains.count;
	}
	assert_int_equal(sum, all);
}

static inline uint64_t delivered(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < rig->program.scheduler_count; i++) {
		sum += counter_get(rig->program.schedulers[i]->delivered);
	}
	return sum;
}

/* Mail is taken and delivered by all who are there. */
static inline void check_service(uint32_t schedulers)
{
	uint64_t before = delivered();

	mail_for_all();
	pass_ms(1000);
	assert_int_equal(delivered(), before + DOMAINS);
	check_records(schedulers, DOMAINS);
}

#define CREW(function) cmocka_unit_test_setup_teardown(function, set_up_crew, tear_down)
