/*
 * TLS contexts: what a server or a client brings to each handshake (certificates, trusted roots,
 * ciphers), made once for a configuration generation and shared by all threads from then on. TLS
 * 1.2 and up, by OpenSSL 3; no compression, no renegotiation.
 *
 * Connections are core/runtime/stream.h's: this file knows no sockets. Start reading at tls_open().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "core/runtime/thread_class.h"

/* Longest line about what went wrong, with its NUL. */
#define TLS_WHY 320
/* Longest key of a session in a cache, with its NUL. */
#define TLS_SESSION_KEY 384

struct tls_context;
struct tls_sessions;

/* What a server asks of its clients' certificates. */
enum tls_client_certificate {
	/* A client may show one; when it proves nothing, the session goes on without it. */
	TLS_CLIENT_OPTIONAL,
	/* None is asked for. */
	TLS_CLIENT_NONE,
	/* The handshake fails without a good one. */
	TLS_CLIENT_REQUIRED,
};

/* How a client verifies the server. */
enum tls_verify {
	/* Not at all: against listeners only (RFC 7435). */
	TLS_VERIFY_NONE,
	/* A chain to a trusted root, and the server's name (RFC 5280, RFC 6125). */
	TLS_VERIFY_PKIX,
	/* By TLSA records alone (RFC 7672). */
	TLS_VERIFY_DANE,
	/* As PKIX, but the session goes on whatever comes out: tls_agreed() says. */
	TLS_VERIFY_TRY,
};

/* One certificate with its key: PEM files. A NULL `key` is in the certificate's file. */
READONLY
struct tls_pair {
	/* SNI that chooses it, lower case, may be "*.example.com"; NULL: for all others. */
	const char *name;
	const char *certificate;
	const char *key;
};

READONLY
struct tls_server_options {
	struct tls_pair pair;
	/* Further certificates, chosen by name. */
	const struct tls_pair *named;
	uint32_t named_count;
	/* OpenSSL's words: a cipher list for TLS 1.2, suites of TLS 1.3 among them; NULL: modern
	 * ones. */
	const char *ciphers;
	/* "TLSv1.2", "TLSv1.3" or both with a colon; NULL: both. */
	const char *protocols;
	/* PEM file of the roots of clients' certificates; NULL: no client is asked for one. */
	const char *client_ca;
	enum tls_client_certificate client_certificate;
};

/* One TLSA record (RFC 6698): usages 2 and 3, selectors 0 and 1, matching types 0 to 2. */
READONLY
struct tls_tlsa {
	uint8_t usage;
	uint8_t selector;
	uint8_t matching;
	const uint8_t *data;
	uint16_t len;
};

/* One end of one connection, as tls_open() is to set it up. A server needs the context only. */
SINGLE
struct tls_wish {
	const struct tls_context *context;
	enum tls_verify verify;
	/* The server's name, for SNI and verification; NULL: none. */
	const char *name;
	/* TLS_VERIFY_DANE: its TLSA records, and further names that a certificate under a trust
	 * anchor may have. */
	const struct tls_tlsa *tlsa;
	uint32_t tlsa_count;
	const char *const *other_names;
	uint32_t other_name_count;
	/* Where sessions to resume are kept, and under which key: whoever shares a key shares what
	 * was verified. NULL: none. */
	struct tls_sessions *sessions;
	const char *session_key;
};

/* Why a handshake failed, or why a peer was found untrusted, as far as it matters to whom it is
 * told (RFC 8460 section 4.3.2). */
enum tls_fault {
	TLS_FAULT_NONE,
	TLS_FAULT_HOST_MISMATCH,
	TLS_FAULT_EXPIRED,
	TLS_FAULT_NOT_TRUSTED,
	/* Anything else. */
	TLS_FAULT_OTHER,
};

/* What the two ends agreed on. */
SINGLE
struct tls_agreed {
	/* "TLSv1.3", "TLS_AES_256_GCM_SHA384"; static. */
	const char *version;
	const char *cipher;
	/* "none", "untrusted" (shown, but it proves nothing), "pkix" or "dane"; static. */
	const char *verification;
	/* The peer's certificate was verified. */
	bool verified;
	/* TLS_VERIFY_TRY: why it was not. */
	enum tls_fault fault;
	bool resumed;
};

/* Makes a server's context: reads the files. NULL: `why` says which file or word is wrong. */
SINGLE
struct tls_context *tls_server_create(const struct tls_server_options *options, char why[TLS_WHY]);

/* Makes a client's context. `ca`: PEM file of trusted roots; NULL: none yet. NULL as above. */
SINGLE
struct tls_context *tls_client_create(const char *ca, char why[TLS_WHY]);

/* What both trust is the same, as it was in their files; NULL: nobody's. */
READONLY
bool tls_client_same_roots(const struct tls_context *a, const struct tls_context *b);
/* A number for what it trusts: equal for equal roots, 0 for none. */
READONLY
uint64_t tls_client_roots(const struct tls_context *context);

/* Trusts the roots that the system trusts, before the context is shared. 0 or -ENOENT. */
SINGLE
int tls_client_trust_system(struct tls_context *context, char why[TLS_WHY]);

/*
 * Gives `used`, which others may be using, what `other` has, and the other way round: from now on
 * handshakes begin with the new certificates. `other` may be freed when every thread that begins
 * handshakes with `used` has begun another callback since; those that are under way, and what is
 * open, keep what they need.
 */
CONCURRENT
void tls_context_exchange(struct tls_context *used, struct tls_context *other);

/* When no handshake uses it any more; connections that are open keep what they need. NULL is
 * ignored.
 */
SINGLE
void tls_context_free(struct tls_context *context);

/*
 * One connection's end, without BIOs. NULL when memory is short or no TLSA record is usable (usages
 * 0 and 1 are not: RFC 7672 section 3.1.3), which `why` says.
 */
SINGLE
SSL *tls_open(const struct tls_wish *wish, char why[TLS_WHY]);

/* Why the last call of OpenSSL on this thread failed, in one line. Empties its error queue. */
SINGLE
void tls_explain(const SSL *ssl, char why[TLS_WHY]);

/* Why the verification of a handshake failed; TLS_FAULT_OTHER when something else did. */
SINGLE
enum tls_fault tls_fault(const SSL *ssl);

/* A record that can prove something of a mail server: usage 2 or 3, and data of the right form (RFC
 * 7672 section 3.1). */
READONLY
bool tls_tlsa_usable(const struct tls_tlsa *record);

/* After the handshake. */
SINGLE
struct tls_agreed tls_agreed(const SSL *ssl);
