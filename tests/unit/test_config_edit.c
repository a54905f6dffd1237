/*
 * Edits of files' texts: one value, one line or one scope changes and nothing else; in the shipped
 * files, too. Saving what the console has set: through folders and layers, refused where it must
 * be.
 */
#include "config/edit.h"
#include "config/parser.h"
#include "config/schema.h"
#include "config/writeback.h"
#include "tests/unit/config_world.h"

/* ---- texts ---- */

static void parse(struct tree *tree, const char *text)
{
	struct report report = {.out = stderr, .tree = tree};
	tree_init(tree);
	tree->keeps_places = true;
	parser_load_text(tree, &report, "test.conf", text, strlen(text));
	report_close(&report);
	assert_int_equal(report.errors, 0);
}

/* `command`: scope, option and value, or without one to unset; words are separated by one space,
 * and a value may have some. */
static struct overlay change_of(const char *command, bool unset)
{
	struct overlay overlay = {.count = 0};
	struct config_scope scope;
	char copy[256];
	char why[CONFIG_WHY];
	char *words[32];
	unsigned count = 0;
	char *value = NULL;

	snprintf(copy, sizeof(copy), "%s", command);
	for (char *w = strtok(copy, " "); w != NULL; w = strtok(NULL, " ")) {
		words[count++] = w;
	}
	int taken = config_scope_parse(&scope, words, count, unset ? 1 : 2, why);
	assert_true(taken >= 0);
	if (!unset) {
		const char *at = command + (words[taken + 1] - copy);
		assert_null(config_value_read(at, &value));
	}
	overlay_change(&overlay, &scope, words[taken], value, "somebody", 0);
	free(value);
	config_scope_free(&scope);
	return overlay;
}

/* As writing back does it. */
static char *edited(const char *before, const char *command, bool unset)
{
	struct overlay overlay = change_of(command, unset);
	char *text = strdup(before);
	for (;;) {
		struct tree tree;
		struct edit edit;
		char why[CONFIG_WHY];
		parse(&tree, text);
		assert_int_equal(edit_change(&tree, &overlay.changes[0], &edit, why), 0);
		tree_free(&tree);
		if (edit.text == NULL) {
			break;
		}
		assert_int_equal(strlen(edit.text), edit.len);
		free(text);
		text = edit.text;
		if (!unset) {
			break;
		}
	}
	overlay_free(&overlay);
	return text;
}

static void check(const char *before, const char *command, bool unset, const char *after)
{
	char *found = edited(before, command, unset);
	if (strcmp(found, after) != 0) {
		print_error("%s of\n%s\ngives\n%s\nnot\n%s\n", command, before, found, after);
		fail();
	}
	free(found);
}

static void check_set(const char *before, const char *command, const char *after)
{
	check(before, command, false, after);
}

static void check_unset(const char *before, const char *command, const char *after)
{
	check(before, command, true, after);
}

static void test_set_when_the_option_is_there(void **state)
{
	(void)state;
	check_set("# a\nring_slots = 64 # b\n\nhostname=x\n", "ring_slots 128",
		  "# a\nring_slots = 128 # b\n\nhostname=x\n");
	check_set("Ring_Slots=64", "ring_slots 128", "Ring_Slots=128");
	/* The one that counts. */
	check_set("ring_slots = 1 ring_slots = 2\n", "ring_slots 3",
		  "ring_slots = 1 ring_slots = 3\n");
	check_set("domain x.y { retry_interval = 5 max_retry_interval = 6 }",
		  "domain X.Y retry_interval 7",
		  "domain x.y { retry_interval = 7 max_retry_interval = 6 }");
	/* Several lines, of a list. */
	check_set("gateway = ( a\n\t# first\n\tb\n)\nring_slots = 1\n", "gateway ( \"c:25\" d )",
		  "gateway = ( \"c:25\" d )\nring_slots = 1\n");
	check_set("a = [ x = 1\n y = 2 ]\ngateway\n=\na\n", "gateway b",
		  "a = [ x = 1\n y = 2 ]\ngateway\n=\nb\n");
	/* Values end where others begin. */
	check_set("hostname = \"a\"ring_slots = 1", "hostname b", "hostname = \"b\"ring_slots = 1");
	check_set("hostname = a/**/ring_slots = 1", "hostname b", "hostname = b/**/ring_slots = 1");
	check_set("hostname = \"a b\" #c", "hostname 'x y'", "hostname = 'x y' #c");
	check_set("hostname = a\r\nring_slots = 1\r\n", "ring_slots 2",
		  "hostname = a\r\nring_slots = 2\r\n");
}

