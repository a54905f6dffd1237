/*
 * The stanza language: words, comments, lists, scopes, includes; what --dump prints says the same
 * when it is read back; and no text whatever brings the parser down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config/parser.h"
#include "config/tree.h"

/* A file with something of everything. */
static const char everything[] =
	"# comment\n"
	"hostname = mta1.example.com /* a long\n"
	"comment with } and \" in it */ node_id = 7\n"
	"agent scheduler { count = 2  cores = ( 0 1 )  idle = \"park\"  spin = 50us }\n"
	"agent wheel { group = service } agent log { group = service }\n"
	"group \"service\" { core = 1 idle = backoff max_spins = 10 max_yields = 20\n"
	"	min_park = 1us max_park = 1ms }\n"
	"spool { path = \"/var/spool/fly\\\"wheel\\\\\" segment_size = 64M durability = cached }\n"
	"log { path = '/var/log/fly\"wheel' }\n"
	"relay_hosts = ( 127.0.0.0/8, \"::1\" 10.0.0.0/8, )\n"
	"relay_domains = ( example.com .example.net )\n"
	"control_listener { listen \"/run/flywheel/control\" { file_mode = 0600 } }\n"
	"esmtp_listener {\n"
	"	max_message_size = 16M\n"
	"	peer 10.0.0.0/8 { max_message_size = 30M durability = memory }\n"
	"	listen \"127.0.0.1:2525\" { peer \"2001:db8::/32\" { banner = \"no # comment\" } }\n"
	"	listen *:25 { enable = off }\n"
	"}\n"
	"gateway = ( \"a.example:25?pref=5\" \"[::1]:26\" b.example )\n"
	"domain example.net { gateway = 127.0.0.1:2526 max_outbound_connections = 20\n"
	"	outbound_throttle_messages = 300/min }\n"
	"domain example.org { suspend_delivery = yes gateway = ( ) }\n"
	"binding b { ehlo_hostname = b.example.com domain example.org { retry_interval = 90s } }\n"
	"binding_group g {\n"
	"	max_outbound_connections = 5\n"
	"	domain example.org { message_expiration = 7d }\n"
	"	binding c { domain example.org { outbound_throttle_connections = 5 } }\n"
	"}\n";

static struct config *load_quietly(const char *text, size_t len)
{
	FILE *out = fopen("/dev/null", "w");
	assert_non_null(out);
	struct config *config = config_load_text("test.conf", text, len, out);
	fclose(out);
	return config;
}

static char *dump(const struct config *config)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	assert_non_null(out);
	config_dump(config, out);
	fclose(out);
	return text;
}

/* Parses to a tree; any error fails. */
static void parse(struct tree *tree, const char *text)
{
	struct report report = {.out = stderr, .tree = tree};
	tree_init(tree);
	parser_load_text(tree, &report, "test.conf", text, strlen(text));
	report_close(&report);
	assert_int_equal(report.errors, 0);
}

static const struct tree_value *value_of(const struct tree_scope *scope, const char *name)
{
	const struct tree_option *option = tree_option_find(scope, name);
	assert_non_null(option);
	return &option->value;
}

static void check_word(const struct tree_scope *scope, const char *name, const char *word,
		       uint32_t line)
{
	const struct tree_value *value = value_of(scope, name);
	assert_int_equal(value->kind, TREE_WORD);
	assert_string_equal(value->word, word);
	assert_int_equal(value->source.line, line);
}

