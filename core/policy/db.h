/*
 * Databases, as msys.db asks them: a query with its parameters, and the rows that came of it, in
 * plain memory, as both are used on a thread of the pool. What differs from one kind of database to
 * another is a struct of functions: db_sqlite.c, db_redis.c. No Lua in them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/policy/text.h"
#include "core/runtime/thread_class.h"

#define DB_WHY 256
/* Of one query; of all rows of an answer. */
#define DB_PARAMETERS_MAX 256
#define DB_RESULT_BYTES (UINT64_C(8) << 20)

enum db_type { DB_NULL, DB_NUMBER, DB_TEXT };

SINGLE
struct db_cell {
	enum db_type type;
	double number;
	/* In the text of the result. */
	size_t at;
	size_t len;
};

/* `columns` cells for each row. */
SINGLE
struct db_result {
	/* Of the columns, each with its NUL, one after the other; empty: they have none. */
	struct policy_text names;
	struct policy_text text;
	struct db_cell *cells;
	size_t cell_count;
	size_t cell_room;
	uint32_t columns;
	/* Empty: it was answered. */
	char why[DB_WHY];
};

SINGLE
struct db_parameter {
	/* NULL: it is the `index`th, from 1 on. */
	char *name;
	int index;
	enum db_type type;
	double number;
	char *text;
	size_t len;
};

SINGLE
struct db_query {
	char *text;
	struct db_parameter *parameters;
	uint32_t parameter_count;
	uint64_t max_rows;
	uint64_t timeout_ms;
};

/* All of it on a thread that may block; one thread at a time for a connection. */
READONLY
struct db_driver {
	/* What a uri begins with, before its first colon. */
	const char *name;
	/* NULL, and `why`, when there is no connection to `target`. */
	void *(*open)(const char *target, uint64_t timeout_ms, char why[DB_WHY]);
	/* Fills in `r`. False: the connection is of no use any more. */
	bool (*run)(void *connection, const struct db_query *q, struct db_result *r);
	void (*close)(void *connection);
};

extern const struct db_driver db_sqlite;
extern const struct db_driver db_redis;

/* The driver of a uri, and what is behind its name; NULL: there is none. */
READONLY
const struct db_driver *db_driver_of(const char *uri, const char **target);

/* NULL: there is no such parameter. */
SINGLE
const struct db_parameter *db_parameter_at(const struct db_query *q, int index);
SINGLE
const struct db_parameter *db_parameter_named(const struct db_query *q, const char *name);

/* Adds a cell; false, and r->why: the answer is too large. */
SINGLE
bool db_add_null(struct db_result *r);
SINGLE
bool db_add_number(struct db_result *r, double number);
SINGLE
bool db_add_text(struct db_result *r, const char *text, size_t len);

SINGLE
void db_result_close(struct db_result *r);
SINGLE
void db_query_close(struct db_query *q);
