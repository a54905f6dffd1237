/*
 * The console's side of a control connection: one command on a line, one JSON document back. A
 * connection that was lost, or that the server closed because it was idle for long, is made anew
 * before the next command; a command is never sent twice. A transaction of `config begin` ends with
 * its connection.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "core/runtime/thread_class.h"

struct console;

/* Connects to the Unix socket at `path`. NULL with errno set when that fails. */
SINGLE
struct console *console_connect(const char *path);

/*
 * Sends `command` (no newline) and waits for the answer. Returns it, with "ok" and "result" or
 * "error", or NULL with errno set when there is no connection, or it is lost: ECONNRESET when the
 * server closed it, EINTR when a signal came first, EPROTO when what came is no answer, EINVAL for
 * a command with a newline in it, ESTALE, once, for a command of `config` that was not sent, as it
 * may have been meant for a transaction that is lost.
 */
SINGLE
json_t *console_ask(struct console *c, const char *command);

/* Was the connection made anew since this was asked last? */
SINGLE
bool console_was_renewed(struct console *c);

SINGLE
void console_close(struct console *c);
