/*
 * Commands about one domain, by one binding or all. `domain NAME` is what an operator looks at when
 * mail does not move: it says first what holds the queue, by which limit or failure, and until
 * when.
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

/* Connections that `domain` lists. */
#define CONNECTIONS_SHOWN 50

/* ---- a record, on its home scheduler ---- */

/* A moment of the monotonic clock, ms, on the wall clock; 0 for none and for what has passed. */
static uint64_t wall_of(const struct agent *self, uint64_t mono_ms)
{
	uint64_t now_ms = agent_now_ms(self);

	return mono_ms > now_ms ? agent_wall_ms(self) + mono_ms - now_ms : 0;
}

static bool at_a_limit(enum domain_hold hold)
{
	return hold == DOMAIN_CONNECTIONS || hold == DOMAIN_SERVER_CONNECTIONS ||
	       hold == DOMAIN_MEMORY;
}

static bool is_suspended(const struct domain *d)
{
	return d->suspended || d->binding_record->order == BINDING_SUSPENDED;
}

static enum domain_hold hold_of(const struct domain *d)
{
	const char *scope;
	uint64_t until_ms;

	return d->suspended      ? DOMAIN_SUSPENDED
	       : is_suspended(d) ? DOMAIN_BINDING_SUSPENDED
				 : dispatch_held(d, &until_ms, &scope);
}

/* Does a hold still keep something back? */
static bool is_held(const struct domain *d)
{
	return is_suspended(d) || (d->active_count != 0 && hold_of(d) != DOMAIN_FREE);
}

const char *command_held_by(const struct domain *d)
{
	if (!is_held(d)) {
		return "";
	}
	return domain_hold_text(hold_of(d));
}

static const char *state_of(const struct domain *d)
{
	if (is_suspended(d)) {
		return "suspended";
	}
	if (is_held(d)) {
		return at_a_limit(hold_of(d)) && d->attempt_count != 0 ? "sending at its limit"
								       : "held";
	}
	if (d->active_count != 0 || d->attempt_count != 0) {
		return "sending";
	}
	return d->delayed_count != 0 ? "waiting for its next due time" : "idle";
}

static void explain_throttle(const char *name, const struct throttle *t, char *text, size_t size)
{
	if (t == NULL) {
		snprintf(text, size, "%s", name);
		return;
	}
	snprintf(text, size, "%s = %llu/%llu, set by %s", name, (unsigned long long)t->count,
		 (unsigned long long)t->period_s, t->scope);
}

/* One sentence: what stands in the way, with its numbers, and what ends it. */
static void explain(const struct scheduler *s, const struct domain *d, char *text, size_t size)
{
	const char *trouble = dispatch_trouble(d);
	const struct domain_options *limits;
	const struct site *site;
	const char *scope;
	uint64_t until_ms;

	dispatch_held(d, &until_ms, &scope);
	site = strcmp(scope, "site") == 0 ? d->lane->site : NULL;
	limits = site != NULL ? site->options : d->options;
	trouble = trouble != NULL ? trouble : "no reason known";
	switch (hold_of(d)) {
	case DOMAIN_FREE:
		text[0] = '\0';
		break;
	case DOMAIN_SUSPENDED:
		snprintf(text, size, "%s; \"resume domain %s\" ends it",
			 d->options->suspend_delivery
				 ? "suspend_delivery is set in the configuration"
				 : "an operator suspended it",
			 d->name);
		break;
	case DOMAIN_RESOLVING:
		snprintf(text, size, "waiting for the name service to answer");
		break;
	case DOMAIN_UNRESOLVED:
	case DOMAIN_DNS_BOGUS:
	case DOMAIN_DNS_TIMEOUT:
		snprintf(text, size, "looking up the next hops failed: %s", trouble);
		break;
	case DOMAIN_NO_ROUTE:
		snprintf(text, size, "mail fails for good: %s", trouble);
		break;
	case DOMAIN_BINDING_SUSPENDED:
		snprintf(text, size, "an operator suspended it; \"resume binding %s\" ends it",
			 d->binding);
		break;
	case DOMAIN_BIND_ADDRESS:
		snprintf(text, size, "%s", trouble);
		break;
	case DOMAIN_HOSTS_DOWN:
		snprintf(text, size, "every next hop failed and is left alone, last: %s", trouble);
		break;
	case DOMAIN_CONNECTIONS:
		snprintf(text, size, "%u of max_outbound_connections = %u are open%s",
			 site != NULL ? site->connection_count : d->connection_count,
			 limits->max_outbound_connections,
			 site != NULL && site->domain_count > 1 ? ", to its site" : "");
		break;
	case DOMAIN_SERVER_CONNECTIONS:
		snprintf(
			text, size,
			"%u of server_max_outbound_connections = %u are open, to all domains",
			atomic_load_explicit(&s->program->limits.connections, memory_order_relaxed),
			s->program->limits.connections_max);
		break;
	case DOMAIN_THROTTLE_MESSAGES:
		explain_throttle("outbound_throttle_messages", limits->throttle_messages, text,
				 size);
		break;
	case DOMAIN_THROTTLE_CONNECTIONS:
		explain_throttle("outbound_throttle_connections", limits->throttle_connections,
				 text, size);
		break;
	case DOMAIN_MEMORY:
		snprintf(text, size,
			 "messages of %llu bytes were read back and are not yet delivered, "
			 "memory_budget = %llu",
			 (unsigned long long)atomic_load_explicit(&s->program->limits.loaded_bytes,
								  memory_order_relaxed),
			 (unsigned long long)s->program->limits.loaded_max);
		break;
	case DOMAIN_MOVING:
		snprintf(text, size, "the record goes to another scheduler, where its site is");
		break;
	case DOMAIN_STOPPING:
		snprintf(text, size, "no new connection is opened any more");
		break;
	}
}

