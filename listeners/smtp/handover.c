#include "listeners/smtp/handover.h"

#include "listeners/smtp/policy.h"
#include "listeners/smtp/session_trace.h"

/* Its memory goes along, and into the pools of whoever frees it. */
static void hand_on(struct smtp_session *ss)
{
	struct smtp_listener *l = ss->listener;
	struct accept *a = ss->accept;

	smtp_policy_leave(ss);
	stream_leave(&ss->stream);
	/* Its deadline stays what it was; smtp_handover_take() arms it. */
	ss->due_ms = ss->deadline.due_ms;
	timer_cancel(&ss->deadline);
	session_list_remove(&ss->waiting);
	session_list_remove(&ss->all);
	l->session_count--;
	counter_sub(l->counts.of[SMTP_COUNT_SESSIONS_OPEN], 1);
	smtp_count(&l->counts, SMTP_COUNT_HANDED_ON);
	ss->listener = NULL;
	OWNER_RELEASE(ss);
	a->session = ss;
	scheduler_hand_on(l->scheduler, a);
}

void smtp_handover_try(struct smtp_session *ss)
{
	if (ss->output.len > 0 || ss->sending.len > 0 || stream_send_busy(&ss->stream)) {
		return;
	}
	if (stream_recv_busy(&ss->stream)) {
		stream_stop_recv(&ss->stream);
	} else if (!stream_busy(&ss->stream)) {
		hand_on(ss);
	}
}

void smtp_handover_take(struct smtp_listener *l, struct accept *a)
{
	struct smtp_session *ss = a->session;
	struct scheduler *s = l->scheduler;

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CLAIM(ss);
	a->session = NULL;
	ss->listener = l;
	stream_join(&ss->stream, &s->base);
	timer_init(&ss->deadline, &s->base, ss->deadline.on_expire);
	timer_arm(&ss->deadline, ss->due_ms);
	smtp_policy_take(ss);
	session_list_add(&l->sessions, &ss->all);
	l->session_count++;
	counter_add(l->counts.of[SMTP_COUNT_SESSIONS_OPEN], 1);
	if (l->stopping) {
		smtp_session_stop(ss, false);
		return;
	}
	smtp_session_offer_running(ss);
	smtp_session_resume(ss);
	smtp_session_settle(ss);
}
