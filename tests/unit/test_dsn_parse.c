/*
 * What comes back as mail, in the shapes that mail systems write it: who failed, with which code,
 * status and words. All names are of example domains.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mail/bounce_class.h"
#include "core/mail/dsn.h"
#include "core/mail/dsn_parse.h"

static struct report report;

/* `text` has LF; on its way it is CR LF and stuffed. */
static void parse(const char *text)
{
	struct chain c = CHAIN_EMPTY;
	struct pool buffers;

	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '.' && (p == text || p[-1] == '\n')) {
			chain_append(&c, &buffers, ".", 1);
		}
		chain_append(&c, &buffers, *p == '\n' ? "\r\n" : p, *p == '\n' ? 2 : 1);
	}
	memset(&report, 0xee, sizeof(report));
	dsn_parse(&c, &report);
	chain_release(&c, &buffers);
	pool_close(&buffers);
}

/* The class by the built-in rules. */
static unsigned class_of(const struct report_recipient *x)
{
	struct bounce_reason reason = {SMTP_STAGE_OUT_OF_BAND, x->code, x->status, x->text};
	struct bounce_rules *rules = bounce_rules_load(NULL, stderr);
	struct bounce_classifier c;
	unsigned found;

	bounce_classifier_init(&c, rules);
	found = bounce_classify(&c, &reason, NULL);
	bounce_classifier_close(&c);
	bounce_rules_free(rules);
	return found;
}

static const char dsn_head[] =
	"From: MAILER-DAEMON@mx.example.net (Mail Delivery System)\n"
	"Subject: Undelivered Mail Returned to Sender\n"
	"Auto-Submitted: auto-replied\n"
	"Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"B/x=y\"\n\n"
	"This is a MIME-encapsulated message.\n\n--B/x=y\nContent-Type: text/plain\n\n"
	"I'm sorry to have to inform you. <wrong@example.org>: not this one\n\n"
	"--B/x=y\nContent-Type: message/delivery-status\n\n"
	"Reporting-MTA: dns; mx.example.net\nArrival-Date: Tue, 1 Jul 2025 12:00:00 +0000\n\n";
static const char dsn_tail[] = "\n--B/x=y\nContent-Type: message/rfc822\n\nSubject: mine\n"
			       "X-Failed-Recipients: no@example.org\n\nbody\n--B/x=y--\n";

static void parse_groups(const char *groups)
{
	char *text;

	assert_true(asprintf(&text, "%s%s%s", dsn_head, groups, dsn_tail) > 0);
	parse(text);
	free(text);
}

static void assert_recipient(unsigned i, enum report_action action, const char *address,
			     unsigned code, const char *status, const char *text)
{
	const struct report_recipient *x = &report.recipients[i];

	assert_true(i < report.recipient_count);
	assert_string_equal(x->address, address);
	assert_int_equal(x->action, action);
	assert_int_equal(x->code, code);
	assert_string_equal(x->status, status);
	assert_string_equal(x->text, text);
}

static void test_parse_when_it_is_a_delivery_status_notification(void **state)
{
	(void)state;
	parse_groups(
		"Final-Recipient: rfc822; to@example.org\n"
		"Original-Recipient: rfc822;To.Alias@example.org\n"
		"Action: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.example.org\n"
		"Diagnostic-Code: smtp; 550 5.1.1 <to@example.org>: Recipient address\n"
		"    rejected: User unknown\n\n"
		"final-recipient: RFC822;<two@example.org>\nAction: Delayed\nStatus: 4.4.1\n"
		"Diagnostic-Code: X-Postfix; connect to mx.example.org: Connection timed out\n\n"
		"Final-Recipient: rfc822; three@example.org\nAction: relayed\nStatus: 2.0.0\n");
	assert_int_equal(report.kind, REPORT_BOUNCE);
	assert_int_equal(report.recipient_count, 3);
	assert_recipient(0, REPORT_FAILED, "To.Alias@example.org", 550, "5.1.1",
			 "550 5.1.1 <to@example.org>: Recipient address rejected: User unknown");
	assert_string_equal(report.recipients[0].remote_mta, "mx.example.org");
	assert_int_equal(class_of(&report.recipients[0]), 10);
	assert_recipient(1, REPORT_DELAYED, "two@example.org", 0, "4.4.1",
			 "connect to mx.example.org: Connection timed out");
	assert_int_equal(class_of(&report.recipients[1]), 24);
	assert_int_equal(report.recipients[2].action, REPORT_DONE);
	assert_string_equal(report.from, "MAILER-DAEMON@mx.example.net");
}