static void set_hold(json_t *v, struct scheduler *s, const struct domain *d)
{
	bool held = is_held(d);
	uint64_t now_ms = agent_now_ms(&s->base);
	const char *scope;
	uint64_t until_ms;
	char text[512] = "";

	value_set_text(v, "state", state_of(d));
	if (!held) {
		return;
	}
	dispatch_held(d, &until_ms, &scope);
	until_ms = is_suspended(d) ? 0 : until_ms;
	explain(s, d, text, sizeof(text));
	value_set_text(v, "held_by", command_held_by(d));
	value_set_text(v, "reason", text);
	if (until_ms > now_ms) {
		value_set_time(v, "held_until_at", wall_of(&s->base, until_ms));
		value_set_real(v, "time_left_s", (double)(until_ms - now_ms) / 1000);
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
			       d->active_head->message->received_ms);
	}
	return v;
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

static void throttle_row(json_t *rows, const struct agent *self, const char *limit,
			 const struct throttle *t, bool holds)
{
	json_t *row = value_object();
	char text[64];

	value_set_text(row, "limit", limit);
	if (t == NULL) {
		value_set_text(row, "value", "none");
	} else {
		snprintf(text, sizeof(text), "%llu/%llu", (unsigned long long)t->count,
			 (unsigned long long)t->period_s);
		value_set_text(row, "value", text);
		value_set_bool(row, "holds_now", holds);
		value_set_text(row, "set_by", t->scope);
		value_set_number(row, "next_in_ms",
				 throttle_wait_ns(t, self->now.mono_ns) / NS_PER_MS);
		value_set_number(row, "times_held",
				 atomic_load_explicit(&t->held, memory_order_relaxed));
	}
	value_append(rows, row);
}

static json_t *limits_of(const struct scheduler *s, const struct domain *d)
{
	const struct domain_options *opt = d->options;
	const struct outbound_limits *all = &s->program->limits;
	const struct site *site = d->lane != NULL ? d->lane->site : NULL;
	bool held = is_held(d) && !is_suspended(d);
	enum domain_hold hold = hold_of(d);
	json_t *rows = value_array();

	limit_row(rows, "max_outbound_connections", d->connection_count,
		  opt->max_outbound_connections, held && hold == DOMAIN_CONNECTIONS);
	limit_row(rows, "server_max_outbound_connections",
		  atomic_load_explicit(&all->connections, memory_order_relaxed),
		  all->connections_max, held && hold == DOMAIN_SERVER_CONNECTIONS);
	throttle_row(rows, &s->base, "outbound_throttle_messages", opt->throttle_messages,
		     held && hold == DOMAIN_THROTTLE_MESSAGES);
	throttle_row(rows, &s->base, "outbound_throttle_connections", opt->throttle_connections,
		     held && hold == DOMAIN_THROTTLE_CONNECTIONS);
	limit_row(rows, "memory_budget",
		  atomic_load_explicit(&all->loaded_bytes, memory_order_relaxed), all->loaded_max,
		  held && hold == DOMAIN_MEMORY);
	if (site != NULL) {
		limit_row(rows, "max_outbound_connections of the site", site->connection_count,
			  site->options->max_outbound_connections,
			  held && hold == DOMAIN_CONNECTIONS);
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
		value_set(row, "plain_for_s",
			  h->plain_until_ms > now_ms
				  ? json_real((double)(h->plain_until_ms - now_ms) / 1000)
				  : json_null());
		value_set(row, "tls_policy", policy_of(h));
		value_append(rows, row);
	}
	return rows;
}

