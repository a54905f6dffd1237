/*
 * Header fields: the Received field that each accepted message gets, dates, and a look at the
 * fields of a message that someone else wrote.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/context.h"
#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

/* Longest Received field, with its final NUL. */
#define HEADER_RECEIVED_MAX 1024
#define HEADER_DATE_MAX 40
/* Longest name that header_take() looks for. */
#define HEADER_NAME_MAX 63
/* header_find() looks no further than this into a message. */
#define HEADER_SEARCH_MAX 16384

READONLY
struct header_received {
	/* What the client said in HELO or EHLO; what is unfit for a header becomes "?". */
	const char *helo;
	/* IPv4 as v4-mapped IPv6, in network order; NULL: not known, no address is written. */
	const uint8_t *peer_ip;
	const char *hostname;
	const struct message_id *id;
	uint64_t time_s;
	enum envelope_protocol protocol;
	/* The transaction used SMTPUTF8; TLS was on; the client had authenticated. */
	bool smtputf8;
	bool tls;
	/* "TLSv1.3", "TLS_AES_256_GCM_SHA384"; NULL: not known. */
	const char *tls_version;
	const char *tls_cipher;
	bool auth;
};

/*
 * Writes a Received field with its final CR LF, folded below 78 columns where the words allow it:
 *     Received: from HELO ([1.2.3.4]) by HOSTNAME with ESMTPS (VERSION CIPHER) id ID; DATE
 * RFC 5321 section 4.4; protocols SMTP, ESMTP, UTF8SMTP, the latter with S for TLS and A for AUTH
 * (RFC 3848, RFC 6531 section 4.3). Returns its length; NUL-terminated. HELO and HOSTNAME are cut
 * at 255 bytes.
 */
CONCURRENT
size_t header_received_format(const struct header_received *r, char text[HEADER_RECEIVED_MAX]);

/* "Tue, 1 Jul 2025 12:00:00 +0000": RFC 5322 section 3.3, in UTC, from seconds since 1970 (up to
 * the year 9999). Returns its length; NUL-terminated. */
CONCURRENT
size_t header_date_format(uint64_t time_s, char text[HEADER_DATE_MAX]);

/*
 * Finds the first field `name` (any case, without colon) in the header of `body`, and writes its
 * value, unfolded and without white space around it, into `value` of `size` bytes (1 or more),
 * NUL-terminated and cut if need be. Control characters become spaces. Returns the length written,
 * or -ENOENT when the first HEADER_SEARCH_MAX bytes have no such field.
 */
SINGLE
int header_find(const struct chain *body, const char *name, char *value, size_t size);

/* The same of several fields, by one look at the header: adds each one that there is to `to`, by
 * its key of `keys` (context.h: with or without a colon behind the name), while all take no more
 * than CONTEXT_FIELDS_MAX. */
SINGLE
void header_capture(const struct chain *body, const char *const *keys, uint32_t count,
		    struct context *to);

/* The same in a header that is at hand, `len` bytes of lines, up to its end or an empty line. */
SINGLE
int header_find_in(const char *text, size_t len, const char *name, char *value, size_t size);

/*
 * Takes all fields `name` (1 to HEADER_NAME_MAX bytes) out of the header of `body`, however long
 * that is, and writes the value of the first as header_find() does. Buffers that become empty go to
 * `buffers`. Returns how many fields there were; without any `value` is empty.
 */
SINGLE
unsigned header_take(struct chain *body, struct pool *buffers, const char *name, char *value,
		     size_t size);
