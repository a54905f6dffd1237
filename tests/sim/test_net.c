#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>

#include "core/runtime/clock.h"
#include "tests/sim/net.h"
#include "tests/sim/world.h"

#define PORT 2525
#define STREAM_BYTES 100000

/* What one end has seen; the test's, not the world's. */
struct seen {
	struct net_end *end;
	int events;
	unsigned readable;
};

static struct seen client;
static struct seen server;
static bool accepts;

static void on_event(struct net_end *end, int events, void *context)
{
	struct seen *s = context;

	assert_ptr_equal(s->end, end);
	s->events |= events;
	s->readable += (events & NET_READABLE) != 0;
}

static bool on_accept(struct net_end *end, void *context)
{
	(void)context;
	server.end = end;
	end->on_event = on_event;
	end->context = &server;
	return accepts;
}

static struct sockaddr_in address_of(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons(port),
				    .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static int set_up(void **state)
{
	(void)state;
	world_create(7);
	world->net = net_create();
	memset(&client, 0, sizeof client);
	memset(&server, 0, sizeof server);
	accepts = true;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	world_destroy();
	return 0;
}

static void pass(uint64_t ns)
{
	world_advance(world->now_ns + ns);
}

static void begin_connection(enum net_side side)
{
	struct sockaddr_in to = address_of(PORT);

	client.end = net_connect(world->net, side, (struct sockaddr *)&to, sizeof to, NULL,
				 on_event, &client);
}

static void listen_here(void)
{
	struct sockaddr_in here = address_of(PORT);

	net_listen(world->net, (struct sockaddr *)&here, sizeof here, on_accept, NULL);
}

/* The program's connection to an actor. */
static void connect_ends(void)
{
	listen_here();
	begin_connection(NET_PROGRAM);
	pass(NS_PER_S);
	assert_int_equal(client.events, NET_CONNECTED | NET_WRITABLE);
	assert_non_null(server.end);
}

static unsigned char byte_at(size_t i)
{
	return (unsigned char)(i * 7 + i / 251);
}

/* Sends and reads in pieces of any size until all of it has come through. */
static unsigned transfer(struct net_end *from, struct net_end *to)
{
	static unsigned char data[STREAM_BYTES];
	size_t sent = 0;
	size_t got = 0;
	unsigned reads = 0;

	for (size_t i = 0; i < sizeof data; i++) {
		data[i] = byte_at(i);
	}
	while (got < sizeof data) {
		unsigned char piece[5000];
		size_t want = 1 + world_below(sizeof piece);
		ssize_t n;

		if (sent < sizeof data) {
			n = net_send(from, data + sent,
				     want < sizeof data - sent ? want : sizeof data - sent);
			assert_true(n > 0 || n == -EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		}
		pass(world_below(NS_PER_MS));
		n = net_read(to, piece, 1 + world_below(sizeof piece));
		assert_true(n > 0 || n == -EAGAIN);
		if (n > 0) {
			assert_memory_equal(piece, data + got, (size_t)n);
			got += (size_t)n;
			reads++;
		}
	}
	assert_int_equal(net_read(to, data, 1), -EAGAIN);
	return reads;
}

static void test_content_when_windows_are_anything(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed < 40; seed++) {
		world_destroy();
		world_create(seed);
		world->net = net_create();
		memset(&client, 0, sizeof client);
		net_faults(world->net)->window_min = 1 + (uint32_t)world_below(3000);
		net_faults(world->net)->window_max = 1 + (uint32_t)world_below(100000);
		net_faults(world->net)->dribble = (unsigned)world_below(100);
		connect_ends();
		assert_true(transfer(client.end, server.end) > 1);
		assert_true(transfer(server.end, client.end) > 1);
	}
}

static void test_pieces_when_sent_at_once(void **state)
{
	char data[1000] = {0};
	char in[1000];
	unsigned split = 0;
	unsigned joined = 0;

	(void)state;
	connect_ends();
	for (unsigned i = 0; i < 100; i++) {
		ssize_t n;

		assert_int_equal(net_send(client.end, data, 500), 500);
		assert_int_equal(net_send(client.end, data, 500), 500);
		while (!net_readable(server.end)) {
			world_advance(world_next_ns());
		}
		n = net_read(server.end, in, sizeof in);
		assert_true(n > 0);
		split += n != 1000 && n != 500;
		joined += n == 1000;
		pass(NS_PER_S);
		if (n < 1000) {
			assert_int_equal(net_read(server.end, in, sizeof in), 1000 - n);
		}
	}
	assert_true(split > 5);
	assert_true(joined > 5);
}

static void test_send_when_window_is_full(void **state)
{
	char data[1000] = {0};

	(void)state;
	net_faults(world->net)->window_min = 600;
	net_faults(world->net)->window_max = 600;
	connect_ends();
	client.events = 0;
	assert_int_equal(net_send(client.end, data, sizeof data), 600);
	assert_int_equal(net_send(client.end, data, sizeof data), -EAGAIN);
	assert_false(net_writable(client.end));
	pass(NS_PER_S);
	assert_int_equal(client.events, 0);
	assert_int_equal(net_read(server.end, data, 1), 1);
	pass(NS_PER_S);
	assert_int_equal(client.events, NET_WRITABLE);
	assert_int_equal(net_send(client.end, data, sizeof data), 1);
}

static void test_read_when_peer_shut_down(void **state)
{
	char in[100];

	(void)state;
	connect_ends();
	net_send(client.end, "last", 4);
	net_shutdown(client.end);
	assert_int_equal(net_send(client.end, "x", 1), -EPIPE);
	pass(NS_PER_S);
	assert_int_equal(net_read(server.end, in, sizeof in), 4);
	assert_int_equal(net_read(server.end, in, sizeof in), 0);
	/* The other direction goes on, after its own end too. */
	assert_int_equal(net_send(server.end, "reply", 5), 5);
	net_close(server.end);
	pass(NS_PER_S);
	assert_int_equal(net_read(client.end, in, sizeof in), 5);
	assert_int_equal(net_read(client.end, in, sizeof in), 0);
	net_close(client.end);
	pass(NS_PER_S);
	net_check_closed(world->net);
	assert_int_equal(world_next_ns(), UINT64_MAX);
}

/* All that was sent comes before the end, in however many pieces. */
static void test_end_when_data_is_under_way(void **state)
{
	static const char data[1000];

	(void)state;
	listen_here();
	for (unsigned i = 0; i < 50; i++) {
		char in[sizeof data];
		size_t got = 0;
		ssize_t n = -EAGAIN;

		begin_connection(NET_PROGRAM);
		pass(NS_PER_S);
		assert_int_equal(net_send(client.end, data, sizeof data), sizeof data);
		net_close(client.end);
		while (n != 0) {
			if (n == -EAGAIN) {
				world_advance(world_next_ns());
			}
			n = net_read(server.end, in, sizeof in);
			assert_true(n >= 0 || n == -EAGAIN);
			got += n > 0 ? (size_t)n : 0;
		}
		assert_int_equal(got, sizeof data);
		net_close(server.end);
	}
}

static void test_pieces_when_they_dribble(void **state)
{
	static const char data[1000];

	(void)state;
	net_faults(world->net)->dribble = 1000;
	connect_ends();
	net_send(client.end, data, sizeof data);
	pass(100 * NS_PER_S);
	/* Each byte by itself. */
	assert_int_equal(server.readable, sizeof data);
}

static void test_close_when_data_is_unread(void **state)
{
	char in[100];

	(void)state;
	connect_ends();
	net_send(client.end, "unread", 6);
	pass(NS_PER_S);
	net_close(server.end);
	pass(NS_PER_S);
	assert_true(client.events & NET_BROKEN);
	assert_int_equal(net_read(client.end, in, sizeof in), -ECONNRESET);
	/* It was told once. */
	assert_int_equal(net_read(client.end, in, sizeof in), 0);
	assert_int_equal(net_send(client.end, "x", 1), -EPIPE);
}

static void test_close_when_data_comes_later(void **state)
{
	(void)state;
	connect_ends();
	net_close(server.end);
	pass(NS_PER_S);
	assert_int_equal(client.events & NET_BROKEN, 0);
	assert_int_equal(net_send(client.end, "late", 4), 4);
	pass(NS_PER_S);
	assert_true(client.events & NET_BROKEN);
	assert_int_equal(net_send(client.end, "x", 1), -ECONNRESET);
}

/* What was sent before a reset may come, or not; never part of what was not sent. */
static void test_reset_when_data_is_under_way(void **state)
{
	unsigned came = 0;

	(void)state;
	listen_here();
	for (unsigned i = 0; i < 100; i++) {
		char in[100];
		ssize_t n;

		begin_connection(NET_PROGRAM);
		pass(NS_PER_S);
		net_send(server.end, "250 ok", 6);
		net_reset(server.end);
		pass(NS_PER_S);
		n = net_read(client.end, in, sizeof in);
		came += n > 0;
		if (n > 0) {
			assert_int_equal(n, 6);
			n = net_read(client.end, in, sizeof in);
		}
		assert_int_equal(n, -ECONNRESET);
		net_close(client.end);
	}
	assert_in_range(came, 5, 60);
}

static void test_connect_when_nobody_listens(void **state)
{
	char in[10];

	(void)state;
	begin_connection(NET_ACTOR);
	assert_int_equal(client.events, 0);
	pass(NS_PER_S);
	assert_true(client.events & NET_BROKEN);
	assert_int_equal(net_read(client.end, in, sizeof in), -ECONNREFUSED);
	net_close(client.end);
	accepts = false;
	memset(&client, 0, sizeof client);
	listen_here();
	begin_connection(NET_ACTOR);
	pass(NS_PER_S);
	assert_int_equal(net_send(client.end, "x", 1), -ECONNREFUSED);
}

static void test_connect_when_it_hangs(void **state)
{
	(void)state;
	net_faults(world->net)->hang = 1000;
	listen_here();
	begin_connection(NET_PROGRAM);
	pass(30 * NS_PER_S);
	assert_int_equal(client.events, 0);
	assert_int_equal(net_send(client.end, "x", 1), -EAGAIN);
	pass(60 * NS_PER_S);
	assert_int_equal(net_send(client.end, "x", 1), -ETIMEDOUT);
	assert_null(server.end);
}

static void test_faults_when_calm(void **state)
{
	(void)state;
	world->calm = true;
	*net_faults(world->net) = (struct net_faults){
		.latency_max_ns = NS_PER_MS, .refuse = 1000, .hang = 1000, .reset = 1000};
	connect_ends();
	transfer(client.end, server.end);
	pass(1000 * NS_PER_S);
	assert_int_equal(client.events & NET_BROKEN, 0);
}

/* What was to go wrong later does not. */
static void test_faults_when_calm_comes(void **state)
{
	(void)state;
	listen_here();
	net_faults(world->net)->reset = 1000;
	for (unsigned i = 0; i < 20; i++) {
		world->calm = false;
		client.events = 0;
		begin_connection(NET_PROGRAM);
		while (client.events == 0) {
			world_advance(world_next_ns());
		}
		world->calm = true;
		/* What is on its way comes. */
		pass(NS_PER_S);
		client.events = 0;
		pass(100 * NS_PER_S);
		assert_int_equal(client.events & NET_BROKEN, 0);
	}
}

static void test_connection_when_network_resets_it(void **state)
{
	(void)state;
	net_faults(world->net)->reset = 1000;
	listen_here();
	begin_connection(NET_PROGRAM);
	pass(NS_PER_S);
	for (unsigned i = 0; i < 200 && !(client.events & NET_BROKEN); i++) {
		char data[1000] = {0};

		net_send(client.end, data, sizeof data);
		pass(NS_PER_S);
		net_read(server.end, data, sizeof data);
	}
	pass(NS_PER_S);
	assert_true(client.events & NET_BROKEN);
	assert_true(server.events & NET_BROKEN);
}

/* ---- the program as server ---- */

static unsigned arrivals;

static void on_arrival(void *context)
{
	(void)context;
	arrivals++;
}

static struct net_listener *program_listens(void)
{
	struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
	struct net_listener *l;

	assert_int_equal(net_listen_program(world->net, (struct sockaddr *)&here, sizeof here, 1,
					    on_arrival, NULL, &l),
			 0);
	return l;
}

static void test_accept_when_connections_wait(void **state)
{
	struct net_listener *l = program_listens();
	struct sockaddr_in6 *from;
	struct net_end *e;

	(void)state;
	arrivals = 0;
	assert_null(net_accept(world->net, l));
	begin_connection(NET_ACTOR);
	pass(NS_PER_S);
	assert_int_equal(arrivals, 1);
	assert_int_equal(client.events, NET_CONNECTED | NET_WRITABLE);
	net_send(client.end, "early", 5);
	pass(NS_PER_S);
	e = net_accept(world->net, l);
	assert_non_null(e);
	assert_true(net_readable(e));
	from = (struct sockaddr_in6 *)(void *)&e->address;
	assert_int_equal(from->sin6_family, AF_INET6);
	assert_true(IN6_IS_ADDR_V4MAPPED(&from->sin6_addr));
	assert_int_not_equal(from->sin6_port, 0);
	assert_null(net_accept(world->net, l));
}

static void test_process_dies_by_kill(void **state)
{
	char in[10];

	(void)state;
	connect_ends();
	program_listens();
	net_send(client.end, "said", 4);
	net_process_died(world->net, false);
	net_check_closed(world->net);
	pass(NS_PER_S);
	assert_int_equal(net_read(server.end, in, sizeof in), 4);
	assert_int_equal(net_read(server.end, in, sizeof in), 0);
	net_close(server.end);
}

static void test_process_dies_with_a_backlog(void **state)
{
	(void)state;
	program_listens();
	begin_connection(NET_ACTOR);
	pass(NS_PER_S);
	net_process_died(world->net, false);
	pass(NS_PER_S);
	assert_int_equal(net_send(client.end, "x", 1), -ECONNRESET);
	net_close(client.end);
	begin_connection(NET_ACTOR);
	pass(NS_PER_S);
	assert_int_equal(net_send(client.end, "x", 1), -ECONNREFUSED);
}

/* Nobody answers, not even by a reset, for some time that is mostly long. */
static void test_process_dies_by_power_cut(void **state)
{
	unsigned silent = 0;
	char in[10];

	(void)state;
	listen_here();
	for (unsigned i = 0; i < 20; i++) {
		begin_connection(NET_PROGRAM);
		pass(NS_PER_S);
		net_process_died(world->net, true);
		net_check_closed(world->net);
		server.events = 0;
		assert_int_equal(net_send(server.end, "anybody?", 8), 8);
		pass(NS_PER_S);
		silent += server.events == 0;
		pass(200 * NS_PER_S);
		assert_int_equal(net_read(server.end, in, sizeof in), -ECONNRESET);
		net_close(server.end);
	}
	assert_true(silent > 10);
}

/* Who connects to a machine that is off is answered when it is on. */
static void test_connect_when_power_was_cut(void **state)
{
	(void)state;
	net_process_died(world->net, true);
	begin_connection(NET_ACTOR);
	pass(10 * NS_PER_S);
	assert_int_equal(client.events, 0);
	program_listens();
	pass(2 * NS_PER_S);
	assert_int_equal(client.events, NET_CONNECTED | NET_WRITABLE);
}

/* ---- marks and watchers ---- */

static int marked;

static void on_mark(void *context, uint64_t value, bool read)
{
	assert_null(context);
	assert_int_equal(value, 5);
	marked = read ? 1 : -1;
}

static void test_mark_when_read(void **state)
{
	char in[10];

	(void)state;
	marked = 0;
	connect_ends();
	net_send(server.end, "250", 3);
	net_mark(server.end, on_mark, NULL, 5);
	net_send(server.end, "more", 4);
	pass(NS_PER_S);
	assert_int_equal(net_read(client.end, in, 2), 2);
	assert_int_equal(marked, 0);
	assert_int_equal(net_read(client.end, in, 1), 1);
	assert_int_equal(marked, 1);
}

static void test_mark_when_never_read(void **state)
{
	(void)state;
	marked = 0;
	connect_ends();
	net_send(server.end, "250", 3);
	net_mark(server.end, on_mark, NULL, 5);
	net_close(server.end);
	pass(NS_PER_S);
	assert_int_equal(marked, 0);
	net_close(client.end);
	assert_int_equal(marked, -1);
	/* On its way to an end that is gone. */
	marked = 0;
	begin_connection(NET_PROGRAM);
	pass(NS_PER_S);
	net_send(server.end, "250", 3);
	net_mark(server.end, on_mark, NULL, 5);
	net_close(client.end);
	pass(NS_PER_S);
	assert_int_equal(marked, -1);
}

static int open_count;

static void on_watch(void *context, const struct sockaddr_storage *from,
		     const struct sockaddr_storage *to, int change)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)to;

	(void)context;
	assert_int_equal(from->ss_family, AF_INET);
	assert_int_equal(ntohs(v4->sin_port), PORT);
	open_count += change;
}