static const char *connection_text(enum connection_state state)
{
	switch (state) {
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
		value_set_text(row, "state", connection_text(c->state));
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

static json_t *describe(struct scheduler *s, const struct domain *d)
{
	json_t *v = value_object();

	value_set_text(v, "domain", d->name);
	value_set_text(v, "binding", d->binding);
	value_set_text(v, "binding_group", binding_group_name(d->binding_record));
	set_hold(v, s, d);
	if (dispatch_trouble(d) != NULL) {
		value_set_text(v, "last_trouble", dispatch_trouble(d));
	}
	value_set_text(v, "site", d->lane != NULL ? d->lane->site->key : "not known yet");
	value_set_text(v, "home", s->base.name);
	value_set(v, "queue", queue_of(s, d));
	value_set(v, "limits", limits_of(s, d));
	value_set(v, "next_hops", command_hosts(s, d->lane));
	value_set(v, "connections", connections_of(s, d));
	value_set(v, "counters", counters_of(d));
	value_set(v, "options", options_of(d->options));
	return v;
}

/* ---- commands ---- */

/* Argument `index` is a binding's name, or not there: then all are meant. */
static void take_binding(struct order *o, unsigned index)
{
	o->binding = index < o->argument_count ? o->arguments[index] : NULL;
}

typedef void (*record_fn)(struct part *p, struct scheduler *s, struct domain *d);

enum { RECORDS, MESSAGES, ACTIVE, DELAYED };

static void at_record(struct part *p, struct scheduler *s, struct domain *d, record_fn each)
{
	p->totals[RECORDS]++;
	each(p, s, d);
}

/* A record of the domain, by the binding, has its first home on this scheduler. True when `each`
 * has seen it, or there is none; else the step has to run elsewhere, or later: it is away, or on
 * its way back. `make`: there is one now, of a binding that is configured. */
static bool first_home_record(struct part *p, struct scheduler *s, const struct binding_record *b,
			      bool make, record_fn each)
{
	const char *domain = p->order->arguments[0];
	const struct dispatcher *away = dispatch_away(&s->dispatcher, b->name, domain);
	struct domain *d;

	if (away != NULL) {
		p->away_by = b->name;
		p->pass_to = away->self;
		return false;
	}
	d = domain_find(&s->dispatcher.domains, b->name, domain);
	if (d == NULL && make && b->configured) {
		d = dispatch_find(&s->dispatcher, b->name, domain);
	}
	if (d != NULL && d->travel == DOMAIN_EXPECTED) {
		return false;
	}
	if (d != NULL) {
		at_record(p, s, d, each);
	}
	return true;
}

/*
 * Every scheduler's step looks after the records of the domain that have their first home there,
 * one for each binding, so that each is seen once: of one that is away where it is, and comes back
 * for the next. True when all have been seen.
 */
static bool each_record(struct part *p, struct agent *self, bool make, record_fn each)
{
	struct scheduler *s = order_scheduler_of(self);
	const struct order *o = p->order;

	if (p->away_by != NULL) {
		at_record(p, s, domain_find(&s->dispatcher.domains, p->away_by, o->arguments[0]),
			  each);
		p->away_by = NULL;
		p->pass_to = p->agent;
		p->bucket++;
		return false;
	}
	for (; p->bucket < s->dispatcher.bindings.count; p->bucket++) {
		const struct binding_record *b = s->dispatcher.bindings.records[p->bucket];

		if ((o->binding == NULL || strcmp(o->binding, b->name) == 0) &&
		    home_of(s->program, b->name, o->arguments[0]) == s->index &&
		    !first_home_record(p, s, b, make, each)) {
			return false;
		}
	}
	return true;
}

/* True when there is a record; else the order is answered. */
static bool found_some(struct order *o)
{
	if (order_total(o, RECORDS) != 0) {
		return true;
	}
	order_fail(o,
		   "no record of domain \"%s\"%s%s%s: nothing has been queued for it since the "
		   "start; \"domains\" lists what there is",
		   o->arguments[0], o->binding != NULL ? " by binding \"" : "",
		   o->binding != NULL ? o->binding : "", o->binding != NULL ? "\"" : "");
	return false;
}

static void ask(struct order *o, order_step_fn step, order_merge_fn merge)
{
	if (command_domain(o, 0)) {
		order_on_schedulers(o, step, merge);
	}
}

static void show_one(struct part *p, struct scheduler *s, struct domain *d)
{
	if (p->json == NULL) {
		p->json = value_array();
	}
	value_append(p->json, describe(s, d));
}

static bool show_step(struct part *p, struct agent *self)
{
	return each_record(p, self, false, show_one);
}

/* One record by itself; several in a list. */
static void merge_show(struct order *o)
{
	json_t *rows = value_array();
	json_t *v;

	for (uint32_t i = 0; i < o->part_count; i++) {
		if (o->parts[i].json != NULL) {
			json_array_extend(rows, o->parts[i].json);
		}
	}
	if (!found_some(o)) {
		json_decref(rows);
		return;
	}
	if (json_array_size(rows) == 1) {
		order_answer(o, json_incref(json_array_get(rows, 0)));
		json_decref(rows);
		return;
	}
	v = value_object();
	value_set_text(v, "domain", o->arguments[0]);
	value_set(v, "bindings", rows);
	order_answer(o, v);
}

void command_domain_show(struct order *o)
{
	if (strcasecmp(o->arguments[0], "all") == 0) {
		command_domains(o);
	} else {
		take_binding(o, 1);
		ask(o, show_step, merge_show);
	}
}

static void flush_one(struct part *p, struct scheduler *s, struct domain *d)
{
	p->totals[MESSAGES] += d->delayed_count;
	dispatch_flush(&s->dispatcher, d);
}

static bool flush_step(struct part *p, struct agent *self)
{
	return each_record(p, self, false, flush_one);
}

static void answer_messages(struct order *o, const char *key)
{
	json_t *v;

	if (found_some(o)) {
		v = value_object();
		value_set_text(v, "domain", o->arguments[0]);
		value_set_number(v, key, order_total(o, MESSAGES));
		order_answer(o, v);
	}
}

static void merge_flush(struct order *o)
{
	answer_messages(o, "messages_flushed");
}

void command_domain_flush(struct order *o)
{
	if (strcasecmp(o->arguments[0], "all") == 0 && o->argument_count == 1) {
		command_flush_all(o);
	} else {
		take_binding(o, 1);
		ask(o, flush_step, merge_flush);
	}
}

static void fail_one(struct part *p, struct scheduler *s, struct domain *d)
{
	p->totals[MESSAGES] += dispatch_fail(&s->dispatcher, d, p->order->flag);
}

static bool fail_step(struct part *p, struct agent *self)
{
	return each_record(p, self, false, fail_one);
}

static void merge_fail(struct order *o)
{
	answer_messages(o, "messages_failed");
}

void command_domain_fail(struct order *o)
{
	/* `quiet` is the last word, whether there is a binding before it or not. */
	bool quiet = o->argument_count > 1 &&
		     strcasecmp(o->arguments[o->argument_count - 1], "quiet") == 0;

	if (command_fail_selects(o)) {
		return;
	}
	if (o->argument_count > 3) {
		command_fail_usage(o);
		return;
	}
	if (o->argument_count == 3 && !command_flag(o, 2, "quiet")) {
		return;
	}
	o->flag = quiet;
	o->argument_count -= quiet;
	take_binding(o, 1);
	ask(o, fail_step, merge_fail);
}

/* o->flag: suspend, or resume. */
static void suspend_one(struct part *p, struct scheduler *s, struct domain *d)
{
	dispatch_suspend(&s->dispatcher, d, p->order->flag);
	p->totals[ACTIVE] += d->active_count;
	p->totals[DELAYED] += d->delayed_count;
	p->json = p->json != NULL ? p->json : value_text(state_of(d));
}

/* A domain may be suspended before it has mail. */
static bool suspend_step(struct part *p, struct agent *self)
{
	return each_record(p, self, p->order->flag, suspend_one);
}

static void merge_suspend(struct order *o)
{
	json_t *v;

	if (!found_some(o)) {
		return;
	}
	v = value_object();
	value_set_text(v, "domain", o->arguments[0]);
	for (uint32_t i = 0; i < o->part_count; i++) {
		if (o->parts[i].json != NULL) {
			json_object_set(v, "state", o->parts[i].json);
		}
	}
	value_set_number(v, "active", order_total(o, ACTIVE));
	value_set_number(v, "delayed", order_total(o, DELAYED));
	order_answer(o, v);
}

void command_domain_suspend(struct order *o)
{
	o->flag = true;
	take_binding(o, 1);
	ask(o, suspend_step, merge_suspend);
}

void command_domain_resume(struct order *o)
{
	take_binding(o, 1);
	ask(o, suspend_step, merge_suspend);
}
