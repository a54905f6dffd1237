/*
 * Fields that are for us are taken out of a header. One walk over its lines finds them and copies
 * what is between them; then the copy takes the place of all up to the last of them. However long
 * the header is, and however many fields there are, each byte is looked at a few times only.
 */
#include <string.h>
#include <strings.h>

#include "core/mail/header.h"
#include "core/runtime/check.h"

/* So much of a field is looked at for its value. */
#define FIELD_LOOK_MAX 1024

/* A place in a chain. */
struct cursor {
	const struct chain_buffer *buffer;
	size_t at;
	uint64_t offset;
};

/* The beginning of a line: as much as tells what it is. */
struct line {
	char text[HEADER_NAME_MAX + 1];
	size_t kept;
	struct cursor start;
};

static void cursor_skip(struct cursor *c, size_t len)
{
	c->at += len;
	c->offset += len;
	if (c->at == c->buffer->len) {
		c->buffer = c->buffer->next;
		c->at = 0;
	}
}

/* The rest of the cursor's buffer, `max` bytes of it at most. */
static size_t cursor_here(const struct cursor *c, uint64_t max)
{
	size_t len = c->buffer->len - c->at;

	return len < max ? len : (size_t)max;
}

/* All from `from` to `to`, which the former becomes. */
static void copy(struct cursor *from, const struct cursor *to, struct chain *out,
		 struct pool *buffers)
{
	while (from->offset < to->offset) {
		size_t len = cursor_here(from, to->offset - from->offset);

		chain_append(out, buffers, from->buffer->data + from->at, len);
		cursor_skip(from, len);
	}
}

/* The line at the cursor, which goes to the next one; false at the end of the chain. */
static bool line_next(struct cursor *c, struct line *l)
{
	const unsigned char *lf = NULL;

	l->kept = 0;
	l->start = *c;
	while (c->buffer != NULL && lf == NULL) {
		const unsigned char *from = c->buffer->data + c->at;
		size_t left = c->buffer->len - c->at;
		size_t room = sizeof(l->text) - l->kept;
		size_t len;

		lf = memchr(from, '\n', left);
		len = lf != NULL ? (size_t)(lf - from) + 1 : left;
		memcpy(l->text + l->kept, from, len < room ? len : room);
		l->kept += len < room ? len : room;
		cursor_skip(c, len);
	}
	return l->kept > 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool ends_header(const struct line *l)
{
	return l->text[0] == '\r' || l->text[0] == '\n';
}

static bool begins_with(const struct line *l, const char *name, size_t name_len)
{
	return l->kept > name_len && strncasecmp(l->text, name, name_len) == 0 &&
	       (l->text[name_len] == ':' || is_blank(l->text[name_len]));
}

/* Whether what is from `start` to `end` is field `name`, and its value. */
static bool is_field(struct cursor start, const struct cursor *end, const char *name, char *value,
		     size_t size)
{
	char text[FIELD_LOOK_MAX];
	size_t len = 0;

	while (start.offset < end->offset && len < sizeof(text)) {
		uint64_t room = end->offset - start.offset;
		size_t n =
			cursor_here(&start, room < sizeof(text) - len ? room : sizeof(text) - len);

		memcpy(text + len, start.buffer->data + start.at, n);
		len += n;
		cursor_skip(&start, n);
	}
	return header_find_in(text, len, name, value, size) >= 0;
}

unsigned header_take(struct chain *body, struct pool *buffers, const char *name, char *value,
		     size_t size)
{
	struct cursor at = {.buffer = body->head};
	/* Up to here all was copied, or is to go. */
	struct cursor done = at;
	struct chain kept = CHAIN_EMPTY;
	size_t name_len = strlen(name);
	unsigned count = 0;
	char other[1];
	struct line l;
	bool more;

	ASSERT(name_len > 0 && name_len <= HEADER_NAME_MAX && size > 0);
	value[0] = '\0';
	more = line_next(&at, &l);
	while (more && !ends_header(&l)) {
		bool maybe = begins_with(&l, name, name_len);
		struct cursor start = l.start;

		do {
			more = line_next(&at, &l);
		} while (more && is_blank(l.text[0]));
		if (maybe && is_field(start, &l.start, name, count == 0 ? value : other,
				      count == 0 ? size : sizeof(other))) {
			count++;
			copy(&done, &start, &kept, buffers);
			done = l.start;
		}
	}
	if (count > 0) {
		chain_remove(body, buffers, 0, done.offset);
		chain_prepend_chain(body, &kept);
	}
	return count;
}
