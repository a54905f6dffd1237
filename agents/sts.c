/*
 * A question's way: the domain's entry, or a new one; a pursuit, if none is under way; the record;
 * the addresses of the policy host and the fetch, if the record names another policy than the one
 * that is kept; and back to all who wait.
 */
#include "agents/sts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agents/sts_file.h"
#include "core/mail/dns_cache.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"
#include "core/runtime/timer.h"

#define STS_MAGIC 0x73747361U
/* With the schedulers, which ask it, and before the resolver. */
#define STOP_PHASE 1
#define BUCKETS 4096
/* How long a policy that could not be had is not asked for again (RFC 8461 section 3.3). */
#define RETRY_MS (5 * 60 * 1000)
/* Changes are gathered for so long before the file is written. */
#define WRITE_DELAY_MS 5000

struct pursuit;

/* A domain with a policy, or one that could not be had, or one that is being looked at. */
BOUND
struct entry {
	struct entry *hash_next;
	/* By use, the latest first. */
	struct entry *next;
	struct entry *prev;
	/* NULL: none. */
	struct sts_policy *policy;
	char id[STS_ID_MAX + 1];
	/* Of the policy, by the wall clock. */
	uint64_t until_ms;
	/* The policy that could not be had, and why; monotonic. */
	char failed_id[STS_ID_MAX + 1];
	enum sts_trouble trouble;
	uint64_t retry_ms;
	/* NULL: nothing is under way. */
	struct pursuit *pursuit;
	char domain[];
};

/* What is under way about one domain. */
BOUND
struct pursuit {
	struct sts *sts;
	struct entry *entry;
	struct sts_question *waiters;
	/* The longest that anybody waits; then it is `late`, and goes on for those who come. */
	struct timer timer;
	bool late;
	char id[STS_ID_MAX + 1];
	struct dns_question record;
	struct dns_question addresses[2];
	unsigned asked;
	struct pursuit *next;
	struct job job;
	struct sts_fetch fetch;
	char host[DNS_NAME_TEXT + 16];
};

BOUND
struct sts {
	struct agent base;
	uint32_t magic;
	const struct sts_options *options;
	const char *path;
	struct resolver *resolver;
	struct thread_pool *pool;
	struct entry *buckets[BUCKETS];
	struct entry *first;
	struct entry *last;
	uint32_t count;
	/* Domains that are being looked at; fetches under way, and those that wait. */
	uint32_t pursuits;
	uint32_t fetching;
	struct pursuit *queue;
	struct pursuit **queue_end;
	struct timer write_timer;
	bool dirty;
	bool writing;
	struct sts_file_write write;
	bool stopping;
	struct counter *questions;
	struct counter *records;
	struct counter *fetches;
	struct counter *fetch_failures;
	struct counter *late;
	struct counter *kept;
	struct counter *write_failures;
};

static struct sts *sts_of(struct agent *base)
{
	struct sts *s = CONTAINER_OF(base, struct sts, base);

	CHECK_MAGIC(s, STS_MAGIC);
	return s;
}

/* ---- entries ---- */

static struct entry **entry_slot(struct sts *s, const char *domain)
{
	struct entry **at = &s->buckets[dns_hash(domain, DNS_TXT) >> 32 & (BUCKETS - 1)];

	while (*at != NULL && strcmp((*at)->domain, domain) != 0) {
		at = &(*at)->hash_next;
	}
	return at;
}

static void list_remove(struct sts *s, struct entry *e)
{
	*(e->prev != NULL ? &e->prev->next : &s->first) = e->next;
	*(e->next != NULL ? &e->next->prev : &s->last) = e->prev;
}

static void list_put_first(struct sts *s, struct entry *e)
{
	e->prev = NULL;
	e->next = s->first;
	*(s->first != NULL ? &s->first->prev : &s->last) = e;
	s->first = e;
}

static void entry_drop(struct sts *s, struct entry *e)
{
	struct entry **at = entry_slot(s, e->domain);

	ASSERT(*at == e && e->pursuit == NULL);
	*at = e->hash_next;
	list_remove(s, e);
	sts_policy_release(e->policy);
	free(e);
	s->count--;
}

static struct entry *entry_find(struct sts *s, const char *domain)
{
	size_t size = strlen(domain) + 1;
	struct entry **at = entry_slot(s, domain);

	if (*at == NULL) {
		*at = check_memory(calloc(1, sizeof **at + size), "a policy");
		memcpy((*at)->domain, domain, size);
		s->count++;
	} else {
		list_remove(s, *at);
	}
	list_put_first(s, *at);
	return *at;
}

