/*
 * Control session: one connection of an operator. It takes command lines one after another, and
 * sends each answer before it looks at the next line. Who may connect is decided by the socket's
 * file mode and, once more, by the peer's credentials.
 *
 * Start reading at session_process().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agents/scheduler.h"

#define CONTROL_MAGIC 0x6374726cU

struct selection;
struct session;

/* The listener's state on its scheduler. */
BOUND
struct control {
	uint32_t magic;
	struct scheduler *scheduler;
	struct session *sessions;
	/* Orders that are not freed yet. */
	uint32_t orders;
	bool stopping;
	/* Whose turn it is to select mail, who waits for that, and the last mark that was used. */
	struct selection *selecting;
	struct selection *selections;
	uint16_t mark;
	uint64_t started_ms;
	/* Counts at the last summary from which rates were made, monotonic ms. */
	uint64_t rated_ms;
	uint64_t rated_delivered;
	uint64_t rated_received;
};

/* Takes the connection over. */
BOUND
void session_open(struct control *c, struct accept *a);

/* Ends all sessions that wait for a command; the others when they have their answer, or, with
 * `hurry`, at once. */
BOUND
void sessions_stop(struct control *c, bool hurry);
