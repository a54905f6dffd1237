/* Streams over each back end: plain text, TLS with a peer that cuts its bytes as the test likes,
 * and what both ends hear when it ends. */
#include <errno.h>

#include <openssl/err.h>

#include "core/runtime/stream.h"
#include "core/runtime/tls_sessions.h"
#include "tests/unit/mux_world.h"
#include "tests/unit/tls_world.h"

#define BIG (300 * 1000)

/* A stream, and what became of it. */
struct end {
	struct stream s;
	struct agent agent;
	int received;
	int sent;
	int secured;
	int recv_result;
	int send_result;
	int secure_result;
	size_t bytes;
	bool good;
	/* Go on receiving. */
	bool again;
	/* Receive as soon as TLS is there, or send this. */
	bool recv_when_secured;
	const char *say_when_secured;
	struct iovec iov[64];
	unsigned char last[64];
	char why[TLS_WHY];
};

/* The other end, by hand: OpenSSL in memory, and a socket. */
struct hand {
	SSL *ssl;
	BIO *in;
	BIO *out;
	int fd;
};

static struct tls_context *server;
static struct tls_context *client;

static struct end *end_of(struct stream *s)
{
	assert_int_equal(starting, 0);
	return CONTAINER_OF(s, struct end, s);
}

static void on_received(struct stream *s, const unsigned char *data, int result)
{
	struct end *e = end_of(s);

	e->received++;
	e->recv_result = result;
	assert_false(stream_recv_busy(s));
	for (int i = 0; i < result; i++) {
		e->good &= data[i] == (unsigned char)((e->bytes + (size_t)i) * 31 % 251);
	}
	if (result > 0) {
		assert_in_range(result, 1, STREAM_RECV_MAX);
		e->bytes += (size_t)result;
		memcpy(e->last, data, (size_t)result < sizeof e->last ? (size_t)result : 64);
		if (e->again) {
			stream_recv(s);
		}
	}
}

static void on_sent(struct stream *s, int result)
{
	struct end *e = end_of(s);

	e->sent++;
	e->send_result = result;
	assert_false(s->tls == NULL && stream_send_busy(s));
}

static void end_say(struct end *e, const char *text)
{
	e->iov[0] = (struct iovec){(void *)(uintptr_t)text, strlen(text)};
	starting++;
	stream_send(&e->s, e->iov, 1);
	starting--;
	assert_true(stream_send_busy(&e->s));
}

static void on_secured(struct stream *s, int result)
{
	struct end *e = end_of(s);

	e->secured++;
	e->secure_result = result;
	snprintf(e->why, sizeof e->why, "%s", stream_why(s));
	if (result == 0 && e->recv_when_secured) {
		stream_recv(s);
	}
	if (result == 0 && e->say_when_secured != NULL) {
		end_say(e, e->say_when_secured);
	}
}

static void end_open(struct end *e, struct mux *m, int fd)
{
	memset(e, 0, sizeof *e);
	e->agent.mux = m;
	e->good = true;
	stream_init(&e->s, &e->agent, on_received, on_sent);
	stream_open(&e->s, fd);
}

static void end_secure(struct end *e, const struct tls_wish *wish)
{
	starting++;
	stream_secure(&e->s, wish, on_secured);
	starting--;
	assert_true(stream_recv_busy(&e->s));
}

static void end_recv(struct end *e)
{
	starting++;
	stream_recv(&e->s);
	starting--;
	assert_true(stream_recv_busy(&e->s));
}

static void end_close(struct end *e)
{
	struct mux *m = e->agent.mux;

	stream_cancel(&e->s);
	while (stream_busy(&e->s)) {
		turn(m, 64);
	}
	stream_close(&e->s);
}

/* ---- the hand ---- */

