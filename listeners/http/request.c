#include "listeners/http/request.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "listeners/http/api.h"
#include "listeners/http/endpoint.h"
#include "listeners/http/health.h"
#include "listeners/http/http.h"
#include "listeners/http/metrics.h"
#include "listeners/http/page.h"
#include "listeners/http/prometheus.h"

#define JSON_TYPE "application/json"

/* ---- life ---- */

struct request *request_create(struct endpoint *e, struct MHD_Connection *connection,
			       const char *uri)
{
	struct request *r = check_memory(calloc(1, sizeof(*r)), "a request");

	r->magic = REQUEST_MAGIC;
	r->uri = check_memory(strdup(uri), "a request");
	r->endpoint = e;
	r->connection = connection;
	r->next = e->requests;
	if (r->next != NULL) {
		r->next->prev = r;
	}
	e->requests = r;
	counter_inc(e->http->counts.requests);
	return r;
}

void request_destroy(struct request *r)
{
	struct endpoint *e = r->endpoint;

	CHECK_MAGIC(r, REQUEST_MAGIC);
	*(r->prev != NULL ? &r->prev->next : &e->requests) = r->next;
	if (r->next != NULL) {
		r->next->prev = r->prev;
	}
	if (r->counted) {
		e->busy--;
		counter_sub(e->http->counts.requests_open, 1);
	}
	gather_forget(&e->http->gatherer, &r->wait);
	if (r->follows) {
		events_unfollow(&e->http->events, r);
	}
	if (r->order != NULL) {
		order_release(r->order);
	}
	if (r->response != NULL) {
		MHD_destroy_response(r->response);
	}
	r->magic = 0;
	free(r->uri);
	free(r);
}

struct request *request_next(const struct request *r)
{
	return r->next;
}

void request_sleep(struct request *r)
{
	ASSERT(!r->suspended);
	r->suspended = true;
	MHD_suspend_connection(r->connection);
}

void request_wake(struct request *r)
{
	if (r->suspended) {
		r->suspended = false;
		MHD_resume_connection(r->connection);
		r->endpoint->run_wanted = true;
	}
}

/* ---- answers ---- */

void request_respond(struct request *r, unsigned status, const char *type,
		     struct MHD_Response *response)
{
	ASSERT(!r->answered && r->response == NULL);
	r->answered = true;
	r->response = response;
	r->status = status;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (status == MHD_HTTP_UNAUTHORIZED) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
	} else if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	} else if (status == MHD_HTTP_SERVICE_UNAVAILABLE) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
	}
	request_wake(r);
}

void request_answer(struct request *r, unsigned status, const char *type, struct text *text)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(text->len, text->data, MHD_RESPMEM_MUST_FREE);

	if (response == NULL) {
		fatal("out of memory for an answer");
	}
	*text = (struct text){0};
	request_respond(r, status, type, response);
}

void request_fail(struct request *r, unsigned status, const char *format, ...)
{
	char why[512];
	struct text text = {0};
	json_t *answer = value_object();
	va_list args;
	char *dump;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	value_set_bool(answer, "ok", false);
	value_set_text(answer, "error", why);
	dump = value_dump(answer);
	json_decref(answer);
	text_put(&text, dump);
	text_put(&text, "\n");
	free(dump);
	request_answer(r, status, JSON_TYPE, &text);
}

/* ---- routes ---- */

static void serve_page(struct request *r, const char *rest)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		page_size(), (void *)(uintptr_t)page_text(), MHD_RESPMEM_PERSISTENT);
	char policy[PAGE_POLICY];

	(void)rest;
	if (response == NULL) {
		fatal("out of memory for an answer");
	}
	page_policy(policy);
	MHD_add_response_header(response, "Content-Security-Policy", policy);
	MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
	request_respond(r, MHD_HTTP_OK, "text/html; charset=utf-8", response);
}

static void on_snapshot(struct gather_wait *w, const struct snapshot *s)
{
	struct request *r = CONTAINER_OF(w, struct request, wait);
	struct text text = {0};

	metrics_write(&text, r->endpoint->http, s);
	request_answer(r, MHD_HTTP_OK, PROMETHEUS_TYPE, &text);
}

static void serve_metrics(struct request *r, const char *rest)
{
	struct gatherer *g = &r->endpoint->http->gatherer;
	const struct snapshot *s = gather_fresh(g);

	(void)rest;
	r->wait.on_snapshot = on_snapshot;
	if (s != NULL) {
		on_snapshot(&r->wait, s);
	} else {
		gather_wait(g, &r->wait);
	}
}

static void serve_live(struct request *r, const char *rest)
{
	(void)rest;
	health_live(r);
}

static void serve_ready(struct request *r, const char *rest)
{
	(void)rest;
	health_ready(r);
}

static void serve_list(struct request *r, const char *rest)
{
	(void)rest;
	api_list(r);
}

static void serve_events(struct request *r, const char *rest)
{
	(void)rest;
	events_follow(&r->endpoint->http->events, r);
}

