/*
 * Lines of the main log, one per fact about a message, and of the reject log, the bounce log and
 * the feedback log. Fields are separated by "@", the fifth is the type (of F the third); times are
 * whole seconds since 1970, ids that are not known are empty.
 *
 *     R  time@mid@batch@conn@R@rcpt_local@rcpt_domain@from_local@from_domain@peer_ip@size@protocol@
 *        binding_group@binding                                                        received
 *     D  time@mid@batch@conn@D@domain@size@binding_group@binding@retries@seconds_queued@remote_ip
 *                                                                                     delivered
 *     T  time@mid@batch@conn@T@domain@size@binding_group@binding@stage@retries@seconds_queued@
 *        remote_ip@text                                                     failed, tried again
 *     P  the same                                                             failed for good
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
 * 1 024 bytes as written, local parts at 256, domains at 1 020, others at 128. A line ends in one
 * LF.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/mail/smtp_stage.h"
#include "core/runtime/thread_class.h"

#define MAINLOG_LINE_MAX 4352
#define MAINLOG_TEXT_MAX 1024

/* What all lines start with. Batch and connection are hexadecimal in the log; 0: empty. */
READONLY
struct mainlog_prefix {
	uint64_t time_s;
	/* NULL: empty. */
	const struct message_id *id;
	uint64_t batch;
	uint64_t connection;
};

/* Strings are NUL-terminated; NULL counts as empty. Addresses are local@domain. */
READONLY
struct mainlog_reception {
	struct mainlog_prefix prefix;
	const char *recipient;
	const char *sender;
	const char *peer_ip;
	uint64_t size;
	/* "esmtp", "smtp", "internal" */
	const char *protocol;
	const char *binding_group;
	const char *binding;
};

/* D has neither stage nor text, and `tls` only when the session had it. */
READONLY
struct mainlog_attempt {
	struct mainlog_prefix prefix;
	const char *domain;
	uint64_t size;
	const char *binding_group;
	const char *binding;
	enum smtp_stage stage;
	uint32_t retries;
	uint64_t queued_s;
	const char *remote_ip;
	const char *text;
	/* Version, cipher, verification; NULL: plain text. */
	const char *tls[3];
};

READONLY
struct mainlog_rejection {
	struct mainlog_prefix prefix;
	const char *peer_ip;
	enum smtp_stage stage;
	unsigned code;
	const char *sender;
	const char *recipient;
	const char *text;
};

READONLY
struct mainlog_bounce {
	struct mainlog_prefix prefix;
	/* B; else T. */
	bool permanent;
	const char *recipient;
	const char *sender;
	const char *binding_group;
	const char *binding;
	enum smtp_stage stage;
	/* core/mail/bounce_class.h */
	unsigned bounce_class;
	uint64_t size;
	const char *remote_ip;
	const char *text;
};

/* Batch and connection of the prefix are not used. */
READONLY
struct mainlog_feedback {
	struct mainlog_prefix prefix;
	const char *recipient;
	const char *binding_group;
	const char *binding;
	const char *feedback_type;
	/* Who reports. */
	const char *domain;
	const char *user_string;
};

/* Each writes one line with its LF, without a NUL, and returns its length, at most
 * MAINLOG_LINE_MAX. */
CONCURRENT
size_t mainlog_reception(char line[MAINLOG_LINE_MAX], const struct mainlog_reception *r);
CONCURRENT
size_t mainlog_delivery(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a);
CONCURRENT
size_t mainlog_transient(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a);
CONCURRENT
size_t mainlog_permanent(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a);
CONCURRENT
size_t mainlog_rejection(char line[MAINLOG_LINE_MAX], const struct mainlog_rejection *r);
CONCURRENT
size_t mainlog_bounce(char line[MAINLOG_LINE_MAX], const struct mainlog_bounce *b);
CONCURRENT
size_t mainlog_feedback(char line[MAINLOG_LINE_MAX], const struct mainlog_feedback *f);
CONCURRENT
size_t mainlog_heartbeat(char line[MAINLOG_LINE_MAX], uint64_t time_s);

/* Field `index` (from 0) of a line of `len` bytes as it is written; its length goes to
 * `*field_len`. NULL when the line has fewer. A final LF is not part of a field. */
CONCURRENT
const char *mainlog_field(const char *line, size_t len, unsigned index, size_t *field_len);

/* Escapes `len` bytes of `text` for a field of any of our logs; writes at most `max` bytes to `to`,
 * cut as said above, without a NUL. Returns how many. */
CONCURRENT
size_t mainlog_escape(const char *text, size_t len, char *to, size_t max);

/* Undoes the escapes of a field; `to` has room for `len` bytes. Returns the length, or -EINVAL for
 * what no line of ours contains. */
CONCURRENT
int mainlog_unescape(const char *field, size_t len, char *to);