static void hand_open(struct hand *h, int fd, bool accepts)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());

	SSL_CTX_use_certificate_chain_file(context, tls_file("mx.pem"));
	SSL_CTX_use_PrivateKey_file(context, tls_file("key.pem"), SSL_FILETYPE_PEM);
	h->ssl = SSL_new(context);
	SSL_CTX_free(context);
	h->in = BIO_new(BIO_s_mem());
	h->out = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(h->in, -1);
	SSL_set_bio(h->ssl, h->in, h->out);
	h->fd = fd;
	if (accepts) {
		SSL_set_accept_state(h->ssl);
	} else {
		SSL_set_connect_state(h->ssl);
	}
}

static void hand_close(struct hand *h)
{
	SSL_free(h->ssl);
	if (h->fd >= 0) {
		close(h->fd);
	}
}

/* Work that is there, without waiting. */
static void rounds(struct mux *m)
{
	for (int i = 0; i < 4; i++) {
		mux_submit(m);
		mux_reap(m, 64);
	}
}

/* What the stream sent. */
static void hand_pull(struct hand *h)
{
	char data[65536];
	ssize_t n;

	while ((n = recv(h->fd, data, sizeof data, MSG_DONTWAIT)) > 0) {
		BIO_write(h->in, data, (int)n);
	}
}

