/*
 * `flywheel top`: a live view of a running flywheeld, like top(1). It asks a few commands whose
 * answers are short every two seconds, and draws on a terminal without any library: whole lines, no
 * colour.
 *
 * Start reading at run_live(), last but one in console_top.c.
 */
#pragma once

#include "core/runtime/thread_class.h"
#include "tools/console_client.h"

/*
 * Runs it with the words that follow "top": [-b] [-n COUNT] [-d SECONDS]. -b, or an output that is
 * no terminal: text, COUNT times (1). Returns 0; 1 when flywheeld refused something; 2 for wrong
 * usage, or when flywheeld could not be reached, which is said on standard error.
 */
SINGLE
int console_top(struct console *c, char **words, int count);
