/*
 * Questions about a generation by the names that people write, and what the console lays over the
 * files: where values come from, what falls back to what, what two generations differ in.
 */
#include "config/ask.h"
#include "config/overlay.h"
#include "config/schema.h"
#include "tests/unit/config_world.h"

#define NS_PER_S UINT64_C(1000000000)
/* 2026-11-23T13:00:00Z */
#define MOMENT_NS (UINT64_C(1795438800) * NS_PER_S)

/* ---- names ---- */

static char text[CONFIG_SCOPE_TEXT];

/* Words of `line`, one space between them; what is left of them into `rest`. */
static int parse(const char *line, unsigned leave, struct config_scope *scope, char why[CONFIG_WHY])
{
	static char copy[256];
	char *words[32];
	unsigned count = 0;
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *w = strtok(copy, " "); w != NULL; w = strtok(NULL, " ")) {
		words[count++] = w;
	}
	return config_scope_parse(scope, words, count, leave, why);
}

static void check_scope(const char *line, unsigned leave, int taken, const char *is)
{
	struct config_scope scope;
	char why[CONFIG_WHY];
	assert_int_equal(parse(line, leave, &scope, why), taken);
	assert_string_equal(config_scope_text(&scope, text, sizeof(text)), is);
	config_scope_free(&scope);
}

static void test_scope_when_named(void **state)
{
	(void)state;
	check_scope("ring_slots", 1, 0, "global");
	check_scope("global ring_slots", 1, 1, "global");
	check_scope("Domain EXAMPLE.com retry_interval", 1, 2, "domain \"example.com\"");
	check_scope("binding Bulk domain x.y retry_interval 5", 2, 4,
		    "binding \"Bulk\" domain \"x.y\"");
	check_scope("binding_group g binding b domain /A\\.b$/ retry_interval", 1, 6,
		    "binding_group \"g\" binding \"b\" domain \"/A\\.b$/\"");
	check_scope("spool path", 1, 1, "spool");
	check_scope("esmtp_listener listen :25 enable false", 2, 3,
		    "esmtp_listener listen \":25\"");
	check_scope("esmtp_listener main listen :25 peer 10.0.0.0/8 banner x", 2, 6,
		    "esmtp_listener \"main\" listen \":25\" peer \"10.0.0.0/8\"");
	check_scope("agent Scheduler count 2", 2, 2, "agent \"scheduler\"");
	/* The option of that name. */
	check_scope("binding b", 2, 0, "global");
	check_scope("binding", 1, 0, "global");
	check_scope("binding b", 0, 2, "binding \"b\"");
	check_scope("domain \303\234.example retry_interval", 1, 2, "domain \"xn--tda.example\"");
}

static void test_scope_when_there_is_none(void **state)
{
	struct config_scope scope;
	char why[CONFIG_WHY];
	(void)state;
	assert_int_equal(parse("agent nobody count", 1, &scope, why), -22);
	assert_non_null(strstr(why, "scope agent \"nobody\": unknown; expected one of"));
	/* What no file could say. */
	assert_int_equal(parse("domain x\033y retry_interval", 1, &scope, why), -22);
	assert_string_equal(why, "scope domain: its name has a control character");
	assert_int_equal(parse("domain x\177y retry_interval", 1, &scope, why), -22);
	assert_int_equal(parse("domain x.y", 0, &scope, why), 2);
	assert_null(config_option_check(&scope, "retry_interval", why));
	assert_ptr_equal(config_option_check(&scope, "ring_slots", why), why);
	assert_non_null(strstr(why, "option \"ring_slots\": not possible here"));
	config_scope_free(&scope);
	assert_true(config_option_exists("segment_size"));
	assert_false(config_option_exists("segment_sizes"));
}

static void check_value(const char *given, const char *wanted)
{
	char *value;
	const char *problem = config_value_read(given, &value);
	if (wanted == NULL) {
		assert_non_null(problem);
		assert_null(value);
		return;
	}
	assert_null(problem);
	assert_string_equal(value, wanted);
	free(value);
}

