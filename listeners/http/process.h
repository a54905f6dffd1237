/*
 * What the kernel says of the process. Most of it is there at once; to count open files takes long
 * when there are many, so a thread of the pool does that, now and then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "agents/thread_pool.h"
#include "core/runtime/thread_class.h"

BOUND
struct process_files {
	struct job job;
	bool busy;
	/* Nothing has been counted yet. */
	bool unknown;
	/* The worker's while busy. */
	uint64_t counted;
	uint64_t open;
};

BOUND
void process_files_init(struct process_files *f);

/* Begins to count, unless that is under way, or there is no pool. */
BOUND
void process_files_count(struct process_files *f, struct scheduler *s);

struct process_memory {
	uint64_t resident_bytes;
	uint64_t virtual_bytes;
};

/* Zeros when it cannot be known. */
CONCURRENT
struct process_memory process_memory(void);

/* CPU time of all threads, s. */
CONCURRENT
double process_cpu_s(void);

/* When the process began, s since 1970; 0 when it cannot be known. */
CONCURRENT
double process_start_s(void);

/* Files that it may open. */
CONCURRENT
uint64_t process_files_max(void);
