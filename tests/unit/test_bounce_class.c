/*
 * Bounce classes: every shipped rule catches its sample and no earlier one does; what a rules file
 * may say; errors with their place. And the filter: what it leaves out could not have matched.
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
#include "core/mail/bounce_filter.h"
#include "tests/unit/bounce_samples.h"

#define SAMPLES (sizeof(bounce_samples) / sizeof(bounce_samples[0]))
#define SHIPPED "config/bounce_rules"

static struct bounce_reason reason_of(const struct bounce_sample *s)
{
	return (struct bounce_reason){s->stage, s->code, s->status, s->text};
}

static struct bounce_rules *parse(const char *text)
{
	struct bounce_rules *rules = bounce_rules_parse("test", text, strlen(text), stderr);

	assert_non_null(rules);
	return rules;
}

/* Class of one reason under the rules of `text`. */
static unsigned classify(const char *text, enum smtp_stage stage, unsigned code, const char *status,
			 const char *said)
{
	struct bounce_reason reason = {stage, code, status, said};
	struct bounce_rules *rules = parse(text);
	struct bounce_classifier c;
	unsigned found;

	bounce_classifier_init(&c, rules);
	found = bounce_classify(&c, &reason, NULL);
	bounce_classifier_close(&c);
	bounce_rules_free(rules);
	return found;
}

static void assert_errors(const char *text, const char *expected)
{
	char *said = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&said, &len);

	assert_null(bounce_rules_parse("rules", text, strlen(text), errors));
	fclose(errors);
	assert_string_equal(said, expected);
	free(said);
}

static void test_shipped_rules_each_catch_their_sample(void **state)
{
	struct bounce_rules *rules = bounce_rules_load(SHIPPED, stderr);
	struct bounce_classifier c;
	unsigned wrong = 0;

	(void)state;
	assert_non_null(rules);
	assert_true(bounce_rules_count(rules) >= 150);
	bounce_classifier_init(&c, rules);
	for (uint32_t i = 0; i < bounce_rules_count(rules) && i < SAMPLES; i++) {
		const struct bounce_rule *own = bounce_rule_at(rules, i);
		const struct bounce_rule *rule;
		struct bounce_reason reason = reason_of(&bounce_samples[i]);
		unsigned found = bounce_classify(&c, &reason, &rule);

		if (rule != own || found != bounce_samples[i].bounce_class) {
			print_error("line %u: \"%s\" is of class %u by line %u\n", own->line,
				    reason.text, found, rule != NULL ? rule->line : 0);
			wrong++;
		}
	}
	assert_int_equal(wrong, 0);
	assert_int_equal(bounce_rules_count(rules), SAMPLES);
	bounce_classifier_close(&c);
	bounce_rules_free(rules);
}

static enum smtp_stage stage_of(const char *name)
{
	static const struct {
		const char *name;
		enum smtp_stage stage;
	} stages[] = {{"connect", SMTP_STAGE_BANNER},    {"ehlo", SMTP_STAGE_DURING_EHLO},
		      {"mail", SMTP_STAGE_DURING_MAIL},  {"rcpt", SMTP_STAGE_DURING_RCPT},
		      {"data", SMTP_STAGE_CONFIRMATION}, {"oob", SMTP_STAGE_OUT_OF_BAND}};

	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
		if (strcmp(name, stages[i].name) == 0) {
			return stages[i].stage;
		}
	}
	fail_msg("%s is no stage", name);
	return SMTP_STAGE_IDLE;
}

/* The codes that a reply starts with, as the outbound connection finds them. */
static struct bounce_reason reason_of_reply(enum smtp_stage stage, const char *reply,
					    char status[16])
{
	struct bounce_reason reason = {stage, 0, "", reply};
	int code = 0;
	int used = 0;

	if (sscanf(reply, "%3d%*1[ -]%n", &code, &used) == 1 && code >= 400) {
		reason.code = (unsigned)code;
		reply += used;
	}
	if (sscanf(reply, "%15[0-9.]", status) == 1 && strchr("45", status[0]) != NULL &&
	    status[1] == '.') {
		reason.status = status;
	}
	return reason;
}

