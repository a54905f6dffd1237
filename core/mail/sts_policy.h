/*
 * MTA-STS (RFC 8461): what a domain says of the mail exchangers that it has, as a record of the
 * name service and as a policy that is fetched by HTTPS. Both come from strangers: what is not as
 * the RFC has it is refused whole.
 *
 * Start reading at sts_policy_parse().
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/dns.h"
#include "core/runtime/thread_class.h"

/* RFC 8461 section 3.1. */
#define STS_ID_MAX 32
/* Largest policy, in bytes. */
#define STS_POLICY_MAX 65536
/* Seconds, RFC 8461 section 3.2: about a year. */
#define STS_MAX_AGE_MAX 31557600
#define STS_WHY 120

enum sts_mode { STS_MODE_NONE, STS_MODE_TESTING, STS_MODE_ENFORCE };

READONLY
struct sts_policy {
	_Atomic uint32_t references;
	enum sts_mode mode;
	uint32_t max_age_s;
	/* Names, or "*." and a name: lower case, in the same piece of memory. */
	uint32_t mx_count;
	const char *mx[];
};

/* The id of the one record "v=STSv1; id=..." among TXT records; false: there is none, or several,
 * or it is malformed (RFC 8461 section 3.1). */
READONLY
bool sts_record_id(const struct dns_answer *txt, char id[STS_ID_MAX + 1]);

/* Reads a policy, with one reference; NULL: it is none, and `why` says what is wrong. */
SINGLE
struct sts_policy *sts_policy_parse(const char *text, size_t len, char why[STS_WHY]);

CONCURRENT
struct sts_policy *sts_policy_hold(struct sts_policy *p);
/* NULL is ignored. */
CONCURRENT
void sts_policy_release(struct sts_policy *p);

/* One of its patterns is `host`, in any case and without a dot at its end (RFC 8461 section 4.1).
 */
READONLY
bool sts_policy_lists(const struct sts_policy *p, const char *host);

/* "none", "testing", "enforce". */
READONLY
const char *sts_mode_name(enum sts_mode mode);
