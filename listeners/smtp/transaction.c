#include "listeners/smtp/transaction.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/signing.h"
#include "core/mail/header.h"
#include "core/mail/smtp_refusal.h"
#include "listeners/smtp/binding.h"
#include "listeners/smtp/policy.h"
#include "listeners/smtp/policy_message.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/session_log.h"

/* Transactions kept for reuse, and the largest envelope, in bytes of text, that is kept. */
#define KEEP_TRANSACTIONS 1024
#define KEEP_ENVELOPE_BYTES 16384
#define LINE_END_BYTES 2

/* Why a message is refused at its end, and where that is counted. */
struct verdict {
	struct smtp_refusal refusal;
	enum smtp_count count;
};

static const struct verdict too_large = {{552, "5.3.4", "Message is too large"},
					 SMTP_COUNT_REFUSED_SIZE};
static const struct verdict has_nul = {{550, "5.6.0", "Message has NUL octets"},
				       SMTP_COUNT_REFUSED_NUL};
static const struct verdict has_bare = {
	{550, "5.6.11", "Message has bare CR or LF octets; lines end in CR LF"},
	SMTP_COUNT_REFUSED_BARE};
static const struct verdict has_long_line = {{500, "5.5.2", "Message has a line that is too long"},
					     SMTP_COUNT_REFUSED_LONG_LINE};
static const struct verdict is_loop = {{554, "5.4.6", "Too many Received fields: mail loop"},
				       SMTP_COUNT_REFUSED_LOOP};
static const struct verdict no_room = {{452, "4.3.2", "Too much mail at once, try again later"},
				       SMTP_COUNT_REFUSED_MEMORY};
static const struct verdict spool_full_now = {{452, "4.3.1", "Insufficient system storage"},
					      SMTP_COUNT_STORE_FAILED};
static const struct verdict spool_failed = {{451, "4.3.0", "Message could not be stored"},
					    SMTP_COUNT_STORE_FAILED};

static struct scheduler *scheduler_of(const struct smtp_session *ss)
{
	return ss->listener->scheduler;
}

/* ---- life ---- */

static struct smtp_transaction *take(struct smtp_listener *l)
{
	struct smtp_transaction *tx = l->spare;

	if (tx != NULL) {
		l->spare = tx->next;
		l->spare_count--;
		return tx;
	}
	tx = check_memory(calloc(1, sizeof(*tx)), "an SMTP transaction");
	envelope_builder_init(&tx->envelope);
	return tx;
}

static void destroy(struct smtp_transaction *tx)
{
	envelope_builder_close(&tx->envelope);
	free(tx);
}

static void give(struct smtp_listener *l, struct smtp_transaction *tx)
{
	tx->magic = 0;
	if (l->spare_count >= KEEP_TRANSACTIONS || tx->envelope.text_size > KEEP_ENVELOPE_BYTES) {
		destroy(tx);
		return;
	}
	tx->next = l->spare;
	l->spare = tx;
	l->spare_count++;
}

void smtp_transaction_free_spare(struct smtp_listener *l)
{
	while (l->spare != NULL) {
		struct smtp_transaction *tx = l->spare;

		l->spare = tx->next;
		destroy(tx);
	}
	l->spare_count = 0;
}

void smtp_transaction_open(struct smtp_session *ss, const char *sender, size_t sender_len,
			   uint16_t envelope_flags)
{
	struct smtp_listener *l = ss->listener;
	struct smtp_transaction *tx = take(l);
	struct envelope_builder envelope = tx->envelope;

	ASSERT(ss->transaction == NULL);
	*tx = (struct smtp_transaction){
		.magic = SMTP_TRANSACTION_MAGIC,
		.envelope = envelope,
		.batch = ++l->batches,
	};
	envelope_builder_reset(&tx->envelope);
	envelope_set_sender(&tx->envelope, sender, sender_len);
	tx->envelope.flags = envelope_flags;
	ss->transaction = tx;
	smtp_transaction_recount(ss);
}

/* Counts the memory that the transaction holds now as being received. */
void smtp_transaction_recount(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;
	uint64_t bytes = envelope_builder_bytes(&tx->envelope) +
			 (uint64_t)tx->body.buffers * CHAIN_BUFFER_SIZE;

	scheduler_receiving(scheduler_of(ss), (int64_t)(bytes - tx->counted), tx->counted == 0);
	tx->counted = bytes;
}

/* What is received is no longer counted as such: it is thrown away, or was stored. */
static void uncount(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;

	scheduler_receiving(scheduler_of(ss), -(int64_t)tx->counted, -(tx->counted != 0));
	tx->counted = 0;
}

