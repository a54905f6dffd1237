#include <errno.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"
#include "tests/sim/net_parts.h"

#define WINDOW 65536U
/* After a power cut peers hear nothing for so long at most. */
#define SILENCE_NS_MAX (120 * NS_PER_S)
#define DRIBBLE_MAX 64U

/* ---- life ---- */

struct net_connection *connection_make(struct net *n)
{
	struct net_connection *c = world_alloc(sizeof *c);
	uint64_t low = n->faults.window_min != 0 ? n->faults.window_min : WINDOW;
	uint64_t high = n->faults.window_max > low ? n->faults.window_max : low;

	c->net = n;
	c->next = n->connections;
	if (c->next != NULL) {
		c->next->prev = c;
	}
	n->connections = c;
	n->connection_count++;
	for (unsigned i = 0; i < 2; i++) {
		c->streams[i].window = (uint32_t)world_between(low, high);
		c->ends[i].connection = c;
		c->ends[i].peer = &c->ends[1 - i];
		c->ends[i].in = &c->streams[i];
		c->ends[i].out = &c->streams[1 - i];
		c->ends[i].number = n->connection_count;
	}
	c->ends[1].closed = true;
	return c;
}

static unsigned index_of(const struct net_end *e)
{
	return e == &e->connection->ends[0] ? 0 : 1;
}

void connection_after(struct net_connection *c, uint64_t delay_ns, world_fn fn, uint64_t value)
{
	c->events++;
	world_at(delay_ns, fn, c, value);
}

static void free_when_over(struct net_connection *c)
{
	struct net *n = c->net;

	if (c->events > 0 || !c->ends[0].closed || !c->ends[1].closed) {
		return;
	}
	*(c->prev != NULL ? &c->prev->next : &n->connections) = c->next;
	if (c->next != NULL) {
		c->next->prev = c->prev;
	}
	for (unsigned i = 0; i < 2; i++) {
		stream_free(&c->streams[i]);
	}
	world_free(c, sizeof *c);
}

void connection_event_over(struct net_connection *c)
{
	c->events--;
	free_when_over(c);
}

static void tell(struct net_end *e, int events)
{
	if (!e->closed && e->on_event != NULL) {
		e->on_event(e, events, e->context);
	}
}

/* ---- moving ---- */

static void on_moved(void *object, uint64_t i);

/* The end is on its way. */
static bool ends(const struct net_stream *s)
{
	return (s->ending == NET_FIN && !s->ended) || (s->ending == NET_RST && !s->cut);
}

void connection_move(struct net_connection *c, unsigned i)
{
	struct net_stream *s = &c->streams[i];

	if (!s->moving && (stream_under_way(s) > 0 || ends(s) || (i == 0 && c->answering))) {
		s->moving = true;
		connection_after(c, net_latency(c->net), on_moved, i);
	}
}

/* The other side is told that this one, which is closed, wants no more. */
static void reset_peer(struct net_end *e)
{
	struct net_connection *c = e->connection;

	stream_discard(e->in, true);
	if (world_chance(500)) {
		stream_discard(e->out, false);
	}
	e->out->ending = NET_RST;
	connection_move(c, index_of(e->peer));
}

void connection_break(struct net_end *e, int error)
{
	if (e->closed || e->broken) {
		return;
	}
	world_trace("broken", e->number, e->in->read_total);
	e->broken = true;
	e->error = error;
	stream_discard(e->in, world_chance(500));
	if (e->peer->closed || world_chance(500)) {
		stream_discard(e->out, false);
	}
	tell(e, NET_BROKEN | NET_READABLE | NET_WRITABLE);
}

static void on_reset(void *object, uint64_t i)
{
	struct net_connection *c = object;

	connection_break(&c->ends[i], ECONNRESET);
	connection_event_over(c);
}

/* Each side hears of it in its time. */
void connection_on_fault(void *object, uint64_t value)
{
	struct net_connection *c = object;

	(void)value;
	if (!world->calm) {
		connection_after(c, net_latency(c->net), on_reset, 0);
		connection_after(c, net_latency(c->net), on_reset, 1);
	}
	connection_event_over(c);
}

static void count_down(struct net_connection *c, size_t bytes)
{
	if (c->reset_after == 0) {
		return;
	}
	if (c->reset_after > bytes) {
		c->reset_after -= bytes;
		return;
	}
	c->reset_after = 0;
	connection_after(c, 0, connection_on_fault, 0);
}

/* How much of what is on its way arrives now. */
static size_t piece(struct net *n, struct net_stream *s)
{
	if (s->dribble == 0 && net_fault(n->faults.dribble)) {
		s->dribble = (unsigned)world_between(2, DRIBBLE_MAX);
	}
	if (s->dribble > 0) {
		s->dribble--;
		return 1;
	}
	return world_chance(250) ? 1 + world_below(stream_under_way(s)) : stream_under_way(s);
}

/* However it ends, nobody looks. */
static void stop(struct net_stream *s)
{
	s->ended = s->ending != NET_OPEN;
	s->cut = s->ending == NET_RST;
}

/* What comes for an end that is closed is answered by a reset. */
static void reject(struct net_connection *c, unsigned i)
{
	struct net_stream *s = &c->streams[i];
	bool unwanted = s->len > 0 && s->ending != NET_RST;

	stream_discard(s, true);
	stop(s);
	if (unwanted && !c->silent && !c->ends[i].broken && c->ends[i].out->ending != NET_RST) {
		reset_peer(&c->ends[i]);
	}
}

