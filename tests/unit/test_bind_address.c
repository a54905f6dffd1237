/* bind_address against real sockets: addresses that this machine has and has not, families. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/connection_world.h"

static struct in6_addr addresses[2];

/* IPv4 as "::ffff:192.0.2.1"; NULL: only one. */
static void bind_to(const char *first, const char *second)
{
	assert_int_equal(inet_pton(AF_INET6, first, &addresses[0]), 1);
	if (second != NULL) {
		assert_int_equal(inet_pton(AF_INET6, second, &addresses[1]), 1);
	}
	options->bind_addresses = addresses;
	options->bind_address_count = second != NULL ? 2 : 1;
}

static void test_address_of_this_machine(void **state)
{
	(void)state;
	bind_to("::ffff:127.0.0.77", NULL);
	outbound_queue(w, DOMAIN, "a,b");
	outbound_until(w, 1);
	outbound_assert_verdict(w, 1, (struct outbound_verdict){.delivered = 2});
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 0);
}

/* The first one hears of it, the others wait; then it is tried again. */
static void test_address_of_another_machine(void **state)
{
	struct domain *d;
	const char *scope;
	uint64_t until_ms;

	(void)state;
	bind_to("::ffff:192.0.2.1", NULL);
	queue_many(DOMAIN, 3);
	outbound_until(w, 1);
	d = outbound_record(w, DOMAIN);
	assert_int_equal(w->outcomes[0].number, 1);
	assert_int_equal(outbound_attempt(w, 1)->code, 451);
	assert_string_equal(outbound_attempt(w, 1)->enhanced, "4.3.5");
	assert_int_equal(outbound_attempt(w, 1)->stage, SMTP_STAGE_NOT_CONNECTED);
	assert_string_equal(outbound_attempt(w, 1)->text,
			    "451 4.3.5 [internal] bind_address 192.0.2.1 of binding default cannot "
			    "be used: Cannot assign requested address");
	assert_int_equal(dispatch_held(d, &until_ms, &scope), DOMAIN_BIND_ADDRESS);
	assert_string_equal(scope, "lane");
	assert_int_equal(until_ms, w->now.mono_ns / NS_PER_MS + options->host_failure_retry_ms);
	assert_int_equal(d->active_count, 2);
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 1);
	assert_int_equal(w->limits.connections, 0);
	outbound_queue(w, DOMAIN, "late");
	outbound_pass(w, options->host_failure_retry_ms - 10);
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 1);
	outbound_pass(w, 20);
	outbound_until(w, 2);
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 2);
	assert_int_equal(w->outcomes[1].number, 2);
	/* It has come, and an operator says so. */
	bind_to("::ffff:127.0.0.77", NULL);
	outbound_enter(w);
	dispatch_flush(&w->dispatcher, d);
	outbound_leave(w);
	outbound_until(w, 6);
	assert_int_equal(d->delivered, 4);
	outbound_assert_verdict(w, 1, (struct outbound_verdict){.delivered = 1});
}

static void test_no_address_of_the_family(void **state)
{
	struct domain *d;
	const char *scope;
	uint64_t until_ms;

	(void)state;
	bind_to("::1", NULL);
	outbound_queue(w, DOMAIN, "a");
	outbound_queue(w, DOMAIN, "b");
	outbound_until(w, 1);
	d = outbound_record(w, DOMAIN);
	assert_string_equal(outbound_attempt(w, 1)->text,
			    "451 4.3.5 [internal] binding default has no bind_address of the "
			    "family of any next hop, only ::1");
	assert_int_equal(dispatch_held(d, &until_ms, &scope), DOMAIN_BIND_ADDRESS);
	assert_int_equal(d->active_count, 1);
	assert_int_equal(peer->accepted, 0);
	outbound_pass(w, options->host_failure_retry_ms + 10);
	outbound_until(w, 2);
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 2);
}

/* One address is wrong, and hosts of the other family take the mail: nobody is deferred. */
static void test_the_other_family_takes_over(void **state)
{
	struct host hosts[2] = {outbound_host("127.0.0.1", peer->port, 10),
				outbound_host("127.0.0.1", peer->port, 20)};
	struct domain *d;

	(void)state;
	hosts[0].name = "::1";
	hosts[0].address.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
						    .sin6_port = htons(peer->port),
						    .sin6_addr = in6addr_loopback};
	hosts[0].address_len = sizeof(struct sockaddr_in6);
	options = outbound_domain(w, "named.test", NULL);
	bind_to("::ffff:127.0.0.77", "2001:db8::1");
	outbound_queue(w, "named.test", "a");
	outbound_settle(w);
	outbound_resolve(w, hosts, 2, false, 60000);
	outbound_pass(w, 5);
	outbound_until(w, 1);
	outbound_assert_verdict(w, 1, (struct outbound_verdict){.delivered = 1});
	d = outbound_record(w, "named.test");
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 1);
	assert_int_equal(d->lane->hosts[0].failures, 1);
	assert_true(d->lane->hosts[0].failed_until_ms > 0);
	assert_int_equal(d->lane->hosts[1].deliveries, 1);
	/* Without an address of that family the host is not looked at. */
	bind_to("::ffff:127.0.0.77", NULL);
	outbound_enter(w);
	dispatch_flush(&w->dispatcher, d);
	outbound_leave(w);
	outbound_queue(w, "named.test", "b");
	outbound_until(w, 2);
	outbound_assert_verdict(w, 2, (struct outbound_verdict){.delivered = 1});
	assert_int_equal(counter_get(w->dispatcher.bind_failures), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_address_of_this_machine),
		TEST(test_address_of_another_machine),
		TEST(test_no_address_of_the_family),
		TEST(test_the_other_family_takes_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
