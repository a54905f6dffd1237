/*
 * Sessions that a client may resume: a small cache by key (next hop, and how it was verified), one
 * for each scheduler. A session of TLS 1.3 is used once (RFC 8446 appendix C.4), one of TLS 1.2
 * until it ends. When the cache is full the oldest entry gives way.
 */
#pragma once

#include <stdint.h>

#include <openssl/ssl.h>

#include "core/runtime/thread_class.h"
#include "core/runtime/tls.h"

/* A power of two. */
#define TLS_SESSIONS_MAX 1024

BOUND
struct tls_session_entry {
	uint64_t hash;
	/* NULL: free. */
	SSL_SESSION *session;
	/* Larger is newer. */
	uint64_t age;
	char *key;
};

BOUND
struct tls_sessions {
	/* NULL until the first one is kept. */
	struct tls_session_entry *entries;
	uint64_t clock;
	uint32_t count;
};

SINGLE
void tls_sessions_init(struct tls_sessions *s);

/* Takes `session` over; it may be dropped when memory is short. */
BOUND
void tls_sessions_keep(struct tls_sessions *s, const char *key, SSL_SESSION *session);

/* A session to resume, the caller's from then on; NULL: there is none that is still good. */
BOUND
SSL_SESSION *tls_sessions_take(struct tls_sessions *s, const char *key);

SINGLE
void tls_sessions_close(struct tls_sessions *s);
