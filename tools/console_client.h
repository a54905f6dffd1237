/*
 * The console's side of a control connection: one command on a line, one JSON document back.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "core/runtime/thread_class.h"

struct console;

/* Connects to the Unix socket at `path`. NULL with errno set when that fails. */
SINGLE
struct console *console_connect(const char *path);

/* Has the server closed the connection, as it does to one that is idle for long? */
SINGLE
bool console_is_closed(struct console *c);

/*
 * Sends `command` (no newline) and waits for the answer. Returns it, with "ok" and "result" or
 * "error", or NULL with errno set when the connection is lost: ECONNRESET when the server closed
 * it, EPROTO when what came is no answer, EINVAL for a command with a newline in it.
 */
SINGLE
json_t *console_ask(struct console *c, const char *command);

SINGLE
void console_close(struct console *c);
