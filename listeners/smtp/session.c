#include "listeners/smtp/session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "listeners/smtp/auth.h"
#include "listeners/smtp/dialogue.h"
#include "listeners/smtp/handover.h"
#include "listeners/smtp/policy.h"
#include "listeners/smtp/proxy_header.h"
#include "listeners/smtp/relay.h"
#include "listeners/smtp/session_log.h"
#include "listeners/smtp/session_trace.h"
#include "listeners/smtp/transaction.h"

#define REPLY_MAX 512
/* A command line with its CR LF. */
#define LINE_MAX_BYTES (SMTP_COMMAND_LINE_MAX + 2)
_Static_assert(LINE_MAX_BYTES <= CHAIN_BUFFER_SIZE, "a line in progress takes one buffer");

static void on_recv(struct stream *stream, const unsigned char *data, int result);
static void on_sent(struct stream *stream, int result);
static void on_deadline(struct timer *t);

static struct scheduler *scheduler_of(const struct smtp_session *ss)
{
	return ss->listener->scheduler;
}

static struct pool *buffers_of(const struct smtp_session *ss)
{
	return &scheduler_of(ss)->pools.buffers;
}

static uint64_t now_ms(const struct smtp_session *ss)
{
	return agent_now_ms(&scheduler_of(ss)->base);
}

/* ---- replies ---- */

void smtp_session_say(struct smtp_session *ss, const char *lines)
{
	chain_append(&ss->output, buffers_of(ss), lines, strlen(lines));
}

void smtp_session_reply(struct smtp_session *ss, unsigned code, const char *status,
			const char *format, ...)
{
	char text[REPLY_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	chain_printf(&ss->output, buffers_of(ss), "%u %s%s%s\r\n", code,
		     status != NULL ? status : "", status != NULL ? " " : "", text);
}

static uint64_t output_pending(const struct smtp_session *ss)
{
	return ss->output.len + ss->sending.len;
}

/* ---- deadlines ---- */

/* A transaction may go on after session_timeout, but not for as long again. */
static uint64_t session_end_ms(const struct smtp_session *ss)
{
	uint64_t timeout_ms = ss->options->session_timeout_ms;

	return ss->began_ms + timeout_ms + (ss->transaction != NULL ? timeout_ms : 0);
}

/* The client did something, or was not to do anything. */
static void touch(struct smtp_session *ss)
{
	uint64_t due_ms = now_ms(ss) + ss->options->idle_timeout_ms;
	uint64_t end_ms = session_end_ms(ss);

	timer_arm(&ss->deadline, due_ms < end_ms ? due_ms : end_ms);
}

void smtp_session_set_client(struct smtp_session *ss, const struct in6_addr *peer, uint16_t port)
{
	bool ipv4 = IN6_IS_ADDR_V4MAPPED(peer);

	ss->peer = *peer;
	ss->peer_port = port;
	inet_ntop(ipv4 ? AF_INET : AF_INET6, ipv4 ? &peer->s6_addr[12] : peer->s6_addr,
		  ss->peer_text, sizeof(ss->peer_text));
	scheduler_move_accept(ss->listener->scheduler, ss->accept, peer);
	ss->options = config_smtp(ss->accept->config, ss->accept->listen, peer);
	ss->relay_host = relay_host_allowed(ss->options, peer);
	/* The certificate was that of who connected. */
	ss->verified = false;
}

/* By options of his own, whoever the client is said to be. */
static bool may_tell(const struct smtp_session *ss)
{
	const struct accept *a = ss->accept;

	return relay_xclient_allowed(config_smtp(a->config, a->listen, &ss->teller), &ss->teller);
}

static char *copy_name(const char *name)
{
	return name != NULL ? check_memory(strdup(name), "the name of a user") : NULL;
}

void smtp_session_set_user(struct smtp_session *ss, const char *user, const char *binding)
{
	free(ss->user);
	free(ss->binding);
	ss->user = copy_name(user);
	ss->auth_method = NULL;
	ss->binding = copy_name(binding);
}

/* ---- generations ---- */

void smtp_session_renew(struct smtp_session *ss)
{
	struct accept *a = ss->accept;
	struct config *config = scheduler_of(ss)->config;
	uint32_t listen;

	if (config == a->config || !smtp_session_is_between(ss) ||
	    config_number(config) < config_number(a->config) ||
	    !config_smtp_listen_find(config, config_smtp_listen(a->config, a->listen), &listen)) {
		return;
	}
	config_hold(config);
	config_release(a->config);
	a->config = config;
	a->listen = listen;
	ss->options = config_smtp(config, listen, &ss->peer);
	ss->listen_name = config_smtp_listen(config, listen)->name;
	ss->relay_host = relay_host_allowed(ss->options, &ss->peer) ||
			 (ss->verified && ss->options->tls_verified_peer_can_relay);
	ss->xclient = may_tell(ss);
}

/* ---- the end ---- */

static void begin_close(struct smtp_session *ss)
{
	ss->state = SMTP_SESSION_CLOSING;
	smtp_auth_abandon(ss);
	smtp_policy_abandon(ss);
	smtp_transaction_abort(ss);
	chain_release(&ss->held, buffers_of(ss));
	session_list_remove(&ss->waiting);
	timer_arm(&ss->deadline, now_ms(ss) + SMTP_CLOSE_GRACE_MS);
}

void smtp_session_close(struct smtp_session *ss, bool linger)
{
	ss->linger = linger;
	begin_close(ss);
}

void smtp_session_dismiss(struct smtp_session *ss, const char *status, const char *text)
{
	smtp_session_reply(ss, 421, status, "%s", text);
	smtp_session_close(ss, true);
}

/* No more words: the connection is cut as soon as nothing uses it. */
static void kill_session(struct smtp_session *ss)
{
	ss->state = SMTP_SESSION_DEAD;
	smtp_auth_abandon(ss);
	smtp_policy_abandon(ss);
	if (!ss->storing) {
		smtp_transaction_abort(ss);
	}
	session_list_remove(&ss->waiting);
	timer_cancel(&ss->deadline);
	stream_cancel(&ss->stream);
}

/* The client is gone, or may as well be. */
static void lose(struct smtp_session *ss)
{
	if (ss->state == SMTP_SESSION_DEAD) {
		return;
	}
	if (ss->transaction != NULL && !ss->storing) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_LOST);
	}
	kill_session(ss);
}

