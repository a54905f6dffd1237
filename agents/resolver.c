/*
 * A question's way: the asker sends it here; it is answered from the cache, or joins the query of
 * the same name and type that is under way, or becomes one. A query goes to the source when fewer
 * than max_pending are there, and its answer to all who wait for it.
 */
#include "agents/resolver.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agents/resolver_source.h"
#include "core/mail/dns_cache.h"
#include "core/runtime/check.h"
#include "core/runtime/mux.h"

#define RESOLVER_MAGIC 0x7265736fU
/* After those that ask, before the pool that makes new sources. */
#define STOP_PHASE 2
#define BUCKETS 16384
/* Queries handed to the source in one duty cycle; more wait for the next. */
#define START_LIMIT 64

/* One name and type that somebody waits for. */
BOUND
struct query {
	struct resolver *resolver;
	struct source_question asked;
	struct query *hash_next;
	uint64_t hash;
	/* In the queue of those that wait for their turn: what comes next, and what points here. */
	struct query *next;
	struct query **at;
	/* At the source. */
	bool started;
	struct timer timer;
	struct dns_question *waiters;
	char name[];
};

BOUND
struct resolver {
	struct agent base;
	uint32_t magic;
	const struct resolver_options *options;
	struct thread_pool *pool;
	struct resolver_source *source;
	struct mux_op watch;
	int fd;
	/* The source was changed: watch the new one when the old watch has ended. */
	bool stale_fd;
	struct dns_cache cache;
	struct query *buckets[BUCKETS];
	/* Queries that wait for their turn, oldest first. */
	struct query *first;
	struct query **last;
	uint32_t waiting;
	uint32_t pending;
	/* At the pool. */
	uint32_t jobs;
	bool stopping;
	struct counter *queries[6];
	struct counter *answers[DNS_STATUSES];
	struct counter *cache_hits;
	struct counter *cached;
	struct counter *evicted;
	struct counter *merged;
	struct counter *pending_now;
	struct counter *pending_max;
	struct counter *waiting_now;
	struct counter *malformed;
	struct counter *flushes;
};

/* An old source on its way to its end, by the pool. */
struct closing {
	struct job job;
	struct resolver *resolver;
	struct resolver_source *source;
};

static const enum dns_type counted[] = {DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TXT, DNS_TLSA};

static struct resolver *resolver_of(struct agent *base)
{
	struct resolver *r = CONTAINER_OF(base, struct resolver, base);

	CHECK_MAGIC(r, RESOLVER_MAGIC);
	return r;
}

/* ---- answers ---- */

/* On the agent that asked. */
static void on_reply(struct agent *self, void *object, uint64_t unused)
{
	struct dns_question *q = object;
	struct dns_answer *answer = q->answer;

	(void)unused;
	q->on_answer(self, q, answer, q->ttl_s);
	dns_answer_release(answer);
}

static void reply(struct resolver *r, struct dns_question *q, struct dns_answer *answer,
		  uint32_t ttl_s)
{
	q->answer = dns_answer_hold(answer);
	q->ttl_s = ttl_s;
	counter_inc(r->answers[answer->status]);
	agent_send(&r->base, q->from, on_reply, q, 0);
}

static struct dns_answer *failure(enum dns_type type, enum dns_status status, const char *why)
{
	const struct dns_raw raw = {.type = type, .status = status, .rcode = 2, .why = why};

	return dns_answer_create(&raw);
}

/* Milliseconds that an answer may be kept; 0 for a failure. */
static uint64_t lifetime_ms(const struct resolver *r, const struct dns_answer *a)
{
	uint64_t ms = (uint64_t)a->ttl_s * 1000;

	if (a->status != DNS_FOUND && a->status != DNS_NODATA && a->status != DNS_NXDOMAIN) {
		return 0;
	}
	if (ms < r->options->min_ttl_ms) {
		ms = r->options->min_ttl_ms;
	}
	return ms < r->options->max_ttl_ms ? ms : r->options->max_ttl_ms;
}

/* ---- queries ---- */

static struct query **query_slot(struct resolver *r, const char *name, enum dns_type type)
{
	uint64_t hash = dns_hash(name, type);
	struct query **at = &r->buckets[hash >> 32 & (BUCKETS - 1)];

