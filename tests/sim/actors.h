/*
 * The actors of the world: senders, receivers, operators. Each is a set of callbacks on network
 * ends and events (net.h, world.h) and writes what it saw into the books. World memory; they
 * outlive the program's lives: a sender whose connection broke tries its message again, as a new
 * one, unless it was answered.
 */
#pragma once

#include <stdbool.h>

struct scenario;

/* SMTP clients: pipelining or not, in pieces, several messages a connection, pauses, RSET, dropped
 * connections, half-closes, garbage and too long lines in between; at random by the scenario. Stops
 * when all messages of the scenario have been submitted. */
void senders_create(struct scenario *s);
/* All messages have been answered for good. */
bool senders_done(void);

/* SMTP servers, one for each port of the scenario's domains: replies at random by the domain's
 * temper: 4xx, 5xx, 421 and drop at any stage, garbage, silence, slow reading, huge and multi-line
 * replies, sudden limits, resets. Calm: accept all. Notifications come to a domain of their own. */
void receivers_create(struct scenario *s);

/* Console clients on the control socket, and signals: flush, suspend, resume, fail, look-ups of all
 * kinds, at random; checks that each answer is a JSON document and neither silence nor an end.
 * When the world is calm it resumes and flushes everything, once in each life. */
void operators_create(struct scenario *s);
/* A life has begun: the control socket will be there. */
void operators_life_began(void);
/* The number of schedulers is about to change. */
void operators_crew_changes(void);
