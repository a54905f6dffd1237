#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log/event_text.h"
#include "tests/sim/books_parts.h"
#include "tests/sim/books_wrap.h"
#include "tests/sim/disk.h"
#include "tests/sim/world.h"

#define DATA_MAX 65536
#define TRACE "Received: from x ([127.0.0.1]) by sim.test with ESMTP\r\n\tid whatever; now\r\n"

static struct books *b;

/* Two domains: d.test has limits, and bounces.test. */
static void make_world(void)
{
	struct scenario *s;

	world_create(11);
	world->disk = disk_create();
	world->life = 1;
	s = world_alloc(sizeof(*s));
	s->domain_count = 2;
	s->binding_count = 1;
	s->bindings[0].name = "default";
	s->domains[0] = (struct scenario_domain){
		.name = "d.test",
		.port = 1,
		.max_connections = 2,
		.max_recipients = 2,
		.max_deliveries_per_connection = 3,
		.throttle_messages = 4,
		.throttle_ns = 2 * NS_PER_S,
		.expiration_ns = 60 * NS_PER_S,
		.bounces = true,
		.fail = 10,
	};
	s->domains[1] = (struct scenario_domain){.name = SCENARIO_BOUNCES,
						 .port = 2,
						 .max_connections = 1,
						 .expiration_ns = 60 * NS_PER_S,
						 .bounces = true};
	world->scenario = s;
	world->books = books_create();
	b = world->books;
}

/* ---- a process of its own, as a broken rule ends it ---- */

/* What the books say to `act`, in a world of its own; empty: nothing. */
static const char *verdict(void (*act)(void))
{
	static char failure[sizeof(world->failure)];
	pid_t child;
	int status;

	make_world();
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		act();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	memcpy(failure, world->failure, sizeof(failure));
	world_destroy();
	assert_int_equal(WEXITSTATUS(status), failure[0] != '\0' ? LIFE_FAILED : 0);
	return failure;
}

static void expect(void (*act)(void), const char *said)
{
	const char *failure = verdict(act);

	if (said == NULL && failure[0] != '\0') {
		fail_msg("the books say: %s", failure);
	}
	if (said != NULL && strstr(failure, said) == NULL) {
		fail_msg("the books say \"%s\", not \"%s\"", failure, said);
	}
}

/* ---- what actors and the program do ---- */

static struct book_entry *message(enum envelope_durability durability, uint32_t count)
{
	const char *const all[] = {"a@d.test", "b@d.test", "c@d.test"};
	struct book_message *m = books_message(b, durability, all, count, 2000);
	struct book_entry *e = (struct book_entry *)(void *)m;

	snprintf(m->sender, sizeof(m->sender), "from@%s", SCENARIO_BOUNCES);
	for (uint32_t i = 0; i < count; i++) {
		m->recipients[i].accepted = true;
		e->order[i] = (uint8_t)i;
	}
	m->dotted = true;
	m->accepted = true;
	m->life_dotted = world->life;
	m->life_accepted = world->life;
	e->received_ms = WORLD_EPOCH_NS / NS_PER_MS;
	books_know(b, e, &(struct message_id){7, m->number});
	/* Its trace header has another one. */
	e->known = false;
	return e;
}

static size_t data_of(const struct book_entry *e, char *data)
{
	size_t len = strlen(TRACE);

	memcpy(data, TRACE, len);
	return len + books_body(&e->m, 0, data + len, DATA_MAX - len);
}

static uint64_t deliver(struct book_entry *e, uint32_t first, uint32_t count)
{
	static char data[DATA_MAX];
	const char *to[3];

	for (uint32_t i = 0; i < count; i++) {
		to[i] = e->m.recipients[first + i].address;
	}
	return books_delivered(b, "d.test", to, count, data, data_of(e, data));
}

static void deliver_and_read(struct book_entry *e)
{
	books_confirm(b, deliver(e, 0, e->m.recipient_count), true);
}

static void write_down(struct book_entry *e)
{
	books_spool_answered(b, e, SPOOL_DONE, books_spool_asked(e, 0, NULL), 0);
}

static void life_ends(int end)
{
	books_life_ended(b, end);
	world->life++;
}

static const char *attempt_text;

