/*
 * Control listener: operators' commands on a Unix socket. A client sends one command on a line; the
 * answer is one JSON document on a line. Served on the master's scheduler; what a command touches
 * elsewhere is asked for by tasks (order.h).
 *
 * Start reading at command_table, in command.c.
 */
#pragma once

#include "agents/scheduler.h"

extern const struct listener_ops control_listener;
