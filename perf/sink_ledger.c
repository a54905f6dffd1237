#include "perf/sink_ledger.h"

#include <assert.h>
#include <err.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "perf/moment.h"

bool sink_ledger_is_foreign(const struct message_reader *r)
{
	size_t len;

	return message_reader_field(r, "X-Fwload-Id", &len) == NULL;
}

/* A number in a header field, or 0. */
static uint64_t field_number(const struct message_reader *r, const char *name, int base)
{
	char digits[32];
	size_t len;
	const char *value = message_reader_field(r, name, &len);

	if (value == NULL || len == 0 || len >= sizeof(digits)) {
		return 0;
	}
	memcpy(digits, value, len);
	digits[len] = '\0';
	return strtoull(digits, NULL, base);
}

/* Whole means: the sum is there, is the body's, and no line was broken on the way. */
static bool is_whole(const struct message_reader *r)
{
	size_t len;
	const char *value = message_reader_field(r, "X-Fwload-Sum", &len);

	return value != NULL && len == 8 && r->bare_lf == 0 &&
	       field_number(r, "X-Fwload-Sum", 16) == message_reader_sum(r);
}

/* Returns how many of the recipients already had the message. */
static unsigned enter_recipients(struct sink_ledger *ledger, const struct sink_arrival *a,
				 uint64_t id)
{
	unsigned had = 0;

	for (unsigned i = 0; i < a->count; i++) {
		uint64_t delivery = fingerprint_pair(id, a->recipients[i].fingerprint);
		if (fingerprint_set_add(&ledger->deliveries_seen, delivery)) {
			ledger->deliveries++;
		} else {
			had++;
		}
	}
	return had;
}

static void write_record(struct sink_ledger *ledger, const struct sink_arrival *a, bool whole,
			 unsigned had)
{
	size_t len;
	const char *id = message_reader_field(a->message, "X-Fwload-Id", &len);
	int rc;

	if (ledger->record == NULL) {
		return;
	}
	if (id == NULL) {
		id = "-";
		len = 1;
	}
	if (ledger->ids_only) {
		rc = fprintf(ledger->record, "%.*s\n", (int)len, id);
	} else {
		rc = fprintf(ledger->record, "%.*s %u %s %lu %s %u\n", (int)len, id, a->count,
			     a->first_recipient, a->message->size, whole ? "ok" : "BAD", had);
	}
	if (rc < 0) {
		err(2, "record");
	}
}

static void accept_ours(struct sink_ledger *ledger, const struct sink_arrival *a)
{
	size_t len;
	const char *id = message_reader_field(a->message, "X-Fwload-Id", &len);
	uint64_t f = fingerprint(id, len);
	uint64_t sent_ns = field_number(a->message, "X-Fwload-Sent", 10);
	bool whole = is_whole(a->message);
	unsigned had = enter_recipients(ledger, a, f);

	if (fingerprint_set_add(&ledger->ids_seen, f)) {
		ledger->distinct++;
	}
	ledger->duplicates += had > 0;
	ledger->bad += !whole;
	if (sent_ns != 0 && sent_ns <= a->now_ns) {
		latency_add(&ledger->end_to_end, a->now_ns - sent_ns);
	}
	write_record(ledger, a, whole, had);
}

static void save_foreign(const struct sink_ledger *ledger, const struct message_reader *r)
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%06lu.eml", ledger->save_dir, ledger->foreign);
	file = fopen(path, "we");
	if (file == NULL || fwrite(r->kept.data, 1, r->kept.len, file) != r->kept.len ||
	    fclose(file) != 0) {
		err(2, "%s", path);
	}
}

static void accept_foreign(struct sink_ledger *ledger, const struct sink_arrival *a)
{
	ledger->foreign++;
	if (ledger->save_dir != NULL) {
		save_foreign(ledger, a->message);
	}
	if (!ledger->ids_only) {
		write_record(ledger, a, true, 0);
	}
}

