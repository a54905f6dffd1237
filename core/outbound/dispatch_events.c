/*
 * What connections report to the dispatcher.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/outbound/host_list.h"
#include "core/queue/throttle.h"
#include "core/runtime/check.h"

void dispatch_on_ready(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct lane *l = c->lane;
	struct domain *d = c->domain;
	struct host *h = host_of(c);

	/* One that has worked for long says nothing about new ones. */
	if (c->transactions == 0) {
		lane_set_trouble(l, NULL);
		if (h != NULL) {
			h->failed_until_ms = 0;
		}
		if (l->down_until_ms != 0) {
			l->down_until_ms = 0;
			timer_cancel(&l->down_timer);
		}
	}
	if (x->stopping || dispatch_must_yield(c)) {
		connection_quit(c);
		return;
	}
	if (d != NULL && d->lane != l) {
		/* Its mail goes elsewhere now; another one's may go here. */
		if (l->ready == NULL) {
			connection_quit(c);
			return;
		}
		d = NULL;
	}
	if (d != NULL && !lane_is_ready(d) && d->active_head != NULL) {
		dispatch_domain(x, d);
	} else {
		dispatch_lane(x, l);
	}
	/* Another site may wait for what this one would keep idle; a record that leaves waits for
	 * those that count for it, whoever else might have used one soon. */
	if (c->state == CONNECTION_IDLE &&
	    (dispatch_server_is_full(x) || (c->domain != NULL && c->domain->lane != l))) {
		connection_quit(c);
	}
}

static void count_attempt(struct domain *d, struct connection *c, const struct delivery *delivery)
{
	struct site *s = c->lane->site;
	struct host *h = host_of(c);

	if (recipient_set_empty(&c->attempt.deferred)) {
		recent_add(&d->done, dispatch_now_ms(c->dispatcher));
	}
	d->delivered += recipient_set_count(&c->attempt.delivered);
	s->delivered += recipient_set_count(&c->attempt.delivered);
	if (!recipient_set_empty(&c->attempt.delivered)) {
		d->bytes_sent += delivery->message->body_bytes;
		s->bytes_sent += delivery->message->body_bytes;
		if (h != NULL) {
			h->deliveries++;
		}
	}
}

/* Only in memory, while the program stops: no queue keeps that, but the scheduler does. */
static bool must_be_kept(const struct dispatcher *x, const struct delivery *delivery)
{
	return x->stopping && delivery->message->spool == NULL;
}

/* Nothing was sent: throttles did not have to let it through. */
static void throttles_return(const struct connection *c, const struct domain *d)
{
	struct throttle *of_site = c->lane->site->options->throttle_messages;
	struct throttle *own = d->options->throttle_messages;

	if (of_site != NULL) {
		throttle_return(of_site);
	}
	if (own != NULL && !throttle_same_slot(own, of_site)) {
		throttle_return(own);
	}
}

void dispatch_on_attempt(struct connection *c, struct delivery *delivery)
{
	struct dispatcher *x = c->dispatcher;
	struct domain *d = c->domain;

	OWNER_CHECK(d);
	ASSERT(delivery->place == DELIVERY_ATTEMPT && delivery->domain == d);
	delivery->place = DELIVERY_TRANSIT;
	delivery->connection = NULL;
	d->attempt_count--;
	if (c->attempt.not_tried && !delivery->doomed && !must_be_kept(x, delivery)) {
		throttles_return(c, d);
		delivery_unload(delivery, x->pools);
		if (delivery->held) {
			x->ops->reorder(x, delivery);
		} else {
			domain_push_active_front(&x->domains, d, delivery);
		}
		/* That lane looks after it no more. */
		if (d->lane != c->lane) {
			dispatch_domain(x, d);
		}
	} else {
		count_attempt(d, c, delivery);
		x->ops->on_attempt(x, d, delivery, &c->attempt);
	}
	move_review(d);
}

/* By our own demands: what a peer says itself is not at these stages. */
static bool lacks_tls(const struct attempt *a)
{
	return strncmp(a->enhanced, "4.7.", 4) == 0 &&
	       (a->stage == SMTP_STAGE_AFTER_EHLO ||
		(a->stage >= SMTP_STAGE_DURING_STARTTLS && a->stage <= SMTP_STAGE_TLS_HANDSHAKE));
}

void dispatch_on_setup_failed(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct lane *l = c->lane;
	struct host *h = host_of(c);
	uint64_t until_ms;
	bool first;

	counter_inc(x->connect_failures);
	if (h == NULL || x->stopping) {
		return;
	}
	first = h->failed_until_ms <= dispatch_now_ms(x);
	host_fail(h, dispatch_now_ms(x) + c->options->host_failure_retry_ms, c->attempt.text,
		  lacks_tls(&c->attempt));
	lane_set_trouble(l, c->attempt.text);
	/* Every next hop is down: the one whose turn it is hears of it, the others wait. */
	if (first && host_choose(l, dispatch_now_ms(x), &until_ms) == NULL &&
	    !dispatch_lane_works(l)) {
		dispatch_lane_failed(x, l, dispatch_why_hosts_fail(l), until_ms, &c->attempt);
	}
}

void dispatch_on_closed(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct lane *l = c->lane;
	struct site *s = l->site;
	struct domain *d = c->domain;
	struct host *h = host_of(c);

	*(c->site_prev != NULL ? &c->site_prev->site_next : &s->connections) = c->site_next;
	if (c->site_next != NULL) {
		c->site_next->site_prev = c->site_prev;
	}
	s->connection_count--;
	l->connection_count--;
	if (h != NULL) {
		h->connections--;
		if (c->transactions > 0) {
			/* There is room for another one. */
			h->failed_until_ms = 0;
			l->down_until_ms = 0;
		}
	}
	x->connection_count--;
	counter_set_value(x->connections_open, x->connection_count);
	dispatch_return_limit(x);
	dispatch_count_for(c, NULL);
	if (d != NULL && !lane_is_ready(d) && d->active_head != NULL && d->lane == l) {
		dispatch_domain(x, d);
	}
	dispatch_lane(x, l);
}

void dispatch_loaded(struct dispatcher *x, struct delivery *delivery, struct content *content,
		     int result)
{
	struct connection *c = delivery->connection;

	ASSERT(c != NULL && c->delivery == delivery && c->state == CONNECTION_LOADING);
	delivery->loaded = content;
	if (result != 0) {
		agent_error(x->self, result, "cannot read a message back from the spool");
		c->broken = true;
		snprintf(c->attempt.text, sizeof c->attempt.text,
			 "451 4.3.0 [internal] cannot read the message back: %s",
			 strerror(-result));
		c->attempt.code = 451;
		snprintf(c->attempt.enhanced, sizeof c->attempt.enhanced, "4.3.0");
	}
	connection_begin(c);
	dispatch_lane(x, c->lane);
}
