/*
 * Buffer chain: a body as it travels, in SMTP wire form, in pooled buffers of one size. Whoever
 * holds the chain owns its buffers; they may be given back to another agent's pool.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/runtime/pool.h"
#include "core/runtime/thread_class.h"

#define CHAIN_BUFFER_SIZE 4096
#define CHAIN_BUFFER_DATA (CHAIN_BUFFER_SIZE - sizeof(struct chain_buffer))

SINGLE
struct chain_buffer {
	struct chain_buffer *next;
	uint32_t len;
	uint32_t unused;
	unsigned char data[];
};

SINGLE
struct chain {
	struct chain_buffer *head;
	struct chain_buffer *tail;
	/* Bytes in all. */
	uint64_t len;
	uint32_t buffers;
};

#define CHAIN_EMPTY ((struct chain){0})

/* Copies `len` bytes to the end. */
SINGLE
void chain_append(struct chain *c, struct pool *buffers, const void *data, size_t len);

/* printf to the end; at most 2 000 bytes at a time (asserted). */
SINGLE
void chain_printf(struct chain *c, struct pool *buffers, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts all of `front` before what `c` holds; `front` is empty afterwards. No copy. */
SINGLE
void chain_prepend_chain(struct chain *c, struct chain *front);

/* Describes up to `max` buffers from `*cursor` (NULL: head) as iovecs; moves the cursor; returns
 * how many. The end is reached when the cursor is NULL afterwards. */
SINGLE
unsigned chain_iov(const struct chain *c, struct chain_buffer **cursor, struct iovec *iov,
		   unsigned max);

/* Copies `len` bytes from `offset`; the caller knows that they are there. */
SINGLE
void chain_copy_out(const struct chain *c, uint64_t offset, void *to, size_t len);

/* Takes `len` bytes from `offset` out; the caller knows that they are there. Buffers that are empty
 * then go to `buffers`. */
SINGLE
void chain_remove(struct chain *c, struct pool *buffers, uint64_t offset, uint64_t len);

/* Gives all buffers to `buffers`; the chain is empty afterwards. */
SINGLE
void chain_release(struct chain *c, struct pool *buffers);
