#include "core/mail/smtp_command.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

static const struct smtp_refusal refuse_long = {500, "5.5.2", "Line too long"};
static const struct smtp_refusal refuse_control = {500, "5.5.2", "Control characters in a command"};
static const struct smtp_refusal refuse_8bit = {500, "5.5.2", "Command is not ASCII"};
static const struct smtp_refusal refuse_unknown = {500, "5.5.2", "Command not recognized"};
static const struct smtp_refusal refuse_argument = {501, "5.5.4", "No argument allowed"};
static const struct smtp_refusal refuse_no_argument = {501, "5.5.4", "Argument required"};
static const struct smtp_refusal refuse_helo = {501, "5.5.4", "Syntax: EHLO hostname"};
static const struct smtp_refusal refuse_mail = {501, "5.5.2", "Syntax: MAIL FROM:<address>"};
static const struct smtp_refusal refuse_rcpt = {501, "5.5.2", "Syntax: RCPT TO:<address>"};
static const struct smtp_refusal refuse_bdat = {501, "5.5.4", "Syntax: BDAT size [LAST]"};
static const struct smtp_refusal refuse_parameter = {501, "5.5.4", "Bad parameter syntax"};
static const struct smtp_refusal refuse_twice = {501, "5.5.4", "Parameter given twice"};
static const struct smtp_refusal refuse_size = {501, "5.5.4", "Syntax: SIZE=bytes"};
static const struct smtp_refusal refuse_body = {501, "5.5.4", "Syntax: BODY=7BIT or 8BITMIME"};
static const struct smtp_refusal refuse_flag = {501, "5.5.4", "Parameter takes no value"};
static const struct smtp_refusal refuse_unknown_parameter = {555, "5.5.4",
							     "Parameter not recognized"};

/* A piece of the line. */
struct slice {
	const char *at;
	const char *end;
};

static size_t slice_len(struct slice s)
{
	return (size_t)(s.end - s.at);
}

static bool slice_is(struct slice s, const char *word)
{
	size_t len = strlen(word);

	return slice_len(s) == len && strncasecmp(s.at, word, len) == 0;
}

static struct slice skip_spaces(struct slice s)
{
	while (s.at < s.end && *s.at == ' ') {
		s.at++;
	}
	return s;
}

static struct slice trim(struct slice s)
{
	s = skip_spaces(s);
	while (s.end > s.at && s.end[-1] == ' ') {
		s.end--;
	}
	return s;
}

/* Takes the word up to the next space off the front. */
static struct slice take_word(struct slice *s)
{
	struct slice word = {.at = s->at, .end = s->at};

	while (word.end < s->end && *word.end != ' ') {
		word.end++;
	}
	s->at = word.end;
	return word;
}

typedef const struct smtp_refusal *(*argument_fn)(struct smtp_command *c, struct slice argument);

static bool has_control(const char *line, size_t len)
{
	bool found = false;

	for (size_t i = 0; i < len; i++) {
		found |= (unsigned char)line[i] < ' ' || line[i] == 127;
	}
	return found;
}

