#include "core/mail/dot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SHORT_LINE_MAX 20
/* Longer than what is looked at together. */
#define LONG_LINE_MAX 90
/* Of random data: at most 23 words of at most 18 bytes. */
#define DATA_MAX 420

/* What is known of mail data; the scanner's answer and the naive one. */
struct outcome {
	size_t message_bytes;
	bool end;
	uint32_t flags;
	uint32_t received;
	bool header_ended;
};

static struct pool buffers;

static int set_up(void **state)
{
	(void)state;
	pool_init(&buffers, "chain buffer", CHAIN_BUFFER_SIZE, 16);
	return 0;
}

/* No test may leak a buffer. */
static int tear_down(void **state)
{
	(void)state;
	pool_close(&buffers);
	return buffers.live == 0 ? 0 : -1;
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Mail data of words that make trouble next to each other. Returns its length. */
/* Of the scanners. */
static uint32_t line_max = SHORT_LINE_MAX;

static size_t random_data(uint64_t *seed, unsigned char data[DATA_MAX])
{
	static const struct {
		const char *text;
		size_t len;
	} words[] = {
		{"\r\n", 2},
		{"\r\n", 2},
		{"\r\n", 2},
		{"\r", 1},
		{"\n", 1},
		{".", 1},
		{".", 1},
		{"a", 1},
		{"\0", 1},
		{"\x80", 1},
		{"\r\n.", 3},
		{"..", 2},
		{"\r\nReceived:", 11},
		{"recEIVED:", 9},
		{"Rec", 3},
		{"eived:", 6},
		{"0123456789abcdefgh", 18},
		{"\r\n.\r\n", 5},
		{" ", 1},
		{"x\r\n", 3},
		{"hello world", 11},
	};
	size_t count = random_next(seed) % 24;
	/* Most data has only some of the words. */
	uint64_t allowed = random_next(seed) | random_next(seed);
	size_t len = 0;

	for (size_t i = 0; i < count; i++) {
		size_t w = random_next(seed) % (sizeof(words) / sizeof(words[0]));

		if ((allowed >> w & 1) != 0) {
			memcpy(data + len, words[w].text, words[w].len);
			len += words[w].len;
		}
	}
	return len;
}

/* Byte by byte, from the definitions. */
static struct outcome naive_scan(const unsigned char *data, size_t len, bool lenient)
{
	struct outcome o = {.message_bytes = 0};
	size_t line = 0;
	bool dotted = false;
	bool line_after_crlf = true;
	bool counted = false;

	for (size_t i = 0; i < len; i++) {
		bool crlf = i > 0 && data[i - 1] == '\r' && data[i] == '\n';
		bool bare_lf = data[i] == '\n' && !crlf;
		bool bare_cr = i > 0 && data[i - 1] == '\r' && data[i] != '\n';

		if (bare_cr && lenient) {
			size_t n = i - 1 - line - (dotted ? 1 : 0);

			o.flags |= n > line_max ? DOT_LONG_LINE : 0;
			o.header_ended |= n == 0;
			line = i;
			line_after_crlf = false;
		}
		o.flags |= bare_cr ? DOT_BARE_CR : 0;
		if (i == line) {
			size_t left = len - i < 3 ? len - i : 3;

			counted = false;
			dotted = line_after_crlf && data[i] == '.';
			if (line_after_crlf && memcmp(data + i, ".\r\n", left) == 0) {
				o.message_bytes = i;
				o.end = left == 3;
				return o;
			}
			o.flags |= dotted ? DOT_STUFFED : 0;
		}
		o.flags |= bare_lf ? DOT_BARE_LF : 0;
		o.flags |= data[i] == 0 ? DOT_NUL : 0;
		o.flags |= data[i] > 127 ? DOT_8BIT : 0;
		if (!o.header_ended && !counted && i + 1 - line == 9 &&
		    strncasecmp((const char *)data + line, "received:", 9) == 0) {
			o.received++;
			counted = true;
		}
		if (crlf || (bare_lf && lenient)) {
			size_t n = i + 1 - line - (crlf ? 2 : 1) - (dotted ? 1 : 0);

			o.flags |= n > line_max ? DOT_LONG_LINE : 0;
			o.header_ended |= n == 0;
			line = i + 1;
			line_after_crlf = crlf;
		}
	}
	o.message_bytes = len;
	return o;
}

/* Presents the data in pieces as long as `pieces` says (0 ends it: the rest at once), each with
 * what remained of the one before in front of it, and in memory of just its size. */
static struct outcome scan_pieces(const unsigned char *data, size_t len, bool lenient,
				  const size_t *pieces)
{
	struct outcome o = {.end = false};
	struct dot_scanner s;
	size_t arrived = 0;

	dot_scanner_init(&s, line_max, lenient);
	while (arrived < len && !o.end) {
		size_t piece = *pieces != 0 ? *pieces++ : len - arrived;
		unsigned char *copy;
		size_t n;

		arrived = piece < len - arrived ? arrived + piece : len;
		n = arrived - o.message_bytes;
		copy = malloc(n);
		assert_non_null(copy);
		memcpy(copy, data + o.message_bytes, n);
		o.message_bytes += dot_scan(&s, copy, n, &o.end);
		free(copy);
		assert_true(o.end || arrived - o.message_bytes < DOT_END_BYTES);
	}
	o.flags = s.flags;
	o.received = s.received;
	o.header_ended = s.header_ended;
	return o;
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
	assert_int_equal(a->end, b->end);
	assert_int_equal(a->message_bytes, b->message_bytes);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->received, b->received);
	assert_int_equal(a->header_ended, b->header_ended);
}

