/*
 * The mail transfer agent as one object: spool, logs, sockets and agents, opened and composed as
 * the configuration says, ready to run. flywheeld runs it on threads; the simulator steps it.
 *
 * Start reading at open_all() in server.c.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "agents/crew.h"
#include "agents/scheduler.h"
#include "config/config.h"
#include "core/runtime/clock.h"

struct server;

/* True when this program can hold as many agents of each kind and group as configured; otherwise
 * one line for each excess on `errors`. */
SINGLE
bool server_agents_fit(const struct config *config, FILE *errors);

/* True when the file of bounce rules that is configured can be read and has no error; otherwise its
 * errors are on `errors`. */
SINGLE
bool server_bounce_rules_valid(const struct config *config, FILE *errors);

/* Takes `config` over. NULL with a line on `errors` when something cannot be opened; nothing is
 * left behind then. Blocks while it recovers the spool. `errors` must outlive the server. */
SINGLE
struct server *server_create(struct config *config, const struct clock *clock, FILE *errors);

/* What its agents share; runtime_run() or runtime_invoke_start() starts them. */
SINGLE
struct program *server_program(struct server *s);

/*
 * While it runs: as many schedulers as `config` says, and the cores and idle strategies of all
 * agents and groups; nothing else of it. `done` is called on `self`, an agent, later, with 0 or a
 * negative errno (agents/crew.h). `config` is not kept.
 */
BOUND
void server_set_agents(struct server *s, const struct config *config, struct agent *self,
		       crew_done_fn done, void *context);

/* After all agents have stopped, or before they started. */
SINGLE
void server_destroy(struct server *s);
