/* flywheel-spool's commands that look: list, show, cat, extract. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/clock.h"
#include "tools/spool_commands.h"

static const char *state_text(const struct segment *g)
{
	switch (g->state) {
	case SEGMENT_SPARE:
		return "free";
	case SEGMENT_SEALED:
		return "sealed";
	default:
		return "open";
	}
}

int spool_list(const struct spool_view *v)
{
	uint64_t bytes = 0;

	printf("%-16s  %-6s  %12s  %9s  %9s  %9s  %12s\n", "segment", "state", "bytes", "records",
	       "messages", "states", "needed bytes");
	for (uint32_t i = 0; i < v->segment_count; i++) {
		const struct segment *g = v->segments[i];
		char name[SEGMENT_NAME_MAX];

		segment_name(g->id, name);
		printf("%-16s  %-6s  %12" PRIu64 "  %9u  %9u  %9u  %12" PRIu64 "\n", name,
		       state_text(g), g->size, g->state == SEGMENT_SPARE ? 0 : g->index_count,
		       g->live_messages, g->live_states, g->live_bytes);
		bytes += g->live_bytes;
	}
	printf("%u segments; %" PRIu64 " messages with %" PRIu64 " deliveries wait in %" PRIu64
	       " bytes\n",
	       v->segment_count, v->found.messages, v->found.deliveries, bytes);
	return SPOOL_EXIT_OK;
}

/* ---- one record ---- */

static void put_time(FILE *f, uint64_t ms)
{
	char text[CLOCK_UTC_TEXT];

	fputs(clock_format_utc(ms, text), f);
}

/* Of a STATE that is whole. */
static void put_state(FILE *f, const struct spool_piece *p)
{
	const unsigned char *head = p->data + sizeof(p->header);
	struct record_state state;
	char text[RECORD_TEXT_MAX + 1];
	const char *reason = text;

	memcpy(&state, head, sizeof(state));
	fprintf(f, "%sattempts %u, due ", (state.flags & RECORD_HELD) != 0 ? "held, " : "",
		state.attempts);
	put_time(f, state.due_ms);
	if (state.text_bytes == 0 || state.text_bytes > RECORD_TEXT_MAX ||
	    p->header.head_bytes != sizeof(state) + state.text_bytes) {
		return;
	}
	memcpy(text, head + sizeof(state), state.text_bytes);
	text[state.text_bytes] = '\0';
	if (!record_state_text_ok(&state, text)) {
		return;
	}
	if ((state.flags & RECORD_ROUTED) != 0) {
		const char *domain = text + strlen(text) + 1;

		fprintf(f, ", by %s to %s", text, domain);
		reason = domain + strlen(domain) + 1;
	}
	if (*reason != '\0') {
		fputs(": ", f);
		spool_put_text(f, reason);
	}
}

static void put_what(const struct index_record *r, const struct spool_piece *p)
{
	if (p->state == PIECE_DAMAGED) {
		printf("%s", spool_piece_fault(p));
	} else if (r->type == RECORD_MESSAGE) {
		spool_put_addresses(stdout, spool_piece_envelope(p));
		if (p->state == PIECE_BODY_DAMAGED) {
			printf(": %s", spool_piece_fault(p));
		}
	} else if (r->type == RECORD_STATE) {
		printf("delivery %u, ", r->delivery);
		put_state(stdout, p);
	} else if (r->count == 0) {
		printf("all deliveries");
	} else {
		printf("delivery %u and %u more", r->delivery, r->count - 1U);
	}
}

static void show_record(const struct spool_view *v, const struct segment *g,
			const struct index_record *r)
{
	static const char *const types[] = {
		[RECORD_MESSAGE] = "message", [RECORD_STATE] = "state", [RECORD_DONE] = "done"};
	struct spool_piece piece;
	char id[MESSAGE_ID_TEXT];

	spool_view_read(g, r, &piece);
	message_id_format(&r->id, id);
	printf("%10" PRIu64 "  %8" PRIu64 "  %-7s  %s  %-6s  ", (uint64_t)r->place * RECORD_ALIGN,
	       piece.len, r->type <= RECORD_DONE && types[r->type] != NULL ? types[r->type] : "?",
	       id, spool_view_live(v, g, r) ? "needed" : "-");
	put_what(r, &piece);
	putchar('\n');
	spool_piece_release(&piece);
}

int spool_show(const struct spool_view *v, const char *name)
{
	const struct segment *g = spool_view_segment(v, name);
	struct index_record *records;
	uint32_t count;
	int rc;

	if (g == NULL) {
		fprintf(stderr, "flywheel-spool: there is no segment %s\n", name);
		return SPOOL_EXIT_DAMAGED;
	}
	rc = spool_view_records(g, &records, &count);
	if (rc != 0) {
		fprintf(stderr, "flywheel-spool: the index cannot be read again: %s\n",
			strerror(-rc));
		return SPOOL_EXIT_DAMAGED;
	}
	printf("%10s  %8s  %-7s  %-26s  %-6s\n", "offset", "bytes", "type", "message", "needed");
	for (uint32_t i = 0; i < count; i++) {
		show_record(v, g, &records[i]);
	}
	free(records);
	return SPOOL_EXIT_OK;
}

/* ---- one message ---- */

