/*
 * The simulated network: connections between the program and its peers.
 *
 * A connection has two ends, the program's and an actor's, with a stream each way: what is sent
 * arrives later, in pieces that have nothing to do with those sent, in order; a full window stops
 * the sender. Ends are shut down, closed or reset; the network itself resets connections, lets
 * connects fail or hang.
 *
 * Actors are written with callbacks; the program's ends are held by kernel.c. World memory.
 * Addresses are IPv4 or IPv6 with a port, or a path (the control socket).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct net;
struct net_connection;
struct net_listener;

enum net_side { NET_PROGRAM, NET_ACTOR };

enum net_event {
	NET_CONNECTED = 1,
	NET_READABLE = 2,
	NET_WRITABLE = 4,
	/* Reset or refused: net_read() and net_send() say which error. */
	NET_BROKEN = 8,
};

struct net_end;

/* `events`: what has become true since the last call. Runs as an event of the world, never from
 * within a call on the same end. What was there before on_event was set is not told: a side that
 * accepts looks by itself. */
typedef void (*net_fn)(struct net_end *end, int events, void *context);

struct net_end {
	enum net_side side;
	struct net_end *peer;
	net_fn on_event;
	void *context;
	/* Address of the other side, as getpeername() says. */
	struct sockaddr_storage address;
	socklen_t address_len;
	/* The network's. */
	struct net_connection *connection;
	struct net_stream *in;
	struct net_stream *out;
	bool connected;
	bool closed;
	/* It broke, and why, until net_read() or net_send() has told. */
	bool broken;
	int error;
	/* Number of the connection, for the trace. */
	uint64_t number;
};

/* Faults, in permille; all but latency are off while world->calm. */
struct net_faults {
	uint64_t latency_min_ns;
	uint64_t latency_max_ns;
	/* Of connections: refused, never answered, and reset by the network at some moment. Not
	 * those to a path. */
	unsigned refuse;
	unsigned hang;
	unsigned reset;
	/* Of pieces: begin to arrive byte by byte. */
	unsigned dribble;
	/* Bytes that a stream holds; 0: a mean window. */
	uint32_t window_min;
	uint32_t window_max;
};

struct net *net_create(void);
struct net_faults *net_faults(struct net *n);

/* ---- listeners ---- */

/* Called when a connection arrives; returns false to refuse it. Sets the end's on_event. */
typedef bool (*net_accept_fn)(struct net_end *end, void *context);

/* An actor listens. */
struct net_listener *net_listen(struct net *n, const struct sockaddr *address, socklen_t len,
				net_accept_fn on_accept, void *context);
/* The program listens: connections wait in its backlog until net_accept() takes them. `on_arrival`
 * runs at each. -EADDRINUSE when somebody listens there. */
int net_listen_program(struct net *n, const struct sockaddr *address, socklen_t len, int backlog,
		       void (*on_arrival)(void *context), void *context, struct net_listener **out);
/* The oldest that waits; NULL: none. */
struct net_end *net_accept(struct net *n, struct net_listener *l);
void net_unlisten(struct net *n, struct net_listener *l);

/* ---- connections ---- */

/* Begins a connection from `side`; NET_CONNECTED or NET_BROKEN tells later. `from` (NULL: 127.0.0.1
 * and a port): the address that the other side sees. */
struct net_end *net_connect(struct net *n, enum net_side side, const struct sockaddr *to,
			    socklen_t len, const struct sockaddr *from, net_fn on_event,
			    void *context);
/* How many bytes were taken, -EAGAIN (NET_WRITABLE tells when there is room), -EPIPE, -ECONNRESET,
 * -ECONNREFUSED, -ETIMEDOUT. As in Linux, why a connection broke is told once, to the first who
 * asks; afterwards sending is -EPIPE and reading an end. */
ssize_t net_send(struct net_end *e, const void *data, size_t len);
/* How many bytes, at most what has arrived; 0: the end of the stream; -EAGAIN; -ECONNRESET. */
ssize_t net_read(struct net_end *e, void *data, size_t len);
/* Bytes or an end or an error can be read. */
bool net_readable(const struct net_end *e);
bool net_writable(const struct net_end *e);
/* No more is sent; reading goes on. */
void net_shutdown(struct net_end *e);
/* The end is gone for its side, with no more callbacks; bytes that were not read reset the
 * connection, as TCP does. */
void net_close(struct net_end *e);
void net_reset(struct net_end *e);

/*
 * What has become of what `e` has sent so far: fn(context, value, true) once the other side has
 * read all of it, fn(context, value, false) once it never will. May be called within any call of
 * the network, at once even; calls nothing of the network.
 */
typedef void (*net_mark_fn)(void *context, uint64_t value, bool read);
void net_mark(struct net_end *e, net_mark_fn fn, void *context, uint64_t value);

/* Somebody wants to know of the connections that the program makes: `change` is 1 when it begins
 * one `to` an address, -1 when its end is closed, whatever became of it. As net_mark_fn. */
typedef void (*net_watch_fn)(void *context, const struct sockaddr_storage *from,
			     const struct sockaddr_storage *to, int change);
void net_watch(struct net *n, net_watch_fn fn, void *context);

/* The program's process is gone, before any other event runs: its listeners and ends; peers see
 * ends or resets (kill), or nothing for a while and then resets (power cut). */
void net_process_died(struct net *n, bool power_cut);
/* After the program stopped by itself: no end or listener of the program is left. World_fail()s. */
void net_check_closed(struct net *n);
