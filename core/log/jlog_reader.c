#include "core/log/jlog_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_subscriber.h"
#include "core/log/jlog_upkeep.h"
#include "core/runtime/check.h"

#define READER_MAGIC 0x6a726561U
#define POLL_MS 100U
#define NOTHING (-1)

SINGLE
struct jlog_reader {
	uint32_t magic;
	int directory;
	/* The segment that is read; NOTHING: it is not there (yet). */
	int fd;
	struct jlog_scan scan;
	/* Of segments before. */
	uint64_t skipped;
	/* NOTHING: there is no inotify, or nobody has waited yet. */
	int notify;
	bool no_notify;
	char *path;
	/* NULL: no subscriber. */
	char *subscriber;
};

/* ---- segments ---- */

static void close_segment(struct jlog_reader *r)
{
	if (r->fd >= 0) {
		close(r->fd);
	}
	r->fd = NOTHING;
	r->skipped += r->scan.skipped;
	jlog_scan_end(&r->scan);
}

/* Begins with a segment; it need not be there. */
static int open_segment(struct jlog_reader *r, uint32_t log)
{
	int fd = jlog_segment_open(r->directory, log, O_RDONLY);

	if (fd < 0 && fd != -ENOENT) {
		return fd;
	}
	close_segment(r);
	r->fd = fd >= 0 ? fd : NOTHING;
	jlog_scan_begin(&r->scan, r->fd, log);
	return 0;
}

/* The oldest segment of `from` and those after; -ENOENT: there is none. */
static int find_segment(const struct jlog_reader *r, uint32_t from, uint32_t *log)
{
	struct jlog_segments list;
	int rc = jlog_segments_list(r->directory, &list);

	if (rc != 0) {
		return rc;
	}
	rc = -ENOENT;
	for (unsigned i = 0; i < list.count && rc != 0; i++) {
		if (list.items[i].log >= from) {
			*log = list.items[i].log;
			rc = 0;
		}
	}
	jlog_segments_free(&list);
	return rc;
}

/* To the next segment. Returns 1, 0 (there is none yet) or a negative errno. */
static int advance(struct jlog_reader *r)
{
	uint32_t log;
	int rc = find_segment(r, r->scan.last.log + 1, &log);

	if (rc == 0) {
		rc = open_segment(r, log);
	}
	if (rc == 0) {
		return 1;
	}
	return rc == -ENOENT ? 0 : rc;
}

/* ---- reading ---- */

/* The next whole record of the segment, as long as it may be written. */
static int next_written(struct jlog_reader *r, struct jlog_record *record)
{
	int rc;

	if (r->fd < 0) {
		/* It was not there when it was looked for. */
		rc = open_segment(r, r->scan.last.log);
		if (rc != 0 || r->fd < 0) {
			return rc;
		}
	}
	rc = jlog_scan_next(&r->scan, record);
	/* What is no record may be passed over when the segment is closed. */
	return rc == -EBADMSG ? 0 : rc;
}

int jlog_reader_next(struct jlog_reader *r, struct jlog_record *record)
{
	uint32_t storage_log;
	int rc;

	CHECK_MAGIC(r, READER_MAGIC);
	for (;;) {
		rc = next_written(r, record);
		if (rc != 0) {
			return rc;
		}
		/* In this order: what the segment has when another one is written is all that it
		 * will ever have. */
		rc = jlog_storage_log(r->directory, &storage_log);
		if (rc != 0 || r->scan.last.log >= storage_log) {
			return rc;
		}
		if (r->fd >= 0) {
			rc = jlog_scan_next_closed(&r->scan, record);
			if (rc != 0) {
				return rc;
			}
		}
		rc = advance(r);
		if (rc != 1) {
			return rc;
		}
	}
}

/* Goes to after a record of the segment; not beyond its end. */
static int skip_to(struct jlog_reader *r, struct jlog_id id)
{
	struct jlog_record record;
	uint32_t storage_log;
	int rc = jlog_storage_log(r->directory, &storage_log);

	while (rc == 0 && r->fd >= 0 && r->scan.last.marker < id.marker) {
		rc = id.log < storage_log ? jlog_scan_next_closed(&r->scan, &record)
					  : next_written(r, &record);
		if (rc == 0) {
			return 0;
		}
		rc = rc == 1 ? 0 : rc;
	}
	return rc;
}

int jlog_reader_seek(struct jlog_reader *r, struct jlog_id id)
{
	uint32_t log;
	int rc;

	CHECK_MAGIC(r, READER_MAGIC);
	rc = open_segment(r, id.log);
	if (rc != 0) {
		return rc;
	}
	if (r->fd < 0) {
		rc = find_segment(r, id.log, &log);
		return rc == -ENOENT ? 0 : rc != 0 ? rc : open_segment(r, log);
	}
	return skip_to(r, id);
}