static void test_words_when_bare_and_quoted(void **state)
{
	struct tree tree;
	(void)state;
	parse(&tree, "a = plain\n"
		     "B_b = \"with space # and } = /* no comment */\"\n"
		     "c = \"say \\\"hi\\\" \\\\ \\n\"\n"
		     "d = 'single \"quoted\" \\'\n"
		     "e = 10.0.0.0/8\n"
		     "f = \"\"\n"
		     "g=tight h=1 # comment = 5\n"
		     "i = \303\274ber\n"
		     "j =\n\n  next_line\n"
		     "k = one/*two*/l = three");
	check_word(tree.root, "a", "plain", 1);
	check_word(tree.root, "b_b", "with space # and } = /* no comment */", 2);
	check_word(tree.root, "c", "say \"hi\" \\ \\n", 3);
	check_word(tree.root, "d", "single \"quoted\" \\", 4);
	check_word(tree.root, "e", "10.0.0.0/8", 5);
	check_word(tree.root, "f", "", 6);
	check_word(tree.root, "g", "tight", 7);
	check_word(tree.root, "h", "1", 7);
	check_word(tree.root, "i", "\303\274ber", 8);
	check_word(tree.root, "j", "next_line", 11);
	check_word(tree.root, "k", "one", 12);
	check_word(tree.root, "l", "three", 12);
	tree_free(&tree);
}

static void test_lines_when_comments_span_them(void **state)
{
	struct tree tree;
	(void)state;
	parse(&tree, "/* 1\n * 2\n ** 3\n **/ a = 1\n# five /*\r\nb = 2\n/**/c = 3/*\n\n*/d = 4\n");
	check_word(tree.root, "a", "1", 4);
	check_word(tree.root, "b", "2", 6);
	check_word(tree.root, "c", "3", 7);
	check_word(tree.root, "d", "4", 9);
	tree_free(&tree);
}

static void test_lists_when_nested(void **state)
{
	struct tree tree;
	(void)state;
	parse(&tree, "a = ( 1, \"2 3\"\n( 4 5 ) )\nb = ( )\nc = [ K = v, l = ( 6 ) ]\n");
	const struct tree_value *a = value_of(tree.root, "a");
	assert_int_equal(a->kind, TREE_LIST);
	assert_int_equal(a->count, 3);
	assert_string_equal(a->first->word, "1");
	assert_string_equal(a->first->next->word, "2 3");
	const struct tree_value *nested = a->first->next->next;
	assert_int_equal(nested->kind, TREE_LIST);
	assert_int_equal(nested->source.line, 2);
	assert_int_equal(nested->count, 2);
	assert_null(nested->next);
	assert_int_equal(value_of(tree.root, "b")->count, 0);
	const struct tree_value *c = value_of(tree.root, "c");
	assert_int_equal(c->kind, TREE_DICTIONARY);
	assert_int_equal(c->count, 2);
	assert_string_equal(c->first->key, "k");
	assert_string_equal(c->first->word, "v");
	assert_string_equal(c->first->next->key, "l");
	assert_int_equal(c->first->next->kind, TREE_LIST);
	tree_free(&tree);
}

static void test_scopes_when_opened_twice_are_merged(void **state)
{
	struct tree tree;
	(void)state;
	parse(&tree, "Spool { path = a }\n"
		     "domain Example.COM { x = 1 y = 1 }\n"
		     "binding B { x = 1 }\n"
		     "domain \"example.com\" { x = 2\n z = 3 }\n"
		     "binding b { x = 3 }\n"
		     "spool { size = 5 }\n");
	const struct tree_scope *spool = tree.root->first_child;
	assert_string_equal(spool->name, "spool");
	assert_null(spool->instance);
	check_word(spool, "path", "a", 1);
	check_word(spool, "size", "5", 7);
	const struct tree_scope *domain = spool->next;
	assert_string_equal(domain->instance, "example.com");
	assert_int_equal(domain->source.line, 2);
	check_word(domain, "x", "2", 4);
	check_word(domain, "y", "1", 2);
	check_word(domain, "z", "3", 5);
	/* Names of bindings have case. */
	assert_string_equal(domain->next->instance, "B");
	assert_string_equal(domain->next->next->instance, "b");
	assert_null(domain->next->next->next);
	tree_free(&tree);
}