static void test_set_when_the_scope_is_there(void **state)
{
	(void)state;
	/* As the last one is indented; before the brace. */
	check_set("domain x {\n  a = 1\n    b = 2 # c\n\n}\n# end\n", "domain x retry_interval 7",
		  "domain x {\n  a = 1\n    b = 2 # c\n\n    retry_interval = 7\n}\n# end\n");
	check_set("domain x {\n}\n", "domain x retry_interval 7",
		  "domain x {\n\tretry_interval = 7\n}\n");
	check_set("a {\n  b = 1 }\ndomain x {\n}\n", "domain x retry_interval 7",
		  "a {\n  b = 1 }\ndomain x {\n  retry_interval = 7\n}\n");
	check_set("domain x { }", "domain x retry_interval 7", "domain x { retry_interval = 7 }");
	check_set("domain x {}", "domain x retry_interval 7", "domain x { retry_interval = 7 }");
	check_set("domain x { a = 1 }", "domain x retry_interval 7",
		  "domain x { a = 1 retry_interval = 7 }");
	check_set("domain x {\n\ta = 1 }\n", "domain x retry_interval 7",
		  "domain x {\n\ta = 1 retry_interval = 7 }\n");
	check_set("domain x {\n\ta = 1 # no }\n\t}\n", "domain x retry_interval 7",
		  "domain x {\n\ta = 1 # no }\n\tretry_interval = 7\n\t}\n");
	/* Opened twice: where it was last. */
	check_set("domain x { }\ndomain x { a = 1 }\n", "domain x retry_interval 7",
		  "domain x { }\ndomain x { a = 1 retry_interval = 7 }\n");
	check_set("binding b {\n\tdomain x {\n\t}\n}\n", "binding b domain x retry_interval 7",
		  "binding b {\n\tdomain x {\n\t\tretry_interval = 7\n\t}\n}\n");
	check_set("binding b {\n\tdomain x {\n\t}\n}\n", "binding b retry_interval 7",
		  "binding b {\n\tdomain x {\n\t}\n\tretry_interval = 7\n}\n");
	check_set("domain x {\r\n\ta = 1\r\n}\r\n", "domain x retry_interval 7",
		  "domain x {\r\n\ta = 1\r\n\tretry_interval = 7\r\n}\r\n");
}

static void test_set_when_nothing_is_there(void **state)
{
	(void)state;
	check_set("", "ring_slots 128", "ring_slots = 128\n");
	check_set("hostname = x # no line feed", "ring_slots 128",
		  "hostname = x # no line feed\nring_slots = 128\n");
	check_set("hostname = x\n", "domain y retry_interval 7",
		  "hostname = x\n\ndomain \"y\" {\n\tretry_interval = 7\n}\n");
	check_set("binding b {\n  a = 1\n}\n", "binding b domain /\\.y$/ retry_interval 7",
		  "binding b {\n  a = 1\n}\n\nbinding \"b\" {\n  domain \"/\\\\.y$/\" {\n"
		  "    retry_interval = 7\n  }\n}\n");
	check_set("a = 1\r\n", "spool segment_size 8M",
		  "a = 1\r\n\r\nspool {\r\n\tsegment_size = 8M\r\n}\r\n");
}