/* The least recently used ones give way, but for those that somebody waits for. */
static void entries_limit(struct sts *s)
{
	struct entry *e = s->last;

	while (s->count > s->options->cache_entries && e != NULL) {
		struct entry *before = e->prev;

		if (e->pursuit == NULL) {
			entry_drop(s, e);
		}
		e = before;
	}
	counter_set_value(s->kept, s->count);
}

static bool is_good(const struct sts *s, const struct entry *e)
{
	return e->policy != NULL && e->until_ms > agent_wall_ms(&s->base);
}

/* ---- the file ---- */

static void on_written(struct agent *self, struct job *job, int result);

static void write_now(struct sts *s)
{
	FILE *out;

	if (s->writing || !s->dirty) {
		return;
	}
	s->dirty = false;
	out = sts_file_begin(&s->write, s->path);
	for (const struct entry *e = s->last; out != NULL && e != NULL; e = e->prev) {
		if (is_good(s, e)) {
			sts_file_put(out, e->domain, e->id, e->until_ms, e->policy);
		}
	}
	if (out == NULL || sts_file_end(&s->write, out) != 0) {
		counter_inc(s->write_failures);
		return;
	}
	s->writing = true;
	s->write.job.on_done = on_written;
	thread_pool_run(s->pool, &s->base, &s->write.job);
}

static void on_written(struct agent *self, struct job *job, int result)
{
	struct sts *s = sts_of(self);

	(void)job;
	s->writing = false;
	result = sts_file_done(&s->write, result);
	if (result != 0) {
		counter_inc(s->write_failures);
		agent_error(self, -result, "policies of MTA-STS cannot be written to %.200s",
			    s->path);
	}
	if (s->stopping) {
		write_now(s);
	}
}

static void on_write_timer(struct timer *t)
{
	struct sts *s = CONTAINER_OF(t, struct sts, write_timer);

	write_now(s);
	if (s->dirty) {
		timer_arm(t, agent_now_ms(&s->base) + WRITE_DELAY_MS);
	}
}

static void changed(struct sts *s)
{
	if (!s->dirty) {
		s->dirty = true;
		timer_arm(&s->write_timer, agent_now_ms(&s->base) + WRITE_DELAY_MS);
	}
}

static void on_read(void *context, const char *domain, const char *id, uint64_t until_ms,
		    struct sts_policy *policy)
{
	struct sts *s = context;
	struct entry *e = entry_find(s, domain);

	sts_policy_release(e->policy);
	e->policy = policy;
	e->until_ms = until_ms;
	text_copy(e->id, sizeof e->id, id);
	entries_limit(s);
}

/* ---- answers ---- */

/* On the agent that asked. */
static void on_reply(struct agent *self, void *object, uint64_t unused)
{
	struct sts_question *q = object;

	(void)unused;
	q->on_answer(self, q);
}

static void reply(struct sts *s, const struct entry *e, struct sts_question *q)
{
	q->policy = NULL;
	q->trouble = STS_TROUBLE_NONE;
	if (e != NULL && is_good(s, e)) {
		q->policy = sts_policy_hold(e->policy);
	}
	if (e != NULL && e->retry_ms > agent_now_ms(&s->base)) {
		q->trouble = e->trouble;
	}
	agent_send(&s->base, q->from, on_reply, q, 0);
}

static void reply_all(struct pursuit *p)
{
	struct sts_question *next;

	for (struct sts_question *q = p->waiters; q != NULL; q = next) {
		next = q->next;
		reply(p->sts, p->entry, q);
	}
	p->waiters = NULL;
}

/* All is known that can be. */
static void conclude(struct pursuit *p)
{
	struct sts *s = p->sts;
	struct entry *e = p->entry;

	reply_all(p);
	timer_cancel(&p->timer);
	e->pursuit = NULL;
	free(p);
	s->pursuits--;
	if (!is_good(s, e) && e->retry_ms <= agent_now_ms(&s->base)) {
		entry_drop(s, e);
	}
	entries_limit(s);
}

static void fail(struct pursuit *p, enum sts_trouble trouble, const char *why)
{
	struct entry *e = p->entry;

	counter_inc(p->sts->fetch_failures);
	e->trouble = trouble;
	e->retry_ms = agent_now_ms(&p->sts->base) + RETRY_MS;
	memcpy(e->failed_id, p->id, sizeof e->failed_id);
	if (!p->sts->stopping) {
		agent_error(&p->sts->base, 0, "the MTA-STS policy of %.100s cannot be had: %.100s",
			    e->domain, why);
	}
	conclude(p);
}

/* Those who wait are told what is known until now. */
static void on_late(struct timer *t)
{
	struct pursuit *p = CONTAINER_OF(t, struct pursuit, timer);

	p->late = true;
	counter_inc(p->sts->late);
	if (p->id[0] != '\0') {
		p->entry->trouble = STS_TROUBLE_FETCH;
		p->entry->retry_ms = agent_now_ms(&p->sts->base) + RETRY_MS;
		memcpy(p->entry->failed_id, p->id, sizeof p->id);
	}
	reply_all(p);
}

