/* The console is a program of its own, not part of the library. */
#include "tools/console_top_view.c"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* What it is linked with there. */
#include "tools/console_render.c"

static struct top_sample now;
static struct top_sample before;
static char text[65536];

static json_t *parse(const char *json)
{
	json_t *value = json_loads(json, 0, NULL);

	assert_non_null(value);
	return value;
}

static json_t *threads(int cpu_ms, int work, int idle)
{
	return json_pack("{s:[{s:s, s:s, s:i, s:i, s:i, s:i}], s:[{s:s, s:I}]}", "agents", "agent",
			 "scheduler.0", "thread", "core-0", "cycles_work", work, "cycles_idle",
			 idle, "ring_in", 7, "stalls", 2, "threads", "thread", "core-0", "cpu_ns",
			 (json_int_t)cpu_ms * 1000000);
}

static json_t *summary(int received, int delivered)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:f}", "received_messages", received,
			 "successfully_delivered_messages", delivered, "transient_failures", 0,
			 "failed_messages", 0, "rejected_messages", 0, "total_queue_size", 12,
			 "uptime_s", 10.0);
}

static int set_up(void **state)
{
	(void)state;
	before = (struct top_sample){
		.summary = summary(100, 50), .threads = threads(1000, 10, 10), .at_s = 5};
	now = (struct top_sample){
		.summary = summary(120, 60),
		.memory = parse("{\"resident_bytes\": 1048576}"),
		.threads = threads(2000, 40, 20),
		.version = parse("{\"hostname\": \"mx.test\"}"),
		.rows = parse("[{\"domain\": \"a.test\", \"binding\": \"default\","
			      "  \"rate_per_s\": 2.5, \"active\": 3, \"delayed\": 4,"
			      "  \"connections\": 1, \"held_by\": \"evil\\u001b[2J\"}]"),
		.at_s = 7,
	};
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	top_sample_free(&now);
	top_sample_free(&before);
	return 0;
}

static unsigned draw(const struct top_sample *older, struct top_screen screen)
{
	FILE *out = fmemopen(text, sizeof(text), "w");
	unsigned lines = 0;

	assert_non_null(out);
	screen.interval_s = 2;
	top_view(&now, older, &screen, out);
	fclose(out);
	for (const char *c = text; *c != '\0'; c++) {
		lines += *c == '\n';
		assert_true(*c == '\n' || *c == TOP_HEADING || !iscntrl((unsigned char)*c));
	}
	return lines;
}

static void assert_has(const char *part)
{
	if (strstr(text, part) == NULL) {
		fail_msg("%s is not in\n%s", part, text);
	}
}

static void test_shows_rates_between_samples(void **state)
{
	(void)state;
	draw(&before, (struct top_screen){.width = 80});
	assert_has("flywheel mx.test  up 10 s  ");
	assert_has("  every 2 s\n");
	assert_has("In 10.0/s  out 5.0/s  deferred 0.0/s  bounced 0.0/s  refused 0.0/s\n");
	assert_has("Queued 12  active -");
	assert_has("memory 1.0 MiB");
	assert_has("scheduler.0        core-0              50.0  75.0       7       2\n");
	assert_has("a.test                   default        2.5       3       4     1 evil?[2J\n");
	/* Since the start, while there is only one. */
	draw(NULL, (struct top_screen){.width = 80});
	assert_has("In 12.0/s  out 6.0/s");
	/* The program was started anew: its counts began at 0. */
	json_decref(before.summary);
	before.summary = summary(100000, 100000);
	draw(&before, (struct top_screen){.width = 80});
	assert_has("In 60.0/s  out 30.0/s");
}

static void test_fits_on_any_screen(void **state)
{
	(void)state;
	for (unsigned width = 1; width < 200; width += 7) {
		for (unsigned height = 1; height < 60; height++) {
			const char *line = text;

			assert_true(draw(&before, (struct top_screen){.width = width,
								      .height = height}) <= height);
			for (; *line != '\0'; line = strchr(line, '\n') + 1) {
				line += *line == TOP_HEADING;
				assert_true(strcspn(line, "\n") <= width);
			}
		}
	}
}

static void test_sorts_bindings(void **state)
{
	struct top_screen screen = {.width = 80, .kind = TOP_BINDINGS};
	const char *fast;
	const char *full;

	(void)state;
	json_decref(now.rows);
	now.kind = before.kind = TOP_BINDINGS;
	before.rows = parse("[{\"binding\": \"fast\", \"delivered\": 0},"
			    " {\"binding\": \"full\", \"delivered\": 4}]");
	now.rows =
		parse("[{\"binding\": \"full\", \"group\": \"g\", \"delivered\": 5, \"active\": 9,"
		      "  \"state\": \"suspended\"},"
		      " {\"binding\": \"fast\", \"delivered\": 6, \"active\": 1}]");
	draw(&before, screen);
	fast = strstr(text, "\nfast  ");
	full = strstr(text, "\nfull  ");
	assert_true(fast != NULL && full != NULL && fast < full);
	assert_has("fast                                    3.0       1       0     0\n");
	assert_has("full                     g              0.5       9       0     0 suspended\n");
	screen.sort = TOP_BY_QUEUE;
	draw(&before, screen);
	assert_true(strstr(text, "\nfull  ") < strstr(text, "\nfast  "));
}

static void test_says_what_is_wrong_and_which_keys_there_are(void **state)
{
	(void)state;
	draw(&before, (struct top_screen){.width = 80, .trouble = "flywheeld does not answer"});
	assert_has("  flywheeld does not answer\n");
	draw(&before, (struct top_screen){.width = 80, .help = true, .paused = true});
	assert_has("PAUSED\n");
	assert_has("sort by connections\n");
	assert_null(strstr(text, "a.test"));
	top_sample_free(&now);
	assert_int_equal(draw(NULL, (struct top_screen){.width = 80, .trouble = "away"}), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shows_rates_between_samples, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_fits_on_any_screen, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_sorts_bindings, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_says_what_is_wrong_and_which_keys_there_are,
						set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
