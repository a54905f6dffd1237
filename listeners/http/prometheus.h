/*
 * The text format of Prometheus (version 0.0.4): names by its conventions, escaping, counters and
 * histograms of the runtime.
 *
 * Start reading at prometheus_name().
 */
#pragma once

#include <stdint.h>

#include "core/runtime/counter.h"
#include "core/runtime/histogram.h"
#include "core/runtime/thread_class.h"
#include "listeners/http/text.h"

#define PROMETHEUS_NAME 192
#define PROMETHEUS_HELP 256
#define PROMETHEUS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* A label; an array of them ends with a name that is NULL. */
SINGLE
struct prometheus_label {
	const char *name;
	const char *value;
};

/*
 * Makes the name of a counter's metric: "flywheel_", what the set belongs to, the counter's name,
 * its unit in full, and "_total" for sums. What the set belongs to is its prefix without a number
 * at the end ("scheduler.0": "scheduler"), but "agent" or "thread" for what all agents or all
 * threads count. Returns by what values are divided to be in the base unit: 1 but for times.
 */
READONLY
double prometheus_name(char name[PROMETHEUS_NAME], const struct counter_view *view);

/* The counter's label, without a unit at its end that its metric has not. */
READONLY
void prometheus_help(char help[PROMETHEUS_HELP], const struct counter_view *view);

/* "agent" or "thread": the label that says whose a counter is. */
READONLY
const char *prometheus_owner(const struct counter_view *view);

/* HELP and TYPE ("counter", "gauge", "histogram") of what follows. */
SINGLE
void prometheus_family(struct text *t, const char *name, const char *type, const char *help);

/* One sample. Labels (NULL: none) may have any bytes in their values; those that are not UTF-8
 * become "?". */
SINGLE
void prometheus_number(struct text *t, const char *name, const struct prometheus_label *labels,
		       uint64_t value);
SINGLE
void prometheus_real(struct text *t, const char *name, const struct prometheus_label *labels,
		     double value);

/* Bounds of a histogram's buckets, rising, and by what they and its sum are divided. */
READONLY
struct prometheus_buckets {
	const uint64_t *bounds;
	unsigned count;
	double divisor;
};

/* 100 us to 10 s, of values in ns; 1 to 4096 of plain numbers. */
extern const struct prometheus_buckets prometheus_times;
extern const struct prometheus_buckets prometheus_counts;

/* The samples of one histogram, with one label; cumulative. The family has been begun. */
SINGLE
void prometheus_histogram(struct text *t, const char *name, const struct prometheus_label *label,
			  const struct histogram *h, const struct prometheus_buckets *buckets);
