#include "listeners/http/prometheus.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/mail/utf8.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

#define BUCKETS_MAX 24

static const uint64_t time_bounds[] = {
	100 * NS_PER_US,  250 * NS_PER_US,  500 * NS_PER_US, NS_PER_MS,
	2500 * NS_PER_US, 5 * NS_PER_MS,    10 * NS_PER_MS,  25 * NS_PER_MS,
	50 * NS_PER_MS,   100 * NS_PER_MS,  250 * NS_PER_MS, 500 * NS_PER_MS,
	NS_PER_S,         2500 * NS_PER_MS, 5 * NS_PER_S,    10 * NS_PER_S};
static const uint64_t count_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

const struct prometheus_buckets prometheus_times = {
	time_bounds, sizeof(time_bounds) / sizeof(time_bounds[0]), 1e9};
const struct prometheus_buckets prometheus_counts = {
	count_bounds, sizeof(count_bounds) / sizeof(count_bounds[0]), 1};

/* What every agent counts (core/runtime/agent.c), and every thread (core/runtime/runtime.c). */
static const char *const of_agents[] = {"tasks",        "cycles_work", "cycles_idle",
					"cycle_max_ns", "stalls",      "overflow_max"};
static const char *const of_threads[] = {"group_cycles", "group_idle", "group_parks",
					 "park_timeout_with_work", "completions"};

/* Endings of names that are units, and what takes their place. */
static const struct unit {
	const char *ending;
	const char *name;
	double divisor;
} units[] = {
	{"_ns", "_seconds", 1e9},
	{"_us", "_seconds", 1e6},
	{"_ms", "_seconds", 1e3},
	{"_s", "_seconds", 1},
};

/* ---- names ---- */

static bool is_one_of(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(names[i], name) == 0) {
			return true;
		}
	}
	return false;
}

static bool is_of_thread(const char *name)
{
	return is_one_of(of_threads, sizeof(of_threads) / sizeof(of_threads[0]), name);
}

const char *prometheus_owner(const struct counter_view *view)
{
	return is_of_thread(view->name) ? "thread" : "agent";
}

/* "scheduler.0" without its number. */
static size_t kind_len(const char *prefix)
{
	size_t len = strlen(prefix);
	size_t digits = len;

	while (digits > 0 && isdigit((unsigned char)prefix[digits - 1])) {
		digits--;
	}
	return digits > 1 && digits < len && prefix[digits - 1] == '.' ? digits - 1 : len;
}

static size_t add_name(char *to, size_t at, const char *from, size_t len)
{
	for (size_t i = 0; i < len && at < PROMETHEUS_NAME - 1; i++) {
		to[at++] = (char)(isalnum((unsigned char)from[i]) ? tolower((unsigned char)from[i])
								  : '_');
	}
	return at;
}

static const struct unit *unit_of(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t n = strlen(units[i].ending);

		if (len > n && memcmp(name + len - n, units[i].ending, n) == 0) {
			return &units[i];
		}
	}
	return NULL;
}

double prometheus_name(char name[PROMETHEUS_NAME], const struct counter_view *view)
{
	size_t len = strlen(view->name);
	const struct unit *unit = unit_of(view->name, len);
	const char *kind = view->prefix;
	size_t kind_bytes = kind_len(kind);
	size_t at = 0;

	if (is_of_thread(view->name)) {
		kind = "thread";
		kind_bytes = strlen(kind);
	} else if (is_one_of(of_agents, sizeof(of_agents) / sizeof(of_agents[0]), view->name)) {
		kind = "agent";
		kind_bytes = strlen(kind);
	}
	at = add_name(name, at, "flywheel_", 9);
	at = add_name(name, at, kind, kind_bytes);
	at = add_name(name, at, "_", 1);
	at = add_name(name, at, view->name, unit != NULL ? len - strlen(unit->ending) : len);
	if (unit != NULL) {
		at = add_name(name, at, unit->name, strlen(unit->name));
	}
	if (view->kind == COUNTER_SUM) {
		at = add_name(name, at, "_total", 6);
	}
	name[at] = '\0';
	return unit != NULL ? unit->divisor : 1;
}

