/*
 * SQLite: "sqlite:PATH". One statement at a time; parameters are "?", ":name" and "$name". Who
 * waits for a lock of another, or computes, does so for as long as a query may take.
 */
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/policy/db.h"
#include "core/runtime/clock.h"

/* Instructions of SQLite's machine between two looks at the clock. */
#define PROGRESS_STEPS 10000

static uint64_t now_ms(void)
{
	return clock_system.monotonic_ns(NULL) / NS_PER_MS;
}

static void *open_file(const char *target, uint64_t timeout_ms, char why[DB_WHY])
{
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

	if (sqlite3_open_v2(target, &db, flags, NULL) != SQLITE_OK) {
		snprintf(why, DB_WHY, "sqlite: %s",
			 db != NULL ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		return NULL;
	}
	sqlite3_busy_timeout(db, (int)timeout_ms);
	/* Scripts must not load code, or write through the back door. */
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	/* Nor use other files than this one: ATTACH, and VACUUM, which needs a file for a while. */
	sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
	return db;
}

static int is_late(void *until_ms)
{
	return now_ms() > *(const uint64_t *)until_ms;
}

static const struct db_parameter *find(sqlite3_stmt *s, const struct db_query *q, int index)
{
	const char *name = sqlite3_bind_parameter_name(s, index);

	if (name == NULL || name[0] == '?') {
		return db_parameter_at(q, index);
	}
	return db_parameter_named(q, name + 1);
}

/* What is not given is NULL. */
static int bind(sqlite3_stmt *s, const struct db_query *q)
{
	int rc = SQLITE_OK;

	for (int i = 1; rc == SQLITE_OK && i <= sqlite3_bind_parameter_count(s); i++) {
		const struct db_parameter *p = find(s, q, i);

		if (p == NULL || p->type == DB_NULL) {
			rc = sqlite3_bind_null(s, i);
		} else if (p->type == DB_TEXT) {
			rc = sqlite3_bind_text64(s, i, p->text, p->len, SQLITE_STATIC, SQLITE_UTF8);
		} else if (p->number == floor(p->number) && fabs(p->number) < 9e15) {
			rc = sqlite3_bind_int64(s, i, (sqlite3_int64)p->number);
		} else {
			rc = sqlite3_bind_double(s, i, p->number);
		}
	}
	return rc;
}

static void add_names(sqlite3_stmt *s, struct db_result *r)
{
	r->columns = (uint32_t)sqlite3_column_count(s);
	for (int i = 0; i < (int)r->columns; i++) {
		const char *name = sqlite3_column_name(s, i);

		policy_text_append(&r->names, name != NULL ? name : "",
				   name != NULL ? strlen(name) + 1 : 1);
	}
}

static bool add_cell(sqlite3_stmt *s, int column, struct db_result *r)
{
	const char *bytes;

	switch (sqlite3_column_type(s, column)) {
	case SQLITE_NULL:
		return db_add_null(r);
	case SQLITE_INTEGER:
	case SQLITE_FLOAT:
		return db_add_number(r, sqlite3_column_double(s, column));
	default:
		bytes = sqlite3_column_blob(s, column);
		return db_add_text(r, bytes != NULL ? bytes : "",
				   (size_t)sqlite3_column_bytes(s, column));
	}
}

static bool add_row(sqlite3_stmt *s, struct db_result *r)
{
	bool room = true;

	for (int i = 0; room && i < (int)r->columns; i++) {
		room = add_cell(s, i, r);
	}
	return room;
}

/* All rows, or as many as are wanted. Rows of a statement that writes come once it has. */
static int step_through(sqlite3_stmt *s, const struct db_query *q, struct db_result *r)
{
	uint64_t rows = 0;
	int rc = SQLITE_ROW;

	add_names(s, r);
	while (rc == SQLITE_ROW) {
		rc = sqlite3_step(s);
		if (rc == SQLITE_ROW && (rows++ >= q->max_rows || !add_row(s, r))) {
			return SQLITE_DONE;
		}
	}
	return rc;
}

static bool run(void *connection, const struct db_query *q, struct db_result *r)
{
	sqlite3 *db = connection;
	uint64_t until_ms = now_ms() + q->timeout_ms;
	sqlite3_stmt *s = NULL;
	const char *rest = NULL;
	int rc;

	sqlite3_progress_handler(db, PROGRESS_STEPS, is_late, &until_ms);
	rc = sqlite3_prepare_v2(db, q->text, -1, &s, &rest);
	if (rc == SQLITE_OK && (s == NULL || rest[strspn(rest, " \t\r\n;")] != '\0')) {
		snprintf(r->why, DB_WHY, "sqlite: one statement expected");
	} else {
		rc = rc == SQLITE_OK ? bind(s, q) : rc;
		rc = rc == SQLITE_OK ? step_through(s, q, r) : rc;
		if (rc != SQLITE_DONE && r->why[0] == '\0') {
			snprintf(r->why, DB_WHY, "sqlite: %s",
				 rc == SQLITE_INTERRUPT ? "the query takes too long"
							: sqlite3_errmsg(db));
		}
	}
	sqlite3_finalize(s);
	sqlite3_progress_handler(db, 0, NULL, NULL);
	/* A transaction that a script leaves open would keep the next one's out. */
	if (sqlite3_get_autocommit(db) == 0) {
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
		snprintf(r->why, DB_WHY, "sqlite: a transaction cannot last beyond its statement");
	}
	return true;
}

static void close_file(void *connection)
{
	sqlite3_close(connection);
}

const struct db_driver db_sqlite = {
	.name = "sqlite",
	.open = open_file,
	.run = run,
	.close = close_file,
};
