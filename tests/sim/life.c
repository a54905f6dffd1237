#include "tests/sim/life.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agents/crew.h"
#include "config/config.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"
#include "tests/sim/accounts.h"
#include "tests/sim/actors.h"
#include "tests/sim/books.h"
#include "tests/sim/disk.h"
#include "tests/sim/kernel.h"
#include "tests/sim/net.h"
#include "tests/sim/sanitizer.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"
#include "tools/server.h"

/* How long one duty cycle takes. */
#define CYCLE_NS_MIN 500
#define CYCLE_NS_MAX 20000
/* Now and then a thread loses its core. */
#define LOST_NS_MAX (20 * NS_PER_MS)
/* Faults go on for so long in the last life, so that most mail meets some. */
#define RESTLESS_NS (600 * NS_PER_S)
/* All mail must have got through this long after the world has become calm. */
#define CALM_NS_MAX (2 * 3600 * NS_PER_S)
/* Who changes the number of schedulers does so once in so long, at most. */
#define CREW_NS_MAX (20 * NS_PER_S)
/* A stop takes no longer. */
#define STOP_NS_MAX (3600 * NS_PER_S)
/* A life that has used so much of the real processor goes round in a circle: it dies by SIGXCPU. */
#define PROCESSOR_S_MAX 600

/* A thread of the program. */
struct thread {
	struct group *group;
	bool asleep;
	/* Asleep: until then, and how long that was from the start. */
	uint64_t until_ns;
	uint64_t sleep_ns;
	/* Awake, but without a core until then. */
	uint64_t lost_until_ns;
};

struct life {
	struct server *server;
	struct runtime *runtime;
	struct thread threads[RUNTIME_GROUPS_MAX];
	uint32_t thread_count;
	/* When somebody wants another number of schedulers; 0: nobody ever does. */
	uint64_t crew_ns;
	/* The last life becomes calm at this time; it ends by itself. */
	uint64_t calm_ns;
	bool last;
	/* When it was told to stop; 0: not yet. */
	uint64_t stop_ns;
};

/* ---- threads ---- */

static void wake(struct thread *t, bool woken)
{
	t->asleep = false;
	group_wake_up(t->group, woken, t->sleep_ns);
	if (counter_get(t->group->park_timeout_with_work) != 0) {
		world_fail("group %s slept although work waited for it", t->group->name);
	}
}

/* Ends its sleep if there is a reason; true when it can run. */
static bool thread_ready(struct thread *t)
{
	if (!t->group->live) {
		t->asleep = false;
		return false;
	}
	if (!t->asleep) {
		return world->now_ns >= t->lost_until_ns;
	}
	if (kernel_take_bell(t->group->doorbell.eventfd) || mux_ready(t->group->mux)) {
		wake(t, true);
		return true;
	}
	if (world->now_ns >= t->until_ns) {
		wake(t, false);
		return true;
	}
	return false;
}

static void fall_asleep(struct thread *t)
{
	uint64_t limit_ns = t->group->idle.kind == IDLE_BACKOFF ? t->group->idle.max_park_ns
								: GROUP_PARK_MAX_NS;

	if (group_fall_asleep(t->group, limit_ns, &t->sleep_ns)) {
		t->asleep = true;
		t->until_ns = world->now_ns + t->sleep_ns;
	}
}

static void step(struct thread *t)
{
	int work = group_cycle(t->group);

	world_advance(world->now_ns + world_between(CYCLE_NS_MIN, CYCLE_NS_MAX));
	world->steps++;
	if (work == 0 && world_chance(700)) {
		fall_asleep(t);
	} else if (world_chance(2)) {
		t->lost_until_ns = world->now_ns + world_below(LOST_NS_MAX);
	}
}

/* When something happens next, all threads being asleep or without a core. */
static uint64_t next_ns(const struct life *l)
{
	uint64_t at_ns = world_next_ns();

	for (uint32_t i = 0; i < l->thread_count; i++) {
		const struct thread *t = &l->threads[i];
		uint64_t ns = t->asleep ? t->until_ns : t->lost_until_ns;

		at_ns = t->group->live && ns < at_ns ? ns : at_ns;
	}
	return at_ns > world->now_ns ? at_ns : world->now_ns + 1;
}

/* Those that have come while it runs. */
static void find_threads(struct life *l)
{
	while (l->thread_count < l->runtime->group_count) {
		l->threads[l->thread_count] =
			(struct thread){.group = l->runtime->groups[l->thread_count]};
		l->thread_count++;
	}
}

