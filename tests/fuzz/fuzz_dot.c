/*
 * core/mail/dot.c: a byte of options, three that choose the pieces, then mail data. What is found
 * must not depend on the pieces, and must be what a slow reference finds; what is converted must
 * mean the same and hold no line end but CR LF.
 */
#include "core/mail/chain.h"
#include "tests/fuzz/dot_reference.h"

struct found {
	struct dot_scanner scanner;
	size_t len;
	bool ended;
};

/* As a session does: what could not be judged is presented again in front of what comes next. */
static struct found scan(const unsigned char *data, size_t len, uint32_t line_max, bool bare,
			 uint32_t seed)
{
	struct found f = {.len = 0};
	size_t given = 0;

	dot_scanner_init(&f.scanner, line_max, bare);
	while (given < len && !f.ended) {
		unsigned char *piece;
		size_t n;

		given += seed == 0 ? len : fuzz_split(&seed, len - given);
		piece = fuzz_copy(data + f.len, given - f.len);
		n = dot_scan(&f.scanner, piece, given - f.len, &f.ended);
		FUZZ_CHECK(n <= given - f.len);
		FUZZ_CHECK(!f.ended || given - f.len - n >= DOT_END_BYTES);
		FUZZ_CHECK(f.ended || given - f.len - n < DOT_END_BYTES);
		f.len += n;
		free(piece);
	}
	return f;
}

static void check_scan(const struct found *f, const struct dot_reference *r)
{
	FUZZ_CHECK(f->len == r->len && f->ended == r->ended);
	FUZZ_CHECK(f->scanner.flags == r->flags);
	FUZZ_CHECK(f->scanner.received == r->received);
}

static unsigned char *convert(const unsigned char *data, size_t len, uint32_t seed, size_t *out_len)
{
	struct chain out = CHAIN_EMPTY;
	struct dot_converter c;
	struct pool buffers;
	unsigned char *flat;

	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	dot_converter_init(&c);
	for (size_t at = 0; at < len;) {
		size_t n = seed == 0 ? len : fuzz_split(&seed, len - at);
		unsigned char *piece = fuzz_copy(data + at, n);

		dot_convert(&c, piece, n, &out, &buffers);
		free(piece);
		at += n;
	}
	*out_len = (size_t)out.len;
	flat = malloc(*out_len + 1);
	FUZZ_CHECK(flat != NULL);
	chain_copy_out(&out, 0, flat, *out_len);
	chain_release(&out, &buffers);
	pool_close(&buffers);
	return flat;
}

static void check_same_meaning(const unsigned char *a, size_t a_len, const unsigned char *b,
			       size_t b_len)
{
	unsigned char *x = malloc(2 * a_len + 1);
	unsigned char *y = malloc(2 * b_len + 1);
	size_t x_len;
	size_t y_len;

	FUZZ_CHECK(x != NULL && y != NULL);
	x_len = dot_reference_plain(a, a_len, x);
	y_len = dot_reference_plain(b, b_len, y);
	FUZZ_CHECK(x_len == y_len && memcmp(x, y, x_len) == 0);
	free(x);
	free(y);
}

static void check_convert(const unsigned char *message, size_t len, uint32_t seed, bool safe)
{
	size_t whole_len;
	size_t split_len;
	unsigned char *whole = convert(message, len, 0, &whole_len);
	unsigned char *split = convert(message, len, seed, &split_len);
	struct dot_reference r = dot_reference_scan(whole, whole_len, 998, false);

	FUZZ_CHECK(whole_len == split_len && memcmp(whole, split, whole_len) == 0);
	FUZZ_CHECK(!r.ended && r.len == whole_len && dot_safe_as_is(r.flags));
	FUZZ_CHECK(!safe || (whole_len == len && memcmp(whole, message, len) == 0));
	check_same_meaning(message, len, whole, whole_len);
	free(whole);
	free(split);
}

/* A message ends in CR LF, if only now. */
static void complete_and_convert(const unsigned char *data, size_t len, uint32_t seed)
{
	unsigned char *message = malloc(len + 2);
	struct dot_reference r;

	FUZZ_CHECK(message != NULL);
	memcpy(message, data, len);
	if (len > 0 && !dot_after_crlf(data, len)) {
		if (data[len - 1] != '\r') {
			message[len++] = '\r';
		}
		message[len++] = '\n';
	}
	r = dot_reference_scan(message, len, 998, false);
	if (r.len == len) {
		check_convert(message, len, seed, dot_safe_as_is(r.flags));
	}
	free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t line_limits[4] = {998, 3, 60, 130};
	struct fuzz_input in = fuzz_input(data, size);
	unsigned options = fuzz_byte(&in);
	uint32_t seed = 1 + (fuzz_word(&in) << 8 | fuzz_byte(&in));
	bool bare = (options & 1) != 0;
	uint32_t line_max = line_limits[options >> 1 & 3];
	struct dot_reference r = dot_reference_scan(in.at, in.left, line_max, bare);
	struct found whole = scan(in.at, in.left, line_max, bare, 0);
	struct found split = scan(in.at, in.left, line_max, bare, seed);

	check_scan(&whole, &r);
	check_scan(&split, &r);
	complete_and_convert(in.at, r.len, seed);
	return 0;
}
