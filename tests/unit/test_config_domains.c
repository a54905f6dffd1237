/*
 * What applies to which binding and domain: fallback in each of its steps, throttles by reference,
 * sharing, many domains, many threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "core/queue/throttle.h"

static struct config *load_text(const char *text, size_t len)
{
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);
	assert_non_null(out);
	struct config *config = config_load_text("test.conf", text, len, out);
	fclose(out);
	if (config == NULL) {
		print_error("%s", errors);
	}
	free(errors);
	assert_non_null(config);
	return config;
}

static struct config *load(const char *text)
{
	return load_text(text, strlen(text));
}

static const struct domain_options *find(const struct config *config, const char *binding,
					 const char *domain)
{
	const struct domain_options *options =
		config_domain(config, binding, domain, strlen(domain));
	assert_non_null(options);
	return options;
}

static const struct domain_options *find_of(const struct config *config, const char *binding,
					    const char *provider, const char *domain)
{
	const struct domain_options *options = config_outbound(config, binding, provider, domain,
							       domain != NULL ? strlen(domain) : 0);
	assert_non_null(options);
	return options;
}

/* The scopes that may say something about domain "d" of provider "p" sent through binding "b",
 * which is in group "g", the least specific first; each is written with the option and with its
 * number as value. */
static const char *const scopes[] = {
	"max_outbound_connections = 1\n",
	"binding_group g { max_outbound_connections = 2 }\n",
	"binding b { max_outbound_connections = 3 }\n",
	"binding_group g { binding b { max_outbound_connections = 4 } }\n",
	"provider p { max_outbound_connections = 5 }\n",
	"domain d.example { max_outbound_connections = 6 }\n",
	"binding b { provider p { max_outbound_connections = 7 } }\n",
	"binding_group g { binding b { provider p { max_outbound_connections = 8 } } }\n",
	"binding_group g { domain d.example { max_outbound_connections = 9 } }\n",
	"binding b { domain d.example { max_outbound_connections = 10 } }\n",
	"binding_group g { binding b { domain d.example { max_outbound_connections = 11 } } }\n",
};

enum { SCOPE_COUNT = sizeof(scopes) / sizeof(scopes[0]) };

/* What the most specific scope of a set says. */
static uint32_t highest(unsigned set)
{
	uint32_t value = 32;
	for (unsigned i = 0; i < SCOPE_COUNT; i++) {
		value = (set >> i & 1) != 0 ? i + 1 : value;
	}
	return value;
}

/* All 2048 combinations of scopes that set the option or do not: the most specific one decides. */
static void test_domain_when_scopes_fall_back(void **state)
{
	(void)state;
	for (unsigned set = 0; set < 1U << SCOPE_COUNT; set++) {
		char text[2048] = "binding_group g { binding b { } domain x.example { } }\n"
				  "provider p { mx_suffix = .p.example }\n"
				  "domain d.example { rset_timeout = 9 }\n";
		uint32_t expected = 32;
		for (unsigned i = 0; i < SCOPE_COUNT; i++) {
			if ((set >> i & 1) != 0) {
				strcat(text, scopes[i]);
				expected = i + 1;
			}
		}
		struct config *config = load(text);
		const struct domain_options *options = find_of(config, "b", "p", "d.example");
		assert_int_equal(options->max_outbound_connections, expected);
		assert_int_equal(options->rset_timeout_ms, 9000);
		/* What is said of the provider applies to its domains only; */
		expected = highest(set & ~(1U << 4 | 1U << 6 | 1U << 7));
		assert_int_equal(find(config, "b", "d.example")->max_outbound_connections,
				 expected);
		/* of the domain to that one; */
		expected = highest(set & 0xdfU);
		assert_int_equal(find_of(config, "b", "p", "y.example")->max_outbound_connections,
				 expected);
		assert_int_equal(find_of(config, "b", "p", NULL)->max_outbound_connections,
				 expected);
		/* and nothing of the binding or its group applies to others. */
		expected = highest(set & (1U << 5 | 1U << 4 | 1U));
		assert_int_equal(find_of(config, NULL, "p", "d.example")->max_outbound_connections,
				 expected);
		assert_int_equal(
			find_of(config, "other", "p", "d.example")->max_outbound_connections,
			expected);
		config_release(config);
	}
}