/* In one piece, in any two, byte by byte. */
static struct outcome scan_all_ways(const void *data, size_t len, bool lenient)
{
	struct outcome expected = naive_scan(data, len, lenient);
	size_t bytes[512];
	size_t none[1] = {0};
	struct outcome o = scan_pieces(data, len, lenient, none);

	assert_true(len < 511);
	assert_same(&o, &expected);
	for (size_t i = 0; i < len; i++) {
		size_t two[2] = {i, 0};

		o = scan_pieces(data, len, lenient, two);
		assert_same(&o, &expected);
		bytes[i] = 1;
	}
	bytes[len] = 0;
	o = scan_pieces(data, len, lenient, bytes);
	assert_same(&o, &expected);
	return expected;
}

#define SCAN(text) scan_all_ways(text, sizeof(text) - 1, false)

static void test_scan_finds_the_end_only_at_crlf_dot_crlf(void **state)
{
	struct outcome o;

	(void)state;
	o = SCAN(".\r\n");
	assert_true(o.end);
	assert_int_equal(o.message_bytes, 0);
	o = SCAN("\r\n.\r\n");
	assert_true(o.end);
	assert_int_equal(o.message_bytes, 2);
	o = SCAN("A: b\r\n\r\nhello\r\n.\r\nQUIT\r\n");
	assert_true(o.end);
	assert_int_equal(o.message_bytes, 15);
	assert_int_equal(o.flags, 0);
	assert_true(o.header_ended);
	o = SCAN("hello\r\n..\r\n.x\r\n");
	assert_false(o.end);
	assert_int_equal(o.message_bytes, 15);
	o = SCAN("hello.\r\n");
	assert_false(o.end);
}

static void test_scan_when_end_may_follow_leaves_it(void **state)
{
	struct outcome o;

	(void)state;
	o = SCAN("a\r\n.");
	assert_false(o.end);
	assert_int_equal(o.message_bytes, 3);
	o = SCAN("a\r\n.\r");
	assert_false(o.end);
	assert_int_equal(o.message_bytes, 3);
}

static void test_scan_ignores_what_follows_the_end(void **state)
{
	struct outcome o = SCAN("a\r\n.\r\n\n\r\x80\nReceived:\r\n.\r\n");

	(void)state;
	assert_true(o.end);
	assert_int_equal(o.message_bytes, 3);
	assert_int_equal(o.flags, 0);
	assert_int_equal(o.received, 0);
}

