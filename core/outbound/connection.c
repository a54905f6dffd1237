#include "core/outbound/connection_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/outbound/bind_address.h"
#include "core/outbound/connection_tls.h"
#include "core/outbound/lane_idle.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

static void on_received(struct stream *stream, const unsigned char *data, int result);
static void on_sent(struct stream *stream, int result);
static void connection_on_reply(struct connection *c);
static void on_timer(struct timer *t);

static bool sets_up(enum connection_state state)
{
	return state == CONNECTION_CONNECTING || state == CONNECTION_BANNER ||
	       state == CONNECTION_EHLO || state == CONNECTION_HELO ||
	       state == CONNECTION_STARTTLS || state == CONNECTION_SECURING;
}

/* The only place where the state changes, so that the lane's counts follow it. */
void connection_change_state(struct connection *c, enum connection_state state)
{
	c->lane->connecting_count += (uint32_t)sets_up(state) - (uint32_t)sets_up(c->state);
	if (c->state == CONNECTION_IDLE && state != CONNECTION_IDLE) {
		lane_remove_idle(c);
	} else if (c->state != CONNECTION_IDLE && state == CONNECTION_IDLE) {
		lane_add_idle(c);
	}
	c->state = state;
}

void connection_set_state(struct connection *c, enum connection_state state, uint64_t timeout_ms)
{
	connection_change_state(c, state);
	c->since_ms = agent_now_ms(c->dispatcher->self);
	timer_arm(&c->timer, c->since_ms + timeout_ms);
}

/* ---- closing ---- */

/* Runs as a task of its own: whoever closed the connection may still be looking at it. */
static void on_free(struct agent *self, void *object, uint64_t value)
{
	struct connection *c = object;
	struct dispatcher *x = c->dispatcher;

	(void)self;
	(void)value;
	CHECK_MAGIC(c, CONNECTION_MAGIC);
	stream_close(&c->stream);
	chain_release(&c->commands, &x->pools->buffers);
	chain_release(&c->sending, &x->pools->buffers);
	dispatch_on_closed(c);
	c->magic = 0;
	pool_put(&x->connections, c);
}

/* An attempt that ended while its body was being sent is told of now: until here the kernel may
 * have read the body, which is the delivery's. */
static void finish_close(struct connection *c)
{
	if (c->freed || stream_busy(&c->stream)) {
		return;
	}
	c->freed = true;
	if (c->delivery != NULL) {
		attempt_end(c);
	}
	agent_send(c->dispatcher->self, c->dispatcher->self, on_free, c, 0);
}

static bool body_under_way(const struct connection *c)
{
	return (c->state == CONNECTION_BODY || c->along) && stream_send_busy(&c->stream);
}

void connection_close(struct connection *c)
{
	if (c->state == CONNECTION_CLOSING) {
		return;
	}
	if (c->delivery != NULL && !body_under_way(c)) {
		attempt_end(c);
	}
	connection_change_state(c, CONNECTION_CLOSING);
	timer_cancel(&c->timer);
	stream_cancel(&c->stream);
	finish_close(c);
}

/* ---- sending ---- */

/* What was gathered goes out, now or when the last piece has gone. */
void connection_send(struct connection *c)
{
	struct chain_buffer *cursor = NULL;
	unsigned count;

	if (stream_send_busy(&c->stream) || c->commands.len == 0) {
		return;
	}
	c->sending = c->commands;
	c->commands = CHAIN_EMPTY;
	count = chain_iov(&c->sending, &cursor, c->iov, CONNECTION_IOV);
	ASSERT(count > 0 && cursor == NULL);
	if (c->along && !c->chunk_begun) {
		count = transaction_chunk(c, count);
	}
	stream_send(&c->stream, c->iov, count);
}

