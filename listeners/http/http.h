/*
 * HTTP listener: metrics for Prometheus, health, a JSON answer for each console command that
 * changes nothing, and events for dashboards; also what is sent to Graphite. Served on the master's
 * scheduler; what it knows of others is gathered by orders (gather.h).
 *
 * HTTP itself is libmicrohttpd's, without threads of its own: endpoint.h. Start reading at
 * request_begin(), in request.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "listeners/control/order.h"
#include "listeners/http/events.h"
#include "listeners/http/gather.h"
#include "listeners/http/graphite.h"
#include "listeners/http/process.h"

#define HTTP_MAGIC 0x68747470U

struct endpoint;

BOUND
struct http_counts {
	struct counter *connections_open;
	struct counter *requests;
	struct counter *requests_open;
	struct counter *event_clients;
	struct counter *events_skipped;
	struct counter *refused_token;
	struct counter *refused_host;
	struct counter *refused_method;
	struct counter *refused_body;
	struct counter *refused_busy;
	struct counter *refused_events;
	struct counter *malformed;
	struct counter *timeouts;
};

/* The listener's state on its scheduler. */
BOUND
struct http {
	uint32_t magic;
	struct scheduler *scheduler;
	struct order_client client;
	/* Nobody is served, and nobody is sent metrics: all below is not set up. */
	bool unused;
	bool stopping;
	struct gatherer gatherer;
	struct events events;
	struct graphite graphite;
	struct process_files files;
	/* A list. */
	struct endpoint *endpoints;
	struct http_counts counts;
};

extern const struct listener_ops http_listener;