	while (*at != NULL && ((*at)->hash != hash || (*at)->asked.type != type ||
			       strcasecmp((*at)->name, name) != 0)) {
		at = &(*at)->hash_next;
	}
	return at;
}

static void set_gauges(struct resolver *r)
{
	counter_set_value(r->pending_now, r->pending);
	counter_max(r->pending_max, r->pending);
	counter_set_value(r->waiting_now, r->waiting);
	counter_set_value(r->cached, r->cache.count);
	counter_set_value(r->evicted, r->cache.evicted);
}

static void queue_remove(struct resolver *r, struct query *q)
{
	*q->at = q->next;
	*(q->next != NULL ? &q->next->at : &r->last) = q->at;
	r->waiting--;
}

/* Out of the table, and of the queue or the source's hands. */
static void query_free(struct resolver *r, struct query *q)
{
	struct query **at = query_slot(r, q->name, q->asked.type);

	ASSERT(*at == q && q->waiters == NULL);
	*at = q->hash_next;
	timer_cancel(&q->timer);
	if (q->started) {
		r->pending--;
	} else {
		queue_remove(r, q);
	}
	free(q);
}

/* Takes over the answer's reference. */
static void finish(struct resolver *r, struct query *q, struct dns_answer *answer)
{
	uint64_t now_ms = agent_now_ms(&r->base);
	uint64_t keep_ms = lifetime_ms(r, answer);
	uint32_t ttl_s = (uint32_t)((keep_ms + 999) / 1000);
	struct dns_question *next;

	counter_add(r->malformed, answer->malformed);
	for (struct dns_question *w = q->waiters; w != NULL; w = next) {
		next = w->next;
		reply(r, w, answer, ttl_s);
	}
	q->waiters = NULL;
	dns_cache_put(&r->cache, q->name, answer, now_ms, now_ms + keep_ms);
	dns_answer_release(answer);
	query_free(r, q);
	set_gauges(r);
}

static void on_source_answer(struct source_question *asked, struct dns_answer *answer)
{
	struct query *q = CONTAINER_OF(asked, struct query, asked);

	finish(q->resolver, q, answer);
}

static void on_timeout(struct timer *t)
{
	struct query *q = CONTAINER_OF(t, struct query, timer);

	resolver_source_cancel(q->resolver->source, &q->asked);
	finish(q->resolver, q, failure(q->asked.type, DNS_TIMEOUT, NULL));
}

static void ask_source(struct resolver *r, struct query *q)
{
	int rc = resolver_source_ask(r->source, &q->asked, q->name);

	if (rc != 0) {
		finish(r, q,
		       failure(q->asked.type, DNS_SERVFAIL,
			       rc == -EINVAL ? "the name cannot be asked for" : strerror(-rc)));
	}
}

/* Hands queries to the source while it may have more; returns how many. */
static int start_waiting(struct resolver *r)
{
	int count = 0;

	while (r->first != NULL && r->pending < r->options->max_pending && count < START_LIMIT) {
		struct query *q = r->first;

		queue_remove(r, q);
		q->started = true;
		r->pending++;
		count++;
		timer_arm(&q->timer, agent_now_ms(&r->base) + r->options->timeout_ms);
		ask_source(r, q);
	}
	if (count > 0) {
		set_gauges(r);
	}
	return count;
}

static struct query *query_create(struct resolver *r, const struct dns_question *w,
				  const char *name)
{
	size_t len = strlen(name) + 1;
	struct query *q = check_memory(calloc(1, sizeof *q + len), "a look-up");

	q->resolver = r;
	q->asked.type = w->type;
	q->asked.on_answer = on_source_answer;
	q->hash = dns_hash(name, w->type);
	memcpy(q->name, name, len);
	timer_init(&q->timer, &r->base, on_timeout);
	q->at = r->last;
	*r->last = q;
	r->last = &q->next;
	r->waiting++;
	return q;
}

static void count_question(struct resolver *r, enum dns_type type)
{
	for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++) {
		if (counted[i] == type) {
			counter_inc(r->queries[i]);
		}
	}
}

