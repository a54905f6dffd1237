#include "core/mail/sts_policy.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"

#define VERSION "STSv1"
#define FIELD_NAME_MAX 32
#define MAX_AGE_DIGITS 10
/* RFC 1035 section 2.3.4. */
#define NAME_LEN_MAX 253
#define LABEL_LEN_MAX 63

static const char *const mode_names[] = {
	[STS_MODE_NONE] = "none",
	[STS_MODE_TESTING] = "testing",
	[STS_MODE_ENFORCE] = "enforce",
};

struct span {
	const char *at;
	size_t len;
};

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool same(struct span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static struct span trim(struct span s)
{
	while (s.len > 0 && is_space(s.at[0])) {
		s.at++;
		s.len--;
	}
	while (s.len > 0 && is_space(s.at[s.len - 1])) {
		s.len--;
	}
	return s;
}

/* Up to a byte, which goes with it; the rest stays in `s`. */
static struct span take(struct span *s, char end)
{
	const char *found = memchr(s->at, end, s->len);
	struct span taken = {s->at, found != NULL ? (size_t)(found - s->at) : s->len};
	size_t used = taken.len + (found != NULL);

	s->at += used;
	s->len -= used;
	return taken;
}

/* sts-ext-name and policy-ext-name: the same in both. */
static bool is_field_name(struct span s)
{
	if (s.len == 0 || s.len > FIELD_NAME_MAX || !is_alnum(s.at[0])) {
		return false;
	}
	for (size_t i = 1; i < s.len; i++) {
		if (!is_alnum(s.at[i]) && strchr("_-.", s.at[i]) == NULL) {
			return false;
		}
	}
	return true;
}

/* ---- the record ---- */

static bool is_record_value(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.at[i];

		if (c <= ' ' || c >= 0x7f || c == '=' || c == ';') {
			return false;
		}
	}
	return s.len > 0;
}

static bool is_id(struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (!is_alnum(s.at[i])) {
			return false;
		}
	}
	return s.len > 0 && s.len <= STS_ID_MAX;
}

/* What follows "v=STSv1;". */
static bool parse_record(struct span rest, char id[STS_ID_MAX + 1])
{
	id[0] = '\0';
	while (rest.len > 0) {
		struct span value = trim(take(&rest, ';'));
		struct span name;

		/* The last delimiter may be followed by nothing. */
		if (value.len == 0 && rest.len == 0) {
			break;
		}
		if (memchr(value.at, '=', value.len) == NULL) {
			return false;
		}
		name = take(&value, '=');
		if (!is_field_name(name) || !is_record_value(value)) {
			return false;
		}
		if (same(name, "id")) {
			if (id[0] != '\0' || !is_id(value)) {
				return false;
			}
			memcpy(id, value.at, value.len);
			id[value.len] = '\0';
		}
	}
	return id[0] != '\0';
}

/* A record of ours begins so; others of the name are none of our business. */
static bool begins_record(struct span *s)
{
	struct span rest = *s;
	struct span first = take(&rest, ';');

	if (first.len == s->len || !same(trim(first), "v=" VERSION) || first.at[0] != 'v') {
		return false;
	}
	*s = rest;
	return true;
}

bool sts_record_id(const struct dns_answer *txt, char id[STS_ID_MAX + 1])
{
	unsigned count = 0;
	bool good = false;

	ASSERT(txt->type == DNS_TXT);
	for (uint32_t i = 0; i < txt->count; i++) {
		struct span s = {txt->records[i].txt.text, txt->records[i].txt.len};

		if (begins_record(&s) && ++count == 1) {
			good = parse_record(s, id);
		}
	}
	return good && count == 1;
}

/* ---- the policy ---- */

/* Letters, digits, hyphens and underscores, in labels; "*." may come first. */
static bool is_pattern(struct span s)
{
	size_t label = 0;

	if (s.len > 2 && s.at[0] == '*' && s.at[1] == '.') {
		s.at += 2;
		s.len -= 2;
	}
	if (s.len > NAME_LEN_MAX) {
		return false;
	}
	for (size_t i = 0; i < s.len; i++) {
		if (s.at[i] == '.') {
			if (label == 0) {
				return false;
			}
			label = 0;
		} else if ((!is_alnum(s.at[i]) && s.at[i] != '-' && s.at[i] != '_') ||
			   ++label > LABEL_LEN_MAX) {
			return false;
		}
	}
	return label > 0;
}

static bool parse_age(struct span s, uint32_t *age_s)
{
	uint64_t value = 0;

	if (s.len == 0 || s.len > MAX_AGE_DIGITS) {
		return false;
	}
	for (size_t i = 0; i < s.len; i++) {
		if (s.at[i] < '0' || s.at[i] > '9') {
			return false;
		}
		value = value * 10 + (uint64_t)(s.at[i] - '0');
	}
	*age_s = value < STS_MAX_AGE_MAX ? (uint32_t)value : STS_MAX_AGE_MAX;
	return true;
}

