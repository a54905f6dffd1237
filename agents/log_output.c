#include "agents/log_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agents/log_file.h"
#include "agents/log_journal.h"
#include "core/runtime/check.h"

#define RETRY_MS 1000
/* Writes of one output in one duty cycle. */
#define WRITES_PER_CYCLE 4
/* Buffers kept for reuse, by all outputs of a host. */
#define PIECES_KEPT 16
#define COUNTER_PREFIX_MAX 256

_Static_assert(LOG_PIECE_SIZE % sizeof(uint32_t) == 0, "the table of ends is at the buffer's end");

/* ---- records in buffers ---- */

static uint32_t *piece_end_of(struct log_piece *p, uint32_t record)
{
	return &p->ends[LOG_PIECE_SIZE / sizeof(uint32_t) - 1 - record];
}

static uint32_t record_end(const struct log_piece *p, uint32_t record)
{
	return p->ends[LOG_PIECE_SIZE / sizeof(uint32_t) - 1 - record];
}

static uint32_t record_start(const struct log_piece *p, uint32_t record)
{
	return record == 0 ? 0 : record_end(p, record - 1);
}

/* Is there room for one more record of `framed` bytes, and its end in the table? */
static bool piece_takes(const struct log_piece *p, size_t framed)
{
	return p->len + framed + (p->records + 1) * sizeof(uint32_t) <= LOG_PIECE_SIZE;
}

static struct log_piece *add_piece(struct log_output *o)
{
	struct log_piece *p = pool_get(&o->host->pieces);

	p->next = NULL;
	p->len = 0;
	p->records = 0;
	if (o->last == NULL) {
		o->first = p;
	} else {
		o->last->next = p;
	}
	o->last = p;
	o->pieces++;
	return p;
}

char *log_output_reserve(struct log_output *o, size_t max)
{
	struct log_piece *p = o->last;

	ASSERT(max <= LOG_RECORD_MAX);
	if (p == NULL || !piece_takes(p, o->ops->head + max + o->ops->tail)) {
		p = add_piece(o);
	}
	return p->data + p->len + o->ops->head;
}

static void count_buffered(struct log_output *o)
{
	counter_set_value(o->buffered_bytes, o->buffered);
	counter_set_value(o->waiting_records, o->committed - o->written);
}

void log_output_commit(struct log_output *o, size_t len)
{
	struct log_piece *p = o->last;
	size_t framed = o->ops->head + len + o->ops->tail;

	ASSERT(p != NULL && piece_takes(p, framed));
	o->ops->frame(o, p->data + p->len + o->ops->head, len);
	p->len += (uint32_t)framed;
	*piece_end_of(p, p->records) = p->len;
	p->records++;
	o->committed++;
	o->buffered += framed;
}

bool log_output_in_record(const struct log_output *o)
{
	return o->first != NULL && o->done_bytes != record_start(o->first, o->done);
}

/* What is left of a record that was written in part does not count as written. */
static void rewind_to_record(struct log_output *o)
{
	uint32_t start;

	if (o->first == NULL) {
		return;
	}
	start = record_start(o->first, o->done);
	o->buffered += o->done_bytes - start;
	o->done_bytes = start;
}

/* The first buffer is written in full. One is kept for what comes next. */
static void drop_piece(struct log_output *o)
{
	struct log_piece *p = o->first;

	o->done = 0;
	o->done_bytes = 0;
	if (p->next == NULL) {
		p->len = 0;
		p->records = 0;
		return;
	}
	o->first = p->next;
	o->pieces--;
	pool_put(&o->host->pieces, p);
}

/* `n` more bytes are written. */
static void advance(struct log_output *o, size_t n)
{
	ASSERT(n <= o->buffered);
	o->buffered -= n;
	while (n > 0) {
		struct log_piece *p = o->first;
		uint32_t step = p->len - o->done_bytes;

		if (n < step) {
			step = (uint32_t)n;
		}
		n -= step;
		o->done_bytes += step;
		while (o->done < p->records && record_end(p, o->done) <= o->done_bytes) {
			o->done++;
			o->written++;
		}
		if (o->done == p->records) {
			drop_piece(o);
		}
	}
}

