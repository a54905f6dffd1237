/*
 * A block's way: the client fills it and sends it by ring; the writer appends it to its file's
 * queue; when it is on the file to the last byte it goes back to its client's pool. A failed write
 * leaves the queue as it is, and the rest is tried again every second.
 */
#include "agents/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/mail/mainlog.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"

#define LOG_WRITER_MAGIC 0x6c6f6777U
#define STOP_PHASE 4
#define RETRY_MS 1000
/* Blocks given to one writev, and writev calls for one file in one duty cycle. */
#define GATHER_BLOCKS 64
#define WRITES_PER_CYCLE 4

static const char *const file_names[LOG_FILES] = {
	[LOG_MAIN] = "mainlog",     [LOG_REJECT] = "rejectlog", [LOG_PANIC] = "paniclog",
	[LOG_BOUNCE] = "bouncelog", [LOG_FEEDBACK] = "fbllog",  [LOG_ACCT] = "acctlog",
};
static char line_feed[] = "\n";

/* One log file. */
BOUND
struct log_stream {
	char *path;
	int fd;
	/* Blocks not yet written in full, oldest first. */
	struct log_block *first;
	struct log_block **last;
	/* Bytes of the first block that are written. */
	uint32_t written;
	/* Failed; left alone until the retry timer fires. */
	bool failed;
	/* To be opened anew. */
	bool reopen;
	/* The file ends in a part of a line: the program was killed while it wrote. */
	bool torn;
};

BOUND
struct log_writer {
	struct agent base;
	uint32_t magic;
	struct log_stream streams[LOG_FILES];
	/* For the writer's own lines. */
	struct log_client own;
	uint64_t heartbeat_ms;
	struct timer heartbeat;
	struct timer retry;
	uint64_t waiting_blocks;
	struct counter *blocks;
	struct counter *bytes;
	struct counter *writes;
	struct counter *write_errors;
	struct counter *waiting;
	struct counter *waiting_max;
};

static struct log_writer *log_writer_of(struct agent *base)
{
	struct log_writer *w = CONTAINER_OF(base, struct log_writer, base);

	CHECK_MAGIC(w, LOG_WRITER_MAGIC);
	return w;
}

/* Does a file that is there end in the middle of a line? */
static bool ends_torn(const char *path, int fd)
{
	struct stat st;
	char last = '\n';
	int reader;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
		return false;
	}
	reader = open(path, O_RDONLY | O_CLOEXEC);
	if (reader < 0) {
		return false;
	}
	if (pread(reader, &last, 1, st.st_size - 1) != 1) {
		last = '\n';
	}
	close(reader);
	return last != '\n';
}

static int stream_open(struct log_stream *s)
{
	int fd = open(s->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0) {
		return -errno;
	}
	s->torn = ends_torn(s->path, fd);
	return fd;
}

static void stream_push(struct log_stream *s, struct log_block *b)
{
	b->next = NULL;
	*s->last = b;
	s->last = &b->next;
}

static struct log_block *stream_pop(struct log_stream *s)
{
	struct log_block *b = s->first;

	s->first = b->next;
	if (s->first == NULL) {
		s->last = &s->first;
	}
	s->written = 0;
	return b;
}

static void count_waiting(struct log_writer *w, int64_t change)
{
	w->waiting_blocks += (uint64_t)change;
	counter_set_value(w->waiting, w->waiting_blocks);
	counter_max(w->waiting_max, w->waiting_blocks);
}

void log_writer_on_block(struct agent *self, void *object, uint64_t unused)
{
	struct log_writer *w = log_writer_of(self);
	struct log_block *b = object;

	(void)unused;
	ASSERT(b->file < LOG_FILES && b->len > 0 && b->len <= LOG_BLOCK_SIZE);
	stream_push(&w->streams[b->file], b);
	counter_inc(w->blocks);
	count_waiting(w, 1);
}

static void give_back(struct log_writer *w, struct log_block *b)
{
	count_waiting(w, -1);
	agent_send(&w->base, b->from, log_client_on_written, b, 0);
}

/* Remembers that the stream is stuck, and says so: each distinct error once. */
static void stream_fail(struct log_writer *w, struct log_stream *s, int code, const char *what)
{
	s->failed = true;
	counter_inc(w->write_errors);
	agent_error(&w->base, code, "cannot %s log file %s: %s; trying again every second", what,
		    s->path, strerror(-code));
	if (!timer_armed(&w->retry)) {
		timer_arm(&w->retry, agent_now_ms(&w->base) + RETRY_MS);
	}
}

static void on_new_error(void *context, const struct errlog_entry *entry)
{
	(void)context;
	fprintf(stderr, "flywheel: %s\n", entry->text);
}

