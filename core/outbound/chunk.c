#include "core/outbound/chunk.h"

void chunk_begin(struct chunk_cursor *c, const struct chain *body, bool stuffed)
{
	c->stuffed = stuffed;
	c->buffer = body->head;
	c->at = 0;
	dot_walk_init(&c->walk);
}

/* The next piece; false at the end. It may be empty. */
static bool next(struct chunk_cursor *c, struct iovec *piece)
{
	const unsigned char *data;
	size_t n;
	bool dot = false;

	while (c->buffer != NULL && c->at == c->buffer->len) {
		c->buffer = c->buffer->next;
		c->at = 0;
	}
	if (c->buffer == NULL) {
		return false;
	}
	data = c->buffer->data + c->at;
	n = c->buffer->len - c->at;
	if (c->stuffed) {
		n = dot_walk_next(&c->walk, data, n, &dot);
	}
	c->at += (uint32_t)n;
	*piece = (struct iovec){(void *)(uintptr_t)(data + dot), n - dot};
	return true;
}

uint64_t chunk_length(const struct chain *body, bool stuffed)
{
	struct chunk_cursor c;
	struct iovec piece;
	uint64_t len = 0;

	if (!stuffed) {
		return body->len;
	}
	chunk_begin(&c, body, stuffed);
	while (next(&c, &piece)) {
		len += piece.iov_len;
	}
	return len;
}

bool chunk_ended(const struct chunk_cursor *c)
{
	const struct chain_buffer *b = c->buffer;

	return b == NULL || (c->at == b->len && b->next == NULL);
}

unsigned chunk_iov(struct chunk_cursor *c, struct iovec *iov, unsigned max)
{
	unsigned count = 0;

	while (count < max && next(c, &iov[count])) {
		count += iov[count].iov_len > 0;
	}
	return count;
}
