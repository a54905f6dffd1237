/*
 * Typed lock-free ring for one producer and one consumer.
 *
 * RING_DEFINE(name, type) makes `struct name` and name_init, name_close, name_send, name_receive,
 * name_depth. Elements travel by value, each in one slot with the number of its turn: the consumer
 * looks at nothing but the slot, so an element comes over in the transfer of one cache line, and
 * the producer looks at how far the consumer is only when the ring seems full. With an index for
 * the consumer to watch, each hop takes two transfers, one after the other.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/runtime/check.h"

#define CACHE_LINE 64

#define RING_DEFINE(name, type)                                                                    \
	SINGLE                                                                                     \
	struct name##_slot {                                                                       \
		struct type element;                                                               \
		/* Turns count from 1; an old one of this slot is never the one waited for. */     \
		_Atomic uint32_t turn;                                                             \
	};                                                                                         \
	SINGLE                                                                                     \
	struct name {                                                                              \
		/* The consumer's: elements received. */                                           \
		_Alignas(CACHE_LINE) _Atomic uint32_t received;                                    \
		/* The producer's: elements sent, and what it last saw of the consumer's. */       \
		_Alignas(CACHE_LINE) _Atomic uint32_t sent;                                        \
		uint32_t received_seen;                                                            \
		/* Nobody's after init. */                                                         \
		_Alignas(CACHE_LINE) struct name##_slot *slots;                                    \
		uint32_t mask;                                                                     \
	};                                                                                         \
	/* `slots`: a power of two, 2 to 2^30; one of them stays empty. 0 or -ENOMEM. */           \
	static inline int name##_init(struct name *r, unsigned slots)                              \
	{                                                                                          \
		ASSERT(slots >= 2 && slots <= (1U << 30) && (slots & (slots - 1)) == 0);           \
		r->slots = calloc(slots, sizeof(*r->slots));                                       \
		if (r->slots == NULL) {                                                            \
			return -ENOMEM;                                                            \
		}                                                                                  \
		r->mask = slots - 1;                                                               \
		r->received_seen = 0;                                                              \
		atomic_init(&r->received, 0);                                                      \
		atomic_init(&r->sent, 0);                                                          \
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
		uint32_t at = atomic_load_explicit(&r->sent, memory_order_relaxed);                \
		struct name##_slot *slot = &r->slots[at & r->mask];                                \
                                                                                                   \
		if (at - r->received_seen == r->mask) {                                            \
			/* Pairs with the release in receive: the slot's element has been read. */ \
			r->received_seen =                                                         \
				atomic_load_explicit(&r->received, memory_order_acquire);          \
			if (at - r->received_seen == r->mask) {                                    \
				return false;                                                      \
			}                                                                          \
		}                                                                                  \
		slot->element = *element;                                                          \
		atomic_store_explicit(&r->sent, at + 1, memory_order_relaxed);                     \
		/* Pairs with the acquire in receive. */                                           \
		atomic_store_explicit(&slot->turn, at + 1, memory_order_release);                  \
		return true;                                                                       \
	}                                                                                          \
	/* Consumer only. False when empty. */                                                     \
	static inline bool name##_receive(struct name *r, struct type *element)                    \
	{                                                                                          \
		uint32_t at = atomic_load_explicit(&r->received, memory_order_relaxed);            \
		struct name##_slot *slot = &r->slots[at & r->mask];                                \
                                                                                                   \
		if (atomic_load_explicit(&slot->turn, memory_order_acquire) != at + 1) {           \
			return false;                                                              \
		}                                                                                  \
		*element = slot->element;                                                          \
		atomic_store_explicit(&r->received, at + 1, memory_order_release);                 \
		return true;                                                                       \
	}                                                                                          \
	/* Consumer only: there is nothing to receive. */                                          \
	static inline bool name##_empty(const struct name *r)                                      \
	{                                                                                          \
		uint32_t at = atomic_load_explicit(&r->received, memory_order_relaxed);            \
                                                                                                   \
		return atomic_load_explicit(&r->slots[at & r->mask].turn, memory_order_relaxed) != \
		       at + 1;                                                                     \
	}                                                                                          \
	/* Any thread; a snapshot. `sent` is never behind what was received. */                    \
	static inline unsigned name##_depth(const struct name *r)                                  \
	{                                                                                          \
		uint32_t received = atomic_load_explicit(&r->received, memory_order_acquire);      \
                                                                                                   \
		return atomic_load_explicit(&r->sent, memory_order_relaxed) - received;            \
	}                                                                                          \
	struct name