static void test_scan_flags(void **state)
{
	(void)state;
	assert_int_equal(SCAN("a\nb\r\n.\r\n").flags, DOT_BARE_LF);
	assert_int_equal(SCAN("a\rb\r\n.\r\n").flags, DOT_BARE_CR);
	assert_int_equal(SCAN("a\r\r\n.\r\n").flags, DOT_BARE_CR);
	assert_int_equal(SCAN("a\n\r\n.\r\n").flags, DOT_BARE_LF);
	assert_int_equal(SCAN("a\0b\r\n.\r\n").flags, DOT_NUL);
	assert_int_equal(SCAN("a\xff\r\n.\r\n").flags, DOT_8BIT);
	assert_true(dot_safe_as_is(DOT_8BIT | DOT_NUL | DOT_LONG_LINE));
	assert_false(dot_safe_as_is(DOT_BARE_LF));
	assert_false(dot_safe_as_is(DOT_8BIT | DOT_BARE_CR));
}

static void test_scan_measures_lines_without_crlf_and_stuffed_dot(void **state)
{
	(void)state;
	assert_int_equal(SCAN("01234567890123456789\r\n.\r\n").flags, 0);
	assert_int_equal(SCAN("012345678901234567890\r\n.\r\n").flags, DOT_LONG_LINE);
	assert_int_equal(SCAN("..1234567890123456789\r\n.\r\n").flags, DOT_STUFFED);
	assert_int_equal(SCAN("..12345678901234567890\r\n.\r\n").flags,
			 DOT_LONG_LINE | DOT_STUFFED);
	assert_int_equal(SCAN("0123456789\n0123456789\r\n.\r\n").flags,
			 DOT_LONG_LINE | DOT_BARE_LF);
	assert_int_equal(scan_all_ways("0123456789\n0123456789\r\n.\r\n", 26, true).flags,
			 DOT_BARE_LF);
}

static void test_scan_counts_received_fields_of_the_header_only(void **state)
{
	struct outcome o;

	(void)state;
	o = SCAN("Received: a\r\nRECEIVED: b\r\n Received: c\r\nX-Received: d\r\nreceived:\r\n\r\n"
		 "Received: e\r\n.\r\n");
	assert_int_equal(o.received, 3);
	o = SCAN("Received: a\r\nSubject: b\r\n.\r\n");
	assert_int_equal(o.received, 1);
	assert_false(o.header_ended);
	o = SCAN("\r\nReceived: a\r\n.\r\n");
	assert_int_equal(o.received, 0);
	assert_true(o.header_ended);
}

static void test_scan_of_lines_around_block_ends(void **state)
{
	unsigned char data[400];

	(void)state;
	for (size_t pad = 0; pad < 140; pad++) {
		size_t len = pad;
		struct outcome o;

		memset(data, 'x', pad);
		memcpy(data + len, "\r\n.\r\n\nrest\x80", 11);
		len += 11;
		o = scan_all_ways(data, len, false);
		assert_true(o.end);
		assert_int_equal(o.message_bytes, pad + 2);
		assert_int_equal(o.flags, pad > line_max ? DOT_LONG_LINE : 0);
	}
}

static void test_scan_of_random_data_matches_the_naive_one(void **state)
{
	uint64_t seed = 20240101;
	unsigned ends = 0;

	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		unsigned char data[DATA_MAX];
		size_t len = random_data(&seed, data);

		ends += scan_all_ways(data, len, false).end ? 1 : 0;
		scan_all_ways(data, len, true);
	}
	assert_true(ends > 100);
}

static void test_scan_in_many_random_pieces_matches_the_naive_one(void **state)
{
	uint64_t seed = 777;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		unsigned char data[DATA_MAX];
		size_t pieces[101];
		size_t len = random_data(&seed, data);
		bool lenient = i % 2 != 0;
		struct outcome expected = naive_scan(data, len, lenient);
		struct outcome o;

		for (unsigned p = 0; p < 100; p++) {
			pieces[p] = 1 + random_next(&seed) % 40;
		}
		pieces[100] = 0;
		o = scan_pieces(data, len, lenient, pieces);
		assert_same(&o, &expected);
	}
}

