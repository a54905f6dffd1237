/*
 * What `domain NAME` says of one record, on its home scheduler: first what holds the queue, by
 * which limit or failure, and until when (why.h); then the rest.
 */
#include "listeners/control/command.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/outbound/bind_address.h"
#include "core/outbound/connection.h"
#include "core/outbound/dane.h"
#include "core/queue/throttle.h"
#include "listeners/control/why.h"

/* Connections that `domain` lists. */
#define CONNECTIONS_SHOWN 50

/* What binds keeps mail back. */
static bool is_held(const struct why *w)
{
	return domain_hold_is_hold(why_first(w));
}

const char *command_held_by(const struct scheduler *s, const struct domain *d)
{
	struct obstacle first = obstacle_first(&s->dispatcher, d);

	return domain_hold_is_hold(first.why) ? domain_hold_text(first.why) : "";
}

static const char *state_of(const struct domain *d, enum domain_hold why)
{
	bool at_a_limit = why == DOMAIN_CONNECTIONS || why == DOMAIN_SERVER_CONNECTIONS ||
			  why == DOMAIN_MEMORY || why == DOMAIN_PEER_LIMIT;

	if (why == DOMAIN_SUSPENDED || why == DOMAIN_BINDING_SUSPENDED) {
		return "suspended";
	}
	if (domain_hold_is_hold(why)) {
		return at_a_limit && d->attempt_count != 0 ? "sending at its limit" : "held";
	}
	if (d->active_count != 0 || d->attempt_count != 0) {
		return "sending";
	}
	if (d->delayed_count != 0) {
		return "waiting for its next due time";
	}
	return d->held_count != 0 ? "all of it held by an operator" : "idle";
}

const char *command_domain_state(const struct scheduler *s, const struct domain *d)
{
	return state_of(d, obstacle_first(&s->dispatcher, d).why);
}

static void set_hold(json_t *v, const struct why *w)
{
	uint64_t next_ms;
	char text[WHY_TEXT];

	value_set_text(v, "state", state_of(w->domain, why_first(w)));
	if (!is_held(w)) {
		return;
	}
	next_ms = why_next_ms(w, &w->items[0]);
	why_clause(w, &w->items[0], text, sizeof(text));
	value_set_text(v, "held_by", domain_hold_text(why_first(w)));
	value_set_text(v, "reason", text);
	if (next_ms != 0) {
		value_set_time(v, "held_until_at", agent_wall_ms(&w->scheduler->base) + next_ms);
		value_set_real(v, "time_left_s", (double)next_ms / 1000);
	}
}

static json_t *queue_of(const struct scheduler *s, const struct domain *d)
{
	const struct delivery *first = domain_peek_delayed(d);
	uint64_t wall_ms = agent_wall_ms(&s->base);
	json_t *v = value_object();

	value_set_number(v, "active", d->active_count);
	value_set_number(v, "delayed", d->delayed_count);
	value_set_number(v, "held", d->held_count);
	value_set_number(v, "on_connections", d->attempt_count);
	value_set_number(v, "waiting_for_spool", d->settling_count);
	if (first != NULL) {
		value_set_time(v, "next_due_at", first->due_ms);
		value_set_real(v, "next_due_in_s",
			       first->due_ms > wall_ms ? (double)(first->due_ms - wall_ms) / 1000
						       : 0.0);
	}
	if (d->active_head != NULL) {
		value_set_time(v, "oldest_active_received_at",
			       domain_oldest_active(d)->message->received_ms);
	}
	return v;
}

/* Whether that limit is in the way now. */
static bool holds(const struct why *w, enum domain_hold why, enum obstacle_scope scope)
{
	unsigned i = 0;

	while (i < w->count && (w->items[i].why != why || w->items[i].scope != scope)) {
		i++;
	}
	return i < w->count;
}

static void limit_row(json_t *rows, const char *limit, uint64_t in_use, uint64_t value, bool holds)
{
	json_t *row = value_object();

	value_set_text(row, "limit", limit);
	value_set_number(row, "value", value);
	value_set_number(row, "in_use", in_use);
	value_set_bool(row, "holds_now", holds);
	value_append(rows, row);
}

static void throttle_row(json_t *rows, const struct why *w, enum domain_hold why,
			 const struct throttle *t)
{
	json_t *row = value_object();
	char text[64];

	value_set_text(row, "limit", domain_hold_key(why));
	if (t == NULL) {
		value_set_text(row, "value", "none");
	} else {
		snprintf(text, sizeof(text), "%llu/%llu", (unsigned long long)t->count,
			 (unsigned long long)t->period_s);
		value_set_text(row, "value", text);
		value_set_bool(row, "holds_now",
			       holds(w, why, OBSTACLE_OF_DOMAIN) ||
				       holds(w, why, OBSTACLE_OF_SITE));
		value_set_text(row, "set_by", t->scope);
		value_set_number(row, "next_in_ms",
				 throttle_wait_ns(t, w->scheduler->base.now.mono_ns) / NS_PER_MS);
		value_set_number(row, "times_held",
				 atomic_load_explicit(&t->slot->held, memory_order_relaxed));
	}
	value_append(rows, row);
}