/* Says these words, the last of which is NULL, and ends the line. */
void connection_command(struct connection *c, const char *word, ...)
{
	struct pool *buffers = &c->dispatcher->pools->buffers;
	va_list words;

	va_start(words, word);
	for (; word != NULL; word = va_arg(words, const char *)) {
		chain_append(&c->commands, buffers, word, strlen(word));
	}
	va_end(words);
	chain_append(&c->commands, buffers, "\r\n", 2);
}

/* Nothing was answered yet in this transaction, and there was one before it. */
static bool used_before(const struct connection *c)
{
	return c->transactions > 1 && c->step == 0 && c->state == CONNECTION_ENVELOPE;
}

/* The host is to blame, unless it only failed to do what it need not. */
static void setup_failed(struct connection *c)
{
	if (!connection_tls_forgive(c)) {
		dispatch_on_setup_failed(c);
	}
}

/* The connection is of no more use: it broke, timed out, or the peer makes no sense. */
void connection_fail(struct connection *c, const char *enhanced, const char *format, ...)
{
	char text[ATTEMPT_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	stream_note(&c->stream, "%s", text);
	/* What decided for all recipients stands, whatever becomes of the connection then. */
	if (!c->mail_refused) {
		attempt_text(c, 451, enhanced, text);
	}
	if (c->state == CONNECTION_LOADING) {
		/* The content is on its way to the delivery: connection_begin() ends this. */
		c->broken = true;
		return;
	}
	if (sets_up(c->state)) {
		setup_failed(c);
	} else if (c->delivery != NULL) {
		/* A peer may close what has been idle just when we use it again. */
		c->attempt.not_tried = used_before(c) && c->reply.text_len == 0;
	}
	connection_close(c);
}

enum smtp_stage connection_stage(const struct connection *c)
{
	if (c->mail_refused) {
		return SMTP_STAGE_DURING_MAIL;
	}
	switch (c->state) {
	case CONNECTION_CONNECTING:
		return SMTP_STAGE_NOT_CONNECTED;
	case CONNECTION_BANNER:
		return SMTP_STAGE_BANNER;
	case CONNECTION_EHLO:
	case CONNECTION_HELO:
		return SMTP_STAGE_DURING_EHLO;
	case CONNECTION_STARTTLS:
		return SMTP_STAGE_DURING_STARTTLS;
	case CONNECTION_SECURING:
		return SMTP_STAGE_TLS_HANDSHAKE;
	case CONNECTION_ENVELOPE:
		return c->step == 0                ? SMTP_STAGE_DURING_MAIL
		       : c->step <= c->batch_count ? SMTP_STAGE_DURING_RCPT
						   : SMTP_STAGE_DURING_DATA;
	case CONNECTION_BODY:
		return c->body_sent ? SMTP_STAGE_CONFIRMATION : SMTP_STAGE_BODY;
	case CONNECTION_RSET:
		return SMTP_STAGE_DURING_RSET;
	default:
		return SMTP_STAGE_IDLE;
	}
}

/* A peer that talks out of turn makes no sense. */
void connection_unasked(struct connection *c)
{
	c->attempt.stage = connection_stage(c);
	connection_fail(c, "4.5.0", "451 4.5.0 [internal] a reply that nobody asked for");
}

/* ---- setting up ---- */

void connection_setup_say(struct connection *c, enum connection_state state, const char *verb,
			  const char *argument)
{
	connection_set_state(c, state, connection_options(c)->ehlo_timeout_ms);
	connection_command(c, verb, argument[0] != '\0' ? " " : "", argument, NULL);
	connection_send(c);
}

void connection_setup_wait(struct connection *c, enum connection_state state)
{
	connection_set_state(c, state, connection_options(c)->ehlo_timeout_ms);
}

void connection_setup_fail(struct connection *c, enum smtp_stage stage, const char *enhanced,
			   const char *text)
{
	c->attempt.stage = stage;
	connection_fail(c, enhanced, "%s", text);
}

static void setup_refused(struct connection *c)
{
	attempt_reply(c);
	c->attempt.stage = connection_stage(c);
	setup_failed(c);
	connection_close(c);
}

static void on_setup_reply(struct connection *c)
{
	unsigned class = smtp_reply_class(&c->reply);

	if (c->state == CONNECTION_BANNER && class == 2) {
		connection_set_state(c, CONNECTION_EHLO, connection_options(c)->ehlo_timeout_ms);
		connection_command(c, "EHLO ", connection_options(c)->ehlo_hostname, NULL);
		connection_send(c);
	} else if (c->state == CONNECTION_EHLO && class == 5) {
		/* RFC 5321 section 3.2: an old server. */
		connection_set_state(c, CONNECTION_HELO, connection_options(c)->ehlo_timeout_ms);
		connection_command(c, "HELO ", connection_options(c)->ehlo_hostname, NULL);
		connection_send(c);
	} else if (class == 2) {
		if (c->state == CONNECTION_EHLO) {
			c->extensions = c->reply.extensions;
			c->size_max = c->reply.size_max;
		}
		if (connection_tls_begin(c)) {
			return;
		}
		connection_set_state(c, CONNECTION_IDLE, connection_options(c)->idle_timeout_ms);
		dispatch_on_ready(c);
	} else {
		setup_refused(c);
	}
}

static void on_connected(struct connection *c, int result)
{
	int on = 1;

	if (result < 0) {
		c->attempt.stage = SMTP_STAGE_NOT_CONNECTED;
		connection_fail(c, "4.4.1", "451 4.4.1 [internal] cannot connect to %s: %s",
				c->remote_ip, strerror(-result));
		return;
	}
	stream_note(&c->stream, "connected");
	setsockopt(c->stream.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	/* The banner is part of connecting: connect_timeout runs on. */
	connection_change_state(c, CONNECTION_BANNER);
	c->since_ms = agent_now_ms(c->dispatcher->self);
	stream_recv(&c->stream);
}

static void describe_address(struct connection *c)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&c->address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&c->address;

	if (c->address.ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, c->remote_ip, sizeof c->remote_ip);
	} else {
		inet_ntop(AF_INET6, &v6->sin6_addr, c->remote_ip, sizeof c->remote_ip);
	}
}

