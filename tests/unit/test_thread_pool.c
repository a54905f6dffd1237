#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "agents/thread_pool.h"

#define JOBS 2000

struct work {
	struct job job;
	unsigned worked;
	unsigned done;
	int result;
	pthread_t worker;
	/* What the job computes. */
	uint64_t in;
	uint64_t out;
	pthread_barrier_t *meet;
};

struct client {
	struct agent base;
	struct work works[JOBS];
	unsigned submitted;
	unsigned answered;
	/* Jobs to hand over, and how many may be under way at a time. */
	unsigned wanted;
	unsigned in_flight_max;
	bool stop_with_jobs_waiting;
	uint64_t wrong;
	pthread_t thread;
	/* Numbers of the jobs in the order of their answers. */
	uint64_t order[JOBS];
};

struct world {
	struct client client;
	struct thread_pool *pool;
	struct runtime rt;
	struct group *main_group;
};

static struct world *world;

static void do_job(struct job *job)
{
	struct work *w = CONTAINER_OF(job, struct work, job);

	w->worked++;
	w->worker = pthread_self();
	w->out = w->in * w->in;
	if (w->meet != NULL) {
		pthread_barrier_wait(w->meet);
	}
}

static void on_done(struct agent *self, struct job *job, int result)
{
	struct client *c = CONTAINER_OF(self, struct client, base);
	struct work *w = CONTAINER_OF(job, struct work, job);

	c->wrong += !pthread_equal(c->thread, pthread_self()) || agent_current != self;
	c->wrong += result == 0 && (w->worked != 1 || w->out != w->in * w->in);
	c->wrong += result != 0 && w->worked != 0;
	w->done++;
	w->result = result;
	c->order[c->answered++] = w->in;
	if (c->answered == c->wanted) {
		runtime_stop(self->runtime);
	}
}

static void submit(struct client *c)
{
	struct work *w = &c->works[c->submitted];

	w->job.work = do_job;
	w->job.on_done = on_done;
	w->in = c->submitted++;
	thread_pool_run(world->pool, &c->base, &w->job);
}

static int client_start(struct agent *self)
{
	CONTAINER_OF(self, struct client, base)->thread = pthread_self();
	return 0;
}

static int client_do_work(struct agent *self)
{
	struct client *c = CONTAINER_OF(self, struct client, base);
	int work = 0;

	while (c->submitted < c->wanted && c->submitted - c->answered < c->in_flight_max) {
		submit(c);
		work++;
	}
	if (c->stop_with_jobs_waiting && c->submitted == c->wanted) {
		runtime_stop(self->runtime);
	}
	return work;
}

static const struct agent_ops client_ops = {
	.kind = "client",
	.start = client_start,
	.do_work = client_do_work,
};

static void ignore_warning(void *context, const char *text)
{
	(void)context;
	(void)text;
}

static int setup(void **state)
{
	const struct idle idle = {.kind = IDLE_PARK};

	(void)state;
	world = aligned_alloc(CACHE_LINE, sizeof(*world));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	runtime_init(&world->rt, &clock_system);
	world->rt.mux_entries = 64;
	world->rt.warn = ignore_warning;
	world->main_group = runtime_group(&world->rt, "main", -1, &idle);
	agent_init(&world->client.base, &client_ops, "client", 0);
	runtime_add(&world->rt, world->main_group, &world->client.base);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	runtime_close(&world->rt);
	agent_close(&world->client.base);
	thread_pool_destroy(world->pool);
	free(world);
	return 0;
}

static void make_pool(uint32_t workers, uint32_t backlog)
{
	const struct idle idle = {.kind = IDLE_PARK};

	assert_int_equal(thread_pool_create(&world->pool, &world->rt, world->main_group, workers,
					    backlog, &idle),
			 0);
	assert_int_equal(world->rt.group_count, 1 + workers);
	assert_int_equal(runtime_prepare(&world->rt), 0);
}

static void settle(void)
{
	for (unsigned idle = 0; idle < 2;) {
		idle = runtime_step(&world->rt) == 0 ? idle + 1 : 0;
	}
}

