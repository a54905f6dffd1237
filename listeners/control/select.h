/*
 * Selectors: which queued mail is meant, in an operator's words. KEY VALUE or KEY=VALUE, several
 * together mean what all of them match:
 *
 *     id ID                 domain PATTERN        binding NAME       state active|delayed|held
 *     sender PATTERN        recipient PATTERN     header NAME PATTERN
 *     older TIME            newer TIME            larger SIZE        attempts N
 *     text PATTERN          all
 *
 * A pattern is a whole text, in which "*" stands for anything, in any case of letters; "@domain"
 * is any address there. What domain record and delivery say is in memory; what only envelopes and
 * headers say may have to be read from the spool.
 *
 * Start reading at select_parse().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/mail/idna.h"
#include "core/queue/domain.h"
#include "core/runtime/thread_class.h"

#define SELECT_WHY 256

enum select_state { SELECT_ACTIVE = 1, SELECT_DELAYED = 2, SELECT_HELD = 4 };

/* NULL and 0: not asked for. Words are the caller's. */
READONLY
struct selectors {
	/* How many were given; `all` is one. */
	unsigned count;
	bool all;
	bool has_id;
	struct message_id id;
	const char *domain;
	const char *binding;
	const char *sender;
	const char *recipient;
	const char *header;
	const char *header_pattern;
	const char *text;
	/* Ages. */
	uint64_t older_ms;
	uint64_t newer_ms;
	uint64_t larger_bytes;
	uint32_t attempts;
	/* enum select_state; 0: any. */
	unsigned states;
	char ascii_domain[IDNA_MAX];
};

/*
 * Reads selectors from `words` on, up to the first word that is none; returns how many words they
 * took, or -EINVAL with a sentence in `why`, which names the word that is wrong. Words are cut in
 * place at "=".
 */
SINGLE
int select_parse(struct selectors *s, char **words, unsigned count, char why[SELECT_WHY]);

/* Is the word a selector's key, with "=" and a value or without, or "dry_run", which goes with
 * selectors only? */
READONLY
bool select_begins(const char *word);

/* Is `text` what `pattern` says? */
READONLY
bool select_matches(const char *pattern, const char *text);

/* ... an address: a pattern "@domain" is any at that domain. */
READONLY
bool select_matches_address(const char *pattern, const char *address);

/* Can the record have some of what is meant? */
BOUND
bool select_record(const struct selectors *s, const struct domain *d);

/* Is the delivery meant, as far as memory knows? Of its record select_record() was true. */
SINGLE
bool select_delivery(const struct selectors *s, const struct delivery *d, uint64_t wall_ms);

/* Does it take envelopes, or headers, to say? */
READONLY
static inline bool select_needs_header(const struct selectors *s)
{
	return s->header != NULL;
}
READONLY
static inline bool select_needs_envelope(const struct selectors *s)
{
	return s->sender != NULL || s->recipient != NULL || s->header != NULL;
}

/* Is the message meant, as far as its envelope and its header say (`len` bytes of its beginning)?
 */
READONLY
bool select_message(const struct selectors *s, const struct envelope *e, const char *header,
		    size_t len, uint64_t wall_ms);

/* Which recipients of delivery `index` are; all when none is named. */
READONLY
struct recipient_set select_recipients(const struct selectors *s, const struct envelope *e,
				       uint32_t index);
