/*
 * The words of "why is it not moving?".
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/queue/throttle.h"
#include "listeners/control/why.h"

/* ---- numbers ---- */

/* A piece of text that grows at its end, and is cut where there is no more room. */
struct words {
	char *text;
	size_t size;
	size_t used;
};

static void say(struct words *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct words *w, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(w->text + w->used, w->size - w->used, format, args);
	va_end(args);
	w->used += len > 0 ? (size_t)len : 0;
	w->used = w->used < w->size ? w->used : w->size - 1;
}

static struct words begin(char *text, size_t size)
{
	text[0] = '\0';
	return (struct words){.text = text, .size = size};
}

/* "12 031" */
static void say_count(struct words *w, uint64_t n)
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);

	for (int i = 0; i < len; i++) {
		say(w, "%s%c", i != 0 && (len - i) % 3 == 0 ? " " : "", digits[i]);
	}
}

static void say_messages(struct words *w, uint64_t n)
{
	say_count(w, n);
	say(w, " message%s", n == 1 ? "" : "s");
}

/* "86 s", "34 min", "5 h 10 min", "3 d 4 h" */
static void say_duration(struct words *w, double seconds)
{
	uint64_t s = seconds < 9e15 ? (uint64_t)(seconds + 0.5) : UINT64_C(9000000000000000);

	if (seconds < 1) {
		say(w, "%.0f ms", seconds * 1000);
	} else if (seconds < 10) {
		say(w, "%.1f s", seconds);
	} else if (s < 120) {
		say(w, "%llu s", (unsigned long long)s);
	} else if (s < 7200) {
		say(w, "%llu min", (unsigned long long)((s + 30) / 60));
	} else if (s < 172800) {
		say(w, "%llu h %llu min", (unsigned long long)(s / 3600),
		    (unsigned long long)(s / 60 % 60));
	} else {
		say(w, "%llu d %llu h", (unsigned long long)(s / 86400),
		    (unsigned long long)(s / 3600 % 24));
	}
}

static void say_rate(struct words *w, double per_s)
{
	if (per_s >= 0.1) {
		say(w, "%.*f/s", per_s >= 10 ? 0 : 1, per_s);
	} else {
		say(w, "%.1f/h", per_s * 3600);
	}
}

static void say_moment(struct words *w, uint64_t wall_ms)
{
	json_t *v = value_object();

	value_set_time(v, "at", wall_ms);
	say(w, "%s", json_string_value(json_object_get(v, "at")));
	json_decref(v);
}

/* ---- obstacles ---- */

/* `max_outbound_connections = 2 (/etc/flywheel.conf:31)` */
static void say_option(struct words *words, const struct why *w, const struct obstacle *o)
{
	struct why_option option;
	char at[WHY_TEXT];

	why_option(w, o, &option);
	if (option.name != NULL) {
		say(words, "%s = %s (%s)", option.name, option.value,
		    why_set_at(&option, at, sizeof(at)));
	}
}

/* "; tried again in 29 s (host_failure_retry = 60s, default)" */
static void say_again(struct words *words, const struct why *w, const struct obstacle *o,
		      const char *what)
{
	uint64_t next_ms = why_next_ms(w, o);

	if (next_ms != 0) {
		say(words, "; %s in ", what);
		say_duration(words, (double)next_ms / 1000);
	}
	say(words, "; ");
	say_option(words, w, o);
}

static void say_order(struct words *words, const struct suspension *order, const char *whom,
		      const char *name)
{
	say(words, "an operator suspended it");
	if (order != NULL) {
		say(words, ", %s, at ", order->by);
		say_moment(words, order->since_ms);
	}
	if (suspension_end_ms(order) != 0) {
		say(words, ", until ");
		say_moment(words, order->until_ms);
	}
	say(words, "; \"resume %s %s\" ends it", whom, name);
}

static void say_suspension(struct words *words, const struct why *w, const struct obstacle *o)
{
	const struct domain *d = w->domain;

	if (d->options->suspend_delivery && d->suspension == NULL) {
		say_option(words, w, o);
		say(words, " suspends it; \"resume domain %s\" ends it", d->name);
	} else {
		say_order(words, d->suspension, "domain", d->name);
	}
}

