/*
 * Watches what OpenSSL allocates, for the private key of dkim_ed25519_8463: how often it is in
 * memory, and whether it is left there. One thread only.
 *
 * Start reading at watch_seed().
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* The 32 bytes of dkim_ed25519_8463, each with its bits inverted: not to be found here. */
static const unsigned char inverted_seed[] = {0x62, 0x9e, 0x4e, 0x62, 0x10, 0x02, 0xa5, 0x9f,
					      0x45, 0x7b, 0xb5, 0x0b, 0x6d, 0x13, 0xd3, 0x3b,
					      0xbb, 0xb6, 0x3a, 0x96, 0x84, 0xcd, 0x96, 0xe6,
					      0x8f, 0xc4, 0x53, 0xfc, 0xe3, 0x51, 0x80, 0x9f};

/* Before what OpenSSL has allocated; in a list of all of it. */
struct block {
	_Alignas(16) size_t size;
	struct block *next;
	struct block *prev;
};

static struct block blocks = {0, &blocks, &blocks};
/* Blocks that had the private key in them when they were freed. */
static unsigned freed_with_seed;

static inline bool has_seed(const struct block *b)
{
	const unsigned char *bytes = (const unsigned char *)(b + 1);

	for (size_t at = 0; at + sizeof(inverted_seed) <= b->size; at++) {
		size_t n = 0;

		while (n < sizeof(inverted_seed) && (bytes[at + n] ^ inverted_seed[n]) == 0xff) {
			n++;
		}
		if (n == sizeof(inverted_seed)) {
			return true;
		}
	}
	return false;
}

static inline unsigned count_with_seed(void)
{
	unsigned count = 0;

	for (const struct block *b = blocks.next; b != &blocks; b = b->next) {
		count += has_seed(b);
	}
	return count;
}

static inline void *watched_malloc(size_t size, const char *file, int line)
{
	struct block *b = calloc(1, sizeof(*b) + size);

	(void)file;
	(void)line;
	assert_non_null(b);
	*b = (struct block){size, blocks.next, &blocks};
	b->next->prev = b;
	blocks.next = b;
	return b + 1;
}

static inline void watched_free(void *p, const char *file, int line)
{
	struct block *b;

	(void)file;
	(void)line;
	if (p == NULL) {
		return;
	}
	b = (struct block *)p - 1;
	freed_with_seed += has_seed(b);
	b->next->prev = b->prev;
	b->prev->next = b->next;
	free(b);
}

static inline void *watched_realloc(void *p, size_t size, const char *file, int line)
{
	void *moved = watched_malloc(size, file, line);

	if (p != NULL) {
		size_t old = ((struct block *)p - 1)->size;

		memcpy(moved, p, old < size ? old : size);
		watched_free(p, file, line);
	}
	return moved;
}

/* Before OpenSSL has allocated anything. */
static inline void watch_seed(void)
{
	assert_int_equal(CRYPTO_set_mem_functions(watched_malloc, watched_realloc, watched_free),
			 1);
}
