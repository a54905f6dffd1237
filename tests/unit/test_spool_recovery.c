/*
 * What a start does with what it finds: torn and damaged segments, files left over, other versions,
 * directories that cannot be used.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "spool/record.h"
#include "spool/segment.h"
#include "spool/store.h"
#include "tests/unit/spool_world.h"

#define MESSAGES 40

/* A killed spool with one unsealed segment of MESSAGES messages, each committed by itself. */
static struct world *killed_world(uint64_t ends[MESSAGES])
{
	struct world *w = world_new(true);

	world_start(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		world_store(w, 1, i * 100, ENVELOPE_SYNCED);
		world_settle(w);
		ends[i] = world_store_of(w, 0)->active->end;
	}
	world_kill(w);
	w->expect_errors = true;
	return w;
}

static void file_path(const struct world *w, const char *dir, uint32_t id, char path[512])
{
	char name[SEGMENT_NAME_MAX];

	(void)w;
	segment_name(id, name);
	assert_true(snprintf(path, 512, "%s/%s", dir, name) < 512);
}

static void edit(const char *dir, uint32_t id, uint64_t at, const void *bytes, size_t len)
{
	char path[512];
	int fd;

	file_path(NULL, dir, id, path);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, (off_t)at), len);
	close(fd);
}

static void flip(const char *dir, uint32_t id, uint64_t at)
{
	char path[512];
	unsigned char byte;
	int fd;

	file_path(NULL, dir, id, path);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/* Opens the spool in `dir`; messages found, -1 when that failed. `text` gets the errors. */
static long open_copy(const struct world *w, const char *dir, struct spool_recovery *found,
		      char text[4096])
{
	struct spool_options options = w->options;
	FILE *errors = fmemopen(text, 4096, "w");
	struct spool *s;

	memset(text, 0, 4096);
	options.path = dir;
	s = spool_open(&options, errors, found);
	fclose(errors);
	if (s == NULL) {
		return -1;
	}
	spool_close(s);
	return (long)found->messages;
}

static void copy_path(const struct world *w, char path[300])
{
	snprintf(path, 300, "%s.copy", w->path);
}

static void test_truncated_anywhere_keeps_what_is_before(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	char errors[4096];
	char dir[300];
	char path[512];

	(void)state;
	copy_path(w, dir);
	for (unsigned i = 0; i < 2 * MESSAGES; i++) {
		uint64_t cut = i % 2 == 0 ? ends[i / 2] : ends[i / 2] + 1 + i * 37 % 150;
		long whole = 0;

		while (whole < MESSAGES && ends[whole] <= cut) {
			whole++;
		}
		disk_copy_directory(w->path, dir);
		file_path(w, dir, 0, path);
		assert_int_equal(truncate(path, (off_t)cut), 0);
		assert_int_equal(open_copy(w, dir, &found, errors), whole);
		assert_int_equal(found.segments_scanned, 1);
		/* It was sealed: the second time nothing is scanned. */
		assert_int_equal(open_copy(w, dir, &found, errors), whole);
		assert_int_equal(found.segments_scanned, 0);
		disk_remove_directory(dir);
	}
	world_free(w);
}

static void test_torn_record_is_counted(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	char errors[4096];

	(void)state;
	/* The last body's end never came. */
	edit(w->path, 0, ends[MESSAGES - 1] - 512, (char[512]){0}, 512);
	assert_int_equal(open_copy(w, w->path, &found, errors), MESSAGES - 1);
	assert_int_equal(found.torn_bytes, ends[MESSAGES - 1] - ends[MESSAGES - 2]);
	assert_int_equal(found.damaged_records, 0);
	world_free(w);
}

static void test_flipped_bit_costs_one_message_at_most(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	char errors[4096];
	char dir[300];

	(void)state;
	copy_path(w, dir);
	for (unsigned i = 1; i < MESSAGES; i++) {
		uint64_t body = ends[i] - 8 - i * 100 / 2;

		disk_copy_directory(w->path, dir);
		flip(dir, 0, body);
		assert_int_equal(open_copy(w, dir, &found, errors), MESSAGES - 1);
		disk_remove_directory(dir);
	}
	world_free(w);
}

/* An orderly stop seals the segment; then its index is spoiled. */
static void test_damaged_index_is_built_anew(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[MESSAGES];
	struct spool_recovery found;
	char errors[4096];
	uint64_t index_offset;
	uint32_t id;
	char dir[300];

	(void)state;
	world_start(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		m[i] = world_store(w, 2, 500, ENVELOPE_SYNCED);
	}
	world_settle(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		world_done(w, m[i], 1);
		world_defer(w, m[i], 0, 5, 0);
	}
	world_settle(w);
	id = world_store_of(w, 0)->active->id;
	index_offset = world_store_of(w, 0)->active->end;
	world_stop(w);
	copy_path(w, dir);
	for (unsigned i = 0; i < 50; i++) {
		disk_copy_directory(w->path, dir);
		flip(dir, id, index_offset + i * 37);
		assert_int_equal(open_copy(w, dir, &found, errors), MESSAGES);
		assert_int_equal(found.deliveries, MESSAGES);
		assert_int_equal(found.segments_scanned, 1);
		assert_int_equal(found.damaged_records, 1);
		assert_non_null(strstr(errors, "index"));
		assert_int_equal(world_check_copy(w, dir), MESSAGES);
		disk_remove_directory(dir);
	}
	/* The header, too. */
	flip(w->path, id, 20);
	assert_int_equal(open_copy(w, w->path, &found, errors), MESSAGES);
	assert_non_null(strstr(errors, "header"));
	assert_int_equal(world_check_copy(w, w->path), MESSAGES);
	world_free(w);
}

static void test_damaged_records_of_a_sealed_segment_are_skipped(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[MESSAGES];
	uint64_t place;
	uint32_t id;

	(void)state;
	world_start(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		m[i] = world_store(w, 1, 500, ENVELOPE_SYNCED);
	}
	world_settle(w);
	place = (uint64_t)m[7]->entry->place * RECORD_ALIGN;
	id = m[7]->entry->segment->id;
	world_stop(w);
	/* In the envelope: known when the delivery is handed out. */
	flip(w->path, id, place + sizeof(struct record_header) + 130);
	m[7]->state = MODEL_REFUSED;
	assert_int_equal(world_check_copy(w, w->path), MESSAGES - 1);
	/* The index too: the scan jumps over it. */
	{
		struct spool_recovery found;
		char errors[4096];
		struct segment_header h;
		unsigned char block[SEGMENT_BLOCK];
		char path[512];
		int fd;

		file_path(w, w->path, id, path);
		fd = open(path, O_RDONLY);
		assert_int_equal(pread(fd, block, sizeof(block), 0), sizeof(block));
		close(fd);
		assert_int_equal(segment_header_decode(block, &h), 0);
		flip(w->path, id, h.index_offset + 70);
		/* A header, so that the next record has to be searched for. */
		flip(w->path, id, (uint64_t)place + 4);
		assert_int_equal(open_copy(w, w->path, &found, errors), MESSAGES - 1);
		assert_int_equal(found.damaged_records, 2);
	}
	world_free(w);
}

static void test_forged_record_inside_a_torn_message_is_not_taken(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	struct record_encoder encoder;
	struct segment_header h;
	struct record_header forged = {.type = RECORD_DONE, .sequence = 1000000, .count = 1};
	unsigned char block[SEGMENT_BLOCK];
	unsigned char record[128];
	char errors[4096];
	char path[512];
	size_t len;
	int fd;

	(void)state;
	file_path(w, w->path, 0, path);
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, block, sizeof(block), 0), sizeof(block));
	close(fd);
	assert_int_equal(segment_header_decode(block, &h), 0);
	/* The worst case: whoever wrote the body had guessed the generation. */
	forged.segment = h.id;
	forged.generation = h.generation;
	forged.id = w->messages->id;
	record_encode_done(&encoder, &forged, h.id);
	len = record_encode(&encoder, record, sizeof(record));
	edit(w->path, 0, ends[MESSAGES - 1] + 4096, record, len);
	assert_int_equal(open_copy(w, w->path, &found, errors), MESSAGES);
	world_free(w);
}

