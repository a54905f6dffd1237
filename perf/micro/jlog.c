/*
 * Journals: what a record costs its writer, in batches of 256 and alone, beside write() of the same
 * bytes to a file; what it costs a reader, beside read() of them; and how long after a write a
 * follower that sleeps has the record. Nothing is synced: the disk's own time is in fsync.
 */
#include "core/log/jlog_reader.h"
#include "core/log/jlog_writer.h"

#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static struct jlog_writer *open_writer(const char *path)
{
	const struct jlog_options options = {.path = path, .safety = JLOG_UNSAFE};
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

static uint64_t write_records(const char *path, unsigned batch)
{
	struct jlog_writer *w = open_writer(path);
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
	for (unsigned i = 0; i < BATCH; i++) {
		jlog_put_header(world.batch + i * RECORD_BYTES, TEXT_BYTES, 1700000000000000);
		memset(world.batch + i * RECORD_BYTES + JLOG_HEADER_BYTES, 'r', TEXT_BYTES);
	}
	path_of(world.path, "write.jlog");
	path_of(world.read_path, "read.jlog");
	write_records(world.read_path, BATCH);
}

static void end(void)
{
	remove_journal(world.read_path);
}

/* ---- writing; a case's number is the batch ---- */

static void run_write(const struct micro_case *c, double *values)
{
	uint64_t began = measure_ticks();
	uint64_t records = write_records(world.path, (unsigned)c->number);

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

static void run_read(const struct micro_case *c, double *values)
{
	struct jlog_record record;
	struct jlog_reader *r;
	uint64_t began = measure_ticks();
	uint64_t records = 0;

	(void)c;
	if (jlog_reader_open(&r, world.read_path, NULL) != 0) {
		errx(2, "cannot read %s", world.read_path);
	}
	while (jlog_reader_next(r, &record) == 1) {
		measure_use(record.data[0]);
		records++;
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

static void write_stamps(void *context)
{
	uint64_t rest = measure_ns_to_ticks(REST_NS);

	(void)context;
	for (uint64_t i = 0; i < world.followed; i++) {
		uint64_t until = measure_ticks() + rest;
		uint64_t now;

		while (atomic_load_explicit(&world.seen, memory_order_acquire) < i ||
		       measure_ticks() < until) {
			_mm_pause();
		}
		now = measure_ticks();
		memcpy(world.batch + JLOG_HEADER_BYTES, &now, sizeof(now));
		if (jlog_writer_write(world.writer, world.batch, RECORD_BYTES) != RECORD_BYTES) {
			errx(2, "cannot write to %s", world.path);
		}
	}
}

static void follow(void *context)
{
	struct jlog_record record;
	uint64_t stamp;

	(void)context;
	for (uint64_t i = 0; i < world.followed;) {
		if (jlog_reader_next(world.reader, &record) != 1) {
			jlog_reader_wait(world.reader, WAIT_MS);
			continue;
		}
		memcpy(&stamp, record.data, sizeof(stamp));
		histogram_record(world.latency, measure_ticks() - stamp);
		atomic_store_explicit(&world.seen, ++i, memory_order_release);
	}
}

static void run_follow(const struct micro_case *c, double *values)
{
	(void)c;
	world.followed = micro_count(FOLLOWED, 50);
	world.seen = 0;
	world.latency = measure_histogram();
	world.writer = open_writer(world.path);
	if (jlog_reader_open(&world.reader, world.path, NULL) != 0) {
		errx(2, "cannot read %s", world.path);
	}
	measure_pair(write_stamps, follow, NULL);
	jlog_reader_close(world.reader);
	(void)jlog_writer_close(world.writer);
	remove_journal(world.path);
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
	{.run = run_bare_read, .rows = {{"jlog.bare-read", "ns", NULL}}},
	{.run = run_follow,
	 .rows = {{"jlog.follow.p50", "ns", NULL},
		  {"jlog.follow.p99", "ns", NULL},
		  {"jlog.follow.p99.9", "ns", NULL}}},
};

const struct micro_group micro_jlog = {
	.name = "jlog",
	.label = "a record of a journal, written, read and followed",
	.two_cores = true,
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