struct connection *connection_open(struct dispatcher *x, struct lane *l, struct host *host,
				   int *error)
{
	int fd = socket(host->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct connection *c;

	if (fd < 0) {
		*error = -errno;
		return NULL;
	}
	*error = bind_address_apply(l->options, fd, host->address.any.sa_family);
	if (*error != 0) {
		close(fd);
		return NULL;
	}
	c = pool_get(&x->connections);
	memset(c, 0, offsetof(struct connection, reply));
	c->magic = CONNECTION_MAGIC;
	OWNER_CLAIM(c);
	c->dispatcher = x;
	c->lane = l;
	c->options = l->options;
	memcpy(&c->address, &host->address, host->address_len);
	c->address_len = host->address_len;
	text_copy(c->host_name, sizeof c->host_name, host->name);
	c->dane = host->dane != NULL;
	c->sts = host->sts;
	c->plain = host->plain_owed;
	host->plain_owed = false;
	describe_address(c);
	bind_address_format(c->options, c->address.ss_family, c->local_ip);
	attempt_reset(c);
	smtp_reply_reset(&c->reply);
	timer_init(&c->timer, x->self, on_timer);
	stream_init(&c->stream, x->self, on_received, on_sent);
	stream_open(&c->stream, fd);
	/* The state of a connection that does not count yet is CLOSING. */
	c->state = CONNECTION_CLOSING;
	connection_set_state(c, CONNECTION_CONNECTING, connection_options(c)->connect_timeout_ms);
	stream_connect(&c->stream, &c->address, c->address_len);
	return c;
}

/* ---- events ---- */

static const char *waited_for(const struct connection *c)
{
	switch (connection_stage(c)) {
	case SMTP_STAGE_NOT_CONNECTED:
		return "connection";
	case SMTP_STAGE_BANNER:
		return "banner";
	case SMTP_STAGE_DURING_EHLO:
		return "EHLO response";
	case SMTP_STAGE_DURING_STARTTLS:
		return "STARTTLS response";
	case SMTP_STAGE_TLS_HANDSHAKE:
		return "end of the TLS handshake";
	case SMTP_STAGE_DURING_MAIL:
		return "MAIL FROM response";
	case SMTP_STAGE_DURING_RCPT:
		return "RCPT TO response";
	case SMTP_STAGE_DURING_DATA:
		return "DATA response";
	case SMTP_STAGE_BODY:
		return "progress in sending the body";
	case SMTP_STAGE_CONFIRMATION:
		return "response to the body";
	default:
		return "response";
	}
}

static void on_timer(struct timer *t)
{
	struct connection *c = CONTAINER_OF(t, struct connection, timer);

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	if (c->state == CONNECTION_IDLE) {
		connection_quit(c);
		return;
	}
	c->attempt.stage = connection_stage(c);
	connection_fail(c, "4.4.2", "451 4.4.2 [internal] timed out: no %s", waited_for(c));
}

void connection_quit(struct connection *c)
{
	ASSERT(c->delivery == NULL);
	if (c->state == CONNECTION_CLOSING || c->state == CONNECTION_QUIT) {
		return;
	}
	connection_set_state(c, CONNECTION_QUIT, connection_options(c)->rset_timeout_ms);
	connection_command(c, "QUIT", NULL);
	connection_send(c);
}

void connection_drop(struct connection *c)
{
	ASSERT(c->delivery == NULL);
	connection_close(c);
}

void connection_abort(struct connection *c, const char *text)
{
	if (c->state != CONNECTION_CLOSING && !c->broken) {
		c->attempt.stage = connection_stage(c);
		connection_fail(c, "4.3.2", "%s", text);
	}
}

/* A body that came along may be answered before we hear that it is out; until then the kernel may
 * read it. */
static bool reply_is_early(const struct connection *c)
{
	return c->along && c->state == CONNECTION_BODY && stream_send_busy(&c->stream) &&
	       c->unread == 0;
}

static void go_on_reading(struct connection *c)
{
	if (c->state == CONNECTION_CLOSING) {
		finish_close(c);
	} else if (!c->broken && !c->reply_held && c->state != CONNECTION_SECURING) {
		stream_recv(&c->stream);
	}
}

static void take_held_reply(struct connection *c)
{
	c->reply_held = false;
	connection_on_reply(c);
	smtp_reply_reset(&c->reply);
	go_on_reading(c);
}

static void on_sent(struct stream *stream, int result)
{
	struct connection *c = CONTAINER_OF(stream, struct connection, stream);

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	chain_release(&c->sending, &c->dispatcher->pools->buffers);
	if (c->state == CONNECTION_CLOSING) {
		finish_close(c);
	} else if (c->state == CONNECTION_CONNECTING) {
		on_connected(c, result);
	} else if (result < 0) {
		/* The peer may have said why before it closed: what it said is read first. */
		c->send_failed = true;
		if (c->reply_held) {
			take_held_reply(c);
		} else if (!stream_recv_busy(&c->stream)) {
			c->attempt.stage = connection_stage(c);
			connection_fail(c, "4.4.2", "451 4.4.2 [internal] cannot send: %s",
					strerror(-result));
		}
	} else if (c->commands.len != 0) {
		connection_send(c);
	} else if (c->state == CONNECTION_SECURING) {
		connection_tls_handshake(c);
	} else if (c->state == CONNECTION_ENVELOPE && c->steps_sent <= transaction_last_step(c) &&
		   ((c->extensions & SMTP_EXTENSION_PIPELINING) || c->steps_sent == c->step)) {
		transaction_send_steps(c);
	} else if ((c->state == CONNECTION_BODY || c->along) && !c->body_sent) {
		timer_arm(&c->timer, agent_now_ms(c->dispatcher->self) +
					     connection_carried_options(c)->body_timeout_ms);
		transaction_send_body(c);
	} else if (c->reply_held) {
		take_held_reply(c);
	}
}

static void on_disconnect(struct connection *c, int result)
{
	if (c->state == CONNECTION_QUIT || c->state == CONNECTION_IDLE) {
		connection_close(c);
		return;
	}
	c->attempt.stage = connection_stage(c);
	if (result == 0 || result == -ECONNABORTED) {
		connection_fail(c, "4.4.2",
				"451 4.4.2 [internal] connection closed by remote host");
	} else {
		connection_fail(c, "4.4.2", "451 4.4.2 [internal] connection lost: %s",
				strerror(-result));
	}
}

/* 421 at any time: the peer closes (RFC 5321 section 3.8). */
static void on_service_closing(struct connection *c)
{
	if (sets_up(c->state)) {
		setup_refused(c);
		return;
	}
	if (c->delivery != NULL) {
		c->attempt.stage = connection_stage(c);
		if (!c->mail_refused) {
			attempt_reply(c);
		}
		/* Many peers say so when a connection has carried enough: that is not the
		 * message's. */
		c->attempt.not_tried = used_before(c);
		if (c->state == CONNECTION_LOADING) {
			/* As in connection_fail(). */
			c->broken = true;
			return;
		}
	}
	connection_close(c);
}

/*
 * One complete reply: what it means depends on what was said last. This is the whole conversation
 * on one page.
 */
static void connection_on_reply(struct connection *c)
{
	if (c->reply.code == 421) {
		on_service_closing(c);
		return;
	}
	switch (c->state) {
	case CONNECTION_BANNER:
	case CONNECTION_EHLO:
	case CONNECTION_HELO:
		on_setup_reply(c);
		break;
	case CONNECTION_STARTTLS:
		connection_tls_on_reply(c);
		break;
	case CONNECTION_ENVELOPE:
		transaction_on_envelope_reply(c);
		break;
	case CONNECTION_BODY:
		transaction_on_body_reply(c);
		break;
	case CONNECTION_RSET:
		if (smtp_reply_class(&c->reply) == 2) {
			connection_set_state(c, CONNECTION_IDLE,
					     connection_options(c)->idle_timeout_ms);
			dispatch_on_ready(c);
		} else {
			connection_close(c);
		}
		break;
	case CONNECTION_CONNECTING:
	case CONNECTION_SECURING:
	case CONNECTION_IDLE:
	case CONNECTION_LOADING:
	case CONNECTION_QUIT:
	case CONNECTION_CLOSING:
		/* Nothing was asked. */
		if (c->delivery != NULL) {
			connection_unasked(c);
		} else {
			connection_close(c);
		}
		break;
	}
}

static void on_received(struct stream *stream, const unsigned char *data, int result)
{
	struct connection *c = CONTAINER_OF(stream, struct connection, stream);
	size_t len = result > 0 ? (size_t)result : 0;
	size_t used;

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	if (c->state != CONNECTION_CLOSING && result <= 0) {
		on_disconnect(c, result);
		return;
	}
	while (len > 0 && c->state != CONNECTION_CLOSING && !c->broken && !c->reply_held) {
		int rc = smtp_reply_feed(&c->reply, data, len, &used);

		data += used;
		len -= used;
		if (rc < 0) {
			c->attempt.stage = connection_stage(c);
			connection_fail(c, "4.5.0",
					"451 4.5.0 [internal] the peer's reply is %s: %.200s",
					rc == -EMSGSIZE ? "too long" : "none", c->reply.text);
		} else if (rc > 0) {
			c->unread = len;
			c->reply_held = reply_is_early(c);
			if (!c->reply_held) {
				connection_on_reply(c);
				smtp_reply_reset(&c->reply);
			}
		}
	}
	go_on_reading(c);
}
