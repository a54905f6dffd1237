/*
 * The fetch of one MTA-STS policy by HTTPS (RFC 8461 section 3.3), by libcurl: the blocking part of
 * a job for the thread pool. No redirects, no proxy, no cookies; the certificate has to be that of
 * the policy host, the answer small and of the right type. Addresses come from our own resolver.
 *
 * Start reading at sts_fetch().
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "core/mail/sts_policy.h"
#include "core/runtime/thread_class.h"

/* Addresses that are tried: text, with commas between. */
#define STS_ADDRESSES 512

/* What came of it; by the names that reports have for them (RFC 8460 section 4.3.2.2). */
enum sts_trouble {
	STS_TROUBLE_NONE,
	/* sts-policy-fetch-error */
	STS_TROUBLE_FETCH,
	/* sts-policy-invalid */
	STS_TROUBLE_INVALID,
	/* sts-webpki-invalid */
	STS_TROUBLE_WEBPKI,
};

SINGLE
struct sts_fetch {
	const struct sts_options *options;
	/* Lower case, without the "mta-sts." before it; stays. */
	const char *domain;
	/* "192.0.2.1,[2001:db8::1]" */
	char addresses[STS_ADDRESSES];
	/* Set by another thread: it is to end at once. */
	_Atomic bool cancelled;
	enum sts_trouble trouble;
	/* NULL when there is trouble. */
	struct sts_policy *policy;
	char why[STS_WHY];
};

/* Fetches and parses. Blocks for options->timeout_ms at most, or about a second when cancelled. */
SINGLE
void sts_fetch(struct sts_fetch *f);
