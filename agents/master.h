/*
 * Master: signals, and accepting for every listener. A connection is given to the scheduler with
 * the fewest, ties in turn, and comes back when it is closed, so that counts are exact. It lives in
 * the first scheduler's group unless the configuration gives it another.
 *
 * Start reading at on_accepted() in master.c.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agents/scheduler.h"
#include "core/runtime/agent.h"

struct master;

/* Opens all sockets that the configuration asks for, so that a port in use is known at start: NULL
 * with one line on `errors` for each that cannot be opened. Blocks SIGTERM, SIGINT, SIGHUP, and
 * SIGUSR1 for all threads, and ignores SIGPIPE. */
SINGLE
struct master *master_create(const char *name, struct program *program, FILE *errors);

READONLY
struct agent *master_agent(struct master *m);

/* A scheduler gives an accept construct back: task. */
BOUND
void master_on_closed(struct agent *self, void *accept, uint64_t value);

/* A scheduler that leaves hands on what it serves: task. Another one goes on with it. */
BOUND
void master_on_handed_on(struct agent *self, void *accept, uint64_t value);

/* "SMTP listening on 127.0.0.1:2525" lines, for the start message. */
SINGLE
void master_describe(const struct master *m, FILE *out);

SINGLE
void master_destroy(struct master *m);