/* ---- the fetch ---- */

static void fetch_work(struct job *job)
{
	struct pursuit *p = CONTAINER_OF(job, struct pursuit, job);

	sts_fetch(&p->fetch);
}

static void fetch_next(struct sts *s);

static void on_fetched(struct agent *self, struct job *job, int result)
{
	struct pursuit *p = CONTAINER_OF(job, struct pursuit, job);
	struct sts *s = sts_of(self);
	struct entry *e = p->entry;

	s->fetching--;
	fetch_next(s);
	if (result != 0) {
		fail(p, STS_TROUBLE_FETCH, "too many tasks wait (pool backlog)");
	} else if (p->fetch.policy == NULL) {
		fail(p, p->fetch.trouble, p->fetch.why);
	} else {
		sts_policy_release(e->policy);
		e->policy = p->fetch.policy;
		e->until_ms = agent_wall_ms(self) + (uint64_t)e->policy->max_age_s * 1000;
		memcpy(e->id, p->id, sizeof e->id);
		e->retry_ms = 0;
		changed(s);
		conclude(p);
	}
}

/* So many at a time. */
static void fetch_next(struct sts *s)
{
	while (s->queue != NULL && s->fetching < s->options->max_fetches) {
		struct pursuit *p = s->queue;

		s->queue = p->next;
		s->queue_end = s->queue != NULL ? s->queue_end : &s->queue;
		s->fetching++;
		counter_inc(s->fetches);
		atomic_store_explicit(&p->fetch.cancelled, s->stopping, memory_order_relaxed);
		p->fetch.options = s->options;
		p->fetch.domain = p->entry->domain;
		p->job.work = fetch_work;
		p->job.on_done = on_fetched;
		thread_pool_run(s->pool, &s->base, &p->job);
	}
}

static void add_address(struct pursuit *p, const char *text)
{
	size_t used = strlen(p->fetch.addresses);

	if (used + strlen(text) + 2 < sizeof p->fetch.addresses) {
		snprintf(p->fetch.addresses + used, sizeof p->fetch.addresses - used, "%s%s",
			 used > 0 ? "," : "", text);
	}
}

static void on_address(struct agent *self, struct dns_question *q, struct dns_answer *answer,
		       uint32_t ttl_s)
{
	unsigned which = q->type == DNS_A;
	struct pursuit *p = CONTAINER_OF(q - which, struct pursuit, addresses[0]);
	struct sts *s = sts_of(self);
	char text[INET6_ADDRSTRLEN + 2];

	(void)ttl_s;
	for (uint32_t i = 0; i < answer->count; i++) {
		if (answer->type == DNS_A) {
			inet_ntop(AF_INET, &answer->records[i].a, text, sizeof text);
		} else {
			text[0] = '[';
			inet_ntop(AF_INET6, &answer->records[i].aaaa, text + 1, sizeof text - 1);
			strcat(text, "]");
		}
		add_address(p, text);
	}
	if (--p->asked > 0) {
		return;
	}
	if (s->stopping || p->fetch.addresses[0] == '\0') {
		fail(p, STS_TROUBLE_FETCH, "the policy host has no address");
		return;
	}
	p->next = NULL;
	*s->queue_end = p;
	s->queue_end = &p->next;
	fetch_next(s);
}

/* ---- the record ---- */

static void ask_addresses(struct pursuit *p)
{
	static const enum dns_type types[] = {DNS_AAAA, DNS_A};

	snprintf(p->host, sizeof p->host, "mta-sts.%s", p->entry->domain);
	p->asked = 2;
	for (int i = 0; i < 2; i++) {
		p->addresses[i] = (struct dns_question){
			.name = p->host, .type = types[i], .on_answer = on_address};
		resolver_ask(p->sts->resolver, &p->sts->base, &p->addresses[i]);
	}
}

/* Without a record, or while none can be had, a policy that is known goes on to hold (RFC 8461
 * section 5.1). */
static void on_record(struct agent *self, struct dns_question *q, struct dns_answer *answer,
		      uint32_t ttl_s)
{
	struct pursuit *p = CONTAINER_OF(q, struct pursuit, record);
	struct sts *s = sts_of(self);
	struct entry *e = p->entry;

	(void)ttl_s;
	if (s->stopping || answer->status != DNS_FOUND || !sts_record_id(answer, p->id)) {
		conclude(p);
		return;
	}
	counter_inc(s->records);
	if ((is_good(s, e) && strcmp(e->id, p->id) == 0) ||
	    (e->retry_ms > agent_now_ms(self) && strcmp(e->failed_id, p->id) == 0)) {
		conclude(p);
	} else {
		ask_addresses(p);
	}
}

