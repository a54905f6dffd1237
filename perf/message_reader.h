/*
 * Reads one message in SMTP's dot form (RFC 5321 section 4.5.2), in whatever pieces it arrives:
 * undoes the dot-stuffing, keeps the header, sums the body, finds the end. Or one that comes in
 * chunks (RFC 3030), as it is.
 *
 * Only CRLF ends a line, so only CRLF "." CRLF ends a message: a lone LF is counted, and means
 * nothing else. Start reading at message_reader_feed().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/text.h"

enum message_reader_state {
	READER_LINE_START,
	READER_IN_LINE,
	READER_DOT,
	READER_DOT_CR,
};

struct message_reader {
	enum message_reader_state state;
	/* The last byte that was fed. */
	char last;
	bool in_header;
	/* Set by the owner, from on_header(), to keep the body too. */
	bool keep_body;
	/* Of the current line, for finding the empty one; needed in the header only. */
	size_t line_len;
	/* The header with its empty line; then the body, when it is kept. */
	struct text kept;
	/* Of the message without dot-stuffing and without the final dot. */
	uint64_t size;
	uint64_t bare_lf;
	uint32_t sum;
	/* Called once the empty line was read; NULL if nobody wants to know. */
	void (*on_header)(struct message_reader *r, void *owner);
	void *owner;
};

/* Makes `r` ready for the next message; on_header, owner and the memory of `kept` stay. */
void message_reader_start(struct message_reader *r);

/*
 * Takes `len` bytes. Returns how many of them belong to the message: fewer than `len` only when
 * it ended, and *done then says so.
 */
size_t message_reader_feed(struct message_reader *r, const char *bytes, size_t len, bool *done);

/* Takes `len` bytes of a message that comes in chunks. */
void message_reader_feed_chunk(struct message_reader *r, const char *bytes, size_t len);

/* CRC-32C of the body so far: what follows the empty line. */
uint32_t message_reader_sum(const struct message_reader *r);

/*
 * Finds the header field `name` (without colon) in what was kept. Returns its value without the
 * white space around it, or NULL; folded lines are not joined.
 */
const char *message_reader_field(const struct message_reader *r, const char *name, size_t *len);

void message_reader_free(struct message_reader *r);
