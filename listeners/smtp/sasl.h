/*
 * What clients say in AUTH: base64 (RFC 4648 section 4) and the message of the mechanism PLAIN (RFC
 * 4616). Syntax only.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Longest user name and password, in bytes. */
#define SASL_WORD_MAX 255

SINGLE
struct sasl_credentials {
	char user[SASL_WORD_MAX + 1];
	char password[SASL_WORD_MAX + 1];
};

/* Decodes `len` bytes of base64, padded, without anything else in it. `to` has room for 3 bytes for
 * each 4 of them. Returns the length, or -EINVAL. */
CONCURRENT
int sasl_base64_decode(const char *text, size_t len, unsigned char *to);

/* One response of LOGIN, base64, into `word`: 1 to SASL_WORD_MAX bytes without NUL. 0 or
 * -EINVAL. */
CONCURRENT
int sasl_login_parse(const char *text, size_t len, char word[SASL_WORD_MAX + 1]);

/* The response of PLAIN, base64: [user] NUL user NUL password. Whoever wants to act as somebody
 * else is refused. 0; -EINVAL: it is none; -EACCES: it is one for somebody else. */
CONCURRENT
int sasl_plain_parse(const char *text, size_t len, struct sasl_credentials *c);
