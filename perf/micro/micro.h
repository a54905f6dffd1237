/*
 * Micro benchmarks: what flywheel's parts cost, one by one, each beside the bare thing that it
 * cannot beat. A case measures once and gives one value for each of its rows; the cases of a group
 * take turns, run by run, so that a part and its reference meet the same machine.
 *
 * A new one: write a case in the file of its group, and name it in the group's table. Start reading
 * at measure_group() in fwmicro.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MICRO_CASE_ROWS 6

/* One line of the table. Names are dotted and begin with the group's. */
struct micro_row {
	const char *name;
	const char *unit;
	/* The row of the same group that it is compared with; NULL: none. */
	const char *beside;
};

struct micro_case {
	/* Measures once; `values` has one for each row, in order. */
	void (*run)(const struct micro_case *c, double *values);
	/* What `run` wants to know: a function to repeat (measure_ns_each()), what to give it, a
	 * number.
	 */
	uint64_t (*step)(const void *own);
	const void *own;
	uint64_t number;
	/* Up to the first without a name. */
	struct micro_row rows[MICRO_CASE_ROWS];
};

struct micro_group {
	const char *name;
	/* A phrase for --help. */
	const char *label;
	/* It hands things from one core to another. */
	bool two_cores;
	/* Before its first run, and after its last; may be NULL. */
	void (*begin)(void);
	void (*end)(void);
	const struct micro_case *cases;
	unsigned case_count;
};

#define MICRO_CASES(table) .cases = (table), .case_count = sizeof(table) / sizeof((table)[0])

extern const struct micro_group micro_ring;
extern const struct micro_group micro_agent;
extern const struct micro_group micro_doorbell;
extern const struct micro_group micro_wheel;
extern const struct micro_group micro_commit;
extern const struct micro_group micro_fsync;
extern const struct micro_group micro_smtp;
extern const struct micro_group micro_reply;
extern const struct micro_group micro_address;
extern const struct micro_group micro_header;
extern const struct micro_group micro_event;
extern const struct micro_group micro_message;
extern const struct micro_group micro_dkim;
extern const struct micro_group micro_seal;
extern const struct micro_group micro_bounce;
extern const struct micro_group micro_jlog;

/* Set by the command line before anything runs. */
struct micro_options {
	/* Just enough to see that everything works. */
	bool quick;
	/* An empty directory of this run's own, for files on the disk that is measured. */
	const char *directory;
	/* The second one is -1 when there is one core only. */
	int cores[2];
};

extern struct micro_options micro;

/* One of two counts, by --quick. */
static inline uint64_t micro_count(uint64_t usual, uint64_t quick)
{
	return micro.quick ? quick : usual;
}
