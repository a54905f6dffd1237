/*
 * Mail data as RFC 5321 section 4.5.2 describes it, byte by byte and without cleverness: what
 * core/mail/dot.c is compared with.
 */
#pragma once

#include <strings.h>

#include "core/mail/dot.h"
#include "tests/fuzz/fuzz_input.h"

struct dot_reference {
	/* Bytes of the message; with `ended` its end follows them. */
	size_t len;
	bool ended;
	uint32_t flags;
	uint32_t received;
};

static inline bool dot_after_crlf(const unsigned char *data, size_t at)
{
	return at == 0 || (at >= 2 && data[at - 2] == '\r' && data[at - 1] == '\n');
}

static inline void dot_reference_find_end(struct dot_reference *r, const unsigned char *data,
					  size_t len)
{
	for (size_t i = 0; i < len; i++) {
		size_t n = len - i < 3 ? len - i : 3;

		if (dot_after_crlf(data, i) && memcmp(data + i, ".\r\n", n) == 0) {
			r->len = i;
			r->ended = n == 3;
			return;
		}
	}
	r->len = len;
}

/* A line from `start`: bytes without its line end; where the next one starts goes to `*next`, 0 if
 * the line is not complete. */
static inline size_t dot_reference_line(const unsigned char *data, size_t start, size_t len,
					bool bare_ends_line, size_t *next)
{
	*next = 0;
	for (size_t i = start; i < len; i++) {
		if (data[i] == '\r' && i + 1 < len && data[i + 1] == '\n') {
			*next = i + 2;
			return i - start;
		}
		/* What follows a last CR is not known. */
		if (bare_ends_line && (data[i] == '\n' || (data[i] == '\r' && i + 1 < len))) {
			*next = i + 1;
			return i - start;
		}
	}
	return len - start;
}

static inline void dot_reference_lines(struct dot_reference *r, const unsigned char *data,
				       uint32_t line_max, bool bare_ends_line)
{
	bool header = true;
	size_t next = 0;

	for (size_t at = 0; at < r->len; at = next) {
		size_t n = dot_reference_line(data, at, r->len, bare_ends_line, &next);
		bool dotted = n > 0 && data[at] == '.' && dot_after_crlf(data, at);

		if (header && n >= 9 && strncasecmp((const char *)data + at, "received:", 9) == 0) {
			r->received++;
		}
		if (next == 0) {
			return;
		}
		if (n - dotted > line_max) {
			r->flags |= DOT_LONG_LINE;
		}
		header = header && n - dotted > 0;
	}
}

static inline struct dot_reference dot_reference_scan(const unsigned char *data, size_t len,
						      uint32_t line_max, bool bare_ends_line)
{
	struct dot_reference r = {0};

	dot_reference_find_end(&r, data, len);
	for (size_t i = 0; i < r.len; i++) {
		bool after_cr = i > 0 && data[i - 1] == '\r';

		r.flags |= data[i] == '\n' && !after_cr ? DOT_BARE_LF : 0;
		r.flags |= data[i] != '\n' && after_cr ? DOT_BARE_CR : 0;
		r.flags |= data[i] == '\0' ? DOT_NUL : 0;
		r.flags |= data[i] >= 128 ? DOT_8BIT : 0;
		r.flags |= data[i] == '.' && dot_after_crlf(data, i) ? DOT_STUFFED : 0;
	}
	dot_reference_lines(&r, data, line_max, bare_ends_line);
	return r;
}

/* The message itself: without stuffed dots, and each bare CR or LF made CR LF. `to` has room for
 * twice `len`. Returns the length. */
static inline size_t dot_reference_plain(const unsigned char *data, size_t len, unsigned char *to)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (data[i] == '.' && dot_after_crlf(data, i)) {
			continue;
		}
		if (data[i] == '\r' && i + 1 < len && data[i + 1] == '\n') {
			i++;
			to[n++] = '\r';
			to[n++] = '\n';
		} else if (data[i] == '\r' || data[i] == '\n') {
			to[n++] = '\r';
			to[n++] = '\n';
		} else {
			to[n++] = data[i];
		}
	}
	return n;
}
