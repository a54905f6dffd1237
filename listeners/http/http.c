#include "listeners/http/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "listeners/http/endpoint.h"

static struct http *http_of(void *state)
{
	struct http *h = state;

	CHECK_MAGIC(h, HTTP_MAGIC);
	return h;
}

static void make_counters(struct http *h)
{
	static const struct {
		const char *name;
		const char *label;
		enum counter_kind kind;
		size_t offset;
	} rows[] = {
#define ROW(member, kind, label)                                                                   \
	{"http." #member, label, kind, offsetof(struct http_counts, member)}
		ROW(connections_open, COUNTER_GAUGE, "HTTP connections open now"),
		ROW(requests, COUNTER_SUM, "HTTP requests received"),
		ROW(requests_open, COUNTER_GAUGE, "HTTP requests under way, but for events"),
		ROW(event_clients, COUNTER_GAUGE, "HTTP clients that follow events"),
		ROW(events_skipped, COUNTER_SUM,
		    "Events that clients were not sent as they were too slow"),
		ROW(refused_token, COUNTER_SUM, "HTTP requests refused: without the token"),
		ROW(refused_host, COUNTER_SUM, "HTTP requests refused: for another host"),
		ROW(refused_method, COUNTER_SUM, "HTTP requests refused: they change something"),
		ROW(refused_body, COUNTER_SUM, "HTTP requests refused: they have a body"),
		ROW(refused_busy, COUNTER_SUM, "HTTP requests refused: max_requests are under way"),
		ROW(refused_events, COUNTER_SUM,
		    "HTTP requests refused: max_event_clients follow events"),
		ROW(malformed, COUNTER_SUM,
		    "HTTP requests refused: not understood, or above max_header_size"),
		ROW(timeouts, COUNTER_SUM, "HTTP clients that asked or took nothing for idle_time"),
#undef ROW
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct counter **to =
			(struct counter **)(void *)((char *)&h->counts + rows[i].offset);

		*to = counter_create(h->scheduler->base.counters, rows[i].name, rows[i].kind,
				     rows[i].label);
	}
}

static struct endpoint *find_endpoint(const struct http *h, const struct config *config,
				      uint32_t index, bool retired)
{
	struct endpoint *e = h->endpoints;

	while (e != NULL &&
	       (e->retired != retired || e->daemon == NULL || !endpoint_serves(e, config, index))) {
		e = e->next;
	}
	return e;
}

static void free_endpoint(struct endpoint *e)
{
	config_release(e->config);
	free(e);
}

/* For each listen that has none. */
static int open_endpoints(struct http *h)
{
	const struct config *config = h->scheduler->config;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < config_http_listen_count(config); i++) {
		struct endpoint *e;

		if (find_endpoint(h, config, i, false) != NULL) {
			continue;
		}
		e = calloc(1, sizeof(*e));
		rc = e != NULL ? endpoint_open(e, h, i) : -ENOMEM;
		if (rc == 0) {
			e->next = h->endpoints;
			h->endpoints = e;
		} else if (e != NULL) {
			free_endpoint(e);
		}
	}
	return rc;
}

static void set_up(struct http *h)
{
	struct scheduler *s = h->scheduler;

	order_client_init(&h->client, s);
	process_files_init(&h->files, config_global(s->program->foundation)->spool_path);
	make_counters(h);
	gatherer_init(&h->gatherer, s, &h->client, &h->files);
	events_init(&h->events, h);
	graphite_init(&h->graphite, h);
	h->unused = false;
}

static int http_open(struct scheduler *s, void **state)
{
	struct http *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		return -ENOMEM;
	}
	h->magic = HTTP_MAGIC;
	h->scheduler = s;
	*state = h;
	h->unused = config_http_listen_count(s->config) == 0 && s->global->graphite.server == NULL;
	if (h->unused) {
		return 0;
	}
	set_up(h);
	return open_endpoints(h);
}

static void http_renew(struct scheduler *s, void *state)
{
	struct http *h = http_of(state);
	int rc;

	if (h->stopping) {
		return;
	}
	if (h->unused && config_http_listen_count(s->config) != 0) {
		set_up(h);
	}
	for (struct endpoint *e = h->endpoints; e != NULL; e = e->next) {
		endpoint_renew(e);
	}
	rc = open_endpoints(h);
	if (rc != 0) {
		agent_error(&s->base, -rc, "cannot set up an HTTP listener: %s", strerror(-rc));
	}
}

static void http_serve(struct scheduler *s, void *state, struct accept *a)
{
	struct http *h = http_of(state);
	struct endpoint *e;

	CHECK_MAGIC(a, ACCEPT_MAGIC);
	e = find_endpoint(h, a->config, a->listen, false);
	if (e == NULL) {
		e = find_endpoint(h, a->config, a->listen, true);
	}
	accept_let_go(a);
	if (h->stopping || e == NULL) {
		scheduler_close_accept(s, a);
		return;
	}
	endpoint_serve(e, a);
}

static int serve_endpoint(struct http *h, struct endpoint *e)
{
	int work = 0;

	if (e->run_wanted && e->daemon != NULL) {
		endpoint_run(e);
		work++;
	}
	/* Once answers that were under way have gone, connections that only wait end. */
	if ((h->stopping || e->retired) && e->daemon != NULL && e->requests == NULL) {
		endpoint_stop(e);
		work++;
	}
	return work;
}

static int http_do_work(struct scheduler *s, void *state)
{
	struct http *h = http_of(state);
	struct endpoint **at = &h->endpoints;
	int work = 0;

	(void)s;
	while (*at != NULL) {
		struct endpoint *e = *at;

		work += serve_endpoint(h, e);
		if (e->retired && endpoint_stopped(e)) {
			*at = e->next;
			free_endpoint(e);
		} else {
			at = &e->next;
		}
	}
	return work;
}

static void http_stop(struct scheduler *s, void *state, bool hurry)
{
	struct http *h = http_of(state);

	(void)s;
	h->stopping = true;
	if (h->unused) {
		return;
	}
	graphite_stop(&h->graphite);
	events_stop(&h->events);
	for (struct endpoint *e = h->endpoints; hurry && e != NULL; e = e->next) {
		endpoint_stop(e);
	}
}

static bool http_drained(struct scheduler *s, void *state)
{
	struct http *h = http_of(state);

	(void)s;
	if (h->unused) {
		return true;
	}
	for (const struct endpoint *e = h->endpoints; e != NULL; e = e->next) {
		if (!endpoint_stopped(e)) {
			return false;
		}
	}
	return graphite_stopped(&h->graphite) && h->client.orders == 0 && !h->files.busy;
}

static void http_close(struct scheduler *s, void *state)
{
	struct http *h = http_of(state);

	(void)s;
	if (!h->unused) {
		ASSERT(h->client.orders == 0);
		gatherer_close(&h->gatherer);
	}
	while (h->endpoints != NULL) {
		struct endpoint *next = h->endpoints->next;

		free_endpoint(h->endpoints);
		h->endpoints = next;
	}
	h->magic = 0;
	free(h);
}

const struct listener_ops http_listener = {
	.name = "http",
	.listen_count = config_http_listen_count,
	.listen = config_http_listen,
	.on_master = true,
	.open = http_open,
	.serve = http_serve,
	.do_work = http_do_work,
	.renew = http_renew,
	.stop = http_stop,
	.drained = http_drained,
	.close = http_close,
};
