#include "listeners/http/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agents/listen_socket.h"
#include "core/runtime/check.h"
#include "listeners/http/http.h"
#include "listeners/http/request.h"

/* Rounds of the daemon in one duty cycle: what is left goes on in the next one. */
#define ROUNDS 4

static struct agent *agent_of(const struct endpoint *e)
{
	return &e->http->scheduler->base;
}

/* ---- idle clients ---- */

/* Who is at the other end of a connection. */
BOUND
struct client {
	struct accept *accept;
	int fd;
	/* Among those that are waited for, since when, monotonic ms. */
	bool idle;
	uint64_t since_ms;
	struct client *next;
	struct client *prev;
};

static void arm_idle(struct endpoint *e)
{
	if (e->first_idle == NULL) {
		timer_cancel(&e->idle_timer);
	} else if (!timer_armed(&e->idle_timer)) {
		timer_arm(&e->idle_timer, e->first_idle->since_ms + e->options->idle_ms);
	}
}

/* A whole header has to come within idle_time, however it drips. */
static void idle_begin(struct endpoint *e, struct client *c)
{
	c->idle = true;
	c->since_ms = agent_now_ms(agent_of(e));
	c->next = NULL;
	c->prev = e->last_idle;
	*(c->prev != NULL ? &c->prev->next : &e->first_idle) = c;
	e->last_idle = c;
	arm_idle(e);
}

static void idle_end(struct endpoint *e, struct client *c)
{
	if (c->idle) {
		*(c->prev != NULL ? &c->prev->next : &e->first_idle) = c->next;
		*(c->next != NULL ? &c->next->prev : &e->last_idle) = c->prev;
		c->idle = false;
	}
}

/* The daemon sees the end of the stream, and closes. */
static void on_idle(struct timer *t)
{
	struct endpoint *e = CONTAINER_OF(t, struct endpoint, idle_timer);
	uint64_t now_ms = agent_now_ms(agent_of(e));

	while (e->first_idle != NULL && e->first_idle->since_ms + e->options->idle_ms <= now_ms) {
		counter_inc(e->http->counts.timeouts);
		shutdown(e->first_idle->fd, SHUT_RDWR);
		idle_end(e, e->first_idle);
	}
	arm_idle(e);
}

static struct client *client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info->socket_context;
}

void endpoint_on_header(struct endpoint *e, struct MHD_Connection *connection)
{
	idle_end(e, client_of(connection));
}

/* ---- the duty cycle ---- */

void endpoint_run(struct endpoint *e)
{
	MHD_UNSIGNED_LONG_LONG wait_ms = 0;

	ASSERT(!e->running && e->daemon != NULL);
	e->running = true;
	e->run_wanted = false;
	for (int i = 0; i < ROUNDS; i++) {
		MHD_run(e->daemon);
		if (MHD_get_timeout(e->daemon, &wait_ms) != MHD_YES) {
			wait_ms = UINT64_MAX;
		}
		if (wait_ms != 0) {
			break;
		}
	}
	e->running = false;
	if (wait_ms == 0) {
		e->run_wanted = true;
	} else if (wait_ms == UINT64_MAX) {
		timer_cancel(&e->timer);
	} else {
		timer_arm(&e->timer, agent_now_ms(agent_of(e)) + wait_ms);
	}
	if (!mux_op_busy(&e->ready)) {
		mux_poll_fd(agent_of(e)->mux, &e->ready, e->epoll_fd, POLLIN);
	}
}

static void on_ready(struct mux_op *op, int result)
{
	struct endpoint *e = CONTAINER_OF(op, struct endpoint, ready);

	if (e->daemon != NULL) {
		endpoint_run(e);
	} else if (e->epoll_fd >= 0) {
		(void)result;
		mux_close(agent_of(e)->mux, e->epoll_fd);
		e->epoll_fd = -1;
	}
}

static void on_timer(struct timer *t)
{
	endpoint_run(CONTAINER_OF(t, struct endpoint, timer));
}

/* ---- connections ---- */

/* The daemon has taken a connection, or lets go of one, whose socket it closes then. */
static void on_connection(void *context, struct MHD_Connection *connection, void **own,
			  enum MHD_ConnectionNotificationCode what)
{
	struct endpoint *e = context;
	struct client *c = *own;

	(void)connection;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		c = check_memory(calloc(1, sizeof(*c)), "a connection");
		*own = c;
		c->accept = e->accepting;
		c->fd = c->accept->fd;
		e->accepting = NULL;
		e->connections++;
		counter_add(e->http->counts.connections_open, 1);
		idle_begin(e, c);
		return;
	}
	idle_end(e, c);
	CHECK_MAGIC(c->accept, ACCEPT_MAGIC);
	c->accept->fd = -1;
	e->connections--;
	counter_sub(e->http->counts.connections_open, 1);
	scheduler_close_accept(e->http->scheduler, c->accept);
	free(c);
}

void endpoint_serve(struct endpoint *e, struct accept *a)
{
	struct sockaddr_in6 peer = {
		.sin6_family = AF_INET6, .sin6_addr = a->peer, .sin6_port = htons(a->peer_port)};

	e->accepting = a;
	if (MHD_add_connection(e->daemon, a->fd, (struct sockaddr *)&peer, sizeof(peer)) !=
		    MHD_YES &&
	    e->accepting != NULL) {
		/* It has closed the socket, and told nobody. */
		a->fd = -1;
		scheduler_close_accept(e->http->scheduler, a);
	}
	e->accepting = NULL;
	endpoint_run(e);
}

