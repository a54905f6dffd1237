/*
 * The MIME walker: which parts there are, however they are bounded, nested or cut off; decoding;
 * parameters; and that limits hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mail/mime.h"

/* "depth:type:body|" of each part; CR and LF of bodies are left out. */
struct outline {
	char text[4096];
	unsigned parts;
	unsigned stop_at;
};

static bool on_part(void *context, const struct mime_part *part)
{
	struct outline *o = context;
	char body[256];
	size_t n = strlen(o->text);

	o->parts++;
	n += (size_t)snprintf(o->text + n, sizeof(o->text) - n, "%u:%s:", part->depth, part->type);
	if (strncmp(part->type, "multipart/", 10) != 0) {
		mime_decode(part, body, sizeof(body));
		for (char *c = body; *c != '\0' && n < sizeof(o->text) - 2; c++) {
			if (*c != '\r' && *c != '\n') {
				o->text[n++] = *c;
			}
		}
	}
	o->text[n++] = '|';
	o->text[n] = '\0';
	return o->parts != o->stop_at;
}

static void assert_outline(const char *text, const char *expected)
{
	struct outline o = {.parts = 0};

	mime_walk(text, strlen(text), on_part, &o);
	assert_string_equal(o.text, expected);
}

static void test_walk_finds_parts(void **state)
{
	(void)state;
	assert_outline("Subject: x\r\n\r\nhello\r\n", "0:text/plain:hello|");
	assert_outline("", "0:text/plain:|");
	assert_outline("Subject: only a header", "0:text/plain:|");
	assert_outline("\r\nno header", "0:text/plain:no header|");
	assert_outline("CONTENT-TYPE: Text/HTML; charset=x\n\n<b>", "0:text/html:<b>|");
	assert_outline("Content-Type: multipart/mixed;\r\n\tboundary=\"a b\"\r\n\r\npreamble\r\n"
		       "--a b\r\n\r\none\r\n--a b  \r\nContent-Type: message/rfc822\r\n\r\n"
		       "Subject: two\r\n--a b--\r\nepilogue\r\n--a b\r\n\r\nno more\r\n",
		       "0:multipart/mixed:|1:text/plain:one|1:message/rfc822:Subject: two|");
	/* One boundary begins with the other. */
	assert_outline("Content-Type: multipart/mixed; boundary=a\r\n\r\n"
		       "--a\r\nContent-Type: multipart/report; boundary=ab\r\n\r\n"
		       "--ab\r\n\r\nin\r\n--ab--\r\n--a\r\n\r\nout\r\n--a--\r\n",
		       "0:multipart/mixed:|1:multipart/report:|2:text/plain:in|1:text/plain:out|");
	/* Cut off, or never there. */
	assert_outline("Content-Type: multipart/mixed; boundary=a\n\n--a\n\nrest",
		       "0:multipart/mixed:|1:text/"
		       "plain:rest|");
	assert_outline("Content-Type: multipart/mixed; boundary=a\n\nnothing\n",
		       "0:multipart/mixed:|");
	assert_outline("Content-Type: multipart/mixed\n\n--\n\nno boundary\n",
		       "0:multipart/mixed:|");
	assert_outline("Content-Type: multipart/mixed; boundary=a\n\n--a\n--a--\n",
		       "0:multipart/mixed:|1:text/plain:|");
}

static void test_walk_ends_when_told(void **state)
{
	static const char text[] =
		"Content-Type: multipart/mixed; boundary=a\n\n--a\n\n1\n--a\n\n2\n--a--\n";
	struct outline o = {.stop_at = 2};

	(void)state;
	mime_walk(text, sizeof(text) - 1, on_part, &o);
	assert_int_equal(o.parts, 2);
}

