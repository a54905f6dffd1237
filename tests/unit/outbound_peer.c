/*
 * The servers of an outbound world: what they say to what they hear.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/outbound_world.h"

static void peer_hang_up(struct peer *p, struct peer_connection *c, bool reset)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};

	if (reset) {
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	}
	close(c->fd);
	c->fd = -1;
	p->open--;
}

/* Replies are short and the client reads them, so that they always fit. */
static void peer_say(struct peer *p, struct peer_connection *c, const char *reply)
{
	size_t len = strlen(reply);
	bool hang_up = len > 0 && reply[len - 1] == '!';
	char text[8192];

	if (strcmp(reply, PEER_RESET) == 0) {
		peer_hang_up(p, c, true);
		return;
	}
	len -= hang_up ? 1 : 0;
	if (len > 0) {
		assert_true(len + 2 < sizeof text);
		memcpy(text, reply, len);
		memcpy(text + len, "\r\n", 2);
		(void)!send(c->fd, text, len + 2, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	if (hang_up) {
		peer_hang_up(p, c, false);
	}
}

static const char *peer_answer_rcpt(const struct peer_connection *c)
{
	if (strncmp(c->line, "RCPT TO:<bad", 12) == 0) {
		return "550 5.1.1 no such user";
	}
	if (strncmp(c->line, "RCPT TO:<later", 14) == 0) {
		return "451 4.2.1 try later";
	}
	return "250 2.1.5 fine";
}

static void peer_react(struct peer *p, struct peer_connection *c, enum peer_verb verb)
{
	const char *reply = p->answer != NULL ? p->answer(p, c, verb) : NULL;

	p->count[verb]++;
	if (reply == NULL) {
		reply = p->reply[verb];
	}
	if (reply == NULL) {
		reply = peer_answer_rcpt(c);
	}
	if (verb == PEER_DATA && strncmp(reply, "354", 3) == 0) {
		c->in_data = true;
	}
	peer_say(p, c, reply);
}

static enum peer_verb verb_of(const char *line)
{
	static const struct {
		const char *text;
		enum peer_verb verb;
	} verbs[] = {{"EHLO ", PEER_EHLO}, {"HELO ", PEER_HELO}, {"MAIL ", PEER_MAIL},
		     {"RCPT ", PEER_RCPT}, {"DATA", PEER_DATA},  {"RSET", PEER_RSET},
		     {"QUIT", PEER_QUIT}};

	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
		if (strncmp(line, verbs[i].text, strlen(verbs[i].text)) == 0) {
			return verbs[i].verb;
		}
	}
	return PEER_OTHER;
}

/* Octets of a chunk: lines of the body. Returns how many there were. */
static size_t peer_feed_chunk(struct peer *p, struct peer_connection *c, const char *data,
			      size_t len)
{
	size_t n = len < c->chunk_left ? len : c->chunk_left;

	(void)data;
	p->body_bytes += n;
	c->chunk_left -= n;
	if (c->chunk_left == 0) {
		p->bodies++;
		peer_react(p, c, PEER_BODY);
	}
	return n;
}

static void peer_on_line(struct peer *p, struct peer_connection *c)
{
	enum peer_verb verb;
	int len;

	if (c->in_data) {
		if (strcmp(c->line, ".") == 0) {
			c->in_data = false;
			p->bodies++;
			peer_react(p, c, PEER_BODY);
		} else {
			assert_true(p->any_body || strcmp(c->line, OUTBOUND_BODY_LINE) == 0);
			p->body_bytes += strlen(c->line) + 2;
		}
		return;
	}
	verb = verb_of(c->line);
	c->mails += verb == PEER_MAIL ? 1 : 0;
	if (p->log_len + c->line_len + 2 < sizeof p->log) {
		len = snprintf(p->log + p->log_len, sizeof p->log - p->log_len, "%s\n", c->line);
		p->log_len += (unsigned)len;
	}
	if (sscanf(c->line, "BDAT %lu LAST", &c->chunk_left) != 1) {
		peer_react(p, c, verb);
	}
}

static void peer_feed(struct peer *p, struct peer_connection *c, const char *data, size_t len)
{
	unsigned lines = 0;

	for (size_t i = 0; i < len && c->fd >= 0; i++) {
		if (c->chunk_left > 0) {
			i += peer_feed_chunk(p, c, data + i, len - i) - 1;
			continue;
		}
		if (data[i] != '\n') {
			assert_true(c->line_len + 1 < sizeof c->line);
			c->line[c->line_len++] = data[i];
			continue;
		}
		assert_true(c->line_len > 0 && c->line[c->line_len - 1] == '\r');
		c->line[c->line_len - 1] = '\0';
		lines += c->in_data ? 0 : 1;
		c->line_len--;
		peer_on_line(p, c);
		c->line_len = 0;
	}
	p->lines_max = lines > p->lines_max ? lines : p->lines_max;
}

static int peer_read(struct peer *p, struct peer_connection *c)
{
	char data[65536];
	ssize_t n = recv(c->fd, data, sizeof data, MSG_DONTWAIT);

	if (n > 0) {
		peer_feed(p, c, data, (size_t)n);
		return 1;
	}
	if (n == 0 || errno != EAGAIN) {
		peer_hang_up(p, c, false);
		return 1;
	}
	return 0;
}

static int peer_accept(struct peer *p)
{
	int fd = accept4(p->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int on = 1;

	if (fd < 0) {
		return 0;
	}
	/* Several replies in a row must not wait for each other. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		struct peer_connection *c = &p->connections[i];

		if (c->fd < 0) {
			*c = (struct peer_connection){.fd = fd};
			p->accepted++;
			p->open++;
			p->open_max = p->open > p->open_max ? p->open : p->open_max;
			peer_react(p, c, PEER_BANNER);
			return 1;
		}
	}
	fail_msg("too many connections to one server");
	return 0;
}

int outbound_peer_step(struct peer *p)
{
	int work = 0;

	if (p->stalled) {
		return 0;
	}
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (p->connections[i].fd >= 0) {
			work += peer_read(p, &p->connections[i]);
		}
	}
	return work + peer_accept(p);
}

struct sockaddr_in outbound_loopback(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static int listen_somewhere(uint16_t *port)
{
	struct sockaddr_in a = outbound_loopback(0);
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(fd, 128), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

struct peer *outbound_peer(struct outbound_world *w)
{
	struct peer *p = &w->peers[w->peer_count++];

	assert_true(w->peer_count <= OUTBOUND_PEERS_MAX);
	p->world = w;
	p->listen_fd = listen_somewhere(&p->port);
	p->reply[PEER_BANNER] = "220 mx.test ESMTP";
	p->reply[PEER_EHLO] = PEER_PLAIN;
	p->reply[PEER_HELO] = "250 mx.test";
	p->reply[PEER_MAIL] = "250 2.1.0 fine";
	p->reply[PEER_DATA] = "354 go ahead";
	p->reply[PEER_BODY] = "250 2.0.0 kept";
	p->reply[PEER_RSET] = "250 2.0.0 forgotten";
	p->reply[PEER_QUIT] = "221 2.0.0 bye!";
	p->reply[PEER_OTHER] = "500 5.5.1 what?";
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		p->connections[i].fd = -1;
	}
	return p;
}

void outbound_answer_bodies(struct peer *p)
{
	static const char reply[] = "250 2.0.0 kept\r\n";

	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (p->connections[i].fd >= 0) {
			assert_int_equal(write(p->connections[i].fd, reply, sizeof reply - 1),
					 sizeof reply - 1);
		}
	}
}

uint16_t outbound_dead_port(void)
{
	uint16_t port;

	close(listen_somewhere(&port));
	return port;
}

void outbound_peer_close(struct peer *p)
{
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (p->connections[i].fd >= 0) {
			peer_hang_up(p, &p->connections[i], false);
		}
	}
	close(p->listen_fd);
}
