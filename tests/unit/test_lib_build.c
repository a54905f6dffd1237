/*
 * Messages as scripts read and write them: what they hold counts as memory of the state.
 */
#include "tests/unit/policy_mail_world.h"

static const char small[] = "Subject: x\r\n\r\nHello\r\n";

static void test_draft_counts_as_memory_of_the_state(void **state)
{
	struct world *w =
		open_world("kept = {} for i = 1, 100 do kept[i] = msys.core.ec_message_new() "
			   "kept[i]:raw(('x'):rep(100000 + i)) end",
			   small, strlen(small));

	(void)state;
	assert_int_equal(run(w), POLICY_FAILED);
	assert_non_null(strstr(w->errors, "not enough memory"));
	close_world(w);
}

static void test_draft_keeps_what_it_was_given(void **state)
{
	struct world *w = open_world(
		"local d = msys.core.ec_message_new() print(#d:raw()) d:raw('a: b\\r\\n\\r\\nc') "
		"print(#d:raw()) d:build({ a = 'b' }, { ['text/plain'] = 'hello' }) "
		"print(d:raw():match('hello') or d:raw()) print(pcall(d.raw, msg))",
		small, strlen(small));

	(void)state;
	assert_int_equal(run(w), POLICY_GO_ON);
	assert_non_null(strstr(w->printed, "0;9;hello;false\tbad argument #1"));
	close_world(w);
}

static void test_fields_are_whole_and_no_more_than_they_are(void **state)
{
	struct world *w = open_world(
		"local d = msys.core.ec_message_new() local to = ('to@good.test, '):rep(200) "
		"local function built(name, value) "
		"local good, why = pcall(d.build, d, { [name] = value }, { ['text/plain'] = 'x' }) "
		"return good and d:raw():match('^(.-)\\r\\nMIME') or why end "
		"print(built('To', to) == 'To: ' .. to, built('A', 'b\\r\\nC: d\\n e')) "
		"for _, name in ipairs { 'A:', 'A\\r\\nB', 'A B', '' } do print(built(name, 'x')) end",
		small, strlen(small));

	(void)state;
	assert_int_equal(run(w), POLICY_GO_ON);
	assert_string_equal(w->printed, "true\tA: b C: d\r\n e;"
					"build: \"A:\" is not the name of a header field;"
					"build: \"A\r\nB\" is not the name of a header field;"
					"build: \"A B\" is not the name of a header field;"
					"build: \"\" is not the name of a header field;");
	close_world(w);
}

/* The text of a message while its parts are looked for: a string of Lua's, which is collected as
 * others are. */
static void test_text_that_is_read_counts_as_memory_of_the_state(void **state)
{
	static const char head[] = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
				   "--b\r\n\r\nsmall\r\n--b\r\nContent-Type: image/png\r\n\r\n";
	size_t len = 1 << 20;
	char *text = malloc(len);
	struct world *w;

	(void)state;
	assert_non_null(text);
	memset(text, 'x', len);
	memcpy(text, head, strlen(head));
	for (size_t i = strlen(head) + 70; i < len; i += 72) {
		memcpy(text + i - 2, "\r\n", 2);
	}
	w = open_world("print(msg:text())", text, len);
	assert_true(policy_memory_max(w->policy) < len);
	assert_int_equal(run(w), POLICY_GO_ON);
	assert_string_equal(w->printed, "small;");
	assert_true(policy_memory_max(w->policy) > len);
	close_world(w);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_draft_counts_as_memory_of_the_state),
		cmocka_unit_test(test_draft_keeps_what_it_was_given),
		cmocka_unit_test(test_fields_are_whole_and_no_more_than_they_are),
		cmocka_unit_test(test_text_that_is_read_counts_as_memory_of_the_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
