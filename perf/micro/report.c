#include "perf/micro/report.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_WIDTH 28

/* One row's runs in order of size. */
struct spread {
	double median;
	double min;
	double max;
};

unsigned report_case_rows(const struct micro_case *c)
{
	unsigned n = 0;

	while (n < MICRO_CASE_ROWS && c->rows[n].name != NULL) {
		n++;
	}
	return n;
}

unsigned report_rows(const struct micro_group *g)
{
	unsigned n = 0;

	for (unsigned i = 0; i < g->case_count; i++) {
		n += report_case_rows(&g->cases[i]);
	}
	return n;
}

static const struct micro_row *row_at(const struct micro_group *g, unsigned index)
{
	const struct micro_case *c = g->cases;

	while (index >= report_case_rows(c)) {
		index -= report_case_rows(c);
		c++;
	}
	return &c->rows[index];
}

static unsigned row_named(const struct micro_group *g, const char *name)
{
	unsigned rows = report_rows(g);

	for (unsigned i = 0; i < rows; i++) {
		if (strcmp(row_at(g, i)->name, name) == 0) {
			return i;
		}
	}
	errx(2, "%s: there is no row %s to compare with", g->name, name);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct spread spread_of(const struct report_values *v, unsigned row)
{
	double *sorted = calloc(v->runs, sizeof(*sorted));
	struct spread s;

	if (sorted == NULL) {
		errx(2, "out of memory");
	}
	for (unsigned run = 0; run < v->runs; run++) {
		sorted[run] = v->values[run * v->rows + row];
	}
	qsort(sorted, v->runs, sizeof(*sorted), compare);
	s.min = sorted[0];
	s.max = sorted[v->runs - 1];
	s.median = (sorted[(v->runs - 1) / 2] + sorted[v->runs / 2]) / 2;
	free(sorted);
	return s;
}

void report_heading(bool json)
{
	if (!json) {
		printf("%-*s %-6s %13s %13s %13s  %s\n", NAME_WIDTH, "name", "unit", "median",
		       "min", "max", "beside");
	}
}

/* Three digits that matter, and no more of a large number than its whole part. */
static int digits_of(double value)
{
	return value >= 100 ? 0 : value >= 10 ? 1 : 2;
}

static void print_number(double value)
{
	printf(" %13.*f", digits_of(value), value);
}

static void table_row(const struct micro_group *g, const struct report_values *v, unsigned row)
{
	const struct micro_row *r = row_at(g, row);
	struct spread s = spread_of(v, row);

	printf("%-*s %-6s", NAME_WIDTH, r->name, r->unit);
	print_number(s.median);
	print_number(s.min);
	print_number(s.max);
	if (r->beside != NULL) {
		struct spread reference = spread_of(v, row_named(g, r->beside));

		printf("  %.2f x %s", s.median / reference.median, r->beside);
	}
	printf("\n");
}

/* Names and units are words of our own, so nothing needs an escape. */
static void json_row(const struct micro_group *g, const struct report_values *v, unsigned row)
{
	const struct micro_row *r = row_at(g, row);
	struct spread s = spread_of(v, row);

	printf("{\"group\": \"%s\", \"name\": \"%s\", \"unit\": \"%s\", \"median\": %.6g, "
	       "\"min\": %.6g, \"max\": %.6g, \"runs\": [",
	       g->name, r->name, r->unit, s.median, s.min, s.max);
	for (unsigned run = 0; run < v->runs; run++) {
		printf("%s%.6g", run == 0 ? "" : ", ", v->values[run * v->rows + row]);
	}
	printf("]");
	if (r->beside != NULL) {
		struct spread reference = spread_of(v, row_named(g, r->beside));

		printf(", \"beside\": \"%s\", \"ratio\": %.4f", r->beside,
		       s.median / reference.median);
	}
	printf("}\n");
}

void report_group(const struct micro_group *g, const struct report_values *v, bool json)
{
	for (unsigned row = 0; row < v->rows; row++) {
		if (json) {
			json_row(g, v, row);
		} else {
			table_row(g, v, row);
		}
	}
	fflush(stdout);
}

void report_list(const struct micro_group *g)
{
	unsigned rows = report_rows(g);

	for (unsigned i = 0; i < rows; i++) {
		const struct micro_row *r = row_at(g, i);

		printf("%-*s %s\n", NAME_WIDTH, r->name, r->unit);
	}
}
