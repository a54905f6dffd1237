/*
 * msys.db: connections that queries share and wait for, and what becomes of queries nobody waits
 * for any more. On SQLite; what each kind of database does is for tests/flow.
 */
#include "tests/unit/policy_world.h"

#define IDLE_MS 30000
/* q(text, parameters): the rows of one connection's database, as one text; or nil and why not. */
#define SCRIPT                                                                                     \
	"function q(text, parameters, source) local rows, why = msys.db.query(source or 'one', "   \
	"text, parameters, { raise_error = false }) if rows == nil then return why end "           \
	"local seen = {} for row in rows do seen[#seen + 1] = tostring(row.a) .. "                 \
	"tostring(row.b) end return table.concat(seen, ' ') end "                                  \
	"function put(text) return msys.db.execute('one', 'INSERT INTO t VALUES (?, NULL)', "      \
	"{ text }) end "                                                                           \
	"msys.registerModule('m', { validate_ehlo = function(self, str) put(str) return 0 end })"

static char path[64];
static char uri[80];

static int set_up_source(void **state)
{
	static struct policy_source sources[] = {
		{.name = "one", .max_connections = 1},
		{.name = "two", .max_connections = 2},
		{.name = "nowhere", .uri = "sqlite:/nowhere/at/all.db", .max_connections = 1},
		{.name = "unknown", .uri = "other:x", .max_connections = 1},
	};
	int rc = set_up(state);

	snprintf(path, sizeof(path), "/tmp/flywheel-test_lib_db.%d", (int)getpid());
	snprintf(uri, sizeof(uri), "sqlite:%s", path);
	remove(path);
	sources[0].uri = uri;
	sources[1].uri = uri;
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		sources[i].max_rows = 3;
		sources[i].timeout_ms = 10000;
	}
	world->sources = sources;
	world->source_count = sizeof(sources) / sizeof(sources[0]);
	load(SCRIPT);
	ask("msys.db.execute('one', 'CREATE TABLE t (a, b)')");
	work_all();
	assert_printed("true;");
	return rc;
}

static int tear_down_source(void **state)
{
	int rc = tear_down(state);

	remove(path);
	return rc;
}

/* What the code, which asks and is answered, prints. */
static void assert_says(const char *code, const char *wanted)
{
	ask(code);
	work_all();
	assert_printed(wanted);
}

static void test_values_come_and_go(void **state)
{
	(void)state;
	assert_says("print(msys.db.execute('one', 'INSERT INTO t VALUES (?, :b), (?9, 2.5)', "
		    "{ true, b = 'x\\0y' }))",
		    "true;");
	assert_says("print(q('SELECT a, length(CAST(b AS BLOB)) AS b FROM t'))", "13 nil3;");
	assert_says("print(msys.db.fetch_row('one', 'SELECT a, b FROM t').b == 'x\\0y')", "true;");
	assert_says("print(msys.db.fetch_row('one', 'SELECT 1 WHERE 1 = 2'))", "nil;");
	assert_says(
		"print(q('WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM n LIMIT 9) "
		"SELECT a, 0 AS b FROM n'))",
		"10 20 30;");
}

static void test_what_is_wrong_is_returned_or_raised(void **state)
{
	(void)state;
	assert_says("print(q('SELEC'))", "sqlite: near \"SELEC\": syntax error;");
	assert_says("print(q('SELECT 1', nil, 'none'))", "there is no datasource \"none\";");
	assert_says("print(q('SELECT 1', nil, 'unknown'))", "there is no datasource \"unknown\";");
	assert_says("print(q('SELECT 1', { {} }))", "parameters are text, numbers or booleans;");
	assert_says("local t = {} for i = 1, 257 do t[i] = i end print(q('SELECT 1', t))",
		    "too many parameters;");
	assert_says("print(q(\"ATTACH ':memory:' AS other\"))",
		    "sqlite: too many attached databases - max 0;");
	assert_says("print(q('VACUUM'))", "sqlite: too many attached databases - max 0;");
	assert_says("print(pcall(q, 'SELECT 1', 'x'))",
		    "false\tmsys.db:8: bad argument #3 to 'ask' (table expected, got string);");
	assert_int_equal(world->error_count, 0);
	ask("msys.db.execute('one', 'SELEC')");
	work_all();
	assert_non_null(strstr(world->errors, "syntax error"));
}

static void test_queries_wait_for_a_connection(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		ask("print(put('x'), q('SELECT count(*) AS a FROM t'))");
	}
	/* Each goes to the end of the queue with its second query. */
	for (int i = 0; i < 6; i++) {
		assert_int_equal(world->job_count, 1);
		work_next(0);
	}
	assert_int_equal(world->job_count, 0);
	assert_printed("true\t3nil;true\t3nil;true\t3nil;");
}

