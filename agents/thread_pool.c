/*
 * A job's way: the agent that asks sends it to the pool; the pool sends it to a worker that is free
 * or queues it; the worker runs it and sends it back to the pool; the pool sends it to the agent
 * that asked. A worker never has more than one job, so all that waits is in the pool's queue.
 */
#include "agents/thread_pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

#define THREAD_POOL_MAGIC 0x706f6f6cU
/* Workers stop after the pool, which may still have jobs for them. */
#define POOL_STOP_PHASE 5
#define WORKER_STOP_PHASE 6
#define WORKER_NAME 16

BOUND
struct pool_worker {
	struct agent base;
	struct thread_pool *pool;
	uint32_t index;
	char name[WORKER_NAME];
};

BOUND
struct thread_pool {
	struct agent base;
	uint32_t magic;
	uint32_t backlog;
	uint32_t worker_count;
	/* Jobs under way on workers. */
	uint32_t running;
	/* Numbers of the workers that are free; the last one used, still warm, is next. */
	uint32_t idle_count;
	uint32_t idle_workers[THREAD_POOL_WORKERS_MAX];
	/* Jobs that wait for a worker, oldest first. */
	struct job *first;
	struct job **last;
	uint32_t depth;
	struct counter *queued;
	struct counter *done;
	struct counter *refused;
	struct counter *depth_now;
	struct counter *depth_max;
	struct counter *wait_max_us;
	struct counter *busy;
	struct pool_worker *workers;
};

static struct thread_pool *pool_of(struct agent *base)
{
	struct thread_pool *p = CONTAINER_OF(base, struct thread_pool, base);

	CHECK_MAGIC(p, THREAD_POOL_MAGIC);
	return p;
}

/* On the agent that asked. */
static void on_result(struct agent *self, void *object, uint64_t value)
{
	struct job *job = object;

	job->on_done(self, job, -(int)value);
}

/* `result` is 0 or a negative errno. The job is no longer the pool's. */
static void answer(struct thread_pool *p, struct job *job, int result)
{
	agent_send(&p->base, job->from, on_result, job, (uint64_t)-result);
}

static void queue_put(struct thread_pool *p, struct job *job)
{
	job->next = NULL;
	*p->last = job;
	p->last = &job->next;
	p->depth++;
	counter_set_value(p->depth_now, p->depth);
	counter_max(p->depth_max, p->depth);
}

static struct job *queue_take(struct thread_pool *p)
{
	struct job *job = p->first;

	if (job == NULL) {
		return NULL;
	}
	p->first = job->next;
	if (p->first == NULL) {
		p->last = &p->first;
	}
	job->next = NULL;
	p->depth--;
	counter_set_value(p->depth_now, p->depth);
	return job;
}

static void on_worked(struct agent *self, void *object, uint64_t index);

/* On the worker, which is allowed to block. */
static void on_work(struct agent *self, void *object, uint64_t unused)
{
	struct pool_worker *w = CONTAINER_OF(self, struct pool_worker, base);
	struct job *job = object;

	(void)unused;
	job->work(job);
	agent_send(self, &w->pool->base, on_worked, job, w->index);
}

/* Hands the job to a free worker. */
static void dispatch(struct thread_pool *p, struct job *job)
{
	uint64_t now_ns = p->base.now.mono_ns;
	uint32_t index;

	ASSERT(p->idle_count > 0);
	index = p->idle_workers[--p->idle_count];
	p->running++;
	counter_set_value(p->busy, p->running);
	if (now_ns > job->queued_ns) {
		counter_max(p->wait_max_us, (now_ns - job->queued_ns) / NS_PER_US);
	}
	agent_send(&p->base, &p->workers[index].base, on_work, job, 0);
}

/* On the pool: a worker has finished a job and is free for the next one. */
static void on_worked(struct agent *self, void *object, uint64_t index)
{
	struct thread_pool *p = pool_of(self);
	struct job *next;

	ASSERT(p->running > 0 && p->idle_count < p->worker_count);
	p->idle_workers[p->idle_count++] = (uint32_t)index;
	p->running--;
	counter_set_value(p->busy, p->running);
	counter_inc(p->done);
	answer(p, object, 0);
	next = queue_take(p);
	if (next != NULL) {
		dispatch(p, next);
	}
}