bool smtp_transaction_has_room(const struct smtp_session *ss)
{
	uint64_t bytes = ss->transaction->counted;

	return bytes <= SMTP_SMALL_BYTES ||
	       bytes <= scheduler_reception_share(scheduler_of(ss), false);
}

void smtp_transaction_abort(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;

	if (tx == NULL) {
		return;
	}
	CHECK_MAGIC(tx, SMTP_TRANSACTION_MAGIC);
	ASSERT(!ss->storing);
	smtp_policy_end_mail(ss);
	uncount(ss);
	chain_release(&tx->body, &scheduler_of(ss)->pools.buffers);
	ss->transaction = NULL;
	give(ss->listener, tx);
}

/* The transaction is over and was answered. */
static void conclude(struct smtp_session *ss)
{
	smtp_transaction_abort(ss);
	if (ss->state == SMTP_SESSION_DEAD) {
		return;
	}
	ss->state = SMTP_SESSION_COMMANDS;
	if (ss->listener->stopping) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_REFUSED_STOPPING);
		smtp_session_dismiss(ss, "4.3.2", "Shutting down");
	}
}

/* ---- mail data ---- */

void smtp_transaction_begin(struct smtp_session *ss, bool chunked)
{
	struct smtp_transaction *tx = ss->transaction;
	struct scheduler *s = scheduler_of(ss);
	const struct smtp_options *o = ss->options;
	struct tls_agreed agreed = {0};
	char received[HEADER_RECEIVED_MAX];
	size_t len;

	if (stream_is_secure(&ss->stream)) {
		agreed = stream_agreed(&ss->stream);
	}

	tx->id = scheduler_new_id(s);
	tx->has_id = true;
	len = header_received_format(
		&(struct header_received){
			.helo = ss->helo,
			.peer_ip = ss->peer.s6_addr,
			.hostname = o->hostname,
			.id = &tx->id,
			.time_s = agent_wall_ms(&s->base) / 1000,
			.protocol = ss->esmtp ? ENVELOPE_ESMTP : ENVELOPE_SMTP,
			.smtputf8 = (tx->envelope.flags & ENVELOPE_SMTPUTF8) != 0,
			.tls = ss->secure,
			.tls_version = agreed.version,
			.tls_cipher = agreed.cipher,
			.auth = ss->user != NULL,
		},
		received);
	chain_append(&tx->body, &s->pools.buffers, received, len);
	smtp_transaction_recount(ss);
	dot_scanner_init(&tx->scanner, o->max_line_bytes - LINE_END_BYTES,
			 o->bare_lf == CONFIG_BARE_LF_ACCEPT);
	dot_converter_init(&tx->converter);
	dot_walk_init(&tx->walk);
	tx->chunked = chunked;
}

/* Whether, and why, the message as received so far will be refused. Once it will be, it will. */
static const struct verdict *judge(const struct smtp_session *ss)
{
	const struct smtp_transaction *tx = ss->transaction;
	const struct smtp_options *o = ss->options;
	uint32_t flags = tx->scanner.flags;

	if (o->max_message_bytes != 0 && tx->data_bytes > o->max_message_bytes) {
		return &too_large;
	}
	if ((flags & DOT_NUL) != 0) {
		return &has_nul;
	}
	if (!dot_safe_as_is(flags) && o->bare_lf == CONFIG_BARE_LF_REJECT) {
		return &has_bare;
	}
	if ((flags & DOT_LONG_LINE) != 0) {
		return &has_long_line;
	}
	if (tx->scanner.received > DOT_HOPS_MAX) {
		return &is_loop;
	}
	return tx->crowded_out ? &no_room : NULL;
}

/* Bytes that belong to the message. */
static void keep(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	struct smtp_transaction *tx = ss->transaction;
	struct pool *buffers = &scheduler_of(ss)->pools.buffers;

	tx->data_bytes += len;
	if (tx->doomed) {
		return;
	}
	if (ss->options->bare_lf == CONFIG_BARE_LF_ACCEPT) {
		dot_convert(&tx->converter, data, len, &tx->body, buffers);
	} else {
		chain_append(&tx->body, buffers, data, len);
	}
	smtp_transaction_recount(ss);
}

