#include "core/mail/dsn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/dot.h"

#define BOUNDARY "=_00000000000100000000000007"
#define TEXT_MAX (2 * 1024 * 1024)

static struct pool buffers;
/* The notification that was written last. */
static char *text;
static size_t text_len;

/* What the message asked for. */
static uint16_t original_flags;
static const char *original_envid;

static int set_up(void **state)
{
	(void)state;
	original_flags = 0;
	original_envid = NULL;
	pool_init(&buffers, "chain buffer", CHAIN_BUFFER_SIZE, 16);
	text = malloc(TEXT_MAX);
	return text != NULL ? 0 : -1;
}

/* No test may leak a buffer. */
static int tear_down(void **state)
{
	(void)state;
	free(text);
	pool_close(&buffers);
	return buffers.live == 0 ? 0 : -1;
}

/* What is true of every notification: wire form, line lengths, and 7 bits unless `utf8`. */
static void assert_well_formed(bool utf8)
{
	struct dot_scanner s;
	bool end;

	dot_scanner_init(&s, 998, false);
	assert_int_equal(dot_scan(&s, (const unsigned char *)text, text_len, &end), text_len);
	assert_false(end);
	assert_int_equal(s.flags & ~(DOT_STUFFED | (utf8 ? (unsigned)DOT_8BIT : 0U)), 0);
	assert_true(s.header_ended);
	assert_true(text_len >= 2 && memcmp(text + text_len - 2, "\r\n", 2) == 0);
	assert_int_equal(strlen(text), text_len);
	assert_non_null(strstr(text, "\r\n--" BOUNDARY "--\r\n"));
}

/* Writes the notification twice, into `text`. */
static uint16_t write_dsn(const char *sender, const char *body, size_t body_len,
			  const struct dsn_recipient *recipients, uint32_t count)
{
	struct envelope_builder b;
	struct chain original = CHAIN_EMPTY;
	struct chain out = CHAIN_EMPTY;
	struct envelope *e;
	struct dsn d = {
		.id = {0x40, 7},
		.time_s = 1751371200,
		.retry_until_s = 1751457600,
		.reporting_mta = "mta1.example.com",
		.mailerdaemon = "mailer-daemon@mta1.example.com",
		.recipients = recipients,
		.recipient_count = count,
	};
	char *again;
	uint16_t flags;

	envelope_builder_init(&b);
	envelope_set_sender(&b, sender, strlen(sender));
	b.flags = original_flags;
	if (original_envid != NULL) {
		envelope_set_envid(&b, original_envid, strlen(original_envid));
	}
	envelope_add_recipient(&b, "to@b.example", 12);
	e = calloc(1, envelope_size(&b));
	assert_non_null(e);
	envelope_build(&b, e);
	e->received_ms = 1751284800123;
	d.original = e;
	if (body != NULL) {
		chain_append(&original, &buffers, body, body_len);
		d.original_body = &original;
	}
	flags = dsn_write(&d, &out, &buffers);
	assert_true(out.len < TEXT_MAX);
	text_len = (size_t)out.len;
	chain_copy_out(&out, 0, text, text_len);
	text[text_len] = '\0';
	chain_release(&out, &buffers);
	assert_int_equal(dsn_write(&d, &out, &buffers), flags);
	again = malloc(text_len);
	assert_non_null(again);
	assert_int_equal(out.len, text_len);
	chain_copy_out(&out, 0, again, text_len);
	assert_memory_equal(again, text, text_len);
	free(again);
	chain_release(&out, &buffers);
	chain_release(&original, &buffers);
	envelope_builder_close(&b);
	free(e);
	assert_well_formed(flags != 0);
	return flags;
}

/* Whether the text is there as lines of its own; `expected` ends in CR LF. */
static void assert_has(const char *expected)
{
	const char *at = strstr(text, expected);

	if (at == NULL) {
		print_message("missing: %s\nin: %s\n", expected, text);
	}
	assert_non_null(at);
	assert_true(at == text || at[-1] == '\n');
}

