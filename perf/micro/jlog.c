/*
 * Journals: what a record costs its writer, in batches of 256 and alone, beside write() of the same
 * bytes to a file; what it costs a reader, and a subscriber that leaves a checkpoint after so many,
 * beside read() of them; and how long after a write a follower that sleeps has the record, beside
 * one that waits by inotify for a bare file. Nothing is synced: the disk's own time is in fsync.
 */
#include "core/log/jlog_reader.h"
#include "core/log/jlog_writer.h"

#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

/* About what a line of mainlog has. */
#define TEXT_BYTES 184U
#define RECORD_BYTES (JLOG_HEADER_BYTES + TEXT_BYTES)
#define BATCH 256U
#define RECORDS UINT64_C(1000000)
#define QUICK_RECORDS UINT64_C(2560)
#define FOLLOWED 5000
#define PATH_BYTES 4096
#define SUBSCRIBERS 2
#define READER "reader"
/* Of a subscriber, records from one checkpoint to the next. */
#define CHECKPOINT 1000U
/* From one record to the next: long enough for the follower to sleep again. */
#define REST_NS 50000
#define WAIT_MS 1000

static struct {
	/* Read again and again. */
	char read_path[PATH_BYTES];
	/* Written by each run. */
	char path[PATH_BYTES];
	unsigned char batch[BATCH * RECORD_BYTES];
	unsigned char buffer[128 << 10];
	struct jlog_writer *writer;
	struct jlog_reader *reader;
	/* Of the bare file, written and read. */
	int write_fd;
	int read_fd;
	int notify;
	struct histogram *latency;
	uint64_t followed;
	_Alignas(64) _Atomic uint64_t seen;
} world;

static void path_of(char *path, const char *name)
{
	if (snprintf(path, PATH_BYTES, "%s/%s", micro.directory, name) >= PATH_BYTES) {
		errx(2, "the path of %s is too long", name);
	}
}

static void remove_journal(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL) {
		unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d != NULL) {
		closedir(d);
	}
	rmdir(path);
}

/* `subscribers`: NULL or SUBSCRIBERS names. */
static struct jlog_writer *open_writer(const char *path, const char *const *subscribers)
{
	const struct jlog_options options = {
		.path = path,
		.safety = JLOG_UNSAFE,
		.subscribers = subscribers,
		.subscriber_count = subscribers != NULL ? SUBSCRIBERS : 0,
	};
	struct jlog_writer *w;
	int rc = jlog_writer_open(&w, &options);

	if (rc != 0) {
		errx(2, "cannot open %s: %s", path, strerror(-rc));
	}
	return w;
}

/* Alone they take so much longer that fewer tell as much. */
static uint64_t record_count(uint64_t batch)
{
	return micro_count(batch == 1 ? RECORDS / 20 : RECORDS, QUICK_RECORDS);
}

static uint64_t write_records(const char *path, unsigned batch, const char *const *subscribers)
{
	struct jlog_writer *w = open_writer(path, subscribers);
	size_t bytes = (size_t)batch * RECORD_BYTES;
	uint64_t records = 0;

	while (records < record_count(batch)) {
		if (jlog_writer_write(w, world.batch, bytes) != (ssize_t)bytes) {
			errx(2, "cannot write to %s", path);
		}
		records += batch;
	}
	(void)jlog_writer_close(w);
	return records;
}

static void begin(void)
{
	/* What one of them has passed stays for the other, who never reads. */
	static const char *const subscribers[SUBSCRIBERS] = {READER, "keeper"};

	for (unsigned i = 0; i < BATCH; i++) {
		jlog_put_header(world.batch + i * RECORD_BYTES, TEXT_BYTES, 1700000000000000);
		memset(world.batch + i * RECORD_BYTES + JLOG_HEADER_BYTES, 'r', TEXT_BYTES);
	}
	path_of(world.path, "write.jlog");
	path_of(world.read_path, "read.jlog");
	write_records(world.read_path, BATCH, subscribers);
}

static void end(void)
{
	remove_journal(world.read_path);
}

/* ---- writing; a case's number is the batch ---- */

