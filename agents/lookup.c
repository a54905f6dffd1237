/*
 * Look-ups of next hops: a route (core/outbound/route.h) says what to ask, the resolver answers,
 * and the dispatcher gets the verdict. Each domain has one under way at most, and none waits for
 * another.
 *
 * Start reading at scheduler_resolve().
 */
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

#include "agents/resolver.h"
#include "agents/scheduler.h"
#include "agents/scheduler_request.h"
#include "agents/sts.h"
#include "core/outbound/route.h"

/* Next hops without the policy that there should be are looked up again after so long. */
#define STS_TROUBLE_MS (5 * 60 * 1000)

BOUND
struct lookup {
	struct scheduler *scheduler;
	struct domain *domain;
	struct route *route;
	/* Whose options the route has, held. */
	struct config *config;
	/* The domain's policy of MTA-STS. */
	struct sts_question sts;
	bool sts_waiting;
};

BOUND
struct lookup_question {
	struct dns_question question;
	struct lookup *lookup;
	uint32_t id;
};

static void on_answer(struct agent *self, struct dns_question *question, struct dns_answer *answer,
		      uint32_t ttl_s);

/* Whatever is to be asked now is, at once. */
static void ask(struct lookup *l)
{
	struct scheduler *s = l->scheduler;
	const char *name;
	enum dns_type type;
	uint32_t id;

	while (route_next_question(l->route, &id, &name, &type)) {
		struct lookup_question *q = check_memory(calloc(1, sizeof *q), "a look-up");

		q->question =
			(struct dns_question){.name = name, .type = type, .on_answer = on_answer};
		q->lookup = l;
		q->id = id;
		resolver_ask(s->program->resolver, &s->base, &q->question);
	}
}

static void end(struct lookup *l, struct route_verdict *verdict)
{
	struct scheduler *s = l->scheduler;
	struct domain *d = l->domain;

	s->lookups_waiting--;
	sts_policy_release(l->sts.policy);
	route_destroy(l->route);
	config_release(l->config);
	free(l);
	dispatch_resolved(&s->dispatcher, d, verdict);
}

/* What stands in the way of TLS sessions before there is any, once for each look-up. */
static void report(struct lookup *l, const struct route_verdict *v)
{
	static const enum tls_report_result troubles[] = {
		[STS_TROUBLE_FETCH] = TLS_REPORT_STS_FETCH_ERROR,
		[STS_TROUBLE_INVALID] = TLS_REPORT_STS_INVALID,
		[STS_TROUBLE_WEBPKI] = TLS_REPORT_STS_WEBPKI,
	};
	struct tls_reports *r = &l->scheduler->dispatcher.tls_reports;
	uint64_t now_ms = agent_wall_ms(&l->scheduler->base);
	const char *domain = l->domain->name;

	if (v->dane_failed_count > 0) {
		tls_report_count(r, domain, TLS_REPORT_TLSA, TLS_REPORT_DNSSEC_INVALID, now_ms);
	} else if (v->result == ROUTE_DANE) {
		tls_report_count(r, domain, TLS_REPORT_TLSA, TLS_REPORT_DANE_REQUIRED, now_ms);
	} else if (v->result == ROUTE_STS) {
		tls_report_count(r, domain, TLS_REPORT_STS, TLS_REPORT_VALIDATION_FAILURE, now_ms);
	}
	if (l->sts.trouble != STS_TROUBLE_NONE) {
		tls_report_count(r, domain, TLS_REPORT_STS, troubles[l->sts.trouble], now_ms);
	}
}

/* Ends when everything is answered. */
static void proceed(struct lookup *l)
{
	struct route_verdict verdict = {.result = ROUTE_CANCELLED};

	if (l->sts_waiting) {
		return;
	}
	if (route_done(l->route)) {
		route_finish(l->route, &verdict);
		route_obey(&verdict, l->domain->name, l->sts.policy);
		if (l->sts.trouble != STS_TROUBLE_NONE && verdict.ttl_ms > STS_TROUBLE_MS) {
			verdict.ttl_ms = STS_TROUBLE_MS;
		}
		if (l->domain->options->gateway_count == 0) {
			report(l, &verdict);
		}
		end(l, &verdict);
	} else if (l->scheduler->stopping && route_idle(l->route)) {
		end(l, &verdict);
	}
}