static const char body_plain[] =
	"Received: x\r\nSubject: Hello\r\n world\r\n..dotted: y\r\n\r\nBody\r\n";

static void test_write_usual_failure(void **state)
{
	static const struct dsn_recipient r = {
		.address = "to@b.example",
		.code = 550,
		.status = "5.1.1",
		.diagnostic = "550 5.1.1 No such user",
		.remote_mta = "mx.b.example",
	};

	(void)state;
	assert_int_equal(write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, &r, 1), 0);
	assert_string_equal(
		text,
		"Date: Tue, 1 Jul 2025 12:00:00 +0000\r\n"
		"From: Mail Delivery System <mailer-daemon@mta1.example.com>\r\n"
		"To: <me@a.example>\r\n"
		"Subject: Undelivered mail: your message could not be delivered\r\n"
		"Message-ID: <00000000000100000000000007@mta1.example.com>\r\n"
		"Auto-Submitted: auto-replied\r\n"
		"MIME-Version: 1.0\r\n"
		"Content-Type: multipart/report; report-type=delivery-status;\r\n"
		"\tboundary=\"" BOUNDARY "\"\r\n"
		"\r\n"
		"This is a delivery status notification in MIME format.\r\n"
		"\r\n"
		"--" BOUNDARY "\r\n"
		"Content-Description: Notification\r\n"
		"Content-Type: text/plain; charset=us-ascii\r\n"
		"\r\n"
		"This is the mail system at mta1.example.com.\r\n"
		"\r\n"
		"Your message, received Mon, 30 Jun 2025 12:00:00 +0000,\r\n"
		"could not be delivered to the recipients below, and no further attempts will\r\n"
		"be made. The header of your message follows, if it is still at hand.\r\n"
		"\r\n"
		"  <to@b.example>\r\n"
		"    mx.b.example said:\r\n"
		"    550 5.1.1 No such user\r\n"
		"\r\n"
		"--" BOUNDARY "\r\n"
		"Content-Description: Delivery report\r\n"
		"Content-Type: message/delivery-status\r\n"
		"\r\n"
		"Reporting-MTA: dns; mta1.example.com\r\n"
		"Arrival-Date: Mon, 30 Jun 2025 12:00:00 +0000\r\n"
		"\r\n"
		"Final-Recipient: rfc822; to@b.example\r\n"
		"Action: failed\r\n"
		"Status: 5.1.1\r\n"
		"Remote-MTA: dns; mx.b.example\r\n"
		"Diagnostic-Code: smtp; 550 5.1.1 No such user\r\n"
		"\r\n"
		"--" BOUNDARY "\r\n"
		"Content-Description: Header of the undelivered message\r\n"
		"Content-Type: text/rfc822-headers\r\n"
		"\r\n"
		"Received: x\r\n"
		"Subject: Hello\r\n"
		" world\r\n"
		"..dotted: y\r\n"
		"\r\n"
		"--" BOUNDARY "--\r\n");
}

static void test_write_without_body_leaves_the_part_out(void **state)
{
	static const struct dsn_recipient r = {
		.address = "to@b.example", .status = "4.4.7", .diagnostic = "Message expired"};

	(void)state;
	write_dsn("me@a.example", NULL, 0, &r, 1);
	assert_null(strstr(text, "rfc822-headers"));
	assert_has("Status: 4.4.7\r\nDiagnostic-Code: x-flywheel; Message expired\r\n");
	assert_has("  <to@b.example>\r\n    Message expired\r\n");
}

