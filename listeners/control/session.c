#include "listeners/control/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/mux.h"
#include "core/runtime/timer.h"
#include "listeners/control/command.h"
#include "listeners/control/draft.h"
#include "listeners/control/order.h"
#include "listeners/control/peer.h"

#define SESSION_MAGIC 0x73657373U
#define IDLE_TIMEOUT_MS 60000

BOUND
struct session {
	uint32_t magic;
	struct control *control;
	struct session *next;
	struct session *prev;
	struct accept *accept;
	struct peer peer;
	struct mux_op recv_op;
	struct mux_op send_op;
	/* Also the limit for a peer that does not read its answer. */
	struct timer idle;
	/* Under way, or answered and being sent. */
	struct order *order;
	/* Changes of the configuration that are not committed; NULL: none are gathered. */
	struct draft *draft;
	/* Close when the answer is sent. */
	bool last;
	bool closing;
	uint32_t input_len;
	/* What came and is not done with; a line, and what one more recv brings. */
	char input[ORDER_LINE_MAX + MUX_RECV_MAX];
};

static void session_process(struct session *n);

static struct agent *agent_of(const struct session *n)
{
	return &n->control->scheduler->base;
}

static void touch(struct session *n)
{
	timer_arm(&n->idle, agent_now_ms(agent_of(n)) + IDLE_TIMEOUT_MS);
}

/* ---- the end ---- */

static void session_destroy(struct session *n)
{
	struct control *c = n->control;

	*(n->prev != NULL ? &n->prev->next : &c->sessions) = n->next;
	if (n->next != NULL) {
		n->next->prev = n->prev;
	}
	scheduler_close_accept(c->scheduler, n->accept);
	draft_free(n->draft);
	n->magic = 0;
	free(n);
}

/* Closes as soon as no operation is under way. */
static void session_close(struct session *n)
{
	n->closing = true;
	timer_cancel(&n->idle);
	if (mux_op_busy(&n->recv_op) || mux_op_busy(&n->send_op)) {
		mux_cancel(agent_of(n)->mux, &n->recv_op);
		mux_cancel(agent_of(n)->mux, &n->send_op);
		return;
	}
	if (n->order != NULL) {
		order_release(n->order);
		n->order = NULL;
	}
	session_destroy(n);
}

static void on_idle(struct timer *t)
{
	struct session *n = CONTAINER_OF(t, struct session, idle);

	/* An order may take its time: its peer waits for us. So may who writes a transaction. */
	if (n->order != NULL ? !n->order->answered : n->draft != NULL) {
		touch(n);
		return;
	}
	session_close(n);
}

/* ---- answers ---- */

static void on_sent(struct mux_op *op, int result)
{
	struct session *n = CONTAINER_OF(op, struct session, send_op);

	CHECK_MAGIC(n, SESSION_MAGIC);
	if (result < 0 || n->closing) {
		session_close(n);
		return;
	}
	order_release(n->order);
	n->order = NULL;
	if (n->last || n->control->stopping) {
		session_close(n);
		return;
	}
	session_process(n);
}

static void on_answer(void *context, struct order *o)
{
	struct session *n = context;

	CHECK_MAGIC(n, SESSION_MAGIC);
	ASSERT(n->order == o);
	touch(n);
	mux_send(agent_of(n)->mux, &n->send_op, n->accept->fd, o->reply.iov, o->reply.count);
}

static struct order *begin(struct session *n, const char *line, size_t len)
{
	struct order *o = order_create(&n->control->client, n->control->scheduler, line, len);

	snprintf(o->who, sizeof(o->who), "uid %u (pid %d)", (unsigned)n->peer.uid,
		 (int)n->peer.pid);
	o->on_answer = on_answer;
	o->context = n;
	o->draft = &n->draft;
	n->order = o;
	return o;
}

/* ---- commands ---- */

/* Orders that change something are written down with who gave them. */
static void write_down(const struct session *n, const struct order *o)
{
	struct scheduler *s = n->control->scheduler;
	struct errlog_entry e = {.first_ns = s->base.now.wall_ns};
	char line[160];

	if (command_changes(o)) {
		snprintf(e.text, sizeof(e.text), "order of %s: %s", o->who,
			 command_line_shown(o, line, sizeof(line)));
		log_panic_on_new(&s->log, &e);
	}
}

static void run_line(struct session *n, const char *line, size_t len)
{
	struct order *o;

	if (len > 0 && line[len - 1] == '\r') {
		len--;
	}
	o = begin(n, line, len < ORDER_LINE_MAX ? len : ORDER_LINE_MAX);
	if (len > ORDER_LINE_MAX) {
		order_fail(o, "a command line has at most %d bytes", ORDER_LINE_MAX);
	} else if (memchr(line, '\0', len) != NULL) {
		order_fail(o, "a command line has no NUL bytes");
	} else if (command_parse(o)) {
		write_down(n, o);
		command_run(o);
	}
}

static void on_received(struct mux_op *op, int result)
{
	struct session *n = CONTAINER_OF(op, struct session, recv_op);

	CHECK_MAGIC(n, SESSION_MAGIC);
	if (result <= 0 || n->closing) {
		session_close(n);
		return;
	}
	ASSERT(n->input_len + (uint32_t)result <= sizeof(n->input));
	memcpy(n->input + n->input_len, op->data, (size_t)result);
	n->input_len += (uint32_t)result;
	touch(n);
	session_process(n);
}

/* Runs the next line, or waits for one; never while an order is under way. */
static void session_process(struct session *n)
{
	char *end = memchr(n->input, '\n', n->input_len);
	size_t len;

	ASSERT(n->order == NULL);
	if (end == NULL && n->input_len >= ORDER_LINE_MAX) {
		n->last = true;
		order_fail(begin(n, "", 0), "a command line has at most %d bytes", ORDER_LINE_MAX);
		return;
	}
	if (end == NULL) {
		mux_recv(agent_of(n)->mux, &n->recv_op, n->accept->fd);
		return;
	}
	len = (size_t)(end - n->input);
	run_line(n, n->input, len);
	n->input_len -= (uint32_t)len + 1;
	memmove(n->input, end + 1, n->input_len);
}

/* ---- the beginning ---- */

static void refuse(struct session *n)
{
	agent_error(agent_of(n), -EPERM, "control: uid %u, gid %u is not authorised",
		    (unsigned)n->peer.uid, (unsigned)n->peer.gid);
	n->last = true;
	order_fail(begin(n, "", 0),
		   "not authorised: only root, the user and the group that flywheeld runs as");
}

void session_open(struct control *c, struct accept *a)
{
	struct session *n = check_memory(calloc(1, sizeof(*n)), "a control session");
	int rc;

	n->magic = SESSION_MAGIC;
	n->control = c;
	n->accept = a;
	n->next = c->sessions;
	if (n->next != NULL) {
		n->next->prev = n;
	}
	c->sessions = n;
	mux_op_init(&n->recv_op, agent_of(n), on_received);
	mux_op_init(&n->send_op, agent_of(n), on_sent);
	timer_init(&n->idle, agent_of(n), on_idle);
	touch(n);
	rc = peer_credentials(a->fd, &n->peer);
	if (rc != 0) {
		agent_error(agent_of(n), rc, "control: cannot tell who has connected");
		session_close(n);
	} else if (!peer_authorised(a->fd, &n->peer)) {
		refuse(n);
	} else {
		session_process(n);
	}
}

void sessions_stop(struct control *c, bool hurry)
{
	struct session *next;

	for (struct session *n = c->sessions; n != NULL; n = next) {
		next = n->next;
		if (hurry || n->order == NULL) {
			session_close(n);
		}
	}
}