static void test_parse_when_fields_are_missing(void **state)
{
	(void)state;
	/* What is written for people stands in for what the server said. */
	parse_groups("Final-Recipient: rfc822; to@example.org\nStatus: 5.2.2 (full)\n");
	assert_recipient(0, REPORT_FAILED, "to@example.org", 0, "5.2.2",
			 "I'm sorry to have to inform you. <wrong@example.org>: not this one");
	parse_groups("Final-Recipient: rfc822; to@example.org\n"
		     "Diagnostic-Code: 552 5.2.2 mailbox full\n");
	assert_recipient(0, REPORT_FAILED, "to@example.org", 552, "5.2.2",
			 "552 5.2.2 mailbox full");
	/* An address is no status, a number is no code. */
	parse_groups(
		"Final-Recipient: rfc822; to@example.org\n"
		"Diagnostic-Code: smtp; host 5.6.7.8 (4.1.20250701) said 5501: 552-5.2.2 full\n");
	assert_recipient(0, REPORT_FAILED, "to@example.org", 552, "5.2.2",
			 "host 5.6.7.8 (4.1.20250701) said 5501: 552-5.2.2 full");
	parse_groups("Final-Recipient: x400; /C=X/\nStatus: 5.0.0\nDiagnostic-Code: smtp; no\n");
	assert_recipient(0, REPORT_FAILED, "", 0, "5.0.0", "no");
	/* Without any recipient in it, the words must do. */
	parse_groups("");
	assert_int_equal(report.kind, REPORT_BOUNCE);
	assert_recipient(0, REPORT_FAILED, "wrong@example.org", 0, "", "not this one");
}

static void test_parse_when_parts_are_encoded_and_nested(void **state)
{
	(void)state;
	parse("From: x@example.net\nContent-Type: multipart/mixed; boundary=o\n\n--o\n"
	      "Content-Type: multipart/report; boundary=i\n\n--i\nContent-Type: text/plain\n\nsorry\n"
	      "--i\nContent-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n"
	      /* Reporting-MTA: dns;a\n\nFinal-Recipient: rfc822;to@example.org\nAction: failed\n
		 Status: 5.1.1\n */
	      "UmVwb3J0aW5nLU1UQTogZG5zO2EKCkZpbmFsLVJlY2lwaWVudDogcmZjODIyO3RvQGV4YW1wbGUu\n"
	      "b3JnCkFjdGlvbjogZmFpbGVkClN0YXR1czogNS4xLjEK\n--i--\n--o--\n");
	assert_int_equal(report.kind, REPORT_BOUNCE);
	assert_recipient(0, REPORT_FAILED, "to@example.org", 0, "5.1.1", "sorry");
	parse("Content-Type: multipart/report; boundary=i\n\n--i\n"
	      "Content-Type: message/delivery-status\nContent-Transfer-Encoding: Quoted-Printable\n\n"
	      "Final-Recipient: rfc822;=\nto=40example.org\nStatus: 4=2E2.2\nDiagnostic-Code: smtp; a=\nb\n");
	assert_recipient(0, REPORT_FAILED, "to@example.org", 0, "4.2.2", "ab");
}

/* The first one tells of our message, the others are somebody's story. */
static void test_parse_when_there_are_several_notifications(void **state)
{
	(void)state;
	parse("Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/delivery-status\n\n"
	      "Final-Recipient: rfc822;to@example.org\nStatus: 5.1.1\nDiagnostic-Code: smtp; no\n\n--o\n"
	      "Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822;x@example.org\n--o--\n");
	assert_int_equal(report.recipient_count, 1);
	assert_recipient(0, REPORT_FAILED, "to@example.org", 0, "5.1.1", "no");
}

