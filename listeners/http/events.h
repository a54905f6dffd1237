/*
 * Events: server-sent events (HTML standard, section 9.2) with what a dashboard needs, one JSON
 * object each interval. One object is made for all who follow; who is slow is sent the latest when
 * he has taken the one before, and misses those between. Without followers nothing is made.
 *
 * Start reading at on_tick(); what is in an object is in http_event.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/histogram.h"
#include "core/runtime/runtime.h"
#include "core/runtime/timer.h"
#include "listeners/http/gather.h"

struct http;
struct request;

/* One object as it is sent, shared by those who are being sent it. */
BOUND
struct http_event {
	uint32_t references;
	uint64_t number;
	char *data;
	size_t len;
};

/* What is counted, at one moment. */
BOUND
struct event_counts {
	uint64_t at_ns;
	uint64_t received;
	uint64_t received_bytes;
	uint64_t rejected;
	uint64_t delivered;
	uint64_t deferred;
	uint64_t failed;
	uint64_t commits;
	uint64_t records;
	uint64_t cpu_ns[RUNTIME_GROUPS_MAX];
	uint64_t work[AGENT_MAX];
	uint64_t idle[AGENT_MAX];
	struct histogram commit_ns;
};

BOUND
struct events {
	struct http *http;
	struct timer timer;
	struct gather_wait wait;
	struct request *followers;
	/* The latest; NULL: none. */
	struct http_event *event;
	uint64_t number;
	/* At the last object, and scratch for the next. NULL while nobody follows. */
	struct event_counts *before;
	struct event_counts *now;
};

BOUND
void events_init(struct events *v, struct http *http);

/* A client follows from now on, or is refused as there are too many. */
BOUND
void events_follow(struct events *v, struct request *r);
BOUND
void events_unfollow(struct events *v, struct request *r);

/* All answers end where they are. */
BOUND
void events_stop(struct events *v);

/* Takes stock. */
BOUND
void event_count(struct event_counts *n, const struct http *http);

/* The object, as JSON text (malloc): what has been since `before`, and what is. */
BOUND
char *http_event_text(const struct http *http, const struct snapshot *s,
		      const struct event_counts *before, const struct event_counts *now);
