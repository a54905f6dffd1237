/*
 * The interactive console: a prompt with line editing, a history that outlives it, and completion
 * of commands, of the words they take, and of domains and bindings. ^C at the prompt drops the
 * line.
 */
#pragma once

#include "core/runtime/thread_class.h"
#include "tools/console_client.h"

/* Shows the answer to one command; what it returns is the caller's own business. */
typedef int (*prompt_run_fn)(void *context, const char *command);

/* Reads and runs commands until "quit", "exit" or the end of input. What there is to complete is
 * asked from `c`. Returns the last result of `run`, 0 when there was none. */
SINGLE
int prompt_loop(struct console *c, prompt_run_fn run, void *context);
