/*
 * Envelopes and bodies that are on disk only: read back for attempts, for bounces of what expires
 * and of what operators fail; and what happens when that cannot be read.
 */
#include "tests/unit/outcome_world.h"

#include "spool/index.h"
#include "spool/segment.h"
#include "spool/store.h"

/* Lines of a body that takes several blocks on disk: its head is not in the block that is written
 * next, which would mend it. */
#define MORE_LINES 200

/* Bytes of a record, as they were before they were spoilt. */
struct spoilt {
	int fd;
	off_t at;
	unsigned char bytes[256];
};

/* Spoils the message's record from `offset` on. */
static void spoil(struct spoilt *x, const struct delivery *delivery, off_t offset)
{
	const struct spool_entry *e = delivery->message->spool;
	unsigned char bytes[sizeof x->bytes];

	x->fd = e->segment->fd;
	x->at = (off_t)e->place * RECORD_ALIGN + offset;
	assert_int_equal(pread(x->fd, x->bytes, sizeof x->bytes, x->at), sizeof x->bytes);
	for (size_t i = 0; i < sizeof bytes; i++) {
		bytes[i] = x->bytes[i] ^ 0x55;
	}
	assert_int_equal(pwrite(x->fd, bytes, sizeof bytes, x->at), sizeof bytes);
}

static void mend(const struct spoilt *x)
{
	assert_int_equal(pwrite(x->fd, x->bytes, sizeof x->bytes, x->at), sizeof x->bytes);
}

/* One message for good.test, deferred: it waits there, and is on disk only. */
static struct delivery *defer(const char *sender, const char *recipients)
{
	struct delivery *delivery;

	rig->more_lines = MORE_LINES;
	receive(sender, recipients, ENVELOPE_SYNCED);
	settle();
	assert_int_equal(record("good.test")->delayed_count, 1);
	delivery = record("good.test")->delayed[0];
	assert_null(delivery->message->content);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	return delivery;
}

static struct scheduler *home_of_good(void)
{
	return &rig->schedulers[home_of(&rig->program, BINDING_DEFAULT, "good.test")];
}

static uint64_t loads(void)
{
	return counter_get(spool_store(rig->program.spool, 0)->stats.loads);
}

static void suspend(bool on)
{
	enter(home_of_good());
	dispatch_suspend(&home_of_good()->dispatcher, record("good.test"),
			 on ? suspension_new("uid 0", 0, 0) : NULL);
	leave(home_of_good());
	settle();
}

static void fail_all(bool quiet)
{
	enter(home_of_good());
	assert_int_equal(dispatch_fail(&home_of_good()->dispatcher, record("good.test"), quiet), 1);
	leave(home_of_good());
	settle();
}

/* Its time is over while nothing is sent. */
static void expire(void)
{
	suspend(true);
	pass_ms(EXPIRES_MS);
	pass_ms(60001);
}

static void assert_bounced(unsigned recipients)
{
	assert_int_equal(TOTAL(failed), recipients);
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->home->bodies, 1);
	assert_non_null(strstr(rig->home->log, "MAIL FROM:<>\nRCPT TO:<me@here.test>\n"));
	assert_int_equal(record("good.test")->settling_count, 0);
}

/* ---- read back ---- */

static void test_attempt_reads_back(void **state)
{
	(void)state;
	defer("me@here.test", "later@good.test");
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(loads(), 1);
	assert_int_equal(atomic_load(&rig->program.limits.loaded_bytes), 0);
	assert_non_null(strstr(rig->good->log, "MAIL FROM:<me@here.test>"));
	assert_nothing_left();
}

static void test_expiry_reads_back(void **state)
{
	(void)state;
	defer("me@here.test", "later1@good.test,later2@good.test");
	expire();
	assert_bounced(2);
	assert_int_equal(loads(), 1);
	assert_nothing_left();
}

static void test_operators_fail_reads_back(void **state)
{
	(void)state;
	defer("me@here.test", "later@good.test");
	fail_all(false);
	assert_bounced(1);
	assert_int_equal(loads(), 1);
	assert_nothing_left();
}

/* Who failed is read back for the bounce log, also where nobody is told of it. */
static void test_quiet_fail_and_null_sender_are_read_back_for_the_log(void **state)
{
	(void)state;
	defer("me@here.test", "later@good.test");
	fail_all(true);
	defer("", "later@good.test");
	fail_all(false);
	assert_int_equal(TOTAL(failed), 2);
	assert_int_equal(TOTAL(bounces), 0);
	assert_int_equal(loads(), 2);
	settle();
	assert_int_equal(logged_in("bouncelog", "@later@good.test@me@here.test@"), 2);
	assert_int_equal(logged_in("bouncelog", "@later@good.test@@@"), 2);
	assert_nothing_left();
}

