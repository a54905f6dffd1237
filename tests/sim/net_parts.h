/*
 * What the parts of the simulated network share: net.c (listeners and how connections begin) and
 * net_connection.c (what connections do until their end).
 */
#pragma once

#include "tests/sim/net.h"
#include "tests/sim/net_stream.h"
#include "tests/sim/world.h"

/* ends[0] began it; streams[i] is what ends[i] reads. */
struct net_connection {
	struct net *net;
	struct net_connection *next;
	struct net_connection *prev;
	struct net_end ends[2];
	struct net_stream streams[2];
	/* ends[1] is somebody's, and ends[0] has yet to hear of it. */
	bool answering;
	/* The program's end was there when the power was cut: nobody answers. */
	bool silent;
	/* Bytes until the network resets it; 0: never. */
	uint64_t reset_after;
	/* Events on their way. */
	uint32_t events;
	/* The next in the backlog. */
	struct net_connection *waiting;
};

struct net_listener {
	struct net_listener *next;
	enum net_side side;
	struct sockaddr_storage address;
	socklen_t address_len;
	net_accept_fn on_accept;
	void (*on_arrival)(void *context);
	void *context;
	int backlog;
	int waiting_count;
	struct net_connection *waiting;
};

struct net {
	struct net_faults faults;
	struct net_listener *listeners;
	struct net_connection *connections;
	uint64_t connection_count;
	uint16_t next_port;
	/* The power was cut, and the program has not used the network since. */
	bool down;
	net_watch_fn on_watch;
	void *watch_context;
};

/* What the network does at random takes so long: mostly little, now and then anything. */
uint64_t net_latency(const struct net *n);
/* True `permille` times of 1000, unless the world is calm. */
bool net_fault(unsigned permille);

/* Both ends closed but for the first one's, not yet anywhere. */
struct net_connection *connection_make(struct net *n);
/* An event of the connection, which lives until then; `fn` ends with connection_event_over(). */
void connection_after(struct net_connection *c, uint64_t delay_ns, world_fn fn, uint64_t value);
void connection_event_over(struct net_connection *c);
/* Sees to it that what streams[i] has under way arrives. */
void connection_move(struct net_connection *c, unsigned i);
/* The network, as an event, resets it; unless the world is calm. */
void connection_on_fault(void *object, uint64_t value);
/* The end hears that the connection is no more. */
void connection_break(struct net_end *e, int error);
/* The side is gone without a word: the other finds out much later. */
void connection_vanish(struct net_end *e);
