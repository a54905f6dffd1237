#include "listeners/smtp/binding.h"

#include "core/mail/header.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/transaction.h"

static struct binding_table *table_of(const struct smtp_session *ss)
{
	return &ss->listener->scheduler->dispatcher.bindings;
}

static bool may_choose(const struct smtp_session *ss)
{
	return ss->options->binding_header != NULL && ss->options->binding_header[0] != '\0' &&
	       (ss->relay_host || ss->user != NULL);
}

static void tell_unknown(struct smtp_session *ss, const char *name)
{
	struct agent *self = &ss->listener->scheduler->base;

	smtp_count(smtp_session_counts(ss), SMTP_COUNT_BINDING_UNKNOWN);
	/* Clients may make names up without end. */
	if (ss->listener->unknown_bindings < SMTP_BINDING_UNKNOWN_TOLD) {
		ss->listener->unknown_bindings++;
		agent_error(self, 0,
			    "mail from %s is for binding \"%s\", which there is none of: it goes "
			    "by the default one",
			    ss->peer_text, name);
	} else {
		agent_error(self, 0,
			    "more mail is for bindings that there are none of: it goes by the "
			    "default one (counter smtp_binding_unknown)");
	}
}

/* What the header says; false: nothing. */
static bool take_header(struct smtp_session *ss, char name[ENVELOPE_BINDING_MAX + 2])
{
	struct pool *buffers = &ss->listener->scheduler->pools.buffers;
	unsigned count = header_take(&ss->transaction->body, buffers, ss->options->binding_header,
				     name, ENVELOPE_BINDING_MAX + 2);

	if (count > 0) {
		smtp_transaction_recount(ss);
	}
	return name[0] != '\0';
}

struct binding_record *smtp_binding_choose(struct smtp_session *ss, const char *policy)
{
	struct binding_table *t = table_of(ss);
	/* One byte more, so that what is cut is nobody's name. */
	char told[ENVELOPE_BINDING_MAX + 2];
	const char *name = ss->options->binding != NULL ? ss->options->binding : ss->binding;
	struct binding_record *b;

	if (t->configured < 2 || ss->transaction->out_of_band) {
		return binding_default(t);
	}
	if (may_choose(ss) && take_header(ss, told)) {
		name = told;
	}
	if (policy[0] != '\0') {
		name = policy;
	}
	if (name == NULL) {
		return binding_default(t);
	}
	b = binding_choose(t, name);
	if (b == NULL) {
		tell_unknown(ss, name);
		b = binding_default(t);
	}
	return b;
}