static struct event attempt(const struct book_entry *e, enum event_kind kind)
{
	return (struct event){
		.kind = kind,
		.id = e->id,
		.stage = SMTP_STAGE_CONFIRMATION,
		.text = {[EVENT_DOMAIN] = "d.test",
			 [EVENT_BINDING_GROUP] = "default",
			 [EVENT_BINDING] = "default",
			 [EVENT_REMOTE_IP] = "127.0.0.1",
			 [EVENT_REPLY] = attempt_text},
	};
}

static void log_failure(const struct book_entry *e, enum event_kind kind, const char *text)
{
	struct event event;

	attempt_text = text;
	event = attempt(e, kind);
	books_note(&event);
}

static void notify(const struct book_entry *e, uint32_t number, uint32_t recipients)
{
	static char data[DATA_MAX];
	char id[MESSAGE_ID_TEXT];
	const char *to = e->m.sender;
	int len;

	message_id_format(&(struct message_id){9, number}, id);
	len = snprintf(data, sizeof(data),
		       "Date: now\r\nTo: <%s>\r\nMessage-ID: <%s@sim.test>\r\n"
		       "Content-Type: multipart/report; report-type=delivery-status;\r\n\r\n",
		       to, id);
	for (uint32_t i = 0; i < recipients; i++) {
		len += snprintf(data + len, sizeof(data) - (size_t)len,
				"\r\nFinal-Recipient: rfc822; %s\r\nAction: failed\r\n",
				e->m.recipients[i].address);
	}
	len += snprintf(data + len, sizeof(data) - (size_t)len, "\r\n--\r\nX-Sim: %u\r\n",
			e->m.number);
	books_confirm(b, books_delivered(b, SCENARIO_BOUNCES, &to, 1, data, (size_t)len), true);
}

/* ---- losses ---- */

static void check_delivered(void)
{
	deliver_and_read(message(ENVELOPE_SYNCED, 2));
	if (!books_settled(b)) {
		world_fail("not settled");
	}
	books_check(b);
}

static void lose_one(void)
{
	books_confirm(b, deliver(message(ENVELOPE_SYNCED, 2), 0, 1), true);
	if (books_settled(b)) {
		world_fail("settled");
	}
	books_check(b);
}

static enum envelope_durability lost_durability;
static int lost_end;
static bool lost_stored;

static void lose_at_end(void)
{
	struct book_entry *e = message(lost_durability, 1);

	if (lost_stored) {
		books_spool_answered(b, e, SPOOL_STORE, 0, 0);
	}
	life_ends(lost_end);
	books_check(b);
}

static void test_finds_lost_messages_unless_their_durability_excuses_it(void **state)
{
	static const struct {
		enum envelope_durability durability;
		int end;
		bool stored;
		bool excused;
	} cases[] = {
		{ENVELOPE_SYNCED, LIFE_CUT, true, false},
		{ENVELOPE_CACHED, LIFE_KILLED, true, false},
		{ENVELOPE_CACHED, LIFE_CUT, true, true},
		{ENVELOPE_MEMORY, LIFE_STOPPED, false, false},
		{ENVELOPE_MEMORY, LIFE_KILLED, false, true},
		{ENVELOPE_MEMORY, LIFE_CUT, false, true},
		{ENVELOPE_MEMORY, LIFE_CUT, true, false},
	};

	(void)state;
	expect(check_delivered, NULL);
	expect(lose_one, "was lost for 1.1.b@d.test");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		lost_durability = cases[i].durability;
		lost_end = cases[i].end;
		lost_stored = cases[i].stored;
		expect(lose_at_end, cases[i].excused ? NULL : "was lost");
	}
}

static bool closing;

/* Made when all was settled, and never taken by anybody. */
static void keep_notice(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);
	struct book_entry *n = books_new_notice(b, e->m.sender);

	deliver_and_read(e);
	world->now_ns += NS_PER_MS;
	if (closing) {
		books_closing(b);
	}
	books_know(b, n, &(struct message_id){9, 1});
	n->about = e;
	books_spool_answered(b, n, SPOOL_STORE, 0, 0);
	books_keep_notice(n);
	books_check(b);
}