static void test_walk_has_limits(void **state)
{
	struct outline o = {.parts = 0};
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	/* Each in the one before. */
	for (unsigned i = 0; i < 1000; i++) {
		fprintf(f, "Content-Type: multipart/mixed; boundary=b%u\n\n--b%u\n", i, i);
	}
	fflush(f);
	mime_walk(text, len, on_part, &o);
	assert_int_equal(o.parts, MIME_DEPTH_MAX + 1);
	rewind(f);
	fputs("Content-Type: multipart/mixed; boundary=b\n\n", f);
	for (unsigned i = 0; i < 1000; i++) {
		fputs("--b\n\nx\n", f);
	}
	fclose(f);
	o = (struct outline){.parts = 0};
	mime_walk(text, len, on_part, &o);
	assert_int_equal(o.parts, MIME_PARTS_MAX);
	free(text);
}

static void test_decode(void **state)
{
	static const struct {
		enum mime_encoding encoding;
		const char *body;
		const char *expected;
	} table[] = {
		{MIME_PLAIN, "a=20b", "a=20b"},
		{MIME_BASE64, "aGVs\r\nbG8=", "hello"},
		{MIME_BASE64, "aGVsbA==aGVsbA==", "hell"},
		{MIME_BASE64, "a!G*Vs", "hel"},
		{MIME_BASE64, "a", ""},
		{MIME_BASE64, "", ""},
		{MIME_QUOTED_PRINTABLE, "a=20b=3D=c3=A4", "a b=\xc3\xa4"},
		{MIME_QUOTED_PRINTABLE, "soft=\r\n line=\nend", "soft lineend"},
		{MIME_QUOTED_PRINTABLE, "bad=zz=4", "bad=zz=4"},
		{MIME_QUOTED_PRINTABLE, "=", "="},
	};
	char to[64];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct mime_part part = {.body = table[i].body,
					 .body_len = strlen(table[i].body),
					 .encoding = table[i].encoding};

		assert_int_equal(mime_decode(&part, to, sizeof(to)), strlen(table[i].expected));
		assert_string_equal(to, table[i].expected);
		/* Cut, but never beyond its room. */
		for (size_t size = 1; size < 8; size++) {
			assert_true(mime_decode(&part, to, size) < size);
			assert_true(strlen(to) < size);
		}
	}
}

static void test_parameter(void **state)
{
	static const struct {
		const char *value;
		const char *expected;
	} table[] = {
		{"multipart/report; boundary=abc", "abc"},
		{"multipart/report; BOUNDARY = \"a;b\\\"c\"; x=y", "a;b\"c"},
		{"multipart/report; xboundary=no; boundary=yes; boundary=late", "yes"},
		{"multipart/report;boundary=abc;x", "abc"},
		{"multipart/report; boundary=\"open", "open"},
		{"multipart/report; boundary", NULL},
		{"multipart/report; boundary-x=1", NULL},
		{"multipart/report", NULL},
		{"", NULL},
	};
	char to[16];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		bool found = mime_parameter(table[i].value, "boundary", to, sizeof(to));

		assert_int_equal(found, table[i].expected != NULL);
		assert_string_equal(to, found ? table[i].expected : "");
	}
	assert_true(mime_parameter("a; boundary=0123456789abcdef", "boundary", to, sizeof(to)));
	assert_string_equal(to, "0123456789abcde");
}

static void test_unstuff(void **state)
{
	static const char wire[] = "..a\r\n.b.\r\n...\r\nc\n.d\r\n";
	struct chain c = CHAIN_EMPTY;
	struct pool buffers;
	size_t len;
	char *text;

	(void)state;
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	chain_append(&c, &buffers, wire, sizeof(wire) - 1);
	text = mime_unstuff(&c, 1000, &len);
	assert_string_equal(text, ".a\r\nb.\r\n..\r\nc\n.d\r\n");
	assert_int_equal(len, strlen(text));
	free(text);
	text = mime_unstuff(&c, 6, &len);
	assert_string_equal(text, ".a\r\n");
	free(text);
	chain_release(&c, &buffers);
	pool_close(&buffers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_finds_parts), cmocka_unit_test(test_walk_ends_when_told),
		cmocka_unit_test(test_walk_has_limits),  cmocka_unit_test(test_decode),
		cmocka_unit_test(test_parameter),        cmocka_unit_test(test_unstuff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
