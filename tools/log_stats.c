/*
 * `flywheel log stats`, `subscribers` and `repair`: what a journal has, who reads it, and what is
 * wrong with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_dropped.h"
#include "core/log/jlog_index.h"
#include "core/log/jlog_recovery.h"
#include "core/log/jlog_subscriber.h"
#include "core/log/jlog_upkeep.h"
#include "core/runtime/clock.h"
#include "tools/console_render.h"
#include "tools/log_commands.h"

SINGLE
struct view {
	int directory;
	struct jlog_meta meta;
	struct jlog_segments segments;
	struct jlog_subscribers subscribers;
	uint64_t bytes;
	uint64_t records;
	struct jlog_id first;
	struct jlog_id last;
};

/* Records of a segment up to number `most`, and the bytes that they take. */
static int walk(int directory, uint32_t log, uint32_t most, uint32_t *records, uint64_t *bytes)
{
	struct jlog_scan scan;
	struct jlog_record r;
	int rc = 1;
	int fd = jlog_segment_open(directory, log, O_RDONLY);

	*records = 0;
	*bytes = 0;
	if (fd < 0) {
		return fd == -ENOENT ? 0 : fd;
	}
	jlog_scan_begin(&scan, fd, log);
	while (scan.last.marker < most && (rc = jlog_scan_next_closed(&scan, &r)) == 1) {
	}
	*records = scan.last.marker;
	*bytes = scan.offset;
	jlog_scan_end(&scan);
	close(fd);
	return rc < 0 ? rc : 0;
}

static int count_segment(int directory, uint32_t log, uint32_t *records)
{
	uint64_t bytes;

	if (jlog_index_count(directory, log, records)) {
		return 0;
	}
	return walk(directory, log, UINT32_MAX, records, &bytes);
}

static int view_open(struct view *v, const char *path)
{
	int rc;

	*v = (struct view){.directory = jlog_directory_open(path)};
	if (v->directory < 0) {
		return v->directory;
	}
	rc = jlog_meta_read(v->directory, &v->meta);
	if (rc == 0 || rc == -EBADMSG || rc == -ENOENT) {
		rc = jlog_storage_log(v->directory, &v->meta.storage_log);
	}
	if (rc == 0) {
		rc = jlog_segments_list(v->directory, &v->segments);
	}
	if (rc == 0) {
		rc = jlog_subscribers_list(v->directory, &v->subscribers);
	}
	for (unsigned i = 0; rc == 0 && i < v->segments.count; i++) {
		const struct jlog_segment *s = &v->segments.items[i];
		uint32_t records;

		rc = count_segment(v->directory, s->log, &records);
		v->bytes += s->bytes + s->index_bytes;
		v->records += records;
		if (records > 0) {
			v->last = (struct jlog_id){s->log, records};
			v->first = v->first.marker == 0 ? (struct jlog_id){s->log, 1} : v->first;
		}
	}
	return rc;
}

static void view_close(struct view *v)
{
	jlog_segments_free(&v->segments);
	jlog_subscribers_free(&v->subscribers);
	if (v->directory >= 0) {
		close(v->directory);
	}
}

/* What a subscriber has before it. */
static int lag(const struct view *v, struct jlog_id at, uint64_t *records, uint64_t *bytes)
{
	int rc = 0;

	*records = 0;
	*bytes = 0;
	for (unsigned i = 0; rc == 0 && i < v->segments.count; i++) {
		const struct jlog_segment *s = &v->segments.items[i];
		uint32_t all;
		uint32_t done = 0;
		uint64_t done_bytes = 0;

		if (s->log < at.log) {
			continue;
		}
		rc = count_segment(v->directory, s->log, &all);
		if (rc == 0 && s->log == at.log) {
			rc = walk(v->directory, s->log, at.marker, &done, &done_bytes);
		}
		if (rc == 0 && all > done) {
			*records += all - done;
			*bytes += s->bytes - done_bytes;
		}
	}
	return rc;
}

/* What a subscriber does not know yet: that it was dropped, and is behind a gap. */
static json_t *notice(const struct view *v, const struct jlog_subscriber *s)
{
	struct jlog_dropped d;
	char text[256];
	char at[CLOCK_UTC_TEXT];

	if (!jlog_dropped_get(v->directory, s->name, s->checkpoint, &d)) {
		return json_null();
	}
	snprintf(text, sizeof(text),
		 "dropped at %s, lost at least %" PRIu64 " records, %" PRIu64 " bytes",
		 clock_format_utc(d.wall_ms, at), d.lost_records, d.lost_bytes);
	return json_string(text);
}

