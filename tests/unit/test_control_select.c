/* What operators find and order by selectors, in queues that change meanwhile. */
#include "tests/unit/control_world.h"

#define MANY 10000U

/* ---- find ---- */

static void test_find_shows_what_matches_and_counts_all(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		queue_mail("a.example", 2, 0);
		queue_mail("b.example", 1, 600);
	}
	v = result_of("find all limit 3");
	assert_int_equal(json_array_size(at(v, "deliveries")), 3);
	assert_int_equal(number_at(v, "totals.deliveries"), 10);
	assert_int_equal(number_at(v, "totals.recipients"), 15);
	assert_int_equal(number_at(v, "totals.shown"), 3);
	assert_int_equal(number_at(v, "totals.between_queues"), 0);
	json_decref(v);
	v = result_of("find state delayed text *greylisted");
	assert_int_equal(number_at(v, "totals.deliveries"), 5);
	assert_string_equal(text_at(v, "deliveries.0.domain"), "b.example");
	assert_string_equal(text_at(v, "deliveries.0.sender"), "sender@here.example");
	assert_string_equal(text_at(v, "deliveries.0.recipients.0"), "r000@b.example");
	assert_int_equal(number_at(v, "deliveries.0.attempts"), 1);
	json_decref(v);
	/* Envelopes are read one by one when they are on disk; these are gone by then. */
	world->on_disk = true;
	queue_mail("c.example", 1, 0);
	v = result_of("find domain c.example");
	assert_int_equal(number_at(v, "totals.deliveries"), 1);
	assert_true(json_is_null(at(v, "deliveries.0.sender")));
	assert_int_equal(world->loads, 1);
	json_decref(v);
	assert_error("find sender x", "no thread pool");
}

/* The second of them waits for its turn. */
static void test_selections_take_turns(void **state)
{
	int other = connect_client();
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		queue_mail("a.example", 1, 0);
	}
	tell(world->client, "find all limit 1\n");
	step(2);
	tell(other, "find all limit 2\n");
	step(2);
	close(connect_client());
	v = hear(other);
	assert_int_equal(json_array_size(at(v, "result.deliveries")), 2);
	assert_int_equal(number_at(v, "result.totals.deliveries"), MANY);
	json_decref(v);
	v = hear(world->client);
	assert_int_equal(number_at(v, "result.totals.deliveries"), MANY);
	json_decref(v);
	/* Whoever leaves while he waits is passed over. */
	tell(world->client, "find all\n");
	step(2);
	tell(other, "hold all\n");
	step(1);
	close(other);
	v = hear(world->client);
	assert_int_equal(number_at(v, "result.totals.deliveries"), MANY);
	json_decref(v);
	v = result_of("find all limit 1");
	assert_int_equal(number_at(v, "totals.deliveries"), MANY);
	json_decref(v);
}

/* Takes away what the walk would look at next, or puts what it has not seen where it has been. */
static void shuffle(struct domain *d, unsigned round)
{
	struct dispatcher *x = d->owner;
	struct delivery *next = x->domains.cursor != NULL ? x->domains.cursor : d->active_tail;

	agent_current = x->self;
	if (round % 2 == 0 && next != NULL) {
		domain_remove(&x->domains, d, next);
		next->due_ms = world->now.wall_ns / NS_PER_MS + 1000000 + round;
		domain_push_delayed(&x->domains, d, next);
	} else if (d->delayed_count > 0) {
		next = d->delayed[d->delayed_count - 1];
		domain_remove(&x->domains, d, next);
		domain_push_active_front(&x->domains, d, next);
	}
	agent_current = NULL;
}