/* How far the delivery has got; `pending` gets who has not been settled. */
static void put_delivery(FILE *f, const struct spool_entry *e, uint32_t i, uint64_t pending[2])
{
	const struct entry_delivery *d = e->deliveries != NULL ? &e->deliveries[i] : NULL;
	struct index_record r = {.id = e->id, .type = RECORD_STATE, .delivery = i};
	struct spool_piece piece;

	pending[0] = pending[1] = d != NULL && d->done ? 0 : UINT64_MAX;
	if (d != NULL && d->done) {
		fputs("over", f);
		return;
	}
	if (d == NULL || d->segment == NULL) {
		fputs("waits", f);
		return;
	}
	r.place = d->place;
	r.units = d->units;
	spool_view_read(d->segment, &r, &piece);
	fputs("deferred, ", f);
	if (piece.state == PIECE_WHOLE) {
		put_state(f, &piece);
		memcpy(pending,
		       piece.data + sizeof(piece.header) + offsetof(struct record_state, pending),
		       2 * sizeof(*pending));
	} else {
		fprintf(f, "but how far is not known: %s", spool_piece_fault(&piece));
	}
	spool_piece_release(&piece);
}

static void put_envelope(FILE *f, const struct spool_entry *entry, const struct envelope *e)
{
	char id[MESSAGE_ID_TEXT];

	message_id_format(&e->id, id);
	fprintf(f, "message: %s\nreceived: ", id);
	put_time(f, e->received_ms);
	fputs("\nfrom: <", f);
	spool_put_text(f, envelope_sender(e));
	fputs(">\n", f);
	for (uint32_t i = 0; i < e->delivery_count; i++) {
		const struct envelope_delivery *d = envelope_delivery(e, i);
		uint64_t pending[2];

		fprintf(f, "delivery: %u, ", i);
		put_delivery(f, entry, i, pending);
		putc('\n', f);
		for (uint32_t k = 0; k < d->count; k++) {
			fputs((pending[k / 64] >> k % 64 & 1U) != 0 ? "to: <" : "over: <", f);
			spool_put_text(f, envelope_address(e, d->first + k));
			fputs(">\n", f);
		}
	}
}

/* Without the dots that SMTP puts before dots at the start of a line. */
static void put_body(FILE *f, const struct spool_piece *p)
{
	uint64_t len;
	const unsigned char *body = spool_piece_body(p, &len);
	const unsigned char *end = body + len;

	while (body < end) {
		const unsigned char *eol = memchr(body, '\n', (size_t)(end - body));
		const unsigned char *next = eol != NULL ? eol + 1 : end;

		body += *body == '.';
		fwrite(body, 1, (size_t)(next - body), f);
		body = next;
	}
}

int spool_cat(const struct spool_view *v, const char *text, bool envelope)
{
	const struct spool_entry *e = NULL;
	struct index_record r;
	struct spool_piece piece;
	struct message_id id;
	int status = SPOOL_EXIT_OK;

	if (message_id_parse(text, &id) == 0) {
		e = index_find(&v->store->index, &id);
	}
	if (e == NULL) {
		fprintf(stderr, "flywheel-spool: no message %s waits here\n", text);
		return SPOOL_EXIT_DAMAGED;
	}
	r = spool_view_describe(e);
	spool_view_read(e->segment, &r, &piece);
	if (piece.state != PIECE_WHOLE) {
		fprintf(stderr, "flywheel-spool: message %s: %s\n", text,
			spool_piece_fault(&piece));
		status = SPOOL_EXIT_DAMAGED;
	}
	if (piece.state != PIECE_DAMAGED && envelope) {
		put_envelope(stdout, e, spool_piece_envelope(&piece));
	} else if (piece.state != PIECE_DAMAGED) {
		put_body(stdout, &piece);
	}
	spool_piece_release(&piece);
	return status;
}

/* ---- all of them ---- */

/* 0, or -1 with the reason on stderr. */
static int extract_files(const struct spool_entry *e, const struct spool_piece *p,
			 const char *directory)
{
	FILE *f;

	if (p->state != PIECE_WHOLE) {
		f = spool_make_file(directory, &e->id, ".damaged");
		if (f == NULL) {
			return -1;
		}
		fwrite(p->data, 1, (size_t)p->len, f);
		if (spool_close_file(f, directory) != 0) {
			return -1;
		}
	}
	if (p->state == PIECE_DAMAGED) {
		return 0;
	}
	f = spool_make_file(directory, &e->id, ".eml");
	if (f == NULL) {
		return -1;
	}
	put_body(f, p);
	if (spool_close_file(f, directory) != 0) {
		return -1;
	}
	f = spool_make_file(directory, &e->id, ".envelope");
	if (f == NULL) {
		return -1;
	}
	put_envelope(f, e, spool_piece_envelope(p));
	return spool_close_file(f, directory);
}

int spool_extract(const struct spool_view *v, const char *directory)
{
	uint64_t damaged = 0;
	int rc = spool_make_directory(directory);

	for (uint64_t i = 0; rc == 0 && i < spool_view_messages(v); i++) {
		const struct spool_entry *e = spool_view_message(v, i);
		struct index_record r = spool_view_describe(e);
		struct spool_piece piece;

		spool_view_read(e->segment, &r, &piece);
		damaged += piece.state != PIECE_WHOLE;
		rc = extract_files(e, &piece, directory);
		spool_piece_release(&piece);
	}
	if (rc != 0 || spool_sync_files(directory) != 0) {
		return SPOOL_EXIT_USAGE;
	}
	printf("%" PRIu64 " messages in %s, %" PRIu64 " of them damaged\n", spool_view_messages(v),
	       directory, damaged);
	return damaged == 0 ? SPOOL_EXIT_OK : SPOOL_EXIT_DAMAGED;
}