/* The name without the dot at its end; false: it is too long to be one. */
static bool trim(const char *name, char text[DNS_NAME_TEXT])
{
	size_t len = strlen(name);

	len -= len > 1 && name[len - 1] == '.' ? 1 : 0;
	if (len >= DNS_NAME_TEXT) {
		return false;
	}
	memcpy(text, name, len);
	text[len] = '\0';
	return true;
}

static void fail_question(struct resolver *r, struct dns_question *w, enum dns_status status,
			  const char *why)
{
	struct dns_answer *a = failure(w->type, status, why);

	reply(r, w, a, 0);
	dns_answer_release(a);
}

static void on_question(struct agent *self, void *object, uint64_t unused)
{
	struct resolver *r = resolver_of(self);
	struct dns_question *w = object;
	char name[DNS_NAME_TEXT];
	struct dns_answer *kept;
	struct query **at;
	uint32_t left_s;

	(void)unused;
	count_question(r, w->type);
	if (!trim(w->name, name)) {
		fail_question(r, w, DNS_SERVFAIL, "the name is too long");
		return;
	}
	kept = dns_cache_find(&r->cache, name, w->type, agent_now_ms(self), &left_s);
	if (kept != NULL) {
		counter_inc(r->cache_hits);
		reply(r, w, kept, left_s);
		return;
	}
	at = query_slot(r, name, w->type);
	if (*at != NULL) {
		counter_inc(r->merged);
	} else {
		*at = query_create(r, w, name);
	}
	w->next = (*at)->waiters;
	(*at)->waiters = w;
}

void resolver_ask(struct resolver *r, struct agent *self, struct dns_question *q)
{
	CHECK_MAGIC(r, RESOLVER_MAGIC);
	ASSERT(q->on_answer != NULL);
	q->from = self;
	agent_send(self, &r->base, on_question, q, 0);
}

/* ---- giving up ---- */

static void cancel_waiters(struct resolver *r, struct query *q, const struct agent *from)
{
	struct dns_question **at = &q->waiters;

	while (*at != NULL) {
		struct dns_question *w = *at;

		if (w->from == from) {
			*at = w->next;
			fail_question(r, w, DNS_CANCELLED, NULL);
		} else {
			at = &w->next;
		}
	}
}

static void on_give_up(struct agent *self, void *object, uint64_t unused)
{
	struct resolver *r = resolver_of(self);
	struct query *next;

	(void)unused;
	for (uint32_t i = 0; i < BUCKETS; i++) {
		for (struct query *q = r->buckets[i]; q != NULL; q = next) {
			next = q->hash_next;
			cancel_waiters(r, q, object);
			if (q->waiters != NULL) {
				continue;
			}
			if (q->started) {
				resolver_source_cancel(r->source, &q->asked);
			}
			query_free(r, q);
		}
	}
	set_gauges(r);
}

void resolver_give_up(struct resolver *r, struct agent *self)
{
	agent_send(self, &r->base, on_give_up, self, 0);
}

/* ---- the source ---- */

static void watch_source(struct resolver *r)
{
	mux_poll_fd(r->base.mux, &r->watch, r->fd, POLLIN);
}

static void on_readable(struct mux_op *op, int result)
{
	struct resolver *r = CONTAINER_OF(op, struct resolver, watch);

	if (r->stale_fd || (r->stopping && result == -ECANCELED)) {
		mux_close(r->base.mux, r->fd);
		r->fd = -1;
	}
	if (r->stopping && result == -ECANCELED) {
		return;
	}
	if (r->stale_fd) {
		r->stale_fd = false;
		r->fd = resolver_source_fd(r->source);
	}
	resolver_source_process(r->source);
	watch_source(r);
}

static void close_work(struct job *job)
{
	resolver_source_close(CONTAINER_OF(job, struct closing, job)->source);
}

static void close_done(struct agent *self, struct job *job, int result)
{
	struct closing *c = CONTAINER_OF(job, struct closing, job);

	(void)self;
	c->resolver->jobs--;
	if (result != 0) {
		/* The pool is full: some milliseconds here, rather than another thread for good. */
		resolver_source_close(c->source);
	}
	free(c);
}

static void close_source(struct resolver *r, struct resolver_source *source)
{
	struct closing *c = check_memory(calloc(1, sizeof *c), "the resolver");

	c->job = (struct job){.work = close_work, .on_done = close_done};
	c->resolver = r;
	c->source = source;
	r->jobs++;
	thread_pool_run(r->pool, &r->base, &c->job);
}

