#include "perf/message_reader.h"

#include <string.h>
#include <strings.h>

#include "perf/checksum.h"

/* A header longer than this is no header of ours: the rest of it is summed, not kept. */
#define HEADER_MAX (256U * 1024)

void message_reader_start(struct message_reader *r)
{
	r->state = READER_LINE_START;
	r->last = '\n';
	r->in_header = true;
	r->keep_body = false;
	r->line_len = 0;
	r->kept.len = 0;
	r->size = 0;
	r->bare_lf = 0;
	r->sum = CHECKSUM_START;
}

static void emit(struct message_reader *r, const char *from, const char *to)
{
	size_t len = (size_t)(to - from);

	r->size += len;
	if (r->in_header) {
		r->line_len += len;
		if (r->kept.len < HEADER_MAX) {
			text_append(&r->kept, from, len);
		}
		return;
	}
	r->sum = checksum_feed(r->sum, from, len);
	if (r->keep_body) {
		text_append(&r->kept, from, len);
	}
}

/* A line of the header has been emitted up to its CRLF. */
static void end_header_line(struct message_reader *r)
{
	if (r->line_len == 2) {
		r->in_header = false;
		if (r->on_header != NULL) {
			r->on_header(r, r->owner);
		}
	}
	r->line_len = 0;
}

/*
 * Goes over lines from `start` and emits them, up to a dot at the start of a line or `end`.
 * Returns where it stopped.
 */
static const char *read_lines(struct message_reader *r, const char *start, const char *end)
{
	const char *from = start;
	const char *p = start;
	const char *lf;

	for (;;) {
		lf = memchr(p, '\n', (size_t)(end - p));
		if (lf == NULL) {
			emit(r, from, end);
			return end;
		}
		p = lf + 1;
		if ((lf > start ? lf[-1] : r->last) != '\r') {
			r->bare_lf++;
			continue;
		}
		if (r->in_header) {
			emit(r, from, p);
			end_header_line(r);
			from = p;
		}
		if (p == end || *p == '.') {
			emit(r, from, p);
			r->state = READER_LINE_START;
			return p;
		}
	}
}

size_t message_reader_feed(struct message_reader *r, const char *bytes, size_t len, bool *done)
{
	static const char cr = '\r';
	const char *end = bytes + len;
	const char *p = bytes;

	*done = false;
	while (p < end) {
		if (r->state == READER_LINE_START && *p == '.') {
			r->state = READER_DOT;
			p++;
		} else if (r->state == READER_DOT && *p == '\r') {
			r->state = READER_DOT_CR;
			p++;
		} else if (r->state == READER_DOT_CR && *p == '\n') {
			*done = true;
			return (size_t)(p + 1 - bytes);
		} else {
			/* The CR behind a stuffed dot was text after all. */
			if (r->state == READER_DOT_CR) {
				emit(r, &cr, &cr + 1);
				r->last = '\r';
			} else if (r->state == READER_DOT) {
				r->last = '.';
			}
			r->state = READER_IN_LINE;
			p = read_lines(r, p, end);
			r->last = p[-1];
		}
	}
	return len;
}

void message_reader_feed_chunk(struct message_reader *r, const char *bytes, size_t len)
{
	const char *end = bytes + len;

	while (bytes < end) {
		bytes = read_lines(r, bytes, end);
		r->last = bytes[-1];
	}
}

uint32_t message_reader_sum(const struct message_reader *r)
{
	return checksum_finish(r->sum);
}

static const char *trim(const char *from, const char *to, size_t *len)
{
	while (from < to && (*from == ' ' || *from == '\t')) {
		from++;
	}
	while (to > from && (to[-1] == ' ' || to[-1] == '\t' || to[-1] == '\r')) {
		to--;
	}
	*len = (size_t)(to - from);
	return from;
}

const char *message_reader_field(const struct message_reader *r, const char *name, size_t *len)
{
	size_t name_len = strlen(name);
	const char *p = r->kept.data;
	const char *end = p + r->kept.len;

	while (p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		if (lf == NULL || lf - p <= 1) {
			return NULL;
		}
		if ((size_t)(lf - p) > name_len && p[name_len] == ':' &&
		    strncasecmp(p, name, name_len) == 0) {
			return trim(p + name_len + 1, lf, len);
		}
		p = lf + 1;
	}
	return NULL;
}

void message_reader_free(struct message_reader *r)
{
	text_free(&r->kept);
}
