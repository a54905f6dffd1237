#include "listeners/smtp/chunk.h"

#include "core/runtime/check.h"
#include "listeners/smtp/dialogue.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/transaction.h"

static void keep(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	struct dot_walk *walk = &ss->transaction->walk;
	static const unsigned char stuffed = '.';
	size_t n;

	for (; len > 0; data += n, len -= n) {
		bool dot;

		n = dot_walk_next(walk, data, len, &dot);
		if (dot) {
			smtp_transaction_take(ss, &stuffed, 1);
		}
		smtp_transaction_take(ss, data, n);
	}
}

/* A message that does not end in a line end gets one: wire form has it before the final dot. */
static void complete_last_line(struct smtp_session *ss)
{
	if (!dot_walk_at_line_start(&ss->transaction->walk)) {
		smtp_transaction_take(ss, (const unsigned char *)"\r\n", 2);
	}
}

static void end(struct smtp_session *ss)
{
	struct smtp_chunk *chunk = &ss->chunk;

	ss->state = SMTP_SESSION_COMMANDS;
	if (chunk->refusal != NULL) {
		smtp_dialogue_refuse_chunk(ss, chunk->refusal, chunk->count);
		return;
	}
	if (chunk->last) {
		complete_last_line(ss);
	}
	if (smtp_transaction_end_chunk(ss, chunk->last)) {
		smtp_session_reply(ss, 250, "2.0.0", "%llu octets received",
				   (unsigned long long)chunk->size);
	}
}

void smtp_chunk_begin(struct smtp_session *ss, uint64_t size, bool last,
		      const struct smtp_refusal *refusal, enum smtp_count count)
{
	ss->chunk = (struct smtp_chunk){
		.size = size,
		.left = size,
		.last = last,
		.refusal = refusal,
		.count = count,
	};
	ss->state = SMTP_SESSION_CHUNK;
	if (size == 0) {
		end(ss);
	}
}

size_t smtp_chunk_feed(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	struct smtp_chunk *chunk = &ss->chunk;
	size_t n = len < chunk->left ? len : (size_t)chunk->left;

	ASSERT(chunk->left > 0);
	if (chunk->refusal == NULL) {
		keep(ss, data, n);
	}
	chunk->left -= n;
	if (chunk->left == 0) {
		end(ss);
	}
	return n;
}