static void line_release(struct smtp_session *ss)
{
	pool_put(buffers_of(ss), ss->line);
	ss->line = NULL;
	ss->line_len = 0;
}

static void free_session(struct smtp_session *ss)
{
	struct smtp_listener *l = ss->listener;
	struct accept *a = ss->accept;

	ASSERT(ss->transaction == NULL && ss->auth == NULL && !timer_armed(&ss->deadline));
	line_release(ss);
	smtp_policy_free(ss);
	smtp_session_set_user(ss, NULL, NULL);
	chain_release(&ss->held, buffers_of(ss));
	chain_release(&ss->output, buffers_of(ss));
	chain_release(&ss->sending, buffers_of(ss));
	session_list_remove(&ss->all);
	stream_release(&ss->stream);
	l->session_count--;
	counter_sub(l->counts.of[SMTP_COUNT_SESSIONS_OPEN], 1);
	ss->magic = 0;
	OWNER_RELEASE(ss);
	pool_put(&l->session_pool, ss);
	scheduler_close_accept(l->scheduler, a);
}

/* The last reply is out. */
static void finish_close(struct smtp_session *ss)
{
	if (!ss->linger || ss->eof) {
		kill_session(ss);
		return;
	}
	stream_end(&ss->stream);
	ss->state = SMTP_SESSION_LINGERING;
	timer_arm(&ss->deadline, now_ms(ss) + SMTP_LINGER_MS);
}

/* ---- input ---- */

static bool takes_input(const struct smtp_session *ss)
{
	return (ss->state == SMTP_SESSION_COMMANDS || ss->state == SMTP_SESSION_DATA ||
		ss->state == SMTP_SESSION_CHUNK) &&
	       output_pending(ss) < SMTP_OUTPUT_MAX;
}

/* A line of `len` bytes, or the start of one that is longer than LINE_MAX_BYTES, with its LF. */
static void take_line(struct smtp_session *ss, const char *line, size_t len)
{
	size_t max = ss->options->max_line_bytes;

	smtp_count(smtp_session_counts(ss), SMTP_COUNT_COMMANDS);
	if (len > max || len > LINE_MAX_BYTES) {
		smtp_dialogue_long_line(ss, line, len);
	} else if (len < 2 || line[len - 2] != '\r') {
		smtp_dialogue_bare_lf(ss, line, len);
	} else {
		smtp_dialogue_line(ss, line, len - 2);
	}
}

