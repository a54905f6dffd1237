/*
 * Candidates: deliveries whose envelope or header is what selectors ask for, as far as the spool
 * said. Made by one thread, then looked at by many: which of them still wait, and where, only their
 * schedulers know.
 *
 * Start reading at candidates_find().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/queue/delivery.h"
#include "core/runtime/thread_class.h"

/* More are not looked for: they take 24 bytes each, and up to as much again. */
#define CANDIDATES_MAX (UINT32_C(4) << 20)
/* Bits that say which domain records may have some. */
#define CANDIDATES_RECORD_BITS (UINT32_C(1) << 17)

SINGLE
struct candidate {
	struct message_id id;
	uint32_t delivery;
	/* Which of its recipients: a place in `sets`; CANDIDATE_ALL: all. */
	uint32_t set;
};

#define CANDIDATE_ALL UINT32_MAX

SINGLE
struct candidates {
	/* A hash table; an id of zeros is a free place. */
	struct candidate *slots;
	uint32_t slot_count;
	uint32_t count;
	struct recipient_set *sets;
	uint32_t set_count;
	uint32_t set_slots;
	uint64_t *records;
	/* There were more than CANDIDATES_MAX. */
	bool overflown;
};

/* Adds recipients, some, of a delivery that the envelope has; `all`: that is all of them. Again is
 * no mistake. */
SINGLE
void candidates_add(struct candidates *c, const struct envelope *e, uint32_t delivery,
		    const struct recipient_set *who, bool all);

/* Could the record with this hash have some, unless mail was sent on to it? */
READONLY
bool candidates_may_be_in(const struct candidates *c, uint64_t record_hash);

/* Which recipients of the delivery are meant; those that are over may be among them. Empty: none.
 */
READONLY
struct recipient_set candidates_find(const struct candidates *c, const struct message_id *id,
				     uint32_t delivery);

SINGLE
void candidates_close(struct candidates *c);