static void test_write_recipients_in_order(void **state)
{
	static const struct dsn_recipient r[] = {
		{.address = "a@x", .code = 554, .diagnostic = "no code in the text"},
		{.address = "b@y", .code = 451, .status = "9.9.9", .diagnostic = "451 expired"},
		{.address = "c@z", .status = "5.1.10"},
		{.address = "d@z", .status = "5.1.1000"},
		{.address = "e@z", .status = ""},
	};

	(void)state;
	write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, r, 5);
	assert_has("\r\nFinal-Recipient: rfc822; a@x\r\nAction: failed\r\nStatus: 5.0.0\r\n"
		   "Diagnostic-Code: smtp; 554 no code in the text\r\n"
		   "\r\nFinal-Recipient: rfc822; b@y\r\nAction: failed\r\nStatus: 4.0.0\r\n"
		   "Diagnostic-Code: smtp; 451 expired\r\n"
		   "\r\nFinal-Recipient: rfc822; c@z\r\nAction: failed\r\nStatus: 5.1.10\r\n"
		   "\r\nFinal-Recipient: rfc822; d@z\r\nAction: failed\r\nStatus: 5.0.0\r\n"
		   "\r\nFinal-Recipient: rfc822; e@z\r\nAction: failed\r\nStatus: 5.0.0\r\n");
	assert_has("  <c@z>\r\n    No reason was given.\r\n");
}

static void test_write_what_was_relayed(void **state)
{
	static const struct dsn_recipient r[] = {
		{.address = "a@x",
		 .original = "rfc822;old+2Bname@x",
		 .action = DSN_RELAYED,
		 .code = 250,
		 .diagnostic = "250 taken",
		 .remote_mta = "mx.x"},
		{.address = "b@x", .action = DSN_RELAYED, .status = "5.4.7"},
	};

	(void)state;
	original_envid = "QQ+3D1";
	original_flags = ENVELOPE_RET_FULL;
	write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, r, 2);
	assert_has("Subject: Your message was handed on\r\n");
	assert_has("was taken by the mail systems of the recipients below, which will not tell\r\n"
		   "you when it is delivered.\r\n\r\n  <a@x>\r\n    mx.x said:\r\n    250 taken\r\n"
		   "\r\n  <b@x>\r\n\r\n--");
	assert_null(strstr(text, "could not be delivered"));
	assert_has("Original-Envelope-Id: QQ=1\r\nReporting-MTA: dns; mta1.example.com\r\n");
	assert_has("\r\nOriginal-Recipient: rfc822; old+name@x\r\nFinal-Recipient: rfc822; a@x\r\n"
		   "Action: relayed\r\nStatus: 2.0.0\r\n");
	assert_has("\r\nFinal-Recipient: rfc822; b@x\r\nAction: relayed\r\nStatus: 2.0.0\r\n");
	/* Nothing failed: the header is enough. */
	assert_has("Content-Type: text/rfc822-headers\r\n");
	assert_null(strstr(text, "Body"));
}

static void test_write_what_waits(void **state)
{
	static const struct dsn_recipient r[] = {
		{.address = "a@x", .action = DSN_DELAYED, .code = 451, .status = "4.2.1"},
		{.address = "b@x", .action = DSN_DELAYED, .status = "5.1.1"},
	};

	(void)state;
	original_flags = ENVELOPE_RET_FULL;
	write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, r, 2);
	assert_has("Subject: Delayed mail: your message waits\r\n");
	assert_has("it is tried until Wed, 2 Jul 2025 12:00:00 +0000.\r\n");
	assert_has("Action: delayed\r\nStatus: 4.2.1\r\n"
		   "Will-Retry-Until: Wed, 2 Jul 2025 12:00:00 +0000\r\n");
	assert_has("Final-Recipient: rfc822; b@x\r\nAction: delayed\r\nStatus: 4.0.0\r\n");
	assert_has("Content-Type: text/rfc822-headers\r\n");
}

static void test_write_what_failed_and_what_was_relayed(void **state)
{
	static const struct dsn_recipient r[] = {
		{.address = "a@x", .action = DSN_RELAYED, .status = "2.1.5"},
		{.address = "b@x", .code = 550, .diagnostic = "550 no"},
	};

	(void)state;
	write_dsn("me@a.example", NULL, 0, r, 2);
	assert_has("Subject: Undelivered mail: your message could not be delivered\r\n");
	assert_has("be made. The header of your message follows, if it is still at hand.\r\n"
		   "\r\n  <b@x>\r\n    550 no\r\n\r\nwas taken by");
	assert_has("Action: relayed\r\nStatus: 2.1.5\r\n");
	assert_has("Action: failed\r\nStatus: 5.0.0\r\n");
}

