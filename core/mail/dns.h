/*
 * What the name service says: an answer to one question, as plain structs. Made once from what the
 * resolver brings, immutable and shared from then on. Rdata comes from strangers: whatever does not
 * fit its type is left out and counted, nothing is read beyond its length.
 *
 * Start reading at dns_answer_create().
 */
#pragma once

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* A name in text with its NUL: 253 characters, or up to four times as many with escapes. */
#define DNS_NAME_TEXT 1024
/* Records of one answer that are kept. */
#define DNS_RECORDS_MAX 128

/* RFC 1035, 3596, 6698. */
enum dns_type {
	DNS_A = 1,
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
	DNS_TLSA = 52,
};

/* What became of a question. */
enum dns_status {
	/* There is at least one record. */
	DNS_FOUND,
	/* The name does not exist. */
	DNS_NXDOMAIN,
	/* The name exists, and has no record of this type. */
	DNS_NODATA,
	/* The name's servers, or ours, failed (SERVFAIL and all other codes). */
	DNS_SERVFAIL,
	/* DNSSEC says that the answer is forged or broken. */
	DNS_BOGUS,
	/* Nothing came within the resolver's `timeout`. */
	DNS_TIMEOUT,
	/* The asker gave up: the program stops. */
	DNS_CANCELLED,
	DNS_STATUSES
};

/* One record; which member holds is the answer's type. Text and data are the answer's. */
READONLY
struct dns_record {
	union {
		struct in_addr a;
		struct in6_addr aaaa;
		struct {
			uint16_t preference;
			/* Without the dot at its end, lower case; empty: the root, RFC 7505. */
			const char *exchange;
		} mx;
		/* A name as mx.exchange. */
		const char *ptr;
		/* Its strings joined (RFC 7208 section 3.3), any bytes; a NUL follows. */
		struct {
			const char *text;
			size_t len;
		} txt;
		struct {
			uint8_t usage;
			uint8_t selector;
			uint8_t matching;
			const unsigned char *data;
			size_t len;
		} tlsa;
	};
};

READONLY
struct dns_answer {
	_Atomic uint32_t references;
	enum dns_type type;
	enum dns_status status;
	/* As sent, RFC 6895. */
	uint8_t rcode;
	/* DNSSEC has proven it: the records, or that there are none. */
	bool secure;
	/* How long it may be kept, in seconds, as the name service says. */
	uint32_t ttl_s;
	/* What the question's name is an alias of (CNAME); NULL: none. */
	const char *canonical;
	/* Why it is bogus or failed; NULL: nothing to say. */
	const char *why;
	/* Records that did not fit their type. */
	uint32_t malformed;
	uint32_t count;
	const struct dns_record *records;
};

/* What an answer is made of. */
SINGLE
struct dns_raw {
	enum dns_type type;
	enum dns_status status;
	uint8_t rcode;
	bool secure;
	uint32_t ttl_s;
	/* NULL: none. */
	const char *canonical;
	const char *why;
	/* Rdata in wire form, without compression. */
	const unsigned char *const *rdata;
	const size_t *rdata_len;
	uint32_t count;
};

/* Makes an answer with one reference. Records of the wrong form are left out; when nothing is left
 * of a DNS_FOUND it is a DNS_SERVFAIL. Never NULL. */
SINGLE
struct dns_answer *dns_answer_create(const struct dns_raw *raw);

CONCURRENT
struct dns_answer *dns_answer_hold(struct dns_answer *a);
/* NULL is ignored. */
CONCURRENT
void dns_answer_release(struct dns_answer *a);

/*
 * An uncompressed name (RFC 1035 section 3.1) at the beginning of `data` as text in lower case,
 * without the dot at its end; dots and backslashes inside of labels are escaped as "\.", bytes that
 * do not print as "\DDD". Returns how many bytes it takes in the data, 0 when it is malformed.
 */
READONLY
size_t dns_name_parse(const unsigned char *data, size_t len, char text[DNS_NAME_TEXT]);

/* "MX" and so on; NULL: none of ours. */
READONLY
const char *dns_type_name(enum dns_type type);
/* In any case; false: none of ours. */
READONLY
bool dns_type_parse(const char *name, enum dns_type *type);
/* "noerror", "nxdomain", "nodata", "servfail", "bogus", "timeout", "cancelled". */
READONLY
const char *dns_status_name(enum dns_status status);

/* One record as in a zone file: "10 mx.example.net." */
READONLY
void dns_record_format(enum dns_type type, const struct dns_record *r, char *text, size_t size);