static void run_write(const struct micro_case *c, double *values)
{
	uint64_t began = measure_ticks();
	uint64_t records = write_records(world.path, (unsigned)c->number, NULL);

	values[0] = measure_ticks_to_ns(measure_ticks() - began) / (double)records;
	remove_journal(world.path);
}

static void run_bare_write(const struct micro_case *c, double *values)
{
	size_t bytes = c->number * RECORD_BYTES;
	uint64_t began = measure_ticks();
	uint64_t records = 0;
	int fd = open(world.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	while (records < record_count(c->number)) {
		if (write(fd, world.batch, bytes) != (ssize_t)bytes) {
			err(2, "cannot write to %s", world.path);
		}
		records += c->number;
	}
	close(fd);
	values[0] = measure_ticks_to_ns(measure_ticks() - began) / (double)records;
	unlink(world.path);
}

/* ---- reading ---- */

/* A case's number: records from checkpoint to checkpoint; 0: no subscriber reads. */
static void run_read(const struct micro_case *c, double *values)
{
	const struct jlog_id start = {0};
	struct jlog_record record;
	struct jlog_reader *r;
	uint64_t began = measure_ticks();
	uint64_t records = 0;

	if (jlog_reader_open(&r, world.read_path, c->number != 0 ? READER : NULL) != 0 ||
	    jlog_reader_seek(r, start) != 0) {
		errx(2, "cannot read %s", world.read_path);
	}
	while (jlog_reader_next(r, &record) == 1) {
		measure_use(record.data[0]);
		records++;
		if (c->number != 0 && records % c->number == 0 &&
		    jlog_reader_checkpoint(r, record.id) != 0) {
			errx(2, "cannot leave a checkpoint in %s", world.read_path);
		}
	}
	if (records < record_count(BATCH)) {
		errx(2, "records are missing in %s", world.read_path);
	}
	jlog_reader_close(r);
	values[0] = measure_ticks_to_ns(measure_ticks() - began) / (double)records;
}

static uint64_t read_file(const char *name)
{
	char path[2 * PATH_BYTES];
	uint64_t bytes = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", world.read_path, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while ((n = read(fd, world.buffer, sizeof(world.buffer))) > 0) {
		bytes += (uint64_t)n;
	}
	close(fd);
	return bytes;
}

static void run_bare_read(const struct micro_case *c, double *values)
{
	uint64_t began = measure_ticks();
	uint64_t bytes = 0;
	const struct dirent *e;
	DIR *d = opendir(world.read_path);

	(void)c;
	while (d != NULL && (e = readdir(d)) != NULL) {
		/* Segments; not their indexes. */
		if (strlen(e->d_name) == JLOG_SEGMENT_NAME - 1) {
			bytes += read_file(e->d_name);
		}
	}
	closedir(d);
	values[0] = measure_ticks_to_ns(measure_ticks() - began) * RECORD_BYTES / (double)bytes;
}

/* ---- following ---- */

/* One record, to the journal or to the bare file. */
static void write_one(bool bare)
{
	ssize_t n = bare ? write(world.write_fd, world.batch, RECORD_BYTES)
			 : jlog_writer_write(world.writer, world.batch, RECORD_BYTES);

	if (n != RECORD_BYTES) {
		errx(2, "cannot write to %s", world.path);
	}
}

static void write_stamps(void *context)
{
	uint64_t rest = measure_ns_to_ticks(REST_NS);

	for (uint64_t i = 0; i < world.followed; i++) {
		uint64_t until = measure_ticks() + rest;
		uint64_t now;

		while (atomic_load_explicit(&world.seen, memory_order_acquire) < i ||
		       measure_ticks() < until) {
			_mm_pause();
		}
		now = measure_ticks();
		memcpy(world.batch + JLOG_HEADER_BYTES, &now, sizeof(now));
		write_one(context != NULL);
	}
}

/* The next one has come, and begins with `stamp`. */
static void note_stamp(const void *stamp)
{
	uint64_t then;

	memcpy(&then, stamp, sizeof(then));
	histogram_record(world.latency, measure_ticks() - then);
	atomic_fetch_add_explicit(&world.seen, 1, memory_order_release);
}

