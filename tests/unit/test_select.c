/* Selectors: their words, and what they mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "listeners/control/select.h"

#define WALL_MS UINT64_C(1700000000000)

/* Parses a line split at blanks; the words that it took, or -EINVAL. */
static int parse(struct selectors *s, const char *line, char why[SELECT_WHY])
{
	static char copy[512];
	char *words[32];
	unsigned count = 0;

	why[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *rest = copy, *word; (word = strsep(&rest, " ")) != NULL;) {
		words[count++] = word;
	}
	return select_parse(s, words, count, why);
}

static struct selectors parsed(const char *line)
{
	struct selectors s;
	char why[SELECT_WHY];

	if (parse(&s, line, why) < 0) {
		fail_msg("%s: %s", line, why);
	}
	return s;
}

static void test_pattern_matches_in_any_case_and_anything_for_a_star(void **state)
{
	static const struct {
		const char *pattern;
		const char *text;
		bool matches;
	} samples[] = {
		{"abc", "ABC", true},    {"abc", "abcd", false},   {"abc", "ab", false},
		{"a*", "a", true},       {"a*", "abc", true},      {"*c", "abc", true},
		{"*c", "abd", false},    {"a*c", "ac", true},      {"a*b*c", "aXbYbZc", true},
		{"a*b*c", "acb", false}, {"*", "", true},          {"", "", true},
		{"", "a", false},        {"**a", "bba", true},     {"*ab*ab", "abab", true},
		{"*aab", "aaab", true},  {"*ab*ab", "xab", false}, {"a*a", "a", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		if (select_matches(samples[i].pattern, samples[i].text) != samples[i].matches) {
			fail_msg("%s %s", samples[i].pattern, samples[i].text);
		}
	}
	assert_true(select_matches_address("@x.example", "a@b@X.Example"));
	assert_false(select_matches_address("@x.example", "a@sub.x.example"));
	assert_true(select_matches_address("@*x.example", "a@sub.x.example"));
	assert_false(select_matches_address("@x.example", ""));
	assert_true(select_matches_address("a@*", "A@x"));
}

static void test_parse_ends_at_the_first_word_that_is_none(void **state)
{
	struct selectors s;
	char why[SELECT_WHY];

	(void)state;
	assert_int_equal(parse(&s, "domain a.example older 2h limit 5", why), 4);
	assert_int_equal(s.count, 2);
	assert_string_equal(s.domain, "a.example");
	assert_int_equal(s.older_ms, 7200000);
	assert_int_equal(parse(&s, "limit 5", why), 0);
	assert_int_equal(s.count, 0);
	assert_int_equal(parse(&s, "larger=1K header=X-Job 17 state=held quiet", why), 4);
	assert_int_equal(s.larger_bytes, 1024);
	assert_string_equal(s.header, "X-Job");
	assert_string_equal(s.header_pattern, "17");
	assert_int_equal(s.states, SELECT_HELD);
	assert_int_equal(parse(&s, "ALL dry_run", why), 1);
	assert_true(s.all);
	/* A value may look like a selector. */
	assert_int_equal(parse(&s, "text domain", why), 2);
	assert_string_equal(s.text, "domain");
	assert_null(s.domain);
	s = parsed("domain B\xc3\xbc"
		   "cher.example");
	assert_string_equal(s.domain, "xn--bcher-kva.example");
}

static void test_parse_names_the_word_that_is_wrong(void **state)
{
	static const char *const samples[][2] = {
		{"domain", "\"domain\" needs a value"},
		{"domain a domain b", "\"domain\" is said twice"},
		{"domain a@b", "domain: \"a@b\" is not a domain name"},
		{"older never", "older: \"never\""},
		{"newer 0", "newer: \"0\" is no time"},
		{"larger 0", "larger: \"0\" is no size"},
		{"attempts 0", "attempts: \"0\""},
		{"attempts 70000", "attempts: \"70000\""},
		{"state gone", "state: \"gone\" is no state"},
		{"header X-A", "header X-A: which value"},
		{"header X: 1", "header: \"X:\" is not the name"},
		{"id 1", "id: \"1\" is not a message id"},
		{"all older 1h", "\"all\" and other selectors"},
		{"text=", "text: \"\" says nothing"},
	};
	struct selectors s;
	char why[SELECT_WHY];

	(void)state;
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		assert_true(parse(&s, samples[i][0], why) < 0);
		if (strstr(why, samples[i][1]) == NULL) {
			fail_msg("%s: %s", samples[i][0], why);
		}
	}
}

/* ---- deliveries ---- */

struct mail {
	struct domain domain;
	struct message message;
	struct delivery delivery;
};

static struct mail mail_made(void)
{
	return (struct mail){
		.domain = {.name = "a.example", .binding = "news"},
		.message = {.id = {1, 2}, .received_ms = WALL_MS - 60000, .body_bytes = 1000},
		.delivery = {.place = DELIVERY_DELAYED, .attempts = 3},
	};
}

static bool meant(const char *line, struct mail *m)
{
	struct selectors s = parsed(line);

	m->delivery.message = &m->message;
	return select_record(&s, &m->domain) && select_delivery(&s, &m->delivery, WALL_MS);
}

