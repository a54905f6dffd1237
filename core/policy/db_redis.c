/*
 * Redis: "redis:[PASSWORD@]HOST[:PORT][/DATABASE]", or "redis:/PATH" of a socket. A query is a
 * command, its words with spaces between; a word "?", ":name" or "$name" is a parameter. An array
 * is a row for each of its elements, whose columns have no names.
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/policy/db.h"

#define WORDS_MAX 512
#define TARGET_MAX 512
#define PORT 6379
#define NUMBER_BYTES 32

SINGLE
struct words {
	const char *list[WORDS_MAX];
	size_t lengths[WORDS_MAX];
	char numbers[WORDS_MAX][NUMBER_BYTES];
	int count;
};

/* ---- connections ---- */

static bool order(redisContext *c, const char *verb, const char *argument, char why[DB_WHY])
{
	redisReply *reply = redisCommand(c, "%s %s", verb, argument);
	bool good = reply != NULL && reply->type != REDIS_REPLY_ERROR;

	if (!good) {
		snprintf(why, DB_WHY, "redis: %s: %s", verb,
			 reply != NULL ? reply->str : c->errstr);
	}
	freeReplyObject(reply);
	return good;
}

/* HOST, HOST:PORT, [HOST]:PORT */
static redisContext *dial(char *host, struct timeval timeout)
{
	char *colon = strrchr(host, ':');
	char *bracket = strchr(host, ']');
	int port = PORT;

	if (colon != NULL && (bracket == NULL || colon > bracket)) {
		port = (int)strtol(colon + 1, NULL, 10);
		*colon = '\0';
	}
	if (host[0] == '[' && bracket != NULL) {
		*bracket = '\0';
		host++;
	}
	return redisConnectWithTimeout(host, port, timeout);
}

static void *connect_to(const char *target, uint64_t timeout_ms, char why[DB_WHY])
{
	struct timeval timeout = {.tv_sec = (time_t)(timeout_ms / 1000),
				  .tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000)};
	char copy[TARGET_MAX];
	char *host = copy;
	char *at;
	char *database = NULL;
	redisContext *c;

	snprintf(copy, sizeof(copy), "%s", target);
	at = copy[0] != '/' ? strrchr(copy, '@') : NULL;
	if (at != NULL) {
		*at = '\0';
		host = at + 1;
	}
	if (copy[0] == '/') {
		c = redisConnectUnixWithTimeout(copy, timeout);
	} else {
		database = strchr(host, '/');
		if (database != NULL) {
			*database++ = '\0';
		}
		c = dial(host, timeout);
	}
	if (c == NULL || c->err != 0) {
		snprintf(why, DB_WHY, "redis: %s", c != NULL ? c->errstr : "out of memory");
		redisFree(c);
		return NULL;
	}
	redisSetTimeout(c, timeout);
	if ((at != NULL && !order(c, "AUTH", copy, why)) ||
	    (database != NULL && database[0] != '\0' && !order(c, "SELECT", database, why))) {
		redisFree(c);
		return NULL;
	}
	return c;
}

/* ---- commands ---- */

static void set_parameter(struct words *w, const struct db_parameter *p)
{
	char *number = w->numbers[w->count];

	if (p->type == DB_NUMBER) {
		snprintf(number, NUMBER_BYTES, "%.17g", p->number);
	}
	w->list[w->count] = p->type == DB_TEXT ? p->text : p->type == DB_NUMBER ? number : "";
	w->lengths[w->count] = p->type == DB_TEXT ? p->len : strlen(w->list[w->count]);
}

/* One word of the query at `from`; false, and `why`: a parameter is missing. */
static bool add_word(struct words *w, const struct db_query *q, const char *from, size_t len,
		     int *position, char why[DB_WHY])
{
	const struct db_parameter *p = NULL;
	bool by_place = len == 1 && from[0] == '?';
	bool by_name = len > 1 && (from[0] == ':' || from[0] == '$');
	char name[64];

	if (by_place) {
		p = db_parameter_at(q, ++*position);
	} else if (by_name) {
		snprintf(name, sizeof(name), "%.*s", (int)len - 1, from + 1);
		p = db_parameter_named(q, name);
	}
	if (by_place || by_name) {
		if (p == NULL) {
			snprintf(why, DB_WHY, "redis: parameter \"%.*s\" is missing", (int)len,
				 from);
			return false;
		}
		set_parameter(w, p);
	} else {
		w->list[w->count] = from;
		w->lengths[w->count] = len;
	}
	w->count++;
	return true;
}

