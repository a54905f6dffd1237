/*
 * Policy on an agent that is stepped by hand, a wheel beside it, with a clock that the test moves.
 * What scripts give to the thread pool waits until work_next(), names that they look up until
 * answer_next(). Their output is in world->printed, what operators are told of in world->errors.
 *
 * Start reading at load(), then at ask(). For test_lib_*.c, each of which has its own copy.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>

#include "agents/wheel.h"
#include "core/mail/dns.h"
#include "core/runtime/runtime.h"
#include "tests/unit/policy_script.h"

#define JOBS_MAX 64
#define TEXT_MAX 8192
#define MEMORY_BYTES (4 << 20)

struct policy_world {
	struct runtime rt;
	struct wheel_agent *wheel;
	struct agent agent;
	struct instant now;
	struct policy *policy;
	struct policy_subject subject;
	/* Those that wait for a thread, the first one first. */
	struct policy_job *jobs[JOBS_MAX];
	unsigned job_count;
	struct policy_lookup *asked;
	const struct policy_source *sources;
	unsigned source_count;
	char printed[TEXT_MAX];
	char errors[TEXT_MAX];
	unsigned error_count;
	/* Hooks that had to wait and ended; orders that ended. */
	unsigned done;
	unsigned ordered;
	/* Called when a script prints; NULL: nothing. */
	void (*on_printed)(const char *text);
};

static struct policy_world *world;

static inline uint64_t tell_monotonic(void *context)
{
	return ((struct policy_world *)context)->now.mono_ns;
}

static inline uint64_t tell_wall(void *context)
{
	return ((struct policy_world *)context)->now.wall_ns;
}

static inline int do_nothing(struct agent *self)
{
	(void)self;
	return 0;
}

/* ---- what policy asks for ---- */

/* Without the end of its last line. */
static inline void add_text(char to[TEXT_MAX], const char *text, size_t len)
{
	size_t used = strlen(to);

	len -= len > 0 && text[len - 1] == '\n';
	snprintf(to + used, TEXT_MAX - used, "%.*s;", (int)len, text);
}

static inline void on_print(void *context, const char *text, size_t len)
{
	(void)context;
	add_text(world->printed, text, len);
	if (world->on_printed != NULL) {
		world->on_printed(text);
	}
}

/* Its first line. */
static inline void on_error(void *context, const char *text)
{
	(void)context;
	add_text(world->errors, text, strcspn(text, "\n"));
	world->error_count++;
}

static inline void on_lookup(void *context, struct policy_lookup *q)
{
	(void)context;
	assert_null(world->asked);
	world->asked = q;
}

static inline void on_job(void *context, struct policy_job *job)
{
	(void)context;
	assert_true(world->job_count < JOBS_MAX);
	world->jobs[world->job_count++] = job;
}

static inline const struct policy_source *find_source(void *context, const char *name)
{
	(void)context;
	for (unsigned i = 0; i < world->source_count; i++) {
		if (strcmp(world->sources[i].name, name) == 0) {
			return &world->sources[i];
		}
	}
	return NULL;
}

static inline void answer_next(enum dns_status status)
{
	const struct dns_answer a = {.type = DNS_A, .status = status};
	struct policy_lookup *q = world->asked;

	assert_non_null(q);
	world->asked = NULL;
	q->on_answer(q, &a);
}

/* The first job is done, or, with a negative errno, is not. */
static inline void work_next(int result)
{
	struct policy_job *job = world->jobs[0];

	assert_true(world->job_count > 0);
	world->job_count--;
	memmove(world->jobs, world->jobs + 1, world->job_count * sizeof(*world->jobs));
	if (result == 0) {
		job->work(job);
	}
	job->on_done(job, result);
}

static inline void work_all(void)
{
	while (world->job_count > 0) {
		work_next(0);
	}
}

/* ---- time ---- */

static inline void step_ms(uint64_t ms)
{
	for (uint64_t i = 0; i < ms; i++) {
		world->now.mono_ns += NS_PER_MS;
		world->now.wall_ns += NS_PER_MS;
		runtime_step(&world->rt);
	}
}

/* ---- life ---- */

/* What one call may take; of processor time, too. */
static uint64_t instructions = 1000000;

/* The state that scripts run in from now on, its timers begun. */
static inline void load(const char *text)
{
	static const struct policy_ops ops = {.print = on_print,
					      .error = on_error,
					      .lookup = on_lookup,
					      .run = on_job,
					      .source = find_source};
	static const struct policy_subject_ops no_facts = {.known = NULL};
	struct policy_scripts scripts = {0};
	const struct policy_start start = {
		.scripts = &scripts,
		.limits = {.memory_bytes = MEMORY_BYTES, .instructions = instructions},
		.ops = &ops,
	};

	assert_null(world->policy);
	add_script(&scripts, "test", text);
	world->policy = policy_create(&world->agent, &start, stderr);
	assert_non_null(world->policy);
	policy_scripts_close(&scripts);
	policy_subject_init(&world->subject, world->policy, &no_facts, world);
	policy_start_timers(world->policy);
}

/* Nothing waits in it any more. */
static inline void unload(void)
{
	policy_stop_timers(world->policy);
	work_all();
	policy_subject_close(&world->subject);
	assert_true(policy_idle(world->policy));
	policy_destroy(world->policy);
	world->policy = NULL;
}

static inline int set_up(void **state)
{
	static const struct agent_ops agent_ops = {.kind = "test", .do_work = do_nothing};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct clock clock;
	struct group *g;

	(void)state;
	world = aligned_alloc(CACHE_LINE,
			      (sizeof(*world) + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	world->now = (struct instant){100 * NS_PER_S, 1700000000 * NS_PER_S};
	clock = (struct clock){tell_monotonic, tell_wall, world};
	runtime_init(&world->rt, &clock);
	world->rt.backend = MUX_POLL;
	g = runtime_group(&world->rt, "group", -1, &idle);
	agent_init(&world->agent, &agent_ops, "test", 0);
	world->wheel = wheel_agent_create("wheel");
	runtime_add(&world->rt, g, &world->agent);
	runtime_add(&world->rt, g, wheel_agent_base(world->wheel));
	runtime_set_wheel(&world->rt, wheel_agent_base(world->wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	step_ms(2);
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	if (world->policy != NULL) {
		unload();
	}
	assert_int_equal(world->job_count, 0);
	step_ms(2);
	assert_true(runtime_invoke_stop(&world->rt, 100));
	runtime_close(&world->rt);
	agent_close(&world->agent);
	wheel_agent_destroy(world->wheel);
	free(world);
	return 0;
}

/* ---- calling ---- */

static inline void on_ordered(void *context, const char *output, size_t len, bool failed)
{
	(void)context;
	(void)failed;
	add_text(world->printed, output, len);
	world->ordered++;
}

/* Runs code, which may wait, as a command of the console does; the end of what it prints, or the
 * error that ended it, goes to world->printed. */
static inline void ask(const char *code)
{
	policy_order(world->policy, NULL, 0, code, on_ordered, NULL);
}

/* That since the last look. */
static inline void assert_printed(const char *wanted)
{
	assert_string_equal(world->printed, wanted);
	world->printed[0] = '\0';
}

static inline void on_call_done(struct policy_call *c)
{
	(void)c;
	world->done++;
}

/* The hook of EHLO, whose session may go while it waits. */
static inline struct policy_call ehlo(const char *argument)
{
	return (struct policy_call){
		.subject = &world->subject,
		.hook = POLICY_EHLO,
		.argument = argument,
		.on_done = on_call_done,
	};
}
