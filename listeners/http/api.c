#include "listeners/http/api.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "core/runtime/hex.h"
#include "listeners/control/command.h"
#include "listeners/http/endpoint.h"
#include "listeners/http/http.h"
#include "listeners/http/request.h"

#define API_TYPE "application/json"

/* A command line in the making. */
struct line {
	char text[ORDER_LINE_MAX + 1];
	size_t len;
	/* NULL: all is well. */
	const char *problem;
};

/* ---- the list ---- */

void api_list(struct request *r)
{
	json_t *rows = value_array();
	json_t *answer = value_object();
	struct text text = {0};
	char *dump;

	for (const struct command *c = command_table; c->name != NULL; c++) {
		json_t *row;

		if (c->changes) {
			continue;
		}
		row = value_object();
		value_set_text(row, "command", c->name);
		value_set_text(row, "arguments", c->syntax);
		value_set_text(row, "what_it_does", c->help);
		value_append(rows, row);
	}
	value_set_bool(answer, "ok", true);
	value_set(answer, "result", rows);
	dump = value_dump(answer);
	json_decref(answer);
	text_put(&text, dump);
	text_put(&text, "\n");
	free(dump);
	request_answer(r, MHD_HTTP_OK, API_TYPE, &text);
}

/* ---- from a path to a command line ---- */

static void add_byte(struct line *l, char byte)
{
	if (l->len == ORDER_LINE_MAX) {
		l->problem = "the command is too long";
	} else if ((unsigned char)byte < ' ' || byte == 0x7f) {
		l->problem = "the command has a control character in it";
	} else {
		l->text[l->len++] = byte;
	}
}

/* Takes one character off `*at`, of what is percent-encoded (RFC 3986 section 2.1). */
static char take_byte(struct line *l, const char **at)
{
	const char *c = *at;

	if (c[0] != '%') {
		*at = c + 1;
		return c[0];
	}
	if (hex_value(c[1]) < 0 || hex_value(c[2]) < 0) {
		l->problem = "a percent sign is not followed by two hexadecimal digits";
		*at = c + 1;
		return '%';
	}
	*at = c + 3;
	return (char)(hex_value(c[1]) * 16 + hex_value(c[2]));
}

/* One segment is one word, whatever it has in it but double quotes. */
static void add_segment(struct line *l, const char *from, const char *end)
{
	if (l->len != 0) {
		add_byte(l, ' ');
	}
	add_byte(l, '"');
	while (from < end && l->problem == NULL) {
		char byte = take_byte(l, &from);

		if (byte == '"') {
			l->problem = "a word has a double quote in it";
		}
		add_byte(l, byte);
	}
	add_byte(l, '"');
}

static void add_path(struct line *l, const char *path)
{
	while (*path != '\0' && *path != '?') {
		size_t len = strcspn(path, "/?");

		if (len != 0) {
			add_segment(l, path, path + len);
		}
		path += len + (path[len] == '/');
	}
}

/* ?args=..., as they would be typed. */
static void add_query(struct line *l, const char *query)
{
	while (*query != '\0' && l->problem == NULL) {
		const char *end = query + strcspn(query, "&");

		if (strncmp(query, "args=", 5) != 0) {
			l->problem = "there is no such parameter; expected args=...";
			return;
		}
		query += 5;
		add_byte(l, ' ');
		while (query < end && l->problem == NULL) {
			char byte = *query == '+' ? ' ' : *query;

			if (byte == '%') {
				byte = take_byte(l, &query);
			} else {
				query++;
			}
			add_byte(l, byte);
		}
		query = *end == '&' ? end + 1 : end;
	}
}

/* ---- answers ---- */

static unsigned status_of(const struct order *o)
{
	switch (o->outcome) {
	case ORDER_BAD_USAGE:
		return MHD_HTTP_BAD_REQUEST;
	case ORDER_NOT_FOUND:
		return MHD_HTTP_NOT_FOUND;
	case ORDER_GOOD:
		break;
	}
	return MHD_HTTP_OK;
}

static void on_sent(void *order)
{
	order_release(order);
}

/* The answer is sent from the order's own pieces, which live until it has gone. */
static void on_answer(void *context, struct order *o)
{
	struct request *r = context;
	struct MHD_IoVec pieces[REPLY_PIECES];
	struct MHD_Response *response;

	CHECK_MAGIC(r, REQUEST_MAGIC);
	for (unsigned i = 0; i < o->reply.count; i++) {
		pieces[i].iov_base = o->reply.iov[i].iov_base;
		pieces[i].iov_len = o->reply.iov[i].iov_len;
	}
	r->order = NULL;
	response = MHD_create_response_from_iovec(pieces, o->reply.count, on_sent, o);
	if (response == NULL) {
		fatal("out of memory for an answer");
	}
	request_respond(r, status_of(o), API_TYPE, response);
}

void api_command(struct request *r, const char *path)
{
	struct http *http = r->endpoint->http;
	struct line l = {.len = 0};
	const char *query = strchr(path, '?');

	add_path(&l, path);
	if (query != NULL) {
		add_query(&l, query + 1);
	}
	if (l.problem != NULL) {
		request_fail(r, MHD_HTTP_BAD_REQUEST, "%s", l.problem);
		return;
	}
	r->order = order_create(&http->client, http->scheduler, l.text, l.len);
	r->order->on_answer = on_answer;
	r->order->context = r;
	if (!command_parse(r->order)) {
		return;
	}
	if (command_changes(r->order)) {
		order_release(r->order);
		r->order = NULL;
		counter_inc(http->counts.refused_method);
		request_fail(r, MHD_HTTP_METHOD_NOT_ALLOWED,
			     "this command changes something; the console does that");
		return;
	}
	command_run(r->order);
}
