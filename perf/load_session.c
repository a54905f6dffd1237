#include "perf/load_session.h"

#include <assert.h>
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "perf/moment.h"

/* A connection that failed or did nothing useful is not tried again before this. */
#define RECONNECT_NS (50 * NS_PER_MS)
#define REPLY_LINE_MAX 4096

static const char lone_dot[] = ".\r\n";

static void next(struct load_session *s);
static void lose_connection(struct load_session *s, const char *why);

static const struct load_options *options_of(const struct load_session *s)
{
	return &s->load->options;
}

static void wait_for(struct load_session *s, enum load_state state)
{
	s->state = state;
	s->deadline_ns = s->load->now_ns + options_of(s)->timeout_ns;
}

static bool has_output(const struct load_session *s)
{
	return s->out.len + s->tail_len > 0;
}

static ssize_t send_some(struct load_session *s)
{
	struct iovec parts[2];
	size_t count = 0;
	size_t from_tail = s->sent > s->out.len ? s->sent - s->out.len : 0;

	if (s->sent < s->out.len) {
		parts[count].iov_base = s->out.data + s->sent;
		parts[count++].iov_len = s->out.len - s->sent;
	}
	if (s->tail_len > 0) {
		parts[count].iov_base = (char *)(uintptr_t)s->tail + from_tail;
		parts[count++].iov_len = s->tail_len - from_tail;
	}
	return link_send(s->fd, s->tls, parts, count);
}

/* Sends what waits. A broken connection shows when it is read. */
static void flush(struct load_session *s)
{
	ssize_t n;

	while (has_output(s)) {
		n = send_some(s);
		if (n < 0) {
			return;
		}
		s->sent += (size_t)n;
		if (s->sent == s->out.len + s->tail_len) {
			s->out.len = 0;
			s->tail_len = 0;
			s->sent = 0;
		}
	}
}

static void send_line(struct load_session *s, const char *line, enum load_state reply_state)
{
	text_append_string(&s->out, line);
	wait_for(s, reply_state);
	flush(s);
}

static void greet(struct load_session *s, const char *verb, enum load_state reply_state)
{
	text_printf(&s->out, "%s %s\r\n", verb, options_of(s)->hostname);
	wait_for(s, reply_state);
	flush(s);
}

static void append_mail(struct load_session *s)
{
	text_append_string(&s->out, "MAIL FROM:<");
	text_append_string(&s->out, options_of(s)->from);
	text_append_string(&s->out, ">");
	if (s->offers_size) {
		text_append_string(&s->out, " SIZE=");
		text_append_number(&s->out, options_of(s)->size);
	}
	text_append_string(&s->out, "\r\n");
}

static void append_rcpt(struct load_session *s, unsigned index)
{
	text_append_string(&s->out, "RCPT TO:<");
	load_append_recipient(options_of(s), &s->out, s->number, index);
	text_append_string(&s->out, ">\r\n");
}

/* The next recipient from `from` on that the message is still for. */
static unsigned pending_recipient(const struct load_session *s, unsigned from)
{
	while (from < options_of(s)->recipients && s->recipients[from] != RECIPIENT_PENDING) {
		from++;
	}
	return from;
}

static void begin_transaction(struct load_session *s)
{
	unsigned count = options_of(s)->recipients;

	s->refusal = 0;
	s->taken = 0;
	s->mail_accepted = false;
	s->recipient = pending_recipient(s, 0);
	assert(s->recipient < count);
	append_mail(s);
	if (s->pipelining) {
		for (unsigned i = s->recipient; i < count; i = pending_recipient(s, i + 1)) {
			append_rcpt(s, i);
		}
		text_append_string(&s->out, "DATA\r\n");
	}
	wait_for(s, LOAD_MAIL);
	flush(s);
}

/* Message in hand: what was accepted in a transaction that came to nothing is pending again. */
static void settle_recipients(struct load_session *s, unsigned from, unsigned to)
{
	for (unsigned i = 0; i < options_of(s)->recipients; i++) {
		if (s->recipients[i] == from) {
			s->recipients[i] = (uint8_t)to;
		}
	}
}

static unsigned count_recipients(const struct load_session *s, unsigned state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < options_of(s)->recipients; i++) {
		count += s->recipients[i] == state;
	}
	return count;
}

static void write_accepted(const struct load_session *s)
{
	struct text line = {0};

	text_printf(&line, "%s-%lu\n", options_of(s)->id_prefix, s->number);
	if (write(options_of(s)->accepted_file, line.data, line.len) != (ssize_t)line.len) {
		err(2, "file of accepted ids");
	}
	text_free(&line);
}

