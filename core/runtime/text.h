/*
 * Text into fixed places: cut where it does not fit, always NUL-terminated.
 */
#pragma once

#include <stddef.h>
#include <string.h>

#include "core/runtime/thread_class.h"

/* Copies `from` into `to` of `size` bytes (1 or more), cut at the end. */
CONCURRENT
static inline void text_copy(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}
