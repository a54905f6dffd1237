/*
 * Assertions that stay on in release builds, checked casts, and the end of the program when it
 * can no longer keep its promises.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Prints the reason to stderr and aborts: a lost invariant or lost durability. */
CONCURRENT
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the program: "out of memory for WHAT". */
CONCURRENT
_Noreturn void check_memory_fail(const char *what);

/* `memory` as calloc(), strdup(), open_memstream() and their like return it, which is there. Who
 * has a number or a name to tell calls fatal(). */
CONCURRENT
static inline void *check_memory(void *memory, const char *what)
{
	if (memory == NULL) {
		check_memory_fail(what);
	}
	return memory;
}

CONCURRENT
_Noreturn void check_fail(const char *file, int line, const char *condition);

#define ASSERT(condition) ((condition) ? (void)0 : check_fail(__FILE__, __LINE__, #condition))

/* The struct that holds `member` at `pointer`. */
#define CONTAINER_OF(pointer, type, member)                                                        \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Magic numbers: first field of every long-lived struct. */
#define CHECK_MAGIC(object, expected) ASSERT((object) != NULL && (object)->magic == (expected))