static void say_connections(struct words *words, const struct why *w, const struct obstacle *o)
{
	say_option(words, w, o);
	say(words, ", ");
	if (o->in_use == o->limit && o->limit == 2) {
		say(words, "both in use");
	} else if (o->in_use == o->limit && o->limit > 2) {
		say(words, "all in use");
	} else {
		say_count(words, o->in_use);
		say(words, " in use");
	}
	if (o->scope == OBSTACLE_OF_PROGRAM) {
		say(words, ", to all domains");
	} else if (o->scope == OBSTACLE_OF_SITE && w->domain->lane->site->domain_count > 1) {
		say(words, ", to its site \"%s\" of %u domains", w->domain->lane->site->key,
		    w->domain->lane->site->domain_count);
	}
}

static void say_throttle(struct words *words, const struct why *w, const struct obstacle *o)
{
	uint64_t next_ms = why_next_ms(w, o);

	say_option(words, w, o);
	if (next_ms != 0) {
		say(words, ", next slot in ");
		say_duration(words, (double)next_ms / 1000);
	}
}

static void say_memory(struct words *words, const struct why *w, const struct obstacle *o)
{
	say_option(words, w, o);
	say(words, ": messages of %llu bytes were read back and are not yet delivered",
	    (unsigned long long)o->in_use);
}

static void say_move(struct words *words, const struct domain *d)
{
	static const char *const stages[] = {
		[DOMAIN_AT_HOME] = "is at home",
		[DOMAIN_LEAVING] = "goes to the scheduler of its site when nothing of it is on a "
				   "connection or at the spool",
		[DOMAIN_ASKING] = "waits for its first home to let it go",
		[DOMAIN_RELEASED] = "goes back to its first home when nothing of it is on a "
				    "connection or at the spool",
		[DOMAIN_EXPECTED] = "is on its way back from another scheduler",
	};

	say(words, "the record %s", stages[d->travel]);
}

static void say_retry(struct words *words, const struct why *w, const struct obstacle *o)
{
	const struct delivery *first = domain_peek_delayed(w->domain);

	say_messages(words, o->in_use);
	say(words, " wait%s for the next try", o->in_use == 1 ? "s" : "");
	say_again(words, w, o, "the first is due");
	say(words, ", attempts so far: %u", first->attempts);
	if (first->last_text != NULL) {
		say(words, "; last answer: %s", first->last_text);
	}
}

/* The order that ends it. */
static void say_release(struct words *words, const struct domain *d)
{
	say(words, "release domain %s", d->name);
	if (strcmp(d->binding, BINDING_DEFAULT) != 0) {
		say(words, " binding %s", d->binding);
	}
}

static void say_held_mail(struct words *words, const struct why *w, const struct obstacle *o)
{
	say_messages(words, o->in_use);
	say(words, " %s held by an operator; \"", o->in_use == 1 ? "is" : "are");
	say_release(words, w->domain);
	say(words, "\" ends it");
}

static const char *trouble_of(const struct domain *d)
{
	const char *trouble = dispatch_trouble(d);

	return trouble != NULL ? trouble : "no reason known";
}

/* Why no next hop may be tried. */
static void say_hosts(struct words *words, const struct why *w, const struct obstacle *o)
{
	const char *trouble = trouble_of(w->domain);

	switch (o->why) {
	case DOMAIN_TLS_POLICY:
		say(words, "TLS as it is demanded cannot be had: %s", trouble);
		break;
	case DOMAIN_PEER_LIMIT:
		say(words, "every next hop refuses further connections, %u go%s on, last: %s",
		    w->domain->lane->connection_count,
		    w->domain->lane->connection_count == 1 ? "es" : "", trouble);
		break;
	case DOMAIN_BIND_ADDRESS:
		say(words, "%s", trouble);
		break;
	default:
		say(words, "every next hop failed and is left alone, last: %s", trouble);
		break;
	}
	say_again(words, w, o, "tried again");
}

static void say_name_service(struct words *words, const struct why *w, const struct obstacle *o)
{
	const struct domain *d = w->domain;
	uint64_t now_ms = agent_now_ms(&w->scheduler->base);

	if (o->why == DOMAIN_RESOLVING) {
		say(words, "waiting for the name service to answer");
		if (d->resolving && now_ms > d->resolving_since_ms) {
			say(words, ", since ");
			say_duration(words, (double)(now_ms - d->resolving_since_ms) / 1000);
		}
		return;
	}
	if (o->why == DOMAIN_NO_ROUTE) {
		say(words, "mail fails for good: %s; asked again in ", trouble_of(d));
		say_duration(words, (double)why_next_ms(w, o) / 1000);
		return;
	}
	say(words, "looking up the next hops failed: %s", trouble_of(d));
	say_again(words, w, o, "asked again");
}

