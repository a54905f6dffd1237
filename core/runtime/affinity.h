/*
 * Cores: which ones this process may use (affinity mask, cgroup cpuset and CPU quota counted) and
 * pinning the calling thread.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/runtime/thread_class.h"

CONCURRENT
struct usable_cores {
	/* Cores in the affinity mask (the kernel folds the cpuset into it). */
	unsigned cores;
	/* CPU quota of the cgroup (v2 cpu.max or v1 cfs), in cores, rounded up; `cores` without
	 * one. */
	unsigned quota;
	/* The smaller of both, at least 1. */
	unsigned usable;
	/* A quota below `cores` applies. */
	bool limited;
};

CONCURRENT
struct usable_cores affinity_usable(void);

/*
 * The CPU quota in cores, rounded up, of the cgroup that `cgroup_file` (/proc/self/cgroup) names or
 * of the tightest of its parents, below the mount point `mount` (/sys/fs/cgroup); 0 without one.
 * Reads v2 cpu.max and v1 cpu.cfs_quota_us; what is not there counts as no limit.
 */
CONCURRENT
unsigned affinity_quota(const char *cgroup_file, const char *mount);

/* Parses the kernel's list format, "0-3,5"; counts the cores; -EINVAL when it is no such list. */
CONCURRENT
int affinity_parse_list(const char *list);

/* Pins the calling thread to `core` (0 to CPU_SETSIZE-1). 0 or a negative errno; -EINVAL when the
 * core is not usable. Failing to pin is a warning, never fatal. */
CONCURRENT
int affinity_pin(int core);

/* The calling thread's cores, none: they cannot be told, as on a machine with more of them than
 * cpu_set_t holds; and gives it those again, unless there are none. 0 or a negative errno. */
CONCURRENT
void affinity_remember(cpu_set_t *cores);
CONCURRENT
int affinity_unpin(const cpu_set_t *cores);

/* Names the calling thread (cut to 15 bytes) and sets its timer slack to 1 ns, so that a park of
 * 1 us is not one of 51 us. */
CONCURRENT
void affinity_name_thread(const char *name);
