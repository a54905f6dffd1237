/*
 * One direction of a simulated connection: bytes that have arrived and can be read, bytes that are
 * on their way behind them, marks between them, and how it ends. Knows nothing of time: net.c moves
 * it. World memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/net.h"

/* How a stream ends, behind what was sent. */
enum net_ending { NET_OPEN, NET_FIN, NET_RST };

struct net_mark {
	uint64_t position;
	net_mark_fn fn;
	void *context;
	uint64_t value;
	struct net_mark *next;
};

struct net_stream {
	/* From `start` on, `arrived` bytes that can be read, of `len` in all. */
	char *data;
	size_t room;
	size_t start;
	size_t arrived;
	size_t len;
	uint64_t read_total;
	uint32_t window;
	enum net_ending ending;
	/* The end has arrived, too: FIN, RST. */
	bool ended;
	bool cut;
	/* An event that moves it is on its way. */
	bool moving;
	/* The sender met a full window; an event that tells it of room is on its way. */
	bool blocked;
	bool telling;
	/* So many more bytes arrive one at a time. */
	unsigned dribble;
	/* In order of their positions. */
	struct net_mark *marks;
};

static inline size_t stream_under_way(const struct net_stream *s)
{
	return s->len - s->arrived;
}

static inline size_t stream_window(const struct net_stream *s)
{
	return s->window - s->len;
}

/* Puts bytes under way, as many as the window takes at most. */
void stream_append(struct net_stream *s, const void *data, size_t len);
/* Takes arrived bytes off. */
void stream_take(struct net_stream *s, void *data, size_t len);
/* Marks what was sent so far, which has not all been read. */
void stream_mark(struct net_stream *s, net_mark_fn fn, void *context, uint64_t value);
/* What is under way never arrives; with `all`, what has arrived is not read either. */
void stream_discard(struct net_stream *s, bool all);
void stream_free(struct net_stream *s);