/* Each option falls back by itself, not each scope as a whole. */
static void test_domain_when_each_scope_sets_another_option(void **state)
{
	(void)state;
	struct config *config = load(
		"connect_timeout = 1\n"
		"domain d.example { ehlo_timeout = 2 }\n"
		"binding_group g {\n"
		"	mailfrom_timeout = 3\n"
		"	domain d.example { rcptto_timeout = 4 }\n"
		"	binding b { body_timeout = 5 domain d.example { rset_timeout = 6 } }\n"
		"	binding c { }\n"
		"}\n"
		"binding b { idle_timeout = 7 domain d.example { host_failure_retry = 8 } }\n");
	const struct domain_options *b = find(config, "b", "d.example");
	assert_int_equal(b->connect_timeout_ms, 1000);
	assert_int_equal(b->ehlo_timeout_ms, 2000);
	assert_int_equal(b->mailfrom_timeout_ms, 3000);
	assert_int_equal(b->rcptto_timeout_ms, 4000);
	assert_int_equal(b->body_timeout_ms, 5000);
	assert_int_equal(b->rset_timeout_ms, 6000);
	assert_int_equal(b->idle_timeout_ms, 7000);
	assert_int_equal(b->host_failure_retry_ms, 8000);

	const struct domain_options *c = find(config, "c", "d.example");
	assert_int_equal(c->mailfrom_timeout_ms, 3000);
	assert_int_equal(c->rcptto_timeout_ms, 4000);
	assert_int_equal(c->body_timeout_ms, 600000);
	assert_int_equal(c->rset_timeout_ms, 30000);
	const struct domain_options *other = find(config, "b", "other.example");
	assert_int_equal(other->mailfrom_timeout_ms, 3000);
	assert_int_equal(other->rcptto_timeout_ms, 300000);
	assert_int_equal(other->idle_timeout_ms, 7000);
	assert_int_equal(other->host_failure_retry_ms, 120000);
	config_release(config);
}

static void test_domain_when_asked_again_is_the_same(void **state)
{
	(void)state;
	struct config *config = load("domain d.example { connect_timeout = 1 }\n"
				     "binding b { ehlo_timeout = 2 }\n");
	assert_ptr_equal(find(config, "b", "d.example"), find(config, "b", "d.example"));
	assert_ptr_equal(find(config, "b", "x.example"), find(config, "b", "y.example"));
	assert_ptr_not_equal(find(config, "b", "d.example"), find(config, NULL, "d.example"));
	/* The length counts, not the NUL. */
	assert_ptr_equal(config_domain(config, NULL, "d.example.org", 9),
			 find(config, NULL, "d.example"));
	/* Words of the file that are no domains. */
	assert_ptr_equal(find(config, NULL, "b"), find(config, NULL, "nobody.example"));
	assert_ptr_equal(find(config, NULL, "connect_timeout"), find(config, NULL, ""));
	config_release(config);
}

static void test_domain_when_bindings_have_case(void **state)
{
	(void)state;
	struct config *config = load("binding Alpha { connect_timeout = 1 }\n"
				     "domain D.Example { ehlo_timeout = 2 }\n");
	assert_int_equal(find(config, "Alpha", "d.example")->connect_timeout_ms, 1000);
	assert_int_equal(find(config, "alpha", "d.example")->connect_timeout_ms, 300000);
	assert_int_equal(find(config, "alpha", "d.example")->ehlo_timeout_ms, 2000);
	config_release(config);
}