static void test_leaves_in_the_queue_what_the_last_stop_made(void **state)
{
	(void)state;
	closing = false;
	expect(keep_notice, "was lost");
	closing = true;
	expect(keep_notice, NULL);
}

static void lose_cached_after_stop(void)
{
	message(ENVELOPE_CACHED, 1);
	life_ends(LIFE_STOPPED);
	life_ends(LIFE_CUT);
	books_check(b);
}

static void write_off(void)
{
	write_down(message(ENVELOPE_SYNCED, 1));
}

static void test_finds_what_was_synced_at_a_stop_and_is_lost(void **state)
{
	(void)state;
	expect(lose_cached_after_stop, "was lost");
}

static void test_finds_mail_that_is_written_off(void **state)
{
	(void)state;
	expect(write_off, "is written off");
}

/* ---- duplicates ---- */

static void deliver_twice(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	deliver_and_read(e);
	deliver_and_read(e);
}

static void deliver_twice_in_disorder(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);
	uint64_t first = deliver(e, 0, 1);
	uint64_t second = deliver(e, 0, 1);

	books_confirm(b, second, true);
	books_confirm(b, first, true);
}

static void deliver_again_unread(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	books_confirm(b, deliver(e, 0, 1), false);
	deliver_and_read(e);
	books_check(b);
}

static void deliver_again_after_time_out(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	deliver_and_read(e);
	log_failure(e, EVENT_TRANSIENT, "451 4.4.2 [internal] timed out: no response to the body");
	deliver_and_read(e);
}

static void test_finds_duplicates_of_which_the_program_knew(void **state)
{
	(void)state;
	expect(deliver_twice, "got it twice");
	expect(deliver_twice_in_disorder, "got it twice");
	expect(deliver_again_unread, NULL);
	expect(deliver_again_after_time_out, NULL);
}

static enum envelope_durability again_durability;
static int again_end;
static bool again_written;

static void deliver_again_in_next_life(void)
{
	struct book_entry *e = message(again_durability, 1);

	deliver_and_read(e);
	if (again_written) {
		write_down(e);
	}
	life_ends(again_end);
	deliver_and_read(e);
}

static void test_excuses_duplicates_only_before_they_are_written_down(void **state)
{
	static const struct {
		enum envelope_durability durability;
		int end;
		bool written;
		bool excused;
	} cases[] = {
		{ENVELOPE_SYNCED, LIFE_KILLED, false, true},
		{ENVELOPE_SYNCED, LIFE_CUT, false, true},
		{ENVELOPE_SYNCED, LIFE_STOPPED, false, false},
		{ENVELOPE_SYNCED, LIFE_KILLED, true, false},
		{ENVELOPE_SYNCED, LIFE_CUT, true, false},
		{ENVELOPE_CACHED, LIFE_KILLED, true, false},
		{ENVELOPE_CACHED, LIFE_CUT, true, true},
		{ENVELOPE_MEMORY, LIFE_CUT, true, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		again_durability = cases[i].durability;
		again_end = cases[i].end;
		again_written = cases[i].written;
		expect(deliver_again_in_next_life, cases[i].excused ? NULL : "got it twice");
	}
}

static void deliver_refused(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	e->m.accepted = false;
	e->m.refused = true;
	deliver(e, 0, 1);
}

static bool refused_given_up;

static void deliver_refused_in_next_life(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	e->m.accepted = false;
	e->m.refused = true;
	b->gave_up[world->life] = refused_given_up;
	life_ends(LIFE_STOPPED);
	deliver(e, 0, 1);
}

static void deliver_to_stranger(void)
{
	const char *to = "stranger@d.test";

	books_delivered(b, "d.test", &to, 1, "Received: x\r\n", 13);
}

static void test_finds_mail_that_nobody_sent(void **state)
{
	(void)state;
	expect(deliver_refused, "was refused, and then delivered");
	refused_given_up = false;
	expect(deliver_refused_in_next_life, "was refused, and then delivered");
	refused_given_up = true;
	expect(deliver_refused_in_next_life, NULL);
	expect(deliver_to_stranger, "whom nobody wrote to");
}

/* ---- bodies ---- */

static size_t changed_at;
static int changed_len;

static void deliver_changed(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);
	static char data[DATA_MAX];
	size_t len = data_of(e, data);
	const char *to = e->m.recipients[0].address;

	if (changed_len == 0) {
		data[strlen(TRACE) + changed_at] ^= 1;
	}
	data[len] = '.';
	books_delivered(b, "d.test", &to, 1, data, (size_t)((int)len + changed_len));
}

