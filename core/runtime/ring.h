/*
 * Typed lock-free ring for one producer and one consumer.
 *
 * RING_DEFINE(name, type) makes `struct name` and name_init, name_close, name_put, name_publish,
 * name_send, name_receive, name_empty, name_depth. Elements travel by value, each in one slot with
 * the number of its turn: the consumer looks at nothing but the slot, so an element comes over in
 * the transfer of one cache line. With an index for the consumer to watch, each hop takes two, one
 * after the other.
 *
 * What is put is seen when it is published, its first element last: until then the consumer watches
 * that one slot only, and does not take away the lines that the producer still writes to.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/runtime/check.h"

#define CACHE_LINE 64
/* The consumer of a ring of so many slots or more says how far it is only once in RING_LAG
 * elements, and when it finds no more: the producer may see that much less room than there is. */
#define RING_LAG_SLOTS 64
#define RING_LAG 16

#define RING_DEFINE(name, type)                                                                    \
	SINGLE                                                                                     \
	struct name##_slot {                                                                       \
		struct type element;                                                               \
		/* Turns count from 1; an old one of this slot is never the one waited for. */     \
		_Atomic uint32_t turn;                                                             \
	};                                                                                         \
	SINGLE                                                                                     \
	struct name {                                                                              \
		/* The consumer's: elements received, and of how many it has told. */              \
		_Alignas(CACHE_LINE) uint32_t taken;                                               \
		uint32_t lag;                                                                      \
		_Alignas(CACHE_LINE) _Atomic uint32_t received;                                    \
		/* The producer's: elements put and published, and what it last saw of the         \
		 * consumer's. */                                                                  \
		_Alignas(CACHE_LINE) _Atomic uint32_t put;                                         \
		uint32_t published;                                                                \
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
		r->lag = slots >= RING_LAG_SLOTS ? RING_LAG - 1 : 0;                               \
		r->taken = 0;                                                                      \
		r->published = 0;                                                                  \
		r->received_seen = 0;                                                              \
		atomic_init(&r->received, 0);                                                      \
		atomic_init(&r->put, 0);                                                           \
		return 0;                                                                          \
	}                                                                                          \
	static inline void name##_close(struct name *r)                                            \
	{                                                                                          \
		free(r->slots);                                                                    \
		r->slots = NULL;                                                                   \
	}                                                                                          \
	/* Producer only. False when full: the element was not taken. */                           \
	static inline bool name##_put(struct name *r, const struct type *element)                  \
	{                                                                                          \
		uint32_t at = atomic_load_explicit(&r->put, memory_order_relaxed);                 \
                                                                                                   \
		if (at - r->received_seen == r->mask) {                                            \
			/* Pairs with the releases in receive: the slot's element has been read.   \
			 */                                                                        \
			r->received_seen =                                                         \
				atomic_load_explicit(&r->received, memory_order_acquire);          \
			if (at - r->received_seen == r->mask) {                                    \
				return false;                                                      \
			}                                                                          \
		}                                                                                  \
		r->slots[at & r->mask].element = *element;                                         \
		atomic_store_explicit(&r->put, at + 1, memory_order_relaxed);                      \
		return true;                                                                       \
	}                                                                                          \
	/* Producer only. What was put may be received from now on. */                             \
	static inline void name##_publish(struct name *r)                                          \
	{                                                                                          \
		uint32_t end = atomic_load_explicit(&r->put, memory_order_relaxed);                \
                                                                                                   \
		for (uint32_t at = end; at != r->published; at--) {                                \
			/* Pairs with the acquire in receive. */                                   \
			atomic_store_explicit(&r->slots[(at - 1) & r->mask].turn, at,              \
					      memory_order_release);                               \
		}                                                                                  \
		r->published = end;                                                                \
	}                                                                                          \
	/* Producer only. Both. */                                                                 \
	static inline bool name##_send(struct name *r, const struct type *element)                 \
	{                                                                                          \
		bool taken = name##_put(r, element);                                               \
                                                                                                   \
		name##_publish(r);                                                                 \
		return taken;                                                                      \
	}                                                                                          \
	/* Consumer only. False when empty. */                                                     \
	static inline bool name##_receive(struct name *r, struct type *element)                    \
	{                                                                                          \
		uint32_t at = r->taken;                                                            \
		struct name##_slot *slot = &r->slots[at & r->mask];                                \
                                                                                                   \
		if (atomic_load_explicit(&slot->turn, memory_order_acquire) != at + 1) {           \
			if (atomic_load_explicit(&r->received, memory_order_relaxed) != at) {      \
				atomic_store_explicit(&r->received, at, memory_order_release);     \
			}                                                                          \
			return false;                                                              \
		}                                                                                  \
		*element = slot->element;                                                          \
		r->taken = at + 1;                                                                 \
		if ((r->taken & r->lag) == 0) {                                                    \
			atomic_store_explicit(&r->received, at + 1, memory_order_release);         \
		}                                                                                  \
		return true;                                                                       \
	}                                                                                          \
	/* Consumer only: there is nothing to receive. */                                          \
	static inline bool name##_empty(const struct name *r)                                      \
	{                                                                                          \
		uint32_t at = r->taken;                                                            \
                                                                                                   \
		return atomic_load_explicit(&r->slots[at & r->mask].turn, memory_order_relaxed) != \
		       at + 1;                                                                     \
	}                                                                                          \
	/* Any thread; a snapshot, that may count RING_LAG elements too many. */                   \
	static inline unsigned name##_depth(const struct name *r)                                  \
	{                                                                                          \
		uint32_t received = atomic_load_explicit(&r->received, memory_order_acquire);      \
                                                                                                   \
		return atomic_load_explicit(&r->put, memory_order_relaxed) - received;             \
	}                                                                                          \
	struct name