/* What this program sends is what it understands. */
static void test_parse_when_it_was_written_by_dsn_write(void **state)
{
	struct envelope_builder b;
	struct envelope *e;
	struct dsn_recipient recipient = {.address = "to@example.org",
					  .code = 552,
					  .status = "5.2.2",
					  .diagnostic = "552 5.2.2 over quota",
					  .remote_mta = "mx.example.org"};
	struct chain c = CHAIN_EMPTY;
	struct pool buffers;

	(void)state;
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	envelope_builder_init(&b);
	envelope_set_sender(&b, "from@example.com", 16);
	envelope_add_recipient(&b, "to@example.org", 14);
	e = calloc(1, envelope_size(&b));
	envelope_build(&b, e);
	dsn_write(&(struct dsn){.id = {1, 2},
				.time_s = 1750000000,
				.reporting_mta = "mta.example.com",
				.mailerdaemon = "mailer-daemon@mta.example.com",
				.original = e,
				.recipients = &recipient,
				.recipient_count = 1},
		  &c, &buffers);
	dsn_parse(&c, &report);
	assert_int_equal(report.kind, REPORT_BOUNCE);
	assert_int_equal(report.recipient_count, 1);
	assert_recipient(0, REPORT_FAILED, "to@example.org", 552, "5.2.2", "552 5.2.2 over quota");
	assert_string_equal(report.recipients[0].remote_mta, "mx.example.org");
	chain_release(&c, &buffers);
	envelope_builder_close(&b);
	free(e);
	pool_close(&buffers);
}

/* Bounces for people: text, first recipient, its code, status and class; how many there are. */
static const struct {
	const char *text;
	const char *address;
	unsigned code;
	const char *status;
	unsigned found_class;
	unsigned count;
} words[] = {
	{"From: MAILER-DAEMON@mx.example.net\nSubject: failure notice\n\n"
	 "Hi. This is the qmail-send program at mx.example.net.\n"
	 "I'm afraid I wasn't able to deliver your message to the following addresses.\n"
	 "This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
	 "<to@example.org>:\n192.0.2.9 does not like recipient.\n"
	 "Remote host said: 550 5.1.1 User unknown\nGiving up on 192.0.2.9.\n\n"
	 "<full@example.org>:\nSorry, that mailbox is over quota. (#5.2.2)\n\n"
	 "--- Below this line is a copy of the message.\n\nFrom: me@example.com\n\n<no@example.org>:\nx\n",
	 "to@example.org", 550, "5.1.1", 10, 2},
	{"From: Mail Delivery System <Mailer-Daemon@mx.example.net>\nAuto-Submitted: auto-replied\n"
	 "X-Failed-Recipients: to@example.org,\n  b@example.org\nSubject: Mail delivery failed\n\n"
	 "This message was created automatically by mail delivery software.\n\n"
	 "A message that you sent could not be delivered to one or more of its\nrecipients.\n\n"
	 "  to@example.org\n    host mx.example.org [192.0.2.9]\n    SMTP error from remote mail server "
	 "after RCPT TO:<to@example.org>:\n    550 relay not permitted\n\n"
	 "  b@example.org\n    mailbox is full: retry timeout exceeded\n\n"
	 "------ This is a copy of your message, including all the headers. ------\n\nTo: c@example.org\n",
	 "to@example.org", 550, "", 54, 2},
	{"From: MAILER-DAEMON@example.net\nSubject: Undelivered Mail Returned to Sender\n\n"
	 "This is the mail system at host mx.example.net.\n\n"
	 "<to@example.org>: host mx.example.org[192.0.2.9] said: 554 5.7.1 see\n"
	 "    zen.spamhaus.org (in reply to RCPT TO command)\n",
	 "to@example.org", 554, "5.7.1", 50, 1},
	{"From: postmaster@example.net\nSubject: Undeliverable: hello\n\n"
	 "Delivery has failed to these recipients or groups:\n\nTo Somebody (to@example.org)\n"
	 "The e-mail address you entered couldn't be found.\n\n"
	 "Diagnostic information for administrators:\n\nGenerating server: mx.example.net\n\n"
	 "to@example.org\n#550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found ##\n\n"
	 "Original message headers:\n\nFrom: me@example.com\n",
	 "to@example.org", 550, "5.1.10", 10, 1},
	{"From: System Administrator <x@example.net>\nSubject: Undeliverable: hello\n\n"
	 "Your message did not reach some or all of the intended recipients.\n\n"
	 "      Subject: hello\n\nThe following recipient(s) cannot be reached:\n\n"
	 "      'to@example.org' on 7/1/2025 12:00 PM\n"
	 "            The message could not be delivered because the recipient's mailbox is full.\n",
	 "to@example.org", 0, "", 22, 1},
	{"From: Mail Delivery Subsystem <x@mx.example.net>\nSubject: Returned mail: see transcript\n\n"
	 "   ----- The following addresses had permanent fatal errors -----\n<to@example.org>\n"
	 "    (reason: 550 5.1.1 <to@example.org>... User unknown)\n\n"
	 "   ----- Transcript of session follows -----\n",
	 "to@example.org", 550, "5.1.1", 10, 1},
	{"From: Mail Delivery Subsystem <x@mx.example.net>\nSubject: Delivery Status Notification\n\n"
	 "Delivery to the following recipient failed permanently:\n\n     to@example.org\n\n"
	 "Technical details of permanent failure:\nThe error was: 552 5.2.3 message too large\n",
	 "to@example.org", 552, "5.2.3", 23, 1},
	{"From: x@example.net\nSubject: hello\nContent-Type: text/html\n\n<html><p>Your message to "
	 "<b>to@example.org</b> couldn't be delivered to\n<a href=\"mailto:x\">to@example.org</a>. "
	 "550 5.4.1 Recipient address rejected: Access denied</p>",
	 "to@example.org", 550, "5.4.1", 10, 1},
};