static void test_replies_of_receivers_are_of_their_class(void **state)
{
	struct bounce_rules *rules = bounce_rules_load(SHIPPED, stderr);
	FILE *file = fopen("tests/unit/bounce_replies.txt", "r");
	struct bounce_classifier c;
	unsigned count = 0;
	unsigned wrong = 0;
	char line[1000];

	(void)state;
	assert_non_null(file);
	bounce_classifier_init(&c, rules);
	while (fgets(line, sizeof line, file) != NULL) {
		const struct bounce_rule *rule;
		struct bounce_reason reason;
		unsigned bounce_class;
		char status[16];
		char stage[16];
		int used;

		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '#') {
			continue;
		}
		assert_int_equal(sscanf(line, "%u %15s %n", &bounce_class, stage, &used), 2);
		reason = reason_of_reply(stage_of(stage), line + used, status);
		if (bounce_classify(&c, &reason, &rule) != bounce_class) {
			print_error("\"%s\" is of class %u by line %u\n", line,
				    rule != NULL ? rule->bounce_class : 0,
				    rule != NULL ? rule->line : 0);
			wrong++;
		}
		count++;
	}
	fclose(file);
	bounce_classifier_close(&c);
	bounce_rules_free(rules);
	assert_int_equal(wrong, 0);
	assert_true(count >= 120);
}

static void test_built_in_rules_are_the_shipped_ones(void **state)
{
	struct bounce_rules *shipped = bounce_rules_load(SHIPPED, stderr);
	struct bounce_rules *built_in = bounce_rules_load(NULL, stderr);

	(void)state;
	assert_non_null(built_in);
	assert_int_equal(bounce_rules_count(built_in), bounce_rules_count(shipped));
	for (uint32_t i = 0; i < bounce_rules_count(shipped); i++) {
		assert_string_equal(bounce_rule_at(built_in, i)->pattern,
				    bounce_rule_at(shipped, i)->pattern);
		assert_int_equal(bounce_rule_at(built_in, i)->line,
				 bounce_rule_at(shipped, i)->line);
	}
	bounce_rules_free(built_in);
	bounce_rules_free(shipped);
}

/* One pattern says the same of all samples with the filter and without it. */
static void compare_filtered(const char *pattern)
{
	char *texts[2];
	struct bounce_rules *rules[2];
	struct bounce_classifier c[2];

	assert_true(asprintf(&texts[0], "10 * %s\n", pattern) > 0);
	/* The filter knows nothing of comments, so it is always tried. */
	assert_true(asprintf(&texts[1], "10 * (?#c)%s\n", pattern) > 0);
	for (unsigned i = 0; i < 2; i++) {
		rules[i] = parse(texts[i]);
		bounce_classifier_init(&c[i], rules[i]);
	}
	assert_int_equal(bounce_rules_unfiltered(rules[1]), 1);
	for (size_t i = 0; i < SAMPLES; i++) {
		struct bounce_reason reason = reason_of(&bounce_samples[i]);

		assert_int_equal(bounce_classify(&c[0], &reason, NULL),
				 bounce_classify(&c[1], &reason, NULL));
	}
	for (unsigned i = 0; i < 2; i++) {
		bounce_classifier_close(&c[i]);
		bounce_rules_free(rules[i]);
		free(texts[i]);
	}
}

static void test_filter_changes_no_answer_of_shipped_rules(void **state)
{
	struct bounce_rules *rules = bounce_rules_load(SHIPPED, stderr);

	(void)state;
	for (uint32_t i = 0; i < bounce_rules_count(rules); i++) {
		if (bounce_rule_at(rules, i)->pattern[0] != '\0') {
			compare_filtered(bounce_rule_at(rules, i)->pattern);
		}
	}
	bounce_rules_free(rules);
}

