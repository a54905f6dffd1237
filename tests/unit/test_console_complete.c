/* The console is a program of its own, not part of the library. */
#include "tools/console_complete.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static char asked[256];

static json_t *names(void *context, const char *kind, const char *prefix)
{
	assert_ptr_equal(context, asked);
	snprintf(asked, sizeof(asked), "%s %s", kind, prefix);
	if (strcmp(kind, "binding") == 0) {
		return json_pack("[s, s]", "default", "news");
	}
	/* More than was asked for, and something that is none. */
	return json_pack("[s, s, i, s]", "a.test", "b.test", 1, "ab.test");
}

static struct complete completion;

static int set_up(void **state)
{
	static const char *const commands[][2] = {
		{"domain", "NAME [BINDING]"},
		{"domains", ""},
		{"message", "ID [full]"},
		{"message fail", "ID [quiet]"},
		{"mailq", "[N] [BINDING]"},
		{"busiest", "[N] [rate|queue]"},
		{"suspend binding", "NAME"},
		{"bindings", "[NAME]"},
		{"trace smtp add",
		 "[direction in|out] [domain NAME] [binding NAME] [sample 1/N] [content]"},
	};

	(void)state;
	completion = (struct complete){.commands = json_array(), .names = names, .context = asked};
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		json_array_append_new(completion.commands,
				      json_pack("{s:s, s:s}", "command", commands[i][0],
						"arguments", commands[i][1]));
	}
	asked[0] = '\0';
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	json_decref(completion.commands);
	return 0;
}

/* All that `word` may become, separated by blanks. */
static void assert_words(const char *before, const char *word, const char *expected)
{
	json_t *words = complete_words(&completion, before, word);
	char text[1024] = "";
	json_t *one;
	size_t i;

	json_array_foreach(words, i, one)
	{
		strcat(text, i != 0 ? " " : "");
		strcat(text, json_string_value(one));
	}
	json_decref(words);
	assert_string_equal(text, expected);
}

static void test_commands_word_by_word(void **state)
{
	(void)state;
	assert_words("", "do", "domain domains");
	assert_words("", "me", "message");
	assert_words("message ", "fa", "fail");
	assert_words("trace ", "", "smtp");
	assert_words("  TRACE   smtp ", "a", "add");
	assert_words("", "q", "quit");
	assert_words("", "zz", "");
	assert_words("help ", "dom", "domain domains");
	assert_words("help message ", "", "fail");
	assert_string_equal(asked, "");
}

static void test_words_that_a_command_takes(void **state)
{
	(void)state;
	assert_words("message x ", "", "full");
	assert_words("message fail x ", "q", "quiet");
	assert_words("busiest ", "", "rate queue");
	assert_words("busiest 5 ", "q", "queue");
	assert_words("trace smtp add ", "", "direction domain binding sample content");
	assert_words("trace smtp add content ", "d", "direction domain");
	assert_words("trace smtp add direction ", "", "in out");
	assert_words("trace smtp add sample ", "", "");
	assert_words("domains ", "", "");
}

static void test_names_are_asked_for(void **state)
{
	(void)state;
	assert_words("domain ", "a", "a.test ab.test");
	assert_string_equal(asked, "binding a");
	assert_words("trace smtp add content domain ", "b", "b.test");
	assert_string_equal(asked, "domain b");
	assert_words("trace smtp add binding ", "", "default news");
	assert_words("suspend binding ", "n", "news");
	assert_string_equal(asked, "binding n");
	assert_words("bindings ", "d", "default");
	assert_words("mailq 5 ", "d", "default");
}

static void test_nobody_answers(void **state)
{
	struct complete none = {.names = names, .context = asked};
	json_t *words = complete_words(&none, "domain ", "a");

	(void)state;
	assert_int_equal(json_array_size(words), 0);
	json_decref(words);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commands_word_by_word),
		cmocka_unit_test(test_words_that_a_command_takes),
		cmocka_unit_test(test_names_are_asked_for),
		cmocka_unit_test(test_nobody_answers),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
