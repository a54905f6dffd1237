#include "core/mail/mime.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mail/dot_walk.h"
#include "core/mail/header.h"
#include "core/runtime/check.h"
#include "core/runtime/hex.h"

#define VALUE_MAX 1024
/* RFC 2046 section 5.1.1 has 70; some write more. */
#define BOUNDARY_MAX 200

struct walk {
	bool (*visit)(void *context, const struct mime_part *part);
	void *context;
	unsigned parts;
};

char *mime_unstuff(const struct chain *body, size_t max, size_t *len)
{
	size_t size = body->len < max ? (size_t)body->len : max;
	char *text = check_memory(malloc(size + 1), "a message that came back");

	chain_copy_out(body, 0, text, size);
	*len = dot_unstuff(text, size);
	text[*len] = '\0';
	return text;
}

bool mime_parameter(const char *value, const char *name, char *to, size_t size)
{
	size_t name_len = strlen(name);
	size_t len = 0;

	to[0] = '\0';
	while ((value = strchr(value, ';')) != NULL) {
		value += 1 + strspn(value + 1, " \t");
		if (strncasecmp(value, name, name_len) != 0) {
			continue;
		}
		value += name_len + strspn(value + name_len, " \t");
		if (*value == '=') {
			break;
		}
	}
	if (value == NULL) {
		return false;
	}
	value += 1 + strspn(value + 1, " \t");
	if (*value != '"') {
		len = strcspn(value, "; \t");
		len = len < size - 1 ? len : size - 1;
		memcpy(to, value, len);
	} else {
		for (value++; *value != '\0' && *value != '"' && len < size - 1; value++) {
			value += value[0] == '\\' && value[1] != '\0';
			to[len++] = *value;
		}
	}
	to[len] = '\0';
	return true;
}

static size_t line_length(const char *text, size_t len)
{
	const char *lf = memchr(text, '\n', len);

	return lf != NULL ? (size_t)(lf - text) + 1 : len;
}

static bool is_empty_line(const char *line, size_t len)
{
	return (len == 1 && line[0] == '\n') || (len == 2 && line[0] == '\r' && line[1] == '\n');
}

/* Header, and body behind the empty line. */
static void split(const char *text, size_t len, struct mime_part *part)
{
	size_t at = 0;
	size_t n = 0;

	while (at < len && (n = line_length(text + at, len - at)) > 0 &&
	       !is_empty_line(text + at, n)) {
		at += n;
	}
	part->header = text;
	part->header_len = at;
	at += at < len ? n : 0;
	part->body = text + at;
	part->body_len = len - at;
}

static enum mime_encoding encoding_of(const struct mime_part *part)
{
	char value[64];

	if (header_find_in(part->header, part->header_len, "Content-Transfer-Encoding", value,
			   sizeof(value)) < 0) {
		return MIME_PLAIN;
	}
	if (strncasecmp(value, "base64", 6) == 0) {
		return MIME_BASE64;
	}
	return strncasecmp(value, "quoted-printable", 16) == 0 ? MIME_QUOTED_PRINTABLE : MIME_PLAIN;
}

/* Fills in type and encoding; the Content-Type field's value goes to `value`. */
static void describe(struct mime_part *part, char value[VALUE_MAX])
{
	size_t len;

	if (header_find_in(part->header, part->header_len, "Content-Type", value, VALUE_MAX) < 0) {
		strcpy(value, "text/plain");
	}
	len = strcspn(value, "; \t");
	len = len < MIME_TYPE_MAX ? len : MIME_TYPE_MAX - 1;
	for (size_t i = 0; i < len; i++) {
		part->type[i] = (char)tolower((unsigned char)value[i]);
	}
	part->type[len] = '\0';
	part->encoding = encoding_of(part);
}

void mime_describe(struct mime_part *part)
{
	char value[VALUE_MAX];

	describe(part, value);
}

/* 0: no boundary; 1: the start of a part; 2: the end of all. */
static unsigned boundary_kind(const char *line, size_t len, const char *boundary)
{
	size_t n = strlen(boundary);
	bool last;

	if (len < n + 2 || line[0] != '-' || line[1] != '-' || memcmp(line + 2, boundary, n) != 0) {
		return 0;
	}
	line += n + 2;
	len -= n + 2;
	last = len >= 2 && line[0] == '-' && line[1] == '-';
	for (size_t i = last ? 2 : 0; i < len; i++) {
		if (!isspace((unsigned char)line[i])) {
			return 0;
		}
	}
	return last ? 2 : 1;
}