static void test_write_the_whole_message(void **state)
{
	static const struct dsn_recipient r = {.address = "to@b.example"};
	static const char body_8bit[] = "Subject: x\r\n\r\n..\xc3\xa4\r\n";

	(void)state;
	original_flags = ENVELOPE_RET_FULL;
	assert_int_equal(write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, &r, 1), 0);
	assert_has("Content-Description: Undelivered message\r\nContent-Type: message/rfc822\r\n"
		   "\r\nReceived: x\r\nSubject: Hello\r\n world\r\n..dotted: y\r\n\r\nBody\r\n"
		   "\r\n--" BOUNDARY "--\r\n");
	assert_null(strstr(text, "8bit"));
	original_flags = ENVELOPE_RET_FULL | ENVELOPE_8BITMIME;
	assert_int_equal(write_dsn("me@a.example", body_8bit, sizeof(body_8bit) - 1, &r, 1),
			 ENVELOPE_8BITMIME);
	assert_has("\tboundary=\"" BOUNDARY "\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
	assert_has("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
	assert_has("..\xc3\xa4\r\n");
	/* Not when it is not at hand, was not asked for, or has a header in UTF-8. */
	write_dsn("me@a.example", NULL, 0, &r, 1);
	assert_null(strstr(text, "message/rfc822"));
	original_flags = ENVELOPE_RET_HDRS;
	write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, &r, 1);
	assert_null(strstr(text, "message/rfc822"));
	original_flags = ENVELOPE_RET_FULL | ENVELOPE_SMTPUTF8 | ENVELOPE_8BITMIME;
	assert_int_equal(write_dsn("me@a.example", body_8bit, sizeof(body_8bit) - 1, &r, 1), 0);
	assert_null(strstr(text, "message/rfc822"));
}

static void test_write_no_message_that_is_huge(void **state)
{
	static const struct dsn_recipient r = {.address = "to@b.example"};
	static char body[DSN_FULL_MAX + 64];

	(void)state;
	original_flags = ENVELOPE_RET_FULL;
	for (size_t i = 0; i < sizeof(body); i += 64) {
		memset(body + i, 'x', 62);
		memcpy(body + i + 62, "\r\n", 2);
	}
	memcpy(body, "Subject: large\r\n\r\n", 18);
	write_dsn("me@a.example", body, sizeof(body), &r, 1);
	assert_null(strstr(text, "message/rfc822"));
	write_dsn("me@a.example", body, DSN_FULL_MAX, &r, 1);
	assert_has("Content-Type: message/rfc822\r\n\r\nSubject: large\r\n");
}

static void test_write_utf8_in_seven_bits(void **state)
{
	static const struct dsn_recipient r = {
		.address = "j\xc3\xb6+=rg@\xf0\x9f\x98\x80.example",
		.code = 550,
		.status = "5.1.1",
		.diagnostic = "550 5.1.1 Unbekannt: \xc3\xa4 \xff\x01",
	};

	(void)state;
	assert_int_equal(write_dsn("me@a.example", NULL, 0, &r, 1), 0);
	assert_has("Final-Recipient: utf-8; j\\x{F6}\\x{2B}\\x{3D}rg@\\x{1F600}.example\r\n");
	assert_has("Diagnostic-Code: smtp; 550 5.1.1 Unbekannt: \\x{E4} ? \r\n");
	assert_has("Content-Type: text/plain; charset=utf-8\r\n"
		   "Content-Transfer-Encoding: quoted-printable\r\n");
	assert_has("  <j=C3=B6+=3Drg@=F0=9F=98=80.example>\r\n");
	assert_has("    550 5.1.1 Unbekannt: =C3=A4 ?=20\r\n");
}

