#include "listeners/smtp/session_trace.h"

/* The client's next octets begin a command: nothing of a line, of a message or of AUTH is half
 * said. */
static bool begins_command(const struct stream *s)
{
	const struct smtp_session *ss = CONTAINER_OF(s, const struct smtp_session, stream);

	return ss->state == SMTP_SESSION_COMMANDS && ss->held.len == 0 && ss->line == NULL &&
	       ss->auth == NULL;
}

static void offer(struct smtp_session *ss, trace_begins_fn begins)
{
	struct scheduler *s = ss->listener->scheduler;
	const struct trace_facts facts = {
		.inbound = true,
		.peer = ss->peer,
		.port = ss->peer_port,
		.listener = config_smtp_listen(ss->accept->config, ss->accept->listen)->name,
	};

	trace_client_offer(&s->trace, &ss->stream, &facts, ss->accept->number, begins);
}

void smtp_session_offer_always(struct smtp_session *ss)
{
	offer(ss, NULL);
}

void smtp_session_offer_told(struct smtp_session *ss, const char *how)
{
	if (trace_client_idle(&ss->listener->scheduler->trace)) {
		return;
	}
	/* After XCLIENT what follows is a command, after PROXY nothing was said. */
	offer(ss, NULL);
	stream_note(&ss->stream, "%s: the client is %s, told by %s", how, ss->peer_text,
		    ss->accept->peer_text);
}

void smtp_session_offer_running(struct smtp_session *ss)
{
	if (ss->state != SMTP_SESSION_PROXY && ss->state != SMTP_SESSION_DEAD) {
		offer(ss, begins_command);
	}
}