/* A queue that takes several steps, and changes at each of them. */
static void test_none_is_missed_or_found_twice_when_queues_change(void **state)
{
	struct domain *d;
	json_t *v = NULL;
	char c;
	char answer[65536];
	size_t len = 0;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		queue_mail("a.example", 1, i % 2 == 0 ? 0 : 1000 + i);
	}
	d = record("a.example");
	tell(world->client, "find all limit 1\n");
	for (unsigned round = 0; round < 3000 && v == NULL; round++) {
		for (unsigned i = 0; i < 50; i++) {
			shuffle(d, round * 50 + i);
		}
		step(1);
		while (v == NULL && recv(world->client, &c, 1, 0) == 1) {
			answer[len++] = c;
			if (c == '\n') {
				v = json_loadb(answer, len, 0, NULL);
			}
		}
	}
	assert_non_null(v);
	assert_int_equal(number_at(v, "result.totals.deliveries"), MANY);
	json_decref(v);
	assert_int_equal(d->sweeps, 0);
	assert_null(((struct dispatcher *)d->owner)->domains.cursor);
	assert_true(domain_validate(d));
}

/* ---- orders ---- */

static void test_dry_run_counts_and_changes_nothing(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("a.example", 2, 0);
	queue_mail("a.example", 1, 600);
	v = result_of("hold all dry_run");
	assert_true(json_is_true(at(v, "dry_run")));
	assert_int_equal(number_at(v, "matched"), 2);
	assert_int_equal(number_at(v, "recipients"), 3);
	assert_int_equal(number_at(v, "changed"), 2);
	assert_int_equal(json_array_size(at(v, "first_messages")), 2);
	json_decref(v);
	assert_int_equal(record("a.example")->active_count, 1);
	assert_int_equal(record("a.example")->delayed_count, 1);
	assert_int_equal(record("a.example")->held_count, 0);
}

static void test_holds_and_releases_long_queues(void **state)
{
	struct domain *d;
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		queue_mail("a.example", 1, i % 2 == 0 ? 0 : 1 + i * 7919 % 1000);
	}
	queue_mail("b.example", 1, 0);
	d = record("a.example");
	v = result_of("hold domain a.example");
	assert_int_equal(number_at(v, "changed"), MANY);
	assert_int_equal(number_at(v, "unchanged"), 0);
	assert_int_equal(json_array_size(at(v, "first_messages")), 10);
	json_decref(v);
	assert_int_equal(d->held_count, MANY);
	assert_int_equal(d->active_count + d->delayed_count, 0);
	assert_true(domain_validate(d));
	v = result_of("summary");
	assert_int_equal(number_at(v, "held_queue_size"), MANY);
	assert_int_equal(number_at(v, "total_queue_size"), MANY + 1);
	json_decref(v);
	v = result_of("release state held");
	assert_int_equal(number_at(v, "changed"), MANY);
	json_decref(v);
	assert_int_equal(d->held_count, 0);
	assert_int_equal(d->delayed_count, MANY / 2);
	assert_int_equal(d->active_count, MANY / 2);
	assert_true(domain_validate(d));
}

static void test_held_mail_is_left_alone_but_fails_with_its_domain(void **state)
{
	char id[MESSAGE_ID_TEXT];
	char command[64];
	struct message_id held;
	struct domain *d;

	(void)state;
	held = queue_mail("a.example", 1, 600);
	queue_mail("a.example", 1, 600);
	d = record("a.example");
	message_id_format(&held, id);
	snprintf(command, sizeof(command), "hold id %s", id);
	json_decref(result_of(command));
	json_decref(result_of("flush domain a.example"));
	assert_int_equal(d->held_count, 1);
	assert_int_equal(d->active_count, 1);
	/* To be tried now it is released. */
	snprintf(command, sizeof(command), "message retry %s", id);
	json_decref(result_of(command));
	assert_int_equal(d->held_count, 0);
	assert_int_equal(d->active_count, 2);
	json_decref(result_of("hold all"));
	assert_int_equal(d->held_count, 2);
	json_decref(result_of("fail domain a.example"));
	step(3);
	assert_int_equal(d->held_count, 0);
	assert_int_equal(world->failed, 2);
}