static void pursue(struct sts *s, struct entry *e)
{
	struct pursuit *p = check_memory(calloc(1, sizeof *p), "a policy");

	p->sts = s;
	p->entry = e;
	e->pursuit = p;
	s->pursuits++;
	timer_init(&p->timer, &s->base, on_late);
	timer_arm(&p->timer, agent_now_ms(&s->base) + s->options->timeout_ms);
	snprintf(p->host, sizeof p->host, "_mta-sts.%s", e->domain);
	p->record = (struct dns_question){.name = p->host, .type = DNS_TXT, .on_answer = on_record};
	resolver_ask(s->resolver, &s->base, &p->record);
}

static void on_question(struct agent *self, void *object, uint64_t unused)
{
	struct sts *s = sts_of(self);
	struct sts_question *q = object;
	struct entry *e;

	(void)unused;
	counter_inc(s->questions);
	if (s->stopping) {
		reply(s, NULL, q);
		return;
	}
	e = entry_find(s, q->domain);
	if (e->pursuit != NULL && e->pursuit->late) {
		reply(s, e, q);
		return;
	}
	if (e->pursuit == NULL) {
		pursue(s, e);
	}
	q->next = e->pursuit->waiters;
	e->pursuit->waiters = q;
}

void sts_ask(struct sts *s, struct agent *self, struct sts_question *q)
{
	CHECK_MAGIC(s, STS_MAGIC);
	ASSERT(q->on_answer != NULL);
	q->from = self;
	agent_send(self, &s->base, on_question, q, 0);
}

/* ---- life ---- */

static int sts_do_work(struct agent *self)
{
	(void)self;
	return 0;
}

static void sts_stop(struct agent *self)
{
	struct sts *s = sts_of(self);

	s->stopping = true;
	for (struct entry *e = s->first; e != NULL; e = e->next) {
		if (e->pursuit != NULL) {
			reply_all(e->pursuit);
			atomic_store_explicit(&e->pursuit->fetch.cancelled, true,
					      memory_order_relaxed);
		}
	}
	resolver_give_up(s->resolver, self);
	timer_cancel(&s->write_timer);
	write_now(s);
}

static bool sts_drained(struct agent *self)
{
	const struct sts *s = sts_of(self);

	return s->pursuits == 0 && !s->writing;
}

static const struct agent_ops sts_ops = {
	.kind = "sts",
	.do_work = sts_do_work,
	.stop = sts_stop,
	.drained = sts_drained,
};

static void make_counters(struct sts *s)
{
	struct counter_set *set = s->base.counters;

	s->questions =
		counter_create(set, "questions", COUNTER_SUM, "Questions for policies of MTA-STS");
	s->records = counter_create(set, "records", COUNTER_SUM,
				    "Times the name service had a record of one");
	s->fetches = counter_create(set, "fetches", COUNTER_SUM, "Policies asked for by HTTPS");
	s->fetch_failures =
		counter_create(set, "fetch_failures", COUNTER_SUM, "Those that could not be had");
	s->late = counter_create(set, "late", COUNTER_SUM,
				 "Times mail no longer waited for a policy (timeout)");
	s->kept = counter_create(set, "kept", COUNTER_GAUGE,
				 "Domains whose policy, or failure to have it, is known");
	s->write_failures = counter_create(set, "write_failures", COUNTER_SUM,
					   "Times policies could not be written to their file");
}

struct sts *sts_create(const char *name, const struct sts_options *options, const char *path)
{
	struct sts *s =
		aligned_alloc(CACHE_LINE, (sizeof *s + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));

	if (s == NULL) {
		fatal("out of memory for agent %s", name);
	}
	memset(s, 0, sizeof *s);
	s->magic = STS_MAGIC;
	s->options = options;
	s->path = path;
	s->queue_end = &s->queue;
	agent_init(&s->base, &sts_ops, name, STOP_PHASE);
	timer_init(&s->write_timer, &s->base, on_write_timer);
	make_counters(s);
	sts_file_read(path, on_read, s);
	return s;
}

void sts_set_helpers(struct sts *s, struct resolver *resolver, struct thread_pool *pool)
{
	s->resolver = resolver;
	s->pool = pool;
}

struct agent *sts_agent(struct sts *s)
{
	return &s->base;
}

void sts_destroy(struct sts *s)
{
	if (s == NULL) {
		return;
	}
	CHECK_MAGIC(s, STS_MAGIC);
	while (s->first != NULL) {
		entry_drop(s, s->first);
	}
	agent_close(&s->base);
	s->magic = 0;
	free(s);
}
