/*
 * HTTP listeners and Graphite in the configuration: whose token counts, who needs one, and what is
 * said of mistakes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "tests/unit/config_world.h"

/* A listen that takes mail, lest that is warned of. */
#define MAIL "esmtp_listener { listen 127.0.0.1:25 { } }\n"

static int make_tokens(void **state)
{
	enter_folder(state);
	write_key("token", "  a-token-of-a-file \r\nsecond line\n");
	write_key("short", "abc\n");
	write_key("empty", "");
	return 0;
}

static void test_listens_when_scopes_fall_back(void **state)
{
	(void)state;
	struct config *config = load_valid(
		MAIL "http_listener {\n"
		     "	token = from-the-listener  max_requests = 5\n"
		     "	listen 127.0.0.1:1 { }\n"
		     "	listen 127.0.0.1:2 { token = from-the-listen  max_requests = 6\n"
		     "		listener_sessions = 7 }\n"
		     "	listen *:3 { token_file = token }\n"
		     "	listen 127.0.0.1:4 { enable = false }\n"
		     "}\n"
		     "http_listener other { token_file = token  listen *:5 { token = its-own-one } "
		     "}\n");
	static const struct {
		const char *token;
		uint32_t requests;
		uint32_t connections;
	} wanted[] = {{"from-the-listener", 5, 1000},
		      {"from-the-listen", 6, 7},
		      {"a-token-of-a-file", 5, 1000},
		      {"its-own-one", 64, 1000}};
	assert_int_equal(config_http_listen_count(config), 4);
	for (uint32_t i = 0; i < 4; i++) {
		const struct http_options *http = config_http(config, i);
		assert_string_equal(http->token, wanted[i].token);
		assert_int_equal(http->max_requests, wanted[i].requests);
		assert_int_equal(http->idle_ms, 60000);
		assert_int_equal(config_http_listen(config, i)->max_connections,
				 wanted[i].connections);
	}
	config_release(config);
}

static void test_tokens_when_nobody_else_can_connect(void **state)
{
	(void)state;
	struct config *config =
		load_valid(MAIL "http_listener { listen 127.0.0.1:1 { } listen \"[::1]:1\" { } "
				"listen \"/run/http\" { } listen 127.8.9.1:1 { } listen "
				"\"[::ffff:127.0.0.1]:2\" { } }\n");
	assert_int_equal(config_http_listen_count(config), 5);
	assert_null(config_http(config, 0)->token);
	config_release(config);
}

static void check_errors(const char *text, const char *wanted)
{
	char *errors;
	struct config *config = load(text, &errors);
	assert_string_equal(errors, wanted);
	assert_null(config);
	free(errors);
}

#define OPEN(name)                                                                                 \
	"scope listen \"" name "\": others than this machine could read there whom mail goes to; " \
	"expected token or token_file, or an address such as \"127.0.0.1:8025\"\n"

static void test_errors_when_anybody_could_read(void **state)
{
	(void)state;
	check_errors(MAIL "http_listener {\nlisten *:1 { }\nlisten 192.0.2.1:2 { }\n"
			  "listen \"[2001:db8::1]:3\" { } }\n",
		     "test.conf:3: " OPEN("*:1") "test.conf:4: " OPEN(
			     "192.0.2.1:2") "test.conf:5: " OPEN("[2001:db8::1]:3"));
}

static void test_errors_when_tokens_are_wrong(void **state)
{
	(void)state;
	check_errors(MAIL "http_listener {\ntoken = abc\nlisten 127.0.0.1:1 { }\n"
			  "listen 127.0.0.1:2 { token = \"with a blank\" }\n}\n",
		     "test.conf:3: option \"token\": a token of 3 bytes; expected 8 to 1024\n"
		     "test.conf:5: option \"token\": the token has a blank or a byte that is not "
		     "ASCII; expected printable ASCII\n");
	check_errors(MAIL "http_listener { listen 127.0.0.1:1 {\ntoken_file = nowhere\n} }\n",
		     "test.conf:3: option \"token_file\": \"nowhere\" cannot be read: No such file "
		     "or directory\n");
	check_errors(MAIL "http_listener { listen 127.0.0.1:1 { token_file = short } }\n",
		     "test.conf:2: option \"token_file\": a token of 3 bytes; expected 8 to "
		     "1024\n");
	check_errors(MAIL "http_listener { listen 127.0.0.1:1 { token_file = empty } }\n",
		     "test.conf:2: option \"token_file\": a token of 0 bytes; expected 8 to "
		     "1024\n");
	check_errors(MAIL "http_listener { token = long-enough token_file = token\n"
			  "listen 127.0.0.1:1 { } }\n",
		     "test.conf:2: option \"token_file\": there is a token, too; expected one of "
		     "them\n");
}