/* A line that the old file has in part goes to the new one as a whole. */
static void rewind_to_line(struct log_stream *s)
{
	while (s->written > 0 && s->first->data[s->written - 1] != '\n') {
		s->written--;
	}
}

static void stream_reopen(struct log_writer *w, struct log_stream *s)
{
	int fd = stream_open(s);

	if (fd < 0) {
		stream_fail(w, s, fd, "open");
		/* The old file still takes lines. */
		s->failed = false;
		return;
	}
	close(s->fd);
	s->fd = fd;
	s->reopen = false;
	s->failed = false;
	rewind_to_line(s);
}

/* Notes that `n` more bytes are on the file, and gives back what is written in full. */
static void stream_advance(struct log_writer *w, struct log_stream *s, size_t n)
{
	counter_add(w->bytes, n);
	if (s->torn) {
		s->torn = n == 0;
		return;
	}
	while (n > 0) {
		size_t rest = s->first->len - s->written;

		if (n < rest) {
			s->written += (uint32_t)n;
			return;
		}
		n -= rest;
		give_back(w, stream_pop(s));
	}
}

/* What is to be written next: the end of a torn line by itself, or as many blocks as go at once. */
static int stream_gather(const struct log_stream *s, struct iovec *iov)
{
	uint32_t skip = s->written;
	int count = 0;

	if (s->torn) {
		iov[0] = (struct iovec){.iov_base = line_feed, .iov_len = 1};
		return 1;
	}
	for (struct log_block *b = s->first; b != NULL && count < GATHER_BLOCKS; b = b->next) {
		iov[count].iov_base = b->data + skip;
		iov[count].iov_len = b->len - skip;
		count++;
		skip = 0;
	}
	return count;
}

/* Returns the number of writes made. */
static int stream_write(struct log_writer *w, struct log_stream *s)
{
	struct iovec iov[GATHER_BLOCKS];
	int work = 0;

	while (s->first != NULL && !s->failed && work < WRITES_PER_CYCLE) {
		ssize_t n = writev(s->fd, iov, stream_gather(s, iov));

		if (n >= 0) {
			counter_inc(w->writes);
			stream_advance(w, s, (size_t)n);
			work++;
		} else if (errno != EINTR) {
			stream_fail(w, s, -errno, "write");
		}
	}
	return work;
}

/* The program must end, and clients wait for their blocks, although the file takes nothing: stderr
 * is the last resort. */
static void stream_abandon(struct log_writer *w, struct log_stream *s)
{
	fprintf(stderr, "flywheel: log file %s takes no more; its last lines follow\n", s->path);
	rewind_to_line(s);
	while (s->first != NULL) {
		struct log_block *b = s->first;

		fwrite(b->data + s->written, 1, b->len - s->written, stderr);
		b->lost = true;
		give_back(w, stream_pop(s));
	}
}

static void on_retry(struct timer *t)
{
	struct log_writer *w = log_writer_of(t->owner);

	for (unsigned i = 0; i < LOG_FILES; i++) {
		struct log_stream *s = &w->streams[i];

		s->failed = false;
		if (s->reopen) {
			stream_reopen(w, s);
		}
	}
}

static void on_heartbeat(struct timer *t)
{
	struct log_writer *w = log_writer_of(t->owner);
	char line[MAINLOG_LINE_MAX];

	/* While the last one still waits, another one would say nothing. */
	if (w->own.outstanding == 0) {
		size_t len = mainlog_heartbeat(line, agent_wall_ms(t->owner) / 1000);

		log_line(&w->own, LOG_MAIN, line, len);
		log_line(&w->own, LOG_BOUNCE, line, len);
	}
	timer_arm(t, agent_now_ms(t->owner) + w->heartbeat_ms);
}

void log_writer_on_reopen(struct agent *writer, void *unused, uint64_t value)
{
	struct log_writer *w = log_writer_of(writer);

	(void)unused;
	(void)value;
	for (unsigned i = 0; i < LOG_FILES; i++) {
		w->streams[i].reopen = true;
		stream_reopen(w, &w->streams[i]);
	}
}

static int log_writer_start(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	timer_init(&w->heartbeat, self, on_heartbeat);
	timer_init(&w->retry, self, on_retry);
	return 0;
}

static void log_writer_start_complete(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	if (w->heartbeat_ms != 0) {
		timer_arm(&w->heartbeat, agent_now_ms(self) + w->heartbeat_ms);
	}
}

static void log_writer_stop(struct agent *self)
{
	timer_cancel(&log_writer_of(self)->heartbeat);
}

