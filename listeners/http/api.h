/*
 * The console's commands by HTTP: /api/v1/WORD/WORD... is the command "WORD WORD ...", for those
 * that change nothing. Answers are the console's, in the pieces that schedulers wrote.
 */
#pragma once

#include "core/runtime/thread_class.h"

struct request;

/* /api/v1: which there are. */
BOUND
void api_list(struct request *r);

/* /api/v1/..., with `path` what follows the slash. */
BOUND
void api_command(struct request *r, const char *path);
