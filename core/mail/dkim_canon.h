/*
 * DKIM's canonical forms (RFC 6376 section 3.4) of header fields and bodies, made as the text goes
 * by: it comes in pieces of any size, in SMTP wire form, and its stuffed dots are taken out. What
 * is canonical goes to a sink, which hands it on in large pieces, to a digest or to a test.
 *
 * Start reading at dkim_body_add().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define DKIM_SINK_BYTES 4096

enum dkim_canon { DKIM_SIMPLE, DKIM_RELAXED, DKIM_CANONS };

SINGLE
struct dkim_sink {
	void (*take)(void *context, const void *data, size_t len);
	void *context;
	size_t len;
	unsigned char bytes[DKIM_SINK_BYTES];
};

SINGLE
void dkim_sink_init(struct dkim_sink *s, void (*take)(void *context, const void *data, size_t len),
		    void *context);

/* What was gathered goes to take(). */
SINGLE
void dkim_sink_flush(struct dkim_sink *s);

/* One body on its way to `sink`. */
SINGLE
struct dkim_body {
	struct dkim_sink *sink;
	enum dkim_canon canon;
	/* The next byte is the first of its line: a dot there is stuffed. */
	bool line_start;
	/* Held back: a CR, which ends the line if LF follows; relaxed: white space, which counts if
	 * text follows; ends of lines, which count if a line with text follows. */
	bool cr;
	bool blank;
	bool any;
	uint64_t line_ends;
};

SINGLE
void dkim_body_init(struct dkim_body *b, enum dkim_canon canon, struct dkim_sink *sink);

SINGLE
void dkim_body_add(struct dkim_body *b, const void *data, size_t len);

/* The body ends: what is still missing of its canonical form goes to the sink, which is flushed. */
SINGLE
void dkim_body_end(struct dkim_body *b);

/* One header field on its way to `sink`. */
SINGLE
struct dkim_header {
	struct dkim_sink *sink;
	enum dkim_canon canon;
	bool line_start;
	bool cr;
	/* Relaxed: in the value, behind the colon; white space is held back; the value has begun.
	 */
	bool value;
	bool blank;
	bool any;
};

SINGLE
void dkim_header_init(struct dkim_header *h, enum dkim_canon canon, struct dkim_sink *sink);

/* The next bytes of the field, which has a colon. */
SINGLE
void dkim_header_add(struct dkim_header *h, const void *data, size_t len);

/* The field ends, with its CR LF; relaxed makes that. What is signed last, the signature's own
 * field, is given without CR LF and not ended with dkim_header_end() but with
 * dkim_header_end_bare(), which adds none. */
SINGLE
void dkim_header_end(struct dkim_header *h);
SINGLE
void dkim_header_end_bare(struct dkim_header *h);