static void count_domains(struct sink_ledger *ledger, const struct sink_arrival *a)
{
	ledger->domains.domains[a->recipients[0].domain].messages++;
	for (unsigned i = 0; i < a->count; i++) {
		ledger->domains.domains[a->recipients[i].domain].recipients++;
	}
}

void sink_ledger_accept(struct sink_ledger *ledger, const struct sink_arrival *arrival)
{
	assert(arrival->count > 0);
	if (ledger->messages == 0) {
		ledger->first_ns = arrival->now_ns;
	}
	ledger->last_ns = arrival->now_ns;
	ledger->messages++;
	ledger->recipients += arrival->count;
	ledger->bytes += arrival->message->size;
	ledger->protocol_errors += arrival->message->bare_lf > 0;
	if (arrival->count > ledger->recipients_max) {
		ledger->recipients_max = arrival->count;
	}
	count_domains(ledger, arrival);
	if (sink_ledger_is_foreign(arrival->message)) {
		accept_foreign(ledger, arrival);
	} else {
		accept_ours(ledger, arrival);
	}
}

void sink_ledger_append_summary(const struct sink_ledger *ledger, struct text *t)
{
	text_printf(t, "messages %lu distinct %lu duplicates %lu bad %lu foreign %lu ",
		    ledger->messages, ledger->distinct, ledger->duplicates, ledger->bad,
		    ledger->foreign);
	text_printf(t, "recipients %lu connections %lu\n", ledger->recipients, ledger->connections);
}

static void append_count(struct text *t, const char *name, uint64_t value)
{
	text_printf(t, "  \"%s\": %lu,\n", name, value);
}

void sink_ledger_append_json(const struct sink_ledger *ledger, struct text *t, bool domains)
{
	double seconds = (double)(ledger->last_ns - ledger->first_ns) / (double)NS_PER_S;
	double rate = seconds > 0 ? (double)(ledger->messages - 1) / seconds : 0;

	text_append_string(t, "{\n");
	append_count(t, "messages", ledger->messages);
	append_count(t, "distinct", ledger->distinct);
	append_count(t, "duplicates", ledger->duplicates);
	append_count(t, "bad", ledger->bad);
	append_count(t, "foreign", ledger->foreign);
	append_count(t, "recipients", ledger->recipients);
	append_count(t, "deliveries", ledger->deliveries);
	append_count(t, "bytes", ledger->bytes);
	append_count(t, "refused", ledger->refused);
	append_count(t, "protocol_errors", ledger->protocol_errors);
	append_count(t, "connections", ledger->connections);
	append_count(t, "connections_open", ledger->connections_open);
	append_count(t, "connections_peak", ledger->connections_peak);
	append_count(t, "connections_refused", ledger->connections_refused);
	append_count(t, "tls_handshakes", ledger->tls_handshakes);
	append_count(t, "tls_resumed", ledger->tls_resumed);
	append_count(t, "messages_per_connection_max", ledger->messages_per_connection_max);
	append_count(t, "recipients_per_transaction_max", ledger->recipients_max);
	append_count(t, "first_arrival_ns", ledger->first_ns);
	append_count(t, "last_arrival_ns", ledger->last_ns);
	text_printf(t, "  \"seconds\": %.6f,\n  \"messages_per_second\": %.1f,\n", seconds, rate);
	text_append_string(t, "  \"end_to_end_us\": ");
	latency_append_json(&ledger->end_to_end, t);
	text_printf(t, ",\n  \"domain_count\": %u", ledger->domains.count);
	if (domains) {
		text_append_string(t, ",\n  \"domains\": ");
		domain_tally_append_json(&ledger->domains, t);
	}
	text_append_string(t, "\n}\n");
}

void sink_ledger_free(struct sink_ledger *ledger)
{
	domain_tally_free(&ledger->domains);
	fingerprint_set_free(&ledger->ids_seen);
	fingerprint_set_free(&ledger->deliveries_seen);
}