/* It is copied into tickets and mail; where the token is in a file, that is said. */
static void test_dump_has_no_secrets(void **state)
{
	static const char text[] = MAIL "http_listener { listen \"127.0.0.1:8026\" { token = "
					"\"a-secret-of-sixteen\" } listen \"127.0.0.1:8027\" "
					"{ token_file = \"token\" } }\n";
	char *dumped = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&dumped, &size);
	struct config *config = config_load_text("test.conf", text, strlen(text), stderr);
	struct config *again;

	(void)state;
	assert_non_null(config);
	config_dump(config, out);
	fclose(out);
	assert_null(strstr(dumped, "a-secret"));
	assert_null(strstr(dumped, "a-token-of-a-file"));
	assert_non_null(strstr(dumped, "# token is a secret\t# test.conf:2\n"));
	assert_non_null(strstr(dumped, "token_file = \"token\""));
	again = config_load_text("again.conf", dumped, strlen(dumped), stderr);
	assert_non_null(again);
	config_release(again);
	config_release(config);
	free(dumped);
}

static char *dump_of(const char *text)
{
	char *dumped = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&dumped, &size);
	struct config *config = load_valid(text);

	assert_non_null(out);
	config_dump(config, out);
	fclose(out);
	config_release(config);
	return dumped;
}

/* The rest of it is shown; it is not read back. */
static void test_dump_has_no_passwords(void **state)
{
	char *dumped = dump_of(MAIL "datasource r { uri = \"redis:a\\\"b@10.0.0.1:6379/2\" }\n"
				    "datasource s { uri = sqlite:a@b }\n");

	(void)state;
	assert_null(strstr(dumped, "b@10"));
	assert_non_null(strstr(dumped, "\t# uri = \"redis:***@10.0.0.1:6379/2\"\t# test.conf:2\n"));
	assert_non_null(strstr(dumped, "\turi = \"sqlite:a@b\"\t# test.conf:3\n"));
	free(dumped);
}

static void test_errors_when_values_do_not_suit(void **state)
{
	(void)state;
	check_errors(MAIL "http_listener { idle_time = 1500ms\nlisten 127.0.0.1:1 { }\n"
			  "listen 127.0.0.1:2 { } }\n",
		     "test.conf:2: option \"idle_time\": has a part of a second; expected whole "
		     "ones\n");
	check_errors(MAIL "http_listener { listen 127.0.0.1:25 { } }\n",
		     "test.conf:2: scope listen \"127.0.0.1:25\": another listen has the same "
		     "address; expected each address once\n");
}

#define SERVER "expected an address such as \"192.0.2.1:2003\"\n"

static void test_graphite_when_servers_differ(void **state)
{
	(void)state;
	struct config *config =
		load_valid(MAIL "graphite { server = \"[2001:db8::1]:2003\" interval = 5s }\n");
	const struct graphite_options *g = &config_global(config)->graphite;
	const struct sockaddr_in6 *v6 = (const void *)&g->address;
	assert_int_equal(g->address.ss_family, AF_INET6);
	assert_int_equal(ntohs(v6->sin6_port), 2003);
	assert_int_equal(g->interval_ms, 5000);
	assert_null(g->prefix);
	config_release(config);

	config = load_valid(MAIL);
	assert_null(config_global(config)->graphite.server);
	config_release(config);

	check_errors(MAIL "graphite { interval = 5s }\n",
		     "test.conf:2: option \"server\": is missing; " SERVER);
	check_errors(
		MAIL "graphite { server = \"*:2003\" }\n",
		"test.conf:2: option \"server\": is not one that can be connected to; " SERVER);
	check_errors(
		MAIL "graphite { server = \"127.0.0.1:0\" }\n",
		"test.conf:2: option \"server\": is not one that can be connected to; " SERVER);
	check_errors(
		MAIL "graphite { server = \"/run/graphite\" }\n",
		"test.conf:2: option \"server\": is not one that can be connected to; " SERVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listens_when_scopes_fall_back),
		cmocka_unit_test(test_tokens_when_nobody_else_can_connect),
		cmocka_unit_test(test_errors_when_anybody_could_read),
		cmocka_unit_test(test_errors_when_tokens_are_wrong),
		cmocka_unit_test(test_dump_has_no_secrets),
		cmocka_unit_test(test_dump_has_no_passwords),
		cmocka_unit_test(test_errors_when_values_do_not_suit),
		cmocka_unit_test(test_graphite_when_servers_differ),
	};

	return cmocka_run_group_tests(tests, make_tokens, leave_folder);
}
