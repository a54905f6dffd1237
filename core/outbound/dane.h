/*
 * DANE for SMTP (RFC 7672): what TLSA records of a next hop demand of it, and the look-up of those
 * records, as two steps of a route (route.h). Pure: it asks nobody and knows no time.
 *
 * Start reading at dane_next_question().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/dns.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/tls.h"

/* Names besides the base that a certificate may have under a trust anchor: the next-hop domain, and
 * what that is an alias of (RFC 7672 section 3.2.2). */
#define DANE_NAMES_MAX 2

/* The secure TLSA records of one next hop, in one piece of memory of `size` bytes. With no usable
 * one among them TLS is a must, with whatever certificate (RFC 7672 section 2.2). */
READONLY
struct dane {
	uint32_t size;
	/* Of usable records. */
	uint16_t count;
	uint16_t name_count;
	/* TLSA base domain: what the server is asked for (SNI). */
	const char *base;
	const char *names[DANE_NAMES_MAX];
	struct tls_tlsa records[];
};

/* What the look-up came to. */
enum dane_state {
	/* There are none, or none that DNSSEC proves. */
	DANE_ABSENT,
	DANE_PRESENT,
	/* It failed: the host is not to be used (RFC 7672 section 2.1.2). */
	DANE_FAILED,
};

/* First what the host is an alias of, then its own name. */
enum dane_step { DANE_CANONICAL, DANE_OWN, DANE_STEPS };

/* The look-up for one host name; zeroed before use. */
SINGLE
struct dane_lookup {
	/* Names as in "_25._tcp.mx.example.com"; NULL: not asked. */
	char *names[DANE_STEPS];
	struct dns_answer *answers[DANE_STEPS];
};

/*
 * The next question about host `name`, whose secure address was found under `canonical` (NULL: no
 * alias), on `port`; its name is the look-up's. False: none for now.
 */
SINGLE
bool dane_next_question(struct dane_lookup *l, const char *name, const char *canonical,
			uint16_t port, enum dane_step *step, const char **question);

/* There is one: as dane_next_question(), without asking. */
SINGLE
bool dane_has_question(const struct dane_lookup *l, const char *name, const char *canonical);

/* Takes a reference to the answer. */
SINGLE
void dane_answer(struct dane_lookup *l, enum dane_step step, struct dns_answer *answer);

/* What it came to, when nothing is to be asked any more; the answer that decided in `*answer`, the
 * step that it is of in `*step`. */
SINGLE
enum dane_state dane_state(const struct dane_lookup *l, const struct dns_answer **answer,
			   enum dane_step *step);

/* The records of an answer that is DANE_PRESENT (free). `names`: DANE_NAMES_MAX of them, NULL where
 * there is none. Never NULL. */
SINGLE
struct dane *dane_create(const struct dns_answer *answer, const char *base,
			 const char *const *names);

/* A copy of d->size bytes at `at`, aligned as malloc does. */
SINGLE
struct dane *dane_copy(const struct dane *d, void *at);

SINGLE
void dane_lookup_close(struct dane_lookup *l);