/* What changes the connection, which the next query has too, or brings more or less than one
 * answer. */
static bool is_of_connection(const char *verb, size_t len)
{
	static const char *const verbs[] = {
		"ASKING",       "AUTH",        "CLIENT",     "DISCARD",    "EXEC",
		"HELLO",        "MONITOR",     "MULTI",      "PSUBSCRIBE", "PSYNC",
		"PUNSUBSCRIBE", "QUIT",        "READONLY",   "READWRITE",  "REPLCONF",
		"RESET",        "SELECT",      "SSUBSCRIBE", "SUBSCRIBE",  "SUNSUBSCRIBE",
		"SYNC",         "UNSUBSCRIBE", "UNWATCH",    "WATCH",
	};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strlen(verbs[i]) == len && strncasecmp(verbs[i], verb, len) == 0) {
			return true;
		}
	}
	return false;
}

static bool split(struct words *w, const struct db_query *q, char why[DB_WHY])
{
	const char *at = q->text;
	int position = 0;

	w->count = 0;
	for (;;) {
		size_t len;

		at += strspn(at, " \t\r\n");
		len = strcspn(at, " \t\r\n");
		if (len == 0) {
			break;
		}
		if (w->count == WORDS_MAX) {
			snprintf(why, DB_WHY, "redis: more than %d words", WORDS_MAX);
			return false;
		}
		if (!add_word(w, q, at, len, &position, why)) {
			return false;
		}
		at += len;
	}
	if (w->count == 0) {
		snprintf(why, DB_WHY, "redis: a command expected");
		return false;
	}
	if (is_of_connection(w->list[0], w->lengths[0])) {
		snprintf(why, DB_WHY, "redis: %.*s cannot be used: queries share their connections",
			 (int)w->lengths[0], w->list[0]);
		return false;
	}
	return true;
}

/* ---- answers ---- */

static bool add_reply(struct db_result *r, const redisReply *x)
{
	switch (x->type) {
	case REDIS_REPLY_INTEGER:
		return db_add_number(r, (double)x->integer);
	case REDIS_REPLY_NIL:
		return db_add_null(r);
	case REDIS_REPLY_ARRAY:
		return db_add_number(r, (double)x->elements);
	default:
		return db_add_text(r, x->str, x->len);
	}
}

static bool is_array(const redisReply *x)
{
	return x->type == REDIS_REPLY_ARRAY;
}

static void add_rows(struct db_result *r, const redisReply *x, uint64_t max_rows)
{
	bool room = true;

	r->columns = 1;
	for (size_t i = 0; i < x->elements; i++) {
		if (is_array(x->element[i]) && x->element[i]->elements > r->columns) {
			r->columns = (uint32_t)x->element[i]->elements;
		}
	}
	for (size_t i = 0; room && i < x->elements && i < max_rows; i++) {
		const redisReply *row = x->element[i];

		for (uint32_t n = 0; room && n < r->columns; n++) {
			if (is_array(row)) {
				room = n < row->elements ? add_reply(r, row->element[n])
							 : db_add_null(r);
			} else {
				room = n == 0 ? add_reply(r, row) : db_add_null(r);
			}
		}
	}
}

static bool run(void *connection, const struct db_query *q, struct db_result *r)
{
	redisContext *c = connection;
	struct words *w = calloc(1, sizeof(*w));
	redisReply *reply = NULL;
	bool asked = w != NULL && split(w, q, r->why);

	if (asked) {
		reply = redisCommandArgv(c, w->count, w->list, w->lengths);
	}
	free(w);
	if (!asked) {
		return true;
	}
	if (reply == NULL) {
		snprintf(r->why, DB_WHY, "redis: %s", c->errstr);
		return false;
	}
	if (reply->type == REDIS_REPLY_ERROR) {
		snprintf(r->why, DB_WHY, "redis: %s", reply->str);
	} else if (is_array(reply)) {
		add_rows(r, reply, q->max_rows);
	} else if (reply->type != REDIS_REPLY_NIL) {
		r->columns = 1;
		add_reply(r, reply);
	}
	freeReplyObject(reply);
	return true;
}

static void hang_up(void *connection)
{
	redisFree(connection);
}

const struct db_driver db_redis = {
	.name = "redis",
	.open = connect_to,
	.run = run,
	.close = hang_up,
};
