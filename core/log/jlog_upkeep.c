#include "core/log/jlog_upkeep.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_dropped.h"
#include "core/log/jlog_index.h"
#include "core/log/jlog_subscriber.h"

#define TEXT_MAX 512
#define WARN_PERCENT 80

void jlog_report(const struct jlog_report *report, enum jlog_event event, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list args;

	if (report == NULL || report->say == NULL) {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	report->say(report->context, event, text);
}

/* The subscriber that is furthest behind; NULL: there is none. */
static const struct jlog_subscriber *slowest(const struct jlog_subscribers *list)
{
	const struct jlog_subscriber *found = NULL;

	for (unsigned i = 0; i < list->count; i++) {
		const struct jlog_subscriber *s = &list->items[i];

		if (found == NULL || jlog_id_compare(s->checkpoint, found->checkpoint) < 0) {
			found = s;
		}
	}
	return found;
}

/* What could not be removed is lost to nobody: it will be tried again. */
static int remove_segment(int directory, const struct jlog_segment *s)
{
	uint32_t records;
	int rc;

	if (!jlog_index_count(directory, s->log, &records)) {
		records = 0;
	}
	rc = jlog_segment_remove(directory, s->log);
	if (rc == 0) {
		jlog_dropped_lose(directory, s, records);
	}
	return rc;
}

static int remove_before(int directory, uint32_t end, const struct jlog_segments *segments)
{
	int removed = 0;

	for (unsigned i = 0; i < segments->count && segments->items[i].log < end; i++) {
		int rc = remove_segment(directory, &segments->items[i]);

		if (rc != 0) {
			return rc;
		}
		removed++;
	}
	return removed;
}

int jlog_remove_passed(int directory, uint32_t storage_log)
{
	const struct jlog_subscriber *last;
	struct jlog_subscribers subscribers;
	struct jlog_segments segments;
	uint32_t end;
	int rc = jlog_subscribers_list(directory, &subscribers);

	if (rc != 0) {
		return rc;
	}
	last = slowest(&subscribers);
	if (last != NULL) {
		end = last->checkpoint.log < storage_log ? last->checkpoint.log : storage_log;
		rc = jlog_segments_list(directory, &segments);
		if (rc == 0) {
			rc = remove_before(directory, end, &segments);
			jlog_segments_free(&segments);
		}
	}
	jlog_subscribers_free(&subscribers);
	return rc;
}

static uint64_t total_bytes(const struct jlog_segments *segments)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < segments->count; i++) {
		bytes += segments->items[i].bytes + segments->items[i].index_bytes;
	}
	return bytes;
}

static uint64_t bytes_from(const struct jlog_segments *segments, uint32_t log)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < segments->count; i++) {
		if (segments->items[i].log >= log) {
			bytes += segments->items[i].bytes;
		}
	}
	return bytes;
}

static int drop(int directory, const struct jlog_segments *segments,
		const struct jlog_subscriber *who, struct jlog_limit *limit,
		const struct jlog_report *report)
{
	int rc = jlog_dropped_put(directory, who->name, who->checkpoint);

	if (rc != 0) {
		jlog_report(report, JLOG_TROUBLE, "cannot keep in mind that \"%s\" is dropped: %s",
			    who->name, strerror(-rc));
	}
	rc = jlog_subscriber_remove(directory, who->name);
	if (rc == 0) {
		limit->dropped_subscribers++;
		jlog_report(report, JLOG_DROPPED,
			    "subscriber \"%s\" was dropped at %08x:%08x: it is %llu bytes behind, "
			    "and the journal may take %llu",
			    who->name, who->checkpoint.log, who->checkpoint.marker,
			    (unsigned long long)bytes_from(segments, who->checkpoint.log),
			    (unsigned long long)limit->bytes);
	}
	return rc == -ESRCH ? 0 : rc;
}

/* One step towards the limit: the oldest segment goes, or else who needs it. 1: go on; 0: enough,
 * or nothing is left to do. */
static int make_room(int directory, uint32_t storage_log, struct jlog_limit *limit,
		     const struct jlog_report *report)
{
	const struct jlog_subscriber *last;
	struct jlog_subscribers subscribers;
	struct jlog_segments segments;
	int rc = jlog_segments_list(directory, &segments);

	if (rc != 0) {
		return rc;
	}
	rc = jlog_subscribers_list(directory, &subscribers);
	if (rc == 0 && segments.count > 0 && segments.items[0].log < storage_log &&
	    total_bytes(&segments) + limit->segment_bytes > limit->bytes) {
		last = slowest(&subscribers);
		if (last != NULL && last->checkpoint.log <= segments.items[0].log) {
			rc = drop(directory, &segments, last, limit, report);
		} else {
			rc = remove_segment(directory, &segments.items[0]);
			limit->removed_segments += rc == 0;
		}
		rc = rc == 0 ? 1 : rc;
	}
	jlog_subscribers_free(&subscribers);
	jlog_segments_free(&segments);
	return rc;
}

static int warn(int directory, struct jlog_limit *limit, const struct jlog_report *report)
{
	const struct jlog_subscriber *last;
	struct jlog_subscribers subscribers;
	struct jlog_segments segments;
	uint64_t bytes;
	int rc = jlog_segments_list(directory, &segments);

	if (rc != 0) {
		return rc;
	}
	bytes = total_bytes(&segments);
	if (bytes / WARN_PERCENT < limit->bytes / 100) {
		limit->warned = false;
	} else if (!limit->warned && jlog_subscribers_list(directory, &subscribers) == 0) {
		last = slowest(&subscribers);
		if (last != NULL) {
			limit->warned = true;
			/* Without numbers that change: it may be said again. */
			jlog_report(report, JLOG_NEARLY_FULL,
				    "subscriber \"%s\" does not keep up, and the journal has "
				    "80 %% of the %llu bytes that it may take; then the subscriber "
				    "is dropped",
				    last->name, (unsigned long long)limit->bytes);
		}
		jlog_subscribers_free(&subscribers);
	}
	jlog_segments_free(&segments);
	return 0;
}

int jlog_keep_limit(int directory, uint32_t storage_log, struct jlog_limit *limit,
		    const struct jlog_report *report)
{
	int rc;

	if (limit->bytes == 0) {
		return 0;
	}
	do {
		rc = make_room(directory, storage_log, limit, report);
	} while (rc == 1);
	return rc == 0 ? warn(directory, limit, report) : rc;
}
