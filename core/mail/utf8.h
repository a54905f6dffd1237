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

/* The same, with its code point. */
CONCURRENT
size_t utf8_decode(const char *text, size_t len, unsigned *code_point);
