/*
 * Layers of files: what is said on a node, on its subcluster, everywhere; in this order a name is
 * looked for.
 */
#include "tests/unit/config_world.h"

/* Its folders are made. */
static void write_deep(const char *name, const char *text)
{
	char command[256];
	snprintf(command, sizeof(command), "mkdir -p $(dirname %s)", name);
	assert_int_equal(system(command), 0);
	write_file(name, text);
}

static struct config *load_on(const char *path, const char *node, char **errors)
{
	size_t size;
	struct config_source source = {.path = path, .node = node};
	FILE *out = open_memstream(errors, &size);
	assert_non_null(out);
	struct config *config = config_load_from(&source, out);
	fclose(out);
	return config;
}

static struct config *load_good(const char *path, const char *node)
{
	char *errors;
	struct config *config = load_on(path, node, &errors);
	if (config == NULL) {
		print_error("%s", errors);
	}
	assert_non_null(config);
	free(errors);
	return config;
}

static unsigned limit(const struct config *config)
{
	return config_domain(config, NULL, NULL, 0)->max_outbound_connections;
}

static unsigned limit_on(const char *path, const char *node)
{
	struct config *config = load_good(path, node);
	unsigned found = limit(config);
	config_release(config);
	return found;
}

static void write_layers(void)
{
	write_deep("etc/main.conf", "include limits.conf\n");
	write_deep("etc/limits.conf", "max_outbound_connections = 1\n");
	write_deep("etc/subcluster/east/limits.conf", "max_outbound_connections = 2\n");
	write_deep("etc/node/n1/limits.conf", "max_outbound_connections = 3\n");
	write_deep("etc/node/n1/subcluster", "east\n");
	write_deep("etc/node/n2/subcluster", "east");
	write_deep("etc/node/n3/other.conf", "");
}

static void test_include_when_layers_have_it(void **state)
{
	(void)state;
	write_layers();
	assert_int_equal(limit_on("etc/main.conf", "n1"), 3);
	assert_int_equal(limit_on("etc/main.conf", "n2"), 2);
	assert_int_equal(limit_on("etc/main.conf", "n3"), 1);
	assert_int_equal(limit_on("etc/main.conf", "elsewhere"), 1);
	/* The machine's own name, which has no folder. */
	assert_int_equal(limit_on("etc/main.conf", NULL), 1);
	assert_int_equal(chdir("etc"), 0);
	assert_int_equal(limit_on("main.conf", "n1"), 3);
	assert_int_equal(chdir(folder), 0);
}

static void test_include_when_the_machine_has_a_folder(void **state)
{
	char name[256];
	char path[512];
	(void)state;
	assert_int_equal(gethostname(name, sizeof(name)), 0);
	snprintf(path, sizeof(path), "mine/node/%s/limits.conf", name);
	write_deep("mine/main.conf", "include limits.conf");
	write_deep("mine/limits.conf", "max_outbound_connections = 1\n");
	write_deep(path, "max_outbound_connections = 9\n");
	assert_int_equal(limit_on("mine/main.conf", NULL), 9);
}

/* Each layer may add to what the one below says. */
static void test_include_when_a_layer_includes_its_own_name(void **state)
{
	(void)state;
	write_layers();
	write_deep("etc/node/n1/limits.conf", "include limits.conf\nremote_smtp_port = 1026\n");
	write_deep("etc/subcluster/east/limits.conf",
		   "include limits.conf\nremote_smtp_port = 1025\nring_slots = 64\n");
	struct config *config = load_good("etc/main.conf", "n1");
	assert_int_equal(limit(config), 1);
	assert_int_equal(config_domain(config, NULL, NULL, 0)->remote_smtp_port, 1026);
	assert_int_equal(config_global(config)->ring_slots, 64);
	assert_int_equal(config_file_count(config), 4);
	assert_string_equal(config_file(config, 0), "etc/main.conf");
	assert_string_equal(config_file(config, 1), "etc/node/n1/limits.conf");
	assert_string_equal(config_file(config, 2), "etc/subcluster/east/limits.conf");
	assert_string_equal(config_file(config, 3), "etc/limits.conf");
	config_release(config);
}

/* A folder is taken whole from the first layer that has it; files beside the including one come
 * before those of the main file's folder. */
static void test_include_when_it_is_a_folder_or_deeper(void **state)
{
	(void)state;
	write_deep("deep/main.conf", "include conf.d");
	write_deep("deep/conf.d/10", "include more.conf");
	write_deep("deep/conf.d/more.conf", "max_outbound_connections = 1\n");
	write_deep("deep/more.conf", "max_outbound_connections = 2\n");
	assert_int_equal(limit_on("deep/main.conf", "n1"), 1);
	assert_int_equal(unlink("deep/conf.d/more.conf"), 0);
	assert_int_equal(limit_on("deep/main.conf", "n1"), 2);
	write_deep("deep/node/n1/conf.d/20", "max_outbound_connections = 3\n");
	assert_int_equal(limit_on("deep/main.conf", "n1"), 3);
	write_deep("deep/node/n1/more.conf", "max_outbound_connections = 4\n");
	assert_int_equal(limit_on("deep/main.conf", "n1"), 3);
}

static void check_refused(const char *path, const char *node, const char *says)
{
	char *errors;
	assert_null(load_on(path, node, &errors));
	if (strstr(errors, says) == NULL) {
		print_error("says %s\nnot %s\n", errors, says);
		fail();
	}
	free(errors);
}

static void test_load_when_the_subcluster_is_wrong(void **state)
{
	(void)state;
	write_layers();
	write_deep("etc/node/n4/subcluster", "west\n");
	check_refused("etc/main.conf", "n4",
		      "etc/main.conf: etc/node/n4/subcluster: there is no etc/subcluster/west; "
		      "expected that folder\n");
	write_deep("etc/node/n4/subcluster", "../east\n");
	check_refused("etc/main.conf", "n4",
		      "etc/node/n4/subcluster: is not the name of a subcluster; expected a line "
		      "with a name\n");
	write_deep("etc/node/n4/subcluster", "");
	check_refused("etc/main.conf", "n4", "is not the name of a subcluster");
}

static void test_include_when_it_is_nowhere(void **state)
{
	(void)state;
	write_deep("none/main.conf", "\ninclude nothing.conf");
	write_deep("none/node/n1/x", "");
	check_refused("none/main.conf", "n1",
		      "none/main.conf:2: include \"none/nothing.conf\": No such file");
	/* A node is no path. */
	write_deep("secret/limits.conf", "max_outbound_connections = 7");
	write_deep("none/main.conf", "include limits.conf");
	check_refused("none/main.conf", "../../secret", "No such file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_include_when_layers_have_it),
		cmocka_unit_test(test_include_when_the_machine_has_a_folder),
		cmocka_unit_test(test_include_when_a_layer_includes_its_own_name),
		cmocka_unit_test(test_include_when_it_is_a_folder_or_deeper),
		cmocka_unit_test(test_load_when_the_subcluster_is_wrong),
		cmocka_unit_test(test_include_when_it_is_nowhere),
	};
	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