static json_t *subscriber_rows(const struct view *v)
{
	json_t *rows = json_array();

	for (unsigned i = 0; i < v->subscribers.count; i++) {
		const struct jlog_subscriber *s = &v->subscribers.items[i];
		uint64_t records;
		uint64_t bytes;
		char id[LOG_ID_TEXT];
		json_t *name = json_string(s->name);

		log_id_text(s->checkpoint, id);
		lag(v, s->checkpoint, &records, &bytes);
		json_array_append_new(rows, json_pack("{s:o, s:s, s:I, s:I, s:o}", "subscriber",
						      name != NULL ? name : json_string("?"),
						      "checkpoint", id, "behind_records",
						      (json_int_t)records, "behind_bytes",
						      (json_int_t)bytes, "notice", notice(v, s)));
	}
	return rows;
}

int log_stats(const struct log_request *q)
{
	static const char *const syncs[] = {"never", "segment", "batch"};
	struct view v;
	char first[LOG_ID_TEXT];
	char last[LOG_ID_TEXT];
	int status = LOG_EXIT_OK;
	int rc = view_open(&v, q->path);

	if (rc != 0) {
		status = log_fault(q->path, rc);
	} else {
		json_t *result;

		log_id_text(v.first, first);
		log_id_text(v.last, last);
		result = json_pack("{s:s, s:I, s:I, s:I, s:s, s:s, s:I, s:s, s:o}", "journal",
				   q->path, "segments", (json_int_t)v.segments.count, "size_bytes",
				   (json_int_t)v.bytes, "records", (json_int_t)v.records,
				   "first_record", first, "last_record", last, "segment_size_bytes",
				   (json_int_t)v.meta.unit_limit, "sync", syncs[v.meta.safety],
				   "subscribers", subscriber_rows(&v));
		console_put(result, q->json, stdout);
		json_decref(result);
	}
	view_close(&v);
	return status;
}

static int list_subscribers(const struct log_request *q)
{
	struct view v;
	int status = LOG_EXIT_OK;
	int rc = view_open(&v, q->path);

	if (rc != 0) {
		status = log_fault(q->path, rc);
	} else {
		json_t *rows = subscriber_rows(&v);

		console_put(rows, q->json, stdout);
		json_decref(rows);
	}
	view_close(&v);
	return status;
}

/* Before the oldest record, or after the newest. */
static int starting_point(const struct log_request *q, struct jlog_id *id)
{
	struct view v;
	int rc = view_open(&v, q->path);

	if (rc == 0) {
		*id = (struct jlog_id){.log = v.meta.storage_log};
		if (q->at_end && v.last.log == id->log) {
			*id = v.last;
		} else if (!q->at_end && v.segments.count > 0) {
			id->log = v.segments.items[0].log;
		}
	}
	view_close(&v);
	return rc;
}

static int change_subscriber(const struct log_request *q, int directory)
{
	const char *name = q->words[1];
	uint32_t storage_log;
	struct jlog_id at;
	int rc;

	if (strcmp(q->words[0], "add") == 0) {
		rc = starting_point(q, &at);
		return rc == 0 ? jlog_subscriber_add(directory, name, at) : rc;
	}
	rc = jlog_subscriber_remove(directory, name);
	if (rc == 0) {
		jlog_dropped_forget(directory, name);
	}
	/* What only it needed. */
	if (rc == 0 && jlog_storage_log(directory, &storage_log) == 0) {
		(void)jlog_remove_passed(directory, storage_log);
	}
	return rc;
}

int log_subscribers(const struct log_request *q)
{
	int directory;
	int rc;

	if (q->word_count == 0) {
		return list_subscribers(q);
	}
	if (q->word_count != 2 ||
	    (strcmp(q->words[0], "add") != 0 && strcmp(q->words[0], "remove") != 0)) {
		fprintf(stderr, "flywheel log: expected \"add NAME\" or \"remove NAME\"\n");
		return LOG_EXIT_USAGE;
	}
	directory = jlog_directory_open(q->path);
	if (directory < 0) {
		return log_fault(q->path, directory);
	}
	rc = change_subscriber(q, directory);
	close(directory);
	if (rc == -EEXIST) {
		fprintf(stderr, "flywheel log: %s: there is a subscriber \"%s\" already\n", q->path,
			q->words[1]);
		return LOG_EXIT_FAILED;
	}
	return rc == 0 ? LOG_EXIT_OK : log_fault(q->path, rc);
}

int log_repair(const struct log_request *q)
{
	struct jlog_recovery found;
	json_t *result;
	int rc = jlog_repair(q->path, &found);

	if (rc != 0) {
		return log_fault(q->path, rc);
	}
	result = json_pack("{s:I, s:I, s:b, s:I}", "cut_off_bytes", (json_int_t)found.torn_bytes,
			   "damaged_bytes", (json_int_t)found.damaged_bytes, "metastore_repaired",
			   found.metastore, "checkpoints_set_back", (json_int_t)found.checkpoints);
	console_put(result, q->json, stdout);
	json_decref(result);
	return LOG_EXIT_OK;
}