/* Bytes from `from` on of whole records of `p`, at most `limit`. `record` is the first of them. */
static uint32_t whole_records(const struct log_piece *p, uint32_t record, uint32_t from,
			      uint64_t limit)
{
	uint32_t low = record;
	uint32_t high = p->records;

	if (p->len - from <= limit) {
		return p->len - from;
	}
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (record_end(p, middle) - from <= limit) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low == record ? 0 : record_end(p, low - 1) - from;
}

int log_output_gather(const struct log_output *o, struct iovec *iov, int max, uint64_t limit)
{
	uint32_t record = o->done;
	uint32_t from = o->done_bytes;
	int count = 0;

	for (struct log_piece *p = o->first; p != NULL && count < max; p = p->next) {
		uint32_t len = whole_records(p, record, from, limit);

		if (len == 0 && count == 0 && record < p->records) {
			len = record_end(p, record) - from;
		}
		if (len == 0) {
			break;
		}
		iov[count++] = (struct iovec){.iov_base = p->data + from, .iov_len = len};
		if (from + len < p->len || len >= limit) {
			break;
		}
		limit -= len;
		record = 0;
		from = 0;
	}
	return count;
}

/* ---- writing ---- */

/* Remembers that it is stuck, and says so: each distinct error once. */
static void output_fail(struct log_output *o, int code, const char *what, uint64_t now_ms)
{
	o->retry_ms = now_ms + RETRY_MS;
	counter_inc(o->host->write_errors);
	agent_error(o->host->agent, code, "cannot %s %s %s: %s; trying again every second", what,
		    o->ops->kind, o->path, strerror(-code));
}

void log_output_reopen(struct log_output *o, uint64_t now_ms)
{
	int rc = o->ops->reopen == NULL ? 0 : o->ops->reopen(o);

	o->failed = false;
	o->reopen = rc != 0;
	if (rc != 0) {
		output_fail(o, rc, "open", now_ms);
		return;
	}
	if (o->ops->reopen != NULL) {
		rewind_to_record(o);
	}
}

/* Returns the number of writes made. */
static int write_some(struct log_output *o, uint64_t now_ms)
{
	int work = 0;

	while (!log_output_empty(o) && work < WRITES_PER_CYCLE) {
		ssize_t n = o->ops->write(o);

		if (n >= 0) {
			counter_inc(o->host->writes);
			counter_add(o->host->bytes, (uint64_t)n);
			advance(o, (size_t)n);
			work++;
		} else if (n != -EINTR) {
			o->failed = true;
			output_fail(o, (int)n, "write", now_ms);
			break;
		}
	}
	return work;
}

int log_output_do_work(struct log_output *o, uint64_t now_ms)
{
	int work = 0;

	if (log_output_failed(o) && now_ms >= o->retry_ms) {
		o->failed = false;
		if (o->reopen) {
			log_output_reopen(o, now_ms);
		}
	}
	if (o->ops->prepare != NULL) {
		o->ops->prepare(o, now_ms);
	}
	if (!o->failed) {
		work = write_some(o, now_ms);
	}
	count_buffered(o);
	return work;
}

int log_output_rotate(struct log_output *o, uint64_t now_ms)
{
	return o->ops->rotate == NULL ? -ENOTSUP : o->ops->rotate(o, now_ms);
}

void log_output_abandon(struct log_output *o)
{
	fprintf(stderr, "flywheel: %s %s takes no more; its last lines follow\n", o->ops->kind,
		o->path);
	rewind_to_record(o);
	while (!log_output_empty(o)) {
		const struct log_piece *p = o->first;
		uint32_t from = record_start(p, o->done) + o->ops->head;
		uint32_t end = record_end(p, o->done);

		fwrite(p->data + from, 1, end - o->ops->tail - from, stderr);
		fputc('\n', stderr);
		advance(o, end - o->done_bytes);
	}
	count_buffered(o);
}

void log_output_sync(struct log_output *o)
{
	int rc = o->ops->sync(o);

	if (rc != 0) {
		fprintf(stderr, "flywheel: cannot sync %s %s: %s\n", o->ops->kind, o->path,
			strerror(-rc));
	}
}

/* ---- life ---- */