/* Lines as those of mail, in a body or a header. */
static size_t random_lines(uint64_t *seed, unsigned char data[DATA_MAX])
{
	static const char *const starts[] = {"", "", "", ".", "..", "Received: a", "x"};
	size_t len = 0;

	if (random_next(seed) % 4 != 0) {
		memcpy(data, "A: b\r\n\r\n", 8);
		len = 8;
	}
	while (len < DATA_MAX - 130) {
		const char *start = starts[random_next(seed) % 7];
		size_t n = random_next(seed) % (random_next(seed) % 2 != 0 ? 12 : 100);

		memcpy(data + len, start, strlen(start));
		len += strlen(start);
		memset(data + len, 'x', n);
		len += n;
		memcpy(data + len, "\r\n", 2);
		len += random_next(seed) % 40 == 0 ? 1 : 2;
	}
	return len;
}

static void test_scan_of_random_lines_matches_the_naive_one(void **state)
{
	uint64_t seed = 31;
	unsigned ends = 0;

	(void)state;
	line_max = LONG_LINE_MAX;
	for (unsigned i = 0; i < 4000; i++) {
		unsigned char data[DATA_MAX];
		size_t len = random_lines(&seed, data);

		ends += scan_all_ways(data, len, false).end ? 1 : 0;
		scan_all_ways(data, len, true);
		len = random_data(&seed, data);
		scan_all_ways(data, len, false);
	}
	assert_true(ends > 100);
	line_max = SHORT_LINE_MAX;
}

/* Takes the stuffed dots out; returns the length. */
static size_t naive_unstuff(const unsigned char *data, size_t len, unsigned char *to)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		bool line_start = i == 0 || (i >= 2 && data[i - 2] == '\r' && data[i - 1] == '\n');

		if (!line_start || data[i] != '.') {
			to[n++] = data[i];
		}
	}
	return n;
}

/* Each CR LF, bare CR and bare LF becomes CR LF. */
static size_t naive_line_ends(const unsigned char *data, size_t len, unsigned char *to)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (data[i] != '\r' && data[i] != '\n') {
			to[n++] = data[i];
			continue;
		}
		if (data[i] == '\r' && i + 1 < len && data[i + 1] == '\n') {
			i++;
		}
		to[n++] = '\r';
		to[n++] = '\n';
	}
	return n;
}

/* Converts in pieces of `piece` bytes after a first one of `first`. Returns the length of `to`. */
static size_t convert(const unsigned char *data, size_t len, size_t first, size_t piece,
		      unsigned char to[2048])
{
	struct chain c = CHAIN_EMPTY;
	struct dot_converter converter;
	size_t at = 0;

	dot_converter_init(&converter);
	for (size_t n = first; at < len; n = piece) {
		n = n < len - at ? n : len - at;
		dot_convert(&converter, data + at, n, &c, &buffers);
		at += n;
	}
	assert_true(c.len <= 2048);
	at = (size_t)c.len;
	chain_copy_out(&c, 0, to, at);
	chain_release(&c, &buffers);
	return at;
}

/* All that a stored body has to be, and that it says the same as the one received. */
static void assert_converted(const unsigned char *data, size_t len)
{
	unsigned char out[2048];
	unsigned char again[2048];
	unsigned char content[2048];
	unsigned char expected[2048];
	size_t out_len = convert(data, len, len, len, out);
	size_t n = naive_unstuff(data, len, content);
	size_t expected_len = naive_line_ends(content, n, expected);
	struct outcome o = naive_scan(out, out_len, false);

	assert_true(dot_safe_as_is(o.flags));
	assert_false(o.end);
	assert_int_equal(o.message_bytes, out_len);
	n = naive_unstuff(out, out_len, content);
	assert_int_equal(n, expected_len);
	assert_memory_equal(content, expected, n);
	for (size_t first = 0; first <= len; first++) {
		assert_int_equal(convert(data, len, first, len, again), out_len);
		assert_memory_equal(again, out, out_len);
	}
	assert_int_equal(convert(data, len, 1, 1, again), out_len);
	assert_memory_equal(again, out, out_len);
}

static void assert_converts_to(const char *from, const char *to)
{
	unsigned char out[2048];
	size_t len = convert((const unsigned char *)from, strlen(from), 1, 1, out);

	assert_int_equal(len, strlen(to));
	assert_memory_equal(out, to, len);
	assert_converted((const unsigned char *)from, strlen(from));
}

