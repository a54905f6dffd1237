/*
 * simulate: runs flywheel in a simulated world, one seed after the other, and balances the books.
 *
 * Start reading at run_seed().
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "tests/sim/actors.h"
#include "tests/sim/books.h"
#include "tests/sim/disk.h"
#include "tests/sim/life.h"
#include "tests/sim/net.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

#define JOBS_MAX 64
/* Enough for a sanitizer's report. */
#define TAIL_BYTES 16384
/* A life in which nothing was done counts; so many in a row are a failure. */
#define NOT_STARTED_MAX 100

static const char *const help_text =
	"Usage: simulate --seed N [--steps M] [--verbose]\n"
	"       simulate --seeds A..B [--jobs N] [--stop-at-failure]\n"
	"       simulate --soak [--seed N] [--jobs N]\n"
	"\n"
	"Runs all of flywheel on one thread in a simulated world: time, network, disk, peers,\n"
	"operators, kills and power cuts, all drawn from a seed. After each run the books must\n"
	"balance. Two runs of a seed print the same trace hash.\n"
	"\n"
	"      --seed N           one run, exactly the same each time\n"
	"      --steps M          ends the run after M steps of the program's threads, unchecked\n"
	"      --verbose          prints what happens, and what the program says\n"
	"      --seeds A..B       many runs; prints those that fail, and a summary\n"
	"      --soak             on and on, from --seed or the time of day, until stopped\n"
	"      --jobs N           runs at a time (default: cores)\n"
	"      --stop-at-failure  starts no more runs after the first that fails\n"
	"  -h, --help             prints this text\n"
	"\n"
	"Exit status: 0 when all runs passed, 1 when one failed, 2 for wrong usage.\n";

struct options {
	uint64_t first;
	uint64_t last;
	uint64_t steps_max;
	uint32_t jobs;
	bool one;
	bool soak;
	bool verbose;
	bool stop_at_failure;
};

/* A run under way, in a process of its own. */
struct job {
	pid_t process;
	uint64_t seed;
	struct world *world;
	/* What the program says on stderr. */
	int errors;
};

struct summary {
	uint64_t passed;
	uint64_t failed;
	uint64_t lives;
	uint64_t simulated_ns;
	struct books_totals totals;
	struct timespec began;
};

static volatile sig_atomic_t stopped;

/* ---- one run ---- */

/* True when another life may follow. */
static bool life_goes_on(int how, const struct scenario_life *plan, unsigned *not_started)
{
	if (how == LIFE_FAILED) {
		_exit(LIFE_FAILED);
	}
	if (world->steps_max != 0 && world->steps >= world->steps_max) {
		return false;
	}
	if (how == LIFE_NOT_STARTED && (world->calm || ++*not_started == NOT_STARTED_MAX)) {
		world_fail("the program does not start");
	}
	return plan->after_ns != UINT64_MAX || how != LIFE_STOPPED;
}

/* In a process of its own; its exit status is 0 or LIFE_FAILED. */
static _Noreturn void run_seed(void)
{
	struct scenario_life plan;
	unsigned not_started = 0;
	int how;

	world->net = net_create();
	world->disk = disk_create();
	world->books = books_create();
	world->scenario = scenario_create();
	do {
		plan = scenario_next_life(world->scenario);
		how = life_run(world->scenario, &plan);
	} while (life_goes_on(how, &plan, &not_started));
	if (world->steps_max == 0) {
		books_check(world->books);
	}
	_exit(0);
}

static void job_start(struct job *j, uint64_t seed, const struct options *o)
{
	world_create(seed);
	world->verbose = o->verbose;
	world->steps_max = o->steps_max;
	j->seed = seed;
	j->world = world;
	j->errors = memfd_create("stderr", MFD_CLOEXEC);
	ASSERT(j->errors >= 0);
	fflush(NULL);
	j->process = fork();
	ASSERT(j->process >= 0);
	if (j->process == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		if (!o->verbose) {
			ASSERT(dup2(j->errors, STDERR_FILENO) == STDERR_FILENO);
		}
		run_seed();
	}
	world = NULL;
}

/* ---- what came of it ---- */

