/*
 * What a committed record means for the index and the accounts of the segments.
 */
#pragma once

#include "spool/commit.h"

/* Takes note of a request's record, which has been committed with batch `b`. */
BOUND
void apply_record(struct committer *c, struct spool_request *r, struct batch *b);
