#include "tests/fuzz/net.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime/group.h"
#include "tests/fuzz/fuzz_input.h"

static struct net *net_of(struct mux *m)
{
	return CONTAINER_OF(m, struct net, base);
}

void net_say(struct net *n, const unsigned char *data, size_t len)
{
	unsigned char *grown = realloc(n->in, n->in_len + len);

	FUZZ_CHECK(grown != NULL);
	memcpy(grown + n->in_len, data, len);
	n->in = grown;
	n->in_len += len;
}

static void net_receive(struct net *n, struct mux_op *op)
{
	size_t len = n->in_len < MUX_RECV_MAX ? n->in_len : MUX_RECV_MAX;
	/* Lent for the callback only: afterwards it is gone. */
	unsigned char *piece = fuzz_copy(n->in, len);

	n->in_len -= len;
	memmove(n->in, n->in + len, n->in_len);
	n->received += len;
	op->data = piece;
	mux_finish(&n->base, op, (int)len);
	free(piece);
}

static void net_send(struct net *n, struct mux_op *op)
{
	const struct iovec *iov = op->message.msg_iov;

	for (size_t i = 0; i < op->message.msg_iovlen; i++) {
		n->on_sent(n->context, iov[i].iov_base, iov[i].iov_len);
	}
	mux_finish(&n->base, op, (int)op->len);
}

/* Whether the op can end now; does so. The op is in no list. */
static bool net_run(struct net *n, struct mux_op *op)
{
	bool out = op->verb == MUX_SEND || op->verb == MUX_CONNECT;

	FUZZ_CHECK(out || op->verb == MUX_RECV);
	if (op->cancelled) {
		mux_finish(&n->base, op, -ECANCELED);
	} else if (out && n->out_error != 0) {
		mux_finish(&n->base, op, n->out_error);
	} else if (out && n->out_stalled) {
		return false;
	} else if (op->verb == MUX_CONNECT) {
		mux_finish(&n->base, op, 0);
	} else if (op->verb == MUX_SEND) {
		net_send(n, op);
	} else if (n->in_len > 0) {
		net_receive(n, op);
	} else if (n->in_error != 0 || n->in_end) {
		mux_finish(&n->base, op, n->in_error);
	} else {
		return false;
	}
	return true;
}

static int net_reap(struct mux *m, int limit)
{
	struct net *n = net_of(m);
	int ran = 0;

	for (unsigned i = m->pending; i > 0 && ran < limit; i--) {
		struct mux_op *op = mux_list_pop(&n->ops);

		if (op == NULL) {
			break;
		}
		if (net_run(n, op)) {
			ran++;
		} else {
			mux_list_push(&n->ops, op);
		}
	}
	return ran;
}

static void net_start(struct mux *m, struct mux_op *op)
{
	mux_list_push(&net_of(m)->ops, op);
}

static void net_cancel(struct mux *m, struct mux_op *op)
{
	(void)m;
	(void)op;
}

static void net_close(struct mux *m, int fd)
{
	struct net *n = net_of(m);

	n->closed++;
	if (n->close_fds) {
		close(fd);
	}
}

static void net_watch(struct mux *m, int fd)
{
	(void)m;
	(void)fd;
}

static void net_submit(struct mux *m)
{
	(void)m;
}

static bool net_ready(struct mux *m)
{
	(void)m;
	return false;
}

static bool net_wait(struct mux *m, uint64_t timeout_ns)
{
	(void)m;
	(void)timeout_ns;
	return false;
}

static void net_destroy(struct mux *m)
{
	net_reset(net_of(m));
}

static const struct mux_ops net_ops = {
	.name = "net",
	.start = net_start,
	.cancel = net_cancel,
	.close_fd = net_close,
	.watch_doorbell = net_watch,
	.reap = net_reap,
	.submit = net_submit,
	.ready = net_ready,
	.wait = net_wait,
	.destroy = net_destroy,
};

void net_install(struct net *n, struct group *g)
{
	mux_destroy(g->mux);
	n->base = (struct mux){.magic = MUX_MAGIC, .ops = &net_ops};
	g->mux = &n->base;
	for (uint32_t i = 0; i < g->agent_count; i++) {
		g->agents[i]->mux = g->mux;
	}
}

void net_reset(struct net *n)
{
	FUZZ_CHECK(n->base.pending == 0);
	free(n->in);
	*n = (struct net){
		.base = n->base,
		.on_sent = n->on_sent,
		.context = n->context,
		.close_fds = n->close_fds,
	};
}
