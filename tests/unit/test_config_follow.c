#include "config/config.h"
#include "config/generation.h"
#include "core/queue/throttle.h"
#include "core/runtime/clock.h"
#include "tests/unit/config_world.h"

#define LATER (UINT64_C(1000) * NS_PER_S)

/* What follows `running`, with what was kept. */
static struct config *follow(const char *text, const struct config *running,
			     struct config_kept **kept)
{
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);
	struct config *config = config_follow(load_valid(text), running, kept, out);

	fclose(out);
	if (config == NULL) {
		print_error("%s", errors);
	}
	free(errors);
	return config;
}

static void test_what_is_dynamic_is_new(void **state)
{
	struct config *one =
		load_valid("memory_budget = 8M\ndomain a.test { retry_interval = 5m }\n");
	struct config_kept *kept;
	struct config *two =
		follow("memory_budget = 9M\ndomain b.test { retry_interval = 6m }\n", one, &kept);

	(void)state;
	assert_null(kept);
	assert_int_equal(config_global(two)->memory_budget_bytes, 9 << 20);
	assert_int_equal(config_domain(two, "default", "b.test", 6)->retry_interval_ms, 360000);
	assert_int_equal(config_domain(two, "default", "a.test", 6)->retry_interval_ms,
			 config_domain(two, "default", "c.test", 6)->retry_interval_ms);
	config_release(one);
	config_release(two);
}

static void test_what_needs_a_restart_is_kept_and_told(void **state)
{
	struct config *one =
		load_valid("spool { path = /one min_free = 7M }\n"
			   "custom_logger a { mainlog = \"file:a\" delivery_format = \"%M\" }\n"
			   "agent spool { count = 2 }\n");
	struct config_kept *kept;
	struct config *two = follow("banner = new\nspool { path = /two min_free = 7M }\n"
				    "esmtp_listener { listen \"127.0.0.1:25\" { } }\n",
				    one, &kept);
	uint32_t count = 0;

	(void)state;
	assert_string_equal(config_global(two)->spool_path, "/one");
	assert_int_equal(config_global(two)->spool_min_free_bytes, 7 << 20);
	assert_int_equal(config_agent(two, CONFIG_AGENT_SPOOL)->count, 2);
	config_custom_loggers(two, &count);
	assert_int_equal(count, 1);
	assert_string_equal(config_smtp(two, 0, &in6addr_loopback)->banner, "new");
	count = 0;
	for (const struct config_kept *k = kept; k != NULL; k = k->next) {
		if (strcmp(k->option, "path") == 0) {
			assert_string_equal(k->scope, "spool");
			assert_string_equal(k->running, "\"/one\"");
			assert_string_equal(k->wanted, "\"/two\"");
			assert_string_equal(k->place, "test.conf:2");
		} else if (strcmp(k->option, "count") == 0) {
			assert_string_equal(k->scope, "agent \"spool\"");
			assert_string_equal(k->running, "2");
			assert_string_equal(k->wanted, "1");
			/* Where it is said no more. */
			assert_string_equal(k->place, "test.conf:3");
		} else {
			assert_string_equal(k->scope, "custom_logger \"a\"");
			assert_string_equal(k->option, "");
			assert_string_equal(k->wanted, "");
		}
		count++;
	}
	assert_int_equal(count, 3);
	config_kept_free(kept);
	config_release(one);
	/* Nothing of the first one is needed. */
	assert_string_equal(config_global(two)->spool_path, "/one");
	config_release(two);
}

/* They do not wait for a restart, whatever else does. */
static void test_bindings_and_weights_follow(void **state)
{
	struct config *one = load_valid("spool { path = /one }\nbinding gone { weight = 2 }\n"
					"binding_group g { binding a { weight = 2 } }\n");
	struct config_kept *kept;
	struct config *two =
		follow("spool { path = /two }\n"
		       "binding_group g { binding a { weight = 3 } binding b { weight = 4 } }\n",
		       one, &kept);

	(void)state;
	assert_string_equal(kept->option, "path");
	assert_null(kept->next);
	assert_int_equal(config_binding_count(two), 2);
	assert_int_equal(config_binding(two, 0)->weight, 3);
	assert_int_equal(config_binding(two, 1)->weight, 4);
	config_kept_free(kept);
	config_release(one);
	config_release(two);
}

/* Which are others each time, as with what the console sets. */
static void test_files_of_what_is_gone_are_not_kept(void **state)
{
	struct config *running = load_valid("spool { path = /one }\n");
	struct config_kept *kept;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		static const char text[] = "spool { path = /two }\nbanner = hello\n"
					   "esmtp_listener { listen \"127.0.0.1:25\" { } }\n";
		char name[32];
		struct config *fresh;
		struct config *next;

		snprintf(name, sizeof(name), "%u.conf", i);
		fresh = config_load_text(name, text, strlen(text), stderr);
		assert_non_null(fresh);
		next = config_follow(fresh, running, &kept, stderr);
		assert_non_null(next);
		config_kept_free(kept);
		config_release(running);
		running = next;
		/* Of its banner, and of the path. */
		assert_int_equal(running->tree.file_count, 2);
	}
	config_release(running);
}

static const char *place_of(const struct config_kept *kept, const char *option)
{
	while (kept != NULL && strcmp(kept->option, option) != 0) {
		kept = kept->next;
	}
	assert_non_null(kept);
	return kept->place;
}

