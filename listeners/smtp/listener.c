#include "listeners/smtp/listener.h"

#include <errno.h>
#include <stdlib.h>

#include "core/runtime/check.h"
#include "listeners/smtp/handover.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/session_trace.h"
#include "listeners/smtp/transaction.h"

/* Sessions kept for reuse. */
#define KEEP_SESSIONS 4096
/* Sessions that go on reading, after a pause, in one duty cycle. */
#define RESUME_LIMIT 256
/* ... that go over to another generation. */
#define RENEW_LIMIT 256
/* ... and that are handed on. */
#define HANDOVER_LIMIT 256

static struct smtp_listener *listener_of(void *state)
{
	struct smtp_listener *l = state;

	CHECK_MAGIC(l, SMTP_LISTENER_MAGIC);
	OWNER_CHECK(l);
	return l;
}

static int listener_open(struct scheduler *s, void **state)
{
	struct smtp_listener *l = calloc(1, sizeof(*l));

	if (l == NULL) {
		return -ENOMEM;
	}
	l->magic = SMTP_LISTENER_MAGIC;
	OWNER_CLAIM(l);
	l->scheduler = s;
	pool_init(&l->session_pool, "SMTP session", sizeof(struct smtp_session), KEEP_SESSIONS);
	session_list_init(&l->sessions);
	session_list_init(&l->arrivals);
	session_list_init(&l->greeting);
	session_list_init(&l->paused);
	smtp_counts_create(&l->counts, s->base.counters);
	*state = l;
	return 0;
}

static void listener_serve(struct scheduler *s, void *state, struct accept *a)
{
	struct smtp_listener *l = listener_of(state);

	ASSERT(l->scheduler == s);
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	if (a->session != NULL) {
		smtp_handover_take(l, a);
	} else {
		smtp_session_serve(l, a);
	}
}

static void listener_leave(struct scheduler *s, void *state)
{
	(void)s;
	listener_of(state)->leaving = true;
}

static void listener_stop(struct scheduler *s, void *state, bool hurry)
{
	struct smtp_listener *l = listener_of(state);
	struct session_link *next;

	(void)s;
	l->stopping = true;
	l->leaving = false;
	/* Each one may be freed, but only it. */
	for (struct session_link *link = l->sessions.next; link != &l->sessions; link = next) {
		next = link->next;
		smtp_session_stop(smtp_session_of_all(link), hurry);
	}
}

static bool listener_drained(struct scheduler *s, void *state)
{
	(void)s;
	return listener_of(state)->session_count == 0;
}

static void listener_close(struct scheduler *s, void *state)
{
	struct smtp_listener *l = listener_of(state);

	(void)s;
	ASSERT(l->session_count == 0);
	smtp_transaction_free_spare(l);
	pool_close(&l->session_pool);
	l->magic = 0;
	free(l);
}

/* A session is greeted in the duty cycle after the one in which it arrived: what it sent unasked
 * was received in between. Those that came when the program had begun to stop are told so. */
static int greet(struct smtp_listener *l)
{
	int work = 0;

	while (!session_list_empty(&l->greeting)) {
		struct smtp_session *ss = smtp_session_of_waiting(l->greeting.next);

		if (l->stopping) {
			smtp_session_stop(ss, false);
		} else {
			smtp_session_greet(ss);
		}
		work++;
	}
	while (!session_list_empty(&l->arrivals)) {
		struct session_link *link = l->arrivals.next;

		session_list_remove(link);
		session_list_add(&l->greeting, link);
		work++;
	}
	return work;
}

static int resume(struct smtp_listener *l)
{
	int work = 0;

	while (work < RESUME_LIMIT && !session_list_empty(&l->paused) &&
	       !smtp_listener_pressure(l)) {
		struct smtp_session *ss = smtp_session_of_waiting(l->paused.next);

		session_list_remove(&ss->waiting);
		smtp_session_settle(ss);
		work++;
	}
	return work;
}

/* While the reception budget is used up new mail is put off: those that stall must not keep it so.
 */
static int relieve(struct smtp_listener *l)
{
	uint64_t now_ms = agent_now_ms(&l->scheduler->base);
	bool first = l->relieve_ms == 0;
	struct session_link *next;

	if (scheduler_reception_share(l->scheduler, true) == UINT64_MAX) {
		l->relieve_ms = 0;
		return 0;
	}
	if (now_ms < l->relieve_ms) {
		return 0;
	}
	l->relieve_ms = now_ms + SMTP_STALL_MS;
	/* Each one may be freed, but only it. */
	for (struct session_link *link = l->sessions.next; link != &l->sessions; link = next) {
		next = link->next;
		smtp_transaction_relieve(smtp_session_of_all(link), first);
	}
	return 1;
}

/* The first session goes to the end of the list, so that each has its turn, whoever comes and goes
 * meanwhile. There is one. */
static struct smtp_session *take_turn(struct smtp_listener *l)
{
	struct session_link *link = l->sessions.next;

	ASSERT(link != &l->sessions);
	session_list_remove(link);
	session_list_add(&l->sessions, link);
	return smtp_session_of_all(link);
}

/* There is another generation: those that do nothing just now would not notice for long. */
static int renew(struct smtp_listener *l)
{
	int work = 0;

	if (l->renewals > l->session_count) {
		l->renewals = l->session_count;
	}
	while (l->renewals > 0 && work < RENEW_LIMIT) {
		l->renewals--;
		smtp_session_renew(take_turn(l));
		work++;
	}
	return work;
}

/* Those in silence, and those that could not go when they last tried. Others do so by themselves,
 * so this is not work that keeps a thread awake. */
static void hand_on(struct smtp_listener *l)
{
	uint32_t count = l->session_count < HANDOVER_LIMIT ? l->session_count : HANDOVER_LIMIT;

	for (uint32_t i = 0; l->leaving && i < count; i++) {
		struct smtp_session *ss = take_turn(l);

		if (smtp_handover_due(ss)) {
			smtp_handover_try(ss);
		}
	}
}

static void listener_renew(struct scheduler *s, void *state)
{
	struct smtp_listener *l = listener_of(state);

	(void)s;
	l->renewals = l->session_count;
}

static int listener_do_work(struct scheduler *s, void *state)
{
	struct smtp_listener *l = listener_of(state);

	(void)s;
	hand_on(l);
	return greet(l) + resume(l) + relieve(l) + renew(l);
}

static void listener_trace(struct scheduler *s, void *state)
{
	struct smtp_listener *l = listener_of(state);

	(void)s;
	for (struct session_link *link = l->sessions.next; link != &l->sessions;
	     link = link->next) {
		smtp_session_offer_running(smtp_session_of_all(link));
	}
}

const struct listener_ops smtp_listener = {
	.name = "esmtp",
	.listen_count = config_smtp_listen_count,
	.listen = config_smtp_listen,
	.on_master = false,
	.open = listener_open,
	.serve = listener_serve,
	.do_work = listener_do_work,
	.renew = listener_renew,
	.trace = listener_trace,
	.leave = listener_leave,
	.stop = listener_stop,
	.drained = listener_drained,
	.close = listener_close,
};