static void test_unset_when_it_is_there(void **state)
{
	(void)state;
	check_unset("hostname = x\nring_slots = 64 # why\na = 1\n", "ring_slots",
		    "hostname = x\na = 1\n");
	check_unset("ring_slots = 64", "ring_slots", "");
	check_unset("\tring_slots = 64 /* a */ # b\n# c\n", "ring_slots", "# c\n");
	check_unset("ring_slots = 64 /* a\n b */ a = 1\n", "ring_slots", "/* a\n b */ a = 1\n");
	check_unset("  a = 1 ring_slots = 64\nb = 2\n", "ring_slots", "  a = 1\nb = 2\n");
	check_unset("  ring_slots = 64 a = 1\n", "ring_slots", "  a = 1\n");
	check_unset("domain x { retry_interval = 5 a = 1 }", "domain x retry_interval",
		    "domain x { a = 1 }");
	check_unset("domain x { retry_interval = 5 }", "domain x retry_interval", "domain x { }");
	check_unset("gateway = ( a\n\tb )\nc = 1\n", "gateway", "c = 1\n");
	/* Each of them. */
	check_unset("ring_slots = 1\na = 1\nring_slots = 2\n", "ring_slots", "a = 1\n");
	check_unset("domain x { a = 1 }\n", "domain x ring_slots", "domain x { a = 1 }\n");
	check_unset("domain x { a = 1 }\n", "domain z retry_interval", "domain x { a = 1 }\n");
	check_unset("a = x retry_interval = \"y\"c = 1\n", "retry_interval", "a = x c = 1\n");
}

/* ---- the shipped files ---- */

/* Where tests run: the root of the source. */
static char root[4096 - 64];

static char *read_text(const char *path)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	FILE *in = fopen(path, "r");
	int c;
	assert_non_null(in);
	while ((c = fgetc(in)) != EOF) {
		fputc(c, out);
	}
	fclose(in);
	fclose(out);
	return text;
}

/* How many lines of `a` and `b` differ; as many lines in both. */
static unsigned changed_lines(const char *a, const char *b)
{
	unsigned changed = 0;
	while (*a != '\0' && *b != '\0') {
		size_t len_a = strcspn(a, "\n");
		size_t len_b = strcspn(b, "\n");
		changed += len_a != len_b || memcmp(a, b, len_a) != 0;
		a += len_a + (a[len_a] != '\0');
		b += len_b + (b[len_b] != '\0');
	}
	assert_int_equal(*a, '\0');
	assert_int_equal(*b, '\0');
	return changed;
}

/* Sets each option of the scope and those in it to something else, one at a time; how many. */
static unsigned set_each(const char *text, const struct tree_scope *scope, const char *path)
{
	unsigned done = 0;
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		char command[256];
		snprintf(command, sizeof(command), "%s%s other", path, o->name);
		if (o->value.kind != TREE_WORD || tree_option_find(scope, o->name) != o) {
			continue;
		}
		char *after = edited(text, command, false);
		struct tree tree;
		assert_int_equal(changed_lines(text, after), 1);
		parse(&tree, after);
		tree_free(&tree);
		free(after);
		done++;
	}
	for (const struct tree_scope *c = scope->first_child; c != NULL; c = c->next) {
		char label[128];
		char deeper[200];
		snprintf(label, sizeof(label), "%s%s%s ", c->name, c->instance != NULL ? " " : "",
			 c->instance != NULL ? c->instance : "");
		snprintf(deeper, sizeof(deeper), "%s%s", path, label);
		done += set_each(text, c, deeper);
	}
	return done;
}

static void test_set_when_in_shipped_files(void **state)
{
	static const char *const files[] = {"config/flywheel.conf", "config/demo.conf"};
	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char path[4096];
		snprintf(path, sizeof(path), "%s/%s", root, files[i]);
		char *text = read_text(path);
		struct tree tree;
		parse(&tree, text);
		assert_in_range(set_each(text, tree.root, ""), 8, 1000);
		tree_free(&tree);
		free(text);
	}
}

/* ---- files ---- */

static char told[1024];

static int leave_root(void **state)
{
	assert_non_null(getcwd(root, sizeof(root)));
	return enter_folder(state);
}

static void check_file(const char *name, const char *wanted)
{
	char *found = read_text(name);
	assert_string_equal(found, wanted);
	free(found);
}

static struct config *load_file(const char *path, const struct overlay *overlay)
{
	struct config_source source = {.path = path, .node = "n1", .overlay = overlay};
	struct config *config = config_load_from(&source, stderr);
	assert_non_null(config);
	return config;
}

static void wrote(void *context, const char *path)
{
	(void)context;
	snprintf(told + strlen(told), sizeof(told) - strlen(told), "%s ", path);
}

