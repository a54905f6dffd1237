#include "core/mail/smtp_trace.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "core/runtime/text.h"

#define DOMAIN_MAX 255
#define CODE_CONTINUE_DATA 354
#define CODE_CONTINUE_AUTH 334
#define CODE_AUTHENTICATED 235

static const char *const verbs[] = {"EHLO", "HELO", "MAIL", "RCPT", "DATA",     "BDAT",    "RSET",
				    "NOOP", "QUIT", "VRFY", "EXPN", "STARTTLS", "XCLIENT", "HELP"};
static const char *const mechanisms[] = {"PLAIN",  "LOGIN",       "CRAM-MD5",     "DIGEST-MD5",
					 "NTLM",   "XOAUTH2",     "OAUTHBEARER",  "EXTERNAL",
					 "GSSAPI", "SCRAM-SHA-1", "SCRAM-SHA-256"};
/* In the name of a field that begins with "X-"; and whole names of others. */
static const char *const secret_parts[] = {"token",  "secret",  "passw",   "auth",   "api-key",
					   "apikey", "api_key", "session", "cookie", "credential"};
static const char *const secret_names[] = {"authorization", "proxy-authorization", "cookie"};

#define COUNT(array) (sizeof(array) / sizeof(array[0]))

/* ---- text ---- */

size_t smtp_trace_escape(const char *text, size_t len, char *to)
{
	char *at = to;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= ' ' && c != 127 && c != '\\') {
			*at++ = (char)c;
			continue;
		}
		at += text_escape_octet(c, at);
	}
	*at = '\0';
	return (size_t)(at - to);
}

static void text_append(struct smtp_trace_text *x, const char *data, size_t len)
{
	if (len == 0) {
		return;
	}
	if (x->len < SMTP_TRACE_KEPT) {
		size_t room = SMTP_TRACE_KEPT - x->len;

		memcpy(x->kept + x->len, data, len < room ? len : room);
	}
	x->len += len;
	x->last = (unsigned char)data[len - 1];
}

static size_t text_kept(const struct smtp_trace_text *x)
{
	return x->len < SMTP_TRACE_KEPT ? x->len : SMTP_TRACE_KEPT;
}

/* The LF has come: the CR before it, if there is one, goes. True when there was. */
static bool text_strip(struct smtp_trace_text *x)
{
	if (x->len == 0 || x->last != '\r') {
		return false;
	}
	x->len--;
	return true;
}

/* ---- what is emitted ---- */

/* `prefix`, the first `shown` octets of `x`, and how many are not shown. */
static void emit(struct smtp_trace *t, enum smtp_trace_kind kind, const char *prefix,
		 const struct smtp_trace_text *x, size_t shown, bool hidden)
{
	char text[SMTP_TRACE_TEXT];
	size_t len = (size_t)snprintf(text, sizeof(text), "%s", prefix);

	len += smtp_trace_escape(x->kept, shown, text + len);
	if (shown < x->len) {
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s(%zu octets %s)",
					shown > 0 ? " " : "", x->len - shown,
					hidden ? "hidden" : "more");
	}
	t->on_line(t->context, kind, text, len);
}

static void emit_line(struct smtp_trace *t, const char *prefix, const struct smtp_trace_text *x)
{
	emit(t, SMTP_TRACE_LINE, prefix, x, text_kept(x), false);
}

static void emit_content_count(struct smtp_trace *t, uint64_t octets)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "C: (%llu octets of content)",
			   (unsigned long long)octets);

	t->on_line(t->context, SMTP_TRACE_LINE, text, (size_t)len);
}

/* ---- content ---- */

static bool has_part(const char *name, size_t len, const char *part)
{
	size_t n = strlen(part);

	for (size_t i = 0; i + n <= len; i++) {
		if (strncasecmp(name + i, part, n) == 0) {
			return true;
		}
	}
	return false;
}

static bool names_secret(const char *name, size_t len)
{
	for (size_t i = 0; i < COUNT(secret_names); i++) {
		if (strlen(secret_names[i]) == len &&
		    strncasecmp(name, secret_names[i], len) == 0) {
			return true;
		}
	}
	if (len < 2 || strncasecmp(name, "X-", 2) != 0) {
		return false;
	}
	for (size_t i = 0; i < COUNT(secret_parts); i++) {
		if (has_part(name, len, secret_parts[i])) {
			return true;
		}
	}
	return false;
}

/* How much of a line of content may be shown. */
static size_t content_shown(struct smtp_trace *t)
{
	const struct smtp_trace_text *x = &t->content;
	size_t kept = text_kept(x);
	const char *colon;

	if (!t->in_header) {
		return kept;
	}
	if (x->len == 0) {
		t->in_header = false;
		return 0;
	}
	if (x->kept[0] == ' ' || x->kept[0] == '\t') {
		return t->hidden_field ? 0 : kept;
	}
	colon = memchr(x->kept, ':', kept);
	t->hidden_field = colon != NULL && names_secret(x->kept, (size_t)(colon - x->kept));
	return t->hidden_field ? (size_t)(colon - x->kept) + 1 : kept;
}

