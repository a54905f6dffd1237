#include "listeners/control/why.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "core/queue/throttle.h"

void why_find(struct why *w, struct scheduler *s, const struct domain *d)
{
	struct drain_question q = {
		.waiting = d->active_count,
		.throttles = {d->options->throttle_messages},
		.per_s = recent_per_s(&d->done, agent_now_ms(&s->base)),
		.now_ns = s->base.now.mono_ns,
	};

	w->scheduler = s;
	w->domain = d;
	w->count = obstacle_list(&s->dispatcher, d, w->items);
	q.why = why_first(w);
	if (d->lane != NULL) {
		q.throttles[1] = d->lane->site->options->throttle_messages;
	}
	w->drain = drain_estimate(&q);
}

uint64_t why_next_ms(const struct why *w, const struct obstacle *o)
{
	uint64_t now_ms = agent_now_ms(&w->scheduler->base);

	if (o->wait_ns != 0) {
		return (o->wait_ns + NS_PER_MS - 1) / NS_PER_MS;
	}
	return o->until_ms > now_ms ? o->until_ms - now_ms : 0;
}

/* ---- options ---- */

/* In the largest unit that it is a whole number of. */
static void write_time(char *text, size_t size, uint64_t ms)
{
	static const struct {
		uint64_t ms;
		const char *unit;
	} units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
	unsigned i = ms != 0 ? 0 : 3;

	while (ms % units[i].ms != 0) {
		i++;
	}
	snprintf(text, size, "%llu%s", (unsigned long long)(ms / units[i].ms), units[i].unit);
}

static void write_addresses(char *text, size_t size, const struct domain_options *options)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < options->bind_address_count && used < size; i++) {
		const struct in6_addr *a = &options->bind_addresses[i];
		bool v4 = IN6_IS_ADDR_V4MAPPED(a);
		char ip[INET6_ADDRSTRLEN] = "";

		inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a->s6_addr + 12 : a->s6_addr, ip,
			  sizeof(ip));
		used += (size_t)snprintf(text + used, size - used, "%s%s", i != 0 ? " " : "", ip);
	}
}

static void write_throttle(char *text, size_t size, const struct throttle *t)
{
	snprintf(text, size, "%llu/%llu", (unsigned long long)(t != NULL ? t->count : 0),
		 (unsigned long long)(t != NULL ? t->period_s : 1));
}

static const char *tls_word(enum domain_tls tls)
{
	static const char *const words[] = {
		[DOMAIN_TLS_NO] = "no",
		[DOMAIN_TLS_OPPORTUNISTIC] = "opportunistic",
		[DOMAIN_TLS_REQUIRED] = "required",
		[DOMAIN_TLS_VERIFY] = "verify",
		[DOMAIN_TLS_DANE] = "dane",
		[DOMAIN_TLS_DANE_OR_OPPORTUNISTIC] = "dane-or-opportunistic",
	};

	return words[tls];
}

/* Name and value. */
static void name_option(const struct domain *d, const struct obstacle *o, struct why_option *option)
{
	char *text = option->value;
	size_t size = sizeof(option->value);

	switch (o->why) {
	case DOMAIN_SUSPENDED:
		if (d->options->suspend_delivery && d->suspension == NULL) {
			option->name = "suspend_delivery";
			snprintf(text, size, "true");
		}
		break;
	case DOMAIN_UNRESOLVED:
	case DOMAIN_DNS_BOGUS:
	case DOMAIN_DNS_TIMEOUT:
	case DOMAIN_HOSTS_DOWN:
	case DOMAIN_PEER_LIMIT:
		option->name = "host_failure_retry";
		write_time(text, size, d->options->host_failure_retry_ms);
		break;
	case DOMAIN_TLS_POLICY:
		option->name = "tls";
		snprintf(text, size, "%s", tls_word(d->options->tls));
		break;
	case DOMAIN_BIND_ADDRESS:
		option->name = "bind_address";
		write_addresses(text, size, d->options);
		break;
	case DOMAIN_CONNECTIONS:
	case DOMAIN_SERVER_CONNECTIONS:
	case DOMAIN_MEMORY:
		option->name = domain_hold_key(o->why);
		snprintf(text, size, "%llu", (unsigned long long)o->limit);
		break;
	case DOMAIN_THROTTLE_MESSAGES:
	case DOMAIN_THROTTLE_CONNECTIONS:
		option->name = domain_hold_key(o->why);
		write_throttle(text, size, o->throttle);
		break;
	case DOMAIN_RETRY:
		option->name = "retry_interval";
		write_time(text, size, d->options->retry_interval_ms);
		break;
	default:
		break;
	}
}

