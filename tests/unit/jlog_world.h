/*
 * Journals for tests: a directory of each test's own, records by their text, and what is in it.
 * Included by one test program each.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_reader.h"
#include "core/log/jlog_subscriber.h"
#include "core/log/jlog_writer.h"
#include "tests/unit/spool_disk.h"

#define WORLD_WALL_US UINT64_C(1700000000000007)

static struct jlog_world {
	char directory[64];
	char path[96];
	char said[4096];
	unsigned events[JLOG_TROUBLE + 1];
	struct jlog_options options;
} world;

static void world_say(void *context, enum jlog_event event, const char *text)
{
	struct jlog_world *w = context;

	size_t len = strlen(w->said);

	w->events[event]++;
	snprintf(w->said + len, sizeof(w->said) - len, "%s\n", text);
}

static int world_setup(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	strcpy(world.directory, "/tmp/jlog-XXXXXX");
	assert_non_null(mkdtemp(world.directory));
	snprintf(world.path, sizeof(world.path), "%s/main.jlog", world.directory);
	world.options = (struct jlog_options){
		.path = world.path,
		.segment_bytes = 1000,
		.safety = JLOG_ALMOST_SAFE,
		.report = {.say = world_say, .context = &world},
	};
	return 0;
}

static int world_teardown(void **state)
{
	(void)state;
	disk_remove_directory(world.path);
	disk_remove_directory(world.directory);
	return 0;
}

/* ---- files ---- */

static inline const char *world_file(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", world.path, name);
	return path;
}

/* Bytes, or -1: there is no such file. */
static inline long world_size(const char *name)
{
	struct stat st;

	return stat(world_file(name), &st) == 0 ? (long)st.st_size : -1;
}

static inline void world_put_file(const char *name, const void *data, size_t len)
{
	int fd = open(world_file(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

/* The file's bytes into `data`, which has room for `size`. */
static inline size_t world_get_file(const char *name, void *data, size_t size)
{
	ssize_t n;
	int fd = open(world_file(name), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	n = read(fd, data, size);
	close(fd);
	assert_true(n >= 0);
	return (size_t)n;
}

static inline void world_put_meta(uint32_t storage_log, uint32_t unit_limit, uint32_t safety,
				  uint32_t magic)
{
	const struct jlog_meta meta = {storage_log, unit_limit, safety, magic};

	world_put_file("metastore", &meta, sizeof(meta));
}

/* ---- records ---- */

static inline size_t world_frame(unsigned char *at, const char *text)
{
	uint32_t len = (uint32_t)strlen(text);

	jlog_put_header(at, len, WORLD_WALL_US);
	memcpy(at + JLOG_HEADER_BYTES, text, len);
	return JLOG_HEADER_BYTES + len;
}

static inline struct jlog_writer *world_writer(void)
{
	struct jlog_writer *w = NULL;
	int rc = jlog_writer_open(&w, &world.options);

	if (rc != 0) {
		fail_msg("cannot open the journal: %s", strerror(-rc));
	}
	return w;
}

/* One record; returns what jlog_writer_write() does. */
static inline ssize_t world_write(struct jlog_writer *w, const char *text)
{
	unsigned char record[4096];

	return jlog_writer_write(w, record, world_frame(record, text));
}

/* Records "PREFIX 0" to "PREFIX n-1", in one batch, of 100 bytes each on disk. */
static inline void world_write_many(struct jlog_writer *w, const char *prefix, unsigned n)
{
	unsigned char *batch = malloc(100 * n);
	char text[85];
	size_t len = 0;

	assert_non_null(batch);
	for (unsigned i = 0; i < n; i++) {
		memset(text, ' ', sizeof(text));
		text[snprintf(text, sizeof(text), "%s %u", prefix, i)] = ' ';
		text[84] = '\0';
		len += world_frame(batch + len, text);
	}
	assert_int_equal(jlog_writer_write(w, batch, len), len);
	free(batch);
}

static inline struct jlog_reader *world_reader(const char *subscriber)
{
	struct jlog_reader *r = NULL;
	int rc = jlog_reader_open(&r, world.path, subscriber);

	if (rc != 0) {
		fail_msg("cannot read the journal: %s", strerror(-rc));
	}
	return r;
}

/* The next record begins with `text`; NULL: there is none. */
static inline void world_expect(struct jlog_reader *r, const char *text)
{
	struct jlog_record record;
	int rc = jlog_reader_next(r, &record);

	if (text == NULL) {
		assert_int_equal(rc, 0);
		return;
	}
	if (rc != 1) {
		fail_msg("\"%s\" is not there: %d", text, rc);
	}
	if (record.len < strlen(text) || memcmp(record.data, text, strlen(text)) != 0) {
		fail_msg("\"%.*s\" in place of \"%s\"", (int)record.len, (const char *)record.data,
			 text);
	}
}

/* Records "PREFIX first" to "PREFIX end-1". */
static inline void world_expect_many(struct jlog_reader *r, const char *prefix, unsigned first,
				     unsigned end)
{
	char text[100];

	for (unsigned i = first; i < end; i++) {
		snprintf(text, sizeof(text), "%s %u ", prefix, i);
		world_expect(r, text);
	}
}

/* How many records a reader without a name finds. */
static inline unsigned world_count(void)
{
	struct jlog_reader *r = world_reader(NULL);
	struct jlog_record record;
	unsigned n = 0;

	while (jlog_reader_next(r, &record) == 1) {
		n++;
	}
	jlog_reader_close(r);
	return n;
}

static inline void world_subscribe(const char *name, uint32_t log, uint32_t marker)
{
	int fd = jlog_directory_open(world.path);

	assert_int_equal(jlog_subscriber_add(fd, name, (struct jlog_id){log, marker}), 0);
	close(fd);
}

/* Where a subscriber is; a log of UINT32_MAX: there is no such one. */
static inline struct jlog_id world_checkpoint(const char *name)
{
	struct jlog_id id = {UINT32_MAX, 0};
	int fd = jlog_directory_open(world.path);

	if (jlog_checkpoint_read(fd, name, &id) == -ESRCH) {
		id.log = UINT32_MAX;
	}
	close(fd);
	return id;
}

static inline void world_expect_checkpoint(const char *name, uint32_t log, uint32_t marker)
{
	struct jlog_id id = world_checkpoint(name);

	if (id.log != log || id.marker != marker) {
		fail_msg("%s is at %08x:%08x, not %08x:%08x", name, id.log, id.marker, log, marker);
	}
}
