#include <arpa/inet.h>
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/outbound/next_hop.h"

static const struct sockaddr_in *v4(const struct host *h)
{
	assert_int_equal(h->address.ss_family, AF_INET);
	assert_int_equal(h->address_len, sizeof(struct sockaddr_in));
	return (const struct sockaddr_in *)(const void *)&h->address;
}

static const struct sockaddr_in6 *v6(const struct host *h)
{
	assert_int_equal(h->address.ss_family, AF_INET6);
	assert_int_equal(h->address_len, sizeof(struct sockaddr_in6));
	return (const struct sockaddr_in6 *)(const void *)&h->address;
}

static void assert_v4(const struct host *h, const char *address, uint16_t port)
{
	assert_int_equal(v4(h)->sin_addr.s_addr, inet_addr(address));
	assert_int_equal(ntohs(v4(h)->sin_port), port);
}

static void assert_v6(const struct host *h, const char *address, uint16_t port)
{
	struct in6_addr expected;

	assert_int_equal(inet_pton(AF_INET6, address, &expected), 1);
	assert_memory_equal(&v6(h)->sin6_addr, &expected, sizeof expected);
	assert_int_equal(ntohs(v6(h)->sin6_port), port);
}

static struct domain_options options_of(const struct gateway *gateways, uint32_t count)
{
	return (struct domain_options){
		.gateways = gateways, .gateway_count = count, .remote_smtp_port = 2525};
}

static void test_literal_when_all_are_addresses(void **state)
{
	const struct gateway gateways[] = {{"192.0.2.1", 25, 10}, {"2001:db8::7", 2526, 20}};
	struct domain_options o = options_of(gateways, 2);
	struct host *hosts;
	uint32_t count;

	(void)state;
	assert_true(next_hop_literal(&o, &hosts, &count));
	assert_int_equal(count, 2);
	assert_v4(&hosts[0], "192.0.2.1", 25);
	assert_string_equal(hosts[0].name, "192.0.2.1");
	assert_int_equal(hosts[0].preference, 10);
	assert_v6(&hosts[1], "2001:db8::7", 2526);
	assert_int_equal(hosts[1].preference, 20);
	assert_int_equal(hosts[0].failed_until_ms + hosts[0].connections, 0);
	free(hosts);
}

/* A machine without /etc/hosts knows no names at all: then there is nothing to look up here. */
static void need_localhost(void)
{
	struct addrinfo *list = NULL;

	if (getaddrinfo("localhost", NULL, NULL, &list) != 0) {
		print_message("skipped: this machine does not know localhost\n");
		skip();
	}
	freeaddrinfo(list);
}

static void test_literal_when_one_is_a_name_or_none_is_there(void **state)
{
	const struct gateway gateways[] = {{"192.0.2.1", 25, 10}, {"localhost", 25, 10}};
	struct domain_options o = options_of(gateways, 2);
	struct host *hosts = NULL;
	uint32_t count = 7;

	(void)state;
	assert_false(next_hop_literal(&o, &hosts, &count));
	o.gateway_count = 0;
	assert_false(next_hop_literal(&o, &hosts, &count));
	assert_null(hosts);
	assert_int_equal(count, 7);
}

static void test_lookup_when_addresses_and_names_are_mixed(void **state)
{
	const struct gateway gateways[] = {
		{"192.0.2.1", 25, 5}, {"localhost", 2527, 10}, {"2001:db8::1", 26, 20}};
	struct domain_options o = options_of(gateways, 3);
	struct next_hop_answer a;

	(void)state;
	need_localhost();
	next_hop_lookup(&o, "example.test", &a);
	assert_true(a.count >= 3);
	assert_v4(&a.hosts[0], "192.0.2.1", 25);
	assert_int_equal(a.hosts[0].preference, 5);
	for (uint32_t i = 1; i + 1 < a.count; i++) {
		assert_string_equal(a.hosts[i].name, "localhost");
		assert_int_equal(a.hosts[i].preference, 10);
		if (a.hosts[i].address.ss_family == AF_INET) {
			assert_v4(&a.hosts[i], "127.0.0.1", 2527);
		} else {
			assert_v6(&a.hosts[i], "::1", 2527);
		}
	}
	assert_v6(&a.hosts[a.count - 1], "2001:db8::1", 26);
	assert_int_equal(a.hosts[a.count - 1].preference, 20);
	free(a.hosts);
}