static void test_reroute_and_rebind_send_on(void **state)
{
	struct scheduler *s = home("a.example");
	struct domain *d;
	json_t *v;

	(void)state;
	queue_mail("a.example", 1, 0);
	queue_mail("a.example", 1, 600);
	v = result_of("reroute domain a.example to Relay.Example");
	assert_int_equal(number_at(v, "changed"), 2);
	json_decref(v);
	d = domain_find(&s->dispatcher.domains, BINDING_DEFAULT, "relay.example");
	assert_non_null(d);
	assert_int_equal(d->active_count, 1);
	assert_int_equal(d->delayed_count, 1);
	assert_int_equal(record("a.example")->active_count, 0);
	v = result_of("reroute all to relay.example");
	assert_int_equal(number_at(v, "changed"), 0);
	assert_int_equal(number_at(v, "unchanged"), 2);
	json_decref(v);
	v = result_of("rebind all to default");
	assert_int_equal(number_at(v, "unchanged"), 2);
	json_decref(v);
	assert_error("rebind all to nobody", "there is no binding");
	assert_error("reroute all to [1.2.3", "\"[1.2.3\"");
}

static void test_held_mail_expires(void **state)
{
	struct domain *d;

	(void)state;
	queue_mail("a.example", 1, 0);
	d = record("a.example");
	json_decref(result_of("hold all"));
	pass_s(86000);
	assert_int_equal(d->held_count, 1);
	pass_s(1000);
	assert_int_equal(d->held_count, 0);
	assert_int_equal(world->failed, 1);
}

/* Mail of the last run that the spool has not handed out is no mail of any queue. */
static void test_answers_say_that_recovery_is_not_finished(void **state)
{
	static const char *const commands[][3] = {
		{"find all", "totals.not_recovered", "totals.trouble"},
		{"hold all dry_run", "not_recovered", "trouble"},
		{"mailq state active", "not_recovered", "trouble"},
	};
	struct counter_set *set = counter_set_create("spool.0");
	struct counter *left = counter_create(set, "recovery_left", COUNTER_GAUGE, "left");
	json_t *v;

	(void)state;
	queue_mail("a.example", 1, 0);
	counter_set_value(left, 7);
	for (unsigned i = 0; i < 3; i++) {
		v = result_of(commands[i][0]);
		assert_int_equal(number_at(v, commands[i][1]), 7);
		assert_string_equal(text_at(v, commands[i][2]),
				    "recovery not finished: 7 messages not yet seen");
		json_decref(v);
	}
	counter_set_value(left, 0);
	v = result_of("find all");
	assert_int_equal(number_at(v, "totals.not_recovered"), 0);
	assert_null(json_object_get(at(v, "totals"), "trouble"));
	json_decref(v);
	counter_set_destroy(set);
}

static void test_mailq_counts_what_matches(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		queue_mail("a.example", 1, 600);
		queue_mail("b.example", 1, 0);
	}
	queue_mail("b.example", 1, 600);
	v = result_of("mailq state delayed domain *");
	assert_int_equal(json_array_size(at(v, "queues")), 2);
	assert_string_equal(text_at(v, "queues.0.domain"), "a.example");
	assert_int_equal(number_at(v, "queues.0.matching"), 3);
	assert_int_equal(number_at(v, "queues.1.matching"), 1);
	assert_int_equal(number_at(v, "deliveries_matching"), 4);
	json_decref(v);
	v = result_of("mailq 1");
	assert_string_equal(text_at(v, "queues.0.domain"), "b.example");
	assert_int_equal(number_at(v, "queues.0.held"), 0);
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_find_shows_what_matches_and_counts_all),
		TEST(test_selections_take_turns),
		TEST(test_none_is_missed_or_found_twice_when_queues_change),
		TEST(test_dry_run_counts_and_changes_nothing),
		TEST(test_holds_and_releases_long_queues),
		TEST(test_held_mail_is_left_alone_but_fails_with_its_domain),
		TEST(test_reroute_and_rebind_send_on),
		TEST(test_held_mail_expires),
		TEST(test_answers_say_that_recovery_is_not_finished),
		TEST(test_mailq_counts_what_matches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