static void test_finds_changed_bodies(void **state)
{
	const size_t places[] = {0, 100, 1000, 1999};

	(void)state;
	changed_len = 0;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		changed_at = places[i];
		expect(deliver_changed, "was changed: byte ");
	}
	changed_len = -1;
	expect(deliver_changed, "was changed");
	changed_len = 1;
	expect(deliver_changed, "were delivered");
}

static void test_gives_the_same_body_in_any_pieces(void **state)
{
	static char whole[DATA_MAX];
	static char parts[DATA_MAX];
	struct book_message *m;
	size_t len;
	size_t at = 0;
	size_t n;

	(void)state;
	make_world();
	m = &message(ENVELOPE_SYNCED, 1)->m;
	len = books_body(m, 0, whole, sizeof(whole));
	assert_int_equal(len, m->body_len);
	assert_true(len >= 2000 && len < 4000);
	assert_memory_equal(whole + len - 2, "\r\n", 2);
	while ((n = books_body(m, at, parts + at, 1 + at % 97)) > 0) {
		at += n;
	}
	assert_int_equal(at, len);
	assert_memory_equal(whole, parts, len);
	for (size_t i = 2; i + 2 < len; i++) {
		bool lone = memcmp(whole + i - 2, "\r\n.", 3) == 0 && whole[i + 1] != '.';

		assert_false(lone);
		assert_true(whole[i] != '\0' && (whole[i] != '\n' || whole[i - 1] == '\r'));
	}
	world_destroy();
}

/* ---- notifications ---- */

static void notify_failed(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 2);

	log_failure(e, EVENT_BOUNCE, "550 5.1.1 no");
	log_failure(e, EVENT_BOUNCE, "550 5.1.1 no");
	if (books_settled(b)) {
		world_fail("settled");
	}
	notify(e, 1, 2);
	write_down(e);
	if (!books_settled(b)) {
		world_fail("not settled");
	}
	books_check(b);
}

static void notify_twice(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 2);

	notify(e, 1, 1);
	notify(e, 2, 2);
}

static void notify_delivered(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	deliver_and_read(e);
	notify(e, 1, 1);
}

static void fail_untold(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	log_failure(e, EVENT_BOUNCE, "550 5.1.1 no");
	write_down(e);
}

static void fail_of_null_sender(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	e->m.sender[0] = '\0';
	log_failure(e, EVENT_BOUNCE, "550 5.1.1 no");
	write_down(e);
	books_check(b);
}

static void test_understands_notifications(void **state)
{
	(void)state;
	expect(notify_failed, NULL);
	expect(notify_twice, "has failed twice");
	expect(notify_delivered, "a notification says that it did not");
	expect(fail_untold, "its sender was not told");
	expect(fail_of_null_sender, NULL);
}

/* ---- logs ---- */

static void fail_too_early(void)
{
	log_failure(message(ENVELOPE_SYNCED, 1), EVENT_EXPIRATION,
		    "554 5.4.7 [internal] exceeded max time without delivery");
}

static void fail_without_order(void)
{
	log_failure(message(ENVELOPE_SYNCED, 1), EVENT_ADMIN_FAILURE,
		    "554 Message manually purged.");
}

static void fail_ordered(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);

	books_fail_ordered(b, "D.TEST.", NULL, true);
	log_failure(e, EVENT_ADMIN_FAILURE, "554 Message manually purged.");
	write_down(e);
	books_check(b);
}

static void log_too_many(void)
{
	struct book_entry *e = message(ENVELOPE_SYNCED, 1);
	struct event event = attempt(e, EVENT_DELIVERY);

	deliver_and_read(e);
	books_note(&event);
	books_note(&event);
}

static void test_finds_lines_without_an_event(void **state)
{
	(void)state;
	expect(fail_too_early, "without a reason");
	expect(fail_without_order, "without a reason");
	expect(fail_ordered, NULL);
	expect(log_too_many, "where nobody took it");
}

