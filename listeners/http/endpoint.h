/*
 * Endpoint: one listen's HTTP server: a daemon of libmicrohttpd without threads and without a
 * listening socket. It watches its clients by an epoll descriptor, which the scheduler's
 * multiplexor watches in turn; endpoint_run() lets it do what there is to do. While an answer is
 * being made, its connection is suspended.
 */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "core/runtime/mux.h"
#include "core/runtime/timer.h"

struct client;
struct http;
struct request;

BOUND
struct endpoint {
	struct http *http;
	struct endpoint *next;
	/* Held; which listen of it, and what it says. */
	struct config *config;
	uint32_t index;
	const struct http_options *options;
	/* The configuration has it no more, or otherwise: it ends when nothing is asked, and
	 * events are followed no further. */
	bool retired;
	struct MHD_Daemon *daemon;
	/* Ours, of its epoll instance; -1: closed. */
	int epoll_fd;
	struct mux_op ready;
	struct timer timer;
	/* Something may go on that no descriptor tells of. */
	bool run_wanted;
	bool running;
	/* Connections that are to bring the header of a request, the longest wait first. */
	struct client *first_idle;
	struct client *last_idle;
	struct timer idle_timer;
	/* The connection that is being handed to the daemon. */
	struct accept *accepting;
	uint32_t connections;
	/* All requests that are not completed, and how many of them are counted against
	 * max_requests, and follow events. */
	struct request *requests;
	uint32_t busy;
	uint32_t event_clients;
};

/* Sets up the server of listen `index` of its scheduler's generation. 0 or a negative errno. */
BOUND
int endpoint_open(struct endpoint *e, struct http *http, uint32_t index);

/* There is another generation: goes on with what it says, or, when that is another server, retires.
 */
BOUND
void endpoint_renew(struct endpoint *e);

/* It is the one of listen `index` of `config`. */
BOUND
bool endpoint_serves(const struct endpoint *e, const struct config *config, uint32_t index);

/* Takes the connection over. */
BOUND
void endpoint_serve(struct endpoint *e, struct accept *a);

/* Lets the daemon read, answer and write, for a bounded time. Not from within its callbacks: those
 * set run_wanted. */
BOUND
void endpoint_run(struct endpoint *e);

/* The header of a request is whole: its client may take its time, in so far as the daemon lets it.
 */
BOUND
void endpoint_on_header(struct endpoint *e, struct MHD_Connection *connection);

/* Ends all connections, whatever they are doing. */
BOUND
void endpoint_stop(struct endpoint *e);

/* Nothing is under way any more. */
BOUND
bool endpoint_stopped(const struct endpoint *e);
