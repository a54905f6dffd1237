/*
 * TLS: what a session says of its cipher and of the other end's certificate, for those who ask;
 * tls.h has what everybody needs.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Bits of the key that the cipher uses; and those that its algorithm is made for. After the
 * handshake. */
SINGLE
unsigned tls_cipher_bits(const SSL *ssl, unsigned *algorithm);

enum tls_name { TLS_SUBJECT, TLS_ISSUER };

/* A name in the peer's certificate as RFC 2253 writes it, or only its common name, into `to` of
 * `size` bytes, cut if need be. False: there is no certificate, or no such name in it. */
SINGLE
bool tls_peer_name(const SSL *ssl, enum tls_name which, bool common, char *to, size_t size);
