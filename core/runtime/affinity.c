#include "core/runtime/affinity.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NAME_BYTES 16

/* Where a cgroup's limit is read: "mount/hierarchy" and the path below it. */
struct cgroup {
	const char *mount;
	const char *hierarchy;
	const char *path;
};

static unsigned cores_of(uint64_t quota_us, uint64_t period_us)
{
	uint64_t cores;

	if (quota_us == 0 || period_us == 0) {
		return 0;
	}
	cores = quota_us / period_us + (quota_us % period_us != 0);
	return cores > UINT_MAX ? UINT_MAX : (unsigned)cores;
}

/* The tighter of two quotas, where 0 is none. */
static unsigned tighter(unsigned a, unsigned b)
{
	if (a == 0 || b == 0) {
		return a + b;
	}
	return a < b ? a : b;
}

/* Reads the first line of a small file. False when there is none. */
static bool read_line(const char *path, char *line, int size)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (f == NULL) {
		return false;
	}
	ok = fgets(line, size, f) != NULL;
	fclose(f);
	return ok;
}

static bool cgroup_line(const struct cgroup *g, size_t path_len, const char *file, char *line,
			int size)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s%s%.*s/%s", g->mount, g->hierarchy, (int)path_len,
			 g->path, file);

	return n > 0 && (size_t)n < sizeof(path) && read_line(path, line, size);
}

/* cgroup v2: "max 100000" or "150000 100000", in microseconds. */
static unsigned quota_v2(const struct cgroup *g, size_t path_len)
{
	unsigned long long quota;
	unsigned long long period;
	char line[128];

	if (!cgroup_line(g, path_len, "cpu.max", line, sizeof(line)) ||
	    !isdigit((unsigned char)line[0]) || sscanf(line, "%llu %llu", &quota, &period) != 2) {
		return 0;
	}
	return cores_of(quota, period);
}

/* cgroup v1: two files; a quota of -1 is none. */
static unsigned quota_v1(const struct cgroup *g, size_t path_len)
{
	char quota[64];
	char period[64];

	if (!cgroup_line(g, path_len, "cpu.cfs_quota_us", quota, sizeof(quota)) ||
	    !cgroup_line(g, path_len, "cpu.cfs_period_us", period, sizeof(period)) ||
	    !isdigit((unsigned char)quota[0]) || !isdigit((unsigned char)period[0])) {
		return 0;
	}
	return cores_of(strtoull(quota, NULL, 10), strtoull(period, NULL, 10));
}

/* A parent's limit binds its children too; inside a container the path may not exist, its root
 * does. */
static unsigned quota_up(const struct cgroup *g, unsigned (*quota)(const struct cgroup *, size_t))
{
	size_t len = strlen(g->path);
	unsigned best = 0;

	for (;;) {
		best = tighter(best, quota(g, len));
		if (len == 0) {
			return best;
		}
		while (len > 0 && g->path[len - 1] != '/') {
			len--;
		}
		if (len > 0) {
			len--;
		}
	}
}

static bool names_cpu(const char *controllers)
{
	char list[256];
	char *rest = NULL;

	snprintf(list, sizeof(list), "%s", controllers);
	for (char *c = strtok_r(list, ",", &rest); c != NULL; c = strtok_r(NULL, ",", &rest)) {
		if (strcmp(c, "cpu") == 0) {
			return true;
		}
	}
	return false;
}

static unsigned quota_of_v1(const char *mount, const char *controllers, const char *path)
{
	char hierarchy[256];
	struct cgroup named = {.mount = mount, .hierarchy = hierarchy, .path = path};
	struct cgroup plain = {.mount = mount, .hierarchy = "/cpu", .path = path};

	snprintf(hierarchy, sizeof(hierarchy), "/%s", controllers);
	return tighter(quota_up(&named, quota_v1), quota_up(&plain, quota_v1));
}

static unsigned quota_of_v2(const char *mount, const char *path)
{
	struct cgroup alone = {.mount = mount, .hierarchy = "", .path = path};
	struct cgroup hybrid = {.mount = mount, .hierarchy = "/unified", .path = path};

	return tighter(quota_up(&alone, quota_v2), quota_up(&hybrid, quota_v2));
}

