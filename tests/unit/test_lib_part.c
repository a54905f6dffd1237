/*
 * Parts of messages: changed, moved, put into others; and what becomes of the message.
 */
#include "tests/unit/policy_mail_world.h"

#define HEAD "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
#define ONE "Content-Type: text/plain\r\n\r\none"
#define TWO                                                                                        \
	"Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\n" \
	"5Oj8\r\n"
#define INNER                                                                                         \
	"Content-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nx1\r\n--c\r\n\r\nx2\r\n--" \
	"c--\r\n"
#define MESSAGE HEAD "--b\r\n" ONE "\r\n--b\r\n" TWO "\r\n--b\r\n" INNER "\r\n--b--\r\n"

struct row {
	/* With `top` the writable part of the message, and `p` the parts in it. */
	const char *script;
	/* What the message is then; NULL: as before. */
	const char *message;
	const char *printed;
};

static void check(const struct row *r)
{
	char script[2048];
	struct policy_text raw = {0};
	struct world *w;

	snprintf(script, sizeof(script), "local top = msg:mime(false) local p = top:children()\n%s",
		 r->script);
	w = open_world(script, MESSAGE, strlen(MESSAGE));
	if (run(w) != POLICY_GO_ON) {
		fail_msg("%s: %s", r->script, w->errors);
	}
	policy_mail_settle(&w->mail);
	policy_mail_raw(&w->mail, &raw);
	assert_string_equal(raw.data, r->message != NULL ? r->message : MESSAGE);
	assert_string_equal(w->printed, r->printed != NULL ? r->printed : "");
	policy_text_close(&raw);
	close_world(w);
}