/* On the pool: a job has come. */
static void on_job(struct agent *self, void *object, uint64_t unused)
{
	struct thread_pool *p = pool_of(self);
	struct job *job = object;

	(void)unused;
	if (p->idle_count == 0 && p->depth >= p->backlog) {
		counter_inc(p->refused);
		answer(p, job, -EAGAIN);
		return;
	}
	counter_inc(p->queued);
	if (p->idle_count > 0) {
		dispatch(p, job);
	} else {
		queue_put(p, job);
	}
}

/* Everything happens in tasks. */
static int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static bool thread_pool_drained(struct agent *self)
{
	struct thread_pool *p = pool_of(self);

	return p->depth == 0 && p->running == 0;
}

static const struct agent_ops thread_pool_ops = {
	.kind = "thread_pool",
	.do_work = no_work,
	.drained = thread_pool_drained,
};

static const struct agent_ops pool_worker_ops = {
	.kind = "pool_worker",
	.do_work = no_work,
};

static void pool_init_counters(struct thread_pool *p)
{
	struct counter_set *set = p->base.counters;

	p->queued = counter_create(set, "queued", COUNTER_SUM, "Jobs taken");
	p->done = counter_create(set, "done", COUNTER_SUM, "Jobs that have run");
	p->refused = counter_create(set, "refused", COUNTER_SUM,
				    "Jobs refused because too many were waiting");
	p->depth_now = counter_create(set, "depth", COUNTER_GAUGE, "Jobs that wait for a worker");
	p->depth_max = counter_create(set, "depth_max", COUNTER_MAX, "Most jobs that ever waited");
	p->wait_max_us = counter_create(set, "wait_max_us", COUNTER_MAX,
					"Longest time that a job waited for a worker, us");
	p->busy = counter_create(set, "busy", COUNTER_GAUGE, "Workers that run a job");
}

static void worker_init(struct thread_pool *p, uint32_t index)
{
	struct pool_worker *w = &p->workers[index];

	w->pool = p;
	w->index = index;
	snprintf(w->name, sizeof(w->name), "worker.%u", index);
	agent_init(&w->base, &pool_worker_ops, w->name, WORKER_STOP_PHASE);
	p->idle_workers[p->worker_count - 1 - index] = index;
}

static struct thread_pool *pool_alloc(uint32_t workers)
{
	struct thread_pool *p = aligned_alloc(CACHE_LINE, sizeof(*p));

	if (p == NULL) {
		return NULL;
	}
	memset(p, 0, sizeof(*p));
	p->workers = aligned_alloc(CACHE_LINE, workers * sizeof(*p->workers));
	if (p->workers == NULL) {
		free(p);
		return NULL;
	}
	memset(p->workers, 0, workers * sizeof(*p->workers));
	return p;
}

int thread_pool_create(struct thread_pool **out, struct runtime *rt, struct group *group,
		       uint32_t workers, uint32_t backlog, const struct idle *worker_idle)
{
	struct thread_pool *p;

	ASSERT(workers >= 1 && workers <= THREAD_POOL_WORKERS_MAX);
	p = pool_alloc(workers);
	if (p == NULL) {
		return -ENOMEM;
	}
	p->magic = THREAD_POOL_MAGIC;
	p->backlog = backlog;
	p->worker_count = workers;
	p->idle_count = workers;
	p->last = &p->first;
	agent_init(&p->base, &thread_pool_ops, "pool", POOL_STOP_PHASE);
	pool_init_counters(p);
	runtime_add(rt, group, &p->base);
	for (uint32_t i = 0; i < workers; i++) {
		struct group *g;

		worker_init(p, i);
		g = runtime_group(rt, p->workers[i].name, -1, worker_idle);
		g->may_block = true;
		runtime_add(rt, g, &p->workers[i].base);
	}
	*out = p;
	return 0;
}

void thread_pool_destroy(struct thread_pool *p)
{
	if (p == NULL) {
		return;
	}
	CHECK_MAGIC(p, THREAD_POOL_MAGIC);
	for (uint32_t i = 0; i < p->worker_count; i++) {
		agent_close(&p->workers[i].base);
	}
	agent_close(&p->base);
	p->magic = 0;
	free(p->workers);
	free(p);
}

void thread_pool_run(struct thread_pool *p, struct agent *self, struct job *job)
{
	CHECK_MAGIC(p, THREAD_POOL_MAGIC);
	ASSERT(job->work != NULL && job->on_done != NULL);
	job->from = self;
	job->next = NULL;
	job->queued_ns = self->now.mono_ns;
	agent_send(self, &p->base, on_job, job, 0);
}