/* ---- what the daemon tells ---- */

/* Requests that it refused without asking us. */
static void on_log(void *context, const char *format, va_list args)
{
	static const char refused[] = "Error processing request";
	struct endpoint *e = context;

	(void)args;
	if (strncmp(format, refused, sizeof(refused) - 1) == 0) {
		counter_inc(e->http->counts.malformed);
	}
}

static void *on_uri(void *context, const char *uri, struct MHD_Connection *connection)
{
	return request_create(context, connection, uri);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_bytes, void **own)
{
	(void)context;
	(void)connection;
	(void)url;
	(void)version;
	(void)upload;
	return request_go_on(*own, method, upload_bytes);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **own,
			 enum MHD_RequestTerminationCode how)
{
	struct endpoint *e = context;

	if (how == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED) {
		counter_inc(e->http->counts.timeouts);
	}
	if (*own != NULL) {
		request_destroy(*own);
		*own = NULL;
	}
	idle_end(e, client_of(connection));
	idle_begin(e, client_of(connection));
}

/* ---- life ---- */

int endpoint_open(struct endpoint *e, struct http *http, uint32_t index)
{
	const struct config *config = http->scheduler->config;
	const union MHD_DaemonInfo *info;

	e->http = http;
	e->config = config_hold(http->scheduler->config);
	e->index = index;
	e->options = config_http(config, index);
	e->epoll_fd = -1;
	mux_op_init(&e->ready, agent_of(e), on_ready);
	timer_init(&e->timer, agent_of(e), on_timer);
	timer_init(&e->idle_timer, agent_of(e), on_idle);
	e->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
			MHD_USE_ERROR_LOG,
		0, NULL, NULL, on_request, e, MHD_OPTION_EXTERNAL_LOGGER, on_log, e,
		MHD_OPTION_URI_LOG_CALLBACK, on_uri, e, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
		e, MHD_OPTION_NOTIFY_CONNECTION, on_connection, e, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)config_http_listen(config, index)->max_connections,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)e->options->header_bytes,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(e->options->idle_ms / 1000 + 1),
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
	if (e->daemon == NULL) {
		return -ENOMEM;
	}
	info = MHD_get_daemon_info(e->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	/* A descriptor of our own: the daemon closes its one when it ends, while the multiplexor
	 * may still know of it. */
	e->epoll_fd = info != NULL ? fcntl(info->epoll_fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (e->epoll_fd < 0) {
		MHD_stop_daemon(e->daemon);
		e->daemon = NULL;
		return -EMFILE;
	}
	mux_poll_fd(agent_of(e)->mux, &e->ready, e->epoll_fd, POLLIN);
	return 0;
}

bool endpoint_serves(const struct endpoint *e, const struct config *config, uint32_t index)
{
	return config_same_address(config_http_listen(e->config, e->index),
				   config_http_listen(config, index));
}

/* What the daemon was told when it was started. */
static bool same_daemon(const struct endpoint *e, const struct config *config, uint32_t index)
{
	const struct http_options *o = config_http(config, index);

	return o->idle_ms == e->options->idle_ms && o->header_bytes == e->options->header_bytes &&
	       config_http_listen(config, index)->max_connections ==
		       config_http_listen(e->config, e->index)->max_connections;
}

/* Who follows events would do so for ever. */
static void retire(struct endpoint *e)
{
	e->retired = true;
	for (struct request *r = e->requests; r != NULL; r = request_next(r)) {
		if (r->follows) {
			request_wake(r);
		}
	}
}

void endpoint_renew(struct endpoint *e)
{
	struct config *config = e->http->scheduler->config;
	int64_t index =
		listen_find(&http_listener, config, config_http_listen(e->config, e->index));

	if (e->retired) {
		return;
	}
	if (index < 0 || !same_daemon(e, config, (uint32_t)index)) {
		retire(e);
		return;
	}
	config_hold(config);
	config_release(e->config);
	e->config = config;
	e->index = (uint32_t)index;
	e->options = config_http(config, e->index);
}

void endpoint_stop(struct endpoint *e)
{
	struct MHD_Daemon *daemon = e->daemon;

	if (daemon == NULL) {
		return;
	}
	e->daemon = NULL;
	e->run_wanted = false;
	timer_cancel(&e->timer);
	/* It takes no suspended connections. */
	for (struct request *r = e->requests; r != NULL; r = request_next(r)) {
		request_wake(r);
	}
	MHD_stop_daemon(daemon);
	ASSERT(e->connections == 0 && e->requests == NULL && e->first_idle == NULL);
	timer_cancel(&e->idle_timer);
	mux_cancel(agent_of(e)->mux, &e->ready);
	if (!mux_op_busy(&e->ready)) {
		mux_close(agent_of(e)->mux, e->epoll_fd);
		e->epoll_fd = -1;
	}
}

bool endpoint_stopped(const struct endpoint *e)
{
	return e->daemon == NULL && e->epoll_fd < 0 && !mux_op_busy(&e->ready);
}