/* Adds to the line in progress, of which no more is kept than may be looked at. */
static void extend_line(struct smtp_session *ss, const char *data, size_t len)
{
	if (ss->line == NULL) {
		ss->line = pool_get(buffers_of(ss));
	}
	if (ss->line_len < LINE_MAX_BYTES) {
		size_t room = LINE_MAX_BYTES - ss->line_len;

		memcpy(ss->line + ss->line_len, data, len < room ? len : room);
	}
	ss->line_len += len;
}

/* Takes input up to the end of a line, and the line when it is complete. Returns the bytes used. */
static size_t feed_line(struct smtp_session *ss, const char *data, size_t len)
{
	const char *lf = memchr(data, '\n', len);
	size_t used = lf != NULL ? (size_t)(lf - data) + 1 : len;

	ss->unread -= used;
	if (ss->line == NULL && lf != NULL) {
		take_line(ss, data, used);
		return used;
	}
	extend_line(ss, data, used);
	if (lf != NULL) {
		take_line(ss, ss->line, ss->line_len);
		line_release(ss);
	}
	return used;
}

static size_t feed_data(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	size_t used = ss->state == SMTP_SESSION_DATA ? smtp_transaction_feed(ss, data, len)
						     : smtp_chunk_feed(ss, data, len);

	ss->unread -= used;
	return used;
}

/* The header of a proxy, then nothing until the greeting. */
static void feed_proxy(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	struct proxy_header h;
	size_t before = ss->line_len;
	int used;

	extend_line(ss, (const char *)data, len);
	used = proxy_header_parse((const unsigned char *)ss->line,
				  ss->line_len < LINE_MAX_BYTES ? ss->line_len : LINE_MAX_BYTES,
				  &h);
	if (used == 0) {
		return;
	}
	line_release(ss);
	if (used < 0) {
		smtp_dialogue_bad_proxy(ss);
		return;
	}
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_PROXY);
	if (h.has_client) {
		smtp_session_set_client(ss, &h.client, h.client_port);
		ss->teller = h.client;
		ss->xclient = may_tell(ss);
	}
	smtp_session_offer_told(ss, "PROXY");
	ss->state = SMTP_SESSION_GREETING;
	session_list_add(&ss->listener->arrivals, &ss->waiting);
	if ((size_t)used < before + len) {
		smtp_dialogue_early_talker(ss);
	}
}

/* Works through input; what cannot be looked at now is held back. */
static void consume(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	while (len > 0 && takes_input(ss)) {
		size_t used = ss->state == SMTP_SESSION_COMMANDS
				      ? feed_line(ss, (const char *)data, len)
				      : feed_data(ss, data, len);

		ASSERT(used > 0 && used <= len);
		data += used;
		len -= used;
	}
	if (len == 0 || ss->state == SMTP_SESSION_CLOSING) {
		return;
	}
	if (ss->state != SMTP_SESSION_STORING && ss->state != SMTP_SESSION_SECURING &&
	    ss->state != SMTP_SESSION_AUTH && ss->state != SMTP_SESSION_POLICY) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_OUTPUT_BLOCKED);
	}
	chain_append(&ss->held, buffers_of(ss), data, len);
}

void smtp_session_resume(struct smtp_session *ss)
{
	struct chain held = ss->held;

	if (held.len == 0 || !takes_input(ss) || smtp_handover_due(ss)) {
		return;
	}
	ss->held = CHAIN_EMPTY;
	ss->unread = held.len;
	for (struct chain_buffer *b = held.head; b != NULL; b = b->next) {
		consume(ss, b->data, b->len);
	}
	chain_release(&held, buffers_of(ss));
}

/* ---- TLS ---- */

/* Nothing can be said any more, in plain text or in TLS. */
static void handshake_failed(struct smtp_session *ss, const char *why)
{
	char text[TLS_WHY + 32];
	const struct smtp_refusal refusal = {454, "4.7.0", text};

	snprintf(text, sizeof(text), "TLS handshake failed: %s", why);
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_TLS_FAILED);
	smtp_log_rejection(ss, SMTP_STAGE_TLS_HANDSHAKE, &refusal, NULL, NULL);
	kill_session(ss);
}

static void count_handshake(struct smtp_session *ss, const struct tls_agreed *agreed)
{
	struct smtp_counts *counts = smtp_session_counts(ss);

	smtp_count(counts,
		   strcmp(agreed->version, "TLSv1.3") == 0 ? SMTP_COUNT_TLS_13 : SMTP_COUNT_TLS_12);
	if (agreed->resumed) {
		smtp_count(counts, SMTP_COUNT_TLS_RESUMED);
	}
}

