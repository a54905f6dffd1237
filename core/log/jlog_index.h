/*
 * Indexes of segments: where each record begins, for readers of libjlog, which go by them. Our own
 * readers go by the records. An index is made when its segment is closed, and made right when it
 * contradicts its segment, as after a power cut; what readers have made of the segment that is
 * being written stays as long as it is right.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/log/jlog_format.h"

/*
 * Makes the index of segment `log` right. With `close` it is made if there is none, completed, and
 * closed: nobody may append to the segment afterwards. Returns 0, 1 (it was closed already, and is
 * right), -EAGAIN (a reader is at it) or another negative errno.
 */
SINGLE
int jlog_index_sync(int directory, uint32_t log, bool close);

/* How many records the segment has by its index; false: it has none that is closed. */
SINGLE
bool jlog_index_count(int directory, uint32_t log, uint32_t *records);