/* What OpenSSL has to say goes out in pieces of `piece` bytes, each of which is looked at. */
static void hand_push(struct hand *h, struct mux *m, size_t piece)
{
	char *data;
	long len = BIO_get_mem_data(h->out, &data);
	size_t done = 0;

	while (done < (size_t)len) {
		size_t n = (size_t)len - done < piece ? (size_t)len - done : piece;
		ssize_t put = send(h->fd, data + done, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		done += put > 0 ? (size_t)put : 0;
		rounds(m);
	}
	(void)BIO_reset(h->out);
}

/* Both ends shake hands; the stream is e's. */
static void hand_shake(struct hand *h, struct end *e, size_t piece)
{
	struct mux *m = e->agent.mux;

	for (int i = 0; e->secured == 0 || !SSL_is_init_finished(h->ssl); i++) {
		assert_true(i < 100000);
		rounds(m);
		hand_pull(h);
		ERR_clear_error();
		SSL_do_handshake(h->ssl);
		hand_push(h, m, piece);
	}
	rounds(m);
	hand_pull(h);
}

static void hand_write(struct hand *h, const void *data, size_t len)
{
	assert_int_equal(SSL_write(h->ssl, data, (int)len), (int)len);
}

/* A stream as server, and a hand that is its client. */
static void pair_up(struct end *e, struct hand *h, struct mux *m, size_t piece, int version)
{
	const struct tls_wish wish = {.context = server};
	int fds[2];

	make_tcp_pair(fds);
	end_open(e, m, fds[1]);
	hand_open(h, fds[0], false);
	SSL_set_max_proto_version(h->ssl, version);
	end_secure(e, &wish);
	hand_shake(h, e, piece);
	assert_int_equal(e->secure_result, 0);
	assert_int_equal(e->secured, 1);
}

/* ---- plain text ---- */

static void test_plain_passes_through(void **state)
{
	struct mux *m = make(state);
	struct end a;
	int fds[2];
	char data[8];

	make_tcp_pair(fds);
	end_open(&a, m, fds[1]);
	end_recv(&a);
	write_all(fds[0], "\0\037\076", 3);
	run_until(m, &a.received, 1);
	assert_int_equal(a.recv_result, 3);
	assert_true(a.good);
	end_say(&a, "hello");
	run_until(m, &a.sent, 1);
	assert_int_equal(a.send_result, 5);
	assert_int_equal(read(fds[0], data, sizeof data), 5);
	end_recv(&a);
	stream_end(&a.s);
	assert_int_equal(read(fds[0], data, sizeof data), 0);
	close(fds[0]);
	run_until(m, &a.received, 2);
	assert_int_equal(a.recv_result, 0);
	end_close(&a);
	mux_destroy(m);
}

static void test_connect_tells_by_sent(void **state)
{
	struct mux *m = make(state);
	struct sockaddr_storage to = {0};
	struct sockaddr_in address;
	int listener = make_listener(&address, 8);
	struct end a;

	memcpy(&to, &address, sizeof address);
	end_open(&a, m, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	stream_connect(&a.s, &to, sizeof address);
	run_until(m, &a.sent, 1);
	assert_int_equal(a.send_result, 0);
	end_close(&a);
	close(listener);
	mux_destroy(m);
}

/* ---- TLS ---- */

static const size_t pieces[] = {1, 2, 5, 6, 7, 100, 1000, 16384, 65536};

static void test_handshake_and_data_in_pieces(void **state)
{
	static unsigned char data[40000];
	struct mux *m = make(state);

	fill_pattern(data, sizeof data);
	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
		size_t len = pieces[i] < 100 ? 300 : sizeof data;
		struct end e;
		struct hand h;

		pair_up(&e, &h, m, pieces[i], i % 2 != 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
		e.again = true;
		end_recv(&e);
		hand_write(&h, data, len);
		hand_push(&h, m, pieces[i]);
		while (e.bytes < len) {
			turn(m, 64);
		}
		assert_true(e.good);
		assert_int_equal(e.bytes, len);
		end_close(&e);
		hand_close(&h);
	}
	mux_destroy(m);
}

/* Each length that a cut can leave in the middle of a record. */
static void test_data_when_cut_anywhere(void **state)
{
	struct mux *m = make(state);
	unsigned char data[64];
	struct end e;
	struct hand h;

	fill_pattern(data, sizeof data);
	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	e.again = true;
	end_recv(&e);
	for (size_t cut = 1; cut < 100; cut++) {
		e.bytes = 0;
		hand_write(&h, data, sizeof data);
		hand_push(&h, m, cut);
		while (e.bytes < sizeof data) {
			turn(m, 64);
		}
		assert_true(e.good);
	}
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

/* What follows the handshake in one piece is not lost, and comes when it is asked for. */
static void data_with_handshake(void **state, bool at_once)
{
	const struct tls_wish wish = {.context = server};
	struct mux *m = make(state);
	unsigned char data[1000];
	struct end e;
	struct hand h;
	int fds[2];

	fill_pattern(data, sizeof data);
	make_tcp_pair(fds);
	end_open(&e, m, fds[1]);
	hand_open(&h, fds[0], false);
	end_secure(&e, &wish);
	e.recv_when_secured = at_once;
	while (!SSL_is_init_finished(h.ssl)) {
		SSL_do_handshake(h.ssl);
		if (SSL_is_init_finished(h.ssl)) {
			break;
		}
		hand_push(&h, m, 65536);
		hand_pull(&h);
	}
	hand_write(&h, data, sizeof data);
	hand_push(&h, m, 65536);
	run_until(m, &e.secured, 1);
	if (!at_once) {
		settle(m);
		assert_int_equal(e.received, 0);
		end_recv(&e);
	}
	run_until(m, &e.received, 1);
	assert_int_equal(e.bytes, sizeof data);
	assert_true(e.good);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

static void test_data_with_handshake_when_asked_at_once(void **state)
{
	data_with_handshake(state, true);
}

static void test_data_with_handshake_when_asked_later(void **state)
{
	data_with_handshake(state, false);
}

/* Small pieces are gathered; what is large goes in rounds, and all of it arrives in order. */
static void send_in(void **state, size_t total, size_t each, bool slow)
{
	unsigned char *data = malloc(total);
	unsigned char *got = malloc(total);
	struct mux *m = make(state);
	struct end e;
	struct hand h;
	size_t len = 0;
	unsigned count = 0;

	fill_pattern(data, total);
	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	for (size_t at = 0; at < total; at += each) {
		e.iov[count++] = (struct iovec){data + at, total - at < each ? total - at : each};
	}
	starting++;
	stream_send(&e.s, e.iov, count);
	starting--;
	while (len < total) {
		int n;

		rounds(m);
		if (slow && h.fd >= 0) {
			char byte[777];
			ssize_t came = recv(h.fd, byte, sizeof byte, MSG_DONTWAIT);

			BIO_write(h.in, byte, came > 0 ? (int)came : 0);
		} else {
			hand_pull(&h);
		}
		while ((n = SSL_read(h.ssl, got + len, (int)(total - len))) > 0) {
			len += (size_t)n;
		}
	}
	assert_memory_equal(data, got, total);
	run_until(m, &e.sent, 1);
	assert_int_equal(e.send_result, (int)total);
	assert_false(stream_send_busy(&e.s));
	end_close(&e);
	hand_close(&h);
	free(data);
	free(got);
	mux_destroy(m);
}

static void test_send_large(void **state)
{
	send_in(state, BIG, BIG, false);
	send_in(state, BIG, 4713 * 2, false);
}

static void test_send_small_pieces(void **state)
{
	send_in(state, 600, 10, false);
	send_in(state, 1, 1, false);
}

static void test_send_to_slow_peer(void **state)
{
	send_in(state, BIG, 4713 * 2, true);
}

/* Both directions at a time, while a peer that asks for new keys is answered. */
static void test_key_update_is_answered(void **state)
{
	struct mux *m = make(state);
	unsigned char data[10];
	char got[64];
	struct end e;
	struct hand h;

	fill_pattern(data, sizeof data);
	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	end_recv(&e);
	assert_int_equal(SSL_key_update(h.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
	hand_write(&h, data, sizeof data);
	hand_push(&h, m, 65536);
	run_until(m, &e.received, 1);
	assert_true(e.good && e.bytes == sizeof data);
	end_say(&e, "after");
	run_until(m, &e.sent, 1);
	rounds(m);
	hand_pull(&h);
	assert_int_equal(SSL_read(h.ssl, got, sizeof got), 5);
	assert_memory_equal(got, "after", 5);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

/* A client that asks for it is told no, whether or not the owner has something to say. */
static void test_renegotiation_is_refused(void **state)
{
	struct mux *m = make(state);
	struct end e;
	struct hand h;

	pair_up(&e, &h, m, 65536, TLS1_2_VERSION);
	end_recv(&e);
	assert_int_equal(SSL_renegotiate(h.ssl), 1);
	SSL_do_handshake(h.ssl);
	hand_push(&h, m, 65536);
	for (int i = 0; i < 100 && BIO_pending(h.in) == 0; i++) {
		rounds(m);
		hand_pull(&h);
	}
	ERR_clear_error();
	assert_int_equal(SSL_do_handshake(h.ssl), -1);
	assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
	assert_int_equal(e.received, 0);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

/* ---- ends ---- */

static void test_end_when_notified(void **state)
{
	struct mux *m = make(state);
	unsigned char data[3] = {0, 31, 62};
	struct end e;
	struct hand h;

	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	end_recv(&e);
	hand_write(&h, data, sizeof data);
	SSL_shutdown(h.ssl);
	hand_push(&h, m, 65536);
	run_until(m, &e.received, 1);
	assert_int_equal(e.recv_result, 3);
	end_recv(&e);
	run_until(m, &e.received, 2);
	assert_int_equal(e.recv_result, 0);
	/* Again and again, and the other direction is still open. */
	end_recv(&e);
	run_until(m, &e.received, 3);
	assert_int_equal(e.recv_result, 0);
	end_say(&e, "bye");
	run_until(m, &e.sent, 1);
	assert_int_equal(e.send_result, 3);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

static void test_end_when_cut(void **state)
{
	struct mux *m = make(state);
	struct end e;
	struct hand h;

	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	end_recv(&e);
	shutdown(h.fd, SHUT_WR);
	run_until(m, &e.received, 1);
	assert_int_equal(e.recv_result, -ECONNABORTED);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

static void test_close_notifies_the_peer(void **state)
{
	struct mux *m = make(state);
	char got[8];
	struct end e;
	struct hand h;

	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	end_close(&e);
	hand_pull(&h);
	assert_int_equal(SSL_read(h.ssl, got, sizeof got), 0);
	assert_int_equal(SSL_get_shutdown(h.ssl), SSL_RECEIVED_SHUTDOWN);
	hand_close(&h);
	mux_destroy(m);
}

static void test_rubbish_in_the_middle(void **state)
{
	struct mux *m = make(state);
	unsigned char data[3] = {0, 31, 62};
	struct end e;
	struct hand h;
	char *bytes;
	long len;

	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	end_recv(&e);
	hand_write(&h, data, sizeof data);
	hand_write(&h, data, sizeof data);
	len = BIO_get_mem_data(h.out, &bytes);
	bytes[len - 1] ^= 1;
	hand_push(&h, m, 65536);
	run_until(m, &e.received, 1);
	assert_int_equal(e.recv_result, 3);
	end_recv(&e);
	run_until(m, &e.received, 2);
	assert_int_equal(e.recv_result, -EPROTO);
	assert_string_not_equal(stream_why(&e.s), "");
	end_say(&e, "more");
	run_until(m, &e.sent, 1);
	assert_true(e.send_result < 0);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

static void test_handshake_with_rubbish(void **state)
{
	const struct tls_wish wish = {.context = server};
	struct mux *m = make(state);
	struct end e;
	int fds[2];

	make_tcp_pair(fds);
	end_open(&e, m, fds[1]);
	end_secure(&e, &wish);
	write_all(fds[0], "EHLO client.test\r\n", 18);
	run_until(m, &e.secured, 1);
	assert_int_equal(e.secure_result, -EPROTO);
	assert_non_null(strstr(e.why, "wrong version number"));
	end_close(&e);
	close(fds[0]);
	mux_destroy(m);
}

/* TLS 1.1 is refused, and the client is told why. */
static void test_handshake_with_old_version(void **state)
{
	const struct tls_wish wish = {.context = server};
	struct mux *m = make(state);
	struct end e;
	struct hand h;
	int fds[2];

	make_tcp_pair(fds);
	end_open(&e, m, fds[1]);
	hand_open(&h, fds[0], false);
	SSL_set_security_level(h.ssl, 0);
	SSL_set_min_proto_version(h.ssl, TLS1_VERSION);
	SSL_set_max_proto_version(h.ssl, TLS1_1_VERSION);
	end_secure(&e, &wish);
	SSL_do_handshake(h.ssl);
	hand_push(&h, m, 65536);
	run_until(m, &e.secured, 1);
	assert_int_equal(e.secure_result, -EPROTO);
	assert_string_equal(e.why, "unsupported protocol");
	hand_pull(&h);
	ERR_clear_error();
	assert_int_equal(SSL_do_handshake(h.ssl), -1);
	assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

static void test_handshake_when_peer_goes(void **state)
{
	const struct tls_wish wishes[] = {{.context = server}, {.context = client}};

	for (int i = 0; i < 2; i++) {
		struct mux *m = make(state);
		struct end e;
		int fds[2];

		make_tcp_pair(fds);
		end_open(&e, m, fds[1]);
		end_secure(&e, &wishes[i]);
		rounds(m);
		close(fds[0]);
		run_until(m, &e.secured, 1);
		assert_true(e.secure_result < 0);
		assert_non_null(strstr(stream_why(&e.s), "closed"));
		end_close(&e);
		mux_destroy(m);
	}
}

/* ---- cancel ---- */

/* After `turns` of a handshake that a hand answers. */
static void cancel_after(void **state, int turns)
{
	const struct tls_wish wish = {.context = server};
	struct mux *m = make(state);
	struct end e;
	struct hand h;
	int secured;
	int heard;
	int fds[2];

	make_tcp_pair(fds);
	end_open(&e, m, fds[1]);
	hand_open(&h, fds[0], false);
	end_secure(&e, &wish);
	for (int i = 0; i < turns && e.secured == 0; i++) {
		SSL_do_handshake(h.ssl);
		hand_push(&h, m, 65536);
		hand_pull(&h);
	}
	if (e.secured != 0) {
		end_recv(&e);
		end_say(&e, "unsent");
	}
	secured = e.secured;
	assert_int_equal(secured, turns > 1 ? 1 : 0);
	stream_cancel(&e.s);
	heard = mux_op_busy(&e.s.recv) ? 1 : 0;
	while (stream_busy(&e.s)) {
		turn(m, 64);
	}
	settle(m);
	assert_int_equal(e.received, heard);
	assert_int_equal(e.recv_result, -ECANCELED);
	assert_int_equal(e.secured, secured);
	assert_int_equal(e.sent, secured);
	stream_close(&e.s);
	hand_close(&h);
	mux_destroy(m);
}

static void test_cancel_at_each_moment(void **state)
{
	for (int turns = 0; turns < 5; turns++) {
		cancel_after(state, turns);
	}
}

static void test_cancel_when_peer_reads_nothing(void **state)
{
	static unsigned char data[8 << 20];
	struct mux *m = make(state);
	struct end e;
	struct hand h;

	pair_up(&e, &h, m, 65536, TLS1_3_VERSION);
	e.iov[0] = (struct iovec){data, sizeof data};
	stream_send(&e.s, e.iov, 1);
	for (int i = 0; i < 50; i++) {
		rounds(m);
	}
	assert_int_equal(e.sent, 0);
	assert_true(stream_send_busy(&e.s));
	stream_cancel(&e.s);
	run_until(m, &e.sent, 1);
	assert_int_equal(e.send_result, -ECANCELED);
	end_close(&e);
	hand_close(&h);
	mux_destroy(m);
}

/* ---- two streams ---- */

/* A client stream and a server stream, until both were secured or refused. */
static void meet(struct mux *m, struct end ends[2], const struct tls_wish *asks,
		 struct tls_context *answers)
{
	const struct tls_wish wish = {.context = answers};
	int fds[2];

	make_tcp_pair(fds);
	end_open(&ends[0], m, fds[0]);
	end_open(&ends[1], m, fds[1]);
	end_secure(&ends[0], asks);
	end_secure(&ends[1], &wish);
	run_until(m, &ends[0].secured, 1);
	if (ends[0].secure_result != 0) {
		end_close(&ends[0]);
		run_until(m, &ends[1].secured, 1);
		end_close(&ends[1]);
		return;
	}
	run_until(m, &ends[1].secured, 1);
}

static void part(struct end ends[2])
{
	end_close(&ends[0]);
	end_close(&ends[1]);
}

static void test_send_and_receive_when_secured(void **state)
{
	const struct tls_wish wish = {.context = client, .name = "mx.test"};
	const struct tls_wish answer = {.context = server};
	struct mux *m = make(state);
	struct end ends[2];
	int fds[2];

	make_tcp_pair(fds);
	for (int i = 0; i < 2; i++) {
		end_open(&ends[i], m, fds[i]);
		ends[i].recv_when_secured = true;
		ends[i].say_when_secured = "hello";
		end_secure(&ends[i], i == 0 ? &wish : &answer);
	}
	for (int i = 0; i < 2; i++) {
		run_until(m, &ends[i].received, 1);
		run_until(m, &ends[i].sent, 1);
		assert_memory_equal(ends[i].last, "hello", 5);
		assert_int_equal(ends[i].send_result, 5);
		assert_string_equal(stream_agreed(&ends[i].s).version, "TLSv1.3");
		assert_string_equal(stream_agreed(&ends[i].s).verification, "none");
	}
	part(ends);
	mux_destroy(m);
}

static void test_sessions_are_resumed(void **state)
{
	struct tls_sessions sessions;
	const struct tls_wish wish = {.context = client,
				      .name = "mx.test",
				      .verify = TLS_VERIFY_PKIX,
				      .sessions = &sessions,
				      .session_key = "pkix mx.test"};
	struct mux *m = make(state);

	tls_sessions_init(&sessions);
	for (int i = 0; i < 3; i++) {
		struct end ends[2];

		meet(m, ends, &wish, server);
		assert_int_equal(ends[0].secure_result, 0);
		assert_int_equal(stream_agreed(&ends[0].s).resumed, i > 0);
		assert_true(stream_agreed(&ends[0].s).verified);
		assert_string_equal(stream_agreed(&ends[0].s).verification, "pkix");
		/* Tickets come with the first data. */
		end_recv(&ends[0]);
		end_say(&ends[1], "220");
		run_until(m, &ends[0].received, 1);
		part(ends);
	}
	tls_sessions_close(&sessions);
	mux_destroy(m);
}

static void verify(void **state, const char *certificate, enum tls_verify how, const char *name,
		   const char *why)
{
	const struct tls_wish wish = {.context = client, .name = name, .verify = how};
	struct tls_context *answers = tls_test_server(certificate);
	struct mux *m = make(state);
	struct end ends[2];

	meet(m, ends, &wish, answers);
	if (why == NULL) {
		assert_int_equal(ends[0].secure_result, 0);
		part(ends);
	} else {
		assert_int_equal(ends[0].secure_result, -EPROTO);
		assert_non_null(strstr(ends[0].why, why));
		/* The client says so. */
		assert_int_equal(ends[1].secure_result, -EPROTO);
		assert_non_null(strstr(ends[1].why, "the peer's alert"));
	}
	tls_context_free(answers);
	mux_destroy(m);
}

static void test_verification_by_roots_and_name(void **state)
{
	verify(state, "mx.pem", TLS_VERIFY_PKIX, "mx.test", NULL);
	verify(state, "mx.pem", TLS_VERIFY_PKIX, "MX.test", NULL);
	verify(state, "mx.pem", TLS_VERIFY_PKIX, "other.test", "hostname mismatch");
	verify(state, "expired.pem", TLS_VERIFY_PKIX, "mx.test", "expired");
	verify(state, "self.pem", TLS_VERIFY_PKIX, "mx.test", "self-signed");
	verify(state, "expired.pem", TLS_VERIFY_NONE, "other.test", NULL);
	verify(state, "self.pem", TLS_VERIFY_NONE, NULL, NULL);
}

static int make_contexts(void **state)
{
	if (tls_make_files(state) != 0) {
		return -1;
	}
	server = tls_test_server("mx.pem");
	client = tls_test_client();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_passes_through),
		cmocka_unit_test(test_connect_tells_by_sent),
		cmocka_unit_test(test_handshake_and_data_in_pieces),
		cmocka_unit_test(test_data_when_cut_anywhere),
		cmocka_unit_test(test_data_with_handshake_when_asked_at_once),
		cmocka_unit_test(test_data_with_handshake_when_asked_later),
		cmocka_unit_test(test_send_large),
		cmocka_unit_test(test_send_small_pieces),
		cmocka_unit_test(test_send_to_slow_peer),
		cmocka_unit_test(test_key_update_is_answered),
		cmocka_unit_test(test_renegotiation_is_refused),
		cmocka_unit_test(test_end_when_notified),
		cmocka_unit_test(test_end_when_cut),
		cmocka_unit_test(test_close_notifies_the_peer),
		cmocka_unit_test(test_rubbish_in_the_middle),
		cmocka_unit_test(test_handshake_with_rubbish),
		cmocka_unit_test(test_handshake_with_old_version),
		cmocka_unit_test(test_handshake_when_peer_goes),
		cmocka_unit_test(test_cancel_at_each_moment),
		cmocka_unit_test(test_cancel_when_peer_reads_nothing),
		cmocka_unit_test(test_send_and_receive_when_secured),
		cmocka_unit_test(test_sessions_are_resumed),
		cmocka_unit_test(test_verification_by_roots_and_name),
	};
	int failed;

	if (make_contexts(NULL) != 0) {
		fprintf(stderr, "no certificates\n");
		return 1;
	}
	failed = run_each_backend(tests, sizeof(tests) / sizeof(tests[0]));
	tls_context_free(server);
	tls_context_free(client);
	tls_remove_files(NULL);
	return failed;
}
