#include "listeners/http/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "listeners/http/endpoint.h"
#include "listeners/http/http.h"
#include "listeners/http/request.h"

#define EVENTS_TYPE "text/event-stream"
/* Of what is asked of us by the daemon at a time, bytes. */
#define BLOCK_BYTES 4096

/* ---- objects ---- */

static void event_put(struct http_event *e)
{
	if (e != NULL && --e->references == 0) {
		free(e->data);
		free(e);
	}
}

static struct http_event *event_make(struct events *v, const struct snapshot *s)
{
	struct http_event *e = check_memory(calloc(1, sizeof(*e)), "events");
	struct text text = {0};
	char *object;

	event_count(v->now, v->http);
	object = http_event_text(v->http, s, v->before, v->now);
	memcpy(v->before, v->now, sizeof(*v->before));
	e->references = 1;
	e->number = ++v->number;
	text_format(&text, "event: stats\nid: %llu\ndata: ", (unsigned long long)e->number);
	text_put(&text, object);
	text_put(&text, "\n\n");
	free(object);
	e->data = text.data;
	e->len = text.len;
	return e;
}

/* ---- each interval ---- */

static void on_snapshot(struct gather_wait *w, const struct snapshot *s)
{
	struct events *v = CONTAINER_OF(w, struct events, wait);

	if (v->followers == NULL) {
		return;
	}
	event_put(v->event);
	v->event = event_make(v, s);
	for (struct request *r = v->followers; r != NULL; r = r->follower_next) {
		request_wake(r);
	}
}

static void arm(struct events *v)
{
	timer_arm(&v->timer,
		  agent_now_ms(&v->http->scheduler->base) + v->http->gatherer.interval_ms);
}

static void make_soon(struct events *v)
{
	const struct snapshot *s = gather_fresh(&v->http->gatherer);

	if (s != NULL) {
		on_snapshot(&v->wait, s);
	} else if (!v->wait.waiting) {
		gather_wait(&v->http->gatherer, &v->wait);
	}
}

/* While the walks over domain records take long, rows are older than rates. */
static void on_tick(struct timer *t)
{
	struct events *v = CONTAINER_OF(t, struct events, timer);

	if (v->followers != NULL) {
		make_soon(v);
		arm(v);
	}
}

/* ---- followers ---- */

/* The daemon asks for more of the answer. */
static ssize_t read_event(void *context, uint64_t position, char *to, size_t room)
{
	struct request *r = context;
	struct events *v = &r->endpoint->http->events;
	size_t len;

	(void)position;
	CHECK_MAGIC(r, REQUEST_MAGIC);
	if (r->event == NULL) {
		if (v->http->stopping || r->endpoint->retired) {
			return MHD_CONTENT_READER_END_OF_STREAM;
		}
		if (v->event == NULL || v->event->number == r->event_number) {
			request_sleep(r);
			return 0;
		}
		if (r->event_number != 0) {
			counter_add(v->http->counts.events_skipped,
				    v->event->number - r->event_number - 1);
		}
		r->event = v->event;
		r->event->references++;
		r->event_at = 0;
		r->event_number = r->event->number;
	}
	len = r->event->len - r->event_at < room ? r->event->len - r->event_at : room;
	memcpy(to, r->event->data + r->event_at, len);
	r->event_at += len;
	if (r->event_at == r->event->len) {
		event_put(r->event);
		r->event = NULL;
	}
	return (ssize_t)len;
}

static void take_stock(struct events *v)
{
	if (v->before == NULL) {
		v->before = check_memory(calloc(1, sizeof(*v->before)), "events");
		v->now = check_memory(calloc(1, sizeof(*v->now)), "events");
	}
	event_count(v->before, v->http);
}

static void add_follower(struct events *v, struct request *r)
{
	bool first = v->followers == NULL;

	r->follows = true;
	r->endpoint->event_clients++;
	counter_add(v->http->counts.event_clients, 1);
	r->follower_next = v->followers;
	if (r->follower_next != NULL) {
		r->follower_next->follower_prev = r;
	}
	v->followers = r;
	if (first) {
		take_stock(v);
		arm(v);
		make_soon(v);
	}
}

void events_follow(struct events *v, struct request *r)
{
	struct MHD_Response *response;

	if (r->endpoint->event_clients >= r->endpoint->options->max_event_clients) {
		counter_inc(v->http->counts.refused_events);
		request_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "too many clients follow events");
		return;
	}
	add_follower(v, r);
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_event, r,
						     NULL);
	if (response == NULL) {
		fatal("out of memory for events");
	}
	request_respond(r, MHD_HTTP_OK, EVENTS_TYPE, response);
}

static void forget_all(struct events *v)
{
	timer_cancel(&v->timer);
	gather_forget(&v->http->gatherer, &v->wait);
	event_put(v->event);
	v->event = NULL;
	free(v->before);
	free(v->now);
	v->before = NULL;
	v->now = NULL;
}

void events_unfollow(struct events *v, struct request *r)
{
	*(r->follower_prev != NULL ? &r->follower_prev->follower_next : &v->followers) =
		r->follower_next;
	if (r->follower_next != NULL) {
		r->follower_next->follower_prev = r->follower_prev;
	}
	r->follows = false;
	r->endpoint->event_clients--;
	counter_sub(v->http->counts.event_clients, 1);
	event_put(r->event);
	r->event = NULL;
	if (v->followers == NULL) {
		forget_all(v);
	}
}

/* ---- life ---- */

void events_init(struct events *v, struct http *http)
{
	*v = (struct events){.http = http, .wait.on_snapshot = on_snapshot};
	timer_init(&v->timer, &http->scheduler->base, on_tick);
}

void events_stop(struct events *v)
{
	timer_cancel(&v->timer);
	gather_forget(&v->http->gatherer, &v->wait);
	for (struct request *r = v->followers; r != NULL; r = r->follower_next) {
		request_wake(r);
	}
}