/* RFC 3207 section 4.2: all that was learned before is forgotten. With TLS from the start, the
 * banner is still to come, as everywhere. */
static void on_secured(struct stream *stream, int result)
{
	struct smtp_session *ss = CONTAINER_OF(stream, struct smtp_session, stream);
	struct tls_agreed agreed;

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	if (result != 0) {
		handshake_failed(ss, stream_why(stream));
		smtp_session_settle(ss);
		return;
	}
	agreed = stream_agreed(stream);
	count_handshake(ss, &agreed);
	ss->secure = true;
	ss->has_helo = false;
	ss->esmtp = false;
	ss->verified = agreed.verified;
	ss->relay_host |= agreed.verified && ss->options->tls_verified_peer_can_relay;
	touch(ss);
	if (ss->options->use_ssl) {
		ss->state = SMTP_SESSION_GREETING;
		session_list_add(&ss->listener->arrivals, &ss->waiting);
	} else {
		ss->state = SMTP_SESSION_COMMANDS;
		smtp_session_resume(ss);
	}
	smtp_session_settle(ss);
}

/* Once 220 has gone, and no sooner. */
static void begin_handshake(struct smtp_session *ss)
{
	const struct tls_wish wish = {.context = ss->options->tls};

	if (stream_is_secure(&ss->stream) || stream_busy(&ss->stream)) {
		return;
	}
	if (ss->options->starttls_injection == CONFIG_INJECTION_IGNORE) {
		chain_release(&ss->held, buffers_of(ss));
	}
	stream_secure(&ss->stream, &wish, on_secured);
}

void smtp_session_secure(struct smtp_session *ss)
{
	smtp_transaction_abort(ss);
	ss->state = SMTP_SESSION_SECURING;
}

/* ---- what every event ends with ---- */

/* The client has closed its side and all that it said was looked at. */
static bool heard_out(const struct smtp_session *ss)
{
	return ss->eof && ss->held.len == 0 &&
	       (ss->state == SMTP_SESSION_PROXY || ss->state == SMTP_SESSION_GREETING ||
		ss->state == SMTP_SESSION_COMMANDS || ss->state == SMTP_SESSION_DATA ||
		ss->state == SMTP_SESSION_CHUNK);
}

static void flush(struct smtp_session *ss)
{
	unsigned count;

	if (stream_send_busy(&ss->stream)) {
		return;
	}
	if (ss->sending.len == 0) {
		ss->sending = ss->output;
		ss->output = CHAIN_EMPTY;
		ss->send_next = NULL;
	}
	if (ss->sending.len > 0) {
		count = chain_iov(&ss->sending, &ss->send_next, ss->iov, SMTP_SESSION_IOV);
		if (ss->state == SMTP_SESSION_CLOSING && ss->send_next == NULL) {
			stream_send_last(&ss->stream, ss->iov, count);
		} else {
			stream_send(&ss->stream, ss->iov, count);
		}
	}
}

static bool wants_to_read(const struct smtp_session *ss)
{
	if (ss->eof || stream_recv_busy(&ss->stream)) {
		return false;
	}
	return ss->state == SMTP_SESSION_PROXY || ss->state == SMTP_SESSION_GREETING ||
	       ss->state == SMTP_SESSION_LINGERING || (takes_input(ss) && ss->held.len == 0);
}

static void read_on(struct smtp_session *ss)
{
	struct smtp_listener *l = ss->listener;

	if (!wants_to_read(ss)) {
		return;
	}
	if (takes_input(ss) && smtp_listener_pressure(l)) {
		if (!session_linked(&ss->waiting)) {
			smtp_count(&l->counts, SMTP_COUNT_PAUSED);
			session_list_add(&l->paused, &ss->waiting);
		}
		return;
	}
	if (takes_input(ss)) {
		session_list_remove(&ss->waiting);
	}
	stream_recv(&ss->stream);
}