/* One domain, whoever writes it: its name is that of the DNS. */
static void test_domain_when_it_is_international(void **state)
{
	(void)state;
	struct config *config = load("domain \"B\303\234cher.example\" { ehlo_timeout = 2 }\n"
				     "domain \"xn--bcher-kva.example\" { connect_timeout = 3 }\n");
	const struct domain_options *options = find(config, NULL, "xn--bcher-kva.example");
	assert_int_equal(options->ehlo_timeout_ms, 2000);
	assert_int_equal(options->connect_timeout_ms, 3000);
	config_release(config);
}

static void test_throttle_when_it_falls_back_is_shared(void **state)
{
	(void)state;
	struct config *config = load("outbound_throttle_messages = 100\n"
				     "domain a.example { outbound_throttle_messages = 7/min }\n"
				     "domain b.example { outbound_throttle_messages = 7/min }\n"
				     "domain c.example { connect_timeout = 5 }\n"
				     "domain d.example { outbound_throttle_messages = none }\n"
				     "binding x { outbound_throttle_messages = 50 }\n"
				     "binding y { }\n"
				     "binding z { outbound_throttle_messages = 60\n"
				     "	domain a.example { outbound_throttle_messages = 8 } }\n");
	struct throttle *global = find(config, NULL, "other.example")->throttle_messages;
	struct throttle *a = find(config, NULL, "a.example")->throttle_messages;
	struct throttle *b = find(config, NULL, "b.example")->throttle_messages;
	assert_int_equal(global->count, 100);
	assert_string_equal(global->scope, "the global scope");
	assert_ptr_equal(find(config, NULL, "c.example")->throttle_messages, global);
	assert_ptr_equal(find(config, "y", "c.example")->throttle_messages, global);
	/* Equal rates are not one throttle; it is the scope that counts. */
	assert_ptr_not_equal(a, b);
	assert_int_equal(a->period_s, 60);
	assert_string_equal(a->scope, "domain \"a.example\"");
	assert_ptr_equal(find(config, "y", "a.example")->throttle_messages, a);
	assert_null(find(config, NULL, "d.example")->throttle_messages);
	assert_null(find(config, "y", "d.example")->throttle_messages);

	struct throttle *x = find(config, "x", "other.example")->throttle_messages;
	assert_string_equal(x->scope, "binding \"x\"");
	/* What is said of a domain is more specific than what is said of a binding. */
	assert_ptr_equal(find(config, "x", "c.example")->throttle_messages, x);
	assert_ptr_equal(find(config, "x", "a.example")->throttle_messages, a);
	assert_null(find(config, "x", "d.example")->throttle_messages);
	assert_int_equal(find(config, "z", "a.example")->throttle_messages->count, 8);
	assert_int_equal(find(config, "z", "e.example")->throttle_messages->count, 60);

	assert_int_equal(config_throttle_count(config), 6);
	assert_ptr_equal(config_throttle(config, 0), global);
	/* What one domain takes, all others miss. */
	for (int i = 0; i < 100; i++) {
		assert_int_equal(throttle_take(find(config, NULL, "c.example")->throttle_messages,
					       1000000000),
				 0);
	}
	assert_int_not_equal(
		throttle_wait_ns(find(config, "y", "e.example")->throttle_messages, 1000000000), 0);
	config_release(config);
}

static void test_throttle_when_set_twice_is_one(void **state)
{
	(void)state;
	struct config *config = load("domain a.example { outbound_throttle_messages = 5\n"
				     "outbound_throttle_messages = 6/60 }\n"
				     "domain a.example { outbound_throttle_messages = 7 }\n");
	assert_int_equal(config_throttle_count(config), 1);
	assert_int_equal(find(config, NULL, "a.example")->throttle_messages->count, 7);
	config_release(config);
}

static void check_gateway(const struct domain_options *options, uint32_t i, const char *host,
			  uint16_t port, uint16_t preference)
{
	assert_true(i < options->gateway_count);
	assert_string_equal(options->gateways[i].host, host);
	assert_int_equal(options->gateways[i].port, port);
	assert_int_equal(options->gateways[i].preference, preference);
}

