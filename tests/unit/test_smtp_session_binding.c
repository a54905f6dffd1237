/* Which binding a message gets, who may choose, and what remains of the header. */
#include "tests/unit/smtp_world.h"

#include "agents/password_file.h"
#include "listeners/smtp/binding.h"

static const struct cidr here = {.prefix = 0};

int password_file_check(const char *path, const char *user, const char *password,
			char binding[ENVELOPE_BINDING_MAX + 1])
{
	(void)path;
	(void)user;
	(void)password;
	strcpy(binding, "user");
	return 0;
}

static void configure(bool trusted)
{
	struct binding_table *t = &rig.scheduler.dispatcher.bindings;

	binding_add(t, "a", "promo", 3, false);
	binding_add(t, "b", "promo", 1, false);
	binding_add(t, "listen", NULL, 1, false);
	binding_add(t, "user", NULL, 1, false);
	rig.options.binding_header = "X-Binding";
	if (trusted) {
		rig.options.relay_hosts = &here;
		rig.options.relay_host_count = 1;
	}
}

/* Sends a message, and returns its binding; "" is the default one. */
static const char *binding_for(int fd, const char *text)
{
	rig.bodies_len = 0;
	rig.main_log[0] = '\0';
	say(fd, MAIL RCPT "DATA\r\n");
	expect_lines("250 ", 3);
	say(fd, text);
	expect(fd, ".\r\n", "250 2.0.0 OK: queued");
	return rig.binding;
}

/* What is stored behind the trace header. */
static const char *rest(void)
{
	const char *end = strstr(rig.bodies, "\r\nA: ");

	assert_non_null(end);
	return end + 2;
}

static void test_header_names_a_binding(void **state)
{
	int fd;

	(void)state;
	configure(true);
	fd = client_hello();
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: listen\r\nB: 2\r\n\r\nbody\r\n"),
			    "listen");
	assert_string_equal(rest(), "A: 1\r\nB: 2\r\n\r\nbody\r\n");
	assert_non_null(strstr(rig.main_log, "@esmtp@default@listen\n"));
	/* A group takes turns; the body is nobody's business. */
	assert_string_equal(binding_for(fd, "A: 1\r\nx-binding: promo\r\n\r\nX-Binding: b\r\n"),
			    "a");
	assert_string_equal(rest(), "A: 1\r\n\r\nX-Binding: b\r\n");
	assert_non_null(strstr(rig.main_log, "@esmtp@promo@a\n"));
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: promo\r\n\r\n"), "a");
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: promo\r\n\r\n"), "b");
	/* The next message knows nothing of the last one's. */
	assert_string_equal(binding_for(fd, "A: 1\r\n\r\nbody\r\n"), "");
	assert_non_null(strstr(rig.main_log, "@esmtp@default@default\n"));
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding:\r\n\r\n"), "");
	assert_string_equal(rest(), "A: 1\r\n\r\n");
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: default\r\n\r\n"), "");
	assert_int_equal(count_of(SMTP_COUNT_BINDING_UNKNOWN), 0);
	quit(fd);
}

/* Signed is what remains, and chunks end as DATA does. */
static void test_header_goes_before_the_signature(void **state)
{
	int fd;

	(void)state;
	configure(true);
	rig.options.dkim_sign = true;
	fd = client_hello();
	binding_for(fd, "A: 1\r\nX-Binding: listen\r\n\r\n");
	assert_int_equal(strtoul(rig.bodies + strlen("Signed: "), NULL, 10),
			 strlen(strchr(rig.bodies, '\n') + 1));
	rig.bodies_len = 0;
	say(fd, MAIL RCPT "BDAT 15\r\nA: 1\r\nX-BINDING");
	say(fd, "BDAT 12 LAST\r\n: listen\r\n\r\n");
	expect_lines("250 2.0.0 OK: queued", 1);
	assert_string_equal(rig.binding, "listen");
	assert_string_equal(rest(), "A: 1\r\n\r\n");
	quit(fd);
}

