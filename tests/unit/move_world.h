/*
 * The program of outcome_world.h with a name service that says what a test wants, so that records
 * travel between its schedulers.
 *
 * Start reading at mx_now, then at set_at() and mail(). For test_move.c, and by relocate_world.h
 * and crew_world.h, only, each of which has its own copy.
 */
#pragma once

#include "agents/scheduler_request.h"
#include "core/queue/site.h"
#include "tests/unit/outcome_world.h"

/* What is said of a domain holds so long. */
#define TTL_MS 1000
/* A while, in which timers of moves go off. */
#define PASS_MS 5

/* The MX set of every domain, unless mx_of says otherwise; NULL: it has none, and is alone. */
static const char *mx_now;
static const char *(*mx_of)(const char *domain);
/* Questions wait for answer_held() while this is true: the last one. */
static bool hold_answers;
static struct domain *held_question;
static struct dispatch_ops ops;
/* Whose mail it is. */
static const char *by;

static inline void on_answer(struct agent *self, void *object, uint64_t value)
{
	struct domain *d = object;
	struct host h = outbound_host("127.0.0.1", rig->good->port, 10);
	struct route_verdict v = {.result = ROUTE_HOSTS, .count = 1, .ttl_ms = TTL_MS};
	const char *mx = mx_of != NULL ? mx_of(d->name) : mx_now;

	(void)self;
	(void)value;
	v.mx = mx != NULL ? strdup(mx) : NULL;
	v.hosts = malloc(sizeof h);
	assert_non_null(v.hosts);
	*v.hosts = h;
	dispatch_resolved(d->owner, d, &v);
}

static inline void on_resolve(struct dispatcher *x, struct domain *d)
{
	if (hold_answers) {
		held_question = d;
	} else {
		agent_send(x->self, x->self, on_answer, d, 0);
	}
}

static inline void answer_here(void)
{
	ops = scheduler_dispatch_ops;
	ops.resolve = on_resolve;
	for (unsigned i = 0; i < SCHEDULERS; i++) {
		rig->schedulers[i].dispatcher.ops = &ops;
	}
}

/* `made`: what is done to agents that do not run yet. */
static inline int set_up_with(void **state, void (*made)(void))
{
	by = BINDING_DEFAULT;
	mx_now = NULL;
	mx_of = NULL;
	hold_answers = false;
	held_question = NULL;
	on_made = made;
	return set_up(state);
}

static inline int set_up_moves(void **state)
{
	return set_up_with(state, answer_here);
}

/* From the beginning, with `more` in the configuration. */
static inline void configure(const char *more)
{
	size_t used = strlen(rig->config);

	stop(false);
	snprintf(rig->config + used, sizeof rig->config - used, "%s", more);
	start();
}

/* An MX set whose site has its home on scheduler `home`; `which` tells them apart. */
static inline const char *set_at(uint32_t home, unsigned which)
{
	static char sets[4][32];
	char key[64];

	for (unsigned i = 0;; i++) {
		snprintf(sets[which], sizeof sets[which], "10 mx%u.set%u.test", i, which);
		snprintf(key, sizeof key, SITE_OF_MX "%s", sets[which]);
		if (home_of(&rig->program, by, key) == home) {
			return sets[which];
		}
	}
}

/* A domain whose record has its first home on scheduler 0. */
static inline const char *domain_at_0(void)
{
	static char name[32];

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof name, "d%u.test", i);
		if (home_of(&rig->program, by, name) == 0) {
			return name;
		}
	}
}

static inline struct dispatcher *dispatcher_at(uint32_t index)
{
	return rig->program.dispatchers[index];
}

static inline struct domain *record_at(uint32_t index, const char *name)
{
	return domain_find(&dispatcher_at(index)->domains, by, name);
}

static inline void mail(const char *local, const char *domain)
{
	char to[64];

	snprintf(to, sizeof to, "%s@%s", local, domain);
	receive("me@here.test", to, ENVELOPE_SYNCED);
}

/* The messages of its active queue are in the order in which they were received. */
static inline void assert_in_order(const struct domain *d, uint32_t count)
{
	struct message_id last = {0, 0};

	assert_non_null(d);
	assert_int_equal(d->active_count, count);
	for (const struct delivery *x = d->active_head; x != NULL; x = x->next) {
		assert_ptr_equal(x->domain, d);
		assert_true(x->message->id.high > last.high ||
			    (x->message->id.high == last.high && x->message->id.low > last.low));
		last = x->message->id;
	}
}

/* A delivery in transit, as it comes to scheduler `s`, which is entered. */
static inline struct delivery *delivery_for(struct scheduler *s, const char *domain)
{
	struct envelope_builder b;
	struct delivery *delivery;
	struct message *m;
	char to[64];

	snprintf(to, sizeof to, "to@%s", domain);
	envelope_builder_init(&b);
	envelope_set_sender(&b, "me@here.test", 12);
	envelope_add_recipient(&b, to, strlen(to));
	envelope_set_binding(&b, strcmp(by, BINDING_DEFAULT) != 0 ? by : NULL);
	m = message_create(&s->pools, envelope_size(&b));
	envelope_build(&b, message_envelope(m));
	message_envelope(m)->id = scheduler_new_id(s);
	message_envelope(m)->received_ms = agent_wall_ms(&s->base);
	message_set_resident(m, &s->pools);
	delivery = delivery_create(&s->pools, m, 0);
	OWNER_CLAIM(delivery);
	message_use_content(m, 1);
	delivery->uses_content = true;
	envelope_builder_close(&b);
	return delivery;
}

/* From now on questions are answered, the last one that waits too. */
static inline void answer_held(void)
{
	struct dispatcher *x = held_question->owner;
	struct scheduler *s = CONTAINER_OF(x, struct scheduler, dispatcher);

	hold_answers = false;
	enter(s);
	agent_send(x->self, x->self, on_answer, held_question, 0);
	leave(s);
}

/* All but the spool writer. */
static inline void cycles_without_spool(void)
{
	for (unsigned i = 0; i < 1000; i++) {
		for (uint32_t g = 0; g < rig->program.runtime.group_count; g++) {
			if (strcmp(rig->program.runtime.groups[g]->name, "spool.0") != 0) {
				group_cycle(rig->program.runtime.groups[g]);
			}
		}
	}
}

#define MOVE(function) cmocka_unit_test_setup_teardown(function, set_up_moves, tear_down)
