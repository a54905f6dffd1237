/*
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Length of the character that the `len` bytes (1 or more) at `text` start with, 1 to 4; 0 when
 * they start with none that is well-formed and whole. */
CONCURRENT
size_t utf8_sequence(const char *text, size_t len);

/* Copies `len` bytes to `to` with `replacement` in the place of each byte that is part of no
 * character. `to` has room for len times what is longer, 1 byte or `replacement`. Returns the
 * length. */
CONCURRENT
size_t utf8_clean(const char *text, size_t len, const char *replacement, char *to);

/* A character's length as utf8_sequence() has it, and its code point. */
CONCURRENT
size_t utf8_decode(const char *text, size_t len, unsigned *code_point);
