#include "listeners/control/control.h"

#include <errno.h>
#include <stdlib.h>

#include "core/runtime/check.h"
#include "listeners/control/session.h"

static struct control *control_of(void *state)
{
	struct control *c = state;

	CHECK_MAGIC(c, CONTROL_MAGIC);
	return c;
}

static int control_open(struct scheduler *s, void **state)
{
	struct control *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		return -ENOMEM;
	}
	c->magic = CONTROL_MAGIC;
	c->scheduler = s;
	order_client_init(&c->client, s);
	traces_init(&c->traces, s);
	s->traces = &c->traces;
	*state = c;
	return 0;
}

static void control_serve(struct scheduler *s, void *state, struct accept *a)
{
	struct control *c = control_of(state);

	CHECK_MAGIC(a, ACCEPT_MAGIC);
	/* Nothing is configured of consoles once they are connected. */
	accept_let_go(a);
	if (c->stopping) {
		scheduler_close_accept(s, a);
		return;
	}
	session_open(c, a);
}

static void control_stop(struct scheduler *s, void *state, bool hurry)
{
	struct control *c = control_of(state);

	(void)s;
	c->stopping = true;
	sessions_stop(c, hurry);
	traces_stop(&c->traces);
}

static bool control_drained(struct scheduler *s, void *state)
{
	struct control *c = control_of(state);

	(void)s;
	return c->sessions == NULL && c->client.orders == 0 && c->traces.under_way == 0;
}

static void control_close(struct scheduler *s, void *state)
{
	struct control *c = control_of(state);

	ASSERT(c->sessions == NULL && c->client.orders == 0);
	traces_close(&c->traces);
	s->traces = NULL;
	c->magic = 0;
	free(c);
}

const struct listener_ops control_listener = {
	.name = "control",
	.listen_count = config_control_listen_count,
	.listen = config_control_listen,
	.on_master = true,
	.open = control_open,
	.serve = control_serve,
	.stop = control_stop,
	.drained = control_drained,
	.close = control_close,
};