static void write_file(const char *path, const char *text, size_t len)
{
	struct disk_node *n;

	disk_mkdir(world->disk, "/sim/log", 0755);
	assert_int_equal(disk_open(world->disk, NULL, path, O_CREAT | O_WRONLY, 0644, &n), 0);
	assert_int_equal(disk_write(world->disk, n, text, len, 0), len);
	disk_release(world->disk, n);
}

static const char *log_damage;

static void check_log_file(void)
{
	static char text[4 * EVENT_TEXT_LINE_MAX];
	static char line[EVENT_TEXT_LINE_MAX + 1];
	static const char bounces[] = "1000@@@@M1\n2000@@@@M1\n3000@@@@M1\n";
	size_t bounces_len = sizeof(bounces) - 1;
	size_t len = 0;
	size_t n = 0;

	b->watching = true;
	for (uint64_t i = 1; i <= 3; i++) {
		struct event event = {.kind = EVENT_HEARTBEAT, .time_ms = i * 1000 * 1000};

		books_note(&event);
		n = event_text(line, LOG_MAIN, &event);
		line[n++] = '\n';
		if (i != 2 || strcmp(log_damage, "missing") != 0) {
			memcpy(text + len, line, n);
			len += n;
		}
	}
	if (strcmp(log_damage, "twice") == 0) {
		memcpy(text + len, line, n);
		len += n;
	} else if (strcmp(log_damage, "strange") == 0) {
		len += (size_t)sprintf(text + len, "4000@@@@M1\n");
	} else if (strcmp(log_damage, "torn") == 0) {
		memmove(text + 5, text, len);
		len += 5;
	} else if (strcmp(log_damage, "torn by a kill") == 0) {
		/* The next start ends it. */
		len += (size_t)sprintf(text + len, "40\n");
	}
	if (strcmp(log_damage, "torn by a kill") == 0) {
		life_ends(LIFE_KILLED);
	}
	write_file("/sim/log/mainlog", text, len);
	write_file("/sim/log/rejectlog", "", 0);
	write_file("/sim/log/bouncelog", bounces, bounces_len);
	books_check(b);
}