static struct config *write_back(const struct config *running, const struct overlay *overlay,
				 char **errors)
{
	size_t size;
	FILE *out = open_memstream(errors, &size);
	told[0] = '\0';
	struct config *after = config_writeback(running, overlay, wrote, NULL, out);
	fclose(out);
	return after;
}

static void add(struct overlay *overlay, const char *command, bool unset)
{
	struct overlay one = change_of(command, unset);
	overlay_merge(overlay, &one);
	overlay_free(&one);
}

static void check_refused(const char *path, const char *command, bool unset, const char *says)
{
	struct overlay overlay = {.count = 0};
	char *errors;
	struct config *running = load_file(path, NULL);
	add(&overlay, command, unset);
	assert_null(write_back(running, &overlay, &errors));
	if (strstr(errors, says) == NULL) {
		print_error("says %s\nnot %s\n", errors, says);
		fail();
	}
	assert_string_equal(told, "");
	free(errors);
	overlay_free(&overlay);
	config_release(running);
}

#define LISTEN "esmtp_listener { listen 127.0.0.1:2525 { } }\n"

static void test_writeback_when_files_say_it(void **state)
{
	struct overlay overlay = {.count = 0};
	struct stat status;
	char *errors;
	(void)state;
	assert_int_equal(mkdir("conf.d", 0700), 0);
	write_file("main.conf", LISTEN "ring_slots = 64 # slots\ninclude conf.d\n");
	write_file("conf.d/10", "domain a.example { include \"inner\" }\n");
	write_file("inner", "");
	write_file("conf.d/inner", "retry_interval = 60 # s\n");
	assert_int_equal(chmod("conf.d/10", 0640), 0);
	unlink("inner");
	/* A folder's file that is also included by name would come twice. */
	assert_int_equal(rename("conf.d/inner", "limits"), 0);
	write_file("conf.d/10", "domain a.example { include ../limits }\n");
	struct config *running = load_file("main.conf", NULL);
	add(&overlay, "ring_slots 128", false);
	add(&overlay, "domain a.example retry_interval 90s", false);
	add(&overlay, "domain a.example remote_smtp_port 26", false);
	add(&overlay, "domain new.example retry_interval 30", false);
	add(&overlay, "domain new.example remote_smtp_port 27", false);
	struct config *after = write_back(running, &overlay, &errors);
	assert_string_equal(errors, "");
	assert_non_null(after);
	check_file("main.conf", LISTEN "ring_slots = 128 # slots\ninclude conf.d\n\n"
				       "domain \"new.example\" {\n\tretry_interval = 30\n"
				       "\tremote_smtp_port = 27\n}\n");
	check_file("limits", "retry_interval = 90s # s\n");
	check_file("conf.d/10", "domain a.example { include ../limits remote_smtp_port = 26 }\n");
	assert_string_equal(told, "main.conf conf.d/../limits conf.d/10 ");
	assert_int_equal(stat("conf.d/10", &status), 0);
	assert_int_equal(status.st_mode & 07777, 0640);
	assert_int_equal(config_global(after)->ring_slots, 128);
	free(errors);
	config_release(running);
	/* Nothing is left beside them. */
	assert_int_equal(system("test -z \"$(find . -name '.?*')\""), 0);
	/* And once more, from what was written. */
	overlay_free(&overlay);
	add(&overlay, "domain a.example retry_interval", true);
	struct config *last = write_back(after, &overlay, &errors);
	assert_non_null(last);
	check_file("limits", "");
	free(errors);
	overlay_free(&overlay);
	config_release(after);
	config_release(last);
}

static void test_writeback_when_it_is_refused(void **state)
{
	(void)state;
	write_file("twice", "retry_interval = 60\n");
	write_file("fixed", "hostname = fixed.example\nspool { path = x }\n");
	write_file("refuse.conf", LISTEN "readonly_include fixed\ndomain a.x { include twice }\n"
					 "domain b.x { include twice }\n");
	check_refused("refuse.conf", "hostname other.example", false,
		      "fixed: was included by readonly_include; expected a file that may be "
		      "changed\n");
	check_refused("refuse.conf", "hostname", true, "fixed: was included by readonly_include");
	check_refused("refuse.conf", "spool segment_size 8M", false,
		      "fixed: was included by readonly_include");
	check_refused("refuse.conf", "domain a.x retry_interval 5", false,
		      "twice: is included more than once");
	/* What cannot be loaded is not written. */
	check_refused(
		"refuse.conf", "ring_slots 63", false,
		"set by the console, 1970-01-01T00:00:00Z: option \"ring_slots\": \"63\" is too small");
	check_file("fixed", "hostname = fixed.example\nspool { path = x }\n");
	check_file("twice", "retry_interval = 60\n");
}

