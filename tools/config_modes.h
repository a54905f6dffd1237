/*
 * Modes and owners of files that git replaces: it knows neither, so what was there has them noted
 * before, and what is there gets them after.
 */
#pragma once

#include <stddef.h>
#include <sys/stat.h>

#include "core/runtime/thread_class.h"

struct noted;

SINGLE
struct modes {
	struct noted *list;
	size_t count;
	/* What is new becomes as these are: the main file, and the uppermost folder. */
	struct stat file;
	struct stat folder;
};

/* Notes what the names below `folder` are, and the folders on their way. Each name ends with a
 * NUL, and the last is empty. `main` is the main file below `folder`. */
SINGLE
void modes_note(struct modes *m, const char *folder, const char *main, const char *names);

/* Gives them back, and frees `m`. Whoever may not give a file away keeps it, and lets its new group
 * do no more than all others. */
SINGLE
void modes_restore(struct modes *m);