static json_t *limits_of(const struct why *w)
{
	const struct domain *d = w->domain;
	const struct domain_options *opt = d->options;
	const struct outbound_limits *all = &w->scheduler->program->limits;
	const struct site *site = d->lane != NULL ? d->lane->site : NULL;
	bool full = d->active_count != 0 && d->connection_count >= opt->max_outbound_connections;
	json_t *rows = value_array();

	limit_row(rows, "max_outbound_connections", d->connection_count,
		  opt->max_outbound_connections,
		  full && (holds(w, DOMAIN_CONNECTIONS, OBSTACLE_OF_DOMAIN) ||
			   holds(w, DOMAIN_CONNECTIONS, OBSTACLE_OF_SITE)));
	limit_row(rows, "server_max_outbound_connections",
		  atomic_load_explicit(&all->connections, memory_order_relaxed),
		  all->connections_max, holds(w, DOMAIN_SERVER_CONNECTIONS, OBSTACLE_OF_PROGRAM));
	throttle_row(rows, w, DOMAIN_THROTTLE_MESSAGES, opt->throttle_messages);
	throttle_row(rows, w, DOMAIN_THROTTLE_CONNECTIONS, opt->throttle_connections);
	limit_row(rows, "memory_budget",
		  atomic_load_explicit(&all->loaded_bytes, memory_order_relaxed), all->loaded_max,
		  holds(w, DOMAIN_MEMORY, OBSTACLE_OF_PROGRAM));
	if (site != NULL) {
		limit_row(rows, "max_outbound_connections of the site", site->connection_count,
			  site->options->max_outbound_connections,
			  holds(w, DOMAIN_CONNECTIONS, OBSTACLE_OF_SITE));
	}
	return rows;
}

static json_t *address_of(const void *of)
{
	const struct sockaddr *address = of;
	char ip[INET6_ADDRSTRLEN] = "";
	char text[INET6_ADDRSTRLEN + 16];
	unsigned port;

	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = of;

		inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		port = ntohs(in->sin_port);
		snprintf(text, sizeof(text), "%s:%u", ip, port);
	} else if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in = of;

		inet_ntop(AF_INET6, &in->sin6_addr, ip, sizeof(ip));
		port = ntohs(in->sin6_port);
		snprintf(text, sizeof(text), "[%s]:%u", ip, port);
	} else {
		return value_text("?");
	}
	return value_text(text);
}

/* What the world says of it, rather than the configuration: TLSA records, or MTA-STS. */
static json_t *policy_of(const struct host *h)
{
	char text[64];

	if (h->dane != NULL && h->dane->count == 0) {
		return value_text("dane, no usable record");
	}
	if (h->dane != NULL) {
		snprintf(text, sizeof(text), "dane, %u record%s", h->dane->count,
			 h->dane->count == 1 ? "" : "s");
		return value_text(text);
	}
	switch ((enum host_sts)h->sts) {
	case HOST_STS_TESTING_UNLISTED:
		return value_text("mta-sts testing, not listed");
	case HOST_STS_TESTING:
		return value_text("mta-sts testing");
	case HOST_STS_ENFORCE:
		return value_text("mta-sts enforce");
	case HOST_STS_NONE:
		break;
	}
	return json_null();
}

json_t *command_hosts(const struct scheduler *s, const struct lane *l)
{
	uint64_t now_ms = agent_now_ms(&s->base);
	json_t *rows = value_array();

	for (uint32_t i = 0; l != NULL && i < l->host_count; i++) {
		const struct host *h = &l->hosts[i];
		bool failed = h->failed_until_ms > now_ms;
		json_t *row = value_object();

		value_set_text(row, "host", h->name);
		value_set(row, "address", address_of(&h->address));
		value_set_number(row, "preference", h->preference);
		value_set_text(row, "state",
			       failed ? "failed, left alone"
			       : bind_address_allows(l->options, h->address.any.sa_family)
				       ? "good"
				       : "left out, no bind_address of its family");
		value_set(row, "for_s",
			  failed ? json_real((double)(h->failed_until_ms - now_ms) / 1000)
				 : json_null());
		value_set_number(row, "connections", h->connections);
		value_set_number(row, "deliveries", h->deliveries);
		value_set_number(row, "failures", h->failures);
		value_set_text(row, "last_error", h->trouble);
		value_set(row, "plain_for_s",
			  h->plain_until_ms > now_ms
				  ? json_real((double)(h->plain_until_ms - now_ms) / 1000)
				  : json_null());
		value_set(row, "tls_policy", policy_of(h));
		value_append(rows, row);
	}
	return rows;
}