static void on_accepted(struct load_session *s)
{
	struct load *load = s->load;

	load->counts.accepted++;
	load->counts.bytes += options_of(s)->size;
	latency_add(&load->latency, moment_ns() - s->start_ns);
	if (options_of(s)->accepted_file >= 0) {
		write_accepted(s);
	}
}

/* The message in hand is over, for good or bad. */
static void end_message(struct load_session *s)
{
	struct load_counts *counts = &s->load->counts;
	unsigned pending = count_recipients(s, RECIPIENT_PENDING);
	unsigned done = count_recipients(s, RECIPIENT_DONE);

	counts->recipients_accepted += done;
	counts->recipients_refused += options_of(s)->recipients - done;
	s->has_message = false;
	if (pending > 0) {
		counts->tempfailed++;
	} else if (done < options_of(s)->recipients) {
		counts->permfailed++;
	} else {
		on_accepted(s);
	}
}

static void end_message_lost(struct load_session *s)
{
	s->has_message = false;
	s->load->counts.errors++;
}

static void pause_for(struct load_session *s, uint64_t ns)
{
	s->state = LOAD_PAUSED;
	s->wake_ns = s->load->now_ns + ns;
	if (s->wake_ns < s->load->wake_ns) {
		s->load->wake_ns = s->wake_ns;
	}
}

/* After a transaction and the RSET that it may have needed. */
static void go_on(struct load_session *s)
{
	if (!s->has_message) {
		next(s);
	} else {
		s->load->counts.retries++;
		pause_for(s, options_of(s)->retry_delay_ns);
	}
}

/* The transaction has its last reply. */
static void end_transaction(struct load_session *s)
{
	settle_recipients(s, RECIPIENT_TAKEN, RECIPIENT_PENDING);
	if (!options_of(s)->retry || pending_recipient(s, 0) == options_of(s)->recipients) {
		end_message(s);
	}
}

static void finish_transaction(struct load_session *s)
{
	end_transaction(s);
	if (s->mail_accepted) {
		send_line(s, "RSET\r\n", LOAD_RSET);
	} else {
		go_on(s);
	}
}

static void drop_socket(struct load_session *s)
{
	if (s->fd >= 0) {
		link_forget(s->tls);
		s->tls = NULL;
		close(s->fd);
		s->fd = -1;
	}
	s->out.len = 0;
	s->tail_len = 0;
	s->sent = 0;
	s->in.len = 0;
}

static void end_session(struct load_session *s)
{
	assert(s->state != LOAD_OVER);
	drop_socket(s);
	if (s->has_message) {
		end_message_lost(s);
	}
	s->state = LOAD_OVER;
	s->load->sessions_alive--;
}

/* The connection is gone; goes on with another one if there is anything left to do. */
static void reconnect(struct load_session *s, uint64_t delay_ns)
{
	bool useful = s->sent_on_connection > 0;

	drop_socket(s);
	if (!s->has_message && load_is_drained(s->load)) {
		end_session(s);
	} else if (useful && delay_ns == 0) {
		load_session_connect(s);
	} else {
		pause_for(s, delay_ns > 0 ? delay_ns : RECONNECT_NS);
	}
}

/* It could not be made, or the server did not want it. */
static void on_connect_failed(struct load_session *s)
{
	struct load *load = s->load;

	load->counts.connect_failures++;
	if (s->connect_failing_ns == 0) {
		s->connect_failing_ns = load->now_ns;
	}
	s->sent_on_connection = 0;
	if (load->now_ns - s->connect_failing_ns >= options_of(s)->connect_retry_ns) {
		end_session(s);
	} else {
		reconnect(s, 0);
	}
}

static void lose_connection(struct load_session *s, const char *why)
{
	enum load_state state = s->state;
	uint64_t delay_ns = 0;

	if (state == LOAD_IDLE) {
		load_remove_idle(s->load, s);
	}
	if (state == LOAD_QUIT || state == LOAD_CLOSING) {
		reconnect(s, 0);
		return;
	}
	load_note_trouble(s->load, "connection", why, strlen(why));
	if (state >= LOAD_CONNECTING && state <= LOAD_HELO) {
		on_connect_failed(s);
		return;
	}
	s->load->counts.connections_lost++;
	if (s->has_message && !options_of(s)->retry) {
		end_message_lost(s);
	} else if (s->has_message && state != LOAD_PAUSED) {
		settle_recipients(s, RECIPIENT_TAKEN, RECIPIENT_PENDING);
		s->load->counts.retries++;
		delay_ns = options_of(s)->retry_delay_ns;
	}
	reconnect(s, delay_ns);
}