/* 158 characters of two bytes, which are seven each when they are embedded. */
static void test_write_longest_utf8_address_is_folded(void **state)
{
	struct dsn_recipient r = {.code = 550};
	char address[ADDRESS_MAX + 1];
	const char *field;
	unsigned len = 0;

	(void)state;
	for (unsigned i = 0; i < 158; i++) {
		const char *before = i == 32 ? "@" : i > 32 && (i - 32) % 31 == 0 ? "." : "";

		len += (unsigned)snprintf(address + len, sizeof(address) - len, "%s\xdf\xbf",
					  before);
	}
	assert_int_equal(len, 158 * 2 + 5);
	r.address = address;
	assert_int_equal(write_dsn("me@a.example", body_plain, sizeof(body_plain) - 1, &r, 1), 0);
	field = strstr(text, "Final-Recipient: utf-8; \\x{7FF}\\x{7FF}");
	assert_non_null(field);
	assert_memory_equal(strstr(field, "\r\n"), "\r\n    ", 6);
}

static void test_write_to_utf8_sender_asks_for_smtputf8(void **state)
{
	static const struct dsn_recipient r = {.address = "to@b.example"};

	(void)state;
	assert_int_equal(write_dsn("j\xc3\xb6rg@a.example", NULL, 0, &r, 1),
			 ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8);
	assert_has("To: <j\xc3\xb6rg@a.example>\r\n");
}

static void test_write_long_diagnostics_are_folded(void **state)
{
	char diagnostic[4097];
	struct dsn_recipient r = {.address = "to@b.example", .code = 550, .diagnostic = diagnostic};

	(void)state;
	memset(diagnostic, 'x', sizeof(diagnostic));
	diagnostic[4096] = '\0';
	write_dsn("me@a.example", NULL, 0, &r, 1);
	for (size_t i = 0; i < 4096; i++) {
		diagnostic[i] = i % 10 == 9 ? ' ' : 'y';
	}
	write_dsn("me@a.example", NULL, 0, &r, 1);
	for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
		assert_true(strchr(line, '\n') - line < 120);
	}
	for (size_t i = 0; i + 3 < 4096; i += 3) {
		memcpy(diagnostic + i, "\xe2\x82\xac", 3);
	}
	write_dsn("me@a.example", NULL, 0, &r, 1);
}

static void test_write_lets_no_text_forge_a_field(void **state)
{
	static const struct dsn_recipient r = {
		.address = "\"a\r\nX: 1\"@b",
		.code = 550,
		.status = "5.1.1\r\nX: 2",
		.diagnostic = "550 a\r\nX: 3\r\n\r\n--" BOUNDARY "--\r\n.\r\n",
		.remote_mta = "mx\r\nX: 4",
	};

	(void)state;
	write_dsn("me@a.example", NULL, 0, &r, 1);
	assert_null(strstr(text, "\nX: "));
	assert_has("Final-Recipient: rfc822; \"a  X: 1\"@b\r\nAction: failed\r\nStatus: 5.0.0\r\n"
		   "Remote-MTA: dns; mx  X: 4\r\n");
	assert_ptr_equal(strstr(text, "\r\n--" BOUNDARY "--\r\n"),
			 text + text_len - strlen("\r\n--" BOUNDARY "--\r\n"));
}

/* Undoes quoted-printable and dot-stuffing of the last part; returns the length. */
static size_t decode_last_part(char *to)
{
	const char *p = strstr(text, "Content-Type: text/rfc822-headers");
	const char *end = strstr(text, "\r\n--" BOUNDARY "--\r\n");
	size_t n = 0;

	assert_non_null(p);
	assert_non_null(end);
	p = strstr(p, "\r\n\r\n");
	assert_non_null(p);
	p += 4;
	while (p < end) {
		const char *line_end = strstr(p, "\r\n");

		assert_true(line_end - p <= 77);
		p += *p == '.' ? 1 : 0;
		while (p < line_end && strncmp(p, "=\r\n", 3) != 0) {
			unsigned c = (unsigned char)*p++;

			if (c == '=') {
				assert_int_equal(sscanf(p, "%2X", &c), 1);
				p += 2;
			}
			to[n++] = (char)c;
		}
		if (*p == '=') {
			p += 3;
		} else {
			memcpy(to + n, "\r\n", 2);
			n += 2;
			p += 2;
		}
	}
	return n;
}