const char *command_connection_text(const struct connection *c)
{
	switch (c->state) {
	case CONNECTION_CONNECTING:
		return "connecting";
	case CONNECTION_BANNER:
		return "waiting for the banner";
	case CONNECTION_EHLO:
	case CONNECTION_HELO:
		return "greeting";
	case CONNECTION_STARTTLS:
	case CONNECTION_SECURING:
		return "beginning TLS";
	case CONNECTION_IDLE:
		return "idle";
	case CONNECTION_LOADING:
		return "reading the message from the spool";
	case CONNECTION_ENVELOPE:
		return "envelope";
	case CONNECTION_BODY:
		return "body";
	case CONNECTION_RSET:
		return "reset";
	case CONNECTION_QUIT:
		return "quitting";
	case CONNECTION_CLOSING:
		return "closing";
	}
	return "unknown";
}

/* "TLSv1.3 TLS_AES_256_GCM_SHA384, pkix": version, cipher, how the peer was verified. */
static json_t *tls_of(const struct connection *c)
{
	struct tls_agreed agreed;
	char text[128];

	if (!stream_is_secure(&c->stream) || c->state == CONNECTION_SECURING ||
	    c->state == CONNECTION_CLOSING) {
		return value_text("plain");
	}
	agreed = stream_agreed(&c->stream);
	snprintf(text, sizeof(text), "%s %s, %s%s", agreed.version, agreed.cipher,
		 agreed.verified ? agreed.verification : "not verified",
		 agreed.resumed ? ", resumed" : "");
	return value_text(text);
}

static json_t *connections_of(const struct scheduler *s, const struct domain *d)
{
	json_t *rows = value_array();
	unsigned shown = 0;

	for (const struct connection *c = d->connections; c != NULL && shown < CONNECTIONS_SHOWN;
	     c = c->next) {
		json_t *row = value_object();

		value_set(row, "address", address_of(&c->address));
		value_set_text(row, "host", c->host_name);
		value_set_text(row, "state", command_connection_text(c));
		value_set_real(row, "for_s", (double)(agent_now_ms(&s->base) - c->since_ms) / 1000);
		value_set_number(row, "delivered", c->delivered);
		value_set(row, "tls", tls_of(c));
		value_append(rows, row);
		shown++;
	}
	return rows;
}

static json_t *counters_of(const struct domain *d)
{
	json_t *v = value_object();

	value_set_number(v, "received", d->received);
	value_set_number(v, "delivered", d->delivered);
	value_set_number(v, "failed", d->failed);
	value_set_number(v, "transient_failures", d->transient);
	value_set_number(v, "sent_bytes", d->bytes_sent);
	value_set_number(v, "connections_opened", d->connections_opened);
	value_set_number(v, "most_connections", d->connections_max);
	return v;
}

static json_t *options_of(const struct domain_options *opt)
{
	json_t *v = value_object();

	value_set_number(v, "max_deliveries_per_connection", opt->max_deliveries_per_connection);
	value_set_number(v, "max_recipients_per_batch", opt->max_recipients_per_batch);
	value_set_number(v, "retry_interval_ms", opt->retry_interval_ms);
	value_set_number(v, "max_retry_interval_ms", opt->max_retry_interval_ms);
	value_set_number(v, "message_expiration_ms", opt->message_expiration_ms);
	value_set_number(v, "host_failure_retry_ms", opt->host_failure_retry_ms);
	return v;
}

json_t *command_describe_domain(struct scheduler *s, const struct domain *d)
{
	json_t *v = value_object();
	struct why w;

	why_find(&w, s, d);
	value_set_text(v, "domain", d->name);
	value_set_text(v, "binding", d->binding);
	value_set_text(v, "binding_group", binding_group_name(d->binding_record));
	set_hold(v, &w);
	if (dispatch_trouble(d) != NULL) {
		value_set_text(v, "last_trouble", dispatch_trouble(d));
	}
	value_set_text(v, "site", d->lane != NULL ? d->lane->site->key : "not known yet");
	value_set_text(v, "home", s->base.name);
	value_set(v, "queue", queue_of(s, d));
	value_set(v, "limits", limits_of(&w));
	value_set(v, "next_hops", command_hosts(s, d->lane));
	value_set(v, "connections", connections_of(s, d));
	value_set(v, "answers", command_answers(d->lane != NULL ? d->lane->site : NULL));
	value_set(v, "counters", counters_of(d));
	value_set(v, "options", options_of(d->options));
	return v;
}