static void test_watch_when_program_connects(void **state)
{
	(void)state;
	open_count = 0;
	net_watch(world->net, on_watch, NULL);
	begin_connection(NET_ACTOR);
	assert_int_equal(open_count, 0);
	net_close(client.end);
	begin_connection(NET_PROGRAM);
	assert_int_equal(open_count, 1);
	pass(NS_PER_S);
	assert_true(client.events & NET_BROKEN);
	assert_int_equal(open_count, 1);
	net_close(client.end);
	assert_int_equal(open_count, 0);
	begin_connection(NET_PROGRAM);
	net_process_died(world->net, true);
	assert_int_equal(open_count, 0);
}

/* ---- determinism ---- */

static uint64_t trace_of(uint64_t seed)
{
	void *state = NULL;

	tear_down(&state);
	world_create(seed);
	world->net = net_create();
	memset(&client, 0, sizeof client);
	net_faults(world->net)->dribble = 20;
	connect_ends();
	transfer(client.end, server.end);
	net_close(client.end);
	pass(NS_PER_S);
	net_close(server.end);
	return world->trace ^ world->now_ns;
}

static void test_trace_when_seed_is_the_same(void **state)
{
	uint64_t first = trace_of(11);

	(void)state;
	assert_int_equal(trace_of(11), first);
	assert_int_not_equal(trace_of(12), first);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_content_when_windows_are_anything),
		TEST(test_pieces_when_sent_at_once),
		TEST(test_send_when_window_is_full),
		TEST(test_read_when_peer_shut_down),
		TEST(test_end_when_data_is_under_way),
		TEST(test_pieces_when_they_dribble),
		TEST(test_close_when_data_is_unread),
		TEST(test_close_when_data_comes_later),
		TEST(test_reset_when_data_is_under_way),
		TEST(test_connect_when_nobody_listens),
		TEST(test_connect_when_it_hangs),
		TEST(test_faults_when_calm),
		TEST(test_faults_when_calm_comes),
		TEST(test_connection_when_network_resets_it),
		TEST(test_accept_when_connections_wait),
		TEST(test_process_dies_by_kill),
		TEST(test_process_dies_with_a_backlog),
		TEST(test_process_dies_by_power_cut),
		TEST(test_connect_when_power_was_cut),
		TEST(test_mark_when_read),
		TEST(test_mark_when_never_read),
		TEST(test_watch_when_program_connects),
		TEST(test_trace_when_seed_is_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
