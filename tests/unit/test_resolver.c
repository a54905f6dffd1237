/*
 * The resolver agent in invoker mode, with libunbound behind it: records of a local zone, and a
 * name server that never answers.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/resolver.h"
#include "agents/wheel.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"

#define ASKED_MAX 32

/* A question of an asker's, and what came of it. */
struct asked {
	struct dns_question question;
	struct rig *rig;
	unsigned answers;
	enum dns_status status;
	uint32_t ttl_s;
	char text[128];
};

struct rig {
	struct agent askers[2];
	struct runtime runtime;
	struct wheel_agent *wheel;
	struct resolver *resolver;
	struct resolver_options options;
	struct instant now;
	struct asked asked[ASKED_MAX];
	unsigned count;
	unsigned answered;
	int silent_fd;
	char server[32];
	char zone[32];
};

static struct rig *rig;

static int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops asker_ops = {.kind = "asker", .do_work = no_work};

static uint64_t clock_mono(void *context)
{
	return ((struct rig *)context)->now.mono_ns;
}

static uint64_t clock_wall(void *context)
{
	return ((struct rig *)context)->now.wall_ns;
}

static void on_answer(struct agent *self, struct dns_question *q, struct dns_answer *answer,
		      uint32_t ttl_s)
{
	struct asked *a = CONTAINER_OF(q, struct asked, question);

	assert_ptr_equal(self, q->from);
	assert_int_equal(answer->type, q->type);
	a->answers++;
	a->status = answer->status;
	a->ttl_s = ttl_s;
	if (answer->count > 0) {
		dns_record_format(answer->type, &answer->records[0], a->text, sizeof a->text);
	}
	rig->answered++;
}

static struct asked *ask_as(unsigned asker, const char *name, enum dns_type type)
{
	struct asked *a = &rig->asked[rig->count++];

	assert_true(rig->count <= ASKED_MAX);
	a->question = (struct dns_question){.name = name, .type = type, .on_answer = on_answer};
	agent_current = &rig->askers[asker];
	resolver_ask(rig->resolver, &rig->askers[asker], &a->question);
	agent_flush(&rig->askers[asker]);
	agent_current = NULL;
	return a;
}

static struct asked *ask(const char *name, enum dns_type type)
{
	return ask_as(0, name, type);
}

static void step(unsigned times)
{
	while (times-- > 0) {
		runtime_step(&rig->runtime);
	}
}

/* Until so many are answered; libunbound has a thread of its own. */
static void until(unsigned answered)
{
	for (unsigned i = 0; rig->answered < answered; i++) {
		assert_true(i < 20000);
		if (runtime_step(&rig->runtime) == 0) {
			poll(NULL, 0, 1);
		}
	}
	step(5);
	assert_int_equal(rig->answered, answered);
}

static uint64_t counter(const char *name)
{
	return counter_total(name);
}

static void write_zone(void)
{
	static const char text[] = "zone.test. 60 IN SOA ns. root. 1 1 1 1 120\n"
				   "a.zone.test. 7 IN A 192.0.2.1\n"
				   "b.zone.test. 864000 IN MX 10 MX.zone.test.\n";
	int fd;

	strcpy(rig->zone, "/tmp/flywheel-resolver-XXXXXX");
	fd = mkstemp(rig->zone);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	close(fd);
}

