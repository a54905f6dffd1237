/*
 * The format on disk: checksums, records written and checked in pieces, headers.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spool/record.h"
#include "spool/segment.h"

#define BODY 9000U

struct fixture {
	struct pool buffers;
	struct chain body;
	/* An envelope, as far as this layer looks. */
	_Alignas(8) unsigned char envelope[200];
	struct record_header header;
	unsigned char record[16384];
	size_t len;
};

static struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct envelope *e;
	unsigned char bytes[BODY];

	assert_non_null(f);
	pool_init(&f->buffers, "test", CHAIN_BUFFER_SIZE, 0);
	for (unsigned i = 0; i < BODY; i++) {
		bytes[i] = (unsigned char)(i * 13 + i / 256);
	}
	chain_append(&f->body, &f->buffers, bytes, BODY);
	memset(f->envelope, 0x5a, sizeof(f->envelope));
	e = (struct envelope *)(void *)f->envelope;
	e->size = sizeof(f->envelope);
	f->header = (struct record_header){
		.type = RECORD_MESSAGE,
		.segment = 5,
		.generation = 77,
		.delivery = 3,
		.sequence = 42,
		.id = {1, 2},
	};
	return f;
}

static void fixture_free(struct fixture *f)
{
	chain_release(&f->body, &f->buffers);
	pool_close(&f->buffers);
	free(f);
}

/* The whole message in pieces of `step` bytes. */
static void encode(struct fixture *f, size_t step)
{
	struct record_encoder e;

	record_encode_message(&e, &f->header, (const struct envelope *)(const void *)f->envelope,
			      &f->body);
	f->len = 0;
	while (!record_encoded(&e)) {
		f->len += record_encode(&e, f->record + f->len, step);
	}
}

static bool whole(const unsigned char *record, size_t len, size_t step)
{
	struct record_check c;
	struct record_header h;

	memcpy(&h, record, sizeof(h));
	if (!record_plausible(&h, 5, 77, len)) {
		return false;
	}
	record_check_begin(&c, &h);
	for (size_t at = sizeof(h); at < len; at += step) {
		record_check_feed(&c, record + at, len - at < step ? len - at : step);
	}
	return record_check_ok(&c);
}