/* A folder for one test, with what it needs; removed with all in it. */

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/flywheel-test-XXXXXX");
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
	char command[96];
	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static const char *path_in_folder(const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	FILE *file = fopen(path_in_folder(name), "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static char *load_errors(const char *name, struct config **config)
{
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);
	*config = config_load(path_in_folder(name), out);
	fclose(out);
	return errors;
}

/* `format` has one %s for each line's folder. */
static void check_errors(const char *name, const char *format)
{
	char expected[1024];
	struct config *config;
	char *errors = load_errors(name, &config);
	snprintf(expected, sizeof(expected), format, folder, folder, folder);
	assert_null(config);
	assert_string_equal(errors, expected);
	free(errors);
}

static void test_include_when_file_in_a_scope(void **state)
{
	struct config *config;
	(void)state;
	write_file("main.conf",
		   "max_outbound_connections = 1\n"
		   "domain a.example { include sub/limits.conf remote_smtp_port = 26 }\n"
		   "readonly_include \"other.conf\"\n");
	mkdir(path_in_folder("sub"), 0700);
	write_file("sub/limits.conf", "max_outbound_connections = 2\ninclude \"more.conf\"\n");
	write_file("sub/more.conf", "remote_smtp_port = 25 # overridden below the include\n"
				    "max_recipients_per_batch = 3");
	write_file("other.conf", "hostname = other.example");
	char *errors = load_errors("main.conf", &config);
	assert_non_null(config);
	const struct domain_options *a = config_domain(config, NULL, "a.example", 9);
	assert_int_equal(a->max_outbound_connections, 2);
	assert_int_equal(a->max_recipients_per_batch, 3);
	assert_int_equal(a->remote_smtp_port, 26);
	assert_int_equal(config_domain(config, NULL, "b", 1)->max_outbound_connections, 1);
	assert_string_equal(config_global(config)->hostname, "other.example");

	/* Each value knows its file. */
	char *dumped = dump(config);
	assert_non_null(strstr(dumped, "/sub/limits.conf:1\n"));
	assert_non_null(strstr(dumped, "/sub/more.conf:2\n"));
	free(dumped);
	free(errors);
	config_release(config);
}

static void test_include_when_folder_is_alphabetical(void **state)
{
	struct config *config;
	(void)state;
	mkdir(path_in_folder("conf.d"), 0700);
	mkdir(path_in_folder("conf.d/aa"), 0700);
	write_file("conf.d/aa/deep.conf", "nonsense = 1");
	write_file("conf.d/.hidden", "nonsense = 2");
	write_file("conf.d/10-a", "max_outbound_connections = 10 ring_slots = 64");
	write_file("conf.d/9-b", "max_outbound_connections = 9");
	write_file("conf.d/20-c", "max_outbound_connections = 20 ring_slots = 128");
	write_file("folder.conf", "max_outbound_connections = 1\ninclude conf.d\n");
	char *errors = load_errors("folder.conf", &config);
	assert_non_null(config);
	assert_int_equal(config_domain(config, NULL, "b", 1)->max_outbound_connections, 9);
	assert_int_equal(config_global(config)->ring_slots, 128);
	free(errors);
	config_release(config);
}

static void test_include_when_it_loops(void **state)
{
	(void)state;
	write_file("loop.conf", "hostname = a.example\n\ninclude \"loop2.conf\"\n");
	write_file("loop2.conf", "log {\ninclude \"./loop.conf\" }\n");
	check_errors("loop.conf",
		     "%s/loop2.conf:2: include \"%s/./loop.conf\": includes itself, or is nested "
		     "deeper than 32; expected each file to include others only\n");
	write_file("self.conf", "include self.conf\n");
	check_errors("self.conf",
		     "%s/self.conf:1: include \"%s/self.conf\": includes itself, or is nested "
		     "deeper than 32; expected each file to include others only\n");
}

static void test_include_when_file_is_bad(void **state)
{
	(void)state;
	write_file("missing.conf", "\ninclude \"nowhere.conf\"\n");
	check_errors("missing.conf", "%s/missing.conf:2: include \"%s/nowhere.conf\": No such file "
				     "or directory; expected a file or a folder of files\n");
	write_file("device.conf", "include /dev/null\n");
	check_errors("device.conf", "%s/device.conf:1: include \"/dev/null\": No such device; "
				    "expected a file that can be read\n");
	check_errors("nothing.conf", "%s/nothing.conf: No such file or directory; expected a file "
				     "that can be read\n");
}

/* A file closes what it opens, and nothing else. */
static void test_include_when_braces_cross_files(void **state)
{
	(void)state;
	write_file("outer.conf", "spool {\ninclude inner.conf\n}\n");
	write_file("inner.conf", "}\nlog {\n");
	check_errors(
		"outer.conf",
		"%s/inner.conf:1: unexpected }; expected a scope to be open in this file\n"
		"%s/inner.conf:2: scope log: not closed; expected } before the end of the file\n"
		"%s/inner.conf:2: scope log: not possible here; expected it in the global "
		"scope\n");
}

/* Cuts the origin off each line: it is another file the second time. */
static void cut_origins(char *text)
{
	char *out = text;
	for (char *in = text; *in != '\0';) {
		size_t line = strcspn(in, "\n");
		char *origin = memmem(in, line, "\t# ", 3);
		size_t kept = origin != NULL ? (size_t)(origin - in) : line;
		memmove(out, in, kept);
		out += kept;
		*out++ = '\n';
		in += line + (in[line] == '\n');
	}
	*out = '\0';
}

static void check_round_trip(const char *text)
{
	struct config *first = load_quietly(text, strlen(text));
	assert_non_null(first);
	char *dumped = dump(first);
	struct config *second = load_quietly(dumped, strlen(dumped));
	assert_non_null(second);
	char *again = dump(second);
	cut_origins(dumped);
	cut_origins(again);
	assert_string_equal(dumped, again);
	free(dumped);
	free(again);
	config_release(first);
	config_release(second);
}

static void test_dump_when_read_back_says_the_same(void **state)
{
	(void)state;
	check_round_trip("");
	check_round_trip(everything);
	check_round_trip("agent scheduler { cores = ( 0 1 2 ) } spool { segment_size = 2M }");
}

static void test_dump_when_values_were_set_and_defaulted(void **state)
{
	(void)state;
	struct config *config = load_quietly(everything, strlen(everything));
	char *text = dump(config);
	assert_non_null(strstr(text, "\nnode_id = 7\t# test.conf:3\n"));
	assert_non_null(strstr(text, "\nidle_time = \"300s\"\t# default\n"));
	assert_non_null(strstr(text, "\tpath = \"/var/spool/fly\\\"wheel\\\\\"\t# test.conf:8\n"));
	assert_non_null(strstr(text,
			       "\nrelay_hosts = ( \"127.0.0.0/8\" \"::1\" \"10.0.0.0/8\" )\t# "
			       "test.conf:10\n"));
	assert_non_null(strstr(text, "\n\tbinding \"c\" {\n\t\tdomain \"example.org\" {\n"
				     "\t\t\toutbound_throttle_connections = 5\t# test.conf:27\n"));
	free(text);
	config_release(config);
}

static void check_shipped(const char *path)
{
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);
	struct config *config = config_load(path, out);
	fclose(out);
	assert_string_equal(errors, "");
	assert_non_null(config);
	free(errors);
	/* What is shipped lets nobody but this machine relay, or connect. */
	for (uint32_t i = 0; i < config_smtp_listen_count(config); i++) {
		assert_int_equal(strncmp(config_smtp_listen(config, i)->name, "127.0.0.1:", 10), 0);
	}
	assert_int_equal(config_smtp_listen_count(config), 1);
	assert_int_equal(config_control_listen_count(config), 1);
	assert_int_equal(config_global(config)->durability, CONFIG_SYNCED);
	config_release(config);
}

