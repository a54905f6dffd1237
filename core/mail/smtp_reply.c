#include "core/mail/smtp_reply.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "core/mail/utf8.h"

/* "250-" or "250 " */
#define PREFIX_LEN 4

void smtp_reply_reset(struct smtp_reply *r)
{
	memset(r, 0, offsetof(struct smtp_reply, text));
	r->text[0] = '\0';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many bytes of the current line there is room for, with a NUL behind. */
static size_t line_room(const struct smtp_reply *r)
{
	return sizeof(r->text) - 1 - r->line_start;
}

static size_t line_kept(const struct smtp_reply *r)
{
	return min_size(r->line_len, line_room(r));
}

static void line_append(struct smtp_reply *r, const char *data, size_t len)
{
	size_t kept = line_kept(r);

	memcpy(r->text + r->line_start + kept, data, min_size(len, line_room(r) - kept));
	r->line_len += (uint32_t)len;
}

/* Whether the line may still become a reply line; it need not be complete. */
static bool prefix_plausible(const struct smtp_reply *r)
{
	const char *line = r->text + r->line_start;
	size_t n = min_size(line_kept(r), PREFIX_LEN);

	for (size_t i = 0; i < n; i++) {
		if (i < 3 ? !is_digit(line[i]) : strchr(" -\r", line[i]) == NULL || line[i] == 0) {
			return false;
		}
	}
	return n == 0 || (line[0] >= '2' && line[0] <= '5');
}

/* Replaces what no log should show; returns how many bytes the character has. */
static size_t clean_character(char *text, size_t len)
{
	unsigned code_point = 0;
	size_t n = utf8_decode(text, len, &code_point);

	if (n == 0) {
		text[0] = '?';
		return 1;
	}
	if (code_point < 0x20 || code_point == 0x7f) {
		text[0] = code_point == '\t' ? ' ' : '?';
	} else if (code_point >= 0x80 && code_point < 0xa0) {
		memset(text, '?', n);
	}
	return n;
}

static void text_clean(char *text, size_t len)
{
	for (size_t i = 0; i < len;) {
		/* Most are ASCII. */
		i += text[i] >= ' ' && text[i] < 0x7f ? 1 : clean_character(text + i, len - i);
	}
}

/* Ends the text at its limit, with a whole character. */
static void text_cut(struct smtp_reply *r, size_t len)
{
	if (len > SMTP_REPLY_TEXT_MAX) {
		len = SMTP_REPLY_TEXT_MAX;
		while (len > 0 && ((unsigned char)r->text[len] & 0xc0) == 0x80) {
			len--;
		}
	}
	r->text_len = (uint32_t)len;
	r->text[len] = '\0';
	r->line_start = (uint32_t)len;
	r->line_len = 0;
}

/* Makes the current line of `kept` bytes, without its first `skip`, part of the text. */
static void line_join(struct smtp_reply *r, size_t skip, size_t kept)
{
	char *line = r->text + r->line_start;
	size_t len = kept - skip;
	size_t space = r->line_start > 0 ? 1 : 0;

	while (len > 0 && (line[skip + len - 1] == ' ' || line[skip + len - 1] == '\r')) {
		len--;
	}
	if (len == 0) {
		text_cut(r, r->line_start);
		return;
	}
	len = min_size(len, line_room(r) - space);
	memmove(line + space, line + skip, len);
	if (space != 0) {
		line[0] = ' ';
	}
	text_clean(line + space, len);
	text_cut(r, r->line_start + space + len);
}

/* 1 to `max` digits. */
static size_t digits(const char *text, size_t len, size_t max)
{
	size_t n = 0;

	while (n < len && n < max && is_digit(text[n])) {
		n++;
	}
	return n;
}

/* Length of an enhanced status code (RFC 2034 section 4) of class `digit` that `text` starts with;
 * 0: none. */
static size_t status_length(const char *text, size_t len, char digit)
{
	size_t subject;
	size_t detail;
	size_t n;

	if (len < 5 || text[0] != digit || text[1] != '.') {
		return 0;
	}
	subject = digits(text + 2, len - 2, 3);
	n = 2 + subject;
	if (subject == 0 || n >= len || text[n] != '.') {
		return 0;
	}
	n++;
	detail = digits(text + n, len - n, 3);
	n += detail;
	if (detail == 0 || (n < len && text[n] != ' ')) {
		return 0;
	}
	return n;
}

static uint64_t parse_size(const char *text, size_t len)
{
	uint64_t size = 0;

	for (size_t i = 0; i < len && is_digit(text[i]); i++) {
		uint64_t digit = (uint64_t)(text[i] - '0');

		size = size > (UINT64_MAX - digit) / 10 ? UINT64_MAX : size * 10 + digit;
	}
	return size;
}

/* A line of an EHLO reply after the first: RFC 5321 section 4.1.1.1. */
static void keyword_parse(struct smtp_reply *r, const char *text, size_t len)
{
	static const struct {
		const char *name;
		enum smtp_extension extension;
	} keywords[] = {
		{"PIPELINING", SMTP_EXTENSION_PIPELINING},
		{"SIZE", SMTP_EXTENSION_SIZE},
		{"8BITMIME", SMTP_EXTENSION_8BITMIME},
		{"SMTPUTF8", SMTP_EXTENSION_SMTPUTF8},
		{"ENHANCEDSTATUSCODES", SMTP_EXTENSION_ENHANCEDSTATUSCODES},
		{"STARTTLS", SMTP_EXTENSION_STARTTLS},
		{"CHUNKING", SMTP_EXTENSION_CHUNKING},
		{"DSN", SMTP_EXTENSION_DSN},
		{"REQUIRETLS", SMTP_EXTENSION_REQUIRETLS},
	};
	const char *space = memchr(text, ' ', len);
	size_t word = space != NULL ? (size_t)(space - text) : len;

	for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
		if (strlen(keywords[i].name) == word &&
		    strncasecmp(text, keywords[i].name, word) == 0) {
			r->extensions |= keywords[i].extension;
			if (keywords[i].extension == SMTP_EXTENSION_SIZE && space != NULL) {
				r->size_max = parse_size(space + 1, len - word - 1);
			}
		}
	}
}