static void test_gateway_when_port_is_left_to_others(void **state)
{
	(void)state;
	struct config *config =
		load("gateway = ( c.example \"A.example?pref=1\" \"[2001:db8::1]\" b.example:26 )\n"
		     "domain p.example { remote_smtp_port = 587 }\n"
		     "domain m.example { gateway = ( ) }\n"
		     "binding b { remote_smtp_port = 2525 }\n");
	const struct domain_options *global = find(config, NULL, "x.example");
	assert_int_equal(global->gateway_count, 4);
	check_gateway(global, 0, "a.example", 25, 1);
	check_gateway(global, 1, "c.example", 25, 10);
	check_gateway(global, 2, "2001:db8::1", 25, 10);
	check_gateway(global, 3, "b.example", 26, 10);
	check_gateway(find(config, NULL, "p.example"), 0, "a.example", 587, 1);
	check_gateway(find(config, NULL, "p.example"), 3, "b.example", 26, 10);
	check_gateway(find(config, "b", "x.example"), 1, "c.example", 2525, 10);
	check_gateway(find(config, "b", "p.example"), 1, "c.example", 587, 10);
	assert_int_equal(find(config, NULL, "m.example")->gateway_count, 0);
	assert_int_equal(find(config, "b", "m.example")->gateway_count, 0);
	config_release(config);
}

/* Each scope is right by itself; together they are not, and the maximum holds. */
static void test_retry_interval_when_scopes_meet_badly(void **state)
{
	(void)state;
	struct config *config = load("domain d.example { retry_interval = 10h }\n"
				     "binding b { max_retry_interval = 1h }\n");
	assert_int_equal(find(config, "b", "d.example")->retry_interval_ms, 3600000);
	assert_int_equal(find(config, NULL, "d.example")->retry_interval_ms, 36000000);
	config_release(config);
}

/* By the exchangers of best preference, the first that matches in the order of the files; a
 * binding may say something else. */
static void test_provider_when_exchangers_match(void **state)
{
	(void)state;
	struct config *config =
		load("provider google { mx_suffix = ( .Google.com mx.gmail.example ) }\n"
		     "provider any { mx_suffix = .google.com }\n"
		     "binding b { provider google { mx_suffix = .b.example } }\n"
		     "binding c { provider only { mx_suffix = .c.example } }\n");
	assert_string_equal(config_provider(config, NULL, "10 aspmx.l.google.com"), "google");
	assert_string_equal(config_provider(config, "other", "1 mx.gmail.example"), "google");
	assert_string_equal(
		config_provider(config, NULL, "10 a.google.com 10 b.google.com 20 backup.example"),
		"google");
	assert_null(config_provider(config, NULL, "10 a.google.com 10 backup.example"));
	assert_null(config_provider(config, NULL, "10 backup.example 20 a.google.com"));
	assert_null(config_provider(config, NULL, "10 google.com"));
	assert_null(config_provider(config, NULL, "10 xmx.gmail.example"));
	assert_null(config_provider(config, NULL, "10 mx.c.example"));
	assert_string_equal(config_provider(config, "c", "10 mx.c.example"), "only");
	assert_string_equal(config_provider(config, "b", "10 mx.b.example"), "google");
	assert_string_equal(config_provider(config, "b", "1 aspmx.l.google.com"), "any");
	config_release(config);
}

enum { MANY = 200000, PATTERNS = 100 };

/* A file of MANY domains with PATTERNS different answers, and one that nobody shares. */
static struct config *load_many(void)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	assert_non_null(out);
	fputs("binding b { ehlo_hostname = b.example }\n", out);
	for (int i = 0; i < MANY; i++) {
		fprintf(out,
			"domain \"d%d.example.com\" {\n\tgateway = \"192.0.2.%d:25\"\n"
			"\tmax_outbound_connections = %d\n}\n",
			i, i % PATTERNS, 1 + i % PATTERNS);
	}
	fputs("domain special.example { connect_timeout = 17 }\n", out);
	fclose(out);
	struct config *config = load_text(text, size);
	free(text);
	return config;
}

