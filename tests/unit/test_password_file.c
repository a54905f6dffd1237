#include "agents/password_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of "open sesame": SHA-512-crypt, yescrypt, Argon2id; and ways that are too old. */
#define SHA512                                                                                         \
	"$6$rounds=1000$saltsalt$/IiX/CoEcxCZ9SksEXnbjfCT1LGvD4z5OpJkaFYl/T37OAwuKZ8I8BixDhruhPLkw6lS" \
	"7dw/6wQWgQnGo7lLg/"
#define YESCRYPT "$y$j9T$saltsaltsalt$b1KPsJq/OEd.3MwEU9eWyKlNNoW3sAIZKTpBLLPjsR6"
#define ARGON2 "$argon2id$v=19$m=1024,t=2,p=1$c2FsdHNhbHQ$tYDbcNuV220VTU6Ii/eTPA"
#define DES "ab/G8gtZdMwak"

static char path[] = "/tmp/flywheel-passwords-XXXXXX";

static const char text[] = "# users\n"
			   "\n"
			   "sha:" SHA512 "\n"
			   "yes:" YESCRYPT ":1000:1000:a person\n"
			   "argon:" ARGON2 "\r\n"
			   "des:" DES "\n"
			   "empty:\n"
			   "locked:!" SHA512 "\n"
			   "star:*\n"
			   "none\n"
			   "#comment:" SHA512 "\n"
			   "twice:" SHA512 "\n"
			   "twice:*\n"
			   "last:" SHA512;

static int set_up(void **state)
{
	int fd;

	(void)state;
	strcpy(path, "/tmp/flywheel-passwords-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	return close(fd);
}

static int tear_down(void **state)
{
	(void)state;
	return unlink(path);
}

/* What the line said last. */
static char binding[ENVELOPE_BINDING_MAX + 1];

static int check(const char *file, const char *user, const char *password)
{
	return password_file_check(file, user, password, binding);
}

static void test_passwords(void **state)
{
	static const struct {
		const char *user;
		const char *password;
		int expected;
	} cases[] = {
		{"sha", "open sesame", 0},
		{"sha", "open sesame ", -EACCES},
		{"sha", "", -EACCES},
		{"sha", "Open sesame", -EACCES},
		{"yes", "open sesame", 0},
		{"yes", "open", -EACCES},
		{"argon", "open sesame", 0},
		{"argon", "shut", -EACCES},
		{"twice", "open sesame", 0},
		{"last", "open sesame", 0},
		/* Not there, or without a hash that counts. */
		{"nobody", "open sesame", -EACCES},
		{"sh", "open sesame", -EACCES},
		{"SHA", "open sesame", -EACCES},
		{"des", "open sesame", -EACCES},
		{"empty", "", -EACCES},
		{"locked", "open sesame", -EACCES},
		{"star", "*", -EACCES},
		{"none", "", -EACCES},
		{"#comment", "open sesame", -EACCES},
		{"", "open sesame", -EACCES},
		{"yes:" YESCRYPT, "1000", -EACCES},
		{"x\nsha", "open sesame", -EACCES},
		{"sha\n", "open sesame", -EACCES},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = check(path, cases[i].user, cases[i].password);

		if (rc != cases[i].expected) {
			fail_msg("%s: %d", cases[i].user, rc);
		}
		assert_string_equal(binding, "");
	}
}

static void test_files_that_cannot_be_read(void **state)
{
	(void)state;
	assert_int_equal(check("/nonexistent/users", "sha", "x"), -ENOENT);
	assert_int_equal(check("/tmp", "sha", "x"), -EIO);
	/* One without users refuses all. */
	assert_int_equal(check("/dev/null", "sha", "x"), -EACCES);
}

/* Neither the beginning nor the end of a line that is too long is anybody's. */
static void test_lines_that_are_too_long(void **state)
{
	FILE *file = fopen(path, "w");

	(void)state;
	assert_non_null(file);
	fprintf(file, "long:%s:", SHA512);
	for (unsigned i = 0; i < PASSWORD_FILE_LINE_MAX - 10; i++) {
		fputc('x', file);
	}
	fprintf(file, "sha:%s\nsha:%s\n", ARGON2, SHA512);
	fclose(file);
	assert_int_equal(check(path, "long", "open sesame"), -EACCES);
	assert_int_equal(check(path, "sha", "open sesame"), 0);
}

static void test_bindings_of_users(void **state)
{
	static const char *const cases[][2] = {
		{"one", "promo"}, {"later", "a b"},  {"no", ""},       {"empty", ""},
		{"other", ""},    {"crlf", "promo"}, {"first", "one"}, {"long", NULL},
	};
	FILE *file = fopen(path, "w");
	char name[ENVELOPE_BINDING_MAX + 20];

	(void)state;
	assert_non_null(file);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	fprintf(file, "one:%s:binding=promo\n", SHA512);
	fprintf(file, "later:%s:1000::binding=a b:x=y\n", SHA512);
	fprintf(file, "no:%s\nempty:%s:binding=\nother:%s:abinding=x:Binding=y\n", SHA512, SHA512,
		SHA512);
	fprintf(file, "crlf:%s:binding=promo\r\n", SHA512);
	fprintf(file, "first:%s:binding=one:binding=two\n", SHA512);
	fprintf(file, "long:%s:binding=%s\n", SHA512, name);
	fclose(file);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		strcpy(binding, "old");
		assert_int_equal(check(path, cases[i][0], "open sesame"), 0);
		name[ENVELOPE_BINDING_MAX] = '\0';
		assert_string_equal(binding, cases[i][1] != NULL ? cases[i][1] : name);
		assert_int_equal(check(path, cases[i][0], "open sesame "), -EACCES);
	}
	/* Nobody's line, nobody's binding. */
	assert_int_equal(check(path, "nobody", "x"), -EACCES);
	assert_string_equal(binding, "");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_passwords),
		TEST(test_files_that_cannot_be_read),
		TEST(test_lines_that_are_too_long),
		TEST(test_bindings_of_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
