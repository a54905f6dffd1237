#include "listeners/http/http.h"

#include <errno.h>
#include <stdlib.h>

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

static int open_endpoints(struct http *h, uint32_t count)
{
	int rc = 0;

	h->endpoints = calloc(count != 0 ? count : 1, sizeof(*h->endpoints));
	if (h->endpoints == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; rc == 0 && i < count; i++) {
		rc = endpoint_open(&h->endpoints[i], h, i);
		h->endpoint_count += rc == 0;
	}
	return rc;
}

static int http_open(struct scheduler *s, void **state)
{
	uint32_t listens = config_http_listen_count(s->program->config);
	struct http *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		return -ENOMEM;
	}
	h->magic = HTTP_MAGIC;
	h->scheduler = s;
	*state = h;
	h->unused = listens == 0 && s->global->graphite.server == NULL;
	if (h->unused) {
		return 0;
	}
	order_client_init(&h->client, s);
	process_files_init(&h->files);
	make_counters(h);
	gatherer_init(&h->gatherer, s, &h->client, &h->files);
	events_init(&h->events, h);
	graphite_init(&h->graphite, h);
	return open_endpoints(h, listens);
}

static void http_serve(struct scheduler *s, void *state, struct accept *a)
{
	struct http *h = http_of(state);

	CHECK_MAGIC(a, ACCEPT_MAGIC);
	if (h->stopping) {
		scheduler_close_accept(s, a);
		return;
	}
	endpoint_serve(&h->endpoints[a->listen], a);
}

static int http_do_work(struct scheduler *s, void *state)
{
	struct http *h = http_of(state);
	int work = 0;

	(void)s;
	for (uint32_t i = 0; i < h->endpoint_count; i++) {
		struct endpoint *e = &h->endpoints[i];

		if (e->run_wanted && e->daemon != NULL) {
			endpoint_run(e);
			work++;
		}
		/* Once answers that were under way have gone, connections that only wait end. */
		if (h->stopping && e->daemon != NULL && e->requests == NULL) {
			endpoint_stop(e);
			work++;
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
	for (uint32_t i = 0; hurry && i < h->endpoint_count; i++) {
		endpoint_stop(&h->endpoints[i]);
	}
}

static bool http_drained(struct scheduler *s, void *state)
{
	struct http *h = http_of(state);

	(void)s;
	if (h->unused) {
		return true;
	}
	for (uint32_t i = 0; i < h->endpoint_count; i++) {
		if (!endpoint_stopped(&h->endpoints[i])) {
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
	free(h->endpoints);
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
	.stop = http_stop,
	.drained = http_drained,
	.close = http_close,
};