/* The first line makes code and status. */
static void first_line(struct smtp_reply *r, size_t kept)
{
	const char *line = r->text;
	size_t skip = min_size(kept, PREFIX_LEN);
	size_t n = status_length(line + skip, kept - skip, line[0]);

	r->code = (uint16_t)((line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0'));
	memcpy(r->status, line + skip, n);
	r->status[n] = '\0';
	if (kept > 3) {
		r->text[3] = ' ';
	}
	line_join(r, 0, kept);
}

/* Others lose their code, and a status that says the same again. */
static void next_line(struct smtp_reply *r, size_t kept)
{
	const char *line = r->text + r->line_start;
	size_t skip = min_size(kept, PREFIX_LEN);
	size_t n = status_length(line + skip, kept - skip, line[0]);

	if (r->code == 250) {
		keyword_parse(r, line + skip, kept - skip);
	}
	if (n > 0 && strlen(r->status) == n && memcmp(line + skip, r->status, n) == 0) {
		skip = min_size(kept, skip + n + 1);
	}
	line_join(r, skip, kept);
}

static bool same_code(const struct smtp_reply *r)
{
	const char *line = r->text + r->line_start;

	return r->lines == 0 || memcmp(line, r->text, 3) == 0;
}

/* A whole line is there, without its LF. */
static int line_finish(struct smtp_reply *r)
{
	const char *line = r->text + r->line_start;
	size_t kept = line_kept(r);

	if (kept > 0 && kept == r->line_len && line[kept - 1] == '\r') {
		kept--;
	}
	if (kept < 3 || (kept > 3 && line[3] == '\r') || !same_code(r)) {
		return -EPROTO;
	}
	r->last_line = kept == 3 || line[3] == ' ';
	if (r->lines == 0) {
		first_line(r, kept);
	} else {
		next_line(r, kept);
	}
	r->lines++;
	if (r->lines > SMTP_REPLY_LINES_MAX) {
		return -EMSGSIZE;
	}
	return r->last_line ? 1 : 0;
}

/* Takes a piece without LF. */
static int line_feed(struct smtp_reply *r, const char *data, size_t len)
{
	size_t taken = min_size(len, SMTP_REPLY_LINE_LIMIT - r->line_len);

	line_append(r, data, taken);
	if (!prefix_plausible(r)) {
		return -EPROTO;
	}
	return taken == len ? 0 : -EMSGSIZE;
}

int smtp_reply_feed(struct smtp_reply *r, const void *data, size_t len, size_t *used)
{
	const char *text = data;
	size_t at = 0;
	int result = 0;

	while (at < len && result == 0) {
		const char *lf = memchr(text + at, '\n', len - at);
		size_t n = lf != NULL ? (size_t)(lf - text) - at : len - at;

		result = line_feed(r, text + at, n);
		at += n;
		if (lf != NULL) {
			at++;
			if (result == 0) {
				result = line_finish(r);
			}
		}
	}
	if (result < 0) {
		line_join(r, 0, line_kept(r));
	}
	*used = at;
	return result;
}