static void test_delivery_is_meant_when_all_selectors_match(void **state)
{
	struct mail m = mail_made();
	char text[] = "452 4.2.2 mailbox full";
	char id[MESSAGE_ID_TEXT];
	char line[64];

	(void)state;
	assert_true(meant("all", &m));
	assert_true(meant("domain *.EXAMPLE", &m));
	assert_false(meant("domain *.example.net", &m));
	assert_true(meant("binding news", &m));
	assert_false(meant("binding new", &m));
	assert_true(meant("older 59s", &m));
	assert_false(meant("older 60s", &m));
	assert_true(meant("newer 61s", &m));
	assert_false(meant("newer 60s", &m));
	assert_true(meant("larger 999", &m));
	assert_false(meant("larger 1000", &m));
	assert_true(meant("attempts 3", &m));
	assert_false(meant("attempts 4", &m));
	assert_true(meant("state delayed", &m));
	assert_false(meant("state active", &m));
	assert_false(meant("state held", &m));
	assert_false(meant("text *", &m));
	m.delivery.last_text = text;
	assert_true(meant("text *4.2.2*", &m));
	assert_false(meant("text 4.2.2", &m));
	assert_false(meant("domain a.example state held", &m));
	assert_true(meant("domain a.example binding=news state delayed attempts 1", &m));
	m.delivery.place = DELIVERY_HELD;
	assert_true(meant("state held", &m));
	m.delivery.place = DELIVERY_ATTEMPT;
	assert_true(meant("state active", &m));
	message_id_format(&m.message.id, id);
	snprintf(line, sizeof(line), "id %s", id);
	assert_true(meant(line, &m));
	m.message.id.low++;
	assert_false(meant(line, &m));
}

/* ---- envelopes ---- */

static const char header[] =
	"Received: x\r\nX-Job: 17\r\nSubject: Hello\r\n there\r\n\r\nX-Late: 1\r\n";

static struct envelope *envelope_of(const char *sender, const char *const *recipients)
{
	struct envelope_builder b;
	struct envelope *e;

	envelope_builder_init(&b);
	envelope_set_sender(&b, sender, strlen(sender));
	for (; *recipients != NULL; recipients++) {
		envelope_add_recipient(&b, *recipients, strlen(*recipients));
	}
	e = calloc(1, envelope_size(&b));
	assert_non_null(e);
	envelope_build(&b, e);
	envelope_builder_close(&b);
	e->received_ms = WALL_MS - 1000;
	e->body_bytes = 500;
	return e;
}

static bool message_meant(const char *line, const struct envelope *e)
{
	struct selectors s = parsed(line);

	return select_message(&s, e, header, sizeof(header) - 1, WALL_MS);
}

static void test_message_is_meant_by_sender_and_header(void **state)
{
	static const char *const recipients[] = {"bob@a.example", NULL};
	struct envelope *e = envelope_of("News@here.example", recipients);
	struct envelope *null = envelope_of("", recipients);

	(void)state;
	assert_true(message_meant("sender news@HERE.example", e));
	assert_true(message_meant("sender @here.example", e));
	assert_false(message_meant("sender @example", e));
	assert_false(message_meant("sender <>", e));
	assert_true(message_meant("sender <>", null));
	assert_false(message_meant("sender @*", null));
	assert_true(message_meant("header x-job 17", e));
	assert_true(message_meant("header Subject hello*there", e));
	assert_false(message_meant("header X-Job 1", e));
	assert_false(message_meant("header X-Late *", e));
	assert_true(message_meant("older 900ms recipient bob@a.example", e));
	assert_false(message_meant("older 1s recipient bob@a.example", e));
	assert_false(message_meant("larger 500 sender @here.example", e));
	free(e);
	free(null);
}

static void test_recipients_are_told_one_by_one(void **state)
{
	static const char *const recipients[] = {"bob@a.example", "carol@a.example",
						 "bobby@a.example", "bob@b.example", NULL};
	struct envelope *e = envelope_of("x@y", recipients);
	struct selectors s = parsed("recipient bob*@a.example");
	struct recipient_set first;
	struct recipient_set second;

	(void)state;
	assert_string_equal(envelope_domain(e, 0), "a.example");
	first = select_recipients(&s, e, 0);
	second = select_recipients(&s, e, 1);
	assert_int_equal(recipient_set_count(&first), 2);
	assert_int_equal(recipient_set_count(&second), 0);
	for (unsigned i = 0; i < 3; i++) {
		const char *address = envelope_address(e, envelope_delivery(e, 0)->first + i);

		assert_int_equal(recipient_set_has(&first, i), address[0] == 'b');
	}
	s = parsed("sender *");
	first = select_recipients(&s, e, 0);
	assert_int_equal(recipient_set_count(&first), 3);
	free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pattern_matches_in_any_case_and_anything_for_a_star),
		cmocka_unit_test(test_parse_ends_at_the_first_word_that_is_none),
		cmocka_unit_test(test_parse_names_the_word_that_is_wrong),
		cmocka_unit_test(test_delivery_is_meant_when_all_selectors_match),
		cmocka_unit_test(test_message_is_meant_by_sender_and_header),
		cmocka_unit_test(test_recipients_are_told_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