static void test_holds_log_files_against_the_lines_made(void **state)
{
	static const char *const cases[][2] = {
		{"none", NULL},
		{"missing", "has 2 of 3 lines"},
		{"twice", "a line that nobody wrote"},
		{"strange", "a line that nobody wrote"},
		{"torn", "a line that nobody wrote"},
		{"torn by a kill", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		log_damage = cases[i][0];
		expect(check_log_file, cases[i][1]);
	}
}

/* ---- bindings ---- */

static const char *asked;
static const char *listener;
static bool a_suspended;
static bool ordered;
/* Of the lines R and T: group and binding. */
static const char *lines[2][2];

static void log_bindings(void)
{
	static const char *const names[] = {"default", "a", "b", "c"};
	struct scenario *s = world->scenario;
	struct book_entry *e;
	struct event event;

	s->binding_count = 4;
	for (uint32_t i = 0; i < 4; i++) {
		s->bindings[i] = (struct scenario_binding){names[i], i == 1 || i == 2, 1, false};
	}
	s->bindings[1].suspended = a_suspended;
	s->listen_bindings[ENVELOPE_SYNCED] = listener;
	e = message(ENVELOPE_SYNCED, 1);
	e->asked = asked;
	if (ordered) {
		books_binding_ordered(b, 2);
	}
	books_note(&(struct event){
		.kind = EVENT_RECEPTION,
		.id = e->id,
		.text = {[EVENT_RECIPIENT] = e->m.recipients[0].address,
			 [EVENT_SENDER] = e->m.sender,
			 [EVENT_REMOTE_IP] = "127.0.0.1",
			 [EVENT_PROTOCOL] = "esmtp",
			 [EVENT_BINDING_GROUP] = lines[0][0],
			 [EVENT_BINDING] = lines[0][1]},
	});
	attempt_text = "451 4.2.1 later";
	event = attempt(e, EVENT_TRANSIENT);
	event.text[EVENT_BINDING_GROUP] = lines[1][0];
	event.text[EVENT_BINDING] = lines[1][1];
	books_note(&event);
}

static void expect_binding(const char *group, const char *binding, const char *said)
{
	for (unsigned i = 0; i < 2; i++) {
		lines[i][0] = group;
		lines[i][1] = binding;
	}
	expect(log_bindings, said);
}

static void test_finds_wrong_bindings(void **state)
{
	(void)state;
	asked = "c";
	expect_binding("default", "c", NULL);
	expect_binding("default", "default", "is sent by binding default, not by c");
	expect_binding("g", "c", "says binding c of group g");
	expect_binding("default", "x", "says binding x");
	/* Unknown, unsaid, and by the listener. */
	asked = "x";
	expect_binding("default", "default", NULL);
	asked = NULL;
	expect_binding("default", "default", NULL);
	expect_binding("g", "a", "not by default");
	listener = "g";
	expect_binding("g", "a", NULL);
	asked = "";
	expect_binding("g", "b", NULL);
	expect_binding("default", "c", "which is not in the group");
	/* Suspended ones have no turn, but to those who call them by name, or when it is in doubt.
	 */
	a_suspended = true;
	expect_binding("g", "a", "which is suspended");
	expect_binding("g", "b", NULL);
	ordered = true;
	expect_binding("g", "a", NULL);
	ordered = false;
	asked = "a";
	expect_binding("g", "a", NULL);
	lines[1][1] = "b";
	expect(log_bindings, "says binding b, an earlier one a");
}

/* ---- limits ---- */

static int limit_count;

/* Each has its own. */
static void connect_by_bindings(void)
{
	for (uint32_t i = 0; i < SCENARIO_BINDINGS_MAX; i++) {
		for (int n = 0; n < limit_count - (i == 0); n++) {
			books_connection(b, "d.test", i, 1);
		}
	}
}

static void connect_often(void)
{
	books_connection(b, "d.test", 0, 1);
	books_connection(b, "d.test", 0, -1);
	for (int i = 0; i < limit_count; i++) {
		books_connection(b, "d.test", 0, 1);
	}
}

static void begin_large(void)
{
	books_transaction(b, "d.test", (uint32_t)limit_count);
}

/* A burst of two, then two a second. */
static void begin_often(void)
{
	world->now_ns = 3 * NS_PER_S;
	for (int i = 0; i < limit_count; i++) {
		books_transaction(b, "d.test", 1);
	}
}

static void deliver_on_connection(void)
{
	books_delivery_of_connection(b, "d.test", (uint32_t)limit_count);
}

static void expect_limit(void (*act)(void), int count, const char *said)
{
	limit_count = count;
	expect(act, NULL);
	limit_count = count + 1;
	expect(act, said);
}

static void test_finds_limits_exceeded(void **state)
{
	(void)state;
	expect_limit(connect_often, 2, "3 connections to d.test");
	expect_limit(connect_by_bindings, 2, "3 connections to d.test");
	expect_limit(begin_large, 2, "3 recipients in a transaction");
	expect_limit(begin_often, 9, "10 messages to d.test in 3.000 s");
	expect_limit(deliver_on_connection, 3, "4 deliveries on one connection");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_lost_messages_unless_their_durability_excuses_it),
		cmocka_unit_test(test_finds_what_was_synced_at_a_stop_and_is_lost),
		cmocka_unit_test(test_leaves_in_the_queue_what_the_last_stop_made),
		cmocka_unit_test(test_finds_mail_that_is_written_off),
		cmocka_unit_test(test_finds_duplicates_of_which_the_program_knew),
		cmocka_unit_test(test_excuses_duplicates_only_before_they_are_written_down),
		cmocka_unit_test(test_finds_mail_that_nobody_sent),
		cmocka_unit_test(test_finds_changed_bodies),
		cmocka_unit_test(test_gives_the_same_body_in_any_pieces),
		cmocka_unit_test(test_understands_notifications),
		cmocka_unit_test(test_finds_lines_without_an_event),
		cmocka_unit_test(test_holds_log_files_against_the_lines_made),
		cmocka_unit_test(test_finds_wrong_bindings),
		cmocka_unit_test(test_finds_limits_exceeded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
