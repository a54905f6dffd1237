#include "perf/message_pool.h"

#include <assert.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "perf/checksum.h"
#include "perf/random.h"

#define BODIES_MAX 256U
#define BODIES_MIN 4U
#define POOL_BYTES (4U << 20)
#define LINE_TEXT_MAX 74U
/* A line, its CRLF and its stuffed dot, with as much left as the shortest line. */
#define LINE_ROOM (LINE_TEXT_MAX + 5U)

static const char end_of_message[] = ".\r\n";

/* Writes a line of `len` characters; one in sixteen begins with a dot where that may be. */
static char *put_line(char *p, unsigned len, bool may_start_with_dot, uint64_t *random,
		      uint32_t *sum)
{
	const char *text = p;
	uint64_t bits = 0;

	for (unsigned i = 0; i < len; i++) {
		if (i % 8 == 0) {
			bits = random_next(random);
		}
		p[i] = (char)('!' + (bits & 0xff) % ('~' - '!' + 1));
		bits >>= 8;
	}
	if (len > 0 && p[0] == '.') {
		p[0] = ':';
	}
	if (may_start_with_dot && len > 0 && random_below(random, 16) == 0) {
		memmove(p + 1, p, len);
		p[0] = '.';
		p[1] = '.';
		text = p + 1;
		p++;
	}
	memcpy(p + len, "\r\n", 2);
	*sum = checksum_feed(*sum, text, len + 2U);
	return p + len + 2;
}

/* Short lines are rare, but there are some, and empty ones. */
static unsigned line_length(uint64_t *random)
{
	if (random_below(random, 24) == 0) {
		return random_below(random, 4);
	}
	return LINE_TEXT_MAX - random_below(random, 12);
}

static char *make_body(struct message_body *body, char *p, size_t size, uint64_t *random)
{
	char *end = p + size;
	uint32_t sum = CHECKSUM_START;

	body->wire = p;
	while ((size_t)(end - p) >= LINE_ROOM) {
		p = put_line(p, line_length(random), true, random, &sum);
	}
	if (p < end) {
		p = put_line(p, (unsigned)(end - p) - 2, false, random, &sum);
	}
	assert(p == end);
	memcpy(p, end_of_message, sizeof(end_of_message) - 1);
	body->wire_len = size + sizeof(end_of_message) - 1;
	body->sum = checksum_finish(sum);
	return p + sizeof(end_of_message) - 1;
}

void message_pool_init(struct message_pool *pool, size_t size, uint64_t seed)
{
	size_t wire_len = size + sizeof(end_of_message) - 1;
	size_t count = POOL_BYTES / wire_len;
	char *p;

	assert(size != 1);
	count = count > BODIES_MAX ? BODIES_MAX : count;
	count = count < BODIES_MIN ? BODIES_MIN : count;
	pool->count = (unsigned)count;
	pool->bodies = calloc(count, sizeof(*pool->bodies));
	pool->memory = malloc(count * wire_len);
	if (pool->bodies == NULL || pool->memory == NULL) {
		err(2, "%zu bodies of %zu bytes", count, size);
	}
	p = pool->memory;
	for (size_t i = 0; i < count; i++) {
		p = make_body(&pool->bodies[i], p, size, &seed);
	}
}

const struct message_body *message_pool_body(const struct message_pool *pool, uint64_t number)
{
	return &pool->bodies[number % pool->count];
}

void message_pool_free(struct message_pool *pool)
{
	free(pool->bodies);
	free(pool->memory);
	*pool = (struct message_pool){0};
}