/* What the scanner could not judge goes before what came now, byte by byte until it could. */
static size_t feed_tail(struct smtp_session *ss, const unsigned char *data, size_t len, bool *end)
{
	struct smtp_transaction *tx = ss->transaction;
	size_t used = 0;

	while (tx->tail_len > 0 && used < len && !*end) {
		size_t n;

		tx->tail[tx->tail_len++] = data[used++];
		n = dot_scan(&tx->scanner, tx->tail, tx->tail_len, end);
		/* It judges all of them together. */
		ASSERT(n == 0 || n == tx->tail_len);
		keep(ss, tx->tail, n);
		tx->tail_len = (uint8_t)(tx->tail_len - n);
	}
	return used;
}

static size_t feed_rest(struct smtp_session *ss, const unsigned char *data, size_t len, bool *end)
{
	struct smtp_transaction *tx = ss->transaction;
	size_t n = dot_scan(&tx->scanner, data, len, end);

	keep(ss, data, n);
	if (*end) {
		return n + DOT_END_BYTES;
	}
	ASSERT(len - n < DOT_END_BYTES);
	tx->tail_len = (uint8_t)(len - n);
	memcpy(tx->tail, data + n, tx->tail_len);
	return len;
}

/* The body of a message that will be refused is given up at once. */
static void doom(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;

	if (judge(ss) != NULL && !tx->doomed) {
		tx->doomed = true;
		chain_release(&tx->body, &scheduler_of(ss)->pools.buffers);
		smtp_transaction_recount(ss);
	}
}

static void crowd_out(struct smtp_session *ss)
{
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_CROWDED_OUT);
	ss->transaction->crowded_out = true;
	doom(ss);
}

/* A large message gives way while the reception budget is used up, a smaller one only when it holds
 * more than its share. */
static void check_room(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;

	if (tx->doomed) {
		return;
	}
	if ((tx->counted > SMTP_FAIR_BYTES && scheduler_refuses(scheduler_of(ss)) == -ENOMEM) ||
	    !smtp_transaction_has_room(ss)) {
		crowd_out(ss);
	}
}

static bool stalls(struct smtp_session *ss, bool first)
{
	struct smtp_transaction *tx = ss->transaction;
	uint64_t came = tx->data_bytes + tx->envelope.text_len - tx->progress;

	tx->progress += came;
	/* Nobody can be blamed for silence while we do not listen. */
	return !first && came < SMTP_STALL_BYTES && !session_linked(&ss->waiting);
}

void smtp_transaction_relieve(struct smtp_session *ss, bool first)
{
	struct smtp_transaction *tx = ss->transaction;
	struct scheduler *s = scheduler_of(ss);

	if (tx == NULL || ss->storing || ss->state == SMTP_SESSION_POLICY || !stalls(ss, first) ||
	    tx->counted <= SMTP_SMALL_BYTES || tx->counted <= scheduler_reception_share(s, true)) {
		return;
	}
	if (tx->has_id && !tx->doomed) {
		crowd_out(ss);
	} else if (ss->state == SMTP_SESSION_COMMANDS || ss->state == SMTP_SESSION_DATA ||
		   ss->state == SMTP_SESSION_CHUNK) {
		/* Its recipients alone are too many. */
		smtp_count(smtp_session_counts(ss), no_room.count);
		smtp_log_rejection(ss, SMTP_STAGE_DURING_RCPT, &no_room.refusal, NULL, NULL);
		smtp_session_dismiss(ss, no_room.refusal.status, no_room.refusal.text);
		smtp_session_settle(ss);
	}
}

/* ---- the end of the data ---- */

static void refuse(struct smtp_session *ss, const struct verdict *v, enum smtp_stage stage)
{
	smtp_count(smtp_session_counts(ss), v->count);
	smtp_log_rejection(ss, stage, &v->refusal, NULL, NULL);
	if (ss->state != SMTP_SESSION_DEAD) {
		smtp_session_reply(ss, v->refusal.code, v->refusal.status, "%s", v->refusal.text);
	}
}

/* 250, when all of it is kept. */
static void answer(struct smtp_session *ss, const char *what)
{
	struct smtp_transaction *tx = ss->transaction;
	char id[MESSAGE_ID_TEXT];

	smtp_count(smtp_session_counts(ss), SMTP_COUNT_ACCEPTED);
	ss->receptions++;
	ss->idle_commands = 0;
	if (ss->state == SMTP_SESSION_DEAD) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_LOST_STORING);
		return;
	}
	message_id_format(&tx->answered_id, id);
	smtp_session_say(ss, what);
	smtp_session_say(ss, id);
	smtp_session_say(ss, "\r\n");
}

/* One message is kept. */
static void accept_message(struct smtp_session *ss)
{
	/* What was understood has its lines, and goes nowhere. */
	if (!ss->transaction->out_of_band) {
		smtp_log_reception(ss, ss->transaction->message);
	}
}

