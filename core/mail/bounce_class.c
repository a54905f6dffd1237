/*
 * Rules are tried in the order of their file, but only those whose words the filter saw in the
 * text. All regexes one after the other take more than three times as long, and all of them in one,
 * with marks, ten times (fwmicro bounce).
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/mail/bounce_class.h"

#include <ctype.h>
#include <errno.h>
#include <pcre2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/bounce_builtin.h"
#include "core/mail/bounce_filter.h"
#include "core/runtime/check.h"

#define FILE_MAX (1U << 20)
#define NAME_LEN_MAX 64
/* Steps of one match: far above what a sensible rule takes in BOUNCE_TEXT_MAX bytes. */
#define MATCH_LIMIT 100000
#define BUILTIN_NAME "config/bounce_rules"

enum stages {
	AT_ANY,
	AT_CONNECT,
	AT_EHLO,
	AT_TLS,
	AT_MAIL,
	AT_RCPT,
	AT_DATA,
	AT_OUT_OF_BAND,
	STAGES
};

static const char *const stage_words[STAGES] = {
	"", "connect", "ehlo", "tls", "mail", "rcpt", "data", "oob",
};

/* One of a condition's alternatives. */
struct clause {
	/* Points into the rule's condition. */
	const char *pattern;
	size_t len;
	enum stages stage;
};

struct compiled_rule {
	struct bounce_rule rule;
	struct clause *clauses;
	uint32_t clause_count;
	/* NULL: the condition alone. */
	pcre2_code *regex;
};

struct bounce_rules {
	struct compiled_rule *list;
	uint32_t count;
	uint32_t size;
	struct bounce_filter *filter;
	char *names[BOUNCE_CLASS_MAX + 1];
};

/* A file while it is read. */
struct reader {
	struct bounce_rules *rules;
	const char *name;
	FILE *errors;
	unsigned line;
	unsigned wrong;
};

static const struct {
	enum bounce_class number;
	const char *name;
} standard[] = {
	{BOUNCE_UNDETERMINED, "Undetermined"},
	{BOUNCE_INVALID_RECIPIENT, "Invalid Recipient"},
	{BOUNCE_SOFT, "Soft Bounce"},
	{BOUNCE_DNS, "DNS Failure"},
	{BOUNCE_MAILBOX_FULL, "Mailbox Full"},
	{BOUNCE_TOO_LARGE, "Too Large"},
	{BOUNCE_TIMEOUT, "Timeout"},
	{BOUNCE_ADMIN, "Admin Failure"},
	{BOUNCE_NO_RECIPIENT, "Generic Bounce: No RCPT"},
	{BOUNCE_GENERIC, "Generic Bounce"},
	{BOUNCE_MAIL_BLOCK, "Mail Block"},
	{BOUNCE_SPAM_BLOCK, "Spam Block"},
	{BOUNCE_SPAM_CONTENT, "Spam Content"},
	{BOUNCE_ATTACHMENT, "Prohibited Attachment"},
	{BOUNCE_RELAYING, "Relaying Denied"},
	{BOUNCE_AUTO_REPLY, "Auto-Reply"},
	{BOUNCE_TRANSIENT, "Transient Failure"},
	{BOUNCE_SUBSCRIBE, "Subscribe"},
	{BOUNCE_UNSUBSCRIBE, "Unsubscribe"},
	{BOUNCE_CHALLENGE, "Challenge-Response"},
};

static void *allocate(size_t count, size_t size)
{
	return check_memory(calloc(count != 0 ? count : 1, size), "bounce rules");
}

static char *copy_text(const char *text, size_t len)
{
	char *copy = allocate(len + 1, 1);

	memcpy(copy, text, len);
	return copy;
}

static void __attribute__((format(printf, 2, 3))) report(struct reader *r, const char *format, ...)
{
	va_list arguments;

	r->wrong++;
	fprintf(r->errors, "%s:%u: ", r->name, r->line);
	va_start(arguments, format);
	vfprintf(r->errors, format, arguments);
	va_end(arguments);
	fputc('\n', r->errors);
}

