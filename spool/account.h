/*
 * The account of what in each segment is needed: which records are live, and which segments must be
 * outlived by which. The index of messages is changed here only.
 */
#pragma once

#include "spool/store.h"

/* `holder` has a tombstone of a message in `held`: it must outlive that one. */
SINGLE
void store_hold(struct segment *holder, const struct segment *held);

/* `holder` has newer copies of records in `held`. */
SINGLE
void store_hold_copy(struct segment *holder, const struct segment *held);

/* A new message at `place` (units of 8 bytes) of `g`. */
SINGLE
struct spool_entry *store_put_message(struct segment_store *s, struct segment *g,
				      const struct index_record *r, bool cached);

/* Its latest copy is there now. */
SINGLE
void store_move_message(struct segment_store *s, struct spool_entry *e, struct segment *g,
			const struct index_record *r);

/* The latest state of r->delivery, unless that is over. */
SINGLE
void store_put_state(struct segment_store *s, struct spool_entry *e, struct segment *g,
		     const struct index_record *r);

/* Deliveries are over, as a record in `g` says (NULL: `g` is being read in recovery, and the
 * account is kept there). True when that was the last one: the entry is gone. */
SINGLE
bool store_put_done(struct segment_store *s, struct spool_entry *e, struct segment *g,
		    uint32_t first, uint32_t count);

/* Bytes of live records, of 100 bytes of the file. */
SINGLE
uint32_t store_live_percent(const struct segment *g);

/* Checks all accounts against the index; for tests and debug builds. */
SINGLE
bool store_validate(struct segment_store *s);