static void store(struct smtp_session *ss);

static void on_stored(struct scheduler *s, void *owner, int result)
{
	struct smtp_session *ss = owner;
	struct message *m;

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	CHECK_MAGIC(ss->transaction, SMTP_TRANSACTION_MAGIC);
	ASSERT(ss->storing);
	ss->storing = false;
	m = ss->transaction->message;
	if (result == 0) {
		accept_message(ss);
	} else {
		refuse(ss, result == -ENOSPC ? &spool_full_now : &spool_failed,
		       SMTP_STAGE_CONFIRMATION);
	}
	message_release(m, &s->pools);
	ss->transaction->message = NULL;
	if (result == 0 && smtp_copies_next(ss)) {
		/* The client is answered when all of them are there. */
		store(ss);
		return;
	}
	if (result == 0) {
		answer(ss, ss->transaction->out_of_band ? "250 2.0.0 OK: taken as "
							: "250 2.0.0 OK: queued as ");
	}
	conclude(ss);
	smtp_session_resume(ss);
	smtp_session_settle(ss);
}

static uint8_t durability_of(const struct smtp_options *o)
{
	switch (o->durability) {
	case CONFIG_CACHED:
		return ENVELOPE_CACHED;
	case CONFIG_MEMORY:
		return ENVELOPE_MEMORY;
	case CONFIG_SYNCED:
		break;
	}
	return ENVELOPE_SYNCED;
}

static struct message *make_message(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;
	struct scheduler *s = scheduler_of(ss);
	const struct smtp_copy *copy = smtp_copies_current(ss);
	struct message *m = message_create(&s->pools, envelope_size(&tx->envelope));
	struct envelope *e = message_envelope(m);

	if (copy != NULL && copy->changed) {
		/* Nobody has looked at what scripts have written. */
		tx->scanner.flags |= DOT_STUFFED | (copy->high ? DOT_8BIT : 0U);
	}
	if ((tx->scanner.flags & DOT_8BIT) != 0) {
		tx->envelope.flags |= ENVELOPE_8BITMIME;
	}
	if ((tx->scanner.flags & DOT_STUFFED) == 0 && dot_safe_as_is(tx->scanner.flags)) {
		tx->envelope.flags |= ENVELOPE_UNSTUFFED;
	}
	envelope_build(&tx->envelope, e);
	e->id = tx->id;
	e->received_ms = agent_wall_ms(&s->base);
	e->body_bytes = tx->body.len;
	memcpy(e->peer_ip, ss->peer.s6_addr, sizeof(e->peer_ip));
	e->peer_port = ss->peer_port;
	e->protocol = ss->esmtp ? ENVELOPE_ESMTP : ENVELOPE_SMTP;
	e->durability = durability_of(ss->options);
	if (copy != NULL && copy->durability >= 0) {
		e->durability = (uint8_t)copy->durability;
	}
	if (copy != NULL && copy->priority >= 0) {
		e->priority = (uint8_t)copy->priority;
	}
	*message_body(m) = tx->body;
	tx->body = CHAIN_EMPTY;
	return m;
}

static void choose_binding(struct smtp_session *ss)
{
	const struct smtp_copy *copy = smtp_copies_current(ss);
	struct smtp_transaction *tx = ss->transaction;

	tx->binding = smtp_binding_choose(ss, copy != NULL ? copy->binding : "");
	if (tx->binding != binding_default(&scheduler_of(ss)->dispatcher.bindings)) {
		envelope_set_binding(&tx->envelope, tx->binding->name);
	}
	if (copy != NULL && copy->routing[0] != '\0') {
		envelope_set_routing(&tx->envelope, copy->routing);
	}
}

static void add_pair(struct context *context, const char *name, const struct policy_pair *pair)
{
	context_add(context, name, pair->value, strnlen(pair->value, pair->value_len),
		    CONTEXT_FIELDS_MAX);
}

/* What scripts have said of the connection: for each of its messages. */
static void add_connection(struct context *context, const struct smtp_policy *p)
{
	for (uint32_t i = 0; p != NULL && i < p->subject.connection.count; i++) {
		const struct policy_pair *pair = &p->subject.connection.list[i];
		char name[CONTEXT_FIELDS_MAX];
		int len = snprintf(name, sizeof(name), CONTEXT_CONNECTION "%s", pair->name);

		if ((size_t)len < sizeof(name)) {
			add_pair(context, name, pair);
		}
	}
}

