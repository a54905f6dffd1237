/*
 * What the parts of the books share: an entry for each message that there is, the senders' and the
 * program's own notifications, and what is known of each of its recipients, as sets of bits.
 *
 * A recipient has come to its end by a delivery (a receiver's 250), by a notification that names
 * it, or by a P line of the log where nobody is to be told. Deliveries and notifications of which
 * the program could not know are `excused`; of all others a recipient has one.
 *
 * Start reading at books_judge() and books_accounted().
 */
#pragma once

#include "core/log/event.h"
#include "core/mail/message.h"
#include "spool/spool.h"
#include "tests/sim/books.h"
#include "tests/sim/scenario.h"

#define BOOKS_HASH 1024U
#define BOOKS_WAITING_HASH 64U
#define BOOKS_LIVES_MAX 256
#define BOOKS_HEAD_MAX 256
#define BOOKS_TAIL_MAX 32

/* What a receiver took: a 250. */
struct book_take {
	struct book_entry *entry;
	/* Of its recipients: whom it was for, and for whom it is excused. */
	uint64_t recipients;
	uint64_t excused;
	uint32_t life;
	bool answered;
	bool read;
	struct book_take *next;
};

/* One delivery of the program's: the recipients of a domain. */
struct book_group {
	/* In the recipients' addresses. */
	const char *domain;
	/* In the order of the envelope. */
	uint8_t first;
	uint8_t count;
	uint64_t recipients;
	/* Recipients in 250s, and lines of the log. */
	uint32_t taken;
	uint32_t logged_deliveries;
	/* P lines that count: those since the last kill. */
	uint32_t failures;
};

struct book_entry {
	struct book_message m;
	/* As the program calls it. */
	struct message_id id;
	/* The program has made a message of it. */
	bool known;
	uint64_t known_ns;
	/* Wall clock, as its envelope says. */
	uint64_t received_ms;
	/* Place in the envelope to recipient. */
	uint8_t order[BOOKS_RECIPIENTS_MAX];
	struct book_group groups[BOOKS_RECIPIENTS_MAX];
	uint32_t group_count;
	uint64_t all;

	/* The program has said that it keeps it, and to which life that was. */
	bool kept;
	uint32_t life_kept;
	/* The spool has said so. */
	bool stored;
	/* The spool has said that it cannot. */
	bool store_failed;
	/* Operators gave it up, without a notification. */
	bool fail_ordered;
	bool fail_quiet;
	/* It may be gone, as its durability promises no more. */
	bool may_be_lost;

	/* Recipients whose end is written down: it survives a cut, or a kill only. */
	uint64_t settled;
	uint64_t settled_cached;
	/* Those of them that no receiver had taken. */
	uint64_t written_off;
	/* In records that were under way when a life ended, or in the cache when the power was cut:
	 * they may be there. */
	uint64_t perhaps_settled;
	/* With a line R. */
	uint64_t logged;
	/* Some receiver has taken it. */
	uint64_t taken;
	struct book_take *takes;

	/* A notification: about which message, whom it names, for whom it is excused. */
	struct book_entry *about;
	uint64_t names;
	uint64_t names_excused;
	uint32_t life_made;
	uint64_t data_hash;
	/* A message: its notifications that the program keeps. */
	struct book_entry *notices;
	struct book_entry *notice_next;

	/* What its field X-Binding says; NULL: it has none. And which binding sends it, as the
	 * first line of the log said; NULL: none has. */
	const char *asked;
	const char *binding;
	/* The field's length, at the start of the head. */
	uint32_t field_len;

	/* The body: a head of its own, whole lines of the books' text from `text_start` on, a tail.
	 */
	uint32_t head_len;
	uint32_t text_start;
	uint32_t text_len;
	uint32_t tail_len;
	char head[BOOKS_HEAD_MAX];
	char tail[BOOKS_TAIL_MAX];

	struct book_entry *hash_next;
	struct book_entry *open_next;
};

/* A request to the spool or a message on its way into it: what is to be called when it is back. */
struct book_waiting;

/* Lines of one log, by hash. */
struct book_line {
	uint64_t hash;
	uint32_t count;
	uint32_t found;
	struct book_line *next;
};

struct book_log {
	const char *path;
	struct book_line *lines[BOOKS_HASH];
	uint64_t written;
};

struct book_domain {
	/* At a receiver: connections of each binding now. */
	int connections[SCENARIO_BINDINGS_MAX];
	/* Since the life began. */
	uint64_t transactions;
	/* Failing was ordered. */
	bool ordered;
	bool quiet;
	/* ... and sending by other bindings. */
	bool rebound;
};