/* Its limits are not those of one domain. */
static bool is_shared(const struct site *s)
{
	return site_key_after(s->key, SITE_OF_DOMAIN) == NULL;
}

void why_option(const struct why *w, const struct obstacle *o, struct why_option *option)
{
	const struct config *config = w->scheduler->config;
	const struct domain *d = w->domain;
	const struct binding_record *b = d->binding_record;
	const char *domain =
		o->scope == OBSTACLE_OF_SITE && is_shared(d->lane->site) ? NULL : d->name;

	*option = (struct why_option){.name = NULL};
	name_option(d, o, option);
	if (option->name == NULL) {
		return;
	}
	if (o->scope == OBSTACLE_OF_PROGRAM) {
		config_program_origin(config, NULL, option->name, &option->origin);
	} else {
		/* Mail of a binding that is no more goes by the options of the default one. */
		config_outbound_origin(config, b->configured ? b->name : BINDING_DEFAULT,
				       d->provider, domain, domain != NULL ? strlen(domain) : 0,
				       option->name, &option->origin);
	}
}

const char *why_set_at(const struct why_option *option, char *text, size_t size)
{
	if (option->origin.line == 0) {
		snprintf(text, size, "%s", option->origin.file);
	} else {
		snprintf(text, size, "%s:%u", option->origin.file, option->origin.line);
	}
	return text;
}

/* ---- rows ---- */

static const char *scope_text(const struct obstacle *o)
{
	static const char *const texts[] = {
		[OBSTACLE_OF_DOMAIN] = "domain",   [OBSTACLE_OF_LANE] = "next hops",
		[OBSTACLE_OF_SITE] = "site",       [OBSTACLE_OF_BINDING] = "binding",
		[OBSTACLE_OF_PROGRAM] = "program",
	};

	return texts[o->scope];
}

static void set_limit(json_t *row, const struct obstacle *o)
{
	if (o->throttle != NULL) {
		value_set_number(row, "limit", o->throttle->count);
		value_set_number(row, "per_period_s", o->throttle->period_s);
	} else if (o->why == DOMAIN_MEMORY) {
		value_set_number(row, "in_use_bytes", o->in_use);
		value_set_number(row, "limit_bytes", o->limit);
	} else if (o->limit != 0) {
		value_set_number(row, "in_use", o->in_use);
		value_set_number(row, "limit", o->limit);
	} else if (o->in_use != 0) {
		value_set_number(row, "count", o->in_use);
	}
}

static void set_option(json_t *row, const struct why *w, const struct obstacle *o)
{
	struct why_option option;
	char text[WHY_TEXT];

	why_option(w, o, &option);
	if (option.name != NULL) {
		value_set_text(row, "option", option.name);
		value_set_text(row, "value", option.value);
		value_set_text(row, "set_at", why_set_at(&option, text, sizeof(text)));
		value_set_text(row, "set_by", option.origin.scope);
	}
}

static json_t *row_of(const struct why *w, const struct obstacle *o)
{
	uint64_t next_ms = why_next_ms(w, o);
	json_t *row = value_object();
	char text[WHY_TEXT];

	value_set_text(row, "reason", domain_hold_key(o->why));
	value_set_text(row, "of", scope_text(o));
	value_set_bool(row, "holds", domain_hold_is_hold(o->why));
	set_limit(row, o);
	set_option(row, w, o);
	if (next_ms != 0) {
		value_set_number(row, "next_in_ms", next_ms);
		value_set_time(row, "next_at", agent_wall_ms(&w->scheduler->base) + next_ms);
	}
	why_clause(w, o, text, sizeof(text));
	value_set_text(row, "what", text);
	why_change(w, o, text, sizeof(text));
	value_set_text(row, "what_changes_it", text);
	return row;
}

json_t *why_reasons(const struct why *w)
{
	json_t *rows = value_array();

	for (unsigned i = 0; i < w->count; i++) {
		value_append(rows, row_of(w, &w->items[i]));
	}
	return rows;
}

json_t *why_drain(const struct why *w)
{
	json_t *v = value_object();
	char text[WHY_TEXT];

	if (w->drain.basis == DRAIN_AT_LIMIT || w->drain.basis == DRAIN_AT_RATE) {
		value_set_real(v, "in_s", w->drain.in_s);
		value_set_real(v, "messages_per_s", w->drain.per_s);
	}
	why_assumption(w, text, sizeof(text));
	value_set_text(v, "assumption", text);
	return v;
}
