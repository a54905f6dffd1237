/*
 * Events as lines of text: the main log, one line per fact about a message, the reject log, the
 * bounce log, the feedback log and the log of who showed who it is. Fields are separated by "@",
 * the fifth is the type (of F the third); times are whole seconds since 1970, ids that are not
 * known are empty.
 *
 *     R  time@mid@batch@conn@R@rcpt_local@rcpt_domain@from_local@from_domain@peer_ip@size@protocol@
 *        binding_group@binding                                                        received
 *     D  time@mid@batch@conn@D@domain@size@binding_group@binding@retries@seconds_queued@remote_ip
 *                                                                                     delivered
 *     T  time@mid@batch@conn@T@domain@size@binding_group@binding@stage@retries@seconds_queued@
 *        remote_ip@text                                                     failed, tried again
 *     P  the same                          failed for good, or was given up for its age, or by an
 *                                          operator
 *     M1 time@@@@M1                                                         still here, nothing new
 *     J  time@mid@batch@conn@J@peer_ip@stage@code@from_local@from_domain@rcpt_local@rcpt_domain@
 *        text                                                  refused, in the reject log
 *     B  time@mid@batch@conn@B@rcpt_local@rcpt_domain@from_local@from_domain@binding_group@binding@
 *        stage@class@size@remote_ip@text        failed for good, in the bounce log, with its class
 *     T  the same                              failed, tried again: of type T in the bounce log
 *     F  time@mid@F@rcpt_local@rcpt_domain@binding@binding_group@feedback_type@fbl_domain@
 *        user_string                            somebody complained, in the feedback log
 *
 * In fields, "@" is written \@ and "\" is written \\; LF, CR and TAB are \n, \r and \t; other
 * octets below 32, and 127, are \xHH with two lower-case hexadecimal digits; all others are
 * themselves. A field that is too long is cut, never inside an escape or a UTF-8 character: text at
 * 1 024 bytes as written, local parts at 256, domains at 1 020, what acctlog has at 256, others at
 * 128. A line ends in one LF, which is not written here.
 */
#pragma once

#include <stddef.h>

#include "core/log/event.h"
#include "core/runtime/thread_class.h"

/* Longest line, without its LF. */
#define EVENT_TEXT_LINE_MAX 4352
#define EVENT_TEXT_MAX 1024

/* Writes the line that `e` is in the log `log`, without LF and NUL. Returns its length; 0: events
 * of this kind are not in that log. */
SINGLE
size_t event_text(char line[EVENT_TEXT_LINE_MAX], enum log_file log, const struct event *e);

/* Field `index` (from 0) of a line of `len` bytes as it is written; its length goes to
 * `*field_len`. NULL when the line has fewer. A final LF is not part of a field. */
CONCURRENT
const char *event_text_field(const char *line, size_t len, unsigned index, size_t *field_len);

/* Escapes `len` bytes of `text` for a field of any of our logs; writes at most `max` bytes to `to`,
 * cut as said above, without a NUL. Returns how many. */
CONCURRENT
size_t event_text_escape(const char *text, size_t len, char *to, size_t max);

/* Undoes the escapes of a field; `to` has room for `len` bytes. Returns the length, or -EINVAL for
 * what no line of ours contains. */
CONCURRENT
int event_text_unescape(const char *field, size_t len, char *to);