static bool parse_mode(struct span s, enum sts_mode *mode)
{
	for (enum sts_mode m = STS_MODE_NONE; m <= STS_MODE_ENFORCE; m++) {
		if (same(s, mode_names[m])) {
			*mode = m;
			return true;
		}
	}
	return false;
}

/* What is found while lines are read; the first of each field but mx counts. */
struct reader {
	struct sts_policy *policy;
	/* Where the next pattern's text goes. */
	char *text;
	bool has_version;
	bool has_mode;
	bool has_age;
};

static void add_pattern(struct reader *r, struct span value)
{
	r->policy->mx[r->policy->mx_count++] = r->text;
	for (size_t i = 0; i < value.len; i++) {
		*r->text++ = (char)tolower((unsigned char)value.at[i]);
	}
	*r->text++ = '\0';
}

/* What is wrong with the field; NULL: nothing. */
static const char *read_field(struct reader *r, struct span name, struct span value)
{
	if (same(name, "version")) {
		if (!r->has_version && !same(value, VERSION)) {
			return "its version is not STSv1";
		}
		r->has_version = true;
	} else if (same(name, "mode")) {
		if (!r->has_mode && !parse_mode(value, &r->policy->mode)) {
			return "its mode is none that is known";
		}
		r->has_mode = true;
	} else if (same(name, "max_age")) {
		if (!r->has_age && !parse_age(value, &r->policy->max_age_s)) {
			return "its max_age is no number of seconds";
		}
		r->has_age = true;
	} else if (same(name, "mx")) {
		if (!is_pattern(value)) {
			return "an mx is no host name";
		}
		add_pattern(r, value);
	} else if (!is_field_name(name)) {
		return "a line has no name of a field";
	}
	return NULL;
}

static const char *read_line(struct reader *r, struct span line)
{
	struct span name;

	if (line.len > 0 && line.at[line.len - 1] == '\r') {
		line.len--;
	}
	for (size_t i = 0; i < line.len; i++) {
		unsigned char c = (unsigned char)line.at[i];

		if ((c < ' ' && c != '\t') || c == 0x7f) {
			return "a line has control characters";
		}
	}
	if (memchr(line.at, ':', line.len) == NULL) {
		return "a line has no colon";
	}
	name = take(&line, ':');
	return read_field(r, name, trim(line));
}

static const char *read_policy(struct reader *r, struct span text)
{
	const char *wrong = NULL;

	while (text.len > 0 && wrong == NULL) {
		wrong = read_line(r, take(&text, '\n'));
	}
	if (wrong != NULL) {
		return wrong;
	}
	if (!r->has_version || !r->has_mode || !r->has_age) {
		return "it lacks version, mode or max_age";
	}
	return r->policy->mode != STS_MODE_NONE && r->policy->mx_count == 0 ? "it lists no mx"
									    : NULL;
}

struct sts_policy *sts_policy_parse(const char *text, size_t len, char why[STS_WHY])
{
	size_t lines = 1;
	struct reader r = {.policy = NULL};
	const char *wrong;

	for (size_t i = 0; i < len; i++) {
		lines += text[i] == '\n';
	}
	/* Each pattern is shorter than its line by what makes the line, so its NUL fits. */
	r.policy = check_memory(
		calloc(1, sizeof *r.policy + lines * sizeof r.policy->mx[0] + len + 1), "a policy");
	r.policy->references = 1;
	r.text = (char *)(r.policy->mx + lines);
	wrong = read_policy(&r, (struct span){text, len});
	if (wrong == NULL) {
		return r.policy;
	}
	snprintf(why, STS_WHY, "%s", wrong);
	free(r.policy);
	return NULL;
}

struct sts_policy *sts_policy_hold(struct sts_policy *p)
{
	atomic_fetch_add_explicit(&p->references, 1, memory_order_relaxed);
	return p;
}

void sts_policy_release(struct sts_policy *p)
{
	if (p != NULL && atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) == 1) {
		free(p);
	}
}

/* ---- what it means ---- */

bool sts_policy_lists(const struct sts_policy *p, const char *host)
{
	const char *dot = strchr(host, '.');

	for (uint32_t i = 0; i < p->mx_count; i++) {
		const char *pattern = p->mx[i];

		/* A wildcard stands for one label, the first. */
		if (pattern[0] == '*'
			    ? dot != NULL && dot != host && strcasecmp(pattern + 1, dot) == 0
			    : strcasecmp(pattern, host) == 0) {
			return true;
		}
	}
	return false;
}

const char *sts_mode_name(enum sts_mode mode)
{
	return mode_names[mode];
}
