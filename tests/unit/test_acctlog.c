#include "core/mail/acctlog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static void expect(const char *user, bool granted, const char *expected)
{
	char line[ACCTLOG_LINE_MAX + 1];
	size_t len = acctlog_authentication(line, &(struct acctlog_authentication){
							  .time_s = 1750000000,
							  .listener = "esmtp",
							  .peer_ip = "192.0.2.1",
							  .user = user,
							  .granted = granted,
						  });

	assert_true(len < sizeof(line));
	line[len] = '\0';
	assert_string_equal(line, expected);
}

static void test_authentication(void **state)
{
	(void)state;
	expect("bob", true, "1750000000@N@esmtp@192.0.2.1@bob@1\n");
	expect("bob@example.com\n1@N@", false,
	       "1750000000@N@esmtp@192.0.2.1@bob\\@example.com\\n1\\@N\\@@0\n");
	expect("", false, "1750000000@N@esmtp@192.0.2.1@@0\n");
}

static void test_long_user_is_cut(void **state)
{
	char line[ACCTLOG_LINE_MAX];
	char user[1000];

	(void)state;
	memset(user, '\x01', sizeof(user));
	user[sizeof(user) - 1] = '\0';
	assert_true(acctlog_authentication(line, &(struct acctlog_authentication){
							 .listener = user,
							 .peer_ip = user,
							 .user = user,
						 }) < sizeof(line));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_authentication),
		cmocka_unit_test(test_long_user_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