/* The server answered 421, or so early that the two sides no longer agree: it is no use. */
static void leave_connection(struct load_session *s)
{
	uint64_t delay_ns = 0;

	/* A server that has had enough messages on one connection has refused none of them. */
	if (s->state != LOAD_MAIL || s->sent_on_connection == 0) {
		end_transaction(s);
		if (s->has_message) {
			s->load->counts.retries++;
			delay_ns = options_of(s)->retry_delay_ns;
		}
	}
	reconnect(s, delay_ns);
}

static void send_body(struct load_session *s)
{
	load_append_header(s->load, &s->out, s->number, s->start_ns);
	s->tail = s->body->wire;
	s->tail_len = s->body->wire_len;
	wait_for(s, LOAD_DOT);
	flush(s);
}

/* The whole transaction was refused with `code`, for all recipients that are left. */
static void refuse_all(struct load_session *s, unsigned code)
{
	settle_recipients(s, RECIPIENT_TAKEN, RECIPIENT_PENDING);
	if (code >= 500) {
		settle_recipients(s, RECIPIENT_PENDING, RECIPIENT_REFUSED);
	}
}

static void on_mail_reply(struct load_session *s, unsigned code)
{
	s->mail_accepted = code / 100 == 2;
	if (s->pipelining) {
		s->refusal = s->mail_accepted ? 0 : code;
		wait_for(s, LOAD_RCPT);
	} else if (s->mail_accepted) {
		append_rcpt(s, s->recipient);
		wait_for(s, LOAD_RCPT);
		flush(s);
	} else {
		refuse_all(s, code);
		finish_transaction(s);
	}
}

static void on_rcpt_reply(struct load_session *s, unsigned code)
{
	if (code / 100 == 2) {
		s->recipients[s->recipient] = RECIPIENT_TAKEN;
		s->taken++;
	} else if (code >= 500 && s->refusal == 0) {
		s->recipients[s->recipient] = RECIPIENT_REFUSED;
	}
	s->recipient = pending_recipient(s, s->recipient + 1);
	if (s->recipient < options_of(s)->recipients) {
		if (!s->pipelining) {
			append_rcpt(s, s->recipient);
		}
		wait_for(s, LOAD_RCPT);
		flush(s);
	} else if (s->pipelining) {
		wait_for(s, LOAD_DATA);
	} else if (s->taken > 0) {
		send_line(s, "DATA\r\n", LOAD_DATA);
	} else {
		finish_transaction(s);
	}
}

static void on_data_reply(struct load_session *s, unsigned code)
{
	if (code == 354 && s->taken > 0) {
		send_body(s);
	} else if (code == 354) {
		/* DATA was on its way when all recipients were refused (RFC 2920 section 3.1). */
		send_line(s, lone_dot, LOAD_DOT);
	} else {
		if (s->taken > 0 || s->refusal != 0) {
			refuse_all(s, s->refusal != 0 ? s->refusal : code);
		}
		finish_transaction(s);
	}
}

static void on_dot_reply(struct load_session *s, unsigned code)
{
	s->mail_accepted = false;
	if (s->taken > 0 && code / 100 == 2) {
		settle_recipients(s, RECIPIENT_TAKEN, RECIPIENT_DONE);
		s->sent_on_connection++;
	} else if (s->taken > 0 || s->refusal != 0) {
		refuse_all(s, s->refusal != 0 ? s->refusal : code);
	}
	finish_transaction(s);
}

/* Ends the connection when it fails, and goes on when it is done. */
static void shake(struct load_session *s)
{
	int rc = link_shake(s->tls);

	if (rc < 0) {
		lose_connection(s, "TLS handshake failed");
	} else if (rc > 0) {
		s->load->counts.tls_handshakes++;
		s->pipelining = false;
		s->offers_size = false;
		if (options_of(s)->starttls) {
			greet(s, "EHLO", LOAD_EHLO);
		} else {
			wait_for(s, LOAD_BANNER);
		}
	}
}

static void start_tls(struct load_session *s)
{
	s->tls = link_secure(options_of(s)->tls, s->fd);
	wait_for(s, LOAD_SHAKING);
	shake(s);
}

static void on_starttls_reply(struct load_session *s, unsigned code)
{
	if (code == 220) {
		start_tls(s);
	} else {
		lose_connection(s, "STARTTLS refused");
	}
}

