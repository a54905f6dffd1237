/*
 * FNV-1a, 64 bits: a hash of short texts. Its low bits are weak: who masks it mixes it before.
 * Start with FNV_START, then take in one thing after the other.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define FNV_START UINT64_C(0xcbf29ce484222325)

CONCURRENT
static inline uint64_t fnv_octet(uint64_t hash, unsigned char octet)
{
	return (hash ^ octet) * UINT64_C(0x100000001b3);
}

CONCURRENT
static inline uint64_t fnv_bytes(uint64_t hash, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;

	for (size_t i = 0; i < len; i++) {
		hash = fnv_octet(hash, at[i]);
	}
	return hash;
}

/* Without its end. */
CONCURRENT
static inline uint64_t fnv_text(uint64_t hash, const char *text)
{
	for (; *text != '\0'; text++) {
		hash = fnv_octet(hash, (unsigned char)*text);
	}
	return hash;
}
