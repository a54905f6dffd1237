/*
 * Classes of bounces by the shipped rules: as the program does it, and the two ways that were not
 * taken, one regex after the other and all of them in one with marks. They are given the same
 * patterns; conditions are left to the program's own. Reference: memchr() over the same texts.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <err.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/bounce_class.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define TEXTS (sizeof(texts) / sizeof(texts[0]))

/* What comes often: found early, found late, and found by no word at all. */
static const struct bounce_reason texts[] = {
	{SMTP_STAGE_DURING_RCPT, 550, "5.1.1",
	 "550 5.1.1 <nobody@example.net>: Recipient address rejected: User unknown in virtual mailbox "
	 "table"},
	{SMTP_STAGE_DURING_RCPT, 452, "4.2.2",
	 "452-4.2.2 The email account that you tried to reach is over quota. Please direct the "
	 "recipient to https://support.example/mail/?p=OverQuotaTemp d2e1a72fcca58-7 - gsmtp"},
	{SMTP_STAGE_DURING_MAIL, 421, "4.7.0",
	 "421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred due to unexpected volume or "
	 "user complaints - 4.16.55.1; see https://postmaster.example/error-codes"},
	{SMTP_STAGE_CONFIRMATION, 550, "5.7.1",
	 "550 5.7.1 Service unavailable, client host [192.0.2.7] blocked using zen.spamhaus.org; "
	 "https://check.spamhaus.org/query/ip/192.0.2.7"},
	{SMTP_STAGE_DURING_RCPT, 450, "4.2.0",
	 "450 4.2.0 <to@example.org>: Recipient address rejected: Greylisted, see "
	 "http://postgrey.example/help/example.org.html"},
	{SMTP_STAGE_CONFIRMATION, 554, "5.6.0",
	 "554 5.6.0 transaction has come to nothing (id 4711)"},
};

static struct {
	struct bounce_rules *rules;
	struct bounce_classifier classifier;
	pcre2_code **each;
	pcre2_code *all;
	pcre2_match_data *match;
	size_t lengths[TEXTS];
} world;

static pcre2_code *compile(const char *pattern)
{
	int code;
	PCRE2_SIZE where;
	pcre2_code *regex = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
					  PCRE2_CASELESS | PCRE2_DOTALL | PCRE2_NO_AUTO_CAPTURE,
					  &code, &where, NULL);

	if (regex == NULL) {
		errx(2, "a regex is wrong: %s", pattern);
	}
	(void)pcre2_jit_compile(regex, PCRE2_JIT_COMPLETE);
	return regex;
}

/* The first that holds is to win, wherever it is found: each looks ahead from the start. */
static void compile_all(uint32_t count)
{
	char *pattern = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&pattern, &len);

	fputs("^(?:", f);
	for (uint32_t i = 0; i < count; i++) {
		const struct bounce_rule *rule = bounce_rule_at(world.rules, i);

		world.each[i] = rule->pattern[0] != '\0' ? compile(rule->pattern) : NULL;
		if (world.each[i] != NULL) {
			fprintf(f, "(?=.*?(?:%s))(*MARK:%u)|", rule->pattern, i);
		}
	}
	fputs("(*FAIL))", f);
	fclose(f);
	world.all = compile(pattern);
	free(pattern);
}

static void begin(void)
{
	uint32_t count;

	world.rules = bounce_rules_load(NULL, stderr);
	if (world.rules == NULL) {
		errx(2, "the built-in bounce rules are wrong");
	}
	count = bounce_rules_count(world.rules);
	bounce_classifier_init(&world.classifier, world.rules);
	world.match = pcre2_match_data_create(1, NULL);
	world.each = calloc(count, sizeof(world.each[0]));
	if (world.match == NULL || world.each == NULL) {
		err(2, "regexes");
	}
	compile_all(count);
	for (size_t i = 0; i < TEXTS; i++) {
		world.lengths[i] = strlen(texts[i].text);
	}
}

static void end(void)
{
	for (uint32_t i = 0; i < bounce_rules_count(world.rules); i++) {
		pcre2_code_free(world.each[i]);
	}
	free(world.each);
	pcre2_code_free(world.all);
	pcre2_match_data_free(world.match);
	bounce_classifier_close(&world.classifier);
	bounce_rules_free(world.rules);
}

static uint64_t classify(const void *own)
{
	(void)own;
	for (size_t i = 0; i < TEXTS; i++) {
		measure_use(bounce_classify(&world.classifier, measure_hide(&texts[i]), NULL));
	}
	return TEXTS;
}

static uint64_t one_by_one(const void *own)
{
	uint32_t count = bounce_rules_count(world.rules);

	(void)own;
	for (size_t i = 0; i < TEXTS; i++) {
		const void *text = measure_hide(texts[i].text);
		uint32_t n = 0;

		while (n < count &&
		       (world.each[n] == NULL || pcre2_match(world.each[n], text, world.lengths[i],
							     0, 0, world.match, NULL) < 0)) {
			n++;
		}
		measure_use(n);
	}
	return TEXTS;
}

static uint64_t all_in_one(const void *own)
{
	(void)own;
	for (size_t i = 0; i < TEXTS; i++) {
		int rc = pcre2_match(world.all, measure_hide(texts[i].text), world.lengths[i], 0, 0,
				     world.match, NULL);

		measure_use(rc >= 0 ? *pcre2_get_mark(world.match) : 0);
	}
	return TEXTS;
}

/* A byte that is in none of them. */
static uint64_t walk(const void *own)
{
	(void)own;
	for (size_t i = 0; i < TEXTS; i++) {
		const void *text = measure_hide(texts[i].text);

		measure_use(memchr(text, '\n', world.lengths[i]) != NULL);
	}
	return TEXTS;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = classify,
	 .rows = {{"bounce.classify", "ns", "bounce.memchr"}}},
	{.run = measure_case_ns,
	 .step = one_by_one,
	 .rows = {{"bounce.one_by_one", "ns", "bounce.memchr"}}},
	{.run = measure_case_ns,
	 .step = all_in_one,
	 .rows = {{"bounce.all_in_one", "ns", "bounce.memchr"}}},
	{.run = measure_case_ns, .step = walk, .rows = {{"bounce.memchr", "ns", NULL}}},
};

const struct micro_group micro_bounce = {
	.name = "bounce",
	.label = "classes of bounces, by the shipped rules",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
