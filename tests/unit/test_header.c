#include "core/mail/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct message_id id = {0x0198c0ffee000001, 0x0200000000000003};
static const uint8_t ipv4[16] = {[10] = 255, [11] = 255, [12] = 192, [14] = 2, [15] = 1};
static const uint8_t ipv6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};

static struct header_received received(void)
{
	return (struct header_received){
		.helo = "client.example",
		.peer_ip = ipv4,
		.hostname = "mta1.example.com",
		.id = &id,
		.time_s = 1751371200,
		.protocol = ENVELOPE_ESMTP,
	};
}

/* One field: lines below 78 columns but for words that are longer, each but the first with a TAB.
 */
static void assert_well_formed(const char *text, size_t len)
{
	const char *line = text;

	assert_int_equal(strlen(text), len);
	assert_true(len < HEADER_RECEIVED_MAX);
	while (*line != '\0') {
		const char *end = strstr(line, "\r\n");

		assert_non_null(end);
		assert_true(line == text || line[0] == '\t');
		/* Only a line of one word may be longer; a TAB counts for 8. */
		if (end - line + (line == text ? 0 : 7) >= 78) {
			assert_null(memchr(line, ' ', (size_t)(end - line)));
		}
		line = end + 2;
	}
	assert_string_equal(text + len - 2, "\r\n");
}

static void test_received_of_a_usual_session(void **state)
{
	char text[HEADER_RECEIVED_MAX];
	struct header_received r = received();
	char expected[300];
	char id_text[MESSAGE_ID_TEXT];
	size_t len = header_received_format(&r, text);

	(void)state;
	message_id_format(&id, id_text);
	snprintf(expected, sizeof(expected),
		 "Received: from client.example ([192.0.2.1]) by mta1.example.com with ESMTP\r\n"
		 "\tid %s; Tue, 1 Jul 2025 12:00:00 +0000\r\n",
		 id_text);
	assert_string_equal(text, expected);
	assert_well_formed(text, len);
}

static void test_received_names_the_protocol(void **state)
{
	static const struct {
		enum envelope_protocol protocol;
		bool smtputf8;
		bool tls;
		const char *with;
	} cases[] = {
		{ENVELOPE_SMTP, false, false, " with SMTP\r"},
		{ENVELOPE_ESMTP, false, false, " with ESMTP\r"},
		{ENVELOPE_ESMTP, false, true, " with ESMTPS\r"},
		{ENVELOPE_ESMTP, true, false, " with UTF8SMTP\r"},
		{ENVELOPE_ESMTP, true, true, "with UTF8SMTPS "},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[HEADER_RECEIVED_MAX];
		struct header_received r = received();

		r.protocol = cases[i].protocol;
		r.smtputf8 = cases[i].smtputf8;
		r.tls = cases[i].tls;
		assert_well_formed(text, header_received_format(&r, text));
		assert_non_null(strstr(text, cases[i].with));
	}
}

static void test_received_names_version_and_cipher(void **state)
{
	char text[HEADER_RECEIVED_MAX];
	struct header_received r = received();

	(void)state;
	r.tls_version = "TLSv1.3";
	r.tls_cipher = "TLS_AES_256_GCM_SHA384";
	assert_well_formed(text, header_received_format(&r, text));
	assert_null(strstr(text, "TLSv1.3"));
	r.tls = true;
	assert_well_formed(text, header_received_format(&r, text));
	assert_non_null(strstr(text, "with ESMTPS\r\n\t(TLSv1.3 TLS_AES_256_GCM_SHA384) id "));
}

static void test_received_writes_ipv6_and_no_address(void **state)
{
	char text[HEADER_RECEIVED_MAX];
	struct header_received r = received();

	(void)state;
	r.peer_ip = ipv6;
	assert_well_formed(text, header_received_format(&r, text));
	assert_non_null(strstr(text, "from client.example ([IPv6:2001:db8::1])"));
	r.peer_ip = NULL;
	assert_well_formed(text, header_received_format(&r, text));
	assert_non_null(strstr(text, "from client.example by"));
}

static void test_received_lets_no_helo_forge_it(void **state)
{
	char text[HEADER_RECEIVED_MAX];
	struct header_received r = received();

	(void)state;
	r.helo = "a b\r\nX-Evil: (yes); \"\\\t\x80<>,";
	assert_well_formed(text, header_received_format(&r, text));
	assert_non_null(strstr(text, "from a?b??X-Evil:??yes?????????? ([192.0.2.1])"));
	r.helo = "";
	assert_well_formed(text, header_received_format(&r, text));
	assert_non_null(strstr(text, "from unknown ([192.0.2.1])"));
	r.helo = "[IPv6:2001:db8::1]";
	assert_well_formed(text, header_received_format(&r, text));
	assert_non_null(strstr(text, "from [IPv6:2001:db8::1] ([192.0.2.1])"));
}

static void test_received_folds_names_of_any_length(void **state)
{
	char name[400];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[399] = '\0';
	for (size_t helo = 0; helo < 400; helo += 3) {
		for (size_t host = 1; host < 400; host += 7) {
			char text[HEADER_RECEIVED_MAX];
			struct header_received r = received();

			r.helo = name + 399 - helo;
			r.hostname = name + 399 - host;
			assert_well_formed(text, header_received_format(&r, text));
			assert_int_equal(strncmp(text, "Received:", 9), 0);
			assert_non_null(strstr(text, "; Tue, 1 Jul 2025") != NULL
						? strstr(text, "; Tue, 1 Jul 2025")
						: strstr(text, ";\r\n\tTue, 1 Jul 2025"));
		}
	}
}