static void test_value_when_read(void **state)
{
	(void)state;
	check_value("5", "5");
	check_value("  \"a b\"  # why", "\"a b\"");
	check_value("( a \"b\" )", "( a \"b\" )");
	check_value("[ a = 1 ]", "[ a = 1 ]");
	check_value("a b", NULL);
	check_value("", NULL);
	check_value("# a", NULL);
	check_value("( a", NULL);
	check_value("'a", NULL);
	check_value("}", NULL);
	check_value("a\nb = 2", NULL);
	check_value("( a\nb )", NULL);
}

static void check_shown(const char *line, const char *value, const char *wanted)
{
	struct config_scope scope;
	char why[CONFIG_WHY];
	char *shown;
	assert_true(parse(line, 1, &scope, why) >= 0);
	shown = config_value_shown(&scope, strrchr(line, ' ') + 1, value);
	assert_string_equal(shown, wanted);
	free(shown);
	config_scope_free(&scope);
}

static void test_value_when_shown(void **state)
{
	(void)state;
	check_shown("http_listener token", "\"in the clear\"", "(a secret)");
	check_shown("http_listener token_file", "\"a file\"", "\"a file\"");
	check_shown("datasource d uri", "\"redis:pass@word@10.0.0.1:6379/2\"",
		    "\"redis:***@10.0.0.1:6379/2\"");
	check_shown("datasource d uri", "redis:10.0.0.1/2", "redis:10.0.0.1/2");
	check_shown("datasource d uri", "redis:/run/a@b/redis", "redis:/run/a@b/redis");
	check_shown("datasource d uri", "sqlite:a@b", "sqlite:a@b");
	/* What no scope of that kind has: it was refused, or will be. */
	check_shown("spool token", "x", "x");
}

/* ---- answers ---- */

static char answer[1024];

static void keep(void *context, const struct config_setting *s)
{
	(void)context;
	snprintf(answer + strlen(answer), sizeof(answer) - strlen(answer), "%s|%s=%s@%s%s%s\n",
		 s->scope, s->option, s->value, s->origin, s->is_default ? "|default" : "",
		 s->superseded ? "|superseded" : "");
}

static const char *ask(bool (*question)(const struct config *, const struct config_scope *,
					const char *, config_setting_fn, void *),
		       const struct config *config, const char *line)
{
	struct config_scope scope;
	char why[CONFIG_WHY];
	assert_true(parse(line, 1, &scope, why) >= 0);
	answer[0] = '\0';
	if (!question(config, &scope, strrchr(line, ' ') != NULL ? strrchr(line, ' ') + 1 : line,
		      keep, NULL)) {
		snprintf(answer, sizeof(answer), "nothing");
	}
	config_scope_free(&scope);
	return answer;
}

static const char *const layers =
	"max_outbound_connections = 1\n"
	"domain a.x { max_outbound_connections = 2 retry_interval = 60 retry_interval = 70 }\n"
	"domain \"/\\.y$/\" { max_outbound_connections = 3 }\n"
	"binding_group g {\n"
	"	max_outbound_connections = 4\n"
	"	domain a.x { max_outbound_connections = 5 }\n"
	"	binding b { domain c.x { max_outbound_connections = 6 } }\n"
	"}\n"
	"esmtp_listener { banner = outer listen 127.0.0.1:2525 { } }\n"
	"relay_hosts = ( 10.0.0.0/8 127.0.0.1 )\n";

static void test_get_when_asked(void **state)
{
	(void)state;
	struct config *config = load_valid(layers);
	assert_string_equal(ask(config_get, config, "max_outbound_connections"),
			    "global|max_outbound_connections=1@test.conf:1\n");
	assert_string_equal(ask(config_get, config, "domain a.x retry_interval"),
			    "domain \"a.x\"|retry_interval=70@test.conf:2\n");
	assert_string_equal(ask(config_get, config, "domain other.x retry_interval"), "nothing");
	assert_string_equal(ask(config_get, config, "ring_slots"), "nothing");
	assert_string_equal(ask(config_get, config, "relay_hosts"),
			    "global|relay_hosts=( \"10.0.0.0/8\" \"127.0.0.1\" )@test.conf:10\n");
	config_release(config);
}