/* ---- conditions ---- */

static enum stages stage_of(enum smtp_stage stage)
{
	switch (stage) {
	case SMTP_STAGE_NOT_CONNECTED:
	case SMTP_STAGE_IDLE:
	case SMTP_STAGE_BANNER:
		return AT_CONNECT;
	case SMTP_STAGE_DURING_EHLO:
	case SMTP_STAGE_AFTER_EHLO:
		return AT_EHLO;
	case SMTP_STAGE_DURING_STARTTLS:
	case SMTP_STAGE_AFTER_STARTTLS:
	case SMTP_STAGE_TLS_HANDSHAKE:
	case SMTP_STAGE_TLS_RENEGOTIATION:
		return AT_TLS;
	case SMTP_STAGE_DURING_MAIL:
	case SMTP_STAGE_AFTER_MAIL:
		return AT_MAIL;
	case SMTP_STAGE_DURING_RCPT:
	case SMTP_STAGE_AFTER_RCPT:
		return AT_RCPT;
	case SMTP_STAGE_DURING_DATA:
	case SMTP_STAGE_AFTER_DATA:
	case SMTP_STAGE_BODY:
	case SMTP_STAGE_CONFIRMATION:
		return AT_DATA;
	case SMTP_STAGE_OUT_OF_BAND:
		return AT_OUT_OF_BAND;
	default:
		return AT_ANY;
	}
}

/* One number of a status against "1", "2x" or "x", which is any. */
static bool number_holds(const char *pattern, size_t len, const char *number, size_t number_len)
{
	if (len == 1 && *pattern == 'x') {
		return number_len > 0;
	}
	for (size_t i = 0; i < len && len == number_len; i++) {
		if (pattern[i] != 'x' && pattern[i] != number[i]) {
			return false;
		}
	}
	return len == number_len;
}

static bool status_holds(const struct clause *c, const char *status)
{
	const char *at = c->pattern;
	const char *end = c->pattern + c->len;

	for (unsigned i = 0; i < 3; i++) {
		size_t len = strcspn(at, ".,@");
		size_t number_len = strspn(status, "0123456789");

		if (len > (size_t)(end - at) || !number_holds(at, len, status, number_len)) {
			return false;
		}
		at += len + (i < 2);
		status += number_len;
		if (i < 2 && *status++ != '.') {
			return false;
		}
	}
	return true;
}

static bool code_holds(const struct clause *c, unsigned code)
{
	const char digits[3] = {(char)('0' + code / 100 % 10), (char)('0' + code / 10 % 10),
				(char)('0' + code % 10)};

	for (unsigned i = 0; i < 3; i++) {
		if (c->pattern[i] != 'x' && c->pattern[i] != digits[i]) {
			return false;
		}
	}
	return code != 0;
}

static bool clause_holds(const struct clause *c, const struct bounce_reason *reason)
{
	if (c->stage != AT_ANY && c->stage != stage_of(reason->stage)) {
		return false;
	}
	if (c->pattern[0] == '*') {
		return true;
	}
	if (memchr(c->pattern, '.', c->len) == NULL) {
		return code_holds(c, reason->code);
	}
	return reason->status != NULL && status_holds(c, reason->status);
}

static bool condition_holds(const struct compiled_rule *r, const struct bounce_reason *reason)
{
	for (uint32_t i = 0; i < r->clause_count; i++) {
		if (clause_holds(&r->clauses[i], reason)) {
			return true;
		}
	}
	return false;
}

static bool is_status(const char *pattern, size_t len)
{
	for (unsigned i = 0; i < 3; i++) {
		size_t n = strspn(pattern, "0123456789x");

		if (n == 0 || n > 3 || n > len || (i == 0 && n != 1)) {
			return false;
		}
		pattern += n;
		len -= n;
		if (i < 2) {
			if (len == 0 || *pattern != '.') {
				return false;
			}
			pattern++;
			len--;
		}
	}
	return len == 0;
}