static bool log_writer_drained(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	if (w->waiting_blocks != 0 || !log_client_drained(&w->own)) {
		return false;
	}
	/* What failed has been given up. */
	timer_cancel(&w->retry);
	return true;
}

static void log_writer_tear_down(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	for (unsigned i = 0; i < LOG_FILES; i++) {
		struct log_stream *s = &w->streams[i];

		/* EINVAL: not a file that can be synced, such as a device. */
		if (fdatasync(s->fd) != 0 && errno != EINVAL && errno != EROFS) {
			fprintf(stderr, "flywheel: cannot sync log file %s: %s\n", s->path,
				strerror(errno));
		}
	}
}

static int log_writer_do_work(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);
	bool hurry = atomic_load_explicit(&self->runtime->hurry, memory_order_relaxed);
	int work = 0;

	for (unsigned i = 0; i < LOG_FILES; i++) {
		struct log_stream *s = &w->streams[i];

		work += stream_write(w, s);
		if (hurry && s->failed && s->first != NULL) {
			stream_abandon(w, s);
		}
	}
	log_client_flush(&w->own);
	return work;
}

static const struct agent_ops log_writer_ops = {
	.kind = "log",
	.start = log_writer_start,
	.start_complete = log_writer_start_complete,
	.do_work = log_writer_do_work,
	.stop = log_writer_stop,
	.drained = log_writer_drained,
	.tear_down = log_writer_tear_down,
};

static int stream_init(struct log_stream *s, const char *directory, const char *name)
{
	s->last = &s->first;
	if (asprintf(&s->path, "%s/%s", directory, name) < 0) {
		fatal("out of memory for the path of log file %s", name);
	}
	s->fd = stream_open(s);
	return s->fd < 0 ? s->fd : 0;
}

static void streams_close(struct log_writer *w)
{
	for (unsigned i = 0; i < LOG_FILES; i++) {
		if (w->streams[i].fd >= 0) {
			close(w->streams[i].fd);
		}
		free(w->streams[i].path);
	}
}

/* 0, or a negative errno that has been reported. */
static int streams_open(struct log_writer *w, const char *directory, FILE *errors)
{
	if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
		int rc = -errno;

		fprintf(errors, "cannot make log directory %s: %s\n", directory, strerror(-rc));
		return rc;
	}
	for (unsigned i = 0; i < LOG_FILES; i++) {
		int rc = stream_init(&w->streams[i], directory, file_names[i]);

		if (rc != 0) {
			fprintf(errors, "cannot open log file %s: %s\n", w->streams[i].path,
				strerror(-rc));
			return rc;
		}
	}
	return 0;
}

static void init_counters(struct log_writer *w)
{
	struct counter_set *set = w->base.counters;

	w->blocks = counter_create(set, "blocks", COUNTER_SUM, "Blocks of log lines taken");
	w->bytes = counter_create(set, "bytes", COUNTER_SUM, "Bytes written to log files");
	w->writes = counter_create(set, "writes", COUNTER_SUM, "Writes to log files");
	w->write_errors = counter_create(set, "write_errors", COUNTER_SUM,
					 "Writes to log files that failed and were repeated");
	w->waiting = counter_create(set, "waiting", COUNTER_GAUGE, "Blocks not yet written");
	w->waiting_max = counter_create(set, "waiting_max", COUNTER_MAX,
					"Most blocks that ever waited to be written");
}

struct log_writer *log_writer_create(const char *name, const struct log_options *options,
				     FILE *errors)
{
	struct log_writer *w = aligned_alloc(CACHE_LINE, sizeof(*w));

	if (w == NULL) {
		fatal("out of memory for agent %s", name);
	}
	memset(w, 0, sizeof(*w));
	for (unsigned i = 0; i < LOG_FILES; i++) {
		w->streams[i].fd = -1;
	}
	if (streams_open(w, options->path, errors) != 0) {
		streams_close(w);
		free(w);
		return NULL;
	}
	w->magic = LOG_WRITER_MAGIC;
	w->heartbeat_ms = options->heartbeat_ms;
	agent_init(&w->base, &log_writer_ops, name, STOP_PHASE);
	w->base.errors.on_new = on_new_error;
	init_counters(w);
	log_client_init(&w->own, &w->base, &w->base);
	return w;
}

struct agent *log_writer_agent(struct log_writer *w)
{
	return &w->base;
}

void log_writer_destroy(struct log_writer *w)
{
	if (w == NULL) {
		return;
	}
	CHECK_MAGIC(w, LOG_WRITER_MAGIC);
	log_client_close(&w->own);
	agent_close(&w->base);
	streams_close(w);
	w->magic = 0;
	free(w);
}