void smtp_session_settle(struct smtp_session *ss)
{
	if (ss->state == SMTP_SESSION_COMMANDS && ss->accept->config != scheduler_of(ss)->config) {
		smtp_session_renew(ss);
	}
	if (heard_out(ss)) {
		if (ss->transaction != NULL) {
			smtp_count(smtp_session_counts(ss), SMTP_COUNT_LOST);
		}
		smtp_session_close(ss, false);
	}
	if (ss->state != SMTP_SESSION_DEAD) {
		flush(ss);
	}
	if (ss->state == SMTP_SESSION_CLOSING && !stream_send_busy(&ss->stream)) {
		finish_close(ss);
	}
	if (ss->state == SMTP_SESSION_SECURING) {
		begin_handshake(ss);
	}
	if (smtp_handover_due(ss)) {
		smtp_handover_try(ss);
	} else if (ss->state != SMTP_SESSION_DEAD) {
		read_on(ss);
	} else if (!stream_busy(&ss->stream) && !ss->storing && ss->auth == NULL) {
		free_session(ss);
	}
}

/* ---- events ---- */

static void on_input(struct smtp_session *ss, const unsigned char *data, size_t len)
{
	switch (ss->state) {
	case SMTP_SESSION_PROXY:
		feed_proxy(ss, data, len);
		break;
	case SMTP_SESSION_GREETING:
		smtp_dialogue_early_talker(ss);
		break;
	case SMTP_SESSION_COMMANDS:
	case SMTP_SESSION_DATA:
	case SMTP_SESSION_CHUNK:
	case SMTP_SESSION_STORING:
	case SMTP_SESSION_AUTH:
	case SMTP_SESSION_POLICY:
		touch(ss);
		ss->unread = len;
		consume(ss, data, len);
		break;
	case SMTP_SESSION_LINGERING:
		/* Who only sends does not read either. */
		ss->thrown_away += len;
		if (ss->thrown_away > SMTP_LINGER_BYTES) {
			kill_session(ss);
		}
		break;
	case SMTP_SESSION_SECURING:
	case SMTP_SESSION_CLOSING:
	case SMTP_SESSION_DEAD:
		break;
	}
}

static void on_end_of_input(struct smtp_session *ss)
{
	ss->eof = true;
	if (ss->state == SMTP_SESSION_LINGERING) {
		kill_session(ss);
	}
}

static void on_recv(struct stream *stream, const unsigned char *data, int result)
{
	struct smtp_session *ss = CONTAINER_OF(stream, struct smtp_session, stream);

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	if (result > 0) {
		on_input(ss, data, (size_t)result);
	} else if (result == 0 || result == -ECONNABORTED) {
		/* SMTP itself says where a message ends: an end without close_notify cuts none. */
		on_end_of_input(ss);
	} else if (result != -ECANCELED) {
		/* Otherwise nothing came before the receive was taken back. */
		lose(ss);
	}
	smtp_session_settle(ss);
}

static void on_sent(struct stream *stream, int result)
{
	struct smtp_session *ss = CONTAINER_OF(stream, struct smtp_session, stream);

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	if (result < 0) {
		lose(ss);
	} else {
		if (ss->send_next == NULL) {
			chain_release(&ss->sending, buffers_of(ss));
		}
		if (takes_input(ss)) {
			touch(ss);
			smtp_session_resume(ss);
		}
	}
	smtp_session_settle(ss);
}

static void time_out(struct smtp_session *ss)
{
	static const struct smtp_refusal idle = {421, "4.4.2", "Idle for too long, closing"};
	static const struct smtp_refusal session = {421, "4.4.2", "Session too long, closing"};
	bool over = now_ms(ss) >= session_end_ms(ss);
	const struct smtp_refusal *why = over ? &session : &idle;

	smtp_count(smtp_session_counts(ss),
		   over ? SMTP_COUNT_TIMEOUT_SESSION : SMTP_COUNT_TIMEOUT_IDLE);
	if (ss->state == SMTP_SESSION_DATA || ss->state == SMTP_SESSION_CHUNK) {
		smtp_log_rejection(ss, SMTP_STAGE_BODY, why, NULL, NULL);
	}
	smtp_session_dismiss(ss, why->status, why->text);
}

