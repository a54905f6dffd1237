/*
 * Saves what the console has set into the files that say what it changes. All is tried in memory
 * first: the new texts have to load to what the old ones and the console's changes do.
 */
#pragma once

#include <stdio.h>

#include "config/config.h"
#include "config/overlay.h"
#include "core/runtime/thread_class.h"

/*
 * Writes the changes of `overlay` into the files that `running` was loaded from, each file as a new
 * one in the place of the old one, with its mode and owner. May block. `wrote` is told each of them
 * that was changed. Returns what they load to now, with one reference. NULL: `errors` says why, a
 * line each: a file was changed since, is not to be changed, or cannot be written; then nothing was
 * changed, but for files that `wrote` was told of, when a later one could not be put in place.
 */
SINGLE
struct config *config_writeback(const struct config *running, const struct overlay *overlay,
				void (*wrote)(void *context, const char *path), void *context,
				FILE *errors);
