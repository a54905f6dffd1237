/*
 * Typed lock-free ring for one producer and one consumer, on Concurrency Kit's ck_ring.
 *
 * RING_DEFINE(name, type) makes `struct name` and name_init, name_close, name_send, name_receive,
 * name_depth. Elements travel by value. ck_ring_init(n) holds n-1 and takes any n without a word,
 * so the capacity is checked here. ck_ring_t has alignment 4: the ring is padded to cache lines.
 */
#pragma once

#include <ck_ring.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/runtime/check.h"

#ifndef CK_MD_TSO
#error "ck 0.7 orders ring loads and stores for total-store-order machines only"
#endif

#define CACHE_LINE 64

#define RING_DEFINE(name, type)                                                                    \
	SINGLE                                                                                     \
	struct name {                                                                              \
		_Alignas(CACHE_LINE) ck_ring_t ring;                                               \
		_Alignas(CACHE_LINE) struct type *slots;                                           \
	};                                                                                         \
	CK_RING_PROTOTYPE(name##_, type)                                                           \
	/* `slots`: a power of two, 2 to 2^30; one of them stays empty. 0 or -ENOMEM. */           \
	static inline int name##_init(struct name *r, unsigned slots)                              \
	{                                                                                          \
		ASSERT(slots >= 2 && slots <= (1U << 30) && (slots & (slots - 1)) == 0);           \
		r->slots = calloc(slots, sizeof(struct type));                                     \
		if (r->slots == NULL) {                                                            \
			return -ENOMEM;                                                            \
		}                                                                                  \
		ck_ring_init(&r->ring, slots);                                                     \
		return 0;                                                                          \
	}                                                                                          \
	static inline void name##_close(struct name *r)                                            \
	{                                                                                          \
		free(r->slots);                                                                    \
		r->slots = NULL;                                                                   \
	}                                                                                          \
	/* Producer only. False when full: the element was not taken. */                           \
	static inline bool name##_send(struct name *r, const struct type *element)                 \
	{                                                                                          \
		return ck_ring_enqueue_spsc_##name##_(&r->ring, r->slots,                          \
						      (struct type *)(uintptr_t)element);          \
	}                                                                                          \
	/* Consumer only. False when empty. */                                                     \
	static inline bool name##_receive(struct name *r, struct type *element)                    \
	{                                                                                          \
		return ck_ring_dequeue_spsc_##name##_(&r->ring, r->slots, element);                \
	}                                                                                          \
	/* Any thread; a snapshot. */                                                              \
	static inline unsigned name##_depth(const struct name *r)                                  \
	{                                                                                          \
		return ck_ring_size(&r->ring);                                                     \
	}                                                                                          \
	struct name
