#include "core/outbound/connection_tls.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/outbound/dane.h"
#include "core/outbound/host_list.h"
#include "core/runtime/check.h"

#define WHY_MAX (TLS_WHY + 64)

static const struct domain_options *options_of(const struct connection *c)
{
	return c->options;
}

void connection_tls_init(struct dispatcher *x)
{
	struct counter_set *set = x->self->counters;

	tls_sessions_init(&x->tls_sessions);
	x->tls_12 = counter_create(set, "outbound.tls12", COUNTER_SUM,
				   "Outbound connections that began TLS 1.2");
	x->tls_13 = counter_create(set, "outbound.tls13", COUNTER_SUM,
				   "Outbound connections that began TLS 1.3");
	x->tls_resumed = counter_create(set, "outbound.tls_resumed", COUNTER_SUM,
					"Outbound TLS sessions that were resumed");
	x->tls_verified = counter_create(set, "outbound.tls_verified", COUNTER_SUM,
					 "Outbound connections whose peer was verified");
	x->tls_failed = counter_create(set, "outbound.tls_failed", COUNTER_SUM,
				       "Outbound connections that ended for want of TLS");
	x->dane_verified = counter_create(set, "outbound.dane_verified", COUNTER_SUM,
					  "Outbound connections whose peer TLSA records proved");
	x->dane_unusable = counter_create(
		set, "outbound.dane_unusable", COUNTER_SUM,
		"Outbound connections by TLS, unverified, as no TLSA record was usable");
	x->dane_failed = counter_create(set, "outbound.dane_failed", COUNTER_SUM,
					"Outbound TLS that failed where TLSA records demand it");
	x->dane_lookups_failed =
		counter_create(set, "outbound.dane_lookups_failed", COUNTER_SUM,
			       "Next hops not used because their TLSA records could not be had");
	x->tls_fallbacks = counter_create(set, "outbound.tls_fallbacks", COUNTER_SUM,
					  "Times a host was given plain text because TLS failed");
}

/* ---- reports ---- */

/* One session of a domain whose exchangers the name service tells of; what an operator has
 * configured is not the domain's to hear of. */
static void report(const struct connection *c, enum tls_report_result result)
{
	struct dispatcher *x = c->dispatcher;
	enum tls_report_policy policy = c->dane                   ? TLS_REPORT_TLSA
					: c->sts != HOST_STS_NONE ? TLS_REPORT_STS
								  : TLS_REPORT_NO_POLICY;

	if (options_of(c)->gateway_count == 0) {
		tls_report_count(&x->tls_reports, c->domain->name, policy, result,
				 agent_wall_ms(x->self));
	}
}

static enum tls_report_result result_of(enum tls_fault fault)
{
	switch (fault) {
	case TLS_FAULT_NONE:
		return TLS_REPORT_SUCCESS;
	case TLS_FAULT_HOST_MISMATCH:
		return TLS_REPORT_HOST_MISMATCH;
	case TLS_FAULT_EXPIRED:
		return TLS_REPORT_EXPIRED;
	case TLS_FAULT_NOT_TRUSTED:
		return TLS_REPORT_NOT_TRUSTED;
	case TLS_FAULT_OTHER:
		break;
	}
	return TLS_REPORT_VALIDATION_FAILURE;
}

/* A session that was begun, but may not be what a policy demands. */
static void report_begun(const struct connection *c, const struct tls_agreed *agreed)
{
	enum tls_report_result result = TLS_REPORT_SUCCESS;

	if (c->dane && !agreed->verified) {
		result = TLS_REPORT_TLSA_INVALID;
	} else if (c->sts == HOST_STS_TESTING_UNLISTED) {
		result = TLS_REPORT_VALIDATION_FAILURE;
	} else if (c->sts == HOST_STS_TESTING) {
		result = result_of(agreed->fault);
	}
	report(c, result);
}

/* ---- policy ---- */

/* TLSA records of the host; NULL: there are none, or the host is listed no more. */
static const struct dane *dane_of(const struct connection *c)
{
	const struct host *h = host_of(c);

	return c->dane && h != NULL ? h->dane : NULL;
}

static bool has_usable_dane(const struct connection *c)
{
	const struct dane *d = dane_of(c);

	return d != NULL && d->count > 0;
}

