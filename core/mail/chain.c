#include "core/mail/chain.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"

#define CHAIN_PRINTF_MAX 2000

/* Read by jemalloc when the program starts. By itself it makes room for one buffer at a time, as
 * one fills a page; for 16 of them that takes a tenth of the work for each. */
const char *malloc_conf = "slab_sizes:4096-4096:16";

_Static_assert(CHAIN_BUFFER_SIZE == 4096, "what malloc_conf speaks of");

static struct chain_buffer *chain_add_buffer(struct chain *c, struct pool *buffers)
{
	struct chain_buffer *b;

	ASSERT(buffers->size == CHAIN_BUFFER_SIZE);
	b = pool_get(buffers);
	*b = (struct chain_buffer){.next = NULL};
	if (c->tail == NULL) {
		c->head = b;
	} else {
		c->tail->next = b;
	}
	c->tail = b;
	c->buffers++;
	return b;
}

void chain_append(struct chain *c, struct pool *buffers, const void *data, size_t len)
{
	const unsigned char *from = data;

	while (len > 0) {
		struct chain_buffer *b = c->tail;
		size_t n;

		if (b == NULL || b->len == CHAIN_BUFFER_DATA) {
			b = chain_add_buffer(c, buffers);
		}
		n = CHAIN_BUFFER_DATA - b->len;
		if (n > len) {
			n = len;
		}
		memcpy(b->data + b->len, from, n);
		b->len += (uint32_t)n;
		c->len += n;
		from += n;
		len -= n;
	}
}

void chain_printf(struct chain *c, struct pool *buffers, const char *format, ...)
{
	char text[CHAIN_PRINTF_MAX + 1];
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	ASSERT(n >= 0 && n <= CHAIN_PRINTF_MAX);
	chain_append(c, buffers, text, (size_t)n);
}

void chain_prepend_chain(struct chain *c, struct chain *front)
{
	if (front->head == NULL) {
		return;
	}
	front->tail->next = c->head;
	c->head = front->head;
	if (c->tail == NULL) {
		c->tail = front->tail;
	}
	c->len += front->len;
	c->buffers += front->buffers;
	*front = CHAIN_EMPTY;
}

unsigned chain_iov(const struct chain *c, struct chain_buffer **cursor, struct iovec *iov,
		   unsigned max)
{
	struct chain_buffer *b = *cursor != NULL ? *cursor : c->head;
	unsigned n = 0;

	while (b != NULL && n < max) {
		if (b->len > 0) {
			iov[n].iov_base = b->data;
			iov[n].iov_len = b->len;
			n++;
		}
		b = b->next;
	}
	*cursor = b;
	return n;
}

void chain_copy_out(const struct chain *c, uint64_t offset, void *to, size_t len)
{
	const struct chain_buffer *b = c->head;
	unsigned char *out = to;

	ASSERT(offset <= c->len && len <= c->len - offset);
	while (len > 0) {
		size_t n;

		if (offset >= b->len) {
			offset -= b->len;
			b = b->next;
			continue;
		}
		n = b->len - (size_t)offset;
		if (n > len) {
			n = len;
		}
		memcpy(out, b->data + offset, n);
		out += n;
		len -= n;
		offset = 0;
		b = b->next;
	}
}

void chain_remove(struct chain *c, struct pool *buffers, uint64_t offset, uint64_t len)
{
	struct chain_buffer **at = &c->head;
	struct chain_buffer *kept = NULL;

	ASSERT(offset <= c->len && len <= c->len - offset);
	c->len -= len;
	while (len > 0) {
		struct chain_buffer *b = *at;
		size_t n;

		if (offset >= b->len) {
			offset -= b->len;
			kept = b;
			at = &b->next;
			continue;
		}
		n = b->len - (size_t)offset;
		if (n > len) {
			n = (size_t)len;
		}
		memmove(b->data + offset, b->data + offset + n, b->len - offset - n);
		b->len -= (uint32_t)n;
		len -= n;
		if (b->len == 0) {
			*at = b->next;
			c->tail = b->next == NULL ? kept : c->tail;
			c->buffers--;
			pool_put(buffers, b);
		}
	}
}

void chain_release(struct chain *c, struct pool *buffers)
{
	struct chain_buffer *b = c->head;

	ASSERT(b == NULL || buffers->size == CHAIN_BUFFER_SIZE);
	while (b != NULL) {
		struct chain_buffer *next = b->next;

		pool_put(buffers, b);
		b = next;
	}
	*c = CHAIN_EMPTY;
}
