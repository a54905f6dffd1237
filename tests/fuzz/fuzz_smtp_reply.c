/*
 * core/mail/smtp_reply.c: three bytes that choose the pieces, then what a server says. The reply
 * must not depend on the pieces; whether there is one, its code and its end are found by a slow
 * reference too; and its text is fit for a log.
 */
#include <errno.h>

#include "core/mail/smtp_reply.h"
#include "core/mail/utf8.h"
#include "tests/fuzz/fuzz_input.h"

struct outcome {
	int result;
	size_t used;
};

static struct outcome feed(struct smtp_reply *r, const unsigned char *data, size_t len,
			   uint32_t seed)
{
	struct outcome o = {0};

	smtp_reply_reset(r);
	while (o.used < len && o.result == 0) {
		size_t n = seed == 0 ? len : fuzz_split(&seed, len - o.used);
		unsigned char *piece = fuzz_copy(data + o.used, n);
		size_t used = 0;

		o.result = smtp_reply_feed(r, piece, n, &used);
		FUZZ_CHECK(used <= n && (o.result != 0 || used == n));
		o.used += used;
		free(piece);
	}
	return o;
}

/* ---- the reference: whole lines only ---- */

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static bool has_code(const unsigned char *line, size_t len)
{
	return len >= 3 && line[0] >= '2' && line[0] <= '5' && is_digit(line[1]) &&
	       is_digit(line[2]);
}

/* A line without its LF: 1 for the last one of a reply, 0 for another, or an error. */
static int reference_line(const unsigned char *line, size_t len, const unsigned char *first)
{
	bool too_long = len > SMTP_REPLY_LINE_LIMIT;

	if (len > 0 && line[len - 1] == '\r' && !too_long) {
		len--;
	}
	if (!has_code(line, len) ||
	    (len > 3 && line[3] != '-' && line[3] != ' ' && (!too_long || line[3] != '\r'))) {
		return -EPROTO;
	}
	if (too_long) {
		return -EMSGSIZE;
	}
	if (memcmp(line, first, 3) != 0) {
		return -EPROTO;
	}
	return len == 3 || line[3] == ' ';
}

/* 0: not complete, though it may be wrong already. */
static struct outcome reference(const unsigned char *data, size_t len)
{
	struct outcome o = {0};

	for (unsigned lines = 1; o.result == 0; lines++) {
		const unsigned char *lf = memchr(data + o.used, '\n', len - o.used);
		size_t n;

		if (lf == NULL) {
			return o;
		}
		n = (size_t)(lf - data) - o.used;
		o.result = reference_line(data + o.used, n, data);
		if (o.result >= 0 && lines > SMTP_REPLY_LINES_MAX) {
			o.result = -EMSGSIZE;
		}
		o.used += n + 1;
	}
	return o;
}

/* ---- what must hold ---- */

static void check_text(const struct smtp_reply *r)
{
	unsigned code_point = 0;

	FUZZ_CHECK(r->text_len <= SMTP_REPLY_TEXT_MAX && r->text[r->text_len] == '\0');
	for (size_t i = 0; i < r->text_len;) {
		size_t n = utf8_decode(r->text + i, r->text_len - i, &code_point);

		FUZZ_CHECK(n > 0 && code_point >= ' ');
		FUZZ_CHECK(code_point < 0x7f || code_point >= 0xa0);
		i += n;
	}
}

/* RFC 3463 section 2: a digit, and twice one to three. */
static bool is_status(const char *status)
{
	size_t subject = strspn(status + 2, "0123456789");
	const char *rest = status + 2 + subject;
	size_t detail = *rest == '.' ? strspn(rest + 1, "0123456789") : 0;

	return status[1] == '.' && subject >= 1 && subject <= 3 && detail >= 1 && detail <= 3 &&
	       rest[1 + detail] == '\0';
}

static void check_reply(const struct smtp_reply *r, const unsigned char *data)
{
	char code[4];

	snprintf(code, sizeof(code), "%u", r->code);
	FUZZ_CHECK(memcmp(code, data, 3) == 0 && strncmp(r->text, code, 3) == 0);
	FUZZ_CHECK(r->lines >= 1 && r->lines <= SMTP_REPLY_LINES_MAX);
	FUZZ_CHECK(strlen(r->status) < sizeof(r->status));
	if (r->status[0] != '\0') {
		FUZZ_CHECK(r->status[0] == code[0] && is_status(r->status));
		FUZZ_CHECK(strncmp(r->text + 4, r->status, strlen(r->status)) == 0);
	}
	FUZZ_CHECK(r->extensions == 0 || r->code == 250);
	FUZZ_CHECK(r->size_max == 0 || (r->extensions & SMTP_EXTENSION_SIZE) != 0);
}

static void check_same(const struct smtp_reply *a, const struct smtp_reply *b)
{
	FUZZ_CHECK(a->code == b->code && a->lines == b->lines);
	FUZZ_CHECK(strcmp(a->status, b->status) == 0);
	FUZZ_CHECK(a->extensions == b->extensions && a->size_max == b->size_max);
	FUZZ_CHECK(a->text_len == b->text_len && strcmp(a->text, b->text) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	uint32_t seed = 1 + (fuzz_word(&in) << 8 | fuzz_byte(&in));
	struct smtp_reply *whole = malloc(sizeof(*whole));
	struct smtp_reply *split = malloc(sizeof(*split));
	struct outcome expected = reference(in.at, in.left);
	struct outcome a;
	struct outcome b;

	FUZZ_CHECK(whole != NULL && split != NULL);
	a = feed(whole, in.at, in.left, 0);
	b = feed(split, in.at, in.left, seed);
	FUZZ_CHECK(a.result == b.result);
	if (expected.result != 0) {
		FUZZ_CHECK(a.result == expected.result);
	} else {
		FUZZ_CHECK(a.result <= 0);
	}
	if (a.result == 1) {
		FUZZ_CHECK(a.used == expected.used && b.used == expected.used);
		check_reply(whole, in.at);
		check_same(whole, split);
	}
	if (a.result != 0) {
		check_text(whole);
		check_text(split);
	}
	free(split);
	free(whole);
	return 0;
}
