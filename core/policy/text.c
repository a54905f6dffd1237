#include "core/policy/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mail/dot_walk.h"
#include "core/runtime/check.h"

#define STORE_PIECE 512

/* ---- the block ---- */

static void reserve(struct policy_text *t, size_t size)
{
	size_t room = t->size != 0 ? t->size : 1024;

	if (size <= t->size) {
		return;
	}
	while (room < size) {
		room *= 2;
	}
	t->data = check_memory(realloc(t->data, room), "the text of a message");
	t->size = room;
}

void policy_text_splice(struct policy_text *t, size_t at, size_t len, const char *with,
			size_t with_len)
{
	ASSERT(at <= t->len && len <= t->len - at);
	reserve(t, t->len - len + with_len + 1);
	memmove(t->data + at + with_len, t->data + at + len, t->len - at - len);
	if (with_len > 0) {
		memcpy(t->data + at, with, with_len);
	}
	t->len = t->len - len + with_len;
	t->data[t->len] = '\0';
}

void policy_text_append(struct policy_text *t, const char *data, size_t len)
{
	policy_text_splice(t, t->len, 0, data, len);
}

void policy_text_close(struct policy_text *t)
{
	free(t->data);
	*t = (struct policy_text){0};
}

/* ---- wire form ---- */

void policy_text_load(struct policy_text *t, const struct chain *c, uint64_t from, uint64_t len)
{
	size_t at = t->len;

	reserve(t, at + (size_t)len + 1);
	chain_copy_out(c, from, t->data + at, (size_t)len);
	t->len = at + dot_unstuff(t->data + at, (size_t)len);
	t->data[t->len] = '\0';
}

/* One line without its end. */
static void store_line(const char *line, size_t len, struct chain *to, struct pool *buffers)
{
	if (len > 0 && line[0] == '.') {
		chain_append(to, buffers, ".", 1);
	}
	while (len > 0) {
		const char *nul = memchr(line, '\0', len);
		size_t n = nul != NULL ? (size_t)(nul - line) : len;

		if (n > 0) {
			chain_append(to, buffers, line, n);
		}
		n += nul != NULL;
		line += n;
		len -= n;
	}
}

static size_t line_length(const char *data, size_t len)
{
	size_t n = 0;

	while (n < len && data[n] != '\r' && data[n] != '\n') {
		n++;
	}
	return n;
}

bool policy_text_store(const char *data, size_t len, bool whole, struct chain *to,
		       struct pool *buffers)
{
	bool high = false;

	for (size_t i = 0; i < len && !high; i++) {
		high = (data[i] & 0x80) != 0;
	}
	while (len > 0) {
		size_t n = line_length(data, len);
		size_t end = n == len                                                ? 0
			     : data[n] == '\r' && n + 1 < len && data[n + 1] == '\n' ? 2
										     : 1;

		store_line(data, n, to, buffers);
		if (end > 0 || whole) {
			chain_append(to, buffers, "\r\n", 2);
		}
		data += n + end;
		len -= n + end;
	}
	return high;
}

/* ---- fields ---- */

bool policy_field_is_name(const char *name)
{
	bool good = name[0] != '\0' && strlen(name) <= 128;

	for (const char *c = name; *c != '\0'; c++) {
		good = good && *c > ' ' && *c < 127 && *c != ':';
	}
	return good;
}

/* The end of the field that begins at `at`: behind its last line. */
static size_t field_end(const char *header, size_t len, size_t at)
{
	do {
		const char *lf = memchr(header + at, '\n', len - at);

		at = lf != NULL ? (size_t)(lf - header) + 1 : len;
	} while (at < len && (header[at] == ' ' || header[at] == '\t'));
	return at;
}

static bool has_name(const char *field, size_t len, const char *name, size_t *value_at)
{
	const char *colon = memchr(field, ':', len);
	size_t name_len;

	if (colon == NULL) {
		return false;
	}
	name_len = (size_t)(colon - field);
	*value_at = name_len + 1;
	while (name_len > 0 && (field[name_len - 1] == ' ' || field[name_len - 1] == '\t')) {
		name_len--;
	}
	return name == NULL ||
	       (strlen(name) == name_len && strncasecmp(field, name, name_len) == 0);
}

bool policy_field_next(const char *header, size_t len, const char *name, size_t from,
		       struct policy_field *f)
{
	while (from < len) {
		size_t end = field_end(header, len, from);
		size_t value_at;

		if (has_name(header + from, end - from, name, &value_at)) {
			*f = (struct policy_field){from, end - from, from + value_at};
			return true;
		}
		from = end;
	}
	return false;
}

size_t policy_field_value(const char *header, const struct policy_field *f, char *to)
{
	const char *from = header + f->value_at;
	const char *end = header + f->at + f->len;
	size_t n = 0;

	while (from < end && strchr(" \t\r\n", *from) != NULL && *from != '\0') {
		from++;
	}
	while (end > from && end[-1] != '\0' && strchr(" \t\r\n", end[-1]) != NULL) {
		end--;
	}
	for (; from < end; from++) {
		/* What is folded goes on with the white space behind the line's end. */
		if (*from != '\r' && *from != '\n') {
			to[n++] = *from;
		}
	}
	return n;
}

/* "Name: value" CR LF, with nothing in it that ends the field early. */
static void format(struct policy_text *to, const char *name, const char *value, size_t len)
{
	policy_text_append(to, name, strlen(name));
	policy_text_append(to, ": ", 2);
	while (len > 0) {
		size_t n = line_length(value, len);
		size_t end = n == len                                                  ? 0
			     : value[n] == '\r' && n + 1 < len && value[n + 1] == '\n' ? 2
										       : 1;

		policy_text_append(to, value, n);
		value += n + end;
		len -= n + end;
		if (end > 0 && len > 0) {
			bool fold = value[0] == ' ' || value[0] == '\t';

			policy_text_append(to, fold ? "\r\n" : " ", fold ? 2 : 1);
		}
	}
	policy_text_append(to, "\r\n", 2);
}

/* Takes out all fields `name`; where the first one was, or the end of the header. */
static size_t take_out(struct policy_text *header, const char *name)
{
	struct policy_field f;
	size_t first = header->len;
	bool found = false;

	while (policy_field_next(header->data, header->len, name, found ? first : 0, &f)) {
		policy_text_splice(header, f.at, f.len, NULL, 0);
		if (!found) {
			first = f.at;
		}
		found = true;
	}
	return found ? first : header->len;
}

void policy_field_set(struct policy_text *header, const char *name, const char *value, size_t len,
		      enum policy_field_mode mode)
{
	struct policy_text field = {0};
	size_t at = mode == POLICY_FIELD_PREPEND ? 0 : header->len;

	if (mode == POLICY_FIELD_REPLACE) {
		at = take_out(header, name);
	}
	if (value == NULL || len == 0) {
		return;
	}
	format(&field, name, value, len);
	policy_text_splice(header, at, 0, field.data, field.len);
	policy_text_close(&field);
}