static void print_errors(int fd)
{
	char text[TAIL_BYTES + 1];
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > TAIL_BYTES ? size - TAIL_BYTES : 0;
	ssize_t n = pread(fd, text, TAIL_BYTES, from);

	if (n > 0) {
		text[n] = '\0';
		printf("the program said:\n%s", text);
	}
}

static void print_failure(const struct job *j, int status)
{
	const struct world *w = j->world;

	printf("seed %llu FAILED in life %u at %.6f s, step %llu: %s\n",
	       (unsigned long long)j->seed, w->life, (double)w->now_ns / 1e9,
	       (unsigned long long)w->steps,
	       w->failure[0] != '\0' ? w->failure : "no reason given");
	if (WIFSIGNALED(status)) {
		printf("the simulator died by signal %d\n", WTERMSIG(status));
	}
	print_errors(j->errors);
}

static void print_run(const struct job *j)
{
	struct books_totals t = books_totals(world->books);

	printf("seed %llu: %u lives, %.3f s simulated, %llu steps, %llu messages accepted, %llu "
	       "recipients: %llu delivered, %llu bounced, %llu failed\n",
	       (unsigned long long)j->seed, world->life, (double)world->now_ns / 1e9,
	       (unsigned long long)world->steps, (unsigned long long)t.accepted,
	       (unsigned long long)t.recipients, (unsigned long long)t.delivered,
	       (unsigned long long)t.bounced, (unsigned long long)t.failed);
	printf("trace %016llx over %llu events\n", (unsigned long long)world->trace,
	       (unsigned long long)world->trace_events);
}

static void sum_up(struct summary *s, const struct books_totals *t)
{
	s->totals.messages += t->messages;
	s->totals.accepted += t->accepted;
	s->totals.recipients += t->recipients;
	s->totals.delivered += t->delivered;
	s->totals.bounced += t->bounced;
	s->totals.failed += t->failed;
	s->totals.duplicates_excused += t->duplicates_excused;
	s->totals.lost_excused += t->lost_excused;
}

static void job_end(struct job *j, int status, const struct options *o, struct summary *s)
{
	struct books_totals t;

	world = j->world;
	if (world->books != NULL) {
		t = books_totals(world->books);
		sum_up(s, &t);
	}
	s->lives += world->life;
	s->simulated_ns += world->now_ns;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		s->passed++;
	} else {
		s->failed++;
		print_failure(j, status);
	}
	if (o->one) {
		print_run(j);
	}
	fflush(stdout);
	close(j->errors);
	world_destroy();
	j->process = 0;
}

static void print_summary(const struct summary *s, const char *end)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%llu seeds: %llu passed, %llu failed; %llu lives, %.1f h simulated in %lld s; %llu "
	       "messages accepted, %llu recipients: %llu delivered, %llu bounced, %llu failed by "
	       "operators; excused by crashes: %llu duplicates, %llu lost%s",
	       (unsigned long long)(s->passed + s->failed), (unsigned long long)s->passed,
	       (unsigned long long)s->failed, (unsigned long long)s->lives,
	       (double)s->simulated_ns / 3.6e12, (long long)(now.tv_sec - s->began.tv_sec),
	       (unsigned long long)s->totals.accepted, (unsigned long long)s->totals.recipients,
	       (unsigned long long)s->totals.delivered, (unsigned long long)s->totals.bounced,
	       (unsigned long long)s->totals.failed,
	       (unsigned long long)s->totals.duplicates_excused,
	       (unsigned long long)s->totals.lost_excused, end);
	fflush(stdout);
}

/* ---- many runs ---- */

static struct job *job_of(struct job *jobs, uint32_t count, pid_t process)
{
	for (uint32_t i = 0; i < count; i++) {
		if (jobs[i].process == process) {
			return &jobs[i];
		}
	}
	return NULL;
}

static void wait_for_one(struct job *jobs, const struct options *o, struct summary *s)
{
	int status;
	pid_t process = waitpid(-1, &status, 0);
	struct job *j = process > 0 ? job_of(jobs, o->jobs, process) : NULL;

	if (j != NULL) {
		job_end(j, status, o, s);
		if (o->soak && (s->passed + s->failed) % 500 == 0) {
			print_summary(s, "\n");
		}
	}
}

