#include "listeners/smtp/policy_facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/tls_peer.h"
#include "listeners/smtp/policy.h"
#include "listeners/smtp/policy_message.h"
#include "listeners/smtp/transaction.h"

static struct smtp_session *session_of(void *owner)
{
	const struct smtp_policy *p = owner;

	return p->session;
}

/* ---- facts ---- */

static const char *number(char scratch[POLICY_KNOWN_MAX], uint64_t value)
{
	snprintf(scratch, POLICY_KNOWN_MAX, "%llu", (unsigned long long)value);
	return scratch;
}

static const char *truth(bool value)
{
	return value ? "true" : "false";
}

static const char *domain_of(const char *address)
{
	const char *at = strrchr(address, '@');

	return at != NULL ? at + 1 : "";
}

static const char *local_of(const char *address, char scratch[POLICY_KNOWN_MAX])
{
	const char *at = strrchr(address, '@');
	int len = at != NULL ? (int)(at - address) : (int)strlen(address);

	snprintf(scratch, POLICY_KNOWN_MAX, "%.*s", len, address);
	return scratch;
}

/* Of the cipher, and of the client's certificate. */
static const char *session_fact(const SSL *ssl, const char *name, char scratch[POLICY_KNOWN_MAX])
{
	static const struct {
		const char *name;
		enum tls_name which;
		bool common;
	} names[] = {{"tls_client_cert_subject", TLS_SUBJECT, false},
		     {"tls_client_cert_subject_cn", TLS_SUBJECT, true},
		     {"tls_client_cert_issuer", TLS_ISSUER, false},
		     {"tls_client_cert_issuer_cn", TLS_ISSUER, true}};
	unsigned algorithm;
	unsigned used = tls_cipher_bits(ssl, &algorithm);

	if (strcmp(name, "tls_cipher_usebits") == 0) {
		return number(scratch, used);
	}
	if (strcmp(name, "tls_cipher_algbits") == 0) {
		return number(scratch, algorithm);
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i].name) == 0) {
			return tls_peer_name(ssl, names[i].which, names[i].common, scratch,
					     POLICY_KNOWN_MAX)
				       ? scratch
				       : NULL;
		}
	}
	return NULL;
}

static const char *tls_fact(const struct smtp_session *ss, const char *name,
			    char scratch[POLICY_KNOWN_MAX])
{
	struct tls_agreed agreed = {0};

	if (strcmp(name, "tls") == 0) {
		return truth(ss->secure);
	}
	if (!stream_is_secure(&ss->stream)) {
		return NULL;
	}
	agreed = stream_agreed(&ss->stream);
	if (strcmp(name, "tls_cipher") == 0) {
		return agreed.cipher;
	}
	if (strcmp(name, "tls_version") == 0) {
		return agreed.version;
	}
	if (strcmp(name, "tls_client_verified") == 0) {
		return truth(agreed.verified);
	}
	return session_fact(stream_session(&ss->stream), name, scratch);
}

/* Predefined contexts of the connection; those with "#" are asked for by methods. */
static const char *of_connection(struct smtp_session *ss, const char *name,
				 char scratch[POLICY_KNOWN_MAX])
{
	const struct smtp_transaction *tx = ss->transaction;

	if (strncmp(name, "tls", 3) == 0) {
		return tls_fact(ss, name, scratch);
	}
	if (strcmp(name, "ehlo_string") == 0 || strcmp(name, "ehlo_domain") == 0) {
		return ss->has_helo ? ss->helo : NULL;
	}
	if (strcmp(name, "auth_user") == 0 || strcmp(name, "auth_name") == 0) {
		return ss->user;
	}
	if (strcmp(name, "auth_status") == 0) {
		return ss->user != NULL ? "1" : NULL;
	}
	if (strcmp(name, "can_relay") == 0) {
		return truth(ss->relay_host || ss->user != NULL);
	}
	if (strcmp(name, "connection_message_count") == 0) {
		return number(scratch, ss->receptions);
	}
	if (strcmp(name, "connection_rcpt_count") == 0) {
		return number(scratch, ss->recipients);
	}
	if (strcmp(name, "message_rcpt_count") == 0) {
		return number(scratch, tx != NULL ? tx->envelope.recipient_count : 0);
	}
	if (strcmp(name, "#listener") == 0) {
		return config_smtp_listen(ss->accept->config, ss->accept->listen)->name;
	}
	if (strcmp(name, "#peer") == 0) {
		return ss->peer_text;
	}
	return strcmp(name, "#peer_port") == 0 ? number(scratch, ss->peer_port) : NULL;
}

static bool has_high_bytes(const struct policy_text *t)
{
	for (size_t i = 0; i < t->len; i++) {
		if ((t->data[i] & 0x80) != 0) {
			return true;
		}
	}
	return false;
}

