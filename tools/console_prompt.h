/*
 * The interactive console: a prompt with line editing, history and completion of command names.
 */
#pragma once

#include "core/runtime/thread_class.h"
#include "tools/console_client.h"

/* Shows the answer to one command; what it returns is the caller's own business. */
typedef int (*prompt_run_fn)(void *context, const char *command);

/* Reads and runs commands until "quit", "exit" or the end of input, or until `run` returns 2. The
 * command names to complete are asked from `c`. Returns the last result of `run`, 0 when there was
 * none. */
SINGLE
int prompt_loop(struct console *c, prompt_run_fn run, void *context);
