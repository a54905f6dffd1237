/*
 * A server's reply, parsed from whatever pieces the network brings: code, enhanced status, one line
 * of text for logs and bounces, and the keywords of an EHLO reply. Never trusts the peer.
 *
 * Feed with smtp_reply_feed() until it returns something else than 0; reset before the next reply.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Joined text that is kept; what is longer is cut. */
#define SMTP_REPLY_TEXT_MAX 4096
/* A longer line, or more lines, is an error. */
#define SMTP_REPLY_LINE_LIMIT 65536
#define SMTP_REPLY_LINES_MAX 256

enum smtp_extension {
	SMTP_EXTENSION_PIPELINING = 1,
	SMTP_EXTENSION_SIZE = 2,
	SMTP_EXTENSION_8BITMIME = 4,
	SMTP_EXTENSION_SMTPUTF8 = 8,
	SMTP_EXTENSION_ENHANCEDSTATUSCODES = 16,
	SMTP_EXTENSION_STARTTLS = 32,
	SMTP_EXTENSION_CHUNKING = 64,
	SMTP_EXTENSION_DSN = 128,
	SMTP_EXTENSION_REQUIRETLS = 256,
};

SINGLE
struct smtp_reply {
	/* 200 to 599; of the first line, once it is complete. */
	uint16_t code;
	/* Lines that are complete. */
	uint16_t lines;
	/* "5.1.1", or empty when the reply has none or one of another class. */
	char status[12];
	/* EHLO keywords: enum smtp_extension. */
	uint32_t extensions;
	/* Limit of SIZE in bytes; 0: none was told. */
	uint64_t size_max;
	/* Joined by one space: the first line with code and status, the others without. UTF-8
	 * without control characters (what is none is a "?"), NUL-terminated. Not to be read before
	 * smtp_reply_feed() returned something else than 0. */
	uint32_t text_len;
	/* Private: where in `text` the current line starts, its length so far, cut or not. */
	uint32_t line_start;
	uint32_t line_len;
	bool last_line;
	char text[SMTP_REPLY_TEXT_MAX + 512];
};

SINGLE
void smtp_reply_reset(struct smtp_reply *r);

/*
 * Takes `len` bytes at `data`; `*used` becomes how many belong to this reply (the rest is the next
 * one's, and remains the caller's). RFC 5321 section 4.2, RFC 2034 section 4; lines may end in a
 * bare LF. Returns 1 when the reply is complete, 0 when more is needed (all was used); -EPROTO for
 * a line that is no reply line or changes the code, -EMSGSIZE for one too long or too many of them.
 * After an error the connection is useless; `text` holds what came, for the log.
 */
SINGLE
int smtp_reply_feed(struct smtp_reply *r, const void *data, size_t len, size_t *used);

/* 2 to 5. */
static inline unsigned smtp_reply_class(const struct smtp_reply *r)
{
	return r->code / 100U;
}