/* Runs one thread that is ready, any; or lets time go on until there is one. */
static void step_any(struct life *l)
{
	struct thread *ready[RUNTIME_GROUPS_MAX];
	uint32_t count = 0;

	find_threads(l);
	for (uint32_t i = 0; i < l->thread_count; i++) {
		if (thread_ready(&l->threads[i])) {
			ready[count++] = &l->threads[i];
		}
	}
	if (count == 0) {
		world_advance(next_ns(l));
		return;
	}
	step(ready[world_below(count)]);
}

/* ---- one life ---- */

/* The last life: when to become calm, and when all is done. */
static void look_for_the_end(struct life *l)
{
	struct books_totals t;

	if (!l->last || l->stop_ns != 0) {
		return;
	}
	if (!world->calm && world->now_ns >= l->calm_ns) {
		world->calm = true;
		world_trace("calm", 0, 0);
	}
	if (!world->calm) {
		return;
	}
	if (senders_done() && books_settled(world->books)) {
		books_closing(world->books);
		kernel_signal(SIGTERM);
	} else if (world->now_ns > l->calm_ns + CALM_NS_MAX) {
		t = books_totals(world->books);
		world_fail("mail does not get through in a calm world: %llu of %llu messages "
			   "accepted, %llu recipients, %llu delivered, %llu bounced, %llu failed; "
			   "%s",
			   (unsigned long long)t.accepted, (unsigned long long)t.messages,
			   (unsigned long long)t.recipients, (unsigned long long)t.delivered,
			   (unsigned long long)t.bounced, (unsigned long long)t.failed,
			   senders_done() ? books_unsettled(world->books) : "senders are not done");
	}
}

/* Those that keep a stop from going on, with what they are at; returns `text`. */
static const char *name_undrained(const struct runtime *rt, char *text, size_t size)
{
	static const char *const states[] = {"init", "started", "running", "stopping", "drained"};
	int phase = atomic_load(&rt->stop_phase);
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		const struct agent *a = rt->agents[i];
		int state = atomic_load(&a->state);
		bool input = atomic_load(&a->in_bits) != 0;

		if (a->stop_phase <= phase && (state != AGENT_DRAINED || input) && used < size) {
			used += (size_t)snprintf(text + used, size - used, " %s (%s%s)", a->name,
						 states[state], input ? ", has input" : "");
		}
	}
	return text;
}

/* A stop that goes on and on is a failure of its own, in any life. */
static void look_at_the_stop(struct life *l)
{
	char text[512];

	if (l->stop_ns == 0) {
		if (kernel_told_to_stop() || runtime_stopping(l->runtime)) {
			l->stop_ns = world->now_ns;
		}
		return;
	}
	if (world->now_ns - l->stop_ns > STOP_NS_MAX) {
		world_fail("the program does not stop; in phase %d not drained:%s",
			   atomic_load(&l->runtime->stop_phase),
			   name_undrained(l->runtime, text, sizeof text));
	}
}

static void on_crew(struct agent *self, void *context, int result, const char *why)
{
	(void)self;
	(void)context;
	(void)why;
	if (result != 0 && result != -ESHUTDOWN) {
		world_fail("schedulers cannot be changed: %s", strerror(-result));
	}
}

/* Somebody wants more schedulers, or fewer, and other idle strategies. */
static void change_crew(struct life *l)
{
	struct program *p = server_program(l->server);
	const char *group = config_agent(p->config, CONFIG_AGENT_SCHEDULER)->group;
	struct crew_plan plan = {.schedulers = 1};

	if (l->crew_ns == 0 || world->now_ns < l->crew_ns || world->calm ||
	    atomic_load(&l->runtime->state) != RUNTIME_RUNNING) {
		return;
	}
	plan.schedulers = (uint32_t)world_between(1, SCENARIO_SCHEDULERS_MAX);
	for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
		plan.cores[i] = -1;
	}
	plan.idle = world_chance(500) ? (struct idle){.kind = IDLE_PARK}
				      : (struct idle){.kind = IDLE_BACKOFF,
						      .max_spins = 5,
						      .max_yields = 5,
						      .min_park_ns = NS_PER_US,
						      .max_park_ns = 20 * NS_PER_MS};
	if (group != NULL) {
		snprintf(plan.group, sizeof plan.group, "%s", group);
	}
	world_trace("crew", plan.schedulers, plan.idle.kind);
	crew_set(p->crew, &p->schedulers[0]->base, &plan, on_crew, NULL);
	operators_crew_changes();
	l->crew_ns = world->now_ns + world_between(1, CREW_NS_MAX);
}