/* A recycled segment: what its file held before must not come back. */
static void test_records_of_an_earlier_life_never_match(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[400];

	(void)state;
	w->expect_errors = true;
	world_start(w);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 400; i++) {
			m[i] = world_store(w, 1, 2000, ENVELOPE_SYNCED);
		}
		world_settle(w);
		for (unsigned i = 0; i < 400; i++) {
			world_done(w, m[i], 0);
		}
		world_rest(w);
	}
	assert_true(world_counter(w, "segments_reused") > 0);
	/* One message of the same size where others were. */
	world_store(w, 1, 2000, ENVELOPE_SYNCED);
	world_settle(w);
	world_kill(w);
	world_start(w);
	assert_int_equal(w->found.messages, 1);
	world_stop(w);
	world_free(w);
}

static void test_newer_format_is_refused(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	char errors[4096];
	uint16_t version = SPOOL_FORMAT_VERSION + 1;

	(void)state;
	edit(w->path, 0, offsetof(struct segment_header, version), &version, sizeof(version));
	assert_int_equal(open_copy(w, w->path, &found, errors), -1);
	assert_non_null(strstr(errors,
			       "seg-00000000.fws is of format version 2; this program knows "
			       "versions up to 1"));
	world_free(w);
}

static void test_older_format_is_read(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	struct segment_header h;
	unsigned char block[SEGMENT_BLOCK];
	char errors[4096];
	char path[512];
	int fd;

	(void)state;
	file_path(w, w->path, 0, path);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	segment_header_encode(block, &h);
	memcpy(&h, block, sizeof(h));
	h.version = 0;
	h.crc = 0;
	h.crc = record_crc(0, &h, sizeof(h));
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
	assert_int_equal(open_copy(w, w->path, &found, errors), MESSAGES);
	world_free(w);
}