/* Over the budget the body is dropped at once, and the envelope by the last delivery that comes
 * home, to either scheduler. */
static void test_content_over_the_budget_is_dropped(void **state)
{
	(void)state;
	rig->more_lines = 15000;
	rig->program.limits.loaded_max = 64U << 20;
	rig->good->reply[PEER_MAIL] = PEER_SILENT;
	receive("me@here.test", "a@good.test,b@other.test,c@batch.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(bodies_dropped), 1);
	assert_int_equal(TOTAL(bodies_loaded), 3);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	assert_null(record("good.test")->connections->delivery->message->content);
	assert_int_equal(TOTAL(delivered), 1);
	stop(true);
	rig->good->reply[PEER_MAIL] = "250 2.1.0 fine";
	start();
	rig->program.limits.loaded_max = 64U << 20;
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

/* What is only in memory has its body nowhere else. */
static void test_content_that_is_not_spooled_is_kept_over_the_budget(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	rig->more_lines = 15000;
	receive("me@here.test", "b@other.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(bodies_dropped), 1);
	assert_int_equal(TOTAL(bodies_loaded), 1);
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(TOTAL(transient), 0);
	assert_nothing_left();
}

/* ---- what cannot be read ---- */

static void test_attempt_that_cannot_read_waits(void **state)
{
	struct delivery *delivery = defer("me@here.test", "later@good.test");
	struct spoilt x;

	(void)state;
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	spoil(&x, delivery, 0);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 0);
	assert_int_equal(TOTAL(transient), 2);
	assert_ptr_equal(record("good.test")->delayed[0], delivery);
	assert_non_null(strstr(delivery->last_text, "cannot read the message back"));
	assert_int_equal(atomic_load(&rig->program.limits.loaded_bytes), 0);
	mend(&x);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	assert_nothing_left();
}

static void test_expiry_that_cannot_read_tries_again(void **state)
{
	struct spoilt x;

	(void)state;
	spoil(&x, defer("me@here.test", "later@good.test"), 0);
	expire();
	assert_int_equal(TOTAL(bounces), 0);
	assert_int_equal(record("good.test")->settling_count, 1);
	assert_true(loads() >= 1);
	mend(&x);
	pass_ms(1000);
	assert_bounced(1);
	assert_nothing_left();
}

static void test_operators_fail_that_cannot_read_tries_again(void **state)
{
	struct spoilt x;

	(void)state;
	spoil(&x, defer("me@here.test", "later@good.test"), 0);
	fail_all(false);
	pass_ms(1000);
	assert_int_equal(TOTAL(bounces), 0);
	assert_int_equal(loads(), 3);
	assert_int_equal(record("good.test")->settling_count, 1);
	mend(&x);
	pass_ms(1000);
	assert_bounced(1);
	assert_nothing_left();
}

/* The program need not wait for a disk that gives nothing back: the next start has all recipients.
 */
static void test_stop_leaves_what_cannot_be_read_to_the_next_start(void **state)
{
	struct spoilt x;
	int fd;

	(void)state;
	spoil(&x, defer("me@here.test", "later1@good.test,later2@good.test"), 0);
	fail_all(false);
	fd = dup(x.fd);
	stop(false);
	x.fd = fd;
	mend(&x);
	close(fd);
	start();
	assert_int_equal(rig->recovered, 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

/* Who failed is in the envelope; of the body only headers would be told. */
static void test_bounce_without_a_body_that_cannot_be_read(void **state)
{
	struct spoilt x;

	(void)state;
	spoil(&x, defer("me@here.test", "later@good.test"), 8192);
	fail_all(false);
	assert_bounced(1);
	assert_int_equal(loads(), 1);
	assert_nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_attempt_reads_back),
		TEST(test_expiry_reads_back),
		TEST(test_operators_fail_reads_back),
		TEST(test_quiet_fail_and_null_sender_are_read_back_for_the_log),
		TEST(test_content_over_the_budget_is_dropped),
		TEST(test_content_that_is_not_spooled_is_kept_over_the_budget),
		TEST(test_attempt_that_cannot_read_waits),
		TEST(test_expiry_that_cannot_read_tries_again),
		TEST(test_operators_fail_that_cannot_read_tries_again),
		TEST(test_stop_leaves_what_cannot_be_read_to_the_next_start),
		TEST(test_bounce_without_a_body_that_cannot_be_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