static bool has_8bit(struct slice s)
{
	unsigned char all = 0;

	for (; s.at < s.end; s.at++) {
		all |= (unsigned char)*s.at;
	}
	return all >= 0x80;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* 1 to 20 digits; what needs more than 64 bits becomes UINT64_MAX. */
static bool parse_number(struct slice s, uint64_t *number)
{
	uint64_t n = 0;

	if (slice_len(s) == 0 || slice_len(s) > 20) {
		return false;
	}
	for (; s.at < s.end; s.at++) {
		uint64_t digit = (uint64_t)(*s.at - '0');

		if (!is_digit(*s.at)) {
			return false;
		}
		n = n > (UINT64_MAX - digit) / 10 ? UINT64_MAX : n * 10 + digit;
	}
	*number = n;
	return true;
}

static const struct smtp_refusal *parse_none(struct smtp_command *c, struct slice argument)
{
	(void)c;
	return slice_len(argument) == 0 ? NULL : &refuse_argument;
}

static const struct smtp_refusal *parse_any(struct smtp_command *c, struct slice argument)
{
	(void)c;
	(void)argument;
	return NULL;
}

static const struct smtp_refusal *parse_some(struct smtp_command *c, struct slice argument)
{
	(void)c;
	return slice_len(argument) != 0 ? NULL : &refuse_no_argument;
}

/* One word; what it says is taken as told. */
static const struct smtp_refusal *parse_hello(struct smtp_command *c, struct slice argument)
{
	struct slice word = take_word(&argument);

	(void)c;
	return slice_len(word) != 0 && slice_len(argument) == 0 && slice_len(word) <= 255
		       ? NULL
		       : &refuse_helo;
}

static const struct smtp_refusal *parse_bdat(struct smtp_command *c, struct slice argument)
{
	struct slice size = take_word(&argument);

	argument = skip_spaces(argument);
	c->last = slice_is(argument, "LAST");
	if (!parse_number(size, &c->size) || (slice_len(argument) != 0 && !c->last)) {
		return &refuse_bdat;
	}
	c->has_size = true;
	return NULL;
}

/* RFC 5321 section 4.1.2: esmtp-keyword and esmtp-value. */
static bool parameter_split(struct slice parameter, struct slice *keyword, struct slice *value,
			    bool *has_value)
{
	const char *equals = memchr(parameter.at, '=', slice_len(parameter));

	*has_value = equals != NULL;
	*keyword = (struct slice){parameter.at, equals != NULL ? equals : parameter.end};
	*value = (struct slice){equals != NULL ? equals + 1 : parameter.end, parameter.end};
	if (slice_len(*keyword) == 0 || *keyword->at == '-' ||
	    (*has_value &&
	     (slice_len(*value) == 0 || memchr(value->at, '=', slice_len(*value)) != NULL))) {
		return false;
	}
	for (const char *p = keyword->at; p < keyword->end; p++) {
		if (!is_digit(*p) && *p != '-' && !(*p >= 'A' && *p <= 'Z') &&
		    !(*p >= 'a' && *p <= 'z')) {
			return false;
		}
	}
	return true;
}

static const struct smtp_refusal *parse_size(struct smtp_command *c, struct slice value)
{
	if (c->has_size) {
		return &refuse_twice;
	}
	c->has_size = true;
	return parse_number(value, &c->size) ? NULL : &refuse_size;
}

static const struct smtp_refusal *parse_body(struct smtp_command *c, struct slice value)
{
	if (c->has_body) {
		return &refuse_twice;
	}
	c->has_body = true;
	c->body = slice_is(value, "8BITMIME") ? SMTP_BODY_8BITMIME : SMTP_BODY_7BIT;
	return c->body == SMTP_BODY_8BITMIME || slice_is(value, "7BIT") ? NULL : &refuse_body;
}

/* SMTPUTF8, REQUIRETLS */
static const struct smtp_refusal *parse_flag(bool *flag, bool has_value)
{
	if (*flag) {
		return &refuse_twice;
	}
	*flag = true;
	return has_value ? &refuse_flag : NULL;
}

/* RFC 3461 */
typedef bool (*dsn_fn)(struct dsn_parameters *p, const char *keyword, size_t keyword_len,
		       const char *value, size_t value_len, const struct smtp_refusal **refusal);

static const struct smtp_refusal *parse_dsn(struct smtp_command *c, dsn_fn take,
					    struct slice keyword, struct slice value,
					    bool has_value)
{
	const struct smtp_refusal *refusal;

	if (!take(&c->dsn, keyword.at, slice_len(keyword), has_value ? value.at : NULL,
		  slice_len(value), &refusal)) {
		return &refuse_unknown_parameter;
	}
	return refusal;
}

static const struct smtp_refusal *parse_mail_parameter(struct smtp_command *c,
						       struct slice parameter)
{
	struct slice keyword;
	struct slice value;
	bool has_value;

	if (!parameter_split(parameter, &keyword, &value, &has_value)) {
		return &refuse_parameter;
	}
	if (slice_is(keyword, "SIZE")) {
		return parse_size(c, value);
	}
	if (slice_is(keyword, "BODY")) {
		return parse_body(c, value);
	}
	if (slice_is(keyword, "SMTPUTF8")) {
		return parse_flag(&c->smtputf8, has_value);
	}
	if (slice_is(keyword, "REQUIRETLS")) {
		return parse_flag(&c->requiretls, has_value);
	}
	return parse_dsn(c, dsn_parameter_mail, keyword, value, has_value);
}

static const struct smtp_refusal *parse_rcpt_parameter(struct smtp_command *c,
						       struct slice parameter)
{
	struct slice keyword;
	struct slice value;
	bool has_value;

	return parameter_split(parameter, &keyword, &value, &has_value)
		       ? parse_dsn(c, dsn_parameter_rcpt, keyword, value, has_value)
		       : &refuse_parameter;
}

/* Takes the path, from "<" to the ">" outside of quotes; what is between is address_parse()'s. */
static bool take_path(struct slice *s, struct slice *path)
{
	const char *p = s->at;
	bool quoted = false;

	if (p == s->end || *p != '<') {
		return false;
	}
	for (; p < s->end && (quoted || *p != '>'); p++) {
		if (*p == '"') {
			quoted = !quoted;
		} else if (*p == '\\' && quoted && p + 1 < s->end) {
			p++;
		}
	}
	if (p >= s->end) {
		return false;
	}
	*path = (struct slice){s->at, p + 1};
	s->at = p + 1;
	return s->at == s->end || *s->at == ' ';
}

/* "FROM:" or "TO:", path, parameters. */
static const struct smtp_refusal *parse_path(struct smtp_command *c, struct slice argument,
					     const char *prefix,
					     const struct smtp_refusal *bad_syntax,
					     argument_fn on_parameter)
{
	size_t prefix_len = strlen(prefix);
	struct slice path;

	if (slice_len(argument) < prefix_len || strncasecmp(argument.at, prefix, prefix_len) != 0) {
		return bad_syntax;
	}
	argument.at += prefix_len;
	argument = skip_spaces(argument);
	if (!take_path(&argument, &path)) {
		return bad_syntax;
	}
	c->path = path.at;
	c->path_len = slice_len(path);
	if (has_8bit(argument)) {
		return &refuse_8bit;
	}
	for (argument = skip_spaces(argument); slice_len(argument) != 0;
	     argument = skip_spaces(argument)) {
		const struct smtp_refusal *refusal = on_parameter(c, take_word(&argument));

		if (refusal != NULL) {
			return refusal;
		}
	}
	return NULL;
}

static const struct smtp_refusal *parse_mail(struct smtp_command *c, struct slice argument)
{
	return parse_path(c, argument, "FROM:", &refuse_mail, parse_mail_parameter);
}

static const struct smtp_refusal *parse_rcpt(struct smtp_command *c, struct slice argument)
{
	return parse_path(c, argument, "TO:", &refuse_rcpt, parse_rcpt_parameter);
}

/* By enum smtp_verb. */
static const struct {
	const char *name;
	argument_fn parse;
} verbs[] = {
	[SMTP_VERB_UNKNOWN] = {"unknown", NULL},
	[SMTP_VERB_HELO] = {"HELO", parse_hello},
	[SMTP_VERB_EHLO] = {"EHLO", parse_hello},
	[SMTP_VERB_MAIL] = {"MAIL", parse_mail},
	[SMTP_VERB_RCPT] = {"RCPT", parse_rcpt},
	[SMTP_VERB_DATA] = {"DATA", parse_none},
	[SMTP_VERB_RSET] = {"RSET", parse_none},
	[SMTP_VERB_NOOP] = {"NOOP", parse_any},
	[SMTP_VERB_QUIT] = {"QUIT", parse_none},
	[SMTP_VERB_VRFY] = {"VRFY", parse_some},
	[SMTP_VERB_EXPN] = {"EXPN", parse_some},
	[SMTP_VERB_HELP] = {"HELP", parse_any},
	[SMTP_VERB_STARTTLS] = {"STARTTLS", parse_none},
	[SMTP_VERB_AUTH] = {"AUTH", parse_some},
	[SMTP_VERB_BDAT] = {"BDAT", parse_bdat},
	[SMTP_VERB_XCLIENT] = {"XCLIENT", parse_some},
};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

const char *smtp_verb_name(enum smtp_verb verb)
{
	return (unsigned)verb < VERBS ? verbs[verb].name : verbs[SMTP_VERB_UNKNOWN].name;
}

static enum smtp_verb verb_of(struct slice word)
{
	for (unsigned i = SMTP_VERB_UNKNOWN + 1; i < VERBS; i++) {
		if (slice_is(word, verbs[i].name)) {
			return (enum smtp_verb)i;
		}
	}
	return SMTP_VERB_UNKNOWN;
}

static const struct smtp_refusal *parse(struct smtp_command *c, const char *line, size_t len)
{
	struct slice rest = {.at = line, .end = line + len};
	bool path;

	c->verb = verb_of(take_word(&rest));
	rest = trim(rest);
	c->argument = rest.at;
	c->argument_len = slice_len(rest);
	if (len >
	    (c->verb == SMTP_VERB_AUTH ? SMTP_COMMAND_AUTH_LINE_MAX : SMTP_COMMAND_LINE_MAX)) {
		return &refuse_long;
	}
	if (has_control(line, len)) {
		return &refuse_control;
	}
	if (c->verb == SMTP_VERB_UNKNOWN) {
		return &refuse_unknown;
	}
	path = c->verb == SMTP_VERB_MAIL || c->verb == SMTP_VERB_RCPT;
	if (!path && has_8bit(rest)) {
		return &refuse_8bit;
	}
	return verbs[c->verb].parse(c, rest);
}

int smtp_command_parse(struct smtp_command *c, const char *line, size_t len,
		       struct smtp_refusal *refusal)
{
	const struct smtp_refusal *refused;

	*c = (struct smtp_command){.verb = SMTP_VERB_UNKNOWN};
	refused = parse(c, line, len);
	if (refused != NULL) {
		*refusal = *refused;
		return -EINVAL;
	}
	return 0;
}
