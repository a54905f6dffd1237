/*
 * Recovery: what a start does with the segments that it finds. Indexes of sealed segments are read,
 * the others are scanned and then sealed. Messages are put into one index first, whoever wrote
 * them; then the tombstones and states, wherever they are, are joined to them; then each writer
 * gets its share.
 *
 * Segment n belongs to writer n modulo the number of writers, but segments that know of the same
 * message stay together, so after a change of that number a writer may get more than its part until
 * they are used up.
 *
 * Start reading at recovery_run(), last in recovery.c.
 */
#pragma once

#include <stdio.h>

#include "spool/spool.h"
#include "spool/store.h"

/*
 * Fills `stores` (options->writers of them, set up and empty) from the directory.
 * 0, or a negative errno with one line on `errors`: a segment cannot be read at all, or is of a
 * newer format. Warnings go to `errors` too. `highest` gets the highest count in a message id.
 * Blocks; the main thread's.
 */
SINGLE
int recovery_run(struct segment_store *stores, const struct spool_options *options, int dir_fd,
		 FILE *errors, struct spool_recovery *found, uint64_t *highest);
