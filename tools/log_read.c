/*
 * `flywheel log read`, `tail` and `write`: records out of a journal and into it, line by line.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log/event_text.h"
#include "core/log/jlog_directory.h"
#include "core/log/jlog_reader.h"
#include "core/log/jlog_writer.h"
#include "core/mail/utf8.h"
#include "tools/log_commands.h"

#define CHECKPOINT_RECORDS 1000
#define WAIT_MS 1000
#define BATCH_BYTES 65536
#define BUSY_TRIES 100

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

/* A second one ends it at once. */
static void catch_signals(void)
{
	const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* ---- records as lines ---- */

/* A string of JSON from any octets: what is not UTF-8 becomes U+FFFD. */
static json_t *any_text(const char *text, size_t len)
{
	char *clean = malloc(3 * len + 1);
	json_t *value;
	size_t n;

	if (clean == NULL) {
		return NULL;
	}
	n = utf8_clean(text, len, "\xef\xbf\xbd", clean);
	value = json_stringn(clean, n);
	free(clean);
	return value;
}

static json_t *field_text(const char *field, size_t len)
{
	char *plain = malloc(len + 1);
	json_t *value;
	int n;

	if (plain == NULL) {
		return NULL;
	}
	n = event_text_unescape(field, len, plain);
	value = n >= 0 ? any_text(plain, (size_t)n) : any_text(field, len);
	free(plain);
	return value;
}

/* What stands between the "@" that are not escaped. */
static json_t *fields_of(const char *text, size_t len)
{
	json_t *fields = json_array();
	size_t from = 0;

	for (size_t i = 0; i <= len; i++) {
		if (i < len && text[i] == '\\') {
			i++;
		} else if (i == len || text[i] == '@') {
			json_array_append_new(fields, field_text(text + from, i - from));
			from = i + 1;
		}
	}
	return fields;
}

static void put_object(const struct jlog_record *r)
{
	time_t seconds = (time_t)(r->wall_us / 1000000);
	char id[LOG_ID_TEXT];
	char at[64];
	struct tm tm;
	json_t *object;

	log_id_text(r->id, id);
	gmtime_r(&seconds, &tm);
	snprintf(at + strftime(at, 32, "%Y-%m-%dT%H:%M:%S", &tm), 32, ".%06uZ",
		 (unsigned)(r->wall_us % 1000000));
	object = json_pack("{s:s, s:s, s:o}", "id", id, "at", at, "fields",
			   fields_of((const char *)r->data, r->len));
	json_dumpf(object, stdout, JSON_COMPACT);
	json_decref(object);
}

void log_put_record(const struct jlog_record *r, bool json)
{
	if (json && (r->len == 0 || r->data[0] != '{')) {
		put_object(r);
	} else {
		fwrite(r->data, 1, r->len, stdout);
	}
	putc('\n', stdout);
}

/* ---- reading ---- */

SINGLE
struct reading {
	const struct log_request *q;
	struct jlog_reader *reader;
	const char *subscriber;
	struct jlog_id checkpoint;
	/* Shown since then. */
	unsigned fresh;
};

/* What was shown is written out, and only then is the subscriber done with it. */
static int commit(struct reading *g)
{
	struct jlog_id at = jlog_reader_position(g->reader);
	int rc;

	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "flywheel log: cannot write: %s\n", strerror(errno));
		return LOG_EXIT_USAGE;
	}
	g->fresh = 0;
	if (g->subscriber == NULL || g->q->no_checkpoint ||
	    jlog_id_compare(at, g->checkpoint) == 0) {
		return LOG_EXIT_OK;
	}
	rc = jlog_reader_checkpoint(g->reader, at);
	if (rc != 0) {
		return log_fault(g->q->path, rc);
	}
	g->checkpoint = at;
	return LOG_EXIT_OK;
}

/* Shows what there is, and what comes if it follows. `most` 0: no limit. */
static int show_records(struct reading *g, uint64_t most)
{
	struct jlog_record record;
	uint64_t shown = 0;
	int status = LOG_EXIT_OK;

	while (!stop && status == LOG_EXIT_OK && (most == 0 || shown < most)) {
		int rc = jlog_reader_next(g->reader, &record);

		if (rc < 0) {
			commit(g);
			return log_fault(g->q->path, rc);
		}
		if (rc == 1) {
			log_put_record(&record, g->q->json);
			shown++;
			status = ++g->fresh >= CHECKPOINT_RECORDS ? commit(g) : LOG_EXIT_OK;
			continue;
		}
		status = commit(g);
		if (!g->q->follow) {
			break;
		}
		if (status == LOG_EXIT_OK) {
			jlog_reader_wait(g->reader, WAIT_MS);
		}
	}
	return status == LOG_EXIT_OK ? commit(g) : status;
}

static void tell_skipped(const struct reading *g)
{
	uint64_t skipped = jlog_reader_skipped(g->reader);

	if (skipped > 0) {
		fprintf(stderr,
			"flywheel log: %s: %llu bytes are no records and were passed over\n",
			g->q->path, (unsigned long long)skipped);
	}
}

int log_read(const struct log_request *q)
{
	struct reading g = {
		.q = q,
		.subscriber = q->subscriber_count > 0 ? q->subscribers[0] : NULL,
	};
	int status;
	int rc = jlog_reader_open(&g.reader, q->path, g.subscriber);

	if (rc != 0) {
		return log_fault(q->path, rc);
	}
	catch_signals();
	g.checkpoint = jlog_reader_position(g.reader);
	if (q->counted && q->count == 0) {
		status = LOG_EXIT_OK;
	} else {
		status = show_records(&g, q->counted ? q->count : 0);
	}
	tell_skipped(&g);
	jlog_reader_close(g.reader);
	return status;
}