static void content_line(struct smtp_trace *t)
{
	size_t shown = content_shown(t);

	if (t->wants_content) {
		emit(t, SMTP_TRACE_CONTENT, "C> ", &t->content, shown,
		     shown < text_kept(&t->content));
	}
	t->content.len = 0;
}

static void content_begin(struct smtp_trace *t)
{
	t->in_header = true;
	t->hidden_field = false;
	t->after_crlf = true;
	t->content.len = 0;
	t->content_bytes = 0;
}

/* A line of mail data is complete, without its LF; ends the data at a dot. */
static void data_line(struct smtp_trace *t)
{
	uint64_t octets = t->content.len + 1;
	bool crlf = text_strip(&t->content);

	if (t->after_crlf && crlf && t->content.len == 1 && t->content.kept[0] == '.') {
		emit_content_count(t, t->content_bytes);
		emit_line(t, "C: ", &t->content);
		t->content.len = 0;
		t->state = SMTP_TRACE_COMMANDS;
		return;
	}
	t->content_bytes += octets;
	t->after_crlf = crlf;
	content_line(t);
}

static size_t feed_data(struct smtp_trace *t, const char *data, size_t len)
{
	const char *lf = memchr(data, '\n', len);

	text_append(&t->content, data, lf != NULL ? (size_t)(lf - data) : len);
	if (lf == NULL) {
		return len;
	}
	data_line(t);
	return (size_t)(lf - data) + 1;
}

/* Chunks cut lines anywhere. */
static size_t feed_chunk(struct smtp_trace *t, const char *data, size_t len)
{
	size_t left = len < t->chunk_left ? len : (size_t)t->chunk_left;
	const char *lf = memchr(data, '\n', left);
	size_t used = lf != NULL ? (size_t)(lf - data) + 1 : left;

	text_append(&t->content, data, lf != NULL ? used - 1 : used);
	if (lf != NULL) {
		text_strip(&t->content);
		content_line(t);
	}
	t->content_bytes += used;
	t->chunk_left -= used;
	if (t->chunk_left == 0) {
		if (t->chunk_last && t->content.len > 0) {
			content_line(t);
		}
		emit_content_count(t, t->content_bytes);
		t->content_bytes = 0;
		t->in_chunks = !t->chunk_last;
		t->state = SMTP_TRACE_COMMANDS;
	}
	return used;
}

/* ---- commands ---- */

static bool begins(const char *line, size_t len, const char *word)
{
	size_t n = strlen(word);

	return len >= n && strncasecmp(line, word, n) == 0;
}

static bool is_command(const char *line, size_t len)
{
	for (size_t i = 0; i < COUNT(verbs); i++) {
		size_t n = strlen(verbs[i]);

		if (begins(line, len, verbs[i]) && (len == n || isblank((unsigned char)line[n]))) {
			return true;
		}
	}
	return false;
}

/* Octets of an AUTH line that may be shown: up to the end of a mechanism that is known. */
static size_t auth_shown(const char *line, size_t len)
{
	size_t word = 4;

	while (word < len && isblank((unsigned char)line[word])) {
		word++;
	}
	for (size_t i = 0; word > 4 && i < COUNT(mechanisms); i++) {
		size_t end = word + strlen(mechanisms[i]);

		if (begins(line + word, len - word, mechanisms[i]) &&
		    (end == len || isblank((unsigned char)line[end]))) {
			return end;
		}
	}
	return 4;
}

static void tell_recipient(struct smtp_trace *t, const char *line, size_t len)
{
	const char *end = memchr(line, '>', len);
	const char *at = end != NULL ? memrchr(line, '@', (size_t)(end - line)) : NULL;
	char domain[DOMAIN_MAX + 1];
	size_t n;

	if (at == NULL || (size_t)(end - at) - 1 > DOMAIN_MAX) {
		return;
	}
	n = (size_t)(end - at) - 1;
	for (size_t i = 0; i < n; i++) {
		domain[i] = (char)tolower((unsigned char)at[1 + i]);
	}
	domain[n] = '\0';
	t->on_recipient(t->context, domain);
}

static void begin_chunk(struct smtp_trace *t, const char *line, size_t len)
{
	char text[64];
	char *end;

	snprintf(text, sizeof(text), "%.*s", (int)(len < 60 ? len : 60), line);
	t->chunk_left = strtoull(text + 4, &end, 10);
	t->chunk_last = strcasestr(end, "LAST") != NULL;
	if (!t->in_chunks) {
		content_begin(t);
		t->in_chunks = true;
	}
	if (t->chunk_left > 0) {
		t->state = SMTP_TRACE_CHUNK;
	} else if (t->chunk_last) {
		t->in_chunks = false;
	}
}

static void take_auth(struct smtp_trace *t, size_t blanks)
{
	const struct smtp_trace_text *x = &t->command;

	t->auth = true;
	t->auth_tried = true;
	emit(t, SMTP_TRACE_LINE, "C: ", x,
	     blanks + auth_shown(x->kept + blanks, text_kept(x) - blanks), true);
}

