#include "listeners/smtp/policy_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "listeners/smtp/policy.h"
#include "listeners/smtp/policy_facts.h"
#include "listeners/smtp/transaction.h"

BOUND
struct smtp_copies {
	/* The hook that is called next. */
	enum policy_hook stage;
	/* Recipients have turns of their own, and whose it is. */
	bool turns;
	uint32_t turn;
	/* What comes out; the transaction is the first of them from the end of the hooks on. */
	struct smtp_copy *first;
	struct smtp_copy **last;
	/* The text of those that have none of their own. */
	struct chain common;
	bool common_changed;
	bool common_high;
	/* Context as it was set for all. */
	struct policy_pairs context;
	/* What was said for all. */
	struct policy_mail base;
	/* The transaction is a copy. */
	struct smtp_copy *current;
	/* Hooks are called one after the other; the one just called is over. */
	bool loops;
	bool passed;
};

static void go_on(struct smtp_session *ss);

static struct pool *buffers_of(const struct smtp_session *ss)
{
	return &ss->listener->scheduler->pools.buffers;
}

/* ---- envelopes ---- */

void smtp_policy_copy_head(struct envelope_builder *to, const struct envelope_builder *from,
			   const char *sender)
{
	const char *envid = from->text + from->sender_len + 1;

	sender = sender != NULL ? sender : from->text;
	envelope_set_sender(to, sender, strlen(sender));
	to->flags = (uint16_t)(from->flags & ~ENVELOPE_ENVID);
	if ((from->flags & ENVELOPE_ENVID) != 0) {
		envelope_set_envid(to, envid, strlen(envid));
	}
}

/* ---- copies ---- */

static struct smtp_copy *add_copy(struct smtp_copies *c)
{
	struct smtp_copy *copy = check_memory(calloc(1, sizeof(*copy)), "a message");

	envelope_builder_init(&copy->envelope);
	*c->last = copy;
	c->last = &copy->next;
	return copy;
}

static void free_copy(struct smtp_session *ss, struct smtp_copy *copy)
{
	envelope_builder_close(&copy->envelope);
	chain_release(&copy->body, buffers_of(ss));
	policy_pairs_clear(&copy->context);
	free(copy);
}

void smtp_copies_free(struct smtp_session *ss)
{
	struct smtp_copies *c = ss->policy->copies;
	struct smtp_copy *next;

	if (c == NULL) {
		return;
	}
	for (struct smtp_copy *x = c->first; x != NULL; x = next) {
		next = x->next;
		free_copy(ss, x);
	}
	if (c->current != NULL) {
		free_copy(ss, c->current);
	}
	chain_release(&c->common, buffers_of(ss));
	policy_pairs_clear(&c->context);
	ss->policy->copies = NULL;
	free(c);
}

static void copy_chain(struct smtp_session *ss, struct chain *to, const struct chain *from)
{
	for (const struct chain_buffer *b = from->head; b != NULL; b = b->next) {
		chain_append(to, buffers_of(ss), b->data, b->len);
	}
}

static bool same_context(const struct policy_pairs *a, const struct policy_pairs *b)
{
	if (a->count != b->count) {
		return false;
	}
	for (uint32_t i = 0; i < a->count; i++) {
		const struct policy_pair *other = policy_pairs_find(b, a->list[i].name);

		if (other == NULL || other->value_len != a->list[i].value_len ||
		    memcmp(other->value, a->list[i].value, other->value_len) != 0) {
			return false;
		}
	}
	return true;
}

/* A copy that the recipient of `m` may join; NULL: none. */
static struct smtp_copy *find_copy(const struct smtp_copies *c, const struct policy_mail *m)
{
	for (struct smtp_copy *x = c->first; x != NULL; x = x->next) {
		if (!x->own && strcmp(x->binding, m->binding) == 0 &&
		    strcmp(x->routing, m->routing_domain) == 0 &&
		    strcmp(x->envelope.text, m->sender) == 0 && x->durability == m->durability &&
		    x->priority == m->priority && same_context(&x->context, &m->context)) {
			return x;
		}
	}
	return NULL;
}

static void note(struct smtp_session *ss, struct smtp_copy *copy, const struct policy_mail *m)
{
	strcpy(copy->binding, m->binding);
	strcpy(copy->routing, m->routing_domain);
	copy->durability = m->durability;
	copy->priority = m->priority;
	copy->id = scheduler_new_id(ss->listener->scheduler);
	policy_pairs_copy(&copy->context, &m->context);
}

/* ---- turns ---- */

static void set_recipient(struct policy_mail *m, const struct envelope_builder *b, uint32_t index)
{
	if (index < b->recipient_count) {
		strcpy(m->recipient, b->text + b->recipients[index].offset);
	}
}