static void on_ehlo_reply(struct load_session *s, unsigned code)
{
	if (code / 100 == 2 && options_of(s)->starttls && s->tls == NULL) {
		send_line(s, "STARTTLS\r\n", LOAD_STARTTLS);
	} else if (code / 100 == 2) {
		s->connect_failing_ns = 0;
		s->pipelining = s->pipelining && !options_of(s)->no_pipelining;
		next(s);
	} else if (code >= 500 && s->state == LOAD_EHLO) {
		greet(s, "HELO", LOAD_HELO);
	} else {
		lose_connection(s, "greeting refused");
	}
}

static void on_banner(struct load_session *s, unsigned code)
{
	if (code == 220) {
		greet(s, "EHLO", LOAD_EHLO);
	} else {
		lose_connection(s, "refused by the banner");
	}
}

static void on_rset_reply(struct load_session *s, unsigned code)
{
	s->mail_accepted = false;
	if (code == 421) {
		reconnect(s, s->has_message ? options_of(s)->retry_delay_ns : 0);
	} else {
		go_on(s);
	}
}

/* True when a reply in a transaction means that the connection is of no more use. */
static bool ends_connection(const struct load_session *s, unsigned code)
{
	if (s->state < LOAD_MAIL || s->state > LOAD_DOT) {
		return false;
	}
	return code == 421 || (s->state == LOAD_DOT && has_output(s));
}

static void on_reply(struct load_session *s, unsigned code)
{
	if (ends_connection(s, code)) {
		if (code != 421) {
			refuse_all(s, code);
		}
		leave_connection(s);
		return;
	}
	switch (s->state) {
	case LOAD_BANNER:
		on_banner(s, code);
		break;
	case LOAD_STARTTLS:
		on_starttls_reply(s, code);
		break;
	case LOAD_EHLO:
	case LOAD_HELO:
		on_ehlo_reply(s, code);
		break;
	case LOAD_MAIL:
		on_mail_reply(s, code);
		break;
	case LOAD_RCPT:
		on_rcpt_reply(s, code);
		break;
	case LOAD_DATA:
		on_data_reply(s, code);
		break;
	case LOAD_DOT:
		on_dot_reply(s, code);
		break;
	case LOAD_RSET:
		on_rset_reply(s, code);
		break;
	case LOAD_QUIT:
		wait_for(s, LOAD_CLOSING);
		break;
	default:
		/* An idle connection may be told 421 before it is closed; nothing else is in order.
		 */
		s->load->counts.protocol_errors += code != 421;
		lose_connection(s, "a reply that nobody asked for");
		break;
	}
}

/* One line of the reply to EHLO, from behind its code. */
static void on_keyword(struct load_session *s, const char *word, size_t len)
{
	if (len >= 10 && strncasecmp(word, "PIPELINING", 10) == 0) {
		s->pipelining = true;
	} else if (len >= 4 && strncasecmp(word, "SIZE", 4) == 0) {
		s->offers_size = true;
	}
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Takes one line of a reply, without its end. */
static void on_line(struct load_session *s, const char *line, size_t len)
{
	unsigned code;

	if (len < 3 || line[0] < '2' || line[0] > '5' || !is_digit(line[1]) || !is_digit(line[2]) ||
	    (len > 3 && line[3] != ' ' && line[3] != '-')) {
		s->load->counts.protocol_errors++;
		lose_connection(s, "an answer that is no SMTP reply");
		return;
	}
	if (s->state == LOAD_EHLO && len > 4) {
		on_keyword(s, line + 4, len - 4);
	}
	if (len > 3 && line[3] == '-') {
		return;
	}
	code = (unsigned)(line[0] - '0') * 100 + (unsigned)(line[1] - '0') * 10 +
	       (unsigned)(line[2] - '0');
	if (code >= 400) {
		load_note_trouble(s->load, "reply", line, len);
	}
	on_reply(s, code);
}

/* Takes whole lines; stops when the connection was given up meanwhile. */
static void take_lines(struct load_session *s, const char *p, size_t len)
{
	const char *end = p + len;
	int fd = s->fd;

	while (p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		if (lf == NULL) {
			break;
		}
		on_line(s, p, (size_t)(lf - p) - (lf > p && lf[-1] == '\r'));
		if (s->fd != fd || s->state == LOAD_CONNECTING) {
			return;
		}
		p = lf + 1;
	}
	text_append(&s->in, p, (size_t)(end - p));
	if (s->in.len > REPLY_LINE_MAX) {
		s->load->counts.protocol_errors++;
		lose_connection(s, "a reply line without end");
	}
}

/* Reads all there is; a read that does not fill its space has emptied the socket. */
static void read_replies(struct load_session *s, bool hang_up)
{
	char *buffer = s->load->buffer;
	int fd = s->fd;
	ssize_t n;

	do {
		size_t kept = s->in.len;
		if (kept > 0) {
			memcpy(buffer, s->in.data, kept);
		}
		n = link_recv(fd, s->tls, buffer + kept, LOAD_READ_MAX);
		if (n > 0) {
			s->in.len = 0;
			take_lines(s, buffer, kept + (size_t)n);
		} else if (n == 0) {
			lose_connection(s, "closed by the server");
		} else if (errno != EAGAIN && errno != EINTR) {
			lose_connection(s, strerror(errno));
		}
	} while (s->fd == fd && s->state != LOAD_CONNECTING && n > 0 &&
		 (hang_up || n == LOAD_READ_MAX));
}

static void on_connected(struct load_session *s, uint32_t events)
{
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0) {
		lose_connection(s, strerror(error));
	} else if ((events & EPOLLOUT) != 0) {
		s->load->counts.connections++;
		if (options_of(s)->tls != NULL && !options_of(s)->starttls) {
			start_tls(s);
		} else {
			wait_for(s, LOAD_BANNER);
		}
	}
}