/* One line of /proc/self/cgroup, "ID:CONTROLLERS:PATH"; v2 has no controllers. */
static unsigned quota_of_line(const char *mount, char *line)
{
	char *controllers = strchr(line, ':');
	char *path;

	if (controllers == NULL) {
		return 0;
	}
	*controllers++ = '\0';
	path = strchr(controllers, ':');
	if (path == NULL) {
		return 0;
	}
	*path++ = '\0';
	path[strcspn(path, "\n")] = '\0';
	if (controllers[0] == '\0') {
		return quota_of_v2(mount, path);
	}
	return names_cpu(controllers) ? quota_of_v1(mount, controllers, path) : 0;
}

unsigned affinity_quota(const char *cgroup_file, const char *mount)
{
	FILE *f = fopen(cgroup_file, "re");
	unsigned best = 0;
	char *line = NULL;
	size_t size = 0;

	if (f == NULL) {
		return 0;
	}
	while (getline(&line, &size, f) >= 0) {
		best = tighter(best, quota_of_line(mount, line));
	}
	free(line);
	fclose(f);
	return best;
}

static unsigned affinity_cores(void)
{
	cpu_set_t set;
	long online;

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) {
		return (unsigned)CPU_COUNT(&set);
	}
	/* A machine with more cores than cpu_set_t holds. */
	online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}

struct usable_cores affinity_usable(void)
{
	unsigned cores = affinity_cores();
	unsigned quota = affinity_quota("/proc/self/cgroup", "/sys/fs/cgroup");
	bool limited = quota != 0 && quota < cores;

	return (struct usable_cores){
		.cores = cores,
		.quota = quota == 0 ? cores : quota,
		.usable = limited ? quota : cores,
		.limited = limited,
	};
}

/* A decimal core number below CPU_SETSIZE; moves `*at` behind it. -EINVAL when there is none. */
static int parse_core(const char **at)
{
	int core = 0;

	if (!isdigit((unsigned char)**at)) {
		return -EINVAL;
	}
	for (; isdigit((unsigned char)**at); (*at)++) {
		core = core * 10 + (**at - '0');
		if (core >= CPU_SETSIZE) {
			return -EINVAL;
		}
	}
	return core;
}

/* "5" or "0-3". 0 or -EINVAL. */
static int parse_range(const char **at, cpu_set_t *set)
{
	int first = parse_core(at);
	int last = first;

	if (first >= 0 && **at == '-') {
		(*at)++;
		last = parse_core(at);
	}
	if (first < 0 || last < first) {
		return -EINVAL;
	}
	for (int core = first; core <= last; core++) {
		CPU_SET((size_t)core, set);
	}
	return 0;
}

int affinity_parse_list(const char *list)
{
	cpu_set_t set;
	int rc;

	CPU_ZERO(&set);
	for (;;) {
		rc = parse_range(&list, &set);
		if (rc != 0) {
			return rc;
		}
		if (*list != ',') {
			break;
		}
		list++;
	}
	if (*list == '\n') {
		list++;
	}
	return *list == '\0' ? CPU_COUNT(&set) : -EINVAL;
}

int affinity_pin(int core)
{
	cpu_set_t set;

	if (core < 0 || core >= CPU_SETSIZE) {
		return -EINVAL;
	}
	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

void affinity_remember(cpu_set_t *cores)
{
	if (pthread_getaffinity_np(pthread_self(), sizeof(*cores), cores) != 0) {
		CPU_ZERO(cores);
	}
}

int affinity_unpin(const cpu_set_t *cores)
{
	if (CPU_COUNT(cores) == 0) {
		return 0;
	}
	return -pthread_setaffinity_np(pthread_self(), sizeof(*cores), cores);
}

void affinity_name_thread(const char *name)
{
	char cut[NAME_BYTES];

	snprintf(cut, sizeof(cut), "%s", name);
	/* Neither matters enough to fail for. */
	(void)pthread_setname_np(pthread_self(), cut);
	(void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}
