#include "agents/trace.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "config/word.h"

static struct in6_addr address(const char *text)
{
	struct in6_addr a;

	assert_null(word_ip(text, &a));
	return a;
}

static struct trace_facts inbound(const char *peer, const char *listener)
{
	return (struct trace_facts){.inbound = true, .peer = address(peer), .listener = listener};
}

static struct trace_facts outbound(const char *peer, const char *binding, const char *domain)
{
	return (struct trace_facts){.peer = address(peer), .binding = binding, .domain = domain};
}

static enum trace_match match(const struct trace_spec *spec, struct trace_facts f)
{
	return trace_matches(spec, &f);
}

static void test_matches_when_all_conditions_are_met(void **state)
{
	struct trace_spec any = {.sample = 1};
	struct trace_spec in = {.direction = TRACE_IN};
	struct trace_spec out = {.direction = TRACE_OUT};
	struct trace_spec binding = {.direction = TRACE_OUT, .binding = "news"};
	struct trace_spec listener = {.direction = TRACE_IN, .listener = "*:25"};
	struct trace_spec domain = {.domain = "a.test"};
	struct trace_spec peer = {.has_peer = true};

	(void)state;
	assert_null(word_cidr("192.0.2.0/24", &peer.peer));
	assert_int_equal(match(&any, inbound("192.0.2.1", "*:25")), TRACE_YES);
	assert_int_equal(match(&any, outbound("::1", "news", NULL)), TRACE_YES);
	assert_int_equal(match(&in, inbound("::1", "*:25")), TRACE_YES);
	assert_int_equal(match(&in, outbound("::1", "news", "a.test")), TRACE_NO);
	assert_int_equal(match(&out, inbound("::1", "*:25")), TRACE_NO);
	assert_int_equal(match(&out, outbound("::1", "news", "a.test")), TRACE_YES);
	assert_int_equal(match(&binding, outbound("::1", "news", "a.test")), TRACE_YES);
	assert_int_equal(match(&binding, outbound("::1", "newsletter", "a.test")), TRACE_NO);
	assert_int_equal(match(&binding, inbound("::1", "*:25")), TRACE_NO);
	assert_int_equal(match(&listener, inbound("::1", "*:25")), TRACE_YES);
	assert_int_equal(match(&listener, inbound("::1", "*:587")), TRACE_NO);
	assert_int_equal(match(&peer, inbound("192.0.2.255", "*:25")), TRACE_YES);
	assert_int_equal(match(&peer, inbound("192.0.3.0", "*:25")), TRACE_NO);
	assert_int_equal(match(&peer, inbound("2001:db8::c000:201", "*:25")), TRACE_NO);
	assert_int_equal(match(&domain, outbound("::1", "news", "a.test")), TRACE_YES);
	assert_int_equal(match(&domain, outbound("::1", "news", "b.test")),
			 TRACE_WHEN_DOMAIN_IS_KNOWN);
	assert_int_equal(match(&domain, inbound("::1", "*:25")), TRACE_WHEN_DOMAIN_IS_KNOWN);
}

static void test_admits_its_sample_up_to_its_maximum(void **state)
{
	struct trace t = {.magic = TRACE_MAGIC, .spec = {.sample = 3, .sessions_max = 2}};
	char admitted[13] = "";

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		admitted[i] = trace_admit(&t) ? 'x' : '.';
	}
	assert_string_equal(admitted, "x..x........");
	assert_int_equal(t.sessions, 2);
	assert_int_equal(t.matched, 12);
}

static void test_takes_lines_within_bytes_and_time(void **state)
{
	struct trace t = {.spec = {.bytes_max = 100}, .until_wall_ms = 1000};

	(void)state;
	assert_true(trace_take(&t, 60, 999));
	assert_false(t.full);
	assert_false(trace_take(&t, 41, 999));
	assert_true(t.full);
	assert_true(trace_take(&t, 40, 999));
	assert_false(trace_take(&t, 0, 1000));
	assert_int_equal(t.bytes, 100);
	assert_int_equal(t.lines, 2);
	assert_int_equal(t.dropped, 1);
}

static void test_names_stay_in_their_folder(void **state)
{
	char longest[TRACE_NAME_MAX + 2];

	(void)state;
	memset(longest, 'a', sizeof(longest));
	longest[TRACE_NAME_MAX + 1] = '\0';
	assert_non_null(trace_name_wrong(longest));
	longest[TRACE_NAME_MAX] = '\0';
	assert_null(trace_name_wrong(longest));
	assert_null(trace_name_wrong("gmail-2.log"));
	assert_non_null(trace_name_wrong(""));
	assert_non_null(trace_name_wrong(".hidden"));
	assert_non_null(trace_name_wrong(".."));
	assert_non_null(trace_name_wrong("a/b"));
	assert_non_null(trace_name_wrong("a b"));
	assert_non_null(trace_name_wrong("a\nb"));
}

static void test_says_its_conditions(void **state)
{
	struct trace_spec all = {.direction = TRACE_OUT,
				 .domain = "a.test",
				 .has_peer = true,
				 .binding = "news",
				 .sample = 10,
				 .content = true};
	struct trace_spec none = {.sample = 1};
	char text[128];

	(void)state;
	assert_null(word_cidr("192.0.2.0/24", &all.peer));
	trace_describe(&all, text, sizeof(text));
	assert_string_equal(text, "direction out domain a.test peer 192.0.2.0/24 binding news "
				  "sample 1/10 content");
	trace_describe(&all, text, 20);
	assert_string_equal(text, "direction out domai");
	trace_describe(&none, text, sizeof(text));
	assert_string_equal(text, "");
	none = (struct trace_spec){.has_peer = true, .direction = TRACE_IN, .listener = "[::1]:25"};
	assert_null(word_cidr("2001:db8::1", &none.peer));
	trace_describe(&none, text, sizeof(text));
	assert_string_equal(text, "direction in peer 2001:db8::1 listener [::1]:25");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matches_when_all_conditions_are_met),
		cmocka_unit_test(test_admits_its_sample_up_to_its_maximum),
		cmocka_unit_test(test_takes_lines_within_bytes_and_time),
		cmocka_unit_test(test_names_stay_in_their_folder),
		cmocka_unit_test(test_says_its_conditions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