static void test_places_of_what_nobody_says(void **state)
{
	struct config *one = load_valid("hostname = a.test\nlog { keep = 3 }\n");
	struct config_kept *kept;
	struct config *two = follow("hostname = b.test\n", one, &kept);

	(void)state;
	assert_string_equal(place_of(kept, "hostname"), "test.conf:1");
	/* Made from the name. */
	assert_string_equal(place_of(kept, "node_id"), "default");
	assert_string_equal(place_of(kept, "keep"), "test.conf:2");
	config_kept_free(kept);
	config_release(one);
	config_release(two);
}

static void test_passwords_of_what_is_kept_are_not_told(void **state)
{
	struct config *one = load_valid("datasource d { uri = redis:old@10.0.0.1 }\n");
	struct config_kept *kept;
	struct config *two = follow("datasource d { uri = redis:new@10.0.0.1 }\n", one, &kept);

	(void)state;
	assert_non_null(kept);
	assert_null(kept->next);
	assert_string_equal(kept->running, "\"redis:***@10.0.0.1\"");
	assert_string_equal(kept->wanted, "\"redis:***@10.0.0.1\"");
	config_kept_free(kept);
	config_release(one);
	config_release(two);
}

static void test_what_does_not_go_together_is_refused(void **state)
{
	struct config *one = load_valid("server_max_file_descriptors = 1000\n"
					"server_max_outbound_connections = 500\n");
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);
	struct config_kept *kept;
	struct config *two = config_follow(load_valid("server_max_file_descriptors = 9000\n"
						      "server_max_outbound_connections = 5000\n"),
					   one, &kept, out);

	(void)state;
	fclose(out);
	assert_null(two);
	assert_non_null(strstr(errors, "test.conf:1: option \"server_max_file_descriptors\""));
	assert_non_null(strstr(errors, "restart"));
	free(errors);
	config_kept_free(kept);
	config_release(one);
}

static void test_foundation_has_what_needs_a_restart(void **state)
{
	struct config *one =
		load_valid("hostname = a.test\nserver_max_file_descriptors = 1000\n"
			   "server_max_outbound_connections = 500\n"
			   "spool { path = /one }\ndomain a.test { retry_interval = 5m }\n"
			   "agent spool { count = 3 }\n");
	struct config *foundation = config_foundation(one);

	(void)state;
	config_release(one);
	assert_string_equal(config_global(foundation)->spool_path, "/one");
	assert_string_equal(config_global(foundation)->hostname, "a.test");
	assert_int_equal(config_agent(foundation, CONFIG_AGENT_SPOOL)->count, 3);
	assert_ptr_equal(config_domain(foundation, "default", "a.test", 6),
			 config_domain(foundation, "default", "b.test", 6));
	config_release(foundation);
}

static struct throttle *throttle_of(const struct config *config, const char *binding)
{
	return config_domain(config, binding, "a.test", 6)->throttle_messages;
}

static void test_throttles_of_the_same_scope_go_on(void **state)
{
	struct config *one =
		load_valid("domain a.test { outbound_throttle_messages = 1/hour }\n"
			   "binding b { domain a.test { outbound_throttle_messages = 2/hour } }\n");
	struct config_kept *kept;
	struct config *two;
	struct config *three;

	(void)state;
	assert_int_equal(throttle_take(throttle_of(one, "default"), LATER), 0);
	two = follow("binding b { domain a.test { outbound_throttle_messages = 2/hour } }\n"
		     "domain a.test { outbound_throttle_messages = 10/sec }\n",
		     one, &kept);
	assert_null(kept);
	/* Not before the generation counts. */
	assert_true(throttle_wait_ns(throttle_of(two, "default"), LATER) > 3000 * NS_PER_S);
	config_apply_throttles(two, LATER);
	assert_int_equal(throttle_wait_ns(throttle_of(two, "default"), LATER), 0);
	assert_int_equal(throttle_wait_ns(throttle_of(one, "default"), LATER), 0);
	assert_int_equal(throttle_wait_ns(throttle_of(two, "b"), LATER), 0);
	assert_int_equal(throttle_take(throttle_of(two, "b"), LATER), 0);
	config_release(one);
	three = follow("binding b { domain a.test { outbound_throttle_messages = 2/hour } }\n", two,
		       &kept);
	config_release(two);
	config_apply_throttles(three, LATER);
	assert_true(throttle_wait_ns(throttle_of(three, "b"), LATER) > 1700 * NS_PER_S);
	assert_null(throttle_of(three, "default"));
	config_release(three);
}

static void test_providers_agree(void **state)
{
	struct config *one = load_valid("provider p { mx_suffix = ( .a.test ) }\n");
	struct config *two = load_valid("banner = x\nprovider p { mx_suffix = ( .a.test ) }\n");
	struct config *three = load_valid("provider p { mx_suffix = ( .b.test ) }\n");

	(void)state;
	assert_true(config_providers_agree(one, two));
	assert_false(config_providers_agree(one, three));
	assert_string_equal(config_same_provider(two, "p"), "p");
	assert_null(config_same_provider(two, "q"));
	config_release(one);
	config_release(two);
	config_release(three);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_dynamic_is_new),
		cmocka_unit_test(test_what_needs_a_restart_is_kept_and_told),
		cmocka_unit_test(test_bindings_and_weights_follow),
		cmocka_unit_test(test_files_of_what_is_gone_are_not_kept),
		cmocka_unit_test(test_places_of_what_nobody_says),
		cmocka_unit_test(test_passwords_of_what_is_kept_are_not_told),
		cmocka_unit_test(test_what_does_not_go_together_is_refused),
		cmocka_unit_test(test_foundation_has_what_needs_a_restart),
		cmocka_unit_test(test_throttles_of_the_same_scope_go_on),
		cmocka_unit_test(test_providers_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