/* What may be asked for; with a slash at the end, all below it. */
static const struct route {
	const char *path;
	void (*serve)(struct request *r, const char *rest);
	/* For those without the token, too. */
	bool open;
	/* Not counted against max_requests. */
	bool lasting;
} routes[] = {
	{"/metrics", serve_metrics, false, false},     {"/healthz/live", serve_live, false, false},
	{"/healthz/ready", serve_ready, false, false}, {"/healthz", serve_ready, false, false},
	{"/events", serve_events, false, true},        {"/api/v1", serve_list, false, false},
	{"/api/v1/", api_command, false, false},       {"/", serve_page, true, false},
};

static const struct route *find_route(const char *uri, const char **rest)
{
	size_t len = strcspn(uri, "?");

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		const char *path = routes[i].path;
		size_t n = strlen(path);
		bool below = n > 1 && path[n - 1] == '/';

		if (strncmp(uri, path, n) == 0 && (below ? len > n : len == n)) {
			*rest = uri + n;
			return &routes[i];
		}
	}
	return NULL;
}

/* ---- who may ---- */

/* What is compared takes as long whatever is in it. */
static bool knows_token(const struct request *r)
{
	static const char scheme[] = "Bearer ";
	const char *token = r->endpoint->options->token;
	const char *said = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_AUTHORIZATION);

	if (token == NULL) {
		return true;
	}
	if (said == NULL || strncasecmp(said, scheme, sizeof(scheme) - 1) != 0) {
		return false;
	}
	said += sizeof(scheme) - 1;
	said += strspn(said, " ");
	return strlen(said) == strlen(token) && CRYPTO_memcmp(said, token, strlen(token)) == 0;
}

/*
 * Where no token is asked for, a page from anywhere could have its reader's browser ask us under a
 * name of its own that leads here (DNS rebinding), and read the answer. So names that cannot be
 * ours are refused; addresses, localhost and the hostname are good, and so is no name.
 */
static bool names_us(const struct request *r)
{
	const char *host =
		MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
	const char *own = r->endpoint->http->scheduler->global->hostname;
	size_t len;

	if (r->endpoint->options->token != NULL || host == NULL || host[0] == '[') {
		return true;
	}
	len = strcspn(host, ":");
	return strspn(host, "0123456789.") == len ||
	       (len == strlen("localhost") && strncasecmp(host, "localhost", len) == 0) ||
	       (len == strlen(own) && strncasecmp(host, own, len) == 0);
}

static bool has_body(const struct request *r)
{
	const char *length = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
							 MHD_HTTP_HEADER_CONTENT_LENGTH);

	return (length != NULL && strcmp(length, "0") != 0) ||
	       MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
					   MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL;
}

/* False and answered when it is not for this client, or not now. */
static bool may_ask(struct request *r, const struct route *route)
{
	struct http_counts *n = &r->endpoint->http->counts;

	if (!names_us(r)) {
		counter_inc(n->refused_host);
		request_fail(r, MHD_HTTP_FORBIDDEN,
			     "without a token, ask by address, localhost or the hostname");
		return false;
	}
	if (!route->open && !knows_token(r)) {
		counter_inc(n->refused_token);
		request_fail(r, MHD_HTTP_UNAUTHORIZED, "the token is missing, or is another one");
		return false;
	}
	if (!route->lasting && r->endpoint->busy >= r->endpoint->options->max_requests) {
		counter_inc(n->refused_busy);
		request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "too many requests at a time");
		return false;
	}
	return true;
}

/* ---- the way of a request ---- */

static enum MHD_Result send_response(struct request *r)
{
	enum MHD_Result queued = MHD_queue_response(r->connection, r->status, r->response);

	MHD_destroy_response(r->response);
	r->response = NULL;
	return queued;
}

/* The header is there. */
static void request_begin(struct request *r, const char *method)
{
	const char *rest;
	const struct route *route = find_route(r->uri, &rest);

	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		counter_inc(r->endpoint->http->counts.refused_method);
		request_fail(r, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET or HEAD");
	} else if (has_body(r)) {
		counter_inc(r->endpoint->http->counts.refused_body);
		request_fail(r, MHD_HTTP_CONTENT_TOO_LARGE, "a request has no body");
	} else if (route == NULL) {
		request_fail(r, MHD_HTTP_NOT_FOUND,
			     "nothing is there; try /metrics, /healthz, /events or /api/v1");
	} else if (may_ask(r, route)) {
		if (!route->lasting) {
			r->counted = true;
			r->endpoint->busy++;
			counter_add(r->endpoint->http->counts.requests_open, 1);
		}
		route->serve(r, rest);
	}
}

enum MHD_Result request_go_on(struct request *r, const char *method, size_t *body_bytes)
{
	CHECK_MAGIC(r, REQUEST_MAGIC);
	if (!r->begun) {
		r->begun = true;
		endpoint_on_header(r->endpoint, r->connection);
		/* With a body it is refused before that comes; then the connection ends. */
		if (!has_body(r)) {
			return MHD_YES;
		}
		request_begin(r, method);
		return send_response(r);
	}
	if (*body_bytes != 0) {
		*body_bytes = 0;
		return MHD_YES;
	}
	if (!r->answered) {
		request_begin(r, method);
	}
	if (r->response != NULL) {
		return send_response(r);
	}
	request_sleep(r);
	return MHD_YES;
}