/* Plain text, or a peer that is not what it should be, is out of the question. DANE comes before
 * MTA-STS (RFC 8461 section 2). */
static bool is_strict(const struct connection *c)
{
	switch (options_of(c)->tls) {
	case DOMAIN_TLS_NO:
		return false;
	case DOMAIN_TLS_OPPORTUNISTIC:
	case DOMAIN_TLS_DANE_OR_OPPORTUNISTIC:
		break;
	case DOMAIN_TLS_REQUIRED:
	case DOMAIN_TLS_VERIFY:
	case DOMAIN_TLS_DANE:
		return true;
	}
	return c->dane || c->sts == HOST_STS_ENFORCE;
}

static enum tls_verify verification_of(const struct connection *c)
{
	if (c->dane) {
		return has_usable_dane(c) ? TLS_VERIFY_DANE : TLS_VERIFY_NONE;
	}
	if (options_of(c)->tls == DOMAIN_TLS_VERIFY || c->sts == HOST_STS_ENFORCE) {
		return TLS_VERIFY_PKIX;
	}
	return c->sts == HOST_STS_TESTING ? TLS_VERIFY_TRY : TLS_VERIFY_NONE;
}

static bool wants_plain(const struct connection *c)
{
	const struct host *h = host_of(c);

	if (options_of(c)->tls == DOMAIN_TLS_NO) {
		return true;
	}
	return !is_strict(c) &&
	       (c->plain || (h != NULL && h->plain_until_ms > agent_now_ms(c->dispatcher->self)));
}

static void count_failure(const struct connection *c)
{
	counter_inc(c->dispatcher->tls_failed);
	if (c->dane) {
		counter_inc(c->dispatcher->dane_failed);
	}
}

static void lacks_dane(struct connection *c)
{
	char text[WHY_MAX + sizeof c->host_name];

	snprintf(text, sizeof text,
		 "451 4.7.5 [internal] DANE is required, and %s has no usable TLSA record",
		 c->host_name);
	count_failure(c);
	report(c, TLS_REPORT_DANE_REQUIRED);
	connection_setup_fail(c, SMTP_STAGE_AFTER_EHLO, "4.7.5", text);
}

bool connection_tls_begin(struct connection *c)
{
	char text[WHY_MAX + sizeof c->host_name];

	if (stream_is_secure(&c->stream) || wants_plain(c)) {
		return false;
	}
	if (options_of(c)->tls == DOMAIN_TLS_DANE && !has_usable_dane(c)) {
		lacks_dane(c);
		return true;
	}
	if ((c->extensions & SMTP_EXTENSION_STARTTLS) != 0) {
		connection_setup_say(c, CONNECTION_STARTTLS, "STARTTLS", "");
		return true;
	}
	report(c, TLS_REPORT_STARTTLS_NOT_SUPPORTED);
	if (!is_strict(c)) {
		return false;
	}
	snprintf(text, sizeof text,
		 "451 4.7.4 [internal] TLS is required, and %s does not offer STARTTLS",
		 c->host_name);
	count_failure(c);
	connection_setup_fail(c, SMTP_STAGE_AFTER_EHLO, "4.7.4", text);
	return true;
}

/* ---- failures ---- */

bool connection_tls_forgive(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct host *h = host_of(c);

	if (c->state != CONNECTION_STARTTLS && c->state != CONNECTION_SECURING) {
		return false;
	}
	count_failure(c);
	report(c, c->state == CONNECTION_STARTTLS ? TLS_REPORT_STARTTLS_NOT_SUPPORTED
						  : result_of(stream_fault(&c->stream)));
	if (is_strict(c) || h == NULL) {
		return false;
	}
	h->plain_until_ms = agent_now_ms(x->self) + options_of(c)->tls_failure_retry_ms;
	h->plain_owed = true;
	counter_inc(x->tls_fallbacks);
	agent_error(x->self, 0, "TLS with %.60s (%s) failed, going on in plain text: %.100s",
		    c->host_name, c->remote_ip, c->attempt.text);
	return true;
}

static void handshake_failed(struct connection *c, enum smtp_stage stage, const char *why)
{
	char text[WHY_MAX];

	snprintf(text, sizeof text, "451 4.7.5 [internal] TLS handshake failed: %s", why);
	connection_setup_fail(c, stage, "4.7.5", text);
}