/* The message as all recipients get it, for the next one. */
static void begin_turn(struct smtp_session *ss, struct smtp_copies *c)
{
	struct smtp_policy *p = ss->policy;
	struct policy_mail *m = &p->mail;

	policy_mail_close(m);
	*m = c->base;
	m->context = (struct policy_pairs){0};
	policy_pairs_copy(&m->context, &c->context);
	m->body = &ss->transaction->body;
	m->shared = true;
	m->changed = false;
	m->high = false;
	set_recipient(m, &ss->transaction->envelope, c->turn);
	policy_subject_set_mail(&p->subject, m);
	c->stage = POLICY_EACH_RCPT;
}

/* What the hooks have made of the message for one recipient. */
static void end_turn(struct smtp_session *ss, struct smtp_copies *c)
{
	struct smtp_transaction *tx = ss->transaction;
	struct policy_mail *m = &ss->policy->mail;
	struct smtp_copy *copy = m->changed ? NULL : find_copy(c, m);

	if (m->discarded) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_DISCARDED);
		return;
	}
	if (copy == NULL) {
		copy = add_copy(c);
		smtp_policy_copy_head(&copy->envelope, &tx->envelope, m->sender);
		note(ss, copy, m);
		copy->own = m->changed;
		copy->body = m->own;
		copy->changed = m->changed;
		copy->high = m->high;
		m->own = CHAIN_EMPTY;
		m->body = &tx->body;
	}
	if (m->recipient_changed) {
		envelope_add_recipient(&copy->envelope, m->recipient, strlen(m->recipient));
	} else {
		smtp_policy_copy_recipient(&copy->envelope, &tx->envelope, c->turn);
	}
}

/* All that was said so far is for every recipient. */
static void begin_turns(struct smtp_session *ss, struct smtp_copies *c)
{
	struct policy_mail *m = &ss->policy->mail;

	c->turns = true;
	c->turn = 0;
	c->common_changed = m->changed;
	c->common_high = m->high;
	c->context = m->context;
	m->context = (struct policy_pairs){0};
	c->base = *m;
	begin_turn(ss, c);
}

/* ---- the end ---- */

static void end_whole(struct smtp_session *ss, struct smtp_copies *c)
{
	struct smtp_transaction *tx = ss->transaction;
	struct policy_mail *m = &ss->policy->mail;
	struct smtp_copy *copy;

	c->common_changed = m->changed;
	c->common_high = m->high;
	if (m->discarded) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_DISCARDED);
		return;
	}
	copy = add_copy(c);
	smtp_policy_copy_head(&copy->envelope, &tx->envelope, m->sender);
	note(ss, copy, m);
	for (uint32_t i = 0; i < tx->envelope.recipient_count; i++) {
		smtp_policy_copy_recipient(&copy->envelope, &tx->envelope, i);
	}
}

static void finish(struct smtp_session *ss, struct smtp_copies *c)
{
	struct smtp_transaction *tx = ss->transaction;

	/* No object of the message is good from here on. */
	policy_subject_set_mail(&ss->policy->subject, &ss->policy->mail);
	ss->policy->mail.body = NULL;
	c->common = tx->body;
	tx->body = CHAIN_EMPTY;
	if (c->first != NULL) {
		/* The client is told the id that the Received field has. */
		c->first->id = tx->id;
	}
	if (smtp_copies_next(ss)) {
		smtp_transaction_store(ss);
	} else {
		smtp_transaction_discard(ss);
	}
}

const struct smtp_copy *smtp_copies_current(const struct smtp_session *ss)
{
	return ss->policy != NULL && ss->policy->copies != NULL ? ss->policy->copies->current
								: NULL;
}

/* Whether another copy after this one has the common text. */
static bool common_later(const struct smtp_copy *copy)
{
	for (const struct smtp_copy *x = copy->next; x != NULL; x = x->next) {
		if (!x->own) {
			return true;
		}
	}
	return false;
}

bool smtp_copies_next(struct smtp_session *ss)
{
	struct smtp_copies *c = ss->policy != NULL ? ss->policy->copies : NULL;
	struct smtp_transaction *tx = ss->transaction;
	struct smtp_copy *copy = c != NULL ? c->first : NULL;
	struct envelope_builder before;

	if (copy == NULL) {
		return false;
	}
	if (c->current != NULL) {
		free_copy(ss, c->current);
	}
	c->current = copy;
	before = tx->envelope;
	tx->envelope = copy->envelope;
	copy->envelope = before;
	tx->id = copy->id;
	if (copy->own) {
		tx->body = copy->body;
		copy->body = CHAIN_EMPTY;
	} else if (common_later(copy)) {
		copy_chain(ss, &tx->body, &c->common);
	} else {
		tx->body = c->common;
		c->common = CHAIN_EMPTY;
	}
	copy->changed |= c->common_changed;
	copy->high |= c->common_high;
	c->first = copy->next;
	copy->next = NULL;
	smtp_transaction_recount(ss);
	return true;
}

