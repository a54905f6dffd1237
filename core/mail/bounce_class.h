/*
 * Bounce classes: what kind of failure a server's words tell of. Rules come from a file, one a
 * line, and the first that holds decides; config/bounce_rules is the shipped one, and built in.
 * Rules are compiled once and shared by all; each agent matches with a classifier of its own.
 *
 * Start reading at bounce_classify(); the file's form is told at bounce_rules_parse().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/mail/smtp_stage.h"
#include "core/runtime/thread_class.h"

/* What is looked at of a text; the rest decides nothing. */
#define BOUNCE_TEXT_MAX 1024
#define BOUNCE_RULES_MAX 4096
#define BOUNCE_CLASS_MAX 100

enum bounce_class {
	BOUNCE_UNDETERMINED = 1,
	BOUNCE_INVALID_RECIPIENT = 10,
	BOUNCE_SOFT = 20,
	BOUNCE_DNS = 21,
	BOUNCE_MAILBOX_FULL = 22,
	BOUNCE_TOO_LARGE = 23,
	BOUNCE_TIMEOUT = 24,
	BOUNCE_ADMIN = 25,
	BOUNCE_NO_RECIPIENT = 30,
	BOUNCE_GENERIC = 40,
	BOUNCE_MAIL_BLOCK = 50,
	BOUNCE_SPAM_BLOCK = 51,
	BOUNCE_SPAM_CONTENT = 52,
	BOUNCE_ATTACHMENT = 53,
	BOUNCE_RELAYING = 54,
	BOUNCE_AUTO_REPLY = 60,
	BOUNCE_TRANSIENT = 70,
	BOUNCE_SUBSCRIBE = 80,
	BOUNCE_UNSUBSCRIBE = 90,
	BOUNCE_CHALLENGE = 100,
};

struct bounce_rules;

READONLY
struct bounce_rule {
	unsigned bounce_class;
	/* Where it stands in its file. */
	unsigned line;
	/* As written. */
	const char *condition;
	/* Empty: the condition alone. */
	const char *pattern;
};

/* What was said. */
READONLY
struct bounce_reason {
	enum smtp_stage stage;
	/* 0: none. */
	unsigned code;
	/* "5.1.1"; NULL or empty: none. */
	const char *status;
	/* NULL: none. */
	const char *text;
};

BOUND
struct bounce_classifier {
	const struct bounce_rules *rules;
	struct pcre2_real_match_data_8 *match;
	struct pcre2_real_match_context_8 *context;
	/* Of each rule, whether it may hold. */
	uint8_t *candidates;
};

/*
 * Rules from a text of `len` bytes; `name` is the file's, for errors. A line is empty, a comment
 * that starts with #, or
 *
 *     class 7 = "name"           a class of one's own, 2 to 99, for the rules that follow
 *     CLASS CONDITION [REGEX]    a rule
 *
 * CONDITION: patterns separated by commas, one of which must hold, each of them *, a reply code
 * (550, 55x, 4xx) or an enhanced status (5.1.1, 5.7.2x, x.1.x, an x alone being any number), and
 * after it @STAGE if it is about one stage only: @connect, @ehlo, @tls, @mail, @rcpt, @data, @oob
 * (what came back as mail). REGEX, up to the end of the line, is found anywhere in the text, in any
 * case (PCRE2). Without it the condition decides.
 *
 * NULL when there was any error; each error is one line on `errors`: NAME:LINE: what is wrong.
 */
SINGLE
struct bounce_rules *bounce_rules_parse(const char *name, const char *text, size_t len,
					FILE *errors);

/* The same from the file `path`; NULL: the built-in copy of config/bounce_rules. */
SINGLE
struct bounce_rules *bounce_rules_load(const char *path, FILE *errors);

/* NULL is all right. */
SINGLE
void bounce_rules_free(struct bounce_rules *rules);

READONLY
uint32_t bounce_rules_count(const struct bounce_rules *rules);
/* 0 to count - 1, in the order of the file. */
READONLY
const struct bounce_rule *bounce_rule_at(const struct bounce_rules *rules, uint32_t index);
/* How many rules are tried for any text, as no word of theirs is sure to be in it. */
READONLY
uint32_t bounce_rules_unfiltered(const struct bounce_rules *rules);

/* "Invalid Recipient"; NULL when there is no such class. */
READONLY
const char *bounce_class_name(const struct bounce_rules *rules, unsigned bounce_class);

/* `rules` must outlive the classifier. */
SINGLE
void bounce_classifier_init(struct bounce_classifier *c, const struct bounce_rules *rules);
SINGLE
void bounce_classifier_close(struct bounce_classifier *c);

/* The class of the first rule that holds, or BOUNCE_UNDETERMINED; `*rule` (may be NULL) becomes
 * that rule, or NULL. A regex that takes too many steps does not hold. */
BOUND
unsigned bounce_classify(struct bounce_classifier *c, const struct bounce_reason *reason,
			 const struct bounce_rule **rule);