void prometheus_help(char help[PROMETHEUS_HELP], const struct counter_view *view)
{
	const struct unit *unit = unit_of(view->name, strlen(view->name));
	size_t len = strlen(view->label);
	char ending[8];

	if (unit != NULL) {
		size_t n = (size_t)snprintf(ending, sizeof(ending), ", %s", unit->ending + 1);

		len -= len > n && strcmp(view->label + len - n, ending) == 0 ? n : 0;
	}
	snprintf(help, PROMETHEUS_HELP, "%.*s", (int)len, view->label);
}

/* ---- samples ---- */

/* In HELP a backslash and a line feed are escaped, in a label's value a quote, too. */
static void add_escaped(struct text *t, const char *from, bool quoted)
{
	size_t len = strlen(from);

	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence(from + i, len - i);

		if (n == 0) {
			text_put(t, "?");
			n = 1;
		} else if (from[i] == '\\') {
			text_put(t, "\\\\");
		} else if (from[i] == '\n') {
			text_put(t, "\\n");
		} else if (from[i] == '"' && quoted) {
			text_put(t, "\\\"");
		} else {
			text_add(t, from + i, n);
		}
		i += n;
	}
}

void prometheus_family(struct text *t, const char *name, const char *type, const char *help)
{
	text_format(t, "# HELP %s ", name);
	add_escaped(t, help, false);
	text_format(t, "\n# TYPE %s %s\n", name, type);
}

static void add_labels(struct text *t, const struct prometheus_label *labels, const char *bound)
{
	bool any = bound != NULL || (labels != NULL && labels->name != NULL);
	const char *comma = "";

	if (!any) {
		return;
	}
	text_put(t, "{");
	for (; labels != NULL && labels->name != NULL; labels++) {
		text_format(t, "%s%s=\"", comma, labels->name);
		add_escaped(t, labels->value, true);
		text_put(t, "\"");
		comma = ",";
	}
	if (bound != NULL) {
		text_format(t, "%sle=\"%s\"", comma, bound);
	}
	text_put(t, "}");
}

void prometheus_number(struct text *t, const char *name, const struct prometheus_label *labels,
		       uint64_t value)
{
	text_put(t, name);
	add_labels(t, labels, NULL);
	text_format(t, " %" PRIu64 "\n", value);
}

void prometheus_real(struct text *t, const char *name, const struct prometheus_label *labels,
		     double value)
{
	text_put(t, name);
	add_labels(t, labels, NULL);
	if (value == floor(value) && fabs(value) < 1e15) {
		text_format(t, " %.0f\n", value);
	} else if (fabs(value) >= 1e6 && fabs(value) < 1e15) {
		text_format(t, " %.3f\n", value);
	} else {
		text_format(t, " %.9g\n", value);
	}
}

void prometheus_histogram(struct text *t, const char *name, const struct prometheus_label *label,
			  const struct histogram *h, const struct prometheus_buckets *buckets)
{
	uint64_t counts[BUCKETS_MAX];
	char bucket[PROMETHEUS_NAME];
	char bound[32];
	uint64_t total;

	ASSERT(buckets->count <= BUCKETS_MAX);
	total = histogram_cumulate(h, buckets->bounds, buckets->count, counts);
	for (unsigned i = 0; i <= buckets->count; i++) {
		bool last = i == buckets->count;

		snprintf(bound, sizeof(bound), "%.9g",
			 last ? INFINITY : (double)buckets->bounds[i] / buckets->divisor);
		text_format(t, "%s_bucket", name);
		add_labels(t, label, last ? "+Inf" : bound);
		text_format(t, " %" PRIu64 "\n", last ? total : counts[i]);
	}
	snprintf(bucket, sizeof(bucket), "%.180s_sum", name);
	prometheus_real(t, bucket, label,
			(double)atomic_load_explicit(&h->sum, memory_order_relaxed) /
				buckets->divisor);
	snprintf(bucket, sizeof(bucket), "%.180s_count", name);
	prometheus_number(t, bucket, label, total);
}