/* ---- the way through the hooks ---- */

static bool is_over(const struct smtp_session *ss, const struct smtp_copies *c)
{
	const struct policy_mail *m = &ss->policy->mail;

	/* Of what is discarded nobody else is asked. */
	return m->discarded || c->stage > (c->turns ? POLICY_FINAL : POLICY_DATA_SPOOL);
}

/* The next hook that anybody has, of this stage; true: one was found. */
static bool find_hook(const struct smtp_session *ss, struct smtp_copies *c)
{
	while (!is_over(ss, c) && !smtp_policy_has(ss, c->stage)) {
		c->stage++;
	}
	return !is_over(ss, c);
}

/* What scripts did to the envelope as a whole. */
static void take_envelope(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;
	struct policy_mail *m = &ss->policy->mail;

	if (m->recipient_changed && tx->envelope.recipient_count == 1) {
		smtp_policy_rebuild(&tx->envelope, NULL,
				    tx->envelope.text + tx->envelope.recipients[0].offset,
				    m->recipient);
	}
	m->recipient_changed = false;
	if (tx->envelope.recipient_count == 0) {
		m->discarded = true;
	}
}

/* A stage is done with: the next recipient's turn, or the end. True: there is another hook. */
static bool next_stage(struct smtp_session *ss, struct smtp_copies *c)
{
	while (!find_hook(ss, c)) {
		bool more = (ss->listener->scheduler->policy.hooks & POLICY_BITS_RECIPIENT) != 0;

		if (!c->turns) {
			take_envelope(ss);
			if (!more || ss->policy->mail.discarded) {
				end_whole(ss, c);
				return false;
			}
			begin_turns(ss, c);
			continue;
		}
		end_turn(ss, c);
		if (++c->turn >= ss->transaction->envelope.recipient_count) {
			return false;
		}
		begin_turn(ss, c);
	}
	return true;
}

static void advance(struct smtp_session *ss, const struct smtp_refusal *refusal)
{
	struct smtp_copies *c = ss->policy->copies;

	if (refusal != NULL) {
		smtp_transaction_refuse(ss, refusal);
		return;
	}
	c->stage++;
	c->passed = true;
	if (!c->loops) {
		go_on(ss);
	}
}

static void go_on(struct smtp_session *ss)
{
	struct smtp_copies *c = ss->policy->copies;

	c->loops = true;
	do {
		if (!next_stage(ss, c)) {
			finish(ss, c);
			return;
		}
		c->passed = false;
		smtp_policy_ask(ss, c->stage, "", advance);
		/* A refusal has freed it. */
	} while (ss->policy->copies == c && c->passed);
	if (ss->policy->copies == c) {
		c->loops = false;
	}
}

bool smtp_copies_wanted(const struct smtp_session *ss)
{
	return __builtin_expect((ss->listener->scheduler->policy.hooks & POLICY_BITS_MESSAGE) != 0,
				0) &&
	       !ss->transaction->out_of_band;
}

void smtp_copies_begin(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;
	struct smtp_copies *c = check_memory(calloc(1, sizeof(*c)), "the policy of a message");
	struct policy_mail *m;

	smtp_policy_begin_mail(ss);
	ss->policy->copies = c;
	c->last = &c->first;
	c->stage = POLICY_DATA;
	m = &ss->policy->mail;
	message_id_format(&tx->id, m->id);
	m->body = &tx->body;
	set_recipient(m, &tx->envelope, 0);
	go_on(ss);
}

bool smtp_copies_turns(const struct smtp_copies *c)
{
	return c->turns;
}

int smtp_copies_inject(struct smtp_session *ss, const char *sender, const char *recipient,
		       const char *text, size_t len)
{
	struct smtp_policy *p = ss->policy;
	struct smtp_copies *c = p->copies;
	struct smtp_copy *copy;

	if (c == NULL || p->mail.body == NULL) {
		return -EBUSY;
	}
	policy_mail_settle(&p->mail);
	copy = add_copy(c);
	envelope_set_sender(&copy->envelope, sender, strlen(sender));
	copy->envelope.flags = (uint16_t)(ss->transaction->envelope.flags &
					  (ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8));
	envelope_add_recipient(&copy->envelope, recipient, strlen(recipient));
	copy->own = true;
	copy->durability = -1;
	copy->priority = -1;
	copy->id = scheduler_new_id(ss->listener->scheduler);
	if (text != NULL) {
		copy->changed = true;
		copy->high = policy_text_store(text, len, true, &copy->body, buffers_of(ss));
		return 0;
	}
	copy->changed = p->mail.changed;
	copy->high = p->mail.high;
	copy_chain(ss, &copy->body, p->mail.body);
	return 0;
}