static void test_unknown_names_are_told(void **state)
{
	char text[200] = "A: 1\r\nX-Binding: ";
	int fd;

	(void)state;
	configure(true);
	rig.options.binding = "listen";
	binding_open(&rig.scheduler.dispatcher.bindings, "lost");
	fd = client_hello();
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: nobody\r\n\r\n"), "");
	assert_string_equal(rest(), "A: 1\r\n\r\n");
	assert_non_null(strstr(rig.main_log, "@esmtp@default@default\n"));
	assert_string_equal(
		rig.scheduler.base.errors.entries[0].text,
		"mail from 192.0.2.1 is for binding \"nobody\", which there is none of: "
		"it goes by the default one");
	/* One that only old mail has; and one that is right but for being too long. */
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: lost\r\n\r\n"), "");
	for (unsigned i = 0; i < ENVELOPE_BINDING_MAX; i++) {
		strcat(text, "n");
	}
	binding_add(&rig.scheduler.dispatcher.bindings, strstr(text, "nnn"), NULL, 1, false);
	strcat(text, "n\r\n\r\n");
	assert_string_equal(binding_for(fd, text), "");
	assert_int_equal(count_of(SMTP_COUNT_BINDING_UNKNOWN), 3);
	/* Many names do not fill the error log. */
	for (unsigned i = 0; i < 3 * SMTP_BINDING_UNKNOWN_TOLD; i++) {
		snprintf(text, sizeof(text), "A: 1\r\nX-Binding: no%u\r\n\r\n", i);
		binding_for(fd, text);
	}
	assert_int_equal(rig.scheduler.base.errors.count, SMTP_BINDING_UNKNOWN_TOLD + 1);
	assert_int_equal(count_of(SMTP_COUNT_BINDING_UNKNOWN), 3 + 3 * SMTP_BINDING_UNKNOWN_TOLD);
	quit(fd);
}

static void test_who_may_not_choose(void **state)
{
	static const char text[] = "A: 1\r\nX-Binding: user\r\n\r\n";
	int fd;

	(void)state;
	configure(false);
	fd = client_hello();
	/* Not a host that may send anywhere: the field is the mail's. */
	assert_string_equal(binding_for(fd, text), "");
	assert_string_equal(rest(), text);
	rig.options.binding = "promo";
	assert_string_equal(binding_for(fd, text), "a");
	assert_string_equal(rest(), text);
	quit(fd);
	/* Nobody here. */
	rig.options.relay_hosts = &here;
	rig.options.relay_host_count = 1;
	rig.options.binding_header = "";
	fd = client_hello();
	assert_string_equal(binding_for(fd, text), "a");
	assert_string_equal(rest(), text);
	rig.options.binding_header = "X-Other";
	assert_string_equal(binding_for(fd, text), "b");
	assert_string_equal(rest(), text);
	quit(fd);
}

/* Header, then listener, then user. */
static void test_order(void **state)
{
	int fd;

	(void)state;
	configure(false);
	rig.options.auth_file = "/etc/users";
	rig.options.allow_plain_auth = true;
	fd = client_greeted();
	say(fd, "EHLO client.example\r\n");
	assert_string_equal(binding_for(fd, "A: 1\r\n\r\n"), "");
	expect(fd, "AUTH PLAIN AHRpbQBvcGVu\r\n", "235 ");
	assert_string_equal(binding_for(fd, "A: 1\r\n\r\n"), "user");
	/* Users may send anywhere, so they may choose. */
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: b\r\n\r\n"), "b");
	rig.options.binding = "listen";
	assert_string_equal(binding_for(fd, "A: 1\r\n\r\n"), "listen");
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: b\r\n\r\n"), "b");
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: \r\n\r\n"), "listen");
	quit(fd);
}

/* Nothing to choose from: the field is no more than others. */
static void test_without_bindings(void **state)
{
	int fd;

	(void)state;
	rig.options.binding_header = "X-Binding";
	rig.options.relay_hosts = &here;
	rig.options.relay_host_count = 1;
	fd = client_hello();
	assert_string_equal(binding_for(fd, "A: 1\r\nX-Binding: a\r\n\r\n"), "");
	assert_string_equal(rest(), "A: 1\r\nX-Binding: a\r\n\r\n");
	assert_int_equal(count_of(SMTP_COUNT_BINDING_UNKNOWN), 0);
	quit(fd);
}

/* It is understood and goes nowhere. */
static void test_bounces_have_none(void **state)
{
	int fd;

	(void)state;
	configure(true);
	rig.options.binding = "listen";
	fd = client_hello();
	say(fd, "MAIL FROM:<>\r\nRCPT TO:<x@b.example.com>\r\nDATA\r\n");
	expect_lines("250 ", 3);
	expect(fd, "A: 1\r\nX-Binding: a\r\n\r\n.\r\n", "250 ");
	assert_int_equal(rig.understood, 1);
	assert_string_equal(rig.binding, "");
	quit(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_header_names_a_binding),
		TEST(test_header_goes_before_the_signature),
		TEST(test_unknown_names_are_told),
		TEST(test_who_may_not_choose),
		TEST(test_order),
		TEST(test_without_bindings),
		TEST(test_bounces_have_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
