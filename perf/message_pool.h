/*
 * Bodies for test messages: a few hundred, made once from a seed, each with its sum; message N
 * uses body N modulo their number, so only the header has to be written per message.
 *
 * A body is printable lines, some of which begin with a dot or are nothing but one, in SMTP's dot
 * form with the final dot at the end, ready to be sent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct message_body {
	const char *wire;
	/* Of `wire`, with the final dot line. */
	size_t wire_len;
	/* CRC-32C of the body as the recipient sees it. */
	uint32_t sum;
};

struct message_pool {
	struct message_body *bodies;
	unsigned count;
	char *memory;
};

/* Makes bodies that take `size` bytes on the wire each without the final dot; not 1. */
void message_pool_init(struct message_pool *pool, size_t size, uint64_t seed);

const struct message_body *message_pool_body(const struct message_pool *pool, uint64_t number);

void message_pool_free(struct message_pool *pool);
