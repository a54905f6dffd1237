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
#include "listeners/control/order.h"
#include "listeners/control/traces.h"

#define CONTROL_MAGIC 0x6374726cU

struct session;

/* The listener's state on its scheduler. */
BOUND
struct control {
	uint32_t magic;
	struct scheduler *scheduler;
	struct session *sessions;
	struct order_client client;
	bool stopping;
	struct traces traces;
};

/* Takes the connection over. */
BOUND
void session_open(struct control *c, struct accept *a);

/* Ends all sessions that wait for a command; the others when they have their answer, or, with
 * `hurry`, at once. */
BOUND
void sessions_stop(struct control *c, bool hurry);
