/*
 * What the parts of the senders share: sender.c (connections, replies, bodies) and sender_script.c
 * (what is said for one message). World memory.
 *
 * A sender hands over messages one after the other, several on a connection, until all of the
 * scenario's have been answered for good. What broke off or was put off is tried again as a new
 * message.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct book_message;
struct net_end;
struct scenario;

#define SENDER_STEPS_MAX 64
#define SENDER_OUTPUT_MAX 16384
/* Longest step's text; the rest of the output's room. */
#define SENDER_STEP_BYTES_MAX 4096
#define SENDER_LINE_MAX 1024

/* What a reply is awaited for. */
enum sender_kind {
	SENDER_BANNER,
	SENDER_HELLO,
	SENDER_MAIL,
	SENDER_RCPT,
	/* A recipient that must be refused. */
	SENDER_BAD_RCPT,
	/* What is out of place: any answer but 354 will do. */
	SENDER_JUNK,
	SENDER_DATA,
	SENDER_DOT,
	SENDER_RSET,
	SENDER_QUIT,
};

struct sender_step {
	enum sender_kind kind;
	/* The recipient, or which junk. */
	uint32_t index;
};

struct senders {
	struct scenario *scenario;
	/* Messages that some sender has taken upon itself, and those of them that are done. */
	uint32_t claimed;
	uint32_t done;
	/* Mean pause before a message. */
	uint64_t pause_ns;
};

struct sender {
	struct senders *all;
	uint32_t number;
	/* Permille of steps; 0 in a clean scenario. */
	unsigned mischief;
	bool claims;

	/* One connection; NULL: none. */
	struct net_end *end;
	unsigned durability;
	bool connected;
	bool pipelines;
	/* Sends in small pieces with pauses. */
	bool bitty;
	bool resting;
	bool shut;

	/* One message. */
	struct book_message *message;
	struct sender_step steps[SENDER_STEPS_MAX];
	uint32_t step_count;
	uint32_t step;
	uint32_t accepted;
	bool in_body;
	uint32_t body_sent;
	/* Of the final dot. */
	uint32_t dot_sent;

	/* Replies awaited, oldest first. */
	struct sender_step awaited[SENDER_STEPS_MAX];
	uint32_t awaited_count;
	char output[SENDER_OUTPUT_MAX];
	uint32_t output_len;
	uint32_t output_sent;
	char line[SENDER_LINE_MAX];
	uint32_t line_len;
	/* Code of a reply's lines so far; 0: none. */
	unsigned code;
};

/* True `permille` times of 1000, unless the world is calm or the sender well-behaved. */
bool sender_chance(const struct sender *s, unsigned permille);
/* Draws a message, and the steps by which it is handed over. */
void sender_script(struct sender *s);
/* Puts the text of `step` into the output; its reply is awaited. */
void sender_say(struct sender *s, struct sender_step step);
/* Nothing may be said behind this before it is answered. */
bool sender_ends_group(const struct sender *s, struct sender_step step);