static bool is_pattern(const char *pattern, size_t len)
{
	if (len == 1 && *pattern == '*') {
		return true;
	}
	if (len == 3 && strspn(pattern, "0123456789x") >= 3) {
		return true;
	}
	return is_status(pattern, len);
}

static bool read_clause(struct reader *r, const char *text, size_t len, struct clause *c)
{
	const char *at = memchr(text, '@', len);
	size_t pattern_len = at != NULL ? (size_t)(at - text) : len;

	*c = (struct clause){.pattern = text, .len = pattern_len};
	if (!is_pattern(text, pattern_len)) {
		report(r,
		       "condition \"%.*s\" is none; expected *, a code such as 550 or 4xx, or a "
		       "status such as 5.1.1 or 5.7.x",
		       (int)len, text);
		return false;
	}
	for (unsigned i = AT_CONNECT; at != NULL && i < STAGES; i++) {
		size_t n = strlen(stage_words[i]);

		if (n == (size_t)(text + len - at - 1) && memcmp(at + 1, stage_words[i], n) == 0) {
			c->stage = (enum stages)i;
		}
	}
	if (at != NULL && c->stage == AT_ANY) {
		report(r,
		       "stage \"%.*s\" is none; expected @connect, @ehlo, @tls, @mail, @rcpt, "
		       "@data or @oob",
		       (int)(text + len - at), at);
		return false;
	}
	return true;
}

static bool read_condition(struct reader *r, struct compiled_rule *rule)
{
	const char *at = rule->rule.condition;
	uint32_t count = 1;

	for (const char *p = at; *p != '\0'; p++) {
		count += *p == ',';
	}
	rule->clauses = allocate(count, sizeof(*rule->clauses));
	while (rule->clause_count < count) {
		size_t len = strcspn(at, ",");

		if (!read_clause(r, at, len, &rule->clauses[rule->clause_count])) {
			return false;
		}
		rule->clause_count++;
		at += len + 1;
	}
	return true;
}

/* ---- the file ---- */

static bool compile(struct reader *r, struct compiled_rule *rule)
{
	PCRE2_UCHAR what[128];
	PCRE2_SIZE where;
	int code;

	if (rule->rule.pattern[0] == '\0') {
		return true;
	}
	rule->regex = pcre2_compile((PCRE2_SPTR)rule->rule.pattern, PCRE2_ZERO_TERMINATED,
				    PCRE2_CASELESS | PCRE2_DOTALL | PCRE2_NO_AUTO_CAPTURE, &code,
				    &where, NULL);
	if (rule->regex == NULL) {
		pcre2_get_error_message(code, what, sizeof(what));
		report(r, "the regex is wrong at its character %zu: %s", where + 1, (char *)what);
		return false;
	}
	/* Where no code may be made at run time, it is interpreted. */
	(void)pcre2_jit_compile(rule->regex, PCRE2_JIT_COMPLETE);
	return true;
}

static struct compiled_rule *add_rule(struct bounce_rules *rules)
{
	struct compiled_rule *rule;

	if (rules->count == rules->size) {
		rules->size = rules->size != 0 ? 2 * rules->size : 64;
		rules->list = check_memory(realloc(rules->list, rules->size * sizeof(*rules->list)),
					   "bounce rules");
	}
	rule = &rules->list[rules->count++];
	memset(rule, 0, sizeof(*rule));
	return rule;
}

static size_t skip_blanks(const char *text)
{
	return strspn(text, " \t");
}