struct books {
	/* By number, from 1 on. */
	struct book_entry **entries;
	uint32_t count;
	uint32_t room;
	struct book_entry *by_id[BOOKS_HASH];
	/* Notifications, newest first. */
	struct book_entry *all_notices;
	/* Those that may still be unaccounted for. */
	struct book_entry *open;
	struct book_take **takes;
	uint32_t take_count;
	uint32_t take_room;
	struct book_domain domains[SCENARIO_DOMAINS_MAX];
	/* In this life. */
	bool binding_ordered[SCENARIO_BINDINGS_MAX];
	/* The program's messages were seen on their way: these books see everything. */
	bool watching;
	struct book_waiting *waiting[BOOKS_WAITING_HASH];
	struct book_log mainlog;
	struct book_log rejectlog;
	struct book_log bouncelog;
	/* By life, from 1 on. */
	int ends[BOOKS_LIVES_MAX];
	/* Its stop did not wait for a disk that took nothing. */
	bool gave_up[BOOKS_LIVES_MAX];
	/* The run is over but for the stop: what is made from now on stays in the queue; 0: not
	 * yet. */
	uint64_t closing_ns;
	uint32_t lives;
	uint64_t life_began_ns;
	/* The last life that stopped by itself, all its mail synced. */
	uint32_t life_synced;
	bool harsh_ends;
	/* What bodies are made of, and where its lines start. */
	char *text;
	uint32_t text_len;
	uint32_t *lines;
	uint32_t line_count;
};

/* ---- books.c ---- */

struct book_entry *books_entry(const struct books *b, uint32_t number);
/* NULL: nobody made such a message. */
struct book_entry *books_find(const struct books *b, const struct message_id *id);
/* The program has made a message with this id. */
void books_know(struct books *b, struct book_entry *e, const struct message_id *id);
/* The message that an address of ours is of, and which of its recipients; NULL: none. */
struct book_entry *books_find_address(const struct books *b, const char *address, size_t len,
				      uint32_t *recipient);
struct book_group *books_group(struct book_entry *e, const char *domain);
struct book_entry *books_new_notice(struct books *b, const char *recipient);
/* The program keeps a notification now. */
void books_keep_notice(struct book_entry *notice);
/* The program has promised to keep it. */
bool books_promised(const struct book_entry *e);
/* The recipients that it is for. */
uint64_t books_wanted(const struct book_entry *e);
/* All of them have come to an end, or it may be lost. */
bool books_all_accounted(const struct books *b, const struct book_entry *e);
/* Fails when a recipient has come to two ends that are not excused. */
void books_judge(const struct book_entry *e);
/* The recipients that have come to an end. */
uint64_t books_accounted(const struct books *b, const struct book_entry *e);
/* Senders of this message are to be told of failures in a domain. */
bool books_tells(const struct books *b, const struct book_entry *e, const char *domain);
/* The last 250 for recipients of this group is not to be trusted. */
void books_excuse_last(struct book_entry *e, const struct book_group *g);
const char *books_name(const struct book_entry *e);

/* ---- books_body.c ---- */

void books_text_create(struct books *b);
void books_body_draw(struct books *b, struct book_entry *e, uint32_t len);
uint64_t books_hash(const void *data, size_t len, uint64_t start);
/* Checks what was delivered of `e`: trace header and body. */
void books_body_check(const struct books *b, const struct book_entry *e, const char *data,
		      size_t len);
/* The number in a header X-Sim; 0: none. */
uint32_t books_sim_number(const char *data, size_t len);

/* ---- books_notice.c ---- */

/* Is it a notification? Otherwise a message. */
bool books_is_notice(const char *data, size_t len);
/* Whom it is about: sets `about` and `names`. Fails when it is none of ours. */
void books_notice_read(struct books *b, struct book_entry *notice, const char *data, size_t len);
/* Its own id, in the header Message-ID. */
bool books_notice_id(const char *data, size_t len, struct message_id *id);

/* ---- books_spool.c ---- */

/* The program has made a message, one of ours or a notification. */
struct book_entry *books_meet(struct books *b, const struct message *m);
/* The program has said that it keeps it. */
void books_keep(struct book_entry *e);
/* The spool is asked to write down that a delivery is over but for those `pending`; NULL: for all.
 * The recipients that leave: whoever does has been taken by somebody, or has failed with a line in
 * the log, or the program loses mail. */
uint64_t books_spool_asked(const struct book_entry *e, uint32_t delivery,
			   const struct recipient_set *pending);
/* It has answered a STORE, STATE or DONE: from now on the program must know. */
void books_spool_answered(struct books *b, struct book_entry *e, enum spool_verb verb,
			  uint64_t leaving, int result);
/* Requests under way are gone with their life. */
void books_spool_forget(struct books *b);

/* ---- books_log.c ---- */

/* The program tells its logs of this: holds it against what has happened, and expects its lines. */
void books_note(const struct event *event);
void books_log_check(struct books *b);

/* ---- books_bindings.c ---- */

/* Draws what a message asks for. */
void books_binding_draw(struct book_entry *e);
/* A line of the log says who sends it. */
void books_binding_check(struct books *b, struct book_entry *e, const char *group,
			 const char *binding, enum event_kind kind);
/* Of its body, so much is taken out. */
uint32_t books_binding_taken(const struct book_entry *e);

/* ---- books_limits.c ---- */

void books_limits_new_life(struct books *b);
struct book_domain *books_domain(struct books *b, const char *domain);