static void test_parse_when_it_is_written_for_people(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		const struct report_recipient *x = &report.recipients[0];

		parse(words[i].text);
		if (report.kind != REPORT_BOUNCE || report.recipient_count != words[i].count ||
		    strcmp(x->address, words[i].address) != 0 || x->code != words[i].code ||
		    strcmp(x->status, words[i].status) != 0 ||
		    class_of(x) != words[i].found_class) {
			fail_msg("%zu: kind %d, %u recipients: %s, %u, %s, class %u: %s", i,
				 report.kind, report.recipient_count, x->address, x->code,
				 x->status, class_of(x), x->text);
		}
	}
	parse(words[1].text);
	assert_string_equal(report.recipients[1].address, "b@example.org");
	assert_int_equal(class_of(&report.recipients[1]), 22);
}

static void test_parse_when_it_is_an_auto_reply(void **state)
{
	static const char *const heads[] = {
		"Auto-Submitted: auto-replied (vacation)",
		"Auto-Submitted: AUTO-REPLIED",
		"X-Autoreply: yes",
		"X-Autorespond: hello",
		"Precedence: auto_reply",
		"Subject: Out of Office: hello",
		"Subject: Automatic reply: hello",
	};
	static const char *const others[] = {
		"Auto-Submitted: no", "Auto-Submitted: auto-generated",  "X-Autoreply: no",
		"Subject: hello",     "X-Other: Subject: Out of Office",
	};
	char text[512];

	(void)state;
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		snprintf(text, sizeof(text), "From: \"Me\" <me@example.org>\n%s\n\nI am away.\n",
			 heads[i]);
		parse(text);
		assert_int_equal(report.kind, REPORT_AUTO_REPLY);
		assert_string_equal(report.from, "me@example.org");
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		snprintf(text, sizeof(text),
			 "From: me@example.org\n%s\n\nWrite to a@example.org: ok\n", others[i]);
		parse(text);
		assert_int_equal(report.kind, REPORT_UNKNOWN);
		assert_int_equal(report.recipient_count, 0);
	}
	assert_string_equal(report.text, "Write to a@example.org: ok");
	parse("Subject: Re:  news\n\nplease\n\nunsubscribe me\n");
	assert_string_equal(report.text, "Re: news please unsubscribe me");
	parse("");
	assert_int_equal(report.kind, REPORT_UNKNOWN);
	assert_string_equal(report.text, "");
}

