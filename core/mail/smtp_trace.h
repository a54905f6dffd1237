/*
 * SMTP trace: makes lines for people of what two ends of an SMTP connection say, from the octets as
 * they go by. It follows the conversation as far as that needs: whose turn it is, where message
 * content begins and ends, and what is a secret.
 *
 * Never in a line: what a client says in AUTH (RFC 4954), be it an initial response or a line of
 * its own; message content, which is counted, unless it is wanted; and then values of header fields
 * that are known, or named, to hold secrets. Control characters are escaped as in the main log
 * ("\n", "\x1b"), so that a line is one line.
 *
 * Start reading at take_command() in smtp_trace.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Octets of one line that are kept; the rest is counted. */
#define SMTP_TRACE_KEPT 1024
/* Longest text that is emitted, bytes: every octet may become four. */
#define SMTP_TRACE_TEXT (4 * SMTP_TRACE_KEPT + 64)

enum smtp_trace_kind {
	/* "C: ..." or "S: ...". */
	SMTP_TRACE_LINE,
	/* A line of content, "C> ..."; only if it is wanted. */
	SMTP_TRACE_CONTENT,
};

/* Takes one line, NUL-terminated, without a line end. */
typedef void (*smtp_trace_line_fn)(void *context, enum smtp_trace_kind kind, const char *text,
				   size_t len);
/* A RCPT command names a recipient of this domain: lower case, NUL-terminated. Before its line. */
typedef void (*smtp_trace_recipient_fn)(void *context, const char *domain);

/* A line that has begun. */
SINGLE
struct smtp_trace_text {
	/* Octets so far, of which the first SMTP_TRACE_KEPT are kept. */
	size_t len;
	unsigned char last;
	char kept[SMTP_TRACE_KEPT];
};

enum smtp_trace_state {
	SMTP_TRACE_COMMANDS,
	SMTP_TRACE_DATA,
	SMTP_TRACE_CHUNK,
	/* In the middle of something: what the client says is not looked at. */
	SMTP_TRACE_BLIND,
};

SINGLE
struct smtp_trace {
	/* Private, but for these. */
	smtp_trace_line_fn on_line;
	smtp_trace_recipient_fn on_recipient;
	void *context;
	bool wants_content;

	enum smtp_trace_state state;
	/* AUTH was said, or 334, and not answered yet; and the client was not let in since. */
	bool auth;
	bool auth_tried;
	/* Of the content: in the header, in a field whose value is hidden; the line before ended in
	 * CR LF. */
	bool in_header;
	bool hidden_field;
	bool after_crlf;
	bool chunk_last;
	bool in_chunks;
	uint64_t chunk_left;
	uint64_t content_bytes;
	struct smtp_trace_text command;
	struct smtp_trace_text content;
	struct smtp_trace_text reply;
};

/* A connection of which nothing was said yet; with `blind`, one in the middle of something. */
SINGLE
void smtp_trace_init(struct smtp_trace *t, smtp_trace_line_fn on_line,
		     smtp_trace_recipient_fn on_recipient, void *context, bool blind);

/* The client's next octets begin a command: a blind trace sees again. */
SINGLE
void smtp_trace_see(struct smtp_trace *t);

/* What the client, or the server, says next, in plain text, cut anywhere. */
SINGLE
void smtp_trace_client(struct smtp_trace *t, const void *data, size_t len);
SINGLE
void smtp_trace_server(struct smtp_trace *t, const void *data, size_t len);

/* The connection has ended: lines that have begun are emitted as far as they came. */
SINGLE
void smtp_trace_end(struct smtp_trace *t);

/* `text` (`len` bytes) with its control characters and backslashes escaped; `to` has room for 4 *
 * len + 1 bytes. Returns the length. */
CONCURRENT
size_t smtp_trace_escape(const char *text, size_t len, char *to);