/* CLASS CONDITION [REGEX]; `text` has neither blanks nor a line end around it. */
static void read_rule(struct reader *r, const char *text)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);
	struct compiled_rule *rule;
	size_t len;

	if (!isdigit((unsigned char)*text) || skip_blanks(end) == 0) {
		report(r,
		       "\"%.40s\" is no rule; expected CLASS CONDITION [REGEX], or class N = "
		       "\"name\"",
		       text);
		return;
	}
	if (number > BOUNCE_CLASS_MAX || r->rules->names[number] == NULL) {
		report(r,
		       "class %lu is unknown; expected one of the standard ones, or before this "
		       "line class N = \"name\" with N from 2 to 99",
		       number);
		return;
	}
	if (r->rules->count == BOUNCE_RULES_MAX) {
		report(r, "too many rules; expected at most %u", BOUNCE_RULES_MAX);
		return;
	}
	text = end + skip_blanks(end);
	len = strcspn(text, " \t");
	rule = add_rule(r->rules);
	rule->rule = (struct bounce_rule){
		.bounce_class = (unsigned)number,
		.line = r->line,
		.condition = copy_text(text, len),
		.pattern = strdup(text + len + skip_blanks(text + len)),
	};
	if (read_condition(r, rule)) {
		compile(r, rule);
	}
}

/* class N = "name" */
static void read_class(struct reader *r, const char *text)
{
	char name[NAME_LEN_MAX + 1];
	unsigned number;
	int len = 0;

	if (sscanf(text, "class %u = \"%64[^\"]\"%n", &number, name, &len) != 2 || len == 0 ||
	    text[len] != '\0') {
		report(r, "\"%.40s\" names no class; expected class N = \"name\"", text);
	} else if (number < 2 || number >= BOUNCE_CLASS_MAX) {
		report(r, "class %u cannot be named; expected 2 to 99", number);
	} else if (r->rules->names[number] != NULL) {
		report(r, "class %u is there already: \"%s\"", number, r->rules->names[number]);
	} else {
		r->rules->names[number] = strdup(name);
	}
}

static void read_line(struct reader *r, const char *line, size_t len)
{
	char *text;

	while (len > 0 && isspace((unsigned char)line[len - 1])) {
		len--;
	}
	if (memchr(line, '\0', len) != NULL) {
		report(r, "the line has a NUL byte in it; expected text");
		return;
	}
	text = copy_text(line, len);
	line = text + skip_blanks(text);
	if (strncmp(line, "class", 5) == 0) {
		read_class(r, line);
	} else if (*line != '\0' && *line != '#') {
		read_rule(r, line);
	}
	free(text);
}

static struct bounce_rules *rules_new(void)
{
	struct bounce_rules *rules = allocate(1, sizeof(*rules));

	for (size_t i = 0; i < sizeof(standard) / sizeof(standard[0]); i++) {
		rules->names[standard[i].number] = strdup(standard[i].name);
	}
	return rules;
}

static void make_filter(struct bounce_rules *rules)
{
	rules->filter = bounce_filter_create(rules->count);
	for (uint32_t i = 0; i < rules->count; i++) {
		bounce_filter_add(rules->filter, i, rules->list[i].rule.pattern);
	}
}

struct bounce_rules *bounce_rules_parse(const char *name, const char *text, size_t len,
					FILE *errors)
{
	struct reader r = {.rules = rules_new(), .name = name, .errors = errors};
	const char *end = text + len;

	while (text < end) {
		const char *lf = memchr(text, '\n', (size_t)(end - text));
		const char *stop = lf != NULL ? lf : end;

		r.line++;
		read_line(&r, text, (size_t)(stop - text));
		text = lf != NULL ? lf + 1 : end;
	}
	if (r.wrong != 0) {
		bounce_rules_free(r.rules);
		return NULL;
	}
	make_filter(r.rules);
	return r.rules;
}

struct bounce_rules *bounce_rules_load(const char *path, FILE *errors)
{
	struct bounce_rules *rules = NULL;
	char *text;
	size_t len;
	FILE *f;