static bool walk_part(struct walk *w, const char *text, size_t len, unsigned depth);

/* The line end before a boundary belongs to that. */
static size_t without_line_end(const char *text, size_t len)
{
	len -= len > 0 && text[len - 1] == '\n';
	len -= len > 0 && text[len - 1] == '\r';
	return len;
}

static bool walk_parts(struct walk *w, const struct mime_part *whole, const char *boundary)
{
	const char *text = whole->body;
	size_t len = whole->body_len;
	const char *part = NULL;
	size_t n;

	for (size_t at = 0; at < len; at += n) {
		unsigned kind;

		n = line_length(text + at, len - at);
		kind = boundary_kind(text + at, n, boundary);
		if (kind == 0) {
			continue;
		}
		if (part != NULL &&
		    !walk_part(w, part, without_line_end(part, (size_t)(text + at - part)),
			       whole->depth + 1)) {
			return false;
		}
		part = text + at + n;
		if (kind == 2) {
			return true;
		}
	}
	/* Cut off: the last one is what there is of it. */
	return part == NULL || part == text + len ||
	       walk_part(w, part, (size_t)(text + len - part), whole->depth + 1);
}

static bool walk_part(struct walk *w, const char *text, size_t len, unsigned depth)
{
	struct mime_part part = {.depth = depth};
	char boundary[BOUNDARY_MAX];
	char value[VALUE_MAX];

	if (w->parts++ >= MIME_PARTS_MAX) {
		return false;
	}
	split(text, len, &part);
	describe(&part, value);
	if (!w->visit(w->context, &part)) {
		return false;
	}
	if (strncmp(part.type, "multipart/", 10) != 0 || depth >= MIME_DEPTH_MAX ||
	    !mime_parameter(value, "boundary", boundary, sizeof(boundary)) || boundary[0] == '\0') {
		return true;
	}
	return walk_parts(w, &part, boundary);
}

bool mime_walk(const char *text, size_t len,
	       bool (*visit)(void *context, const struct mime_part *part), void *context)
{
	struct walk w = {.visit = visit, .context = context};

	return walk_part(&w, text, len, 0);
}

/* ---- encodings ---- */

static int base64_value(char c)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c != '\0' ? strchr(letters, c) : NULL;

	return p != NULL ? (int)(p - letters) : -1;
}

/* RFC 2045 section 6.8: whatever is no letter of it is skipped. */
static size_t decode_base64(const struct mime_part *part, char *to, size_t max)
{
	uint32_t bits = 0;
	unsigned count = 0;
	size_t len = 0;

	for (size_t i = 0; i < part->body_len && part->body[i] != '=' && len < max; i++) {
		int value = base64_value(part->body[i]);

		if (value < 0) {
			continue;
		}
		bits = bits << 6 | (uint32_t)value;
		count += 6;
		if (count >= 8) {
			count -= 8;
			to[len++] = (char)(bits >> count & 0xff);
		}
	}
	return len;
}

/* RFC 2045 section 6.7; what is no escape stands for itself. */
static size_t decode_quoted(const struct mime_part *part, char *to, size_t max)
{
	const char *p = part->body;
	const char *end = p + part->body_len;
	size_t len = 0;

	while (p < end && len < max) {
		if (*p != '=') {
			to[len++] = *p++;
		} else if (end - p >= 2 && p[1] == '\n') {
			p += 2;
		} else if (end - p >= 3 && p[1] == '\r' && p[2] == '\n') {
			p += 3;
		} else if (end - p >= 3 && hex_value(p[1]) >= 0 && hex_value(p[2]) >= 0) {
			to[len++] = (char)(hex_value(p[1]) << 4 | hex_value(p[2]));
			p += 3;
		} else {
			to[len++] = *p++;
		}
	}
	return len;
}

size_t mime_decode(const struct mime_part *part, char *to, size_t size)
{
	size_t len = 0;

	ASSERT(size > 0);
	switch (part->encoding) {
	case MIME_BASE64:
		len = decode_base64(part, to, size - 1);
		break;
	case MIME_QUOTED_PRINTABLE:
		len = decode_quoted(part, to, size - 1);
		break;
	case MIME_PLAIN:
		len = part->body_len < size - 1 ? part->body_len : size - 1;
		memcpy(to, part->body, len);
		break;
	}
	to[len] = '\0';
	return len;
}
