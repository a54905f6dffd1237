/* clang-format off */
/*
 * Formats of custom logs: texts with macros, compiled once into a list of parts, by which an event
 * becomes a line.
 *
 *     %t %t{FORMAT} %us{N}   time: seconds since 1970; by strftime(3), in UTC; with N decimals
 *     %i %BI %CI             message id; numbers of the batch and of the connection
 *     %r %R %m %M            recipient and sender: local part, domain
 *     %b %g %d               binding, binding group, domain that it is queued for
 *     %B                     size in bytes, header included
 *     %H %P                  address of the client or the next hop; ours: the listen, or bind_address
 *     %p %A %U               protocol of reception; how, and who authenticated
 *     %h{NAME}               first header field NAME, as captured at reception
 *     %n %N                  what was said; attempts so far, this one included
 *     %s %S %c %C            stage: text, number; class of the failure: name, number
 *     %T %T{N}               seconds since reception, with 2 or N decimals
 *     %vctx_mess{KEY}        metadata of the message
 *     %vctx_conn{KEY}        metadata of the connection that it came by, as it was when the message
 *                            was received
 *     %%                     a "%"
 *
 * What is not known is empty. The longest name counts: %BI is never %B and a letter. Backslashes
 * and control characters in values are escaped as in the main log, so that a record is one line.
 */
/* clang-format on */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/log/event.h"
#include "core/mail/bounce_class.h"
#include "core/runtime/thread_class.h"

/* Longest line, without a LF: what is longer is cut. */
#define EVENT_MACRO_LINE_MAX 16384
#define EVENT_MACRO_WHY 160

struct event_macro;

/* What becomes of each octet of a value. */
READONLY
struct event_sanitizer {
	/* 0: itself; SANITIZE_ESCAPE, or what stands for it, plus SANITIZE_REPLACE. */
	uint16_t octets[256];
	/* Printable ASCII but for backslashes is itself. */
	bool plain;
	/* Octets that are not part of a UTF-8 character become "?". */
	bool utf8;
};

/* Only what would tear a line. */
SINGLE
void event_sanitizer_init(struct event_sanitizer *s);

/* Adds a rule: "special_characters" (@ " ' , ; | = get a backslash), "non_printable" (they become
 * "?"), or "tr/ABC/abc/" (each character of the first list becomes that of the second). NULL, or
 * what is wrong with it. */
SINGLE
const char *event_sanitizer_add(struct event_sanitizer *s, const char *rule);

/* Compiles `format`. Returns NULL after writing to `why` what is wrong. */
SINGLE
struct event_macro *event_macro_compile(const char *format, char why[EVENT_MACRO_WHY]);

/* NULL is ignored. */
SINGLE
void event_macro_free(struct event_macro *m);

/* The key (context.h) of the `index`th header field that it needs, from 0; NULL: no more. */
READONLY
const char *event_macro_header(const struct event_macro *m, uint32_t index);

/* Room for the line of a decoded event, at most EVENT_MACRO_LINE_MAX. */
SINGLE
size_t event_macro_room(const struct event_macro *m, const struct event *e);

/* Writes the line to `to` of `room` bytes, without a NUL; returns its length. `rules` name classes
 * of failures; NULL: they have no name. */
SINGLE
size_t event_macro_format(const struct event_macro *m, const struct event_sanitizer *s,
			  const struct event *e, const struct bounce_rules *rules, char *to,
			  size_t room);