int jlog_reader_interval(struct jlog_reader *r, struct jlog_id *first, struct jlog_id *last)
{
	struct jlog_record record;
	struct jlog_id before;
	int count = 0;
	int rc = jlog_reader_next(r, &record);

	if (rc != 1) {
		return rc;
	}
	*first = record.id;
	before = (struct jlog_id){.log = first->log, .marker = first->marker - 1};
	do {
		*last = record.id;
		count++;
		rc = next_written(r, &record);
	} while (rc == 1);
	if (rc == 0) {
		rc = jlog_reader_seek(r, before);
	}
	return rc == 0 ? count : rc;
}

struct jlog_id jlog_reader_position(const struct jlog_reader *r)
{
	CHECK_MAGIC(r, READER_MAGIC);
	return r->scan.last;
}

uint64_t jlog_reader_skipped(const struct jlog_reader *r)
{
	return r->skipped + r->scan.skipped;
}

int jlog_reader_checkpoint(struct jlog_reader *r, struct jlog_id id)
{
	struct jlog_meta meta = {.safety = JLOG_ALMOST_SAFE};
	struct jlog_id before;
	int rc;

	CHECK_MAGIC(r, READER_MAGIC);
	if (r->subscriber == NULL) {
		return -EINVAL;
	}
	rc = jlog_checkpoint_read(r->directory, r->subscriber, &before);
	if (rc != 0) {
		return rc;
	}
	(void)jlog_meta_read(r->directory, &meta);
	rc = jlog_checkpoint_write(r->directory, r->subscriber, id, meta.safety == JLOG_SAFE);
	/* Not allowed to remove anything? Then the writer does. */
	if (rc == 0 && before.log < id.log &&
	    jlog_storage_log(r->directory, &meta.storage_log) == 0) {
		(void)jlog_remove_passed(r->directory, meta.storage_log);
	}
	return rc;
}

/* ---- waiting ---- */

static void watch(struct jlog_reader *r)
{
	r->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r->notify >= 0 && inotify_add_watch(r->notify, r->path, IN_MODIFY | IN_CREATE) < 0) {
		close(r->notify);
		r->notify = NOTHING;
	}
	r->no_notify = r->notify < 0;
}

/* Takes what has been told; true: it was of a segment, or more than could be kept. */
static bool told_of_segment(struct jlog_reader *r)
{
	_Alignas(struct inotify_event) char events[4096];
	bool told = false;
	uint32_t log;
	ssize_t n;

	while ((n = read(r->notify, events, sizeof(events))) > 0) {
		for (const char *at = events; at < events + n;) {
			const struct inotify_event *e = (const void *)at;

			told = told || (e->mask & IN_Q_OVERFLOW) != 0 ||
			       (e->len > 0 && jlog_segment_parse(e->name, &log));
			at += sizeof(*e) + e->len;
		}
	}
	return told;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void jlog_reader_wait(struct jlog_reader *r, unsigned timeout_ms)
{
	uint64_t end = now_ms() + timeout_ms;
	uint64_t now;

	CHECK_MAGIC(r, READER_MAGIC);
	if (r->notify < 0 && !r->no_notify) {
		/* What was written before is not told of. */
		watch(r);
		return;
	}
	if (r->no_notify) {
		poll(NULL, 0, (int)(timeout_ms < POLL_MS ? timeout_ms : POLL_MS));
		return;
	}
	while (!told_of_segment(r) && (now = now_ms()) < end) {
		struct pollfd p = {.fd = r->notify, .events = POLLIN};

		if (poll(&p, 1, (int)(end - now)) < 0) {
			return;
		}
	}
}

/* ---- life ---- */

static int start(struct jlog_reader *r)
{
	struct jlog_id id = {0};
	struct jlog_meta meta;
	int rc;

	r->directory = jlog_directory_open(r->path);
	if (r->directory < 0) {
		return r->directory;
	}
	rc = jlog_meta_read(r->directory, &meta);
	if (rc == -EPROTONOSUPPORT) {
		return rc;
	}
	if (r->subscriber != NULL) {
		rc = jlog_checkpoint_read(r->directory, r->subscriber, &id);
		if (rc != 0) {
			return rc;
		}
	}
	return jlog_reader_seek(r, id);
}

int jlog_reader_open(struct jlog_reader **reader, const char *path, const char *subscriber)
{
	struct jlog_reader *r = check_memory(calloc(1, sizeof(*r)), "the reader of a journal");
	int rc;

	r->magic = READER_MAGIC;
	r->directory = r->fd = r->notify = NOTHING;
	r->path = check_memory(strdup(path), "the reader of a journal");
	r->subscriber = subscriber != NULL
				? check_memory(strdup(subscriber), "the reader of a journal")
				: NULL;
	rc = start(r);
	if (rc != 0) {
		jlog_reader_close(r);
		return rc;
	}
	*reader = r;
	return 0;
}

void jlog_reader_close(struct jlog_reader *r)
{
	if (r == NULL) {
		return;
	}
	CHECK_MAGIC(r, READER_MAGIC);
	close_segment(r);
	if (r->notify >= 0) {
		close(r->notify);
	}
	if (r->directory >= 0) {
		close(r->directory);
	}
	free(r->subscriber);
	free(r->path);
	r->magic = 0;
	free(r);
}