/* Tests run in the root of the source. */
static void test_shipped_files_are_valid(void **state)
{
	(void)state;
	check_shipped("config/flywheel.conf");
	check_shipped("config/demo.conf");
}

/* Mutations: xorshift64, so that a failure comes again. */

enum { MUTATIONS = 10000, MUTANT_MAX = 4096 };

static uint64_t random_state;

static size_t random_below(size_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (size_t)(random_state % limit);
}

static size_t insert(char *text, size_t len, size_t at, const char *what, size_t what_len)
{
	if (len + what_len > MUTANT_MAX) {
		return len;
	}
	memmove(text + at + what_len, text + at, len - at);
	memcpy(text + at, what, what_len);
	return len + what_len;
}

static size_t mutate(char *text, size_t len)
{
	static const char *const pieces[] = {
		"{",
		"}",
		"(",
		")",
		"[",
		"]",
		"=",
		"\"",
		"'",
		"/*",
		"*/",
		"#",
		"\n",
		"\\",
		";",
		",",
		"-1",
		"1e999",
		"?",
		"%s",
		"\0\0",
		"\xff",
		"999999999999999999999",
		"include \"",
		"gateway = ",
		"domain ",
		"binding ",
		"peer 0/0 {",
		"listen ",
		"( ( ( (",
		"[ a = [ b = [",
	};
	char copy[64];
	size_t at = random_below(len + 1);
	size_t span = len - at < sizeof(copy) ? len - at : sizeof(copy);
	const char *piece = pieces[random_below(sizeof(pieces) / sizeof(pieces[0]))];
	switch (random_below(4)) {
	case 0:
		if (at < len) {
			text[at] = (char)random_below(256);
		}
		return len;
	case 1:
		span = random_below(span + 1);
		memmove(text + at, text + at + span, len - at - span);
		return len - span;
	case 2:
		memcpy(copy, text + at, span);
		return insert(text, len, random_below(len + 1), copy, span);
	default:
		return insert(text, len, at, piece, *piece == '\0' ? 1 : strlen(piece));
	}
}

