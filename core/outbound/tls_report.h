/*
 * What became of TLS sessions with a domain's mail exchangers, by day (UTC), kind of policy and
 * kind of failure: what a report by SMTP TLS Reporting (RFC 8460) is made of. One table for each
 * scheduler, which alone writes and reads it; of so many domains, the least recently used of which
 * gives way, and so many days. Counted is each session, not each message.
 *
 * Start reading at tls_report_count().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define TLS_REPORT_DOMAINS_MAX 8192
/* A power of two. */
#define TLS_REPORT_BUCKETS 4096
/* Today, and those before. */
#define TLS_REPORT_DAYS 3

/* RFC 8460 section 4.4, "policy-type". */
enum tls_report_policy {
	TLS_REPORT_TLSA,
	TLS_REPORT_STS,
	TLS_REPORT_NO_POLICY,
	TLS_REPORT_POLICIES
};

/* RFC 8460 section 4.3, "result-type"; success has none. */
enum tls_report_result {
	TLS_REPORT_SUCCESS,
	TLS_REPORT_STARTTLS_NOT_SUPPORTED,
	TLS_REPORT_HOST_MISMATCH,
	TLS_REPORT_EXPIRED,
	TLS_REPORT_NOT_TRUSTED,
	TLS_REPORT_VALIDATION_FAILURE,
	TLS_REPORT_TLSA_INVALID,
	TLS_REPORT_DNSSEC_INVALID,
	TLS_REPORT_DANE_REQUIRED,
	TLS_REPORT_STS_FETCH_ERROR,
	TLS_REPORT_STS_INVALID,
	TLS_REPORT_STS_WEBPKI,
	TLS_REPORT_RESULTS
};

BOUND
struct tls_report_day {
	/* Days since 1970-01-01; 0: none yet. */
	uint32_t day;
	uint32_t counts[TLS_REPORT_POLICIES][TLS_REPORT_RESULTS];
};

BOUND
struct tls_report {
	struct tls_report *hash_next;
	/* By use, the latest first. */
	struct tls_report *next;
	struct tls_report *prev;
	/* In no order. */
	struct tls_report_day days[TLS_REPORT_DAYS];
	char domain[];
};

BOUND
struct tls_reports {
	/* NULL until something is counted. */
	struct tls_report **buckets;
	struct tls_report *first;
	struct tls_report *last;
	uint32_t count;
};

/* Counts one session with `domain` (lower case) at `wall_ms`. */
BOUND
void tls_report_count(struct tls_reports *r, const char *domain, enum tls_report_policy policy,
		      enum tls_report_result result, uint64_t wall_ms);

/* NULL: nothing is known of it. */
BOUND
const struct tls_report *tls_report_find(const struct tls_reports *r, const char *domain);

/* "tlsa", "sts", "no-policy-found". */
READONLY
const char *tls_report_policy_name(enum tls_report_policy policy);
/* "starttls-not-supported" and so on; not for TLS_REPORT_SUCCESS. */
READONLY
const char *tls_report_result_name(enum tls_report_result result);

SINGLE
void tls_reports_close(struct tls_reports *r);
