/*
 * fwmicro: micro benchmarks of flywheel's parts. The only program of perf/ that is linked with
 * flywheel: it calls what it measures. Start reading at measure_group().
 */
#include <dirent.h>
#include <err.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/micro/measure.h"
#include "perf/micro/micro.h"
#include "perf/micro/report.h"
#include "perf/number.h"

#define RUNS_MAX 1000
#define PATH_BYTES 4096

static const char help[] =
	"Usage: fwmicro [OPTION]... [GROUP]...\n"
	"Measure what parts of flywheel cost, each beside a reference that is measured in turn with it.\n"
	"\n"
	"  --runs N         measure everything N times (default 5); the table has the median\n"
	"  --quick          only as much as shows that everything works; the figures mean nothing\n"
	"  --json           a line of JSON for each row, with all its runs, in place of the table\n"
	"  --list           names and units of the rows; measures nothing\n"
	"  --dir DIR        where commit, fsync and jlog write (default .); a directory is made there,\n"
	"                   of some 400 MiB, and removed\n"
	"  --cores A,B      cores to run on (default: the first two that may be used)\n"
	"  --help           this text\n"
	"\n"
	"Groups (default: all):\n";

static const char help_end[] =
	"\n"
	"A row that has a reference says how many times its median it has. Times are those of one core\n"
	"that does nothing else: threads are pinned.\n"
	"\n"
	"Exit status: 0; 1 when it was stopped by a signal; 2 for wrong use or a failure.\n";

static const struct micro_group *const groups[] = {
	&micro_ring, &micro_agent, &micro_doorbell, &micro_wheel,  &micro_commit, &micro_fsync,
	&micro_smtp, &micro_reply, &micro_address,  &micro_header, &micro_event,  &micro_message,
	&micro_dkim, &micro_seal,  &micro_bounce,   &micro_jlog,
};

#define GROUPS (sizeof(groups) / sizeof(groups[0]))

struct micro_options micro = {.cores = {-1, -1}};

static struct {
	bool wanted[GROUPS];
	unsigned runs;
	bool json;
	bool list;
	const char *parent;
	char directory[PATH_BYTES];
} run = {.runs = 5, .parent = "."};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

/* ---- the run's own directory ---- */

static void directory_make(void)
{
	if (snprintf(run.directory, sizeof(run.directory), "%s/fwmicro-XXXXXX", run.parent) >=
		    (int)sizeof(run.directory) ||
	    mkdtemp(run.directory) == NULL) {
		err(2, "cannot make a directory in %s", run.parent);
	}
	micro.directory = run.directory;
}

static void directory_empty(void)
{
	DIR *d = opendir(run.directory);
	const struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL) {
		unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d != NULL) {
		closedir(d);
	}
}

static void directory_remove(void)
{
	directory_empty();
	rmdir(run.directory);
}

/* ---- the command line ---- */

static void print_help(void)
{
	fputs(help, stdout);
	for (unsigned i = 0; i < GROUPS; i++) {
		printf("  %-16s %s\n", groups[i]->name, groups[i]->label);
	}
	fputs(help_end, stdout);
}

static void want_group(const char *name)
{
	for (unsigned i = 0; i < GROUPS; i++) {
		if (strcmp(groups[i]->name, name) == 0) {
			run.wanted[i] = true;
			return;
		}
	}
	errx(2, "there is no group \"%s\"; --help tells", name);
}

static uint64_t number(const char *option, const char *word, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (number_parse(word, min, max, &value) != 0) {
		errx(2, "--%s: \"%s\" is not a number from %llu to %llu", option, word,
		     (unsigned long long)min, (unsigned long long)max);
	}
	return value;
}

static void set_cores(char *word)
{
	char *comma = strchr(word, ',');

	if (comma == NULL) {
		errx(2, "--cores: \"%s\" is not two numbers with a comma", word);
	}
	*comma = '\0';
	micro.cores[0] = (int)number("cores", word, 0, CPU_SETSIZE - 1);
	micro.cores[1] = (int)number("cores", comma + 1, 0, CPU_SETSIZE - 1);
	if (micro.cores[0] == micro.cores[1]) {
		errx(2, "--cores: two different ones are wanted");
	}
}

static void parse_command_line(int argc, char **argv)
{
	static const struct option options[] = {
		{"runs", required_argument, NULL, 'r'}, {"quick", no_argument, NULL, 'q'},
		{"json", no_argument, NULL, 'j'},       {"list", no_argument, NULL, 'l'},
		{"dir", required_argument, NULL, 'd'},  {"cores", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
	};
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'r':
			run.runs = (unsigned)number("runs", optarg, 1, RUNS_MAX);
			break;
		case 'q':
			micro.quick = true;
			break;
		case 'j':
			run.json = true;
			break;
		case 'l':
			run.list = true;
			break;
		case 'd':
			run.parent = optarg;
			break;
		case 'c':
			set_cores(optarg);
			break;
		case 'h':
			print_help();
			exit(0);
		default:
			exit(2);
		}
	}
	for (int i = optind; i < argc; i++) {
		want_group(argv[i]);
	}
	for (unsigned i = 0; optind == argc && i < GROUPS; i++) {
		run.wanted[i] = true;
	}
}

/* ---- measuring ---- */

/* The first two cores that this process may use. */
static void choose_cores(void)
{
	unsigned found = 0;
	cpu_set_t set;

	if (micro.cores[0] >= 0 || sched_getaffinity(0, sizeof(set), &set) != 0) {
		return;
	}
	for (unsigned core = 0; core < CPU_SETSIZE && found < 2; core++) {
		if (CPU_ISSET(core, &set)) {
			micro.cores[found++] = (int)core;
		}
	}
}

static void prepare(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	choose_cores();
	for (unsigned i = 0; i < GROUPS; i++) {
		if (run.wanted[i] && groups[i]->two_cores && micro.cores[1] < 0) {
			errx(2, "%s needs two cores", groups[i]->name);
		}
	}
	directory_make();
	atexit(directory_remove);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	measure_calibrate();
	measure_pin(0);
}

/* Every case once, one after the other; then again. */
static void measure_group(const struct micro_group *g)
{
	struct report_values v = {.runs = run.runs, .rows = report_rows(g)};
	double *at;

	v.values = calloc((size_t)v.runs * v.rows, sizeof(*v.values));
	if (v.values == NULL) {
		errx(2, "out of memory");
	}
	if (g->begin != NULL) {
		g->begin();
	}
	at = v.values;
	for (unsigned i = 0; i < run.runs; i++) {
		for (unsigned c = 0; c < g->case_count && !stop; c++) {
			g->cases[c].run(&g->cases[c], at);
			at += report_case_rows(&g->cases[c]);
		}
	}
	if (g->end != NULL) {
		g->end();
	}
	directory_empty();
	if (!stop) {
		report_group(g, &v, run.json);
	}
	free(v.values);
}

int main(int argc, char **argv)
{
	parse_command_line(argc, argv);
	if (!run.list) {
		prepare();
		report_heading(run.json);
	}
	for (unsigned i = 0; i < GROUPS && !stop; i++) {
		if (run.wanted[i] && run.list) {
			report_list(groups[i]);
		} else if (run.wanted[i]) {
			measure_group(groups[i]);
		}
	}
	return stop ? 1 : 0;
}