/* What logs want to know of the message besides: the context has it until the envelope is built. */
static void capture(struct smtp_session *ss)
{
	struct context *context = &ss->listener->context;
	const struct smtp_copy *copy = smtp_copies_current(ss);
	uint32_t count;
	const char *const *keys = config_captured(ss->accept->config, &count);

	context_reset(context);
	if (count > 0) {
		header_capture(&ss->transaction->body, keys, count, context);
		counter_add(scheduler_of(ss)->captures_cut, context->cut);
	}
	for (uint32_t i = 0; copy != NULL && i < copy->context.count; i++) {
		add_pair(context, copy->context.list[i].name, &copy->context.list[i]);
	}
	add_connection(context, ss->policy);
	envelope_set_context(&ss->transaction->envelope, context);
}

static void add_signers(struct context *context, const struct dkim_policy *policy)
{
	char domains[CONTEXT_MAX - CONTEXT_FIELDS_MAX];
	size_t len = 0;

	for (uint32_t i = 0; i < policy->count; i++) {
		const char *domain = policy->signatures[i].domain;
		bool known = i > 0 && strcmp(domain, policy->signatures[i - 1].domain) == 0;

		if (!known && len + strlen(domain) + 2 <= sizeof(domains)) {
			len += (size_t)snprintf(domains + len, sizeof(domains) - len, "%s%s",
						len > 0 ? " " : "", domain);
		}
	}
	context_add(context, CONTEXT_DKIM, domains, len, CONTEXT_MAX);
}

/* Nothing of the message changes any more. */
static void sign(struct smtp_session *ss)
{
	const struct dkim_policy *policy;

	if (!ss->options->dkim_sign) {
		return;
	}
	policy = scheduler_sign(scheduler_of(ss), &ss->transaction->body);
	if (policy != NULL) {
		add_signers(&ss->listener->context, policy);
		envelope_set_context(&ss->transaction->envelope, &ss->listener->context);
	}
	smtp_transaction_recount(ss);
}

static void store(struct smtp_session *ss)
{
	struct message *m;

	choose_binding(ss);
	capture(ss);
	sign(ss);
	m = make_message(ss);

	/* Its envelope is still to be logged when the message has gone its way. */
	message_hold(m, 1);
	ss->transaction->message = m;
	if (ss->state != SMTP_SESSION_DEAD) {
		ss->state = SMTP_SESSION_STORING;
	}
	ss->storing = true;
	if (ss->transaction->out_of_band) {
		scheduler_understand(scheduler_of(ss), m, ss->transaction->batch,
				     ss->accept->number, ss->accept->peer_text, on_stored, ss);
		return;
	}
	scheduler_store(scheduler_of(ss), m, on_stored, ss);
}

void smtp_transaction_store(struct smtp_session *ss)
{
	store(ss);
}

void smtp_transaction_discard(struct smtp_session *ss)
{
	answer(ss, "250 2.0.0 OK: taken as ");
	conclude(ss);
}

void smtp_transaction_refuse(struct smtp_session *ss, const struct smtp_refusal *refusal)
{
	smtp_policy_refuse(ss, SMTP_STAGE_BODY, refusal, NULL, NULL);
	conclude(ss);
}

static void finish(struct smtp_session *ss)
{
	const struct verdict *v = judge(ss);

	ss->transaction->answered_id = ss->transaction->id;
	if (v != NULL) {
		refuse(ss, v, SMTP_STAGE_BODY);
		conclude(ss);
	} else if (smtp_copies_wanted(ss)) {
		smtp_copies_begin(ss);
	} else {
		store(ss);
	}
}

static size_t feed(struct smtp_session *ss, const unsigned char *data, size_t len, bool *end)
{
	size_t used;

	CHECK_MAGIC(ss->transaction, SMTP_TRANSACTION_MAGIC);
	*end = false;
	used = feed_tail(ss, data, len, end);
	if (!*end && used < len) {
		used += feed_rest(ss, data + used, len - used, end);
	}
	check_room(ss);
	doom(ss);
	return used;
}

size_t smtp_transaction_feed(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	bool end;
	size_t used = feed(ss, data, len, &end);

	if (end) {
		finish(ss);
	}
	return used;
}

void smtp_transaction_take(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	bool end;
	size_t used = feed(ss, data, len, &end);

	ASSERT(used == len && !end);
}

bool smtp_transaction_end_chunk(struct smtp_session *ss, bool last)
{
	if (!last && judge(ss) == NULL) {
		return true;
	}
	finish(ss);
	return false;
}