/* Data, and at the end of it maybe the end. */
static void arrive(struct net_connection *c, unsigned i)
{
	struct net_stream *s = &c->streams[i];
	struct net_end *e = &c->ends[i];

	if (stream_under_way(s) > 0) {
		size_t bytes = piece(c->net, s);

		s->arrived += bytes;
		count_down(c, bytes);
	}
	if (stream_under_way(s) == 0 && s->ending == NET_RST) {
		s->cut = true;
		connection_break(e, ECONNRESET);
		return;
	}
	if (stream_under_way(s) == 0 && ends(s)) {
		s->ended = true;
		world_trace("eof", e->number, s->read_total + s->len);
	}
	connection_move(c, i);
	tell(e, NET_READABLE);
}

static void arrive_answer(struct net_connection *c)
{
	struct net_end *e = &c->ends[0];

	c->answering = false;
	e->connected = true;
	e->out->blocked = false;
	connection_move(c, 0);
	tell(e, NET_CONNECTED | NET_WRITABLE);
}

static void on_moved(void *object, uint64_t value)
{
	struct net_connection *c = object;
	unsigned i = (unsigned)value;

	c->streams[i].moving = false;
	if (c->ends[i].closed) {
		reject(c, i);
	} else if (c->ends[i].broken) {
		stream_discard(&c->streams[i], false);
		stop(&c->streams[i]);
	} else if (i == 0 && c->answering) {
		arrive_answer(c);
	} else {
		arrive(c, i);
	}
	connection_event_over(c);
}

/* ---- sending and reading ---- */

static int take_error(struct net_end *e)
{
	int error = e->error;

	e->error = 0;
	return error;
}

ssize_t net_send(struct net_end *e, const void *data, size_t len)
{
	struct net_stream *s = e->out;
	size_t taken = len < stream_window(s) ? len : stream_window(s);

	ASSERT(!e->closed && len > 0);
	if (e->broken) {
		int error = take_error(e);

		return error != 0 ? -error : -EPIPE;
	}
	if (s->ending != NET_OPEN) {
		return -EPIPE;
	}
	s->blocked = !e->connected || taken < len;
	if (!e->connected || taken == 0) {
		return -EAGAIN;
	}
	stream_append(s, data, taken);
	connection_move(e->connection, index_of(e->peer));
	return (ssize_t)taken;
}

void net_mark(struct net_end *e, net_mark_fn fn, void *context, uint64_t value)
{
	struct net_stream *s = e->out;

	if (e->broken || e->peer->closed || s->len == 0) {
		fn(context, value, !e->broken && s->len == 0);
		return;
	}
	stream_mark(s, fn, context, value);
}

static void on_room(void *object, uint64_t i)
{
	struct net_connection *c = object;
	struct net_stream *s = &c->streams[i];

	s->telling = false;
	if (s->blocked && s->len < s->window) {
		s->blocked = false;
		tell(&c->ends[1 - i], NET_WRITABLE);
	}
	connection_event_over(c);
}

ssize_t net_read(struct net_end *e, void *data, size_t len)
{
	struct net_stream *s = e->in;
	size_t taken = len < s->arrived ? len : s->arrived;

	ASSERT(!e->closed && len > 0);
	if (taken == 0) {
		return e->broken ? -take_error(e) : s->ended ? 0 : -EAGAIN;
	}
	stream_take(s, data, taken);
	if (s->blocked && !s->telling) {
		s->telling = true;
		connection_after(e->connection, net_latency(e->connection->net), on_room,
				 index_of(e));
	}
	return (ssize_t)taken;
}

bool net_readable(const struct net_end *e)
{
	return e->in->arrived > 0 || e->in->ended || e->broken;
}

bool net_writable(const struct net_end *e)
{
	return e->broken || (e->connected && e->out->len < e->out->window);
}

/* ---- the end ---- */

void net_shutdown(struct net_end *e)
{
	if (!e->broken && e->connected && e->out->ending == NET_OPEN) {
		e->out->ending = NET_FIN;
		connection_move(e->connection, index_of(e->peer));
	}
}

/* The side has no more to do with it. */
static void leave(struct net_end *e)
{
	struct net *n = e->connection->net;

	ASSERT(!e->closed);
	world_trace("close", e->number, e->in->read_total);
	e->closed = true;
	if (e->side == NET_PROGRAM && e == &e->connection->ends[0] && n->on_watch != NULL) {
		n->on_watch(n->watch_context, &e->connection->ends[1].address, &e->address, -1);
	}
}

void net_close(struct net_end *e)
{
	if (e->in->arrived > 0 || !e->connected) {
		net_reset(e);
		return;
	}
	leave(e);
	if (!e->broken && e->out->ending == NET_OPEN) {
		e->out->ending = NET_FIN;
		connection_move(e->connection, index_of(e->peer));
	}
	free_when_over(e->connection);
}

void net_reset(struct net_end *e)
{
	leave(e);
	if (e->broken || e->peer->closed) {
		stream_discard(e->in, true);
	} else {
		reset_peer(e);
	}
	free_when_over(e->connection);
}

void connection_vanish(struct net_end *e)
{
	struct net_connection *c = e->connection;

	leave(e);
	c->silent = true;
	stream_discard(e->in, true);
	if (world_chance(500)) {
		stream_discard(e->out, false);
	}
	if (!e->peer->closed) {
		connection_after(c, world_between(NS_PER_MS, SILENCE_NS_MAX), on_reset,
				 index_of(e->peer));
	}
	free_when_over(c);
}