static bool same(const char *a, const char *b, const char *line)
{
	struct config *in_a = load_valid(a);
	struct config *in_b = load_valid(b);
	struct config_scope scope;
	char why[CONFIG_WHY];
	bool is_same;
	assert_true(parse(line, 1, &scope, why) >= 0);
	is_same = config_same_setting(in_a, in_b, &scope, strrchr(line, ' ') + 1);
	config_scope_free(&scope);
	config_release(in_a);
	config_release(in_b);
	return is_same;
}

static void test_same_setting_when_generations_differ(void **state)
{
	(void)state;
	assert_true(same("http_listener { token = one-of-eight }",
			 "http_listener { token = another-one token = \"one-of-eight\" }",
			 "http_listener token"));
	assert_false(same("http_listener { token = one-of-eight }",
			  "http_listener { token = two-of-eight }", "http_listener token"));
	assert_false(same("http_listener { token = one-of-eight }", "", "http_listener token"));
	assert_true(same("", "http_listener { }", "http_listener token"));
	/* A default is nobody's setting. */
	assert_true(same("ring_slots = 64", "ring_slots = 64", "global ring_slots"));
	assert_false(same("ring_slots = 1024", "", "global ring_slots"));
	assert_true(same("relay_hosts = ( ::1 10.0.0.0/8 )", "relay_hosts = ( \"::1\" 10.0.0.0/8 )",
			 "global relay_hosts"));
	assert_false(same("relay_hosts = ( ::1 10.0.0.0/8 )", "relay_hosts = ( 10.0.0.0/8 ::1 )",
			  "global relay_hosts"));
	assert_false(same("relay_hosts = ( ::1 )", "relay_hosts = ( ::1 10.0.0.0/8 )",
			  "global relay_hosts"));
}

static void test_locate_when_there_are_secrets(void **state)
{
	(void)state;
	struct config *config = load_valid("datasource d { uri = redis:abc@10.0.0.1 }\n"
					   "http_listener { token = one-of-eight }\n");
	answer[0] = '\0';
	config_locate(config, "uri", NULL, keep, NULL);
	config_locate(config, "token", NULL, keep, NULL);
	assert_string_equal(answer, "datasource \"d\"|uri=redis:***@10.0.0.1@test.conf:1\n"
				    "http_listener|token=(a secret)@test.conf:2\n");
	answer[0] = '\0';
	/* Nor can it be guessed. */
	config_locate(config, "uri", "redis:abc@10.0.0.1", keep, NULL);
	config_locate(config, "token", "one-of-eight", keep, NULL);
	assert_string_equal(answer, "");
	config_release(config);
}