static void follow(void *context)
{
	struct jlog_record record;

	(void)context;
	while (atomic_load_explicit(&world.seen, memory_order_relaxed) < world.followed) {
		if (jlog_reader_next(world.reader, &record) == 1) {
			note_stamp(record.data);
		} else {
			jlog_reader_wait(world.reader, WAIT_MS);
		}
	}
}

static void follow_bare(void *context)
{
	(void)context;
	while (atomic_load_explicit(&world.seen, memory_order_relaxed) < world.followed) {
		struct pollfd p = {.fd = world.notify, .events = POLLIN};

		if (read(world.read_fd, world.buffer, RECORD_BYTES) == RECORD_BYTES) {
			note_stamp(world.buffer + JLOG_HEADER_BYTES);
		} else if (poll(&p, 1, WAIT_MS) == 1 &&
			   read(world.notify, world.buffer, sizeof(world.buffer)) < 0) {
			err(2, "cannot follow %s", world.path);
		}
	}
}

static void begin_following(void)
{
	world.followed = micro_count(FOLLOWED, 50);
	world.seen = 0;
	world.latency = measure_histogram();
}

static void run_follow(const struct micro_case *c, double *values)
{
	(void)c;
	begin_following();
	world.writer = open_writer(world.path, NULL);
	if (jlog_reader_open(&world.reader, world.path, NULL) != 0) {
		errx(2, "cannot read %s", world.path);
	}
	measure_pair(write_stamps, follow, NULL);
	jlog_reader_close(world.reader);
	(void)jlog_writer_close(world.writer);
	remove_journal(world.path);
	measure_quantiles(world.latency, values);
}

static void run_bare_follow(const struct micro_case *c, double *values)
{
	(void)c;
	begin_following();
	world.write_fd = open(world.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	world.read_fd = open(world.path, O_RDONLY | O_CLOEXEC);
	world.notify = inotify_init1(IN_CLOEXEC);
	if (world.read_fd < 0 || inotify_add_watch(world.notify, world.path, IN_MODIFY) < 0) {
		err(2, "cannot follow %s", world.path);
	}
	measure_pair(write_stamps, follow_bare, &world);
	close(world.notify);
	close(world.read_fd);
	close(world.write_fd);
	unlink(world.path);
	measure_quantiles(world.latency, values);
}

static const struct micro_case cases[] = {
	{.run = run_write,
	 .number = BATCH,
	 .rows = {{"jlog.write.256", "ns", "jlog.bare-write.256"}}},
	{.run = run_bare_write, .number = BATCH, .rows = {{"jlog.bare-write.256", "ns", NULL}}},
	{.run = run_write, .number = 1, .rows = {{"jlog.write.1", "ns", "jlog.bare-write.1"}}},
	{.run = run_bare_write, .number = 1, .rows = {{"jlog.bare-write.1", "ns", NULL}}},
	{.run = run_read, .rows = {{"jlog.read", "ns", "jlog.bare-read"}}},
	{.run = run_read,
	 .number = CHECKPOINT,
	 .rows = {{"jlog.read.checkpoint-1000", "ns", "jlog.bare-read"}}},
	{.run = run_bare_read, .rows = {{"jlog.bare-read", "ns", NULL}}},
	{.run = run_follow,
	 .rows = {{"jlog.follow.p50", "ns", "jlog.bare-follow.p50"},
		  {"jlog.follow.p99", "ns", "jlog.bare-follow.p99"},
		  {"jlog.follow.p99.9", "ns", "jlog.bare-follow.p99.9"}}},
	{.run = run_bare_follow,
	 .rows = {{"jlog.bare-follow.p50", "ns", NULL},
		  {"jlog.bare-follow.p99", "ns", NULL},
		  {"jlog.bare-follow.p99.9", "ns", NULL}}},
};

const struct micro_group micro_jlog = {
	.name = "jlog",
	.label = "a record of a journal, written, read and followed",
	.two_cores = true,
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
