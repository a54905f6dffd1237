#include "core/outbound/chunk.h"

void chunk_begin(struct chunk_cursor *c, const struct chain *body)
{
	c->buffer = body->head;
	c->at = 0;
	dot_walk_init(&c->walk);
}

/* The next piece; false at the end. It may be empty. */
static bool next(struct chunk_cursor *c, struct iovec *piece)
{
	const unsigned char *data;
	size_t n;
	bool dot;

	while (c->buffer != NULL && c->at == c->buffer->len) {
		c->buffer = c->buffer->next;
		c->at = 0;
	}
	if (c->buffer == NULL) {
		return false;
	}
	data = c->buffer->data + c->at;
	n = dot_walk_next(&c->walk, data, c->buffer->len - c->at, &dot);
	c->at += (uint32_t)n;
	*piece = (struct iovec){(void *)(uintptr_t)(data + dot), n - dot};
	return true;
}

uint64_t chunk_length(const struct chain *body)
{
	struct chunk_cursor c;
	struct iovec piece;
	uint64_t len = 0;

	chunk_begin(&c, body);
	while (next(&c, &piece)) {
		len += piece.iov_len;
	}
	return len;
}

unsigned chunk_iov(struct chunk_cursor *c, struct iovec *iov, unsigned max)
{
	unsigned count = 0;

	while (count < max && next(c, &iov[count])) {
		count += iov[count].iov_len > 0;
	}
	return count;
}
