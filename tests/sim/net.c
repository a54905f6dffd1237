#include "tests/sim/net.h"

#include <errno.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"
#include "tests/sim/net_address.h"
#include "tests/sim/net_parts.h"

/* A client that gets no answer asks again every second, so many times. */
#define CONNECT_TRIES 60U
/* When the network resets a connection, as powers of two: nanoseconds, bytes. */
#define RESET_NS_BITS 36U
#define RESET_BYTES_BITS 17U
#define PORT_FIRST 40000

struct net *net_create(void)
{
	struct net *n = world_alloc(sizeof *n);

	n->faults.latency_min_ns = 50 * NS_PER_US;
	n->faults.latency_max_ns = NS_PER_MS;
	n->next_port = PORT_FIRST;
	return n;
}

struct net_faults *net_faults(struct net *n)
{
	return &n->faults;
}

void net_watch(struct net *n, net_watch_fn fn, void *context)
{
	n->on_watch = fn;
	n->watch_context = context;
}

/* ---- small things ---- */

uint64_t net_latency(const struct net *n)
{
	uint64_t low = n->faults.latency_min_ns;
	uint64_t high = n->faults.latency_max_ns > low ? n->faults.latency_max_ns : low;

	return world_between(low, world_chance(800) ? low + (high - low) / 16 : high);
}

bool net_fault(unsigned permille)
{
	return !world->calm && world_chance(permille);
}

/* ---- listeners ---- */

static struct net_listener *find_listener(struct net *n, const struct sockaddr_storage *to)
{
	struct net_listener *l = n->listeners;

	while (l != NULL && !address_reaches(&l->address, to)) {
		l = l->next;
	}
	return l;
}

static struct net_listener *add_listener(struct net *n, enum net_side side,
					 const struct sockaddr *address, socklen_t len)
{
	struct net_listener *l = world_alloc(sizeof *l);

	ASSERT(len <= sizeof l->address);
	l->side = side;
	memcpy(&l->address, address, len);
	l->address_len = len;
	l->next = n->listeners;
	n->listeners = l;
	return l;
}

struct net_listener *net_listen(struct net *n, const struct sockaddr *address, socklen_t len,
				net_accept_fn on_accept, void *context)
{
	struct net_listener *l = add_listener(n, NET_ACTOR, address, len);

	l->on_accept = on_accept;
	l->context = context;
	return l;
}

int net_listen_program(struct net *n, const struct sockaddr *address, socklen_t len, int backlog,
		       void (*on_arrival)(void *context), void *context, struct net_listener **out)
{
	struct sockaddr_storage copy = {0};

	ASSERT(len <= sizeof copy);
	memcpy(&copy, address, len);
	n->down = false;
	if (find_listener(n, &copy) != NULL) {
		return -EADDRINUSE;
	}
	*out = add_listener(n, NET_PROGRAM, address, len);
	(*out)->backlog = backlog;
	(*out)->on_arrival = on_arrival;
	(*out)->context = context;
	return 0;
}

struct net_end *net_accept(struct net *n, struct net_listener *l)
{
	struct net_connection *c = l->waiting;

	(void)n;
	if (c == NULL) {
		return NULL;
	}
	l->waiting = c->waiting;
	l->waiting_count--;
	world_trace("accept", c->ends[1].number, c->streams[1].arrived);
	return &c->ends[1];
}

void net_unlisten(struct net *n, struct net_listener *l)
{
	struct net_listener **at = &n->listeners;

	while (l->waiting != NULL) {
		net_reset(net_accept(n, l));
	}
	while (*at != l) {
		at = &(*at)->next;
	}
	*at = l->next;
	world_free(l, sizeof *l);
}

/* ---- connecting ---- */

static void on_failed(void *object, uint64_t error)
{
	struct net_connection *c = object;

	connection_break(&c->ends[0], (int)error);
	connection_event_over(c);
}

/* Any number of up to `low` to `high` bits. In two steps: which of two operands draws first is the
 * compiler's choice. */
static uint64_t draw_magnitude(uint64_t low, uint64_t high)
{
	uint64_t bits = world_between(low, high);

	return world_random() >> (64 - bits);
}

static void draw_reset(struct net_connection *c)
{
	if (c->ends[0].address.ss_family == AF_UNIX || !net_fault(c->net->faults.reset)) {
		return;
	}
	if (world_chance(500)) {
		c->reset_after = 1 + draw_magnitude(1, RESET_BYTES_BITS);
	} else {
		connection_after(c, draw_magnitude(10, RESET_NS_BITS), connection_on_fault, 0);
	}
}