/* What is under way is asked anew: an answer of the old source may be what is to be forgotten. */
static void change_source(struct resolver *r, struct resolver_source *fresh)
{
	struct resolver_source *old = r->source;
	struct query *next;

	r->source = fresh;
	for (uint32_t i = 0; i < BUCKETS; i++) {
		for (struct query *q = r->buckets[i]; q != NULL; q = next) {
			next = q->hash_next;
			if (q->started) {
				resolver_source_cancel(old, &q->asked);
				ask_source(r, q);
			}
		}
	}
	r->stale_fd = true;
	mux_cancel(r->base.mux, &r->watch);
	close_source(r, old);
}

/* ---- flush ---- */

/* On the agent that asked. */
static void on_flush_done(struct agent *self, void *object, uint64_t unused)
{
	struct resolver_flush *f = object;

	(void)unused;
	f->on_flushed(self, f);
}

static void flush_work(struct job *job)
{
	struct resolver_flush *f = CONTAINER_OF(job, struct resolver_flush, job);

	f->result = resolver_source_open(&f->fresh, f->resolver->options, f->why, sizeof f->why);
}

static void flush_job_done(struct agent *self, struct job *job, int result)
{
	struct resolver_flush *f = CONTAINER_OF(job, struct resolver_flush, job);
	struct resolver *r = resolver_of(self);

	r->jobs--;
	if (result != 0) {
		f->result = result;
		snprintf(f->why, sizeof f->why, "too many tasks wait (pool backlog)");
	}
	if (f->result == 0) {
		f->count = dns_cache_clear(&r->cache);
		change_source(r, f->fresh);
		counter_inc(r->flushes);
		set_gauges(r);
	}
	agent_send(self, f->from, on_flush_done, f, 0);
}

static void on_flush(struct agent *self, void *object, uint64_t unused)
{
	struct resolver *r = resolver_of(self);
	struct resolver_flush *f = object;

	(void)unused;
	if (r->stopping || r->pool == NULL) {
		f->result = -ESHUTDOWN;
		snprintf(f->why, sizeof f->why, "the program stops");
		agent_send(self, f->from, on_flush_done, f, 0);
		return;
	}
	f->job = (struct job){.work = flush_work, .on_done = flush_job_done};
	r->jobs++;
	thread_pool_run(r->pool, self, &f->job);
}

void resolver_flush(struct resolver *r, struct agent *self, struct resolver_flush *f)
{
	CHECK_MAGIC(r, RESOLVER_MAGIC);
	f->from = self;
	f->resolver = r;
	agent_send(self, &r->base, on_flush, f, 0);
}

struct dns_answer *resolver_peek(struct resolver *r, const char *name, enum dns_type type,
				 uint32_t *ttl_s)
{
	char text[DNS_NAME_TEXT];

	return trim(name, text)
		       ? dns_cache_find(&r->cache, text, type, agent_now_ms(&r->base), ttl_s)
		       : NULL;
}

void resolver_stats(const struct resolver *r, struct resolver_stats *stats)
{
	*stats = (struct resolver_stats){
		.kept = r->cache.count,
		.kept_max = r->cache.count_max,
		.hits = counter_get(r->cache_hits),
		.merged = counter_get(r->merged),
		.evicted = r->cache.evicted,
		.pending = r->pending,
		.waiting = r->waiting,
		.flushes = counter_get(r->flushes),
	};
	for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++) {
		stats->questions += counter_get(r->queries[i]);
	}
}

/* ---- life ---- */

static int resolver_start(struct agent *self)
{
	struct resolver *r = resolver_of(self);

	mux_op_init(&r->watch, self, on_readable);
	r->fd = resolver_source_fd(r->source);
	watch_source(r);
	return 0;
}

static void resolver_stop(struct agent *self)
{
	resolver_of(self)->stopping = true;
}

static bool resolver_drained(struct agent *self)
{
	struct resolver *r = resolver_of(self);

	if (r->pending != 0 || r->waiting != 0 || r->jobs != 0) {
		return false;
	}
	mux_cancel(self->mux, &r->watch);
	return !mux_op_busy(&r->watch);
}

