/*
 * Request: from its first line to the end of its answer. What may be asked for is the table of
 * routes in request.c; what is not known at once is gathered or ordered while the connection is
 * suspended.
 */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"
#include "listeners/http/gather.h"
#include "listeners/http/text.h"

#define REQUEST_MAGIC 0x72657175U

struct endpoint;
struct http_event;
struct order;

BOUND
struct request {
	uint32_t magic;
	struct endpoint *endpoint;
	struct MHD_Connection *connection;
	/* In the endpoint's list. */
	struct request *next;
	struct request *prev;
	/* As it came, percent-encoded, with what follows a question mark. */
	char *uri;
	/* Header seen; counted against max_requests. */
	bool begun;
	bool counted;
	bool suspended;
	bool answered;
	/* Ready to be sent; NULL: none yet. */
	struct MHD_Response *response;
	unsigned status;
	/* For a snapshot. */
	struct gather_wait wait;
	/* For a command; NULL: none, or the answer has it. */
	struct order *order;

	/* Who follows events: in the list of events; what it is being sent, and the last one that
	 * it has been sent. */
	bool follows;
	struct request *follower_next;
	struct request *follower_prev;
	struct http_event *event;
	size_t event_at;
	uint64_t event_number;
};

/* The daemon has a first line: `uri` is copied. */
BOUND
struct request *request_create(struct endpoint *e, struct MHD_Connection *connection,
			       const char *uri);

/* The daemon has the header, then some of a body, then its end. MHD_NO ends the connection. */
BOUND
enum MHD_Result request_go_on(struct request *r, const char *method, size_t *body_bytes);

/* It is over, answered or not. */
BOUND
void request_destroy(struct request *r);

BOUND
struct request *request_next(const struct request *r);

/* Suspends the connection until request_wake(). */
BOUND
void request_sleep(struct request *r);

/* The connection goes on, if it was suspended. */
BOUND
void request_wake(struct request *r);

/* Each answers, once, and wakes the connection. `text` is taken over. */
BOUND
void request_answer(struct request *r, unsigned status, const char *type, struct text *text);

/* Takes the response over; `type` is its Content-Type. */
BOUND
void request_respond(struct request *r, unsigned status, const char *type,
		     struct MHD_Response *response);

/* {"ok":false,"error":"..."} */
BOUND
void request_fail(struct request *r, unsigned status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