static void listen_silently(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;

	rig->silent_fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(bind(rig->silent_fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(getsockname(rig->silent_fd, (struct sockaddr *)&a, &len), 0);
	snprintf(rig->server, sizeof rig->server, "127.0.0.1@%u", ntohs(a.sin_port));
}

static int set_up(void **state)
{
	static const char *servers[1];
	static const char *const names[] = {"asker.0", "asker.1"};
	struct idle idle = {.kind = IDLE_PARK};
	struct clock clock;
	struct runtime *rt;

	(void)state;
	rig = aligned_alloc(CACHE_LINE, (sizeof *rig + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	assert_non_null(rig);
	memset(rig, 0, sizeof *rig);
	rig->now = (struct instant){1000 * NS_PER_S, UINT64_C(1750000000) * NS_PER_S};
	write_zone();
	listen_silently();
	servers[0] = rig->server;
	rig->options = (struct resolver_options){
		.forwarders = servers,
		.forwarder_count = 1,
		.hosts_file = "/dev/null",
		.local_zone_file = rig->zone,
		.timeout_ms = 5000,
		.max_pending = 3,
		.cache_entries = 100,
		.min_ttl_ms = 30000,
		.max_ttl_ms = 86400000,
	};
	rt = &rig->runtime;
	clock = (struct clock){clock_mono, clock_wall, rig};
	runtime_init(rt, &clock);
	rt->backend = MUX_POLL;
	for (unsigned i = 0; i < 2; i++) {
		agent_init(&rig->askers[i], &asker_ops, names[i], 1);
		runtime_add(rt, runtime_group(rt, names[i], -1, &idle), &rig->askers[i]);
	}
	rig->resolver = resolver_create("resolver", &rig->options, stderr);
	assert_non_null(rig->resolver);
	runtime_add(rt, runtime_group(rt, "resolver", -1, &idle), resolver_agent(rig->resolver));
	rig->wheel = wheel_agent_create("wheel");
	runtime_add(rt, runtime_group(rt, "wheel", -1, &idle), wheel_agent_base(rig->wheel));
	runtime_set_wheel(rt, wheel_agent_base(rig->wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(rt), 0);
	assert_int_equal(runtime_invoke_start(rt), 0);
	step(3);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		agent_current = &rig->askers[i];
		resolver_give_up(rig->resolver, &rig->askers[i]);
		agent_flush(&rig->askers[i]);
		agent_current = NULL;
	}
	assert_true(runtime_invoke_stop(&rig->runtime, 1000));
	for (unsigned i = 0; i < rig->count; i++) {
		assert_int_equal(rig->asked[i].answers, 1);
	}
	runtime_close(&rig->runtime);
	resolver_destroy(rig->resolver);
	wheel_agent_destroy(rig->wheel);
	agent_close(&rig->askers[0]);
	agent_close(&rig->askers[1]);
	close(rig->silent_fd);
	unlink(rig->zone);
	free(rig);
	return 0;
}

static void test_answers_and_remembers(void **state)
{
	struct asked *a = ask("a.zone.test", DNS_A);
	struct asked *b = ask("B.zone.test.", DNS_MX);
	struct asked *none = ask("gone.zone.test", DNS_A);
	struct asked *again;

	(void)state;
	until(3);
	assert_int_equal(a->status, DNS_FOUND);
	assert_string_equal(a->text, "192.0.2.1");
	/* Within min_ttl and max_ttl. */
	assert_int_equal(a->ttl_s, 30);
	assert_string_equal(b->text, "10 mx.zone.test.");
	assert_int_equal(b->ttl_s, 86400);
	assert_int_equal(none->status, DNS_NXDOMAIN);
	assert_int_equal(counter("cache_hits"), 0);
	rig->now.mono_ns += 10 * NS_PER_S;
	again = ask_as(1, "A.ZONE.TEST.", DNS_A);
	until(4);
	assert_string_equal(again->text, "192.0.2.1");
	assert_int_equal(again->ttl_s, 20);
	assert_int_equal(counter("cache_hits"), 1);
	rig->now.mono_ns += 20 * NS_PER_S;
	ask("a.zone.test", DNS_A);
	until(5);
	assert_int_equal(counter("cache_hits"), 1);
}

static void test_asks_once_for_all_who_want_to_know(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		ask_as(i % 2, i % 3 == 0 ? "S.silent.test." : "s.silent.test", DNS_A);
	}
	ask("s.silent.test", DNS_AAAA);
	step(5);
	assert_int_equal(counter("pending"), 2);
	assert_int_equal(counter("merged"), 5);
	rig->now.mono_ns += 4900 * NS_PER_MS;
	step(10);
	assert_int_equal(rig->answered, 0);
	rig->now.mono_ns += 200 * NS_PER_MS;
	until(7);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(rig->asked[i].status, DNS_TIMEOUT);
		assert_int_equal(rig->asked[i].ttl_s, 0);
	}
	assert_int_equal(counter("pending"), 0);
	assert_int_equal(counter("cached"), 0);
}

/* Three at a time; the time of the others begins when theirs has come. */
static void test_bounds_what_is_under_way(void **state)
{
	static const char *const names[] = {"1.silent.test", "2.silent.test", "3.silent.test",
					    "4.silent.test", "a.zone.test"};

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		ask(names[i], DNS_A);
	}
	step(5);
	assert_int_equal(counter("pending"), 3);
	assert_int_equal(counter("waiting"), 2);
	rig->now.mono_ns += 5100 * NS_PER_MS;
	until(4);
	assert_int_equal(rig->asked[3].answers, 0);
	assert_string_equal(rig->asked[4].text, "192.0.2.1");
	rig->now.mono_ns += 5100 * NS_PER_MS;
	until(5);
	assert_int_equal(counter("pending_max"), 3);
}

/* Only the questions of who gives up; others of the same name are still waited for. */
static void test_gives_up(void **state)
{
	(void)state;
	ask_as(0, "1.silent.test", DNS_A);
	ask_as(1, "1.silent.test", DNS_A);
	for (unsigned i = 0; i < 4; i++) {
		ask_as(0, "2.silent.test", i % 2 == 0 ? DNS_A : DNS_MX);
	}
	ask_as(0, "3.silent.test", DNS_A);
	step(5);
	assert_int_equal(counter("waiting"), 1);
	agent_current = &rig->askers[0];
	resolver_give_up(rig->resolver, &rig->askers[0]);
	agent_flush(&rig->askers[0]);
	agent_current = NULL;
	until(6);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(rig->asked[i].answers, i != 1);
		assert_true(i == 1 || rig->asked[i].status == DNS_CANCELLED);
	}
	assert_int_equal(counter("pending"), 1);
	assert_int_equal(counter("waiting"), 0);
}

static void test_names_that_cannot_be(void **state)
{
	char name[3000];

	(void)state;
	memset(name, 'x', sizeof name);
	name[sizeof name - 1] = '\0';
	ask(name, DNS_A);
	ask("a..b", DNS_A);
	ask(name + sizeof name - 71, DNS_A);
	until(3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(rig->asked[i].status, DNS_SERVFAIL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answers_and_remembers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_asks_once_for_all_who_want_to_know, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_bounds_what_is_under_way, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gives_up, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_names_that_cannot_be, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