static void test_load_when_there_are_many_domains(void **state)
{
	const struct domain_options *first[PATTERNS] = {NULL};
	char name[64];
	char host[64];
	(void)state;
	struct config *config = load_many();
	for (int i = 0; i < MANY; i++) {
		int pattern = i % PATTERNS;
		snprintf(name, sizeof(name), "d%d.example.com", i);
		const struct domain_options *options = find(config, NULL, name);
		if (first[pattern] == NULL) {
			first[pattern] = options;
			snprintf(host, sizeof(host), "192.0.2.%d", pattern);
			check_gateway(options, 0, host, 25, 10);
			assert_int_equal(options->max_outbound_connections, 1 + pattern);
		}
		/* Equal answers are one struct. */
		assert_ptr_equal(options, first[pattern]);
	}
	assert_int_equal(find(config, NULL, "special.example")->connect_timeout_ms, 17000);
	assert_int_equal(find(config, NULL, "d200000.example.com")->gateway_count, 0);
	assert_string_equal(find(config, "b", "d7.example.com")->ehlo_hostname, "b.example");
	assert_int_equal(find(config, "b", "d7.example.com")->max_outbound_connections, 8);
	config_release(config);
}

enum { THREADS = 4, DOMAINS = 500 };

struct asker {
	const struct config *config;
	unsigned start;
	const struct domain_options *answers[DOMAINS];
};

/* Each thread begins elsewhere, so that they meet at some and not at others. */
static void *ask(void *argument)
{
	struct asker *asker = argument;
	char name[64];
	for (unsigned n = 0; n < DOMAINS; n++) {
		unsigned i = (n + asker->start) % DOMAINS;
		int len = snprintf(name, sizeof(name), "d%u.example", i);
		asker->answers[i] = config_domain(asker->config, "b", name, (size_t)len);
	}
	return NULL;
}

static void test_domain_when_many_threads_ask_for_the_first_time(void **state)
{
	char text[DOMAINS * 64] = "binding b { ehlo_timeout = 5 }\n";
	static struct asker askers[THREADS];
	pthread_t threads[THREADS];
	size_t used = strlen(text);
	(void)state;
	for (unsigned i = 0; i < DOMAINS; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "domain d%u.example { max_outbound_connections = %u }\n",
					 i, i + 1);
	}
	struct config *config = load(text);
	for (unsigned t = 0; t < THREADS; t++) {
		askers[t].config = config;
		askers[t].start = t % 2 * (DOMAINS / 2);
		assert_int_equal(pthread_create(&threads[t], NULL, ask, &askers[t]), 0);
	}
	for (unsigned t = 0; t < THREADS; t++) {
		assert_int_equal(pthread_join(threads[t], NULL), 0);
	}
	for (unsigned i = 0; i < DOMAINS; i++) {
		assert_int_equal(askers[0].answers[i]->max_outbound_connections, i + 1);
		assert_int_equal(askers[0].answers[i]->ehlo_timeout_ms, 5000);
		for (unsigned t = 1; t < THREADS; t++) {
			assert_ptr_equal(askers[t].answers[i], askers[0].answers[i]);
		}
	}
	config_release(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_domain_when_scopes_fall_back),
		cmocka_unit_test(test_domain_when_each_scope_sets_another_option),
		cmocka_unit_test(test_domain_when_asked_again_is_the_same),
		cmocka_unit_test(test_domain_when_bindings_have_case),
		cmocka_unit_test(test_domain_when_it_is_international),
		cmocka_unit_test(test_throttle_when_it_falls_back_is_shared),
		cmocka_unit_test(test_throttle_when_set_twice_is_one),
		cmocka_unit_test(test_gateway_when_port_is_left_to_others),
		cmocka_unit_test(test_retry_interval_when_scopes_meet_badly),
		cmocka_unit_test(test_provider_when_exchangers_match),
		cmocka_unit_test(test_load_when_there_are_many_domains),
		cmocka_unit_test(test_domain_when_many_threads_ask_for_the_first_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
