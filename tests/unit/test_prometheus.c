/*
 * Names of metrics from those of counters, escaping, samples and histograms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/runtime/clock.h"
#include "listeners/http/prometheus.h"

static void check_name(const char *prefix, const char *name, enum counter_kind kind,
		       const char *wanted, double divisor)
{
	const struct counter_view view = {prefix, name, "label", kind, 0};
	char made[PROMETHEUS_NAME];

	assert_true(prometheus_name(made, &view) == divisor);
	assert_string_equal(made, wanted);
}

static void test_name_when_counters_differ(void **state)
{
	(void)state;
	check_name("scheduler.0", "delivered", COUNTER_SUM, "flywheel_scheduler_delivered_total",
		   1);
	check_name("scheduler.12", "outbound.open", COUNTER_GAUGE,
		   "flywheel_scheduler_outbound_open", 1);
	check_name("log", "bytes", COUNTER_SUM, "flywheel_log_bytes_total", 1);
	check_name("spool.0", "batch_max", COUNTER_MAX, "flywheel_spool_batch_max", 1);
	check_name("a group-1", "Odd name", COUNTER_GAUGE, "flywheel_a_group_1_odd_name", 1);
	check_name("v4", "x", COUNTER_GAUGE, "flywheel_v4_x", 1);
	check_name(".7", "x", COUNTER_GAUGE, "flywheel__7_x", 1);
}

static void test_name_when_it_has_a_unit(void **state)
{
	(void)state;
	check_name("wheel", "late_max_ms", COUNTER_MAX, "flywheel_wheel_late_max_seconds", 1e3);
	check_name("pool", "wait_max_us", COUNTER_MAX, "flywheel_pool_wait_max_seconds", 1e6);
	check_name("pool", "spent_ns", COUNTER_SUM, "flywheel_pool_spent_seconds_total", 1e9);
	check_name("pool", "age_s", COUNTER_GAUGE, "flywheel_pool_age_seconds", 1);
	check_name("pool", "answers", COUNTER_SUM, "flywheel_pool_answers_total", 1);
}

static void check_owner(const char *name, const char *wanted_name, const char *wanted_owner)
{
	const struct counter_view view = {"scheduler.0", name, "label", COUNTER_SUM, 0};
	char made[PROMETHEUS_NAME];

	prometheus_name(made, &view);
	assert_string_equal(made, wanted_name);
	assert_string_equal(prometheus_owner(&view), wanted_owner);
}

static void test_name_when_every_agent_or_thread_counts_it(void **state)
{
	(void)state;
	check_owner("tasks", "flywheel_agent_tasks_total", "agent");
	check_owner("group_parks", "flywheel_thread_group_parks_total", "thread");
	check_owner("received", "flywheel_scheduler_received_total", "agent");
}

static void test_name_when_it_is_too_long(void **state)
{
	char name[3 * PROMETHEUS_NAME];
	const struct counter_view view = {"x", name, "label", COUNTER_SUM, 0};
	char made[PROMETHEUS_NAME];

	(void)state;
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	prometheus_name(made, &view);
	assert_int_equal(strlen(made), PROMETHEUS_NAME - 1);
}

static void check_help(const char *name, const char *label, const char *wanted)
{
	const struct counter_view view = {"x", name, label, COUNTER_MAX, 0};
	char help[PROMETHEUS_HELP];

	prometheus_help(help, &view);
	assert_string_equal(help, wanted);
}

static void test_help_when_it_names_a_unit(void **state)
{
	(void)state;
	check_help("cycle_ns", "Longest duty cycle, ns", "Longest duty cycle");
	check_help("cycle_ns", "Longest duty cycle", "Longest duty cycle");
	check_help("cycle", "What is called, ns", "What is called, ns");
	check_help("wait_us", ", us", ", us");
}

/* What has been written, as a string of its own. */
static char *taken(struct text *t)
{
	char *string = strndup(t->data != NULL ? t->data : "", t->len);

	assert_non_null(string);
	text_close(t);
	return string;
}

static void check_text(struct text *t, const char *wanted)
{
	char *found = taken(t);

	assert_string_equal(found, wanted);
	free(found);
}

static void test_samples_when_values_need_escaping(void **state)
{
	const struct prometheus_label labels[] = {
		{"a", "back\\slash \"quote\"\nline"}, {"b", "\303\274\377x"}, {NULL, NULL}};
	struct text t = {0};

	(void)state;
	prometheus_family(&t, "m", "gauge", "A \"help\"\nwith \\ all");
	prometheus_number(&t, "m", labels, UINT64_MAX);
	check_text(&t, "# HELP m A \"help\"\\nwith \\\\ all\n# TYPE m gauge\n"
		       "m{a=\"back\\\\slash \\\"quote\\\"\\nline\",b=\"\303\274?x\"} "
		       "18446744073709551615\n");
}

static void test_samples_when_they_are_real(void **state)
{
	const struct prometheus_label none[] = {{NULL, NULL}};
	struct text t = {0};

	(void)state;
	prometheus_real(&t, "m", NULL, 0);
	prometheus_real(&t, "m", none, 3);
	prometheus_real(&t, "m", NULL, 0.0625);
	prometheus_real(&t, "m", NULL, 1.5e-9);
	prometheus_real(&t, "m", NULL, 1795427463.25);
	check_text(&t, "m 0\nm 3\nm 0.0625\nm 1.5e-09\nm 1795427463.250\n");
}

static void test_histogram_is_cumulative_and_in_seconds(void **state)
{
	static const uint64_t bounds[] = {NS_PER_MS, 10 * NS_PER_MS};
	const struct prometheus_buckets buckets = {bounds, 2, 1e9};
	const struct prometheus_label label[] = {{"agent", "x"}, {NULL, NULL}};
	struct histogram *h = calloc(1, sizeof(*h));
	struct text t = {0};

	(void)state;
	assert_non_null(h);
	histogram_record(h, NS_PER_MS / 2);
	histogram_record(h, NS_PER_MS / 2);
	histogram_record(h, 4 * NS_PER_MS);
	histogram_record(h, 5 * NS_PER_S);
	prometheus_histogram(&t, "m", label, h, &buckets);
	check_text(&t, "m_bucket{agent=\"x\",le=\"0.001\"} 2\n"
		       "m_bucket{agent=\"x\",le=\"0.01\"} 3\n"
		       "m_bucket{agent=\"x\",le=\"+Inf\"} 4\n"
		       "m_sum{agent=\"x\"} 5.005\n"
		       "m_count{agent=\"x\"} 4\n");
	free(h);
}

static void test_buckets_rise(void **state)
{
	const struct prometheus_buckets *all[] = {&prometheus_times, &prometheus_counts};

	(void)state;
	for (size_t n = 0; n < 2; n++) {
		assert_true(all[n]->count > 5);
		for (unsigned i = 1; i < all[n]->count; i++) {
			assert_true(all[n]->bounds[i] > all[n]->bounds[i - 1]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name_when_counters_differ),
		cmocka_unit_test(test_name_when_it_has_a_unit),
		cmocka_unit_test(test_name_when_every_agent_or_thread_counts_it),
		cmocka_unit_test(test_name_when_it_is_too_long),
		cmocka_unit_test(test_help_when_it_names_a_unit),
		cmocka_unit_test(test_samples_when_values_need_escaping),
		cmocka_unit_test(test_samples_when_they_are_real),
		cmocka_unit_test(test_histogram_is_cumulative_and_in_seconds),
		cmocka_unit_test(test_buckets_rise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
