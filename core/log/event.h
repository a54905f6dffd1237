/*
 * Event: one fact about one recipient of a message, or about a client that was refused or has shown
 * who it is. Agents fill a struct event and encode it into their log blocks, once, whatever
 * listens; the log agent decodes it and writes it out for each log that wants it (event_text.h,
 * event_json.h, event_macro.h).
 *
 * The record is for this machine and this run: a fixed head, then the strings that are not empty,
 * each with its length before and a NUL behind it, so that a decoded event points into the record.
 * What several recipients share is encoded once: further records have what differs.
 *
 * Start reading at event_encode().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/mail/smtp_stage.h"
#include "core/runtime/thread_class.h"

enum event_kind {
	/* A message was accepted for this recipient. */
	EVENT_RECEPTION,
	EVENT_DELIVERY,
	/* Failed, tried again. */
	EVENT_TRANSIENT,
	/* Failed for good by what the next hop said, or because there is none. */
	EVENT_BOUNCE,
	/* A report came by mail: of a failure, or (not `permanent`) of a delay. */
	EVENT_OUT_OF_BAND,
	/* Somebody complained. */
	EVENT_FEEDBACK,
	/* A client was refused something. */
	EVENT_REJECTION,
	/* Given up, as it was too old. */
	EVENT_EXPIRATION,
	/* Given up by an operator. */
	EVENT_ADMIN_FAILURE,
	/* A client showed who it is, or could not. */
	EVENT_AUTHENTICATION,
	/* Still here, nothing new. */
	EVENT_HEARTBEAT,
	EVENT_KINDS
};

/* The logs; LOG_PANIC has lines of text, no events. */
enum log_file { LOG_MAIN, LOG_REJECT, LOG_PANIC, LOG_BOUNCE, LOG_FEEDBACK, LOG_ACCT, LOG_FILES };

enum event_field {
	/* local@domain */
	EVENT_RECIPIENT,
	EVENT_SENDER,
	/* What was said, by the next hop or here. */
	EVENT_REPLY,
	/* The domain that it is queued for. */
	EVENT_DOMAIN,
	/* Of a report about feedback: who reports, and its User-Agent. */
	EVENT_REPORTER,
	EVENT_USER_STRING,
	EVENT_FEEDBACK_TYPE,
	/* "4.4.1" */
	EVENT_ENHANCED,
	EVENT_BINDING_GROUP,
	EVENT_BINDING,
	/* Whose limits hold: "provider NAME", "domain NAME", or "mx PREFERENCE HOST ...". */
	EVENT_SITE,
	/* "esmtp", "esmtps", "smtp", "internal" */
	EVENT_PROTOCOL,
	/* The client's, or the next hop's. */
	EVENT_REMOTE_IP,
	EVENT_REMOTE_NAME,
	/* Ours: the listen that took it; where a binding sends from. */
	EVENT_LOCAL_ADDRESS,
	EVENT_TLS_VERSION,
	EVENT_TLS_CIPHER,
	EVENT_TLS_VERIFICATION,
	/* Who authenticated, or tried, and how. */
	EVENT_USER,
	EVENT_AUTH_METHOD,
	EVENT_FIELDS
};
#define EVENT_BIT(field) (UINT32_C(1) << (field))
#define EVENT_TLS                                                                                  \
	(EVENT_BIT(EVENT_TLS_VERSION) | EVENT_BIT(EVENT_TLS_CIPHER) |                              \
	 EVENT_BIT(EVENT_TLS_VERIFICATION))

/* Longest strings, in bytes; what is longer is cut. No log writes more of them: what is told here
 * is at least what core/log/event_text.h has room for. */
#define EVENT_LONG_MAX 2048
#define EVENT_MEDIUM_MAX 1100
#define EVENT_WORD_MAX 264
/* Bytes of all pairs of a context. */
#define EVENT_CONTEXT_MAX 2560
#define EVENT_HEAD_BYTES 80
#define EVENT_SIZE_MAX                                                                             \
	(EVENT_HEAD_BYTES + 3 * (EVENT_LONG_MAX + 3) + 3 * (EVENT_MEDIUM_MAX + 3) +                \
	 (EVENT_FIELDS - 6) * (EVENT_WORD_MAX + 3) + EVENT_CONTEXT_MAX)

/* Strings are NUL-terminated; NULL counts as empty. */
SINGLE
struct event {
	enum event_kind kind;
	enum smtp_stage stage;
	/* EVENT_OUT_OF_BAND: a failure, not a delay. */
	bool permanent;
	/* EVENT_AUTHENTICATION. */
	bool granted;
	/* Reply code; 0: none. */
	uint16_t code;
	/* core/mail/bounce_class.h; 0: none. */
	uint16_t bounce_class;
	/* Attempts before this one. */
	uint32_t retries;
	/* Since 1970. */
	uint64_t time_ms;
	/* Zeros: none. */
	struct message_id id;
	/* Numbers; 0: none. */
	uint64_t batch;
	uint64_t connection;
	/* Of the body. */
	uint64_t size;
	/* Since its reception. */
	uint64_t queued_ms;
	const char *text[EVENT_FIELDS];
	/* Pairs of the message (core/mail/context.h); NULL: none. */
	const char *context;
	uint32_t context_len;
	/* Of what was decoded: bytes of the records that it is made of. */
	uint32_t record_bytes;
};

/* Logs that an event of this kind belongs to, a bit for each enum log_file; the first of them is
 * the one in whose blocks it travels. */
CONCURRENT
uint32_t event_logs(enum event_kind kind);
CONCURRENT
enum log_file event_log(enum event_kind kind);

/* "reception", "delivery", "transient_failure", ... */
CONCURRENT
const char *event_kind_name(enum event_kind kind);

/* Writes the record of `e`, at most `room` bytes. Returns its length; 0: there is no room for it,
 * which EVENT_SIZE_MAX always is. */
SINGLE
size_t event_encode(const struct event *e, unsigned char *to, size_t room);

/* The same for an event that has everything with the one encoded before it in common but numbers
 * and the strings in `changed` (bits of enum event_field). */
SINGLE
size_t event_encode_again(const struct event *e, uint32_t changed, unsigned char *to, size_t room);

/*
 * Reads the record at the start of `len` bytes, up to EVENT_SIZE_MAX of which are looked at. Its
 * strings stay in the record, and in those before it: a series of records is decoded in its order
 * into one struct, which is zero before the first. Returns the record's length, or -EINVAL for what
 * no encoder wrote.
 */
SINGLE
int event_decode(const unsigned char *from, size_t len, struct event *e);

/* Never NULL. */
SINGLE
static inline const char *event_field(const struct event *e, enum event_field which)
{
	return e->text[which] != NULL ? e->text[which] : "";
}

SINGLE
static inline bool event_has_id(const struct event *e)
{
	return (e->id.high | e->id.low) != 0;
}