/* Else the filter would be for nothing. */
static void test_filter_leaves_out_most_shipped_rules(void **state)
{
	struct bounce_rules *rules = bounce_rules_load(NULL, stderr);
	uint32_t conditions = 0;

	(void)state;
	for (uint32_t i = 0; i < bounce_rules_count(rules); i++) {
		conditions += bounce_rule_at(rules, i)->pattern[0] == '\0';
	}
	assert_true(bounce_rules_unfiltered(rules) <= conditions + bounce_rules_count(rules) / 3);
	bounce_rules_free(rules);
}

static bool may_match(const char *pattern, const char *text)
{
	struct bounce_filter *f = bounce_filter_create(1);
	uint8_t seen = 2;

	bounce_filter_add(f, 0, pattern);
	bounce_filter_mark(f, text, strlen(text), &seen);
	bounce_filter_free(f);
	assert_true(seen < 2);
	return seen == 1;
}

static void test_filter_knows_what_a_regex_needs(void **state)
{
	static const struct {
		const char *pattern;
		const char *text;
		bool may;
	} table[] = {
		{"mailbox", "the MAILBOX is", true},
		{"mailbox", "the mail box is", false},
		{"full|quota", "over quota", true},
		{"full|quota", "nothing", false},
		/* An alternative without a word, and ones too short. */
		{"full|\\d+", "nothing", true},
		{"ab", "nothing", true},
		{"abc", "nothing", false},
		/* All of what is needed. */
		{"mailbox.*full", "the box is full", false},
		{"mailbox.*(?:full|quota)", "the mailbox is", false},
		{"mailbox.*(?:full|quota)", "the mailbox has no quota", true},
		{"one1.two2.three3.four4.five5.six6.seven7.eight8.nine9",
		 "one1 two2 three3 four4 five5 six6 seven7 eight8", true},
		{"one1.two2.three3.four4.five5.six6.seven7.eight8.nine9",
		 "one1 two2 three3 four4 five5 six6 seven7 nine9", false},
		/* What may be missing is not needed. */
		{"mailboxe?s", "mailboxs", true},
		{"mailboxe*s", "nothing", false},
		{"(?:mailbox)? full", "is full", true},
		{"(?:mailbox){0,1}", "nothing", true},
		{"(?:mailbox)+", "nothing", false},
		{"a(?:unknown|nobody)b", "nobody", true},
		{"a(?:unknown|nobody)b", "nothing", false},
		{"a(?:unknown|no)b", "nothing", true},
		{"(unknown)", "nothing", false},
		{"(?=unknown)", "nothing", true},
		{"(?!unknown)recipient", "recipient", true},
		{"x[unknown]full", "xnfull", true},
		{"x[]unknown(]full", "x]full", true},
		{"x[[:alpha:]]full", "nothing", false},
		{"user\\.name", "user.name", true},
		{"user\\.name", "username", false},
		{"user\\sname", "user name", true},
		/* Not understood: always tried. */
		{"\\x41bcdef", "nothing", true},
		{"(?x)mail box", "nothing", true},
		{"(?i:mailbox)", "nothing", true},
		{"\\Qmail*\\E", "nothing", true},
		{"(*ACCEPT)mailbox", "nothing", true},
		{"mail{box", "nothing", true},
		{"mailbox{2,3}", "nothing", false},
		{"mail(?#box", "nothing", true},
		{"", "", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (may_match(table[i].pattern, table[i].text) != table[i].may) {
			fail_msg("%s in \"%s\"", table[i].pattern, table[i].text);
		}
	}
}

static void test_classify_when_condition_is_of_code_status_or_stage(void **state)
{
	static const struct {
		const char *rules;
		enum smtp_stage stage;
		unsigned code;
		const char *status;
		unsigned found;
	} table[] = {
		{"10 550", SMTP_STAGE_DURING_RCPT, 550, "", 10},
		{"10 550", SMTP_STAGE_DURING_RCPT, 551, "", 1},
		{"10 55x", SMTP_STAGE_DURING_RCPT, 551, "", 10},
		{"10 5xx", SMTP_STAGE_DURING_RCPT, 451, "", 1},
		{"10 xxx", SMTP_STAGE_DURING_RCPT, 0, "", 1},
		{"10 5.1.1", SMTP_STAGE_DURING_RCPT, 0, "5.1.1", 10},
		{"10 5.1.1", SMTP_STAGE_DURING_RCPT, 550, "5.1.10", 1},
		{"10 5.1.1", SMTP_STAGE_DURING_RCPT, 550, NULL, 1},
		{"10 5.1.1", SMTP_STAGE_DURING_RCPT, 550, "5.1.", 1},
		{"10 5.1.x", SMTP_STAGE_DURING_RCPT, 550, "5.1.10", 10},
		{"10 5.7.2x", SMTP_STAGE_DURING_RCPT, 550, "5.7.26", 10},
		{"10 5.7.2x", SMTP_STAGE_DURING_RCPT, 550, "5.7.2", 1},
		{"10 x.7.6xx", SMTP_STAGE_DURING_RCPT, 550, "5.7.606", 10},
		{"10 552,4.2.2", SMTP_STAGE_DURING_RCPT, 452, "4.2.2", 10},
		{"10 4.2.2,552", SMTP_STAGE_DURING_RCPT, 552, "", 10},
		{"10 554@connect", SMTP_STAGE_BANNER, 554, "", 10},
		{"10 554@connect", SMTP_STAGE_DURING_MAIL, 554, "", 1},
		{"10 554@connect,554@mail", SMTP_STAGE_DURING_MAIL, 554, "", 10},
		{"10 *@oob", SMTP_STAGE_OUT_OF_BAND, 0, "", 10},
		{"10 *@data", SMTP_STAGE_CONFIRMATION, 554, "", 10},
		{"10 *@tls", SMTP_STAGE_TLS_HANDSHAKE, 0, "", 10},
		{"10 *@ehlo", SMTP_STAGE_DURING_EHLO, 550, "", 10},
		{"10 *", SMTP_STAGE_UNKNOWN, 0, NULL, 10},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		unsigned found = classify(table[i].rules, table[i].stage, table[i].code,
					  table[i].status, "words");

		if (found != table[i].found) {
			fail_msg("%s: %u", table[i].rules, found);
		}
	}
}

static void test_classify_when_several_rules_hold(void **state)
{
	static const char *const rules = "# a comment\n\n  class 7 = \"Mine\"\r\n"
					 "7 5xx  my \\w+ words # of mine\n"
					 "22\t*\tfull\n10 * USER\n";

	(void)state;
	assert_int_equal(classify(rules, 0, 550, "", "the user is full"), 22);
	assert_int_equal(classify(rules, 0, 550, "", "the User"), 10);
	assert_int_equal(classify(rules, 0, 550, "", "MY own WORDS # of mine"), 7);
	assert_int_equal(classify(rules, 0, 550, "", "my own words"), 1);
	assert_int_equal(classify(rules, 0, 550, "", NULL), 1);
	assert_int_equal(classify("", 0, 550, "", "words"), 1);
	/* What lies behind the end is not looked at. */
	assert_int_equal(classify("10 * (?#)late", 0, 0, "", "late"), 10);
	char *text = calloc(1, BOUNCE_TEXT_MAX + 8);

	memset(text, '.', BOUNCE_TEXT_MAX);
	strcat(text, "late");
	assert_int_equal(classify("10 * (?#)late", 0, 0, "", text), 1);
	assert_int_equal(classify("10 * late", 0, 0, "", text), 1);
	free(text);
}

static void test_classes_have_names(void **state)
{
	struct bounce_rules *rules = parse("class 99 = \"Mine\"\n");

	(void)state;
	assert_string_equal(bounce_class_name(rules, 1), "Undetermined");
	assert_string_equal(bounce_class_name(rules, 100), "Challenge-Response");
	assert_string_equal(bounce_class_name(rules, 99), "Mine");
	assert_null(bounce_class_name(rules, 98));
	assert_null(bounce_class_name(rules, 101));
	bounce_rules_free(rules);
}

/* A regex that would hold after half a million steps does not, and the next one is asked. */
static void test_classify_when_a_regex_takes_too_long(void **state)
{
	static const char rules[] = "10 * ^(?:a+)+$|!$\n20 * a";

	(void)state;
	assert_int_equal(classify(rules, 0, 0, "", "aaaa!"), 10);
	assert_int_equal(classify(rules, 0, 0, "", "aaaaaaaaaaaaaaaaaaaaa!"), 20);
}

static void test_parse_when_lines_are_wrong(void **state)
{
	(void)state;
	assert_errors("10 * fine\nfoo bar\n"
		      "11 * class\n101 * class\n"
		      "10 5.1 x\n10 *@noon x\n10 550,abc x\n"
		      "10 * (unclosed\n",
		      "rules:2: \"foo bar\" is no rule; expected CLASS CONDITION [REGEX], or class "
		      "N = \"name\"\n"
		      "rules:3: class 11 is unknown; expected one of the standard ones, or before "
		      "this line class N = \"name\" with N from 2 to 99\n"
		      "rules:4: class 101 is unknown; expected one of the standard ones, or before "
		      "this line class N = \"name\" with N from 2 to 99\n"
		      "rules:5: condition \"5.1\" is none; expected *, a code such as 550 or 4xx, "
		      "or a status such as 5.1.1 or 5.7.x\n"
		      "rules:6: stage \"@noon\" is none; expected @connect, @ehlo, @tls, @mail, "
		      "@rcpt, @data or @oob\n"
		      "rules:7: condition \"abc\" is none; expected *, a code such as 550 or 4xx, "
		      "or a status such as 5.1.1 or 5.7.x\n"
		      "rules:8: the regex is wrong at its character 10: missing closing "
		      "parenthesis\n");
	assert_errors("class 10 = \"x\"\nclass 100 = \"x\"\nclass 1 = \"x\"\nclass 7\n"
		      "class 7 = \"a\" b\n10\n",
		      "rules:1: class 10 is there already: \"Invalid Recipient\"\n"
		      "rules:2: class 100 cannot be named; expected 2 to 99\n"
		      "rules:3: class 1 cannot be named; expected 2 to 99\n"
		      "rules:4: \"class 7\" names no class; expected class N = \"name\"\n"
		      "rules:5: \"class 7 = \"a\" b\" names no class; expected class N = \"name\"\n"
		      "rules:6: \"10\" is no rule; expected CLASS CONDITION [REGEX], or class N = "
		      "\"name\"\n");
}

static void test_load_when_the_file_is_not_there(void **state)
{
	char *said = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&said, &len);

	(void)state;
	assert_null(bounce_rules_load("/nonexistent/rules", errors));
	fclose(errors);
	assert_string_equal(said, "cannot open bounce rules /nonexistent/rules: No such file or "
				  "directory\n");
	free(said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shipped_rules_each_catch_their_sample),
		cmocka_unit_test(test_replies_of_receivers_are_of_their_class),
		cmocka_unit_test(test_built_in_rules_are_the_shipped_ones),
		cmocka_unit_test(test_filter_changes_no_answer_of_shipped_rules),
		cmocka_unit_test(test_filter_leaves_out_most_shipped_rules),
		cmocka_unit_test(test_filter_knows_what_a_regex_needs),
		cmocka_unit_test(test_classify_when_condition_is_of_code_status_or_stage),
		cmocka_unit_test(test_classify_when_several_rules_hold),
		cmocka_unit_test(test_classes_have_names),
		cmocka_unit_test(test_classify_when_a_regex_takes_too_long),
		cmocka_unit_test(test_parse_when_lines_are_wrong),
		cmocka_unit_test(test_load_when_the_file_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
