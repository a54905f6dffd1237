/*
 * Address: the path of MAIL FROM and RCPT TO, parsed and written anew in its canonical form. Also
 * what a domain may look like, and what IP address a domain literal means.
 *
 * Start reading at address_parse().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/mail/smtp_refusal.h"
#include "core/runtime/thread_class.h"

#define ADDRESS_LOCAL_MAX 64
#define ADDRESS_DOMAIN_MAX 255

enum address_role { ADDRESS_SENDER, ADDRESS_RECIPIENT };

SINGLE
struct address {
	/* local@domain without brackets and source route, NUL-terminated; the domain in lower case
	 * and, if it was not ASCII, as A-labels (idna.h), so that one domain has one name whoever
	 * writes it; the local part in quotes only if it needs them. Empty: the null sender. */
	char text[ADDRESS_MAX + 1];
	uint16_t len;
	uint16_t local_len;
	/* Where in `text` the domain starts, and its length: 0 for the null sender, and for a
	 * recipient `postmaster` (written so), to which the caller adds its own name. */
	uint16_t domain_offset;
	uint16_t domain_len;
	/* The domain is an address literal. */
	bool literal;
	/* The path has octets above 127; of `text` only the local part may have any. */
	bool utf8;
};

/*
 * Parses a Reverse-path or Forward-path, brackets included, `len` bytes at `path`: RFC 5321 section
 * 4.1.2. A source route is checked and dropped (appendix C). `<>` is taken for senders only,
 * `<postmaster>` (any case) for recipients only. UTF-8 (RFC 6531 section 3.3) needs `smtputf8`.
 * Limits: 64 octets of local part, 255 of domain, 63 of a label (RFC 5321 section 4.5.3.1, RFC 1035
 * section 2.3.4); the 256 octets of a whole path are not enforced. Allocates for U-labels only.
 * Returns 0; else a negative errno, and `refusal` is what to reply (501 or 553; 5.1.7 for senders,
 * 5.1.3 for recipients, 5.6.7 for octets above 127 without SMTPUTF8): -EINVAL for bad syntax and
 * for domains that IDNA2008 does not allow,
 * -ENAMETOOLONG for a limit, -EILSEQ for octets above 127 that are not allowed or not UTF-8.
 */
SINGLE
int address_parse(struct address *a, const char *path, size_t len, enum address_role role,
		  bool smtputf8, struct smtp_refusal *refusal);

static inline const char *address_domain(const struct address *a)
{
	return a->text + a->domain_offset;
}

/* Whether `domain` is a host name in the sense of RFC 5321 section 4.1.2 (`Domain`): labels of
 * letters, digits and inner hyphens; with `utf8` also well-formed UTF-8. No literals, no final dot.
 */
CONCURRENT
bool address_domain_valid(const char *domain, size_t len, bool utf8);

/* The address that `[1.2.3.4]` or `[IPv6:...]` (any case, with brackets) means, IPv4 as v4-mapped
 * IPv6, in network order. Returns 0, or -EINVAL when it is no such literal (RFC 5321
 * section 4.1.3). */
CONCURRENT
int address_literal_parse(const char *domain, size_t len, unsigned char ip[16]);