/* What mail waits for without being held back. */
static void say_waiting(struct words *words, const struct why *w, const struct obstacle *o)
{
	if (o->why == DOMAIN_RETRY) {
		say_retry(words, w, o);
		return;
	}
	say_count(words, o->in_use);
	say(words, " %s%s %s",
	    o->why == DOMAIN_OPENING        ? "connection"
	    : o->why == DOMAIN_READING_BACK ? "message"
					    : "attempt",
	    o->in_use == 1 ? " is" : "s are",
	    o->why == DOMAIN_OPENING        ? "being opened"
	    : o->why == DOMAIN_READING_BACK ? "being read back from the spool"
					    : "over, and the spool writes down what came of it");
}

void why_clause(const struct why *w, const struct obstacle *o, char *text, size_t size)
{
	struct words words = begin(text, size);

	switch (o->why) {
	case DOMAIN_SUSPENDED:
		say_suspension(&words, w, o);
		break;
	case DOMAIN_BINDING_SUSPENDED:
		say_order(&words, w->domain->binding_record->suspension, "binding",
			  w->domain->binding);
		break;
	case DOMAIN_RESOLVING:
	case DOMAIN_UNRESOLVED:
	case DOMAIN_DNS_BOGUS:
	case DOMAIN_DNS_TIMEOUT:
	case DOMAIN_NO_ROUTE:
		say_name_service(&words, w, o);
		break;
	case DOMAIN_TLS_POLICY:
	case DOMAIN_HOSTS_DOWN:
	case DOMAIN_PEER_LIMIT:
	case DOMAIN_BIND_ADDRESS:
		say_hosts(&words, w, o);
		break;
	case DOMAIN_CONNECTIONS:
	case DOMAIN_SERVER_CONNECTIONS:
		say_connections(&words, w, o);
		break;
	case DOMAIN_THROTTLE_MESSAGES:
	case DOMAIN_THROTTLE_CONNECTIONS:
		say_throttle(&words, w, o);
		break;
	case DOMAIN_MEMORY:
		say_memory(&words, w, o);
		break;
	case DOMAIN_MOVING:
		say_move(&words, w->domain);
		break;
	case DOMAIN_STOPPING:
		say(&words, "the program stops: no new connection is opened any more");
		break;
	case DOMAIN_RETRY:
	case DOMAIN_OPENING:
	case DOMAIN_READING_BACK:
	case DOMAIN_SETTLING:
		say_waiting(&words, w, o);
		break;
	case DOMAIN_HELD_MAIL:
		say_held_mail(&words, w, o);
		break;
	case DOMAIN_FREE:
	case DOMAIN_HOLDS:
		break;
	}
}

/* ---- what changes it ---- */

static void say_scope(struct words *words, const struct why *w, const struct obstacle *o)
{
	const struct domain *d = w->domain;
	const struct site *s = o->scope == OBSTACLE_OF_SITE ? d->lane->site : NULL;
	const char *provider = s != NULL ? site_key_after(s->key, SITE_OF_PROVIDER) : NULL;

	if (o->scope == OBSTACLE_OF_PROGRAM) {
		say(words, " in the global scope");
	} else if (s == NULL || site_key_after(s->key, SITE_OF_DOMAIN) != NULL) {
		say(words, " in domain \"%s\"", d->name);
	} else if (provider != NULL) {
		say(words, " in provider \"%s\"", provider);
	} else if (strcmp(d->binding, BINDING_DEFAULT) != 0) {
		say(words, " in binding \"%s\"", d->binding);
	} else {
		say(words, " in the global scope, or mx_rollup = false in domain \"%s\"", d->name);
	}
}