static void test_writeback_when_a_file_was_changed(void **state)
{
	struct overlay overlay = {.count = 0};
	char *errors;
	(void)state;
	write_file("part", "ring_slots = 64\n");
	write_file("changed.conf", LISTEN "include part\n");
	struct config *running = load_file("changed.conf", NULL);
	add(&overlay, "hostname other.example", false);
	write_file("part", "ring_slots = 128\n");
	assert_null(write_back(running, &overlay, &errors));
	assert_string_equal(errors,
			    "part: was changed since the configuration was loaded; expected "
			    "it as it was, or config reload first\n");
	check_file("changed.conf", LISTEN "include part\n");
	free(errors);
	write_file("part", "ring_slots = 64\n");
	struct config *after = write_back(running, &overlay, &errors);
	assert_non_null(after);
	check_file("changed.conf", LISTEN "include part\nhostname = other.example\n");
	free(errors);
	config_release(after);
	config_release(running);
	overlay_free(&overlay);
}

/* A folder stands where the file was, which was checked before. */
static void spoil_next(void *context, const char *path)
{
	wrote(context, path);
	assert_int_equal(unlink("later.conf"), 0);
	assert_int_equal(mkdir("later.conf", 0700), 0);
}

static void test_writeback_when_a_later_file_cannot_be_written(void **state)
{
	struct overlay overlay = {.count = 0};
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);

	(void)state;
	told[0] = '\0';
	write_file("first.conf", LISTEN "ring_slots = 64\ninclude later.conf\n");
	write_file("later.conf", "hostname = a.example\n");
	struct config *running = load_file("first.conf", NULL);
	add(&overlay, "ring_slots 128", false);
	add(&overlay, "hostname b.example", false);
	assert_null(config_writeback(running, &overlay, spoil_next, NULL, out));
	fclose(out);
	assert_string_equal(told, "first.conf ");
	assert_non_null(strstr(errors, "later.conf: cannot put a new file in its place"));
	check_file("first.conf", LISTEN "ring_slots = 128\ninclude later.conf\n");
	assert_int_equal(system("test -z \"$(find . -name '.?*')\""), 0);
	free(errors);
	overlay_free(&overlay);
	config_release(running);
}

/* The link stays one. */
static void test_writeback_when_the_file_is_a_link(void **state)
{
	struct overlay overlay = {.count = 0};
	struct stat status;
	char *errors;
	(void)state;
	write_file("real.conf", LISTEN);
	assert_int_equal(symlink("real.conf", "link.conf"), 0);
	struct config *running = load_file("link.conf", NULL);
	add(&overlay, "hostname other.example", false);
	struct config *after = write_back(running, &overlay, &errors);
	assert_non_null(after);
	assert_int_equal(lstat("link.conf", &status), 0);
	assert_true(S_ISLNK(status.st_mode));
	check_file("real.conf", LISTEN "hostname = other.example\n");
	free(errors);
	config_release(after);
	config_release(running);
	overlay_free(&overlay);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_when_the_option_is_there),
		cmocka_unit_test(test_set_when_the_scope_is_there),
		cmocka_unit_test(test_set_when_nothing_is_there),
		cmocka_unit_test(test_unset_when_it_is_there),
		cmocka_unit_test(test_set_when_in_shipped_files),
		cmocka_unit_test(test_writeback_when_files_say_it),
		cmocka_unit_test(test_writeback_when_it_is_refused),
		cmocka_unit_test(test_writeback_when_a_file_was_changed),
		cmocka_unit_test(test_writeback_when_a_later_file_cannot_be_written),
		cmocka_unit_test(test_writeback_when_the_file_is_a_link),
	};
	return cmocka_run_group_tests(tests, leave_root, leave_folder);
}