/* What its text says; NULL: nothing. */
static const char *of_text(struct policy_mail *m, const char *name)
{
	const struct policy_text *header = policy_mail_header(m);
	struct policy_field date;

	if (m->body == NULL) {
		return NULL;
	}
	if (strcmp(name, "rfc2822_date_missing") == 0) {
		return policy_field_next(header->data, header->len, "Date", 0, &date) ? NULL
										      : "true";
	}
	if (strcmp(name, "#8bitmime") == 0) {
		return has_high_bytes(header) || has_high_bytes(policy_mail_text(m)) ? "true"
										     : NULL;
	}
	return NULL;
}

static const char *of_message(struct policy_mail *m, const char *name,
			      char scratch[POLICY_KNOWN_MAX])
{
	if (strcmp(name, "mailfrom_string") == 0) {
		return m->sender;
	}
	if (strcmp(name, "mailfrom_domain") == 0) {
		return domain_of(m->sender);
	}
	if (strcmp(name, "mailfrom_localpart") == 0) {
		return local_of(m->sender, scratch);
	}
	if (strcmp(name, "rcptto_string") == 0) {
		return m->recipient;
	}
	if (strcmp(name, "rcptto_domain") == 0) {
		return domain_of(m->recipient);
	}
	if (strcmp(name, "rcptto_localpart") == 0) {
		return local_of(m->recipient, scratch);
	}
	return of_text(m, name);
}

static const char *known(void *owner, enum policy_context context, const char *name,
			 char scratch[POLICY_KNOWN_MAX])
{
	const struct smtp_policy *p = owner;

	if (context == POLICY_CONN) {
		return of_connection(p->session, name, scratch);
	}
	return p->subject.mail != NULL ? of_message(p->subject.mail, name, scratch) : NULL;
}

/* ---- recipients ---- */

void smtp_policy_copy_recipient(struct envelope_builder *to, const struct envelope_builder *from,
				uint32_t index)
{
	const struct envelope_recipient *r = &from->recipients[index];
	const char *address = from->text + r->offset;
	const char *orcpt = (r->flags & ENVELOPE_ORCPT) != 0 ? address + r->len + 1 : NULL;

	if (envelope_add_recipient(to, address, r->len)) {
		envelope_set_notify(to, r->flags & ENVELOPE_NOTIFY, orcpt,
				    orcpt != NULL ? strlen(orcpt) : 0);
	}
}

void smtp_policy_rebuild(struct envelope_builder *b, const char *sender, const char *leave_out,
			 const char *add)
{
	struct envelope_builder fresh;

	envelope_builder_init(&fresh);
	smtp_policy_copy_head(&fresh, b, sender);
	for (uint32_t i = 0; i < b->recipient_count; i++) {
		const char *address = b->text + b->recipients[i].offset;

		if (leave_out == NULL || strcasecmp(address, leave_out) != 0) {
			smtp_policy_copy_recipient(&fresh, b, i);
		}
	}
	if (add != NULL && fresh.recipient_count < ENVELOPE_RECIPIENTS_MAX) {
		envelope_add_recipient(&fresh, add, strlen(add));
	}
	envelope_builder_close(b);
	*b = fresh;
}

static struct envelope_builder *envelope_of(void *owner)
{
	struct smtp_transaction *tx = session_of(owner)->transaction;

	return tx != NULL ? &tx->envelope : NULL;
}

static uint32_t recipient_count(void *owner)
{
	const struct envelope_builder *b = envelope_of(owner);

	return b != NULL ? b->recipient_count : 0;
}

static const char *recipient(void *owner, uint32_t index)
{
	const struct envelope_builder *b = envelope_of(owner);

	return b->text + b->recipients[index].offset;
}

static int change(void *owner, const char *leave_out, const char *add)
{
	struct envelope_builder *b = envelope_of(owner);
	const struct smtp_policy *p = owner;

	/* While recipients take their turns nobody comes in between. */
	if (b == NULL || (p->copies != NULL && smtp_copies_turns(p->copies))) {
		return -EBUSY;
	}
	smtp_policy_rebuild(b, NULL, leave_out, add);
	smtp_transaction_recount(session_of(owner));
	return 0;
}

static int add_recipient(void *owner, const char *address)
{
	return change(owner, NULL, address);
}

static int remove_recipient(void *owner, const char *address)
{
	return change(owner, address, NULL);
}

/* ---- the rest ---- */

static int inject(void *owner, const char *sender, const char *recipient_address, const char *text,
		  size_t len)
{
	return smtp_copies_inject(session_of(owner), sender, recipient_address, text, len);
}

static void capability(void *owner, const char *name, bool add)
{
	struct smtp_policy *p = owner;
	unsigned *count = add ? &p->added_count : &p->removed_count;
	char(*list)[SMTP_POLICY_CAPABILITY_MAX] = add ? p->added : p->removed;

	if (*count < SMTP_POLICY_CAPABILITIES) {
		snprintf(list[(*count)++], SMTP_POLICY_CAPABILITY_MAX, "%s", name);
	}
}

const struct policy_subject_ops smtp_policy_facts = {
	.known = known,
	.recipient_count = recipient_count,
	.recipient = recipient,
	.add_recipient = add_recipient,
	.remove_recipient = remove_recipient,
	.inject = inject,
	.capability = capability,
};
