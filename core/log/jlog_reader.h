/*
 * Reads a journal, beside its writers and other readers: record by record, each segment to its end
 * and then the next. A record is shown when it is whole, and never in part; places of closed
 * segments that are no records are passed over.
 *
 * A reader with a subscriber's name begins after that subscriber's checkpoint, and says by
 * jlog_reader_checkpoint() what is done; then segments that nobody needs any more are removed. One
 * without a name sees what is there, begins with the oldest record, and leaves no trace.
 *
 * Start reading at jlog_reader_next().
 */
#pragma once

#include <stdint.h>

#include "core/log/jlog_format.h"
#include "core/log/jlog_scan.h"

struct jlog_reader;

/* `subscriber` NULL: none. Returns 0, -ENOENT (no such directory), -ENOTDIR, -ESRCH (no such
 * subscriber), -EPROTONOSUPPORT (compressed records) or another negative errno. */
SINGLE
int jlog_reader_open(struct jlog_reader **reader, const char *path, const char *subscriber);

/* Returns 1 and the next record, whose data stays until the next call; 0, none now; or a negative
 * errno, after which the call can be repeated. */
SINGLE
int jlog_reader_next(struct jlog_reader *r, struct jlog_record *record);

/*
 * The records that come next in the reader's segment: `*first` and `*last` of them, as many as
 * returned; 0: none now, or a negative errno. The reader stays where it is; the next call of
 * jlog_reader_next() gives `*first`.
 */
SINGLE
int jlog_reader_interval(struct jlog_reader *r, struct jlog_id *first, struct jlog_id *last);

/* After which record the reader is: a checkpoint, once all up to there has been dealt with. */
SINGLE
struct jlog_id jlog_reader_position(const struct jlog_reader *r);

/* Goes to after `id`, back or ahead; where its segment is gone, to the oldest after it; beyond the
 * end, to the end. Returns 0 or a negative errno. */
SINGLE
int jlog_reader_seek(struct jlog_reader *r, struct jlog_id id);

/* Bytes passed over so far as they were no records. */
SINGLE
uint64_t jlog_reader_skipped(const struct jlog_reader *r);

/*
 * The subscriber is done with all up to `id`, which may be before an earlier checkpoint as long as
 * its segment is there. With JLOG_SAFE it is on the disk when this returns. Returns 0, -ESRCH (the
 * subscriber was removed meanwhile, or dropped as it was too far behind), -EINVAL (a reader without
 * a name) or another negative errno.
 */
SINGLE
int jlog_reader_checkpoint(struct jlog_reader *r, struct jlog_id id);

/*
 * Waits until there may be something new, or for `timeout_ms`; it may return early. What was
 * written since the last jlog_reader_next() ends the wait at once, from the second call on. By
 * inotify(7); where that is not to be had, it waits a tenth of a second at most. EINTR ends it.
 */
SINGLE
void jlog_reader_wait(struct jlog_reader *r, unsigned timeout_ms);

/* NULL is allowed. */
SINGLE
void jlog_reader_close(struct jlog_reader *r);