static void check_all_done(unsigned count)
{
	assert_int_equal(world->client.wrong, 0);
	assert_int_equal(world->client.answered, count);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(world->client.works[i].done, 1);
		assert_int_equal(world->client.works[i].result, 0);
	}
	assert_int_equal(counter_total("done"), count);
	assert_int_equal(counter_total("queued"), count);
	assert_int_equal(counter_total("refused"), 0);
	assert_int_equal(counter_total("depth"), 0);
	assert_int_equal(counter_total("busy"), 0);
}

static void test_run_when_threads(void **state)
{
	(void)state;
	world->client.wanted = JOBS;
	world->client.in_flight_max = 100;
	make_pool(3, 1000);
	assert_int_equal(runtime_run(&world->rt), 0);
	check_all_done(JOBS);
	for (unsigned i = 0; i < JOBS; i++) {
		assert_false(pthread_equal(world->client.works[i].worker, pthread_self()));
	}
}

/* Jobs that wait for each other can only end if they run at the same time. */
static void test_run_when_jobs_block_each_other(void **state)
{
	pthread_barrier_t meet;

	(void)state;
	assert_int_equal(pthread_barrier_init(&meet, NULL, 4), 0);
	world->client.wanted = 40;
	world->client.in_flight_max = 40;
	for (unsigned i = 0; i < 40; i++) {
		world->client.works[i].meet = &meet;
	}
	make_pool(4, 1000);
	assert_int_equal(runtime_run(&world->rt), 0);
	check_all_done(40);
	pthread_barrier_destroy(&meet);
}

/* A stop that finds jobs queued and running lets them run, and delivers their answers. */
static void test_stop_when_jobs_wait(void **state)
{
	(void)state;
	world->client.wanted = JOBS;
	world->client.in_flight_max = JOBS;
	world->client.stop_with_jobs_waiting = true;
	make_pool(2, JOBS);
	assert_int_equal(runtime_run(&world->rt), 0);
	check_all_done(JOBS);
}

/* On one thread: what waits, what is refused and what is counted is exactly known. */
static void test_run_when_the_queue_is_full(void **state)
{
	struct client *c = &world->client;

	(void)state;
	make_pool(2, 3);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	c->wanted = 8;
	c->in_flight_max = 8;
	/* Two go to the workers, three wait, three are refused, all in one cycle. */
	settle();
	assert_int_equal(c->answered, 8);
	assert_int_equal(c->wrong, 0);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(c->works[i].result, i < 5 ? 0 : -EAGAIN);
		assert_int_equal(c->works[i].worked, i < 5 ? 1 : 0);
		assert_int_equal(c->works[i].done, 1);
	}
	assert_int_equal(counter_total("queued"), 5);
	assert_int_equal(counter_total("done"), 5);
	assert_int_equal(counter_total("refused"), 3);
	assert_int_equal(counter_total("depth"), 0);
	assert_int_equal(counter_total("depth_max"), 3);
	assert_int_equal(counter_total("busy"), 0);
	/* There is room again. */
	c->wanted = 9;
	settle();
	assert_int_equal(c->works[8].result, 0);
	assert_int_equal(c->works[8].worked, 1);
	assert_true(runtime_invoke_stop(&world->rt, 100));
}

static void test_run_when_nothing_may_wait(void **state)
{
	struct client *c = &world->client;

	(void)state;
	make_pool(1, 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	c->wanted = 2;
	c->in_flight_max = 2;
	settle();
	assert_int_equal(c->works[0].result, 0);
	assert_int_equal(c->works[1].result, -EAGAIN);
	assert_int_equal(c->answered, 2);
	assert_true(runtime_invoke_stop(&world->rt, 100));
}

/* Jobs are begun in the order they came. */
static void test_run_when_one_worker(void **state)
{
	struct client *c = &world->client;

	(void)state;
	make_pool(1, 100);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	c->wanted = 50;
	c->in_flight_max = 50;
	settle();
	check_all_done(50);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(c->order[i], i);
	}
	assert_true(runtime_invoke_stop(&world->rt, 100));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_run_when_threads),          TEST(test_run_when_jobs_block_each_other),
		TEST(test_stop_when_jobs_wait),       TEST(test_run_when_the_queue_is_full),
		TEST(test_run_when_nothing_may_wait), TEST(test_run_when_one_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