/* Random header lines, some starting with dots, some with octets above 127. */
static void test_write_encodes_8bit_headers(void **state)
{
	static const struct dsn_recipient r = {.address = "to@b.example"};
	static const char letters[] = "aB =.\t-?_\xc3\xa4\xff\x01:";
	static char decoded[TEXT_MAX];
	unsigned seed = 9;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		char header[4000] = "Subject: \xc3\xa4 ";
		char wire[9000];
		size_t len = strlen(header);
		size_t wire_len = 0;

		while (len < 3000) {
			seed = seed * 1103515245U + 12345U;
			if (seed >> 16 & 31) {
				header[len++] = letters[(seed >> 22) % (sizeof(letters) - 1)];
			} else if (header[len - 1] != '\n') {
				memcpy(header + len, "\r\n", 2);
				len += 2;
			}
		}
		memcpy(header + len, "x\r\n", 3);
		len += 3;
		for (size_t i = 0; i < len; i++) {
			if (header[i] == '.' && i > 0 && header[i - 1] == '\n') {
				wire[wire_len++] = '.';
			}
			wire[wire_len++] = header[i];
		}
		memcpy(wire + wire_len, "\r\nbody\r\n", 8);
		write_dsn("me@a.example", wire, wire_len + 8, &r, 1);
		assert_has("Content-Type: text/rfc822-headers; charset=utf-8\r\n"
			   "Content-Transfer-Encoding: quoted-printable\r\n");
		assert_int_equal(decode_last_part(decoded), len);
		assert_memory_equal(decoded, header, len);
	}
}

static void test_write_cuts_huge_headers_after_a_line(void **state)
{
	static const struct dsn_recipient r = {.address = "to@b.example"};
	static char body[200000];
	const char *part;
	const char *end;

	(void)state;
	for (size_t i = 0; i < sizeof(body); i += 100) {
		memset(body + i, 'h', 98);
		memcpy(body + i + 98, "\r\n", 2);
	}
	write_dsn("me@a.example", body, sizeof(body), &r, 1);
	part = strstr(text, "text/rfc822-headers\r\n\r\n");
	assert_non_null(part);
	end = strstr(part, "\r\n--" BOUNDARY "--\r\n");
	assert_non_null(end);
	assert_int_equal(end - part - 23, DSN_HEADER_MAX / 100 * 100);
}

static void test_write_copes_with_odd_bodies(void **state)
{
	static const struct dsn_recipient r = {.address = "to@b.example"};
	static const char *const bodies[] = {"", "\r\n", "\r\nbody\r\n", "No end", "A: b\r\n"};
	static char long_line[3000];

	(void)state;
	for (unsigned i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		write_dsn("me@a.example", bodies[i], strlen(bodies[i]), &r, 1);
		assert_has("Content-Type: text/rfc822-headers\r\n");
	}
	memset(long_line, 'l', sizeof(long_line));
	memcpy(long_line + 2996, "\r\n\r\n", 4);
	write_dsn("me@a.example", long_line, sizeof(long_line), &r, 1);
	assert_has("Content-Type: text/rfc822-headers; charset=utf-8\r\n"
		   "Content-Transfer-Encoding: quoted-printable\r\n");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_write_usual_failure),
		TEST(test_write_without_body_leaves_the_part_out),
		TEST(test_write_recipients_in_order),
		TEST(test_write_what_was_relayed),
		TEST(test_write_what_waits),
		TEST(test_write_what_failed_and_what_was_relayed),
		TEST(test_write_the_whole_message),
		TEST(test_write_no_message_that_is_huge),
		TEST(test_write_utf8_in_seven_bits),
		TEST(test_write_longest_utf8_address_is_folded),
		TEST(test_write_to_utf8_sender_asks_for_smtputf8),
		TEST(test_write_long_diagnostics_are_folded),
		TEST(test_write_lets_no_text_forge_a_field),
		TEST(test_write_encodes_8bit_headers),
		TEST(test_write_cuts_huge_headers_after_a_line),
		TEST(test_write_copes_with_odd_bodies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