/* ---- STARTTLS and the handshake ---- */

/* What came after the reply, in plain text, may be anybody's: taken for a reply in TLS it could
 * pretend to be the peer's. */
void connection_tls_on_reply(struct connection *c)
{
	char text[WHY_MAX];

	if (smtp_reply_class(&c->reply) != 2) {
		snprintf(text, sizeof text,
			 "451 4.7.4 [internal] STARTTLS was offered and refused: %.120s",
			 c->reply.text);
		connection_setup_fail(c, SMTP_STAGE_DURING_STARTTLS, "4.7.4", text);
	} else if (c->unread > 0) {
		handshake_failed(c, SMTP_STAGE_AFTER_STARTTLS,
				 "the peer sent on in plain text after its reply to STARTTLS");
	} else {
		connection_setup_wait(c, CONNECTION_SECURING);
		connection_tls_handshake(c);
	}
}

static void count_handshake(const struct connection *c, const struct tls_agreed *agreed)
{
	struct dispatcher *x = c->dispatcher;

	counter_inc(strcmp(agreed->version, "TLSv1.3") == 0 ? x->tls_13 : x->tls_12);
	if (agreed->resumed) {
		counter_inc(x->tls_resumed);
	}
	if (agreed->verified) {
		counter_inc(x->tls_verified);
	}
	if (c->dane) {
		counter_inc(agreed->verified ? x->dane_verified : x->dane_unusable);
	}
}

/* RFC 3207 section 4.2: what was learned before is forgotten, and EHLO said again. */
static void on_secured(struct stream *stream, int result)
{
	struct connection *c = CONTAINER_OF(stream, struct connection, stream);
	struct tls_agreed agreed;

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	if (result != 0) {
		handshake_failed(c, SMTP_STAGE_TLS_HANDSHAKE, stream_why(stream));
		return;
	}
	agreed = stream_agreed(stream);
	count_handshake(c, &agreed);
	c->verified = agreed.verified;
	report_begun(c, &agreed);
	c->extensions = 0;
	c->size_max = 0;
	smtp_reply_reset(&c->reply);
	connection_setup_say(c, CONNECTION_EHLO, "EHLO", options_of(c)->ehlo_hostname);
	stream_recv(stream);
}

/* Whoever resumes a session takes over what was verified in it: its key says what that was. */
static void session_key(const struct connection *c, const struct tls_wish *wish,
			char key[TLS_SESSION_KEY])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&c->address;

	/* The port is at the same place in both families. */
	snprintf(key, TLS_SESSION_KEY, "%u %llx %.255s %s %u", (unsigned)wish->verify,
		 (unsigned long long)tls_client_roots(wish->context), c->host_name, c->remote_ip,
		 in->sin_port);
}

static void wish_dane(const struct dane *d, struct tls_wish *wish)
{
	wish->name = d->base;
	wish->tlsa = d->records;
	wish->tlsa_count = d->count;
	wish->other_names = d->names;
	wish->other_name_count = d->name_count;
}

void connection_tls_handshake(struct connection *c)
{
	const struct domain_options *o = options_of(c);
	struct tls_wish wish = {
		.context = o->tls_client != NULL ? o->tls_client : c->dispatcher->tls_client,
		.verify = verification_of(c),
		.name = c->host_name,
	};
	bool by_sts = options_of(c)->tls != DOMAIN_TLS_VERIFY &&
		      (wish.verify == TLS_VERIFY_PKIX || wish.verify == TLS_VERIFY_TRY);
	char key[TLS_SESSION_KEY];

	if (by_sts && o->tls_client == NULL) {
		wish.context = c->dispatcher->tls_roots;
	}
	if (stream_is_secure(&c->stream) || stream_busy(&c->stream)) {
		return;
	}
	if (c->dane && dane_of(c) == NULL) {
		handshake_failed(c, SMTP_STAGE_TLS_HANDSHAKE,
				 "the TLSA records of the peer have changed meanwhile");
		return;
	}
	if (wish.verify == TLS_VERIFY_DANE) {
		/* Records may change while a session lives: it is not kept. */
		wish_dane(dane_of(c), &wish);
	} else {
		session_key(c, &wish, key);
		wish.sessions = &c->dispatcher->tls_sessions;
		wish.session_key = key;
	}
	stream_secure(&c->stream, &wish, on_secured);
}