void load_session_on_event(struct load_session *s, uint32_t events)
{
	if (s->state == LOAD_CONNECTING) {
		on_connected(s, events);
	}
	if (s->state == LOAD_SHAKING) {
		shake(s);
	}
	if (s->fd < 0 || s->state == LOAD_CONNECTING || s->state == LOAD_SHAKING) {
		return;
	}
	/* What TLS has read already brings no event. */
	events |= s->tls != NULL ? EPOLLIN | EPOLLOUT : 0;
	if ((events & EPOLLOUT) != 0) {
		flush(s);
	}
	if ((events & ~(uint32_t)EPOLLOUT) != 0) {
		read_replies(s, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
	}
}

void load_session_connect(struct load_session *s)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
		.data.ptr = s,
	};

	s->pipelining = false;
	s->offers_size = false;
	s->sent_on_connection = 0;
	wait_for(s, LOAD_CONNECTING);
	s->fd = endpoint_connect(&options_of(s)->to);
	if (s->fd < 0) {
		lose_connection(s, strerror(-s->fd));
	} else if (epoll_ctl(s->load->epoll, EPOLL_CTL_ADD, s->fd, &event) != 0) {
		lose_connection(s, strerror(errno));
	}
}

/* Begins with the next message, when one is due. */
static bool send_message(struct load_session *s)
{
	if (!load_take_message(s->load, s)) {
		return false;
	}
	s->has_message = true;
	s->body = message_pool_body(&s->load->pool, s->number);
	memset(s->recipients, RECIPIENT_PENDING, options_of(s)->recipients);
	begin_transaction(s);
	return true;
}

/* Connected and at leisure: a message, if this connection may have another one. */
static void next(struct load_session *s)
{
	uint64_t allowed = options_of(s)->per_connection;

	if (allowed > 0 && s->sent_on_connection >= allowed) {
		send_line(s, "QUIT\r\n", LOAD_QUIT);
	} else if (s->has_message) {
		begin_transaction(s);
	} else if (!load_others_are_first(s->load) && send_message(s)) {
		return;
	} else if (load_is_drained(s->load)) {
		send_line(s, "QUIT\r\n", LOAD_QUIT);
	} else {
		s->state = LOAD_IDLE;
		load_add_idle(s->load, s);
	}
}

void load_session_start(struct load_session *s)
{
	if (!send_message(s)) {
		next(s);
	}
}

void load_session_on_time(struct load_session *s)
{
	if (s->state == LOAD_PAUSED && s->fd < 0) {
		load_session_connect(s);
	} else if (s->state == LOAD_PAUSED) {
		next(s);
	} else {
		s->load->counts.timeouts++;
		lose_connection(s, "no reply in time");
	}
}

void load_session_end(struct load_session *s)
{
	if (s->state == LOAD_IDLE) {
		load_remove_idle(s->load, s);
	}
	if (s->state != LOAD_OVER) {
		end_session(s);
	}
}

void load_session_init(struct load_session *s, struct load *load)
{
	*s = (struct load_session){.load = load, .fd = -1, .state = LOAD_PAUSED};
	s->recipients = calloc(load->options.recipients, 1);
	if (s->recipients == NULL) {
		err(2, "recipients");
	}
}

void load_session_free(struct load_session *s)
{
	text_free(&s->out);
	text_free(&s->in);
	free(s->recipients);
}