static void make_file(const char *dir, const char *name, const void *data, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static void test_other_files_are_left_alone(void **state)
{
	uint64_t ends[MESSAGES];
	struct world *w = killed_world(ends);
	struct spool_recovery found;
	char errors[4096];
	char path[512];
	char text[8192];

	(void)state;
	memset(text, 'x', sizeof(text));
	make_file(w->path, "README", "hello", 5);
	make_file(w->path, "seg-00000009.fws", text, sizeof(text));
	make_file(w->path, "seg-0000000A.fws", text, sizeof(text));
	/* Made, and then the power was cut. */
	make_file(w->path, "seg-00000005.fws", "", 0);
	make_file(w->path, "seg-00000006.fws", (char[8192]){0}, 8192);
	assert_int_equal(open_copy(w, w->path, &found, errors), MESSAGES);
	assert_non_null(strstr(errors, "README is not a file of the spool"));
	assert_non_null(strstr(errors, "seg-00000009.fws is no segment"));
	assert_non_null(strstr(errors, "seg-0000000A.fws is not a file of the spool"));
	snprintf(path, sizeof(path), "%s/seg-00000009.fws", w->path);
	assert_int_equal(access(path, F_OK), 0);
	snprintf(path, sizeof(path), "%s/seg-00000005.fws", w->path);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/seg-00000006.fws", w->path);
	assert_int_equal(access(path, F_OK), -1);
	/* New segments are numbered above all of them. */
	world_start(w);
	world_store(w, 1, 100, ENVELOPE_SYNCED);
	world_settle(w);
	assert_true(world_store_of(w, 0)->active->id > 9);
	world_stop(w);
	world_free(w);
}

static void test_second_process_is_refused(void **state)
{
	struct world *w = world_new(true);
	struct spool_recovery found;
	char errors[4096];
	char expected[64];
	int status;
	pid_t child;

	(void)state;
	world_start(w);
	snprintf(expected, sizeof(expected), "in use by another process (number %ld)",
		 (long)getpid());
	child = fork();
	if (child == 0) {
		long n = open_copy(w, w->path, &found, errors);

		_exit(n == -1 && strstr(errors, expected) != NULL ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	/* The same from within. */
	assert_int_equal(open_copy(w, w->path, &found, errors), -1);
	assert_non_null(strstr(errors, expected));
	world_stop(w);
	world_start(w);
	world_stop(w);
	world_free(w);
}

static void test_unusable_paths_are_explained(void **state)
{
	struct world *w = world_new(true);
	struct spool_recovery found;
	char errors[4096];
	char path[512];
	int status;
	pid_t child;

	(void)state;
	make_file(w->path, "file", "", 0);
	snprintf(path, sizeof(path), "%s/file", w->path);
	assert_int_equal(open_copy(w, path, &found, errors), -1);
	assert_non_null(strstr(errors, "is not a directory"));
	snprintf(path, sizeof(path), "%s/none/none", w->path);
	assert_int_equal(open_copy(w, path, &found, errors), -1);
	assert_non_null(strstr(errors, "No such file or directory"));
	assert_int_equal(open_copy(w, "/proc/flywheel-spool", &found, errors), -1);
	assert_non_null(strstr(errors, "/proc/flywheel-spool: "));
	assert_int_equal(chmod(w->path, 0500), 0);
	child = fork();
	if (child == 0) {
		if (getuid() == 0 && (chown(w->path, 65534, 65534) != 0 || setuid(65534) != 0)) {
			_exit(2);
		}
		_exit(open_copy(w, w->path, &found, errors) == -1 &&
				      strstr(errors, "no permission") != NULL
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(chmod(w->path, 0700), 0);
	world_free(w);
}

static void test_missing_directory_is_made(void **state)
{
	struct world *w = world_new(true);
	struct spool_recovery found;
	char errors[4096];
	char path[300];

	(void)state;
	snprintf(path, sizeof(path), "%s.new", w->path);
	assert_int_equal(open_copy(w, path, &found, errors), 0);
	assert_string_equal(errors, "");
	disk_remove_directory(path);
	world_free(w);
}

/* Done and state stand before their message when segments are read in order of their numbers. */
static void test_order_of_segments_does_not_matter(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[300];

	(void)state;
	w->expect_errors = true;
	w->options.compact_percent = 0;
	w->options.spare_segments = 8;
	world_start(w);
	for (unsigned round = 0; round < 12; round++) {
		for (unsigned i = 0; i < 300; i++) {
			m[i] = world_store(w, 2, 1000, ENVELOPE_SYNCED);
		}
		world_settle(w);
		for (unsigned i = 0; i < 300; i++) {
			world_done(w, m[i], 0);
			world_defer(w, m[i], 1, 2, 0);
			if (round % 3 != 2 || i % 50 != 0) {
				world_done(w, m[i], 1);
			}
		}
		world_rest(w);
	}
	world_kill(w);
	world_start(w);
	assert_int_equal(w->found.messages, 24);
	assert_int_equal(w->recovered, 24);
	world_stop(w);
	world_free(w);
}

/* Hands out all that `s` has, and counts. */
static unsigned hand_out(struct spool *s, struct mail_pools *pools, unsigned limit)
{
	struct delivery *d;
	unsigned count = 0;

	while (count < limit && (d = spool_next_recovered(s, 0, pools)) != NULL) {
		delivery_give_up_content(d, pools);
		delivery_destroy(d, pools);
		count++;
	}
	return count;
}

static uint64_t left_of(struct segment_store *s)
{
	store_count_recovered(s);
	return counter_get(s->stats.recovery_left);
}

/* What was read with its neighbours is a guess: when it is not right, the disk is asked again. */
static void test_what_was_read_ahead_is_not_trusted(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[MESSAGES];
	struct counter_set *counters = counter_set_create("spool.0");
	struct segment_store *store;
	struct mail_pools pools;
	uint64_t places[2];
	struct spool *s;
	uint32_t id;

	(void)state;
	w->expect_errors = true;
	world_start(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		m[i] = world_store(w, 1, 500, ENVELOPE_SYNCED);
	}
	world_settle(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		world_defer(w, m[i], 0, 3, 0);
	}
	world_settle(w);
	places[0] = (uint64_t)m[7]->entry->place * RECORD_ALIGN + 130;
	places[1] = (uint64_t)m[9]->entry->deliveries[0].place * RECORD_ALIGN + 60;
	id = m[7]->entry->segment->id;
	world_stop(w);

	mail_pools_init(&pools);
	s = spool_open(&w->options, stderr, &w->found);
	assert_non_null(s);
	store = spool_store(s, 0);
	store_stats_create(store, counters);
	flip(w->path, id, places[0]);
	flip(w->path, id, places[1]);
	assert_int_equal(left_of(store), MESSAGES);
	assert_int_equal(hand_out(s, &pools, 1), 1);
	assert_int_equal(left_of(store), MESSAGES - 1);
	assert_non_null(store->recovered.heads.segment);
	assert_non_null(store->recovered.states.segment);
	flip(w->path, id, places[0]);
	flip(w->path, id, places[1]);
	assert_int_equal(hand_out(s, &pools, MESSAGES), MESSAGES - 1);
	assert_int_equal(left_of(store), 0);
	assert_int_equal(counter_get(store->stats.damaged), 0);
	/* Both are gone with the last. */
	assert_null(store->recovered.heads.data);
	assert_null(store->recovered.states.data);
	spool_close(s);
	counter_set_destroy(counters);
	mail_pools_close(&pools);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated_anywhere_keeps_what_is_before),
		cmocka_unit_test(test_torn_record_is_counted),
		cmocka_unit_test(test_flipped_bit_costs_one_message_at_most),
		cmocka_unit_test(test_damaged_index_is_built_anew),
		cmocka_unit_test(test_damaged_records_of_a_sealed_segment_are_skipped),
		cmocka_unit_test(test_forged_record_inside_a_torn_message_is_not_taken),
		cmocka_unit_test(test_records_of_an_earlier_life_never_match),
		cmocka_unit_test(test_newer_format_is_refused),
		cmocka_unit_test(test_older_format_is_read),
		cmocka_unit_test(test_other_files_are_left_alone),
		cmocka_unit_test(test_second_process_is_refused),
		cmocka_unit_test(test_unusable_paths_are_explained),
		cmocka_unit_test(test_missing_directory_is_made),
		cmocka_unit_test(test_order_of_segments_does_not_matter),
		cmocka_unit_test(test_what_was_read_ahead_is_not_trusted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