	if (path == NULL) {
		return bounce_rules_parse(BUILTIN_NAME, bounce_builtin,
					  (size_t)(bounce_builtin_end - bounce_builtin), errors);
	}
	f = fopen(path, "re");
	if (f == NULL) {
		fprintf(errors, "cannot open bounce rules %s: %s\n", path, strerror(errno));
		return NULL;
	}
	text = allocate(FILE_MAX + 1, 1);
	len = fread(text, 1, FILE_MAX + 1, f);
	if (ferror(f)) {
		fprintf(errors, "cannot read bounce rules %s: %s\n", path, strerror(errno));
	} else if (len > FILE_MAX) {
		fprintf(errors, "bounce rules %s: larger than %u bytes\n", path, FILE_MAX);
	} else {
		rules = bounce_rules_parse(path, text, len, errors);
	}
	free(text);
	fclose(f);
	return rules;
}

void bounce_rules_free(struct bounce_rules *rules)
{
	if (rules == NULL) {
		return;
	}
	for (uint32_t i = 0; i < rules->count; i++) {
		struct compiled_rule *r = &rules->list[i];

		pcre2_code_free(r->regex);
		free(r->clauses);
		free((char *)(uintptr_t)r->rule.condition);
		free((char *)(uintptr_t)r->rule.pattern);
	}
	for (unsigned i = 0; i <= BOUNCE_CLASS_MAX; i++) {
		free(rules->names[i]);
	}
	bounce_filter_free(rules->filter);
	free(rules->list);
	free(rules);
}

uint32_t bounce_rules_count(const struct bounce_rules *rules)
{
	return rules->count;
}

const struct bounce_rule *bounce_rule_at(const struct bounce_rules *rules, uint32_t index)
{
	ASSERT(index < rules->count);
	return &rules->list[index].rule;
}

uint32_t bounce_rules_unfiltered(const struct bounce_rules *rules)
{
	return bounce_filter_always(rules->filter);
}

const char *bounce_class_name(const struct bounce_rules *rules, unsigned bounce_class)
{
	return bounce_class <= BOUNCE_CLASS_MAX ? rules->names[bounce_class] : NULL;
}

/* ---- classification ---- */

void bounce_classifier_init(struct bounce_classifier *c, const struct bounce_rules *rules)
{
	*c = (struct bounce_classifier){
		.rules = rules,
		.match = pcre2_match_data_create(1, NULL),
		.context = pcre2_match_context_create(NULL),
		.candidates = allocate(rules->count, 1),
	};
	if (c->match == NULL || c->context == NULL) {
		fatal("out of memory for bounce rules");
	}
	pcre2_set_match_limit(c->context, MATCH_LIMIT);
}

void bounce_classifier_close(struct bounce_classifier *c)
{
	pcre2_match_data_free(c->match);
	pcre2_match_context_free(c->context);
	free(c->candidates);
	*c = (struct bounce_classifier){.rules = NULL};
}

static bool rule_holds(struct bounce_classifier *c, const struct compiled_rule *r,
		       const struct bounce_reason *reason, const char *text, size_t len)
{
	if (!condition_holds(r, reason)) {
		return false;
	}
	return r->regex == NULL ||
	       pcre2_match(r->regex, (PCRE2_SPTR)text, len, 0, 0, c->match, c->context) >= 0;
}

unsigned bounce_classify(struct bounce_classifier *c, const struct bounce_reason *reason,
			 const struct bounce_rule **rule)
{
	const struct bounce_rules *rules = c->rules;
	const char *text = reason->text != NULL ? reason->text : "";
	size_t len = strnlen(text, BOUNCE_TEXT_MAX);

	bounce_filter_mark(rules->filter, text, len, c->candidates);
	for (uint32_t i = 0; i < rules->count; i++) {
		const struct compiled_rule *r = &rules->list[i];

		if (c->candidates[i] != 0 && rule_holds(c, r, reason, text, len)) {
			if (rule != NULL) {
				*rule = &r->rule;
			}
			return r->rule.bounce_class;
		}
	}
	if (rule != NULL) {
		*rule = NULL;
	}
	return BOUNCE_UNDETERMINED;
}