static void test_convert_leaves_wire_form_alone(void **state)
{
	(void)state;
	assert_converts_to("", "");
	assert_converts_to("\r\n", "\r\n");
	assert_converts_to("A: b\r\n\r\n..\r\n..x\r\n.y\r\n", "A: b\r\n\r\n..\r\n..x\r\n.y\r\n");
}

static void test_convert_turns_bare_ones_into_line_ends(void **state)
{
	(void)state;
	assert_converts_to("a\nb\rc\r\n", "a\r\nb\r\nc\r\n");
	assert_converts_to("\n\n\r\n", "\r\n\r\n\r\n");
	assert_converts_to("\r\r\n", "\r\n\r\n");
	assert_converts_to("a\n.b\r\n", "a\r\n..b\r\n");
	assert_converts_to("a\r.b\r\n", "a\r\n..b\r\n");
	assert_converts_to("..\n.\r\n", "..\r\n..\r\n");
	assert_converts_to(".\na\r\n", "\r\na\r\n");
}

/* Sequences that some servers took, or still take, for the end of the data. */
static void test_known_smuggling_sequences_end_nothing_and_leave_harmless(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		uint32_t flags;
	} sequences[] = {
		{"\n.\n", 3, DOT_BARE_LF},
		{"\n.\r\n", 4, DOT_BARE_LF},
		{"\r\n.\n", 4, DOT_BARE_LF | DOT_STUFFED},
		{"\r.\r", 3, DOT_BARE_CR},
		{"\r.\r\n", 4, DOT_BARE_CR},
		{"\r\n.\r", 4, DOT_BARE_CR | DOT_STUFFED},
		{"\r\n\0.\r\n", 6, DOT_NUL},
		{"\r\r\n.\r\r\n", 7, DOT_BARE_CR | DOT_STUFFED},
		{"\n\n.\n\n", 5, DOT_BARE_LF},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
		unsigned char data[200] = "S: x\r\n\r\nhello";
		size_t len = 13;
		struct outcome o;

		memcpy(data + len, sequences[i].text, sequences[i].len);
		len += sequences[i].len;
		memcpy(data + len, "MAIL FROM:<x>\r\n.\r\n", 18);
		len += 18;
		o = scan_all_ways(data, len, false);
		assert_true(o.end);
		assert_int_equal(o.message_bytes, len - 3);
		assert_int_equal(o.flags & ~(unsigned)DOT_LONG_LINE, sequences[i].flags);
		assert_converted(data, o.message_bytes);
	}
}

static void test_convert_of_random_messages_keeps_content_and_is_safe(void **state)
{
	uint64_t seed = 31337;
	unsigned bare = 0;

	(void)state;
	for (unsigned i = 0; i < 6000; i++) {
		unsigned char data[DATA_MAX + 5];
		size_t len = random_data(&seed, data);
		struct outcome o;

		memcpy(data + len, "\r\n.\r\n", 5);
		len += 5;
		o = naive_scan(data, len, false);
		assert_true(o.end);
		bare += dot_safe_as_is(o.flags) ? 0 : 1;
		assert_converted(data, o.message_bytes);
	}
	assert_true(bare > 500);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_scan_finds_the_end_only_at_crlf_dot_crlf),
		TEST(test_scan_when_end_may_follow_leaves_it),
		TEST(test_scan_ignores_what_follows_the_end),
		TEST(test_scan_flags),
		TEST(test_scan_measures_lines_without_crlf_and_stuffed_dot),
		TEST(test_scan_counts_received_fields_of_the_header_only),
		TEST(test_scan_of_lines_around_block_ends),
		TEST(test_scan_of_random_data_matches_the_naive_one),
		TEST(test_scan_in_many_random_pieces_matches_the_naive_one),
		TEST(test_scan_of_random_lines_matches_the_naive_one),
		TEST(test_convert_leaves_wire_form_alone),
		TEST(test_convert_turns_bare_ones_into_line_ends),
		TEST(test_known_smuggling_sequences_end_nothing_and_leave_harmless),
		TEST(test_convert_of_random_messages_keeps_content_and_is_safe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
