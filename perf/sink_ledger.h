/*
 * The sink's books: which message arrived for whom, how often, and whether it was whole.
 *
 * A message of fwload carries its id and the sum of its body. It is `distinct` the first time its
 * id is seen; each recipient must get it once, and an arrival for a recipient that already had
 * it is a duplicate. One message may well come in several transactions, for different recipients.
 * What carries no id (a bounce, say) is foreign. Start reading at sink_ledger_accept().
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "perf/domain_tally.h"
#include "perf/fingerprint.h"
#include "perf/latency.h"
#include "perf/message_reader.h"

struct sink_recipient {
	uint64_t fingerprint;
	uint32_t domain;
};

/* One accepted transaction. */
struct sink_arrival {
	const struct message_reader *message;
	const struct sink_recipient *recipients;
	unsigned count;
	const char *first_recipient;
	uint64_t now_ns;
};

struct sink_ledger {
	/* Set by the owner: NULL when not wanted. */
	FILE *record;
	bool ids_only;
	const char *save_dir;

	uint64_t messages;
	uint64_t distinct;
	uint64_t duplicates;
	uint64_t bad;
	uint64_t foreign;
	uint64_t recipients;
	uint64_t bytes;
	/* Different pairs of message and recipient. */
	uint64_t deliveries;
	uint64_t recipients_max;
	uint64_t messages_per_connection_max;
	uint64_t connections;
	uint64_t connections_open;
	uint64_t connections_peak;
	uint64_t connections_refused;
	uint64_t tls_handshakes;
	uint64_t tls_resumed;
	/* Transactions that were refused, here or there, by fault or by rule. */
	uint64_t refused;
	/* A peer that broke the rules of SMTP: wrong order, early talk, a lone LF. */
	uint64_t protocol_errors;
	uint64_t first_ns;
	uint64_t last_ns;
	/* From fwload's first try to here. */
	struct latency end_to_end;
	struct domain_tally domains;
	struct fingerprint_set ids_seen;
	struct fingerprint_set deliveries_seen;
};

/* True when the header is not one of fwload's. */
bool sink_ledger_is_foreign(const struct message_reader *r);

/* Enters one accepted transaction. Ends the program when its record cannot be written. */
void sink_ledger_accept(struct sink_ledger *ledger, const struct sink_arrival *arrival);

/* Appends the summary, as one line or as JSON (with the counts of each domain if `domains`). */
void sink_ledger_append_summary(const struct sink_ledger *ledger, struct text *t);
void sink_ledger_append_json(const struct sink_ledger *ledger, struct text *t, bool domains);

void sink_ledger_free(struct sink_ledger *ledger);