static void on_answer(struct agent *self, struct dns_question *question, struct dns_answer *answer,
		      uint32_t ttl_s)
{
	struct lookup_question *q = CONTAINER_OF(question, struct lookup_question, question);
	struct lookup *l = q->lookup;

	(void)self;
	route_answer(l->route, q->id, answer, ttl_s);
	free(q);
	/* The resolver was told to give up, so what is asked from now on would be too late. */
	if (!l->scheduler->stopping) {
		ask(l);
	}
	proceed(l);
}

static void on_policy(struct agent *self, struct sts_question *question)
{
	struct lookup *l = CONTAINER_OF(question, struct lookup, sts);

	(void)self;
	l->sts_waiting = false;
	proceed(l);
}

/* MTA-STS is about mail exchangers; what an operator demands comes first, and so does DANE. */
static bool wants_policy(const struct lookup *l)
{
	const struct domain_options *o = l->domain->options;

	return o->mta_sts && o->gateway_count == 0 && o->tls != DOMAIN_TLS_NO &&
	       o->tls != DOMAIN_TLS_DANE && l->scheduler->program->sts != NULL &&
	       !l->scheduler->stopping;
}

void scheduler_resolve(struct dispatcher *x, struct domain *d)
{
	struct scheduler *s = CONTAINER_OF(x, struct scheduler, dispatcher);
	struct lookup *l = check_memory(calloc(1, sizeof *l), "a look-up");

	s->route_seed = s->route_seed * UINT64_C(6364136223846793005) + 1442695040888963407U;
	l->scheduler = s;
	l->domain = d;
	l->config = config_hold(s->config);
	l->route = route_create(d->options, d->name, s->self, s->route_seed);
	s->lookups_waiting++;
	if (wants_policy(l)) {
		l->sts = (struct sts_question){.domain = d->name, .on_answer = on_policy};
		l->sts_waiting = true;
		sts_ask(s->program->sts, &s->base, &l->sts);
	}
	ask(l);
}

/* ---- who we are ---- */

static struct in6_addr mapped(const struct in_addr *v4)
{
	struct in6_addr address = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

	memcpy(address.s6_addr + 12, v4, 4);
	return address;
}

static bool address_of(const struct sockaddr *a, struct in6_addr *address)
{
	if (a != NULL && a->sa_family == AF_INET) {
		*address = mapped(&((const struct sockaddr_in *)(const void *)a)->sin_addr);
		return true;
	}
	if (a != NULL && a->sa_family == AF_INET6) {
		*address = ((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
		return true;
	}
	return false;
}

static void add_listen(struct route_self *self, const struct in6_addr *address, uint16_t port)
{
	struct route_listen *grown =
		check_memory(realloc((struct route_listen *)self->listens,
				     (self->listen_count + 1) * sizeof(*grown)),
			     "addresses");

	grown[self->listen_count++] = (struct route_listen){*address, port};
	self->listens = grown;
}

/* A wildcard stands for every address of this machine. */
static void add_interfaces(struct route_self *self, uint16_t port, bool v4_only)
{
	struct ifaddrs *list = NULL;
	struct in6_addr address;

	if (getifaddrs(&list) != 0) {
		return;
	}
	for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
		if (address_of(i->ifa_addr, &address) &&
		    (!v4_only || i->ifa_addr->sa_family == AF_INET)) {
			add_listen(self, &address, port);
		}
	}
	freeifaddrs(list);
}

void program_find_self(const struct config *config, struct route_self *self)
{
	*self = (struct route_self){.hostname = config_global(config)->hostname};
	for (uint32_t i = 0; i < config_smtp_listen_count(config); i++) {
		const struct sockaddr_storage *s = &config_smtp_listen(config, i)->address;
		struct in_addr any = {INADDR_ANY};
		struct in6_addr any_v4 = mapped(&any);
		struct in6_addr address;
		uint16_t port;

		if (!address_of((const struct sockaddr *)s, &address)) {
			continue;
		}
		/* In the same place in both families. */
		port = ntohs(((const struct sockaddr_in *)(const void *)s)->sin_port);
		if (IN6_IS_ADDR_UNSPECIFIED(&address) ||
		    memcmp(&address, &any_v4, sizeof address) == 0) {
			add_interfaces(self, port, s->ss_family == AF_INET);
		} else {
			add_listen(self, &address, port);
		}
	}
}
