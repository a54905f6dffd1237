#include "listeners/http/process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/check.h"

/* Of /proc/PID/stat, counted after the name in parentheses: the time when it began. */
#define STAT_START_FIELD 20

/* ---- open files ---- */

static void count_files(struct job *job)
{
	struct process_files *f = CONTAINER_OF(job, struct process_files, job);
	DIR *dir = opendir("/proc/self/fd");

	f->counted = 0;
	while (dir != NULL && readdir(dir) != NULL) {
		f->counted++;
	}
	if (dir != NULL) {
		closedir(dir);
	}
	/* Itself and its parent, and the folder that was read. */
	f->counted = f->counted > 3 ? f->counted - 3 : 0;
}

static void on_counted(struct agent *self, struct job *job, int result)
{
	struct process_files *f = CONTAINER_OF(job, struct process_files, job);

	(void)self;
	f->busy = false;
	if (result == 0 && f->counted != 0) {
		f->unknown = false;
		f->open = f->counted;
	}
}

void process_files_init(struct process_files *f)
{
	*f = (struct process_files){.unknown = true};
}

void process_files_count(struct process_files *f, struct scheduler *s)
{
	if (f->busy || s->program->pool == NULL) {
		return;
	}
	f->busy = true;
	f->job = (struct job){.work = count_files, .on_done = on_counted};
	thread_pool_run(s->program->pool, &s->base, &f->job);
}

uint64_t process_files_max(void)
{
	struct rlimit files;

	return getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : 0;
}

/* ---- the rest ---- */

static bool read_file(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "re");
	size_t len;

	if (f == NULL) {
		return false;
	}
	len = fread(text, 1, size - 1, f);
	text[len] = '\0';
	fclose(f);
	return len != 0;
}

struct process_memory process_memory(void)
{
	struct process_memory m = {0, 0};
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned long long total, resident;
	char text[256];

	if (read_file("/proc/self/statm", text, sizeof(text)) &&
	    sscanf(text, "%llu %llu", &total, &resident) == 2) {
		m.resident_bytes = resident * page;
		m.virtual_bytes = total * page;
	}
	return m;
}

static double clock_s(clockid_t clock)
{
	struct timespec t = {0, 0};

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double process_cpu_s(void)
{
	return clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

double process_start_s(void)
{
	unsigned long long ticks;
	char text[1024];
	char *at;

	if (!read_file("/proc/self/stat", text, sizeof(text)) ||
	    (at = strrchr(text, ')')) == NULL) {
		return 0;
	}
	for (int i = 0; i < STAT_START_FIELD && at != NULL; i++) {
		at = strchr(at + 1, ' ');
	}
	if (at == NULL || sscanf(at, "%llu", &ticks) != 1) {
		return 0;
	}
	return clock_s(CLOCK_REALTIME) - clock_s(CLOCK_BOOTTIME) +
	       (double)ticks / (double)sysconf(_SC_CLK_TCK);
}