static void test_load_when_mutated_never_fails_badly(void **state)
{
	static char mutant[MUTANT_MAX];
	FILE *out = fopen("/dev/null", "w");
	unsigned valid = 0;
	(void)state;
	assert_non_null(out);
	random_state = UINT64_C(0x9e3779b97f4a7c15);
	for (int i = 0; i < MUTATIONS; i++) {
		size_t len = sizeof(everything) - 1;
		memcpy(mutant, everything, len);
		for (size_t n = 1 + random_below(4); n > 0; n--) {
			len = mutate(mutant, len);
		}
		struct config *config = config_load_text("mutant.conf", mutant, len, out);
		if (config != NULL) {
			valid++;
			assert_non_null(config_domain(config, "c", "example.org", 11));
			config_dump(config, out);
			config_release(config);
		}
	}
	fclose(out);
	/* Some are still valid, most are not: both ways were gone. */
	assert_in_range(valid, MUTATIONS / 100, MUTATIONS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words_when_bare_and_quoted),
		cmocka_unit_test(test_lines_when_comments_span_them),
		cmocka_unit_test(test_lists_when_nested),
		cmocka_unit_test(test_scopes_when_opened_twice_are_merged),
		cmocka_unit_test(test_include_when_file_in_a_scope),
		cmocka_unit_test(test_include_when_folder_is_alphabetical),
		cmocka_unit_test(test_include_when_it_loops),
		cmocka_unit_test(test_include_when_file_is_bad),
		cmocka_unit_test(test_include_when_braces_cross_files),
		cmocka_unit_test(test_dump_when_read_back_says_the_same),
		cmocka_unit_test(test_dump_when_values_were_set_and_defaulted),
		cmocka_unit_test(test_shipped_files_are_valid),
		cmocka_unit_test(test_load_when_mutated_never_fails_badly),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