static void run(struct life *l)
{
	while (atomic_load(&l->runtime->state) != RUNTIME_FINISHED) {
		if (world->steps_max != 0 && world->steps >= world->steps_max) {
			_exit(LIFE_KILLED);
		}
		kernel_moment();
		look_for_the_end(l);
		look_at_the_stop(l);
		change_crew(l);
		step_any(l);
	}
}

static void begin(struct life *l)
{
	struct config *config;

	if (world->life > 1) {
		/* Whatever operators have written there is mended, or it would not start. */
		scenario_write_config(world->scenario, "");
	}
	config = config_load(SCENARIO_CONFIG, stderr);
	if (config == NULL && world->scenario->disk_faults) {
		_exit(LIFE_NOT_STARTED);
	}
	if (config == NULL) {
		world_fail("the scenario's configuration is wrong");
	}
	l->server = server_create(config, &world_clock, stderr);
	if (l->server == NULL) {
		_exit(LIFE_NOT_STARTED);
	}
	l->runtime = &server_program(l->server)->runtime;
	find_threads(l);
	if (runtime_invoke_start(l->runtime) != 0) {
		_exit(LIFE_NOT_STARTED);
	}
	operators_life_began();
}

/* It stopped by itself: nothing may be left. */
static void end(struct life *l)
{
	const struct program *p = server_program(l->server);

	accounts_check_drained(p);
	for (uint32_t i = l->thread_count; i-- > 0;) {
		if (l->runtime->groups[i]->live) {
			group_finish(l->runtime->groups[i]);
		}
	}
	accounts_check_torn_down(p);
	server_destroy(l->server);
	accounts_check_closed();
	kernel_check_closed();
	net_check_closed(world->net);
	disk_check_closed(world->disk);
	memset(l, 0, sizeof *l);
	sanitizer_check_leaks();
}

static _Noreturn void live(const struct scenario *s, const struct scenario_life *plan)
{
	static struct life l;
	const struct rlimit processor = {PROCESSOR_S_MAX, PROCESSOR_S_MAX + 10};
	bool last = plan->after_ns == UINT64_MAX;

	ASSERT(setrlimit(RLIMIT_CPU, &processor) == 0);
	sanitizer_watch();
	l.last = last;
	l.calm_ns = world->now_ns + s->life_ns + (s->clean ? 0 : RESTLESS_NS);
	l.crew_ns = s->crew_changes ? world->now_ns + world_between(1, CREW_NS_MAX) : 0;
	kernel_boot(plan->end, last ? UINT64_MAX : world->now_ns + plan->after_ns);
	accounts_begin();
	begin(&l);
	run(&l);
	end(&l);
	_exit(LIFE_STOPPED);
}

/* The process has not said itself why it failed. */
static bool unexplained(void)
{
	return world->failure[0] == '\0';
}

static int end_of(int status)
{
	if (WIFEXITED(status)) {
		switch (WEXITSTATUS(status)) {
		case LIFE_STOPPED:
		case LIFE_KILLED:
		case LIFE_CUT:
		case LIFE_NOT_STARTED:
		case LIFE_FAILED:
			return WEXITSTATUS(status);
		default:
			if (unexplained()) {
				snprintf(world->failure, sizeof world->failure,
					 "the program ended with status %d", WEXITSTATUS(status));
			}
			return LIFE_FAILED;
		}
	}
	if (unexplained()) {
		snprintf(world->failure, sizeof world->failure,
			 "the program died by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	}
	return LIFE_FAILED;
}

int life_run(const struct scenario *s, const struct scenario_life *plan)
{
	pid_t child;
	int status;
	int how;

	world->life++;
	world_trace("life", world->life, (uint64_t)plan->end);
	fflush(NULL);
	child = fork();
	ASSERT(child >= 0);
	if (child == 0) {
		live(s, plan);
	}
	while (waitpid(child, &status, 0) < 0) {
		ASSERT(errno == EINTR);
	}
	how = end_of(status);
	if (how == LIFE_FAILED) {
		return how;
	}
	net_process_died(world->net, how == LIFE_CUT);
	disk_process_died(world->disk);
	if (how == LIFE_CUT) {
		disk_power_cut(world->disk);
	}
	books_life_ended(world->books, how);
	return how;
}