static int resolver_do_work(struct agent *self)
{
	return start_waiting(resolver_of(self));
}

static const struct agent_ops resolver_ops = {
	.kind = "resolver",
	.start = resolver_start,
	.do_work = resolver_do_work,
	.stop = resolver_stop,
	.drained = resolver_drained,
};

static void make_counters(struct resolver *r)
{
	static const char *const queries[][2] = {
		{"queries_a", "Questions for A"},     {"queries_aaaa", "Questions for AAAA"},
		{"queries_mx", "Questions for MX"},   {"queries_ptr", "Questions for PTR"},
		{"queries_txt", "Questions for TXT"}, {"queries_tlsa", "Questions for TLSA"},
	};
	static const char *const answers[DNS_STATUSES][2] = {
		[DNS_FOUND] = {"answers_noerror", "Answers with records"},
		[DNS_NXDOMAIN] = {"answers_nxdomain", "Answers that there is no such name"},
		[DNS_NODATA] = {"answers_nodata", "Answers that there is no such record"},
		[DNS_SERVFAIL] = {"answers_servfail", "Questions whose servers failed"},
		[DNS_BOGUS] = {"answers_bogus", "Answers that DNSSEC proves wrong"},
		[DNS_TIMEOUT] = {"answers_timeout", "Questions not answered in time"},
		[DNS_CANCELLED] = {"answers_cancelled", "Questions given up by who asked"},
	};
	struct counter_set *set = r->base.counters;

	for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++) {
		r->queries[i] = counter_create(set, queries[i][0], COUNTER_SUM, queries[i][1]);
	}
	for (size_t i = 0; i < DNS_STATUSES; i++) {
		r->answers[i] = counter_create(set, answers[i][0], COUNTER_SUM, answers[i][1]);
	}
	r->cache_hits = counter_create(set, "cache_hits", COUNTER_SUM,
				       "Questions answered from the agent's own cache");
	r->cached = counter_create(set, "cached", COUNTER_GAUGE, "Answers kept in it");
	r->evicted = counter_create(set, "evicted", COUNTER_GAUGE,
				    "Answers that left it before their time (cache_entries)");
	r->merged = counter_create(set, "merged", COUNTER_SUM,
				   "Questions that joined one that was under way");
	r->pending_now = counter_create(set, "pending", COUNTER_GAUGE, "Questions under way");
	r->pending_max =
		counter_create(set, "pending_max", COUNTER_MAX, "Most questions ever under way");
	r->waiting_now = counter_create(set, "waiting", COUNTER_GAUGE,
					"Questions that wait for others (max_pending)");
	r->malformed = counter_create(set, "malformed", COUNTER_SUM,
				      "Records left out, not being what their type says");
	r->flushes = counter_create(set, "flushes", COUNTER_SUM, "Times all was forgotten");
}

struct resolver *resolver_create(const char *name, const struct resolver_options *options,
				 FILE *errors)
{
	struct resolver *r =
		aligned_alloc(CACHE_LINE, (sizeof *r + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	char why[256] = "";

	if (r == NULL) {
		fatal("out of memory for agent %s", name);
	}
	memset(r, 0, sizeof *r);
	r->magic = RESOLVER_MAGIC;
	r->options = options;
	r->last = &r->first;
	r->fd = -1;
	agent_init(&r->base, &resolver_ops, name, STOP_PHASE);
	make_counters(r);
	dns_cache_init(&r->cache, options->cache_entries);
	if (resolver_source_open(&r->source, options, why, sizeof why) != 0) {
		fprintf(errors, "flywheeld: %s\n", why);
		resolver_destroy(r);
		return NULL;
	}
	return r;
}

struct agent *resolver_agent(struct resolver *r)
{
	return &r->base;
}

void resolver_set_pool(struct resolver *r, struct thread_pool *pool)
{
	r->pool = pool;
}

void resolver_destroy(struct resolver *r)
{
	if (r == NULL) {
		return;
	}
	CHECK_MAGIC(r, RESOLVER_MAGIC);
	if (r->source != NULL) {
		resolver_source_close(r->source);
	}
	dns_cache_close(&r->cache);
	agent_close(&r->base);
	r->magic = 0;
	free(r);
}