/* One line of the client's, without its end. */
static void take_command(struct smtp_trace *t)
{
	const struct smtp_trace_text *x = &t->command;
	size_t len = text_kept(x);
	size_t blanks = 0;
	const char *line;

	while (blanks < len && isblank((unsigned char)x->kept[blanks])) {
		blanks++;
	}
	line = x->kept + blanks;
	len -= blanks;
	if (t->auth && !(x->len == 1 && x->kept[0] == '*')) {
		emit(t, SMTP_TRACE_LINE, "C: ", x, 0, true);
	} else if (!t->auth && begins(line, len, "AUTH")) {
		take_auth(t, blanks);
	} else if (t->auth_tried && !t->auth && !is_command(line, len)) {
		/* It may go on with its secrets although it was refused. */
		emit(t, SMTP_TRACE_LINE, "C: ", x, 0, true);
	} else {
		if (begins(line, len, "RCPT")) {
			tell_recipient(t, line, len);
		}
		emit_line(t, "C: ", x);
		if (begins(line, len, "BDAT ")) {
			begin_chunk(t, line, len);
		} else {
			t->in_chunks = false;
		}
	}
}

static size_t feed_command(struct smtp_trace *t, const char *data, size_t len)
{
	const char *lf = memchr(data, '\n', len);

	text_append(&t->command, data, lf != NULL ? (size_t)(lf - data) : len);
	if (lf == NULL) {
		return len;
	}
	text_strip(&t->command);
	take_command(t);
	t->command.len = 0;
	return (size_t)(lf - data) + 1;
}

void smtp_trace_client(struct smtp_trace *t, const void *bytes, size_t len)
{
	const char *data = bytes;

	while (len > 0) {
		size_t used = len;

		switch (t->state) {
		case SMTP_TRACE_COMMANDS:
			used = feed_command(t, data, len);
			break;
		case SMTP_TRACE_DATA:
			used = feed_data(t, data, len);
			break;
		case SMTP_TRACE_CHUNK:
			used = feed_chunk(t, data, len);
			break;
		case SMTP_TRACE_BLIND:
			break;
		}
		ASSERT(used > 0 && used <= len);
		data += used;
		len -= used;
	}
}

/* ---- replies ---- */

/* The last line of a reply. */
static void take_reply(struct smtp_trace *t, unsigned code)
{
	/* It may be the reply to an earlier command; then `auth_tried` still hides what follows. */
	t->auth = code == CODE_CONTINUE_AUTH;
	t->auth_tried |= t->auth;
	if (code == CODE_AUTHENTICATED) {
		t->auth_tried = false;
	} else if (code == CODE_CONTINUE_DATA && t->state == SMTP_TRACE_COMMANDS) {
		content_begin(t);
		t->state = SMTP_TRACE_DATA;
	}
}

static void reply_line(struct smtp_trace *t)
{
	const struct smtp_trace_text *x = &t->reply;

	text_strip(&t->reply);
	emit_line(t, "S: ", x);
	if (x->len >= 3 && isdigit((unsigned char)x->kept[0]) &&
	    isdigit((unsigned char)x->kept[1]) && isdigit((unsigned char)x->kept[2]) &&
	    (x->len == 3 || x->kept[3] != '-')) {
		take_reply(t, (unsigned)(x->kept[0] - '0') * 100 +
				      (unsigned)(x->kept[1] - '0') * 10 +
				      (unsigned)(x->kept[2] - '0'));
	}
	t->reply.len = 0;
}

void smtp_trace_server(struct smtp_trace *t, const void *bytes, size_t len)
{
	const char *data = bytes;

	while (len > 0) {
		const char *lf = memchr(data, '\n', len);
		size_t used = lf != NULL ? (size_t)(lf - data) + 1 : len;

		text_append(&t->reply, data, lf != NULL ? used - 1 : used);
		if (lf != NULL) {
			reply_line(t);
		}
		data += used;
		len -= used;
	}
}

/* ---- life ---- */

void smtp_trace_init(struct smtp_trace *t, smtp_trace_line_fn on_line,
		     smtp_trace_recipient_fn on_recipient, void *context, bool blind)
{
	t->on_line = on_line;
	t->on_recipient = on_recipient;
	t->context = context;
	t->wants_content = false;
	t->state = blind ? SMTP_TRACE_BLIND : SMTP_TRACE_COMMANDS;
	t->auth = false;
	t->auth_tried = false;
	t->in_chunks = false;
	t->chunk_left = 0;
	t->chunk_last = false;
	content_begin(t);
	t->command.len = 0;
	t->reply.len = 0;
}

void smtp_trace_see(struct smtp_trace *t)
{
	if (t->state == SMTP_TRACE_BLIND) {
		t->state = SMTP_TRACE_COMMANDS;
	}
}

void smtp_trace_end(struct smtp_trace *t)
{
	if (t->reply.len > 0) {
		reply_line(t);
	}
	if (t->state == SMTP_TRACE_COMMANDS && t->command.len > 0) {
		take_command(t);
		t->command.len = 0;
	} else if (t->state == SMTP_TRACE_DATA) {
		emit_content_count(t, t->content_bytes + t->content.len);
	} else if (t->state == SMTP_TRACE_CHUNK) {
		emit_content_count(t, t->content_bytes);
	}
}
