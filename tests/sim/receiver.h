/*
 * What the parts of the receivers share: receiver.c (connections, commands, messages) and
 * receiver_reply.c (what is answered, and how that goes wrong). World memory.
 *
 * A domain's temper, in permille of replies:
 *   defer, fail   4xx and 5xx, at RCPT and after the final dot; at other stages seldom
 *   drop          ends or resets before, in the middle of, or after a reply; 421; between pieces of
 *                 a body and while idle, too
 *   garbage       what is no reply, too much of it, or one that nobody asked for
 *   silence       nothing for long, then the reply
 *   slow          some time for the reply; of connections: reads little by little
 * Nothing of it while the world is calm.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_end;
struct scenario_domain;

#define RECEIVER_RECIPIENTS_MAX 128
#define RECEIVER_ADDRESS_MAX 128
#define RECEIVER_INPUT_MAX 8192

enum receiver_stage {
	RECEIVER_BANNER,
	RECEIVER_EHLO,
	RECEIVER_HELO,
	RECEIVER_MAIL,
	RECEIVER_RCPT,
	RECEIVER_DATA,
	RECEIVER_DOT,
	RECEIVER_RSET,
	RECEIVER_QUIT,
	/* A command at the wrong time. */
	RECEIVER_WRONG,
};

enum receiver_ending { RECEIVER_OPEN, RECEIVER_CLOSE, RECEIVER_RESET };

/* All domains with the same port. */
struct receiver {
	uint16_t port;
	const struct scenario_domain *domains[12];
	uint32_t domain_count;
	uint32_t sessions;
};

struct receiver_session {
	struct receiver *receiver;
	struct net_end *end;
	/* Whose temper it is: one of the receiver's, from the first RCPT on the recipients'. */
	const struct scenario_domain *domain;
	/* Of the program that connected. */
	uint32_t life;
	bool slow;
	/* It was told nonsense, so it may say some. */
	bool lied;

	/* The reply that is being thought about. */
	bool thinking;
	enum receiver_stage stage;
	unsigned code;
	/* To be closed once what was said is out. */
	enum receiver_ending ending;
	bool gone;

	bool has_mail;
	bool in_body;
	/* A chunk's octets are to come, so many; no recipient was there to take it. */
	bool in_chunk;
	size_t chunk_left;
	/* The transaction of the chunk is counted once the program shows that it read a reply. */
	bool uncounted;
	uint32_t rcpt_count;
	uint32_t recipient_count;
	char (*recipients)[RECEIVER_ADDRESS_MAX];
	/* 250s to messages. */
	uint32_t taken;

	/* Read, and not looked at. */
	char input[RECEIVER_INPUT_MAX];
	size_t input_len;
	char *body;
	size_t body_room;
	size_t body_len;

	char *output;
	size_t output_room;
	size_t output_len;
	size_t output_sent;
	/* The books want to know when what is before `mark_at` has been read. */
	bool marked;
	size_t mark_at;
	uint64_t mark_key;
};

/* True `permille` times of 1000, unless the world is calm. */
bool receiver_chance(unsigned permille);

/* Answers a command: with `code`, or as the temper likes; some time later, maybe. */
void receiver_reply(struct receiver_session *ss, enum receiver_stage stage, unsigned code);
/* 0, or the code by which a domain's temper refuses at this stage. */
unsigned receiver_refusal(const struct receiver_session *ss, enum receiver_stage stage);
/* The time for thinking is over. */
void receiver_think_over(struct receiver_session *ss);
/* Adds to what is to be sent. */
void receiver_say(struct receiver_session *ss, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Says goodbye or not, and ends the session once that is out. */
void receiver_drop(struct receiver_session *ss);

/* For receiver_reply.c: the message that has come is this receiver's now; a key for the books. */
uint64_t receiver_take(struct receiver_session *ss);
/* For receiver_reply.c: calls receiver_think_over() later; nothing is read until then. */
void receiver_think(struct receiver_session *ss, uint64_t delay_ns);