static int run_all(const struct options *o)
{
	struct job jobs[JOBS_MAX] = {0};
	struct summary s = {0};
	uint64_t next = o->first;
	uint32_t running = 0;

	clock_gettime(CLOCK_MONOTONIC, &s.began);
	for (;;) {
		bool more = !stopped && (o->soak || next <= o->last) &&
			    !(o->stop_at_failure && s.failed != 0);

		if (more && running < o->jobs) {
			job_start(job_of(jobs, o->jobs, 0), next++, o);
			running++;
		} else if (running > 0) {
			wait_for_one(jobs, o, &s);
			running = 0;
			for (uint32_t i = 0; i < o->jobs; i++) {
				running += jobs[i].process != 0;
			}
		} else {
			break;
		}
	}
	if (!o->one) {
		print_summary(&s, "\n");
	}
	return s.failed == 0 ? 0 : 1;
}

/* ---- the command line ---- */

static void on_stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static bool parse_number(const char *text, uint64_t *out, const char **end)
{
	char *after;

	errno = 0;
	*out = strtoull(text, &after, 10);
	*end = after;
	return after != text && errno == 0 && *text != '-';
}

static bool parse_whole(const char *option, const char *text, uint64_t *out)
{
	const char *end;

	if (!parse_number(text, out, &end) || *end != '\0') {
		fprintf(stderr, "simulate: --%s %s: expected a number\n", option, text);
		return false;
	}
	return true;
}

static bool parse_range(const char *text, struct options *o)
{
	const char *end;

	if (!parse_number(text, &o->first, &end) || strncmp(end, "..", 2) != 0 ||
	    !parse_number(end + 2, &o->last, &end) || *end != '\0' || o->last < o->first) {
		fprintf(stderr, "simulate: --seeds %s: expected A..B, two numbers\n", text);
		return false;
	}
	return true;
}

static const struct option long_options[] = {
	{"seed", required_argument, NULL, 's'},
	{"seeds", required_argument, NULL, 'r'},
	{"steps", required_argument, NULL, 'm'},
	{"jobs", required_argument, NULL, 'j'},
	{"soak", no_argument, NULL, 'k'},
	{"verbose", no_argument, NULL, 'v'},
	{"stop-at-failure", no_argument, NULL, 'f'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* 0: go on; otherwise 1 more than the exit status. */
static int parse_option(int c, const char *text, struct options *o)
{
	uint64_t number;
	bool ok = true;

	switch (c) {
	case 's':
		ok = parse_whole("seed", text, &o->first);
		o->last = o->first;
		o->one = true;
		break;
	case 'r':
		ok = parse_range(text, o);
		break;
	case 'm':
		ok = parse_whole("steps", text, &o->steps_max);
		break;
	case 'j':
		ok = parse_whole("jobs", text, &number) && number >= 1 && number <= JOBS_MAX;
		o->jobs = ok ? (uint32_t)number : 1;
		break;
	case 'k':
		o->soak = true;
		break;
	case 'v':
		o->verbose = true;
		break;
	case 'f':
		o->stop_at_failure = true;
		break;
	case 'h':
		fputs(help_text, stdout);
		return 1;
	default:
		ok = false;
		break;
	}
	return ok ? 0 : 3;
}

int main(int argc, char **argv)
{
	struct options o = {.first = 1, .last = 0};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int c;

	o.jobs = cores > 0 && cores <= JOBS_MAX ? (uint32_t)cores : 1;
	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		int rc = parse_option(c, optarg, &o);

		if (rc != 0) {
			return rc - 1;
		}
	}
	if (optind < argc || (!o.soak && o.last < o.first)) {
		fputs("simulate: one of --seed, --seeds and --soak is needed; try --help\n",
		      stderr);
		return 2;
	}
	if (o.soak && !o.one) {
		o.first = (uint64_t)time(NULL) * 1000;
	}
	o.one = o.one && !o.soak;
	signal(SIGINT, on_stop);
	signal(SIGTERM, on_stop);
	return run_all(&o);
}
