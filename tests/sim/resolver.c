/*
 * The name service of the world. It knows the scenario's domains that have no gateway: their mail
 * exchangers change from answer to answer, some are dead, and the service fails, is silent, or says
 * that there is no such domain as often as the domain's temper says; in a calm world it does not.
 *
 * A source of answers is the program's, in its process's memory; what it said of a domain is noted
 * in the scenario, for the books.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"
#include "tests/sim/kernel_fd.h"
#include "tests/sim/kernel_wrap.h"
#include "tests/sim/net.h"
#include "tests/sim/resolver_wrap.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

#define DELAY_NS_MIN (100 * NS_PER_US)
#define DELAY_NS_MAX (80 * NS_PER_MS)
#define EXCHANGERS_MAX 3
#define RDATA_MAX 96
#define RCODE_SERVFAIL 2

/* A question under way. */
struct sim_question {
	struct resolver_source *source;
	struct source_question *asked;
	struct sim_question *next;
	/* Answered, and not fetched yet. */
	bool done;
	char name[];
};

struct resolver_source {
	int fd;
	int ids;
	struct sim_question *questions;
};

/* Rdata of an answer, while it is put together. */
struct sim_records {
	unsigned char rdata[EXCHANGERS_MAX][RDATA_MAX];
	const unsigned char *at[EXCHANGERS_MAX];
	size_t len[EXCHANGERS_MAX];
	uint32_t count;
};

/* ---- what it knows ---- */

static size_t put_name(unsigned char *out, const char *name)
{
	size_t at = 0;

	while (*name != '\0') {
		size_t len = strcspn(name, ".");

		out[at++] = (unsigned char)len;
		memcpy(out + at, name, len);
		at += len;
		name += len + (name[len] == '.');
	}
	out[at++] = 0;
	return at;
}

static void add_exchanger(struct sim_records *r, unsigned preference, const char *host,
			  const char *domain)
{
	char name[80];
	unsigned char *out = r->rdata[r->count];

	snprintf(name, sizeof name, "%s.%s", host, domain);
	out[0] = (unsigned char)(preference >> 8);
	out[1] = (unsigned char)preference;
	r->at[r->count] = out;
	r->len[r->count++] = 2 + put_name(out + 2, name);
}

static void add_root(struct sim_records *r)
{
	memset(r->rdata[0], 0, 3);
	r->at[0] = r->rdata[0];
	r->len[0] = 3;
	r->count = 1;
}

/* The set that the domain is in now; sometimes that is a new one from here on. */
static void draw_family_set(struct scenario_domain *d, struct sim_records *r)
{
	const struct scenario *s = world->scenario;
	char host[16];

	if (!world->calm && world_chance(s->family_moves)) {
		d->set = (unsigned)world_below(s->family_sets);
	}
	snprintf(host, sizeof host, "mx%u", d->set);
	add_exchanger(r, 10, host, SCENARIO_FAMILY);
	add_exchanger(r, 20, "backup", SCENARIO_FAMILY);
}

/* One or two that work; "gone" has no address. */
static void draw_exchangers(struct scenario_domain *d, struct sim_records *r, struct dns_raw *raw)
{
	bool odd = !world->calm && !world->scenario->clean;

	raw->status = DNS_FOUND;
	if (odd && world_chance(d->dns_refuse / 2)) {
		d->said_null_mx = true;
		add_root(r);
		return;
	}
	if (d->in_family) {
		draw_family_set(d, r);
		return;
	}
	if (odd && world_chance(200)) {
		add_exchanger(r, (unsigned)world_between(0, 20), "gone", d->name);
	}
	add_exchanger(r, (unsigned)world_between(1, 30), "mx1", d->name);
	if (world_chance(300)) {
		add_exchanger(r, (unsigned)world_between(1, 30), "mx2", d->name);
	}
}

/* "mx1.d1.test": the domain, and what is before it. */
static struct scenario_domain *domain_of(const char *name, char host[64])
{
	const char *dot = strchr(name, '.');

	host[0] = '\0';
	if (dot != NULL && scenario_domain(world->scenario, name) == NULL &&
	    (size_t)(dot - name) < 64) {
		memcpy(host, name, (size_t)(dot - name));
		host[dot - name] = '\0';
		name = dot + 1;
	}
	return (struct scenario_domain *)scenario_domain(world->scenario, name);
}

static void draw_fault(struct scenario_domain *d, enum dns_type type, struct dns_raw *raw)
{
	if (world->calm || world->scenario->clean || !world_chance(d->dns_fail)) {
		return;
	}
	raw->status = world_chance(300) ? DNS_BOGUS : DNS_SERVFAIL;
	raw->rcode = RCODE_SERVFAIL;
	raw->why = raw->status == DNS_BOGUS ? "simulated" : NULL;
	if (type == DNS_MX && world_chance(d->dns_refuse)) {
		raw->status = DNS_NXDOMAIN;
		raw->rcode = 3;
		d->said_nxdomain = true;
	}
}