/* How many records there are. */
static int count_records(struct jlog_reader *r, uint64_t *count)
{
	struct jlog_record record;
	int rc;

	*count = 0;
	while ((rc = jlog_reader_next(r, &record)) == 1) {
		(*count)++;
	}
	return rc;
}

int log_tail(const struct log_request *q)
{
	struct reading g = {.q = q};
	struct jlog_record record;
	uint64_t count;
	int status;
	int rc = jlog_reader_open(&g.reader, q->path, NULL);

	if (rc != 0) {
		return log_fault(q->path, rc);
	}
	catch_signals();
	rc = count_records(g.reader, &count);
	if (rc == 0) {
		rc = jlog_reader_seek(g.reader, (struct jlog_id){0});
	}
	for (uint64_t i = q->count; rc >= 0 && i < count; i++) {
		rc = jlog_reader_next(g.reader, &record);
	}
	status = rc < 0 ? log_fault(q->path, rc) : show_records(&g, 0);
	jlog_reader_close(g.reader);
	return status;
}

/* ---- writing ---- */

SINGLE
struct writing {
	const struct log_request *q;
	struct jlog_writer *writer;
	/* A line that is not over yet, and those that are, behind their headers. */
	char *line;
	size_t line_len;
	unsigned char *batch;
	size_t batch_len;
	uint64_t records;
	uint64_t pending;
};

static void say_event(void *context, enum jlog_event event, const char *text)
{
	const struct log_request *q = context;

	(void)event;
	fprintf(stderr, "flywheel log: %s: %s\n", q->path, text);
}

static int write_batch(struct writing *g)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	size_t done = 0;

	for (unsigned tries = 0; done < g->batch_len;) {
		ssize_t n = jlog_writer_write(g->writer, g->batch + done, g->batch_len - done);

		if (n == -EAGAIN && ++tries < BUSY_TRIES) {
			nanosleep(&pause, NULL);
			continue;
		}
		if (n < 0) {
			return log_fault(g->q->path, (int)n);
		}
		done += (size_t)n;
	}
	g->batch_len = 0;
	g->records += g->pending;
	g->pending = 0;
	if (g->q->acknowledge) {
		printf("%llu\n", (unsigned long long)g->records);
		fflush(stdout);
	}
	return LOG_EXIT_OK;
}

static void *room(void *block, size_t bytes)
{
	block = realloc(block, bytes);
	if (block == NULL) {
		fprintf(stderr, "flywheel log: out of memory\n");
		exit(LOG_EXIT_FAILED);
	}
	return block;
}

static void add_record(struct writing *g, const char *text, size_t len)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	g->batch = room(g->batch, g->batch_len + JLOG_HEADER_BYTES + len);
	jlog_put_header(g->batch + g->batch_len, (uint32_t)len,
			(uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	memcpy(g->batch + g->batch_len + JLOG_HEADER_BYTES, text, len);
	g->batch_len += JLOG_HEADER_BYTES + len;
	g->pending++;
}

/* Makes records of the lines that are over. */
static void take_lines(struct writing *g)
{
	size_t from = 0;
	const char *end;

	while ((end = memchr(g->line + from, '\n', g->line_len - from)) != NULL) {
		add_record(g, g->line + from, (size_t)(end - g->line) - from);
		from = (size_t)(end - g->line) + 1;
	}
	g->line_len -= from;
	memmove(g->line, g->line + from, g->line_len);
}

static int write_lines(struct writing *g)
{
	int status = LOG_EXIT_OK;

	while (!stop && status == LOG_EXIT_OK) {
		ssize_t n;

		g->line = room(g->line, g->line_len + BATCH_BYTES);
		n = read(STDIN_FILENO, g->line + g->line_len, BATCH_BYTES);
		if (n == 0) {
			break;
		}
		if (n < 0 && errno != EINTR) {
			return log_fault("standard input", -errno);
		}
		g->line_len += n > 0 ? (size_t)n : 0;
		take_lines(g);
		status = g->batch_len > 0 ? write_batch(g) : LOG_EXIT_OK;
	}
	/* The last line may have no end. */
	if (status == LOG_EXIT_OK && g->line_len > 0) {
		add_record(g, g->line, g->line_len);
		status = write_batch(g);
	}
	return status;
}

int log_write(const struct log_request *q)
{
	const struct jlog_options options = {
		.path = q->path,
		.segment_bytes = (uint32_t)q->segment_bytes,
		.limit_bytes = q->limit_bytes,
		.safety = q->safety,
		.subscribers = q->subscribers,
		.subscriber_count = q->subscriber_count,
		.report = {.say = say_event, .context = (void *)(uintptr_t)q},
	};
	struct writing g = {.q = q};
	int status;
	int rc = jlog_writer_open(&g.writer, &options);

	if (rc != 0) {
		return log_fault(q->path, rc);
	}
	catch_signals();
	status = write_lines(&g);
	rc = jlog_writer_close(g.writer);
	if (rc != 0 && status == LOG_EXIT_OK) {
		status = log_fault(q->path, rc);
	}
	free(g.line);
	free(g.batch);
	return status;
}