static void test_each_source_has_its_connections(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		ask("print(q('SELECT 1 AS a', nil, 'two'))");
	}
	ask("print(q('SELECT 2 AS a'))");
	assert_int_equal(world->job_count, 3);
	work_all();
	assert_printed("1nil;1nil;2nil;1nil;");
}

static void test_connection_is_made_anew_when_it_was_idle_for_long(void **state)
{
	(void)state;
	/* What is temporary is the connection's. */
	assert_says("msys.db.execute('one', 'CREATE TEMP TABLE mine AS SELECT 7 AS a')", "true;");
	step_ms(IDLE_MS);
	assert_says("print(q('SELECT a FROM mine'))", "7nil;");
	step_ms(IDLE_MS + 1);
	/* A query that did not come to it has not used it. */
	ask("print(q('SELECT a FROM mine'))");
	work_next(-EAGAIN);
	assert_printed("too many tasks wait (pool backlog);");
	assert_says("print(q('SELECT a FROM mine'))", "sqlite: no such table: mine;");
}

static void test_connection_that_cannot_be_made_is_not_counted(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_says("print(q('SELECT 1', nil, 'nowhere'))",
			    "sqlite: unable to open database file;");
	}
}

static void test_pool_that_is_full_is_told(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		ask("print(q('SELECT 1 AS a', nil, 'two'))");
		work_next(-EAGAIN);
		assert_printed("too many tasks wait (pool backlog);");
	}
	/* A connection that was idle is idle again. */
	assert_says("print(q('SELECT 1 AS a', nil, 'two'))", "1nil;");
	ask("print(q('SELECT 1 AS a', nil, 'two'))");
	work_next(-EAGAIN);
	assert_printed("too many tasks wait (pool backlog);");
	ask("print(q('SELECT 1 AS a', nil, 'two'))");
	ask("print(q('SELECT 2 AS a', nil, 'two'))");
	assert_int_equal(world->job_count, 2);
	work_all();
	assert_printed("1nil;2nil;");
}

static void test_query_of_who_is_gone(void **state)
{
	struct policy_subject other;
	struct policy_call first = ehlo("under way");
	struct policy_call second = ehlo("waits");

	(void)state;
	policy_subject_init(&other, world->policy, world->subject.ops, world);
	second.subject = &other;
	assert_false(policy_call_begin(&first));
	assert_false(policy_call_begin(&second));
	ask("print(put('last'))");
	policy_call_cancel(&first);
	policy_call_cancel(&second);
	policy_subject_close(&other);
	work_all();
	assert_printed("true;");
	assert_int_equal(world->done, 0);
	assert_true(policy_idle(world->policy));
	assert_says("print(q('SELECT * FROM t'))", "under waynil lastnil;");
}

static void test_nobody_left_in_the_queue(void **state)
{
	struct policy_subject other;
	struct policy_call c = ehlo("waits");

	(void)state;
	policy_subject_init(&other, world->policy, world->subject.ops, world);
	c.subject = &other;
	ask("print(put('first'))");
	assert_false(policy_call_begin(&c));
	policy_call_cancel(&c);
	policy_subject_close(&other);
	work_next(0);
	assert_printed("true;");
	assert_int_equal(world->job_count, 0);
	assert_true(policy_idle(world->policy));
	assert_says("print(q('SELECT * FROM t'))", "firstnil;");
}

/* Also the one of a query that is under way then, and whatever the pool says. */
static void test_connections_are_closed_on_a_thread_that_may_block(void **state)
{
	(void)state;
	ask("print(q('SELECT 1 AS a', nil, 'two'))");
	ask("print(q('SELECT 2 AS a', nil, 'two'))");
	work_next(0);
	policy_stop_timers(world->policy);
	/* The query; the connection of 'one', idle since set_up_source(); that of 'two'. */
	assert_int_equal(world->job_count, 3);
	work_next(0);
	assert_int_equal(world->job_count, 3);
	for (int i = 0; i < 3; i++) {
		work_next(-EAGAIN);
	}
	assert_false(policy_idle(world->policy));
	work_all();
	assert_true(policy_idle(world->policy));
	assert_printed("1nil;2nil;");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_source, tear_down_source)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_values_come_and_go),
		TEST(test_what_is_wrong_is_returned_or_raised),
		TEST(test_queries_wait_for_a_connection),
		TEST(test_each_source_has_its_connections),
		TEST(test_connection_is_made_anew_when_it_was_idle_for_long),
		TEST(test_connection_that_cannot_be_made_is_not_counted),
		TEST(test_pool_that_is_full_is_told),
		TEST(test_query_of_who_is_gone),
		TEST(test_nobody_left_in_the_queue),
		TEST(test_connections_are_closed_on_a_thread_that_may_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
