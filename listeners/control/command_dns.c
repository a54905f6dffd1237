/*
 * Commands about the name service: what it says, and what the resolver remembers of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/resolver.h"
#include "core/runtime/check.h"
#include "listeners/control/command.h"

#define RECORD_TEXT 2048

/* Arguments `index` and the next one as a name and a type; false and answered when they are none.
 */
static bool parse_question(struct order *o, unsigned index, enum dns_type *type)
{
	if (!command_domain(o, index)) {
		return false;
	}
	if (!dns_type_parse(o->arguments[index + 1], type)) {
		order_fail_usage(o,
				 "\"%.64s\" is not a type of records that is known here: A, AAAA, "
				 "MX, TXT, TLSA, PTR",
				 o->arguments[index + 1]);
		return false;
	}
	return true;
}

static bool has_resolver(struct order *o)
{
	if (o->program->resolver == NULL) {
		order_fail(o, "no resolver runs");
	}
	return o->program->resolver != NULL;
}

static json_t *records_of(const struct dns_answer *a)
{
	json_t *rows = value_array();
	char text[RECORD_TEXT];

	for (uint32_t i = 0; i < a->count; i++) {
		dns_record_format(a->type, &a->records[i], text, sizeof(text));
		value_append(rows, value_text(text));
	}
	return rows;
}

static json_t *describe(const char *name, const struct dns_answer *a, uint32_t ttl_s)
{
	json_t *v = value_object();

	value_set_text(v, "name", name);
	value_set_text(v, "type", dns_type_name(a->type));
	value_set_text(v, "status", dns_status_name(a->status));
	value_set_number(v, "rcode", a->rcode);
	value_set_bool(v, "secure", a->secure);
	if (a->why != NULL) {
		value_set_text(v, "why", a->why);
	}
	if (a->canonical != NULL) {
		value_set_text(v, "alias_of", a->canonical);
	}
	value_set_number(v, "ttl_s", a->ttl_s);
	value_set_number(v, "kept_for_s", ttl_s);
	if (a->malformed != 0) {
		value_set_number(v, "malformed_records", a->malformed);
	}
	value_set(v, "records", records_of(a));
	return v;
}

/* ---- dig ---- */

SINGLE
struct dig {
	struct dns_question question;
	struct order *order;
};

static void on_dug(struct agent *self, struct dns_question *question, struct dns_answer *answer,
		   uint32_t ttl_s)
{
	struct dig *d = CONTAINER_OF(question, struct dig, question);
	struct order *o = d->order;

	(void)self;
	free(d);
	if (order_back(o)) {
		order_answer(o, describe(o->arguments[0], answer, ttl_s));
	}
}

void command_dig(struct order *o)
{
	enum dns_type type;
	struct dig *d;

	if (!has_resolver(o) || !parse_question(o, 0, &type)) {
		return;
	}
	d = check_memory(calloc(1, sizeof(*d)), "a command");
	d->order = o;
	/* The order's words stay until it has the answer. */
	d->question =
		(struct dns_question){.name = o->arguments[0], .type = type, .on_answer = on_dug};
	order_wait(o);
	resolver_ask(o->program->resolver, &o->scheduler->base, &d->question);
}

/* ---- dns_cache ---- */

static bool stats_step(struct part *p, struct agent *self)
{
	struct resolver_stats s;

	(void)self;
	resolver_stats(p->order->program->resolver, &s);
	p->json = value_object();
	value_set_number(p->json, "answers_kept", s.kept);
	value_set_number(p->json, "cache_entries", s.kept_max);
	value_set_number(p->json, "questions", s.questions);
	value_set_number(p->json, "answered_from_cache", s.hits);
	value_set_number(p->json, "joined_others", s.merged);
	value_set_number(p->json, "evicted", s.evicted);
	value_set_number(p->json, "under_way", s.pending);
	value_set_number(p->json, "waiting", s.waiting);
	value_set_number(p->json, "flushes", s.flushes);
	return true;
}

static void merge_part(struct order *o)
{
	struct part *p = &o->parts[0];

	if (p->json == NULL) {
		order_fail(o, "the cache has no answer about %s of \"%.255s\"", o->arguments[1],
			   o->arguments[0]);
		return;
	}
	order_answer(o, p->json);
	p->json = NULL;
}

void command_dns_cache_stats(struct order *o)
{
	if (has_resolver(o)) {
		order_on_agent(o, resolver_agent(o->program->resolver), stats_step, merge_part);
	}
}

static bool lookup_step(struct part *p, struct agent *self)
{
	struct order *o = p->order;
	uint32_t ttl_s;
	const struct dns_answer *a = resolver_peek(o->program->resolver, o->arguments[0],
						   (enum dns_type)o->number, &ttl_s);

	(void)self;
	if (a != NULL) {
		p->json = describe(o->arguments[0], a, ttl_s);
	}
	return true;
}

void command_dns_cache_lookup(struct order *o)
{
	enum dns_type type;

	if (has_resolver(o) && parse_question(o, 0, &type)) {
		o->number = (uint64_t)type;
		order_on_agent(o, resolver_agent(o->program->resolver), lookup_step, merge_part);
	}
}

SINGLE
struct flush {
	struct resolver_flush flush;
	struct order *order;
};

static void on_flushed(struct agent *self, struct resolver_flush *done)
{
	struct flush *f = CONTAINER_OF(done, struct flush, flush);
	struct order *o = f->order;

	(void)self;
	if (order_back(o)) {
		if (done->result != 0) {
			order_fail(o, "nothing was forgotten: %s", done->why);
		} else {
			json_t *v = value_object();

			value_set_number(v, "answers_forgotten", done->count);
			order_answer(o, v);
		}
	}
	free(f);
}

void command_dns_cache_flush(struct order *o)
{
	struct flush *f;

	if (!has_resolver(o)) {
		return;
	}
	f = check_memory(calloc(1, sizeof(*f)), "a command");
	f->order = o;
	f->flush.on_flushed = on_flushed;
	order_wait(o);
	resolver_flush(o->program->resolver, &o->scheduler->base, &f->flush);
}