static void test_date_of_known_times(void **state)
{
	static const struct {
		uint64_t time_s;
		const char *text;
	} cases[] = {
		{0, "Thu, 1 Jan 1970 00:00:00 +0000"},
		{951782399, "Mon, 28 Feb 2000 23:59:59 +0000"},
		{951782400, "Tue, 29 Feb 2000 00:00:00 +0000"},
		{4107542400, "Mon, 1 Mar 2100 00:00:00 +0000"},
		{253402300799, "Fri, 31 Dec 9999 23:59:59 +0000"},
	};
	char text[HEADER_DATE_MAX];

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(header_date_format(cases[i].time_s, text), strlen(cases[i].text));
		assert_string_equal(text, cases[i].text);
	}
}

/* Each day from 1970 to 2470, and one second more a day, against the C library. */
static void test_date_matches_gmtime(void **state)
{
	(void)state;
	for (uint64_t day = 0; day < 182621; day++) {
		time_t t = (time_t)(day * 86400 + day % 86400);
		char expected[64];
		char text[HEADER_DATE_MAX];
		struct tm tm;

		assert_non_null(gmtime_r(&t, &tm));
		assert_true(strftime(expected, sizeof(expected), "%a, %-d %b %Y %H:%M:%S +0000",
				     &tm) > 0);
		header_date_format((uint64_t)t, text);
		assert_string_equal(text, expected);
	}
}

static struct pool buffers;

static int set_up(void **state)
{
	(void)state;
	pool_init(&buffers, "chain buffer", CHAIN_BUFFER_SIZE, 16);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pool_close(&buffers);
	return buffers.live == 0 ? 0 : -1;
}

static int find(const char *message, const char *name, char *value, size_t size)
{
	struct chain c = CHAIN_EMPTY;
	int result;

	chain_append(&c, &buffers, message, strlen(message));
	result = header_find(&c, name, value, size);
	chain_release(&c, &buffers);
	return result;
}

static void assert_found(const char *message, const char *name, const char *expected)
{
	char value[200];

	assert_int_equal(find(message, name, value, sizeof(value)), strlen(expected));
	assert_string_equal(value, expected);
}

static void test_find_fields(void **state)
{
	static const char message[] =
		"Received: x\r\n\tSubject: no\r\nsubJECT:  Hello\r\n  world \t\r\n"
		"Message-ID:\r\n <1@x>\r\nEmpty:\r\nOld : style\r\nSubject: two\r\n"
		"Tab: a\tb\x01\r\n\r\nX-Body: no\r\n";
	char value[200];

	(void)state;
	assert_found(message, "Subject", "Hello  world");
	assert_found(message, "message-id", "<1@x>");
	assert_found(message, "Empty", "");
	assert_found(message, "Old", "style");
	assert_found(message, "Tab", "a b");
	assert_int_equal(find(message, "X-Body", value, sizeof(value)), -ENOENT);
	assert_string_equal(value, "");
	assert_int_equal(find(message, "Sub", value, sizeof(value)), -ENOENT);
	assert_int_equal(find("", "Subject", value, sizeof(value)), -ENOENT);
	assert_int_equal(find("\r\nSubject: x\r\n", "Subject", value, sizeof(value)), -ENOENT);
	assert_found("Subject: unfinished", "Subject", "unfinished");
}

static void test_find_cuts_to_the_room_there_is(void **state)
{
	char value[6];

	(void)state;
	assert_int_equal(find("Subject: abcdefgh\r\n", "Subject", value, 6), 5);
	assert_string_equal(value, "abcde");
	assert_int_equal(find("Subject: abcdefgh\r\n", "Subject", value, 1), 0);
	assert_string_equal(value, "");
}

static void test_find_looks_at_the_first_bytes_only(void **state)
{
	struct chain c = CHAIN_EMPTY;
	char value[32];

	(void)state;
	for (unsigned i = 0; c.len + 14 < HEADER_SEARCH_MAX; i++) {
		chain_printf(&c, &buffers, "X-%04u: y\r\n", i);
	}
	chain_printf(&c, &buffers, "In: 1\r\n");
	chain_printf(&c, &buffers, "Across: 123456789\r\nOut: 1\r\n");
	assert_int_equal(header_find(&c, "In", value, sizeof(value)), 1);
	assert_true(header_find(&c, "Across", value, sizeof(value)) < 9);
	assert_int_equal(header_find(&c, "Out", value, sizeof(value)), -ENOENT);
	chain_release(&c, &buffers);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_received_of_a_usual_session),
		TEST(test_received_names_the_protocol),
		TEST(test_received_names_version_and_cipher),
		TEST(test_received_writes_ipv6_and_no_address),
		TEST(test_received_lets_no_helo_forge_it),
		TEST(test_received_folds_names_of_any_length),
		TEST(test_date_of_known_times),
		TEST(test_date_matches_gmtime),
		TEST(test_find_fields),
		TEST(test_find_cuts_to_the_room_there_is),
		TEST(test_find_looks_at_the_first_bytes_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