static void on_deadline(struct timer *t)
{
	struct smtp_session *ss = CONTAINER_OF(t, struct smtp_session, deadline);

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	switch (ss->state) {
	case SMTP_SESSION_PROXY:
	case SMTP_SESSION_GREETING:
	case SMTP_SESSION_COMMANDS:
	case SMTP_SESSION_DATA:
	case SMTP_SESSION_CHUNK:
		/* Nobody can be blamed for silence while we do not listen. */
		if (session_linked(&ss->waiting)) {
			timer_arm(&ss->deadline, now_ms(ss) + ss->options->idle_timeout_ms);
		} else {
			time_out(ss);
		}
		break;
	case SMTP_SESSION_STORING:
	case SMTP_SESSION_AUTH:
		timer_arm(&ss->deadline, now_ms(ss) + ss->options->idle_timeout_ms);
		break;
	case SMTP_SESSION_POLICY:
		/* A script may take its time, but not for ever. */
		if (now_ms(ss) >= session_end_ms(ss)) {
			time_out(ss);
		} else {
			touch(ss);
		}
		break;
	case SMTP_SESSION_SECURING:
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_TIMEOUT_IDLE);
		stream_note(&ss->stream, "TLS handshake: timed out");
		handshake_failed(ss, "timed out");
		break;
	case SMTP_SESSION_CLOSING:
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_TIMEOUT_CLOSING);
		kill_session(ss);
		break;
	case SMTP_SESSION_LINGERING:
	case SMTP_SESSION_DEAD:
		kill_session(ss);
		break;
	}
	smtp_session_settle(ss);
}

/* ---- life ---- */

void smtp_session_serve(struct smtp_listener *l, struct accept *a)
{
	struct scheduler *s = l->scheduler;
	struct smtp_session *ss = pool_get(&l->session_pool);

	memset(ss, 0, sizeof(*ss));
	ss->magic = SMTP_SESSION_MAGIC;
	OWNER_CLAIM(ss);
	ss->state = SMTP_SESSION_GREETING;
	ss->listener = l;
	ss->accept = a;
	ss->peer = a->peer;
	ss->peer_port = a->peer_port;
	memcpy(ss->peer_text, a->peer_text, sizeof(ss->peer_text));
	ss->options = config_smtp(a->config, a->listen, &a->peer);
	ss->relay_host = relay_host_allowed(ss->options, &a->peer);
	ss->teller = a->peer;
	ss->xclient = may_tell(ss);
	ss->listen_name = config_smtp_listen(a->config, a->listen)->name;
	ss->began_ms = agent_now_ms(&s->base);
	stream_init(&ss->stream, &s->base, on_recv, on_sent);
	stream_open(&ss->stream, a->fd);
	timer_init(&ss->deadline, &s->base, on_deadline);
	session_list_add(&l->sessions, &ss->all);
	if (ss->options->use_ssl) {
		ss->state = SMTP_SESSION_SECURING;
	} else if (ss->options->proxy_protocol) {
		ss->state = SMTP_SESSION_PROXY;
	} else {
		session_list_add(&l->arrivals, &ss->waiting);
	}
	l->session_count++;
	smtp_count(&l->counts, SMTP_COUNT_SESSIONS);
	counter_add(l->counts.of[SMTP_COUNT_SESSIONS_OPEN], 1);
	touch(ss);
	smtp_session_offer(ss);
	if (ss->options->proxy_protocol && !ss->xclient) {
		smtp_dialogue_bad_proxy(ss);
	}
	smtp_session_settle(ss);
}

void smtp_session_greet(struct smtp_session *ss)
{
	ASSERT(ss->state == SMTP_SESSION_GREETING);
	session_list_remove(&ss->waiting);
	ss->state = SMTP_SESSION_COMMANDS;
	scheduler_audit(ss->listener->scheduler, &ss->peer, POLICY_CONNECTION);
	if (smtp_policy_has(ss, POLICY_CONNECT)) {
		smtp_policy_ask(ss, POLICY_CONNECT, "", smtp_dialogue_greet);
	} else {
		smtp_dialogue_greet(ss, NULL);
	}
	smtp_session_settle(ss);
}

void smtp_session_stop(struct smtp_session *ss, bool hurry)
{
	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	switch (ss->state) {
	case SMTP_SESSION_DATA:
	case SMTP_SESSION_CHUNK:
	case SMTP_SESSION_POLICY:
		if (!hurry) {
			return;
		}
		/* fall through */
	case SMTP_SESSION_PROXY:
	case SMTP_SESSION_GREETING:
	case SMTP_SESSION_COMMANDS:
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_REFUSED_STOPPING);
		smtp_session_dismiss(ss, "4.3.2", "Shutting down");
		break;
	case SMTP_SESSION_SECURING:
		/* In the middle of a handshake nothing can be said. */
		kill_session(ss);
		break;
	case SMTP_SESSION_CLOSING:
	case SMTP_SESSION_LINGERING:
		if (hurry) {
			kill_session(ss);
		}
		break;
	case SMTP_SESSION_STORING:
	case SMTP_SESSION_AUTH:
	case SMTP_SESSION_DEAD:
		break;
	}
	smtp_session_settle(ss);
}