/* "mx0.family.test": always there, at the family's one receiver. */
static bool is_of_family(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot != NULL && strncasecmp(dot + 1, SCENARIO_FAMILY, strlen(SCENARIO_FAMILY)) == 0;
}

static void put_loopback(struct sim_records *r)
{
	struct in_addr loopback = {.s_addr = htonl(INADDR_LOOPBACK)};

	memcpy(r->rdata[0], &loopback, sizeof loopback);
	r->at[0] = r->rdata[0];
	r->len[0] = sizeof loopback;
	r->count = 1;
}

static struct dns_answer *draw_answer(const char *name, enum dns_type type)
{
	char host[64];
	struct scenario_domain *d = domain_of(name, host);
	struct sim_records r = {.count = 0};
	struct dns_raw raw = {
		.type = type,
		.status = DNS_NXDOMAIN,
		.ttl_s = (uint32_t)world_between(1, 30),
		.rdata = r.at,
		.rdata_len = r.len,
	};

	if (d != NULL && strcmp(host, "gone") != 0) {
		raw.status = DNS_NODATA;
		draw_fault(d, type, &raw);
		if (raw.status == DNS_NODATA && type == DNS_MX && host[0] == '\0') {
			draw_exchangers(d, &r, &raw);
		} else if (raw.status == DNS_NODATA && type == DNS_A && host[0] != '\0') {
			raw.status = DNS_FOUND;
			put_loopback(&r);
		}
	} else if (is_of_family(name)) {
		raw.status = DNS_NODATA;
		if (type == DNS_A) {
			raw.status = DNS_FOUND;
			put_loopback(&r);
		}
	}
	raw.count = r.count;
	world_trace("dns", (uint64_t)type, (uint64_t)raw.status);
	return dns_answer_create(&raw);
}

/* ---- the source ---- */

static void ring(struct resolver_source *s)
{
	if (s->fd >= 0) {
		struct kernel_fd *f = kernel_open_fd(s->fd);

		kernel_ring(f);
		mux_sim_look(f, NET_READABLE);
	}
}

static void on_due(void *object, uint64_t unused)
{
	struct sim_question *q = object;

	(void)unused;
	q->done = true;
	ring(q->source);
}

int __wrap_resolver_source_open(struct resolver_source **out,
				const struct resolver_options *options, char *why, size_t why_size)
{
	(void)options;
	(void)why;
	(void)why_size;
	*out = calloc(1, sizeof **out);
	ASSERT(*out != NULL);
	(*out)->fd = -1;
	return 0;
}

void __wrap_resolver_source_close(struct resolver_source *s)
{
	ASSERT(s->questions == NULL);
	free(s);
}

int __wrap_resolver_source_fd(struct resolver_source *s)
{
	s->fd = kernel_new_fd(KERNEL_EVENTFD)->number;
	ring(s);
	return s->fd;
}

int __wrap_resolver_source_ask(struct resolver_source *s, struct source_question *asked,
			       const char *name)
{
	size_t len = strlen(name) + 1;
	struct sim_question *q = calloc(1, sizeof *q + len);
	char host[64];
	const struct scenario_domain *d = domain_of(name, host);

	ASSERT(q != NULL);
	q->source = s;
	q->asked = asked;
	memcpy(q->name, name, len);
	q->next = s->questions;
	s->questions = q;
	asked->id = ++s->ids;
	if (world->calm || d == NULL || !world_chance(d->dns_silence)) {
		world_at_life(world_between(DELAY_NS_MIN, DELAY_NS_MAX), on_due, q, 0);
	}
	return 0;
}

/* Out of the list; the answer of the event that is under way does not come. */
static void take_out(struct sim_question **at)
{
	struct sim_question *q = *at;

	*at = q->next;
	world_forget(q);
	free(q);
}

void __wrap_resolver_source_cancel(struct resolver_source *s, struct source_question *asked)
{
	struct sim_question **at = &s->questions;

	while ((*at)->asked != asked) {
		at = &(*at)->next;
	}
	take_out(at);
}

void __wrap_resolver_source_process(struct resolver_source *s)
{
	struct sim_question **at = &s->questions;

	kernel_take_bell(s->fd);
	while (*at != NULL) {
		struct source_question *asked = (*at)->asked;
		struct dns_answer *answer;

		if (!(*at)->done) {
			at = &(*at)->next;
			continue;
		}
		answer = draw_answer((*at)->name, asked->type);
		take_out(at);
		asked->on_answer(asked, answer);
		/* That may have changed the list. */
		at = &s->questions;
	}
}
