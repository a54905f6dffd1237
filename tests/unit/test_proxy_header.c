#include "listeners/smtp/proxy_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* From memory of just its size, so that the sanitizer sees a byte too far. */
static int parse(const void *data, size_t len, struct proxy_header *h)
{
	unsigned char *copy = malloc(len + (len == 0));
	int rc;

	assert_non_null(copy);
	if (len > 0) {
		memcpy(copy, data, len);
	}
	rc = proxy_header_parse(copy, len, h);
	free(copy);
	return rc;
}

static void assert_client(const struct proxy_header *h, const char *address, unsigned port)
{
	char text[INET6_ADDRSTRLEN];

	assert_true(h->has_client);
	inet_ntop(AF_INET6, &h->client, text, sizeof(text));
	assert_string_equal(text, address);
	assert_int_equal(h->client_port, port);
}

/* Good ones need every byte, and nothing of what follows. */
static void expect_good(const void *data, size_t len, const char *address, unsigned port)
{
	unsigned char more[2048];
	struct proxy_header h;

	for (size_t n = 0; n < len; n++) {
		assert_int_equal(parse(data, n, &h), 0);
	}
	memcpy(more, data, len);
	memset(more + len, 'E', sizeof(more) - len);
	for (size_t n = len; n <= sizeof(more); n += n == len ? 1 : 97) {
		assert_int_equal(parse(more, n, &h), len);
		if (address != NULL) {
			assert_client(&h, address, port);
		} else {
			assert_false(h.has_client);
		}
	}
}

#define GOOD(text, address, port) expect_good(text, sizeof(text) - 1, address, port)

static void test_version_1(void **state)
{
	(void)state;
	GOOD("PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n", "::ffff:192.0.2.7", 56324);
	GOOD("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "::ffff:0.0.0.0", 0);
	GOOD("PROXY TCP6 2001:db8::7 ::1 65535 1\r\n", "2001:db8::7", 65535);
	GOOD("PROXY UNKNOWN\r\n", NULL, 0);
	GOOD("PROXY UNKNOWN what ever is said here\r\n", NULL, 0);
	/* The longest. */
	GOOD("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
	     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
	     NULL, 0);
}

#define BAD(text) assert_int_equal(parse(text, sizeof(text) - 1, &h), -EPROTO)

static void test_version_1_when_bad(void **state)
{
	char line[200];
	struct proxy_header h;

	(void)state;
	BAD("EHLO client.example\r\n");
	BAD("PROXX");
	BAD("proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n");
	BAD("PROXY \r\n");
	BAD("PROXY TCP4\r\n");
	BAD("PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n");
	BAD("PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 99999999999 2\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n");
	BAD("PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n");
	BAD("PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n");
	BAD("PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n");
	BAD("PROXY TCP4 2001:db8::7 ::1 1 2\r\n");
	BAD("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n");
	BAD("PROXY TCP6 2001:db8::7::1 ::1 1 2\r\n");
	BAD("PROXY TCP4 192.0.2.7\0 198.51.100.1 1 2\r\n");
	/* 107 bytes without an end. */
	memset(line, 'x', sizeof(line));
	memcpy(line, "PROXY UNKNOWN ", 14);
	assert_int_equal(parse(line, 106, &h), 0);
	assert_int_equal(parse(line, 107, &h), -EPROTO);
	memcpy(line + 106, "\r\n", 2);
	assert_int_equal(parse(line, sizeof(line), &h), -EPROTO);
}

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x00\x19"
#define V6                                                                                         \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"                                               \
	"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"                                                         \
	"\xdc\x04\x00\x19"

static void test_version_2(void **state)
{
	(void)state;
	GOOD(SIGNATURE "\x21\x11\0\x0c" V4, "::ffff:192.0.2.7", 56324);
	GOOD(SIGNATURE "\x21\x21\0\x24" V6, "2001:db8::7", 56324);
	/* With more behind the addresses. */
	GOOD(SIGNATURE "\x21\x11\0\x10" V4 "\x04\0\1x", "::ffff:192.0.2.7", 56324);
	/* A health check; it says nothing, or what does not matter. */
	GOOD(SIGNATURE "\x20\0\0\0", NULL, 0);
	GOOD(SIGNATURE "\x20\x11\0\x0c" V4, NULL, 0);
	/* Unspecified. */
	GOOD(SIGNATURE "\x21\0\0\0", NULL, 0);
	GOOD(SIGNATURE "\x21\0\0\3abc", NULL, 0);
}

static void test_version_2_when_bad(void **state)
{
	unsigned char large[PROXY_HEADER_MAX + 16] = SIGNATURE "\x21\x11";
	struct proxy_header h;

	(void)state;
	BAD("\r\n\r\n\0\r\nQUIX");
	BAD(SIGNATURE "\x11\x11\0\x0c" V4);
	BAD(SIGNATURE "\x22\x11\0\x0c" V4);
	BAD(SIGNATURE "\x31\x11\0\x0c" V4);
	/* UDP, Unix sockets, and families that there are none of. */
	BAD(SIGNATURE "\x21\x12\0\x0c" V4);
	BAD(SIGNATURE "\x21\x31\0\x0c" V4);
	BAD(SIGNATURE "\x21\x41\0\x0c" V4);
	BAD(SIGNATURE "\x21\x01\0\x0c" V4);
	/* Too short for its family. */
	BAD(SIGNATURE "\x21\x11\0\x0b" V4);
	BAD(SIGNATURE "\x21\x11\0\0");
	BAD(SIGNATURE "\x21\x21\0\x0c" V4);
	BAD(SIGNATURE "\x21\x11\xff\xff");
	/* The longest, and one byte more. */
	large[14] = (PROXY_HEADER_MAX - 16) >> 8;
	large[15] = (PROXY_HEADER_MAX - 16) & 255;
	assert_int_equal(parse(large, sizeof(large), &h), PROXY_HEADER_MAX);
	large[15]++;
	assert_int_equal(parse(large, sizeof(large), &h), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version_1),
		cmocka_unit_test(test_version_1_when_bad),
		cmocka_unit_test(test_version_2),
		cmocka_unit_test(test_version_2_when_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