static void test_lookup_when_domain_is_an_address_literal(void **state)
{
	static const struct {
		const char *domain;
		const char *v4;
		const char *v6;
	} cases[] = {
		{"[192.0.2.77]", "192.0.2.77", NULL},
		{"[ipv6:2001:db8::5]", NULL, "2001:db8::5"},
		{"[IPv6:::1]", NULL, "::1"},
		{"[2001:db8::5]", NULL, "2001:db8::5"},
		{"[ipv6:2001:0db8:1111:2222:3333:4444:5555:6666]", NULL,
		 "2001:db8:1111:2222:3333:4444:5555:6666"},
		{"[ipv6:0000:0000:0000:0000:0000:ffff:192.168.100.228]", NULL,
		 "::ffff:192.168.100.228"},
	};
	struct domain_options o = options_of(NULL, 0);
	struct next_hop_answer a;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		next_hop_lookup(&o, cases[i].domain, &a);
		assert_int_equal(a.count, 1);
		if (cases[i].v4 != NULL) {
			assert_v4(&a.hosts[0], cases[i].v4, 2525);
		} else {
			assert_v6(&a.hosts[0], cases[i].v6, 2525);
		}
		free(a.hosts);
	}
}

static void test_lookup_when_domain_is_a_name(void **state)
{
	struct domain_options o = options_of(NULL, 0);
	struct next_hop_answer a;

	(void)state;
	need_localhost();
	next_hop_lookup(&o, "localhost", &a);
	assert_true(a.count >= 1);
	assert_string_equal(a.hosts[0].name, "localhost");
	assert_int_equal(a.hosts[0].preference, 0);
	free(a.hosts);
}

/* Names that no resolver needs a network to refuse. */
static void test_lookup_when_nothing_is_found(void **state)
{
	static const char *const domains[] = {"[192.0.2.1", "[192.0.2.999]", "[]", "["};
	struct domain_options o = options_of(NULL, 0);
	struct next_hop_answer a;
	char expected[64];

	(void)state;
	for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++) {
		next_hop_lookup(&o, domains[i], &a);
		assert_int_equal(a.count, 0);
		assert_null(a.hosts);
		snprintf(expected, sizeof expected, "cannot look up %s: ", domains[i]);
		assert_memory_equal(a.trouble, expected, strlen(expected));
	}
}

static void test_lookup_when_there_are_too_many(void **state)
{
	struct gateway gateways[NEXT_HOP_MAX + 10];
	struct domain_options o = options_of(gateways, NEXT_HOP_MAX + 10);
	struct next_hop_answer a;

	(void)state;
	for (uint32_t i = 0; i < o.gateway_count; i++) {
		gateways[i] = (struct gateway){"192.0.2.1", (uint16_t)(1000 + i), 10};
	}
	next_hop_lookup(&o, "example.test", &a);
	assert_int_equal(a.count, NEXT_HOP_MAX);
	assert_v4(&a.hosts[NEXT_HOP_MAX - 1], "192.0.2.1", 1000 + NEXT_HOP_MAX - 1);
	free(a.hosts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_literal_when_all_are_addresses),
		cmocka_unit_test(test_literal_when_one_is_a_name_or_none_is_there),
		cmocka_unit_test(test_lookup_when_addresses_and_names_are_mixed),
		cmocka_unit_test(test_lookup_when_domain_is_an_address_literal),
		cmocka_unit_test(test_lookup_when_domain_is_a_name),
		cmocka_unit_test(test_lookup_when_nothing_is_found),
		cmocka_unit_test(test_lookup_when_there_are_too_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