void why_change(const struct why *w, const struct obstacle *o, char *text, size_t size)
{
	struct words words = begin(text, size);
	struct why_option option;
	const char *name = w->domain->name;

	switch (o->why) {
	case DOMAIN_SUSPENDED:
		say(&words, "resume domain %s", name);
		break;
	case DOMAIN_BINDING_SUSPENDED:
		say(&words, "resume binding %s", w->domain->binding);
		break;
	case DOMAIN_HELD_MAIL:
		say_release(&words, w->domain);
		break;
	case DOMAIN_RETRY:
	case DOMAIN_UNRESOLVED:
	case DOMAIN_DNS_BOGUS:
	case DOMAIN_DNS_TIMEOUT:
	case DOMAIN_HOSTS_DOWN:
	case DOMAIN_PEER_LIMIT:
	case DOMAIN_TLS_POLICY:
		say(&words, "flush domain %s tries it now; ", name);
		break;
	default:
		break;
	}
	why_option(w, o, &option);
	if (option.name != NULL && o->why != DOMAIN_SUSPENDED) {
		say(&words, "%s", option.name);
		say_scope(&words, w, o);
	}
}

/* ---- the sentence ---- */

void why_assumption(const struct why *w, char *text, size_t size)
{
	struct words words = begin(text, size);

	switch (w->drain.basis) {
	case DRAIN_EMPTY:
		say(&words, "nothing waits in the active queue");
		break;
	case DRAIN_HELD:
		say(&words, "not before that ends");
		break;
	case DRAIN_UNKNOWN:
		say(&words, "nothing was sent in the last minute that it could be told from");
		break;
	case DRAIN_AT_LIMIT:
		say(&words, "at the limit of %llu/%llu, if nobody else uses it",
		    (unsigned long long)w->drain.throttle->count,
		    (unsigned long long)w->drain.throttle->period_s);
		break;
	case DRAIN_AT_RATE:
		say(&words, "at the rate of the last minute, ");
		say_rate(&words, w->drain.per_s);
		break;
	}
}

static void say_drain(struct words *words, const struct why *w)
{
	if (w->drain.basis == DRAIN_AT_RATE) {
		say(words, "; ");
		say_rate(words, w->drain.per_s);
		say(words, ", drained in ");
		say_duration(words, w->drain.in_s);
		say(words, " if nothing changes");
	} else if (w->drain.basis == DRAIN_AT_LIMIT) {
		say(words, "; drained in ");
		say_duration(words, w->drain.in_s);
		say(words, " at the limit of %llu/%llu",
		    (unsigned long long)w->drain.throttle->count,
		    (unsigned long long)w->drain.throttle->period_s);
	}
}

/* Nothing holds it, and nothing is to be waited for. */
static void say_free(struct words *words, const struct domain *d)
{
	if (d->active_count == 0 && d->attempt_count == 0) {
		say(words, "nothing waits");
		return;
	}
	say(words, "nothing holds it: ");
	say_messages(words, d->active_count);
	say(words, " wait%s, ", d->active_count == 1 ? "s" : "");
	say_count(words, d->attempt_count);
	say(words, " on %u connection%s", d->connection_count, d->connection_count == 1 ? "" : "s");
}

static void say_other_reasons(struct words *words, const struct why *w)
{
	unsigned others = 0;

	for (unsigned i = 1; i < w->count; i++) {
		others += domain_hold_is_hold(w->items[i].why);
	}
	for (unsigned i = 1; i < w->count && others != 0; i++) {
		if (domain_hold_is_hold(w->items[i].why)) {
			say(words, "%s%s", i == 1 ? "; so would " : ", ",
			    domain_hold_text(w->items[i].why));
		}
	}
}

void why_headline(const struct why *w, char *text, size_t size)
{
	struct words words = begin(text, size);
	const struct domain *d = w->domain;
	enum domain_hold why = why_first(w);
	char clause[WHY_TEXT];

	say(&words, "%s", d->name);
	if (strcmp(d->binding, BINDING_DEFAULT) != 0) {
		say(&words, " by %s", d->binding);
	}
	say(&words, ": ");
	if (why == DOMAIN_FREE) {
		say_free(&words, d);
		say_drain(&words, w);
		return;
	}
	if (d->active_count != 0) {
		bool limit = why == DOMAIN_CONNECTIONS || why == DOMAIN_SERVER_CONNECTIONS ||
			     why == DOMAIN_THROTTLE_MESSAGES ||
			     why == DOMAIN_THROTTLE_CONNECTIONS || why == DOMAIN_MEMORY;

		say_messages(&words, d->active_count);
		say(&words, " wait%s%s ", d->active_count == 1 ? "s" : "", limit ? " for" : ":");
	}
	why_clause(w, &w->items[0], clause, sizeof(clause));
	say(&words, "%s", clause);
	say_other_reasons(&words, w);
	say_drain(&words, w);
}
