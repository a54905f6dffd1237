/*
 * DKIM keys: private keys as files have them, what is published of them, and signatures by them. A
 * key does not change once it was loaded, and is shared by all schedulers; each one signs through a
 * keyring of its own, which keeps what OpenSSL wants for a key ready, so that no two threads meet
 * in OpenSSL's locks. Other keys may take the place of those in use, all at one moment: struct
 * dkim_keys.
 *
 * RSA: RFC 6376 section 3.3.3 and RFC 8301; Ed25519: RFC 8463.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Smaller ones are refused, and those up to the second are not what one should have today. */
#define DKIM_RSA_BITS_MIN 1024
#define DKIM_RSA_BITS_GOOD 2048
/* Larger ones need not be understood by those who verify (RFC 8301 section 3.2). */
#define DKIM_RSA_BITS_MAX 4096
#define DKIM_SIGNATURE_MAX (DKIM_RSA_BITS_MAX / 8)
/* Of SHA-256: what is signed. */
#define DKIM_DIGEST_BYTES 32
/* Longest text of dkim_key_record(), with its NUL. */
#define DKIM_RECORD_MAX 1024

enum dkim_algorithm { DKIM_RSA_SHA256, DKIM_ED25519_SHA256 };

struct dkim_key;

/* Reads a private key without a passphrase from the PEM file at `path`. NULL when that failed:
 * `*problem` is what is wrong, as the rest of a sentence that begins with the path. May block. */
SINGLE
struct dkim_key *dkim_key_load(const char *path, const char **problem);

/* The same from `len` bytes of memory. */
SINGLE
struct dkim_key *dkim_key_parse(const char *pem, size_t len, const char **problem);

/* NULL is fine. The private key is wiped when no keyring has it ready any more. */
SINGLE
void dkim_key_free(struct dkim_key *key);

READONLY
enum dkim_algorithm dkim_key_algorithm(const struct dkim_key *key);

READONLY
unsigned dkim_key_bits(const struct dkim_key *key);

/* They were read from the same text. */
READONLY
bool dkim_key_same_file(const struct dkim_key *a, const struct dkim_key *b);

/* Anybody on this machine could read the file. */
READONLY
bool dkim_key_is_exposed(const struct dkim_key *key);

/* "v=DKIM1; k=rsa; p=...": the TXT record at SELECTOR._domainkey.DOMAIN. NUL-terminated; returns
 * its length. */
READONLY
size_t dkim_key_record(const struct dkim_key *key, char text[DKIM_RECORD_MAX]);

/* Keys in use, which signatures name by their index. */
CONCURRENT
struct dkim_keys {
	_Atomic(const struct dkim_key *const *) list;
};

/* Those of this moment: asked for once for a message, whose signatures are then of one moment. They
 * last until the agent that asks goes on to something else. */
CONCURRENT
static inline const struct dkim_key *const *dkim_keys_now(const struct dkim_keys *keys)
{
	/* Pairs with the exchange in dkim_keys_exchange(). */
	return atomic_load_explicit(&keys->list, memory_order_acquire);
}

/* From now on `list` is in use. Returns what was before: to be freed when every agent that signs
 * has gone on to something else. */
CONCURRENT
static inline const struct dkim_key *const *dkim_keys_exchange(struct dkim_keys *keys,
							       const struct dkim_key *const *list)
{
	return atomic_exchange_explicit(&keys->list, list, memory_order_acq_rel);
}

struct dkim_keyring;

SINGLE
struct dkim_keyring *dkim_keyring_create(void);
SINGLE
void dkim_keyring_destroy(struct dkim_keyring *ring);

/* Has no key ready any more: what was freed is then gone, and others are made ready anew. */
SINGLE
void dkim_keyring_clear(struct dkim_keyring *ring);

/* Signs a digest. Returns the signature's length, at most DKIM_SIGNATURE_MAX, or -EIO when OpenSSL
 * failed. Keys may be freed while a keyring knows them. */
SINGLE
int dkim_keyring_sign(struct dkim_keyring *ring, const struct dkim_key *key,
		      const unsigned char digest[DKIM_DIGEST_BYTES],
		      unsigned char signature[DKIM_SIGNATURE_MAX]);