static void wait_in_backlog(struct net_listener *l, struct net_connection *c)
{
	struct net_connection **at = &l->waiting;

	while (*at != NULL) {
		at = &(*at)->waiting;
	}
	*at = c;
	l->waiting_count++;
	l->on_arrival(l->context);
}

/* The other side begins to be. */
static void reach(struct net_connection *c, struct net_listener *l)
{
	struct net_end *e = &c->ends[1];

	e->side = l->side;
	e->closed = false;
	e->connected = true;
	e->address_len = address_as_seen(&e->address, l->address.ss_family);
	c->answering = true;
	draw_reset(c);
	world_trace("reach", e->number, (uint64_t)l->side);
	if (l->side == NET_PROGRAM) {
		wait_in_backlog(l, c);
	} else if (!l->on_accept(e, l->context)) {
		e->closed = true;
		c->answering = false;
		connection_after(c, net_latency(c->net), on_failed, ECONNREFUSED);
		return;
	}
	connection_move(c, 0);
}

static void on_knock(void *object, uint64_t tries)
{
	struct net_connection *c = object;
	struct net *n = c->net;
	struct net_listener *l = find_listener(n, &c->ends[0].address);

	if (c->ends[0].closed) {
		connection_event_over(c);
		return;
	}
	if (n->down || (l != NULL && l->side == NET_PROGRAM && l->waiting_count > l->backlog)) {
		if (tries < CONNECT_TRIES) {
			connection_after(c, NS_PER_S, on_knock, tries + 1);
		} else {
			connection_break(&c->ends[0], ETIMEDOUT);
		}
	} else if (l == NULL) {
		connection_after(c, net_latency(n), on_failed, ECONNREFUSED);
	} else {
		reach(c, l);
	}
	connection_event_over(c);
}

static uint16_t next_port(struct net *n)
{
	uint16_t port = n->next_port;

	n->next_port = port == UINT16_MAX ? PORT_FIRST : (uint16_t)(port + 1);
	return port;
}

struct net_end *net_connect(struct net *n, enum net_side side, const struct sockaddr *to,
			    socklen_t len, const struct sockaddr *from, net_fn on_event,
			    void *context)
{
	struct net_connection *c = connection_make(n);
	struct net_end *e = &c->ends[0];
	bool path = to->sa_family == AF_UNIX;

	ASSERT(len <= sizeof e->address);
	e->side = side;
	e->on_event = on_event;
	e->context = context;
	memcpy(&e->address, to, len);
	e->address_len = len;
	c->ends[1].address_len = address_origin(&c->ends[1].address, from, path, next_port(n));
	world_trace("connect", e->number, address_port(&e->address));
	if (side == NET_PROGRAM) {
		n->down = false;
		if (n->on_watch != NULL) {
			n->on_watch(n->watch_context, &c->ends[1].address, &e->address, 1);
		}
	}
	if (!path && net_fault(n->faults.refuse)) {
		connection_after(c, net_latency(n), on_failed, ECONNREFUSED);
	} else if (!path && net_fault(n->faults.hang)) {
		connection_after(c, CONNECT_TRIES * NS_PER_S, on_failed, ETIMEDOUT);
	} else {
		connection_after(c, net_latency(n), on_knock, 0);
	}
	return e;
}

/* ---- the end of the program ---- */

static void drop_listeners(struct net *n, bool power_cut)
{
	struct net_listener *l = n->listeners;

	while (l != NULL) {
		struct net_listener *next = l->next;

		if (l->side == NET_PROGRAM) {
			if (power_cut) {
				l->waiting = NULL;
			}
			net_unlisten(n, l);
		}
		l = next;
	}
}

void net_process_died(struct net *n, bool power_cut)
{
	drop_listeners(n, power_cut);
	for (struct net_connection *c = n->connections, *next; c != NULL; c = next) {
		next = c->next;
		/* It lives until both ends were looked at. */
		c->events++;
		for (unsigned i = 0; i < 2; i++) {
			if (c->ends[i].side != NET_PROGRAM || c->ends[i].closed) {
				continue;
			}
			if (power_cut) {
				connection_vanish(&c->ends[i]);
			} else {
				net_close(&c->ends[i]);
			}
		}
		connection_event_over(c);
	}
	n->down = power_cut;
}

void net_check_closed(struct net *n)
{
	for (struct net_listener *l = n->listeners; l != NULL; l = l->next) {
		if (l->side == NET_PROGRAM) {
			world_fail("a listener of the program is left after its stop");
		}
	}
	for (struct net_connection *c = n->connections; c != NULL; c = c->next) {
		for (unsigned i = 0; i < 2; i++) {
			if (c->ends[i].side == NET_PROGRAM && !c->ends[i].closed) {
				world_fail("connection %llu is left after the program's stop",
					   (unsigned long long)c->ends[i].number);
			}
		}
	}
}