void log_output_host_init(struct log_output_host *h, struct agent *agent, const char *directory,
			  const struct log_rotation *rotation)
{
	struct counter_set *set = agent->counters;

	memset(h, 0, sizeof(*h));
	h->agent = agent;
	h->directory = strdup(directory);
	if (h->directory == NULL) {
		fatal("out of memory for agent %s", agent->name);
	}
	if (rotation != NULL) {
		h->rotation = *rotation;
	}
	pool_init(&h->pieces, "log buffers", sizeof(struct log_piece), PIECES_KEPT);
	h->bytes = counter_create(set, "bytes", COUNTER_SUM, "Bytes written to log files");
	h->writes = counter_create(set, "writes", COUNTER_SUM, "Writes to log files");
	h->write_errors = counter_create(set, "write_errors", COUNTER_SUM,
					 "Writes to log files that failed and were repeated");
}

/* When its work is to be done next though nothing is committed. */
static uint64_t output_wake_ms(const struct log_output *o)
{
	if (o->host->stopping && log_output_empty(o)) {
		return 0;
	}
	if (log_output_failed(o) && (o->wake_ms == 0 || o->retry_ms < o->wake_ms)) {
		return o->retry_ms;
	}
	return o->wake_ms;
}

uint64_t log_output_host_wake_ms(const struct log_output_host *h)
{
	uint64_t first_ms = 0;

	for (const struct log_output *o = h->outputs; o != NULL; o = o->next) {
		uint64_t ms = output_wake_ms(o);

		if (ms != 0 && (first_ms == 0 || ms < first_ms)) {
			first_ms = ms;
		}
	}
	return first_ms;
}

void log_output_host_stop(struct log_output_host *h)
{
	h->stopping = true;
}

void log_output_host_close(struct log_output_host *h)
{
	ASSERT(h->outputs == NULL);
	pool_close(&h->pieces);
	free(h->directory);
}

/* The path of `name`. */
static char *path_in(const struct log_output_host *h, const char *name)
{
	char *path;
	int rc = name[0] == '/' ? asprintf(&path, "%s", name)
				: asprintf(&path, "%s/%s", h->directory, name);

	if (rc < 0) {
		fatal("out of memory for the path of log output %s", name);
	}
	return path;
}

void log_output_init(struct log_output *o, const struct log_output_ops *ops,
		     struct log_output_host *h, const char *name)
{
	struct log_output **at = &h->outputs;
	char prefix[COUNTER_PREFIX_MAX];

	memset(o, 0, sizeof(*o));
	o->ops = ops;
	o->host = h;
	while (*at != NULL) {
		at = &(*at)->next;
	}
	*at = o;
	o->path = path_in(h, name);
	snprintf(prefix, sizeof(prefix), "%s.%s", h->agent->name, name);
	o->counters = counter_set_create(prefix);
	o->buffered_bytes = counter_create(o->counters, "buffered_bytes", COUNTER_GAUGE,
					   "Bytes of log records not yet written");
	o->waiting_records = counter_create(o->counters, "waiting_records", COUNTER_GAUGE,
					    "Log records not yet written");
}

void log_output_free(struct log_output *o)
{
	struct log_output **at = &o->host->outputs;

	while (*at != o) {
		at = &(*at)->next;
	}
	*at = o->next;
	while (o->first != NULL) {
		struct log_piece *p = o->first;

		o->first = p->next;
		pool_put(&o->host->pieces, p);
	}
	counter_set_destroy(o->counters);
	free(o->path);
}

static bool names_journal(const char *name)
{
	size_t len = strlen(name);

	return len > 5 && strcmp(name + len - 5, ".jlog") == 0;
}

int log_output_open(struct log_output **out, struct log_output_host *h, const char *destination,
		    FILE *errors)
{
	bool json = strncmp(destination, "json:", 5) == 0;
	bool journal = strncmp(destination, "jlog:", 5) == 0;
	const char *name = destination + 5;
	int rc;

	*out = NULL;
	if (!json && !journal && strncmp(destination, "file:", 5) != 0) {
		fprintf(errors,
			"cannot log to \"%s\"; expected file:NAME, jlog:NAME or json:NAME\n",
			destination);
		return -EINVAL;
	}
	if (journal || (json && names_journal(name))) {
		rc = log_journal_open(out, h, name, errors);
	} else {
		rc = log_file_open(out, h, name, errors);
	}
	if (rc == 0) {
		(*out)->json = json;
	}
	return rc;
}

void log_output_close(struct log_output *o)
{
	if (o != NULL) {
		o->ops->close(o);
	}
}