static void test_crc_is_crc32c(void **state)
{
	(void)state;
	assert_int_equal(record_crc(0, "123456789", 9), 0xe3069283);
	assert_int_equal(record_crc(record_crc(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(record_crc(0, "", 0), 0);
}

static void test_message_is_the_same_in_pieces_of_any_size(void **state)
{
	struct fixture *f = fixture_new();
	unsigned char first[sizeof(f->record)];
	size_t len;

	(void)state;
	encode(f, sizeof(f->record));
	len = f->len;
	memcpy(first, f->record, len);
	assert_int_equal(len, record_bytes(200 + BODY + RECORD_TRAILER));
	for (size_t step = 1; step < 400; step += 7) {
		encode(f, step);
		assert_int_equal(f->len, len);
		assert_memory_equal(f->record, first, len);
		assert_true(whole(first, len, step));
	}
	fixture_free(f);
}

static void test_any_flipped_bit_is_noticed(void **state)
{
	struct fixture *f = fixture_new();
	size_t end;

	(void)state;
	encode(f, 4096);
	end = sizeof(struct record_header) + 200 + BODY + RECORD_TRAILER;
	for (size_t at = 0; at < end; at += at < 300 ? 1 : 97) {
		f->record[at] ^= (unsigned char)(1U << (at % 8));
		assert_false(whole(f->record, f->len, 512));
		f->record[at] ^= (unsigned char)(1U << (at % 8));
	}
	assert_true(whole(f->record, f->len, 512));
	fixture_free(f);
}

static void test_body_of_another_message_does_not_pass(void **state)
{
	struct fixture *f = fixture_new();
	unsigned char other[sizeof(f->record)];

	(void)state;
	encode(f, 4096);
	memcpy(other, f->record, f->len);
	f->header.id.low++;
	encode(f, 4096);
	/* This one's header and envelope, and what lay there before. */
	memcpy(f->record + 512, other + 512, f->len - 512);
	assert_false(whole(f->record, f->len, 4096));
	fixture_free(f);
}

static void test_copy_changes_place_and_nothing_else(void **state)
{
	struct fixture *f = fixture_new();
	struct record_encoder e;
	struct record_header to = {.segment = 9, .generation = 1, .sequence = 43};
	unsigned char copy[sizeof(f->record)];
	struct record_header h;
	struct record_check c;
	size_t len = 0;

	(void)state;
	encode(f, 4096);
	record_encode_copy(&e, &to, f->record);
	while (!record_encoded(&e)) {
		len += record_encode(&e, copy + len, 1000);
	}
	assert_int_equal(len, f->len);
	memcpy(&h, copy, sizeof(h));
	assert_true(record_plausible(&h, 9, 1, len));
	assert_int_equal(h.sequence, 43);
	assert_int_equal(h.delivery, 3);
	record_check_begin(&c, &h);
	record_check_feed(&c, copy + sizeof(h), len - sizeof(h));
	assert_true(record_check_ok(&c));
	assert_memory_equal(copy + sizeof(h), f->record + sizeof(h), len - sizeof(h));
	fixture_free(f);
}

static void test_state_and_done_describe_themselves(void **state)
{
	struct record_encoder e;
	struct record_header h = {
		.type = RECORD_STATE, .segment = 5, .generation = 77, .delivery = 4, .sequence = 8};
	struct record_state s = {.stamp = 6, .attempts = 3, .text_bytes = 5};
	unsigned char record[256];
	struct index_record r;
	size_t len;

	(void)state;
	record_encode_state(&e, &h, &s, "later");
	len = record_encode(&e, record, sizeof(record));
	assert_int_equal(len, record_bytes(45));
	assert_true(whole(record, len, 3));
	memcpy(&h, record, sizeof(h));
	r = record_describe(&h, 11, record + sizeof(h));
	assert_int_equal(r.sequence, 6);
	assert_int_equal(r.place, 11);
	assert_int_equal(r.units, len / 8);
	h.type = RECORD_DONE;
	h.count = 2;
	record_encode_done(&e, &h, 99);
	len = record_encode(&e, record, sizeof(record));
	assert_true(whole(record, len, 1));
	memcpy(&h, record, sizeof(h));
	r = record_describe(&h, 12, record + sizeof(h));
	assert_int_equal(r.units, 99);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.delivery, 4);
}

static void test_implausible_headers_are_refused(void **state)
{
	struct fixture *f = fixture_new();
	struct record_header h;
	struct record_header bad;

	(void)state;
	encode(f, 4096);
	memcpy(&h, f->record, sizeof(h));
	assert_true(record_plausible(&h, 5, 77, f->len));
	assert_false(record_plausible(&h, 5, 77, f->len - 1));
	assert_false(record_plausible(&h, 6, 77, f->len));
	assert_false(record_plausible(&h, 5, 78, f->len));
	bad = h;
	bad.length = bad.head_bytes;
	assert_false(record_plausible(&bad, 5, 77, f->len));
	bad = h;
	bad.type = RECORD_CHUNK;
	assert_false(record_plausible(&bad, 5, 77, f->len));
	bad = h;
	bad.delivery = 0;
	assert_false(record_plausible(&bad, 5, 77, f->len));
	bad = h;
	bad.length = UINT32_MAX;
	assert_false(record_plausible(&bad, 5, 77, f->len));
	fixture_free(f);
}

static void test_segment_header_round_trip(void **state)
{
	struct segment_header h = {.state = SEGMENT_DISK_SEALED,
				   .id = 3,
				   .generation = 9,
				   .writer = 1,
				   .size = 1U << 20,
				   .prepared = 8192,
				   .index_offset = 5000};
	struct segment_header back;
	unsigned char block[SEGMENT_BLOCK];

	(void)state;
	segment_header_encode(block, &h);
	assert_int_equal(segment_header_decode(block, &back), 0);
	assert_int_equal(back.version, SPOOL_FORMAT_VERSION);
	assert_int_equal(back.index_offset, 5000);
	block[30] ^= 1;
	assert_int_equal(segment_header_decode(block, &back), -EBADMSG);
	block[30] ^= 1;
	block[8]++;
	assert_int_equal(segment_header_decode(block, &back), -EPROTO);
	assert_int_equal(back.version, SPOOL_FORMAT_VERSION + 1);
	memset(block, 0, sizeof(block));
	assert_int_equal(segment_header_decode(block, &back), -ENODATA);
}

static void test_segment_names(void **state)
{
	char name[SEGMENT_NAME_MAX];
	uint32_t id;

	(void)state;
	segment_name(0xabcdef01, name);
	assert_string_equal(name, "seg-abcdef01.fws");
	assert_true(segment_name_parse(name, &id));
	assert_int_equal(id, 0xabcdef01);
	assert_false(segment_name_parse("seg-1.fws", &id));
	assert_false(segment_name_parse("seg-0000000A.fws", &id));
	assert_false(segment_name_parse("seg-00000001.fws.old", &id));
	assert_false(segment_name_parse("lock", &id));
}

static void test_segment_sets(void **state)
{
	struct segment_set set = {0};

	(void)state;
	assert_true(segment_set_add(&set, 5));
	assert_false(segment_set_add(&set, 5));
	assert_true(segment_set_add(&set, 1000));
	assert_int_equal(set.count, 2);
	assert_true(segment_set_has(&set, 1000));
	assert_false(segment_set_has(&set, 100000));
	assert_false(segment_set_remove(&set, 6));
	assert_true(segment_set_remove(&set, 5));
	assert_int_equal(set.count, 1);
	segment_set_clear(&set);
	assert_false(segment_set_has(&set, 1000));
	free(set.words);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc_is_crc32c),
		cmocka_unit_test(test_message_is_the_same_in_pieces_of_any_size),
		cmocka_unit_test(test_any_flipped_bit_is_noticed),
		cmocka_unit_test(test_body_of_another_message_does_not_pass),
		cmocka_unit_test(test_copy_changes_place_and_nothing_else),
		cmocka_unit_test(test_state_and_done_describe_themselves),
		cmocka_unit_test(test_implausible_headers_are_refused),
		cmocka_unit_test(test_segment_header_round_trip),
		cmocka_unit_test(test_segment_names),
		cmocka_unit_test(test_segment_sets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