static void test_parse_when_it_is_a_feedback_report(void **state)
{
	static const char form[] =
		"From: Feedback <fbl@provider.example>\nSubject: complaint\n"
		"Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n"
		"--b\nContent-Type: text/plain\n\nThis is a report.\n"
		"--b\nContent-Type: message/feedback-report\n\n%s"
		"--b\nContent-Type: message/rfc822\n\nTo: Some One <seen@example.org>\n"
		"Subject: offer\n\nbuy\n--b--\n";
	char text[2048];

	(void)state;
	snprintf(text, sizeof(text), form,
		 "Feedback-Type: abuse\nUser-Agent: Provider/1.0 (x)\nVersion: 1\n"
		 "Original-Rcpt-To: <to@example.org>\nSource-IP: 192.0.2.1\n");
	parse(text);
	assert_int_equal(report.kind, REPORT_FEEDBACK);
	assert_string_equal(report.feedback_type, "abuse");
	assert_string_equal(report.user_agent, "Provider/1.0 (x)");
	assert_string_equal(report.from, "fbl@provider.example");
	assert_int_equal(report.recipient_count, 1);
	assert_string_equal(report.recipients[0].address, "to@example.org");
	snprintf(text, sizeof(text), form,
		 "\nFeedback-Type: opt-out\nRemoval-Recipient: rfc822; r@example.org\n");
	parse(text);
	assert_string_equal(report.feedback_type, "opt-out");
	assert_string_equal(report.user_agent, "");
	assert_string_equal(report.recipients[0].address, "r@example.org");
	snprintf(text, sizeof(text), form, "Feedback-Type: abuse\n");
	parse(text);
	assert_string_equal(report.recipients[0].address, "seen@example.org");
}

static void test_verp(void **state)
{
	static const struct {
		const char *address;
		const char *recipient;
	} table[] = {
		{"bounce+to=example.org@b.example.com", "to@example.org"},
		{"bounce-to=example.org@b.example.com", "to@example.org"},
		/* The prefix ends with the first of both; the domain starts with the last =. */
		{"bounce+a+b-c=d=example.org@b.example.com", "a+b-c=d@example.org"},
		{"bounce-a+b=example.org@b.example.com", "a+b@example.org"},
		{"+to=example.org@b.example.com", "to@example.org"},
		{"bounce@b.example.com", NULL},
		{"bounce+to@b.example.com", NULL},
		{"bounce=example.org@b.example.com", NULL},
		{"bounce+=example.org@b.example.com", NULL},
		{"bounce+to=@b.example.com", NULL},
		{"bounce+to=exa_mple.org@b.example.com", NULL},
		{"bounce@b-x=y.example.com", NULL},
		{"", NULL},
	};
	char recipient[ADDRESS_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		bool found = dsn_verp(table[i].address, recipient);

		assert_int_equal(found, table[i].recipient != NULL);
		assert_string_equal(recipient, found ? table[i].recipient : "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_when_it_is_a_delivery_status_notification),
		cmocka_unit_test(test_parse_when_fields_are_missing),
		cmocka_unit_test(test_parse_when_parts_are_encoded_and_nested),
		cmocka_unit_test(test_parse_when_there_are_several_notifications),
		cmocka_unit_test(test_parse_when_it_was_written_by_dsn_write),
		cmocka_unit_test(test_parse_when_it_is_written_for_people),
		cmocka_unit_test(test_parse_when_it_is_an_auto_reply),
		cmocka_unit_test(test_parse_when_it_is_a_feedback_report),
		cmocka_unit_test(test_verp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
