/*
 * What the runs gave, as a table for people or as JSON lines for programs. Start reading at
 * report_group().
 */
#pragma once

#include <stdbool.h>

#include "perf/micro/micro.h"

/* The values of one group: every row's of run 0, every row's of run 1, and so on. */
struct report_values {
	unsigned runs;
	unsigned rows;
	double *values;
};

/* Rows of a group, and of a case. */
unsigned report_rows(const struct micro_group *g);
unsigned report_case_rows(const struct micro_case *c);

/* The table's heading; `json`: none. */
void report_heading(bool json);

/* One line for each row. */
void report_group(const struct micro_group *g, const struct report_values *v, bool json);

/* Names and units of a group's rows, without values. */
void report_list(const struct micro_group *g);