static void test_eval_when_asked(void **state)
{
	(void)state;
	struct config *config = load_valid(layers);
	const struct {
		const char *question;
		const char *says;
	} rows[] = {
		{"domain other.x max_outbound_connections",
		 "global|max_outbound_connections=1@test.conf:1\n"},
		{"domain b.y max_outbound_connections",
		 "domain \"/\\.y$/\"|max_outbound_connections=3@test.conf:3\n"},
		{"binding b domain b.y max_outbound_connections",
		 "domain \"/\\.y$/\"|max_outbound_connections=3@test.conf:3\n"},
		{"binding b domain other.x max_outbound_connections",
		 "binding_group \"g\"|max_outbound_connections=4@test.conf:5\n"},
		{"binding_group g max_outbound_connections",
		 "binding_group \"g\"|max_outbound_connections=4@test.conf:5\n"},
		{"binding_group g domain a.x max_outbound_connections",
		 "binding_group \"g\" domain \"a.x\"|max_outbound_connections=5@test.conf:6\n"},
		{"binding b domain c.x max_outbound_connections",
		 "binding_group \"g\" binding \"b\" domain \"c.x\"|max_outbound_connections=6@test."
		 "conf:7\n"},
		{"binding b domain a.x retry_interval",
		 "domain \"a.x\"|retry_interval=70@test.conf:2\n"},
		{"esmtp_listener listen 127.0.0.1:2525 banner",
		 "esmtp_listener|banner=outer@test.conf:9\n"},
		{"esmtp_listener listen 127.0.0.1:2525 relay_hosts",
		 "global|relay_hosts=( \"10.0.0.0/8\" \"127.0.0.1\" )@test.conf:10\n"},
		{"domain a.x remote_smtp_port", "global|remote_smtp_port=25@default|default\n"},
		{"gateway", "nothing"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_string_equal(ask(config_eval, config, rows[i].question), rows[i].says);
	}
	config_release(config);
}

static void test_locate_and_show_when_asked(void **state)
{
	struct config_scope scope;
	char why[CONFIG_WHY];
	(void)state;
	struct config *config = load_valid(layers);
	answer[0] = '\0';
	config_locate(config, "retry_interval", NULL, keep, NULL);
	assert_string_equal(answer, "domain \"a.x\"|retry_interval=60@test.conf:2|superseded\n"
				    "domain \"a.x\"|retry_interval=70@test.conf:2\n");
	answer[0] = '\0';
	config_locate(config, "max_outbound_connections", "6", keep, NULL);
	assert_string_equal(
		answer, "binding_group \"g\" binding \"b\" domain \"c.x\"|max_outbound_connections="
			"6@test.conf:7\n");
	assert_int_equal(parse("binding_group g", 0, &scope, why), 2);
	answer[0] = '\0';
	assert_true(config_show(config, &scope, keep, NULL));
	assert_string_equal(
		answer,
		"binding_group \"g\"|max_outbound_connections=4@test.conf:5\n"
		"binding_group \"g\" domain \"a.x\"|max_outbound_connections=5@test.conf:6\n"
		"binding_group \"g\" binding \"b\" domain \"c.x\"|max_outbound_connections="
		"6@test.conf:7\n");
	config_scope_free(&scope);
	assert_int_equal(parse("domain nobody.x", 0, &scope, why), 2);
	assert_false(config_show(config, &scope, keep, NULL));
	config_scope_free(&scope);
	config_release(config);
}

/* ---- the overlay ---- */

static void change(struct overlay *overlay, const char *line, const char *value)
{
	struct config_scope scope;
	char why[CONFIG_WHY];
	const char *option = strrchr(line, ' ') != NULL ? strrchr(line, ' ') + 1 : line;
	assert_true(parse(line, 1, &scope, why) >= 0);
	if (value != NULL) {
		overlay_change(overlay, &scope, option, value, "somebody", MOMENT_NS);
	} else {
		overlay_unset(overlay, &scope, option, "somebody", MOMENT_NS);
	}
	config_scope_free(&scope);
}

static struct config *load_over(const struct overlay *overlay, char **errors)
{
	size_t size;
	struct config_source source = {.path = "main.conf", .overlay = overlay};
	FILE *out = open_memstream(errors, &size);
	write_file("main.conf", layers);
	struct config *config = config_load_from(&source, out);
	fclose(out);
	return config;
}

static struct config *load_good(const struct overlay *overlay)
{
	char *errors;
	struct config *config = load_over(overlay, &errors);
	assert_string_equal(errors, "");
	assert_non_null(config);
	free(errors);
	return config;
}

static unsigned limit(const struct config *config, const char *binding, const char *domain)
{
	return config_domain(config, binding, domain, strlen(domain))->max_outbound_connections;
}

#define CONSOLE "set by the console, 2026-11-23T13:00:00Z"

static void test_overlay_when_set_decides_over_files(void **state)
{
	struct overlay overlay = {.count = 0};
	struct config_origin origin;
	char *dumped;
	size_t size;
	(void)state;
	change(&overlay, "domain a.x max_outbound_connections", "12");
	change(&overlay, "domain new.x max_outbound_connections", "13");
	change(&overlay, "binding b max_outbound_connections", "14");
	change(&overlay, "relay_hosts", "( 127.0.0.1 )");
	struct config *config = load_good(&overlay);
	assert_int_equal(limit(config, NULL, "a.x"), 12);
	assert_int_equal(limit(config, NULL, "new.x"), 13);
	assert_int_equal(limit(config, "b", "other"), 14);
	assert_string_equal(ask(config_get, config, "domain a.x max_outbound_connections"),
			    "domain \"a.x\"|max_outbound_connections=12@" CONSOLE "\n");
	config_outbound_origin(config, NULL, NULL, "new.x", 5, "max_outbound_connections", &origin);
	assert_string_equal(origin.file, CONSOLE);
	assert_int_equal(origin.line, 0);
	assert_string_equal(origin.scope, "domain \"new.x\"");
	FILE *out = open_memstream(&dumped, &size);
	config_dump(config, out);
	fclose(out);
	assert_non_null(strstr(dumped, "relay_hosts = ( \"127.0.0.1\" )\t# " CONSOLE "\n"));
	free(dumped);
	/* It is no file. */
	assert_int_equal(config_file_count(config), 1);
	config_release(config);
	overlay_free(&overlay);
}

static void test_overlay_when_unset_files_count_again(void **state)
{
	struct overlay overlay = {.count = 0};
	(void)state;
	change(&overlay, "domain a.x max_outbound_connections", "12");
	change(&overlay, "domain a.x max_outbound_connections", NULL);
	assert_int_equal(overlay.count, 0);
	struct config *config = load_good(&overlay);
	assert_int_equal(limit(config, NULL, "a.x"), 2);
	config_release(config);
	change(&overlay, "domain a.x max_outbound_connections", NULL);
	change(&overlay, "domain a.x retry_interval", NULL);
	config = load_good(&overlay);
	assert_int_equal(limit(config, NULL, "a.x"), 1);
	assert_string_equal(ask(config_get, config, "domain a.x retry_interval"), "nothing");
	config_release(config);
	/* Set again, then as it was. */
	change(&overlay, "domain a.x retry_interval", "5");
	config = load_good(&overlay);
	assert_int_equal(config_domain(config, NULL, "a.x", 3)->retry_interval_ms, 5000);
	config_release(config);
	overlay_free(&overlay);
}

static void test_overlay_when_a_value_is_wrong(void **state)
{
	struct overlay overlay = {.count = 0};
	char *errors;
	(void)state;
	change(&overlay, "domain a.x max_outbound_connections", "many");
	change(&overlay, "retry_interval", "30d");
	assert_null(load_over(&overlay, &errors));
	assert_non_null(strstr(errors, CONSOLE ": option \"max_outbound_connections\": \"many\" is "
					       "not a number; expected"));
	assert_non_null(strstr(errors, CONSOLE ": option \"retry_interval\": longer than "
					       "max_retry_interval"));
	free(errors);
	overlay_free(&overlay);
}

static void keep_difference(void *context, const struct config_setting *a,
			    const struct config_setting *b)
{
	(void)context;
	snprintf(answer + strlen(answer), sizeof(answer) - strlen(answer), "%s %s: %s -> %s\n",
		 a != NULL ? a->scope : b->scope, a != NULL ? a->option : b->option,
		 a != NULL ? a->value : "-", b != NULL ? b->value : "-");
}

static void test_compare_when_generations_differ(void **state)
{
	struct overlay overlay = {.count = 0};
	(void)state;
	struct config *files = load_good(&overlay);
	change(&overlay, "domain a.x max_outbound_connections", "12");
	/* To what it is. */
	change(&overlay, "domain a.x retry_interval", "70");
	change(&overlay, "binding_group g max_outbound_connections", NULL);
	change(&overlay, "domain new.x retry_interval", "5");
	struct config *running = load_good(&overlay);
	answer[0] = '\0';
	config_compare(running, files, keep_difference, NULL);
	assert_string_equal(answer, "binding_group \"g\" max_outbound_connections: - -> 4\n"
				    "domain \"a.x\" max_outbound_connections: 12 -> 2\n"
				    "domain \"new.x\" retry_interval: 5 -> -\n");
	answer[0] = '\0';
	config_compare(files, files, keep_difference, NULL);
	assert_string_equal(answer, "");
	config_release(running);
	config_release(files);
	overlay_free(&overlay);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scope_when_named),
		cmocka_unit_test(test_scope_when_there_is_none),
		cmocka_unit_test(test_value_when_read),
		cmocka_unit_test(test_value_when_shown),
		cmocka_unit_test(test_get_when_asked),
		cmocka_unit_test(test_same_setting_when_generations_differ),
		cmocka_unit_test(test_locate_when_there_are_secrets),
		cmocka_unit_test(test_eval_when_asked),
		cmocka_unit_test(test_locate_and_show_when_asked),
		cmocka_unit_test(test_overlay_when_set_decides_over_files),
		cmocka_unit_test(test_overlay_when_unset_files_count_again),
		cmocka_unit_test(test_overlay_when_a_value_is_wrong),
		cmocka_unit_test(test_compare_when_generations_differ),
	};
	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