static void test_parts_are_put_in_and_taken_out(void **state)
{
	static const struct row rows[] = {
		{"print(#p)", NULL, "3;"},
		{"print(p[1]:unlink()) print(#p, p[1]:content_type())",
		 HEAD "--b\r\n" TWO "\r\n--b\r\n" INNER "\r\n--b--\r\n", "true;2\ttext/html;"},
		{"print(top:addFirstChild(msg:makePart('text/x', 'new')))",
		 HEAD "--b\r\n"
		      "Content-Type: text/x\r\nContent-Transfer-Encoding: 7bit\r\n\r\nnew"
		      "\r\n--b\r\n" ONE "\r\n--b\r\n" TWO "\r\n--b\r\n" INNER "\r\n--b--\r\n",
		 "true;"},
		{"local n = msg:makePart('text/x', 'new') print(n:insertAfter(p[1])) p[1]:unlink() "
		 "p[2]:unlink() p[2]:unlink() print(#p)",
		 HEAD
		 "--b\r\nContent-Type: text/x\r\nContent-Transfer-Encoding: 7bit\r\n\r\nnew\r\n"
		 "--b--\r\n",
		 "true;1;"},
		/* From one place to another, in the same multipart and into one in it. */
		{"print(p[1]:insertAfter(p[2]))",
		 HEAD "--b\r\n" TWO "\r\n--b\r\n" ONE "\r\n--b\r\n" INNER "\r\n--b--\r\n", "true;"},
		{"p[2]:insertBefore(p[1])",
		 HEAD "--b\r\n" TWO "\r\n--b\r\n" ONE "\r\n--b\r\n" INNER "\r\n--b--\r\n", NULL},
		{"p[1]:unlink() p[1]:unlink() p[1]:addLastChild(msg:makePart('text/x', 'new'))",
		 HEAD
		 "--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nx1\r\n"
		 "--c\r\n\r\nx2\r\n--c\r\nContent-Type: text/x\r\n"
		 "Content-Transfer-Encoding: 7bit\r\n\r\nnew\r\n--c--\r\n\r\n--b--\r\n",
		 NULL},
		/* A container that is filled before it comes. */
		{"local c = msg:makeContainer('multipart/related', 'r') p[3]:unlink() p[2]:unlink() "
		 "print(c:addLastChild(p[1]), top:addLastChild(c), #p)",
		 HEAD "--b\r\nContent-Type: multipart/related; boundary=\"r\"\r\n\r\n--r\r\n" ONE
		      "\r\n--r--\r\n\r\n--b--\r\n",
		 "true\ttrue\t1;"},
		/* What cannot be. */
		{"print(p[1]:addLastChild(p[2]), p[3]:addLastChild(top), p[3]:addFirstChild(p[3]), "
		 "top:unlink(), p[1]:insertAfter(top), p[1]:insertAfter(p[1]))",
		 NULL, "false\tfalse\tfalse\tfalse\tfalse\tfalse;"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		check(&rows[i]);
	}
}

static void test_parts_are_changed(void **state)
{
	static const struct row rows[] = {
		{"p[1]:header('X-A', 'v') p[1]:header('X-A', 'w', 'append') print(#p[1]:header('X-A')) "
		 "p[1]:header('X-A', nil) p[1]:header('Content-Type', 'text/html') "
		 "print(p[1]:content_type())",
		 HEAD "--b\r\nContent-Type: text/html\r\n\r\none\r\n--b\r\n" TWO "\r\n--b\r\n" INNER
		      "\r\n--b--\r\n",
		 "2;text/html;"},
		{"p[2]:unlink() p[2]:unlink() p[1]:text('n\\195\\182', 'text/html', 'iso-8859-1') "
		 "print(p[1]:text() == 'n\\195\\182', p[1]:encoding())",
		 HEAD "--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
		      "Content-Transfer-Encoding: quoted-printable\r\n\r\nn=F6\r\n--b--\r\n",
		 "true\tquoted-printable;"},
		/* Its last character is in another state than the first one. */
		{"p[3]:unlink() p[2]:unlink() p[1]:text('\\227\\129\\130', 'text/x', 'iso-2022-jp')",
		 HEAD
		 "--b\r\nContent-Type: text/x; charset=iso-2022-jp\r\n"
		 "Content-Transfer-Encoding: quoted-printable\r\n\r\n=1B$B$\"=1B(B\r\n--b--\r\n",
		 NULL},
		{"p[1]:body_replace('o(n)', '[$1]') print(p[1]:body(), p[1]:body_match('n')[0])",
		 HEAD "--b\r\nContent-Type: text/plain\r\n\r\n[n]e\r\n--b\r\n" TWO
		      "\r\n--b\r\n" INNER "\r\n--b--\r\n",
		 "[n]e\tn;"},
		/* Of a multipart, whose parts are others then. */
		{"local old = p[3]:children()[1] p[3]:body_replace('x(.)', 'y$1') "
		 "print(p[3]:children()[2]:body(), old:body(), pcall(old.header, old, 'a', 'b'))",
		 HEAD
		 "--b\r\n" ONE "\r\n--b\r\n" TWO
		 "\r\n--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\ny1"
		 "\r\n--c\r\n\r\ny2\r\n--c--\r\n\r\n--b--\r\n",
		 "y2\tx1\tfalse\tthis part is a copy: mime(false) has parts that may be changed;"},
		{"print(p[1]:raw_match('plain.*one', 's') ~= nil) p[1]:raw_replace('plain', 'x-other') "
		 "print(p[1]:content_type())",
		 HEAD "--b\r\nContent-Type: text/x-other\r\n\r\none\r\n--b\r\n" TWO
		      "\r\n--b\r\n" INNER "\r\n--b--\r\n",
		 "false;text/x-other;"},
		{"top:header('From', 'A <a@b.test>, c@d.test') "
		 "print(table.concat(top:address_header('from'), ' '), "
		 "top:address_header('from', 'name')[1], msg:header('from')[1])",
		 "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n"
		 "From: A <a@b.test>, c@d.test\r\n\r\n--b\r\n" ONE "\r\n--b\r\n" TWO
		 "\r\n--b\r\n" INNER "\r\n--b--\r\n",
		 "a@b.test c@d.test\tA\tA <a@b.test>, c@d.test;"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		check(&rows[i]);
	}
}

/* In charset and encoding of each part; what was plain is encoded when it must be. */
static void test_header_that_ends_at_a_delimiter(void **state)
{
	static const char text[] = HEAD "--b\r\nContent-Type: text/plain\r\n--b--\r\n";
	struct world *w = open_world("local p = msg:mime(false):children()[1] p:header('X-A', '1') "
				     "p:body_replace('$', 'x') "
				     "print(p:content_type(), p:header('X-A')[1])",
				     text, strlen(text));
	struct policy_text raw = {0};

	(void)state;
	assert_int_equal(run(w), POLICY_GO_ON);
	assert_string_equal(w->printed, "text/plain\t1;");
	policy_mail_raw(&w->mail, &raw);
	assert_string_equal(raw.data,
			    HEAD "--b\r\nContent-Type: text/plain\r\nX-A: 1\r\n\r\nx\r\n--b--\r\n");
	policy_text_close(&raw);
	close_world(w);
}

static void test_texts_are_replaced(void **state)
{
	static const struct row rows[] = {
		{"print(p[2]:text() == '\\195\\164\\195\\168\\195\\188', p[2]:text_match('..$')[0]) "
		 "msg:text_replace('\\195\\168', 'e')",
		 HEAD "--b\r\n" ONE "\r\n--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
		      "Content-Transfer-Encoding: base64\r\n\r\n5GX8\r\n\r\n--b\r\n" INNER
		      "\r\n--b--\r\n",
		 "true\t\303\274;"},
		{"p[1]:text_replace('n', '\\195\\164') print(p[1]:encoding())",
		 HEAD
		 "--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n"
		 "\r\no=C3=A4e\r\n--b\r\n" TWO "\r\n--b\r\n" INNER "\r\n--b--\r\n",
		 "quoted-printable;"},
		{"top:text_replace('x(\\\\d)', '$1$1')",
		 HEAD
		 "--b\r\n" ONE "\r\n--b\r\n" TWO
		 "\r\n--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\n11\r\n"
		 "--c\r\n\r\n22\r\n--c--\r\n\r\n--b--\r\n",
		 NULL},
		{"print(pcall(p[2].text_replace, p[2], '.', '\\226\\130\\172'))", NULL,
		 "false\tthe text cannot be written in iso-8859-1;"},
		{"msg:text_replace('nowhere', 'x') print(msg:makePart('text/x'):text())", NULL,
		 ";"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		check(&rows[i]);
	}
}

static void test_message_is_written_once_for_all_texts(void **state)
{
	struct world *w = open_world("msg:text_replace('[nx]', 'y')", MESSAGE, strlen(MESSAGE));
	struct policy_text raw = {0};
	uint32_t whole;

	(void)state;
	policy_mail_set_raw(&w->mail, MESSAGE, strlen(MESSAGE));
	whole = w->mail.changes;
	assert_int_equal(run(w), POLICY_GO_ON);
	assert_int_equal(w->mail.changes, 2 * whole);
	policy_mail_raw(&w->mail, &raw);
	assert_non_null(strstr(raw.data, "oye"));
	assert_non_null(strstr(raw.data, "y1"));
	assert_non_null(strstr(raw.data, "y2"));
	policy_text_close(&raw);
	close_world(w);
}

static void test_only_what_may_be_changed_is(void **state)
{
	static const struct row rows[] = {
		{"local copy = msg:mime() print(select(2, pcall(copy.header, copy, 'a', 'b')))",
		 NULL, "this part is a copy: mime(false) has parts that may be changed;"},
		{"msg:header('Subject', 'x') print(select(2, pcall(top.header, top, 'a', 'b')))",
		 NULL, "the message was changed in another way since mime(false);"},
		{"print(pcall(top.header, {}, 'a')) print(pcall(top.addLastChild, top, {}))", NULL,
		 "false\tbad argument #1 to '?' (a part of a message expected);"
		 "false\tbad argument #2 to '?' (a part of a message expected);"},
		{"p[1].parent = p[1] print(select(2, pcall(p[1].unlink, p[1])))", NULL,
		 "more than 32 parts in parts;"},
		{"p[1].raw_body = {} print(pcall(p[1].header, p[1], 'a', 'b'))", NULL,
		 "false\tthis part has no \"raw_body\" any more;"},
		{"p[1].raw_body = 12345 print(pcall(p[1].text, p[1]))", NULL,
		 "false\tthis part has no \"raw_body\" any more;"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		check(&rows[i]);
	}
}

/* With more parts than anybody looks at some would be lost. */
static void test_message_of_too_many_parts_is_not_changed(void **state)
{
	char text[4096] = HEAD;
	struct world *w;

	(void)state;
	for (int i = 0; i < 70; i++) {
		strcat(text, "--b\r\n\r\nx\r\n");
	}
	strcat(text, "--b--\r\n");
	w = open_world("print(#msg:mime():children()) print(pcall(msg.mime, msg, false)) "
		       "print(pcall(msg.makePart, msg, 'multipart/mixed; boundary=b', msg:body()))",
		       text, strlen(text));
	assert_int_equal(run(w), POLICY_GO_ON);
	assert_string_equal(w->printed, "63;false\tmore than 64 parts: they cannot be changed;"
					"false\tmore than 64 parts: they cannot be changed;");
	close_world(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_are_put_in_and_taken_out),
		cmocka_unit_test(test_parts_are_changed),
		cmocka_unit_test(test_header_that_ends_at_a_delimiter),
		cmocka_unit_test(test_texts_are_replaced),
		cmocka_unit_test(test_message_is_written_once_for_all_texts),
		cmocka_unit_test(test_only_what_may_be_changed_is),
		cmocka_unit_test(test_message_of_too_many_parts_is_not_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
