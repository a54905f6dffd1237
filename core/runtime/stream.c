#include "core/runtime/stream.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "core/runtime/check.h"

/* Plain text of one record (RFC 8446 section 5.1). */
#define RECORD_MAX 16384
/* What a record has around its plain text, at most: TLS 1.2 with CBC and SHA-384. */
#define RECORD_OVERHEAD 128
#define OUTPUT_MIN 512
/* Beyond what the owner sends: tickets, alerts, answers to a peer that asks for new keys again and
 * again and reads none of them. */
#define OUTPUT_MAX (STREAM_SEND_MAX + 65536)

enum tls_state { TLS_HANDSHAKE, TLS_OPEN, TLS_FAILED };

/* Ciphertext to be sent. */
struct output {
	unsigned char *data;
	size_t len;
	size_t size;
};

BOUND
struct stream_tls {
	SSL *ssl;
	stream_secured_fn on_secured;
	enum tls_state state;
	bool cancelled;
	/* The owner waits for data; has something under way to send. */
	bool receiving;
	bool sending;
	bool notified;
	/* This completion of recv brings nothing: there is something to tell, or to say first. */
	bool prompted;
	/* Nothing more will come; what the owner hears then: 0 or a negative errno. */
	bool ended;
	int end_result;
	/* A send failed, or nothing more can be encrypted. */
	int send_error;
	/* Ciphertext that OpenSSL is to read, while it is called; what is left of it after the
	 * handshake is kept. */
	const unsigned char *input;
	size_t input_len;
	unsigned char *kept;
	/* Not at the kernel, and at the kernel. */
	struct output next;
	struct output sent;
	struct iovec iov;
	/* The owner's, of which this much is to be encrypted. */
	struct iovec *plain;
	unsigned plain_count;
	size_t plain_len;
	size_t plain_done;
	char why[TLS_WHY];
};

/* Where plain text is gathered into a record, and where it is decrypted to: each lent to one
 * callback at a time, so that one of them for a thread is enough. */
static _Thread_local unsigned char gathered[RECORD_MAX];
static _Thread_local unsigned char decrypted[STREAM_RECV_MAX];

/* ---- OpenSSL's side: its input is what was received, its output what will be sent ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static BIO_METHOD *bio_method;

static int output_reserve(struct output *o, size_t len)
{
	size_t size = o->len + len;
	unsigned char *data;

	if (size <= o->size) {
		return 0;
	}
	if (size > OUTPUT_MAX) {
		return -ENOBUFS;
	}
	size = size < OUTPUT_MIN ? OUTPUT_MIN : size;
	data = realloc(o->data, size);
	if (data == NULL) {
		return -ENOMEM;
	}
	o->data = data;
	o->size = size;
	return 0;
}

static void output_free(struct output *o)
{
	free(o->data);
	*o = (struct output){0};
}

static int bio_write(BIO *bio, const char *data, int len)
{
	struct stream_tls *t = BIO_get_data(bio);
	int error;

	BIO_clear_retry_flags(bio);
	if (len <= 0) {
		return 0;
	}
	error = output_reserve(&t->next, (size_t)len);
	if (error != 0) {
		t->send_error = error;
		return -1;
	}
	memcpy(t->next.data + t->next.len, data, (size_t)len);
	t->next.len += (size_t)len;
	return len;
}

static int bio_read(BIO *bio, char *data, int len)
{
	struct stream_tls *t = BIO_get_data(bio);
	size_t n = t->input_len < (size_t)len ? t->input_len : (size_t)len;

	BIO_clear_retry_flags(bio);
	if (len <= 0 || n == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(data, t->input, n);
	t->input += n;
	t->input_len -= n;
	return (int)n;
}

static long bio_control(BIO *bio, int command, long value, void *pointer)
{
	(void)bio;
	(void)value;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static void make_bio_method(void)
{
	int type = BIO_get_new_index();

	bio_method = type < 0 ? NULL : BIO_meth_new(type | BIO_TYPE_SOURCE_SINK, "stream");
	if (bio_method == NULL || BIO_meth_set_write(bio_method, bio_write) != 1 ||
	    BIO_meth_set_read(bio_method, bio_read) != 1 ||
	    BIO_meth_set_ctrl(bio_method, bio_control) != 1) {
		fatal("out of memory for a BIO method");
	}
}

/* ---- sending ---- */

/* Up to a record of what the owner sends, in one piece; its length. */
static size_t gather(struct stream_tls *t, const void **record)
{
	size_t len = 0;

	while (t->plain_count > 0 && t->plain->iov_len == 0) {
		t->plain++;
		t->plain_count--;
	}
	if (t->plain_count > 0 && t->plain->iov_len >= RECORD_MAX) {
		*record = t->plain->iov_base;
		t->plain->iov_base = (char *)t->plain->iov_base + RECORD_MAX;
		t->plain->iov_len -= RECORD_MAX;
		return RECORD_MAX;
	}
	*record = gathered;
	while (t->plain_count > 0 && len < RECORD_MAX) {
		size_t room = RECORD_MAX - len;
		size_t n = t->plain->iov_len < room ? t->plain->iov_len : room;

		if (n > 0) {
			memcpy(gathered + len, t->plain->iov_base, n);
		}
		len += n;
		t->plain->iov_base = (char *)t->plain->iov_base + n;
		t->plain->iov_len -= n;
		if (t->plain->iov_len == 0) {
			t->plain++;
			t->plain_count--;
		}
	}
	return len;
}

static void encrypt(struct stream_tls *t)
{
	size_t left = t->plain_len - t->plain_done;
	size_t now = left < STREAM_SEND_MAX ? left : STREAM_SEND_MAX;

	if (t->send_error == 0) {
		t->send_error =
			output_reserve(&t->next, now + (now / RECORD_MAX + 1) * RECORD_OVERHEAD);
	}
	for (size_t done = 0; done < STREAM_SEND_MAX && t->send_error == 0;) {
		const void *record;
		size_t len = gather(t, &record);

		if (len == 0) {
			return;
		}
		t->plain_done += len;
		ERR_clear_error();
		if (SSL_write(t->ssl, record, (int)len) != (int)len) {
			t->send_error = t->send_error != 0 ? t->send_error : -EPROTO;
			tls_explain(t->ssl, t->why);
		}
		done += len;
	}
}

/* Hands what is encrypted to the kernel; when there is none, encrypts the owner's. False when there
 * was nothing to do. */
BOUND
static bool send_on(struct stream *s)
{
	struct stream_tls *t = s->tls;

	if (mux_op_busy(&s->send)) {
		return true;
	}
	if (t->next.len == 0 && t->sending) {
		encrypt(t);
	}
	if (t->next.len == 0 || t->send_error != 0) {
		return false;
	}
	t->sent = t->next;
	t->next = (struct output){0};
	t->iov = (struct iovec){t->sent.data, t->sent.len};
	mux_send(s->agent->mux, &s->send, s->fd, &t->iov, 1);
	return true;
}

/* The last words, if the kernel takes them at once. */
BOUND
static void send_now(struct stream *s)
{
	struct stream_tls *t = s->tls;

	if (t->next.len > 0 && t->send_error == 0 && !mux_op_busy(&s->send)) {
		(void)!send(s->fd, t->next.data, t->next.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	output_free(&t->next);
}

BOUND
static void tell_sent(struct stream *s, int result)
{
	s->tls->sending = false;
	s->on_sent(s, result);
}

BOUND
static void tls_sent(struct mux_op *op, int result)
{
	struct stream *s = CONTAINER_OF(op, struct stream, send);
	struct stream_tls *t = s->tls;

	output_free(&t->sent);
	if (result < 0 && t->send_error == 0) {
		t->send_error = result;
	}
	if (t->cancelled) {
		tell_sent(s, -ECANCELED);
	} else if (t->sending && t->send_error != 0) {
		tell_sent(s, t->send_error);
	} else if (t->sending && t->plain_count == 0 && t->next.len == 0) {
		tell_sent(s, (int)t->plain_len);
	} else if (!send_on(s) && t->sending) {
		tell_sent(s, t->send_error != 0 ? t->send_error : (int)t->plain_len);
	}
}

BOUND
static void tls_send(struct stream *s, struct iovec *iov, unsigned count)
{
	struct stream_tls *t = s->tls;

	ASSERT(t->state != TLS_HANDSHAKE && !t->sending);
	t->sending = true;
	t->plain = iov;
	t->plain_count = count;
	t->plain_len = 0;
	t->plain_done = 0;
	if (t->state == TLS_FAILED && t->send_error == 0) {
		t->send_error = -EPROTO;
	}
	for (unsigned i = 0; i < count; i++) {
		t->plain_len += iov[i].iov_len;
	}
	if (!send_on(s)) {
		mux_nop(s->agent->mux, &s->send);
	}
}

void stream_send_by(struct stream *s, struct iovec *iov, unsigned count)
{
	if (s->tap != NULL) {
		s->tap->ops->sending(s->tap, iov, count);
	}
	if (s->tls != NULL) {
		tls_send(s, iov, count);
	} else {
		mux_send(s->agent->mux, &s->send, s->fd, iov, count);
	}
}

bool stream_tls_send_busy(const struct stream *s)
{
	return s->tls->sending || (s->tls->cancelled && mux_op_busy(&s->send));
}

/* ---- receiving ---- */

static void end_with(struct stream_tls *t, int result)
{
	if (!t->ended) {
		t->ended = true;
		t->end_result = result;
	}
}

/* After a call of OpenSSL that wants no more input: the end, or a failure. */
BOUND
static void end_by(struct stream *s, int returned)
{
	struct stream_tls *t = s->tls;

	if (SSL_get_error(t->ssl, returned) == SSL_ERROR_ZERO_RETURN) {
		end_with(t, 0);
		return;
	}
	tls_explain(t->ssl, t->why);
	if (t->send_error == -ENOBUFS) {
		snprintf(t->why, sizeof t->why, "the peer asks for answers and reads none");
	}
	t->state = TLS_FAILED;
	end_with(t, -EPROTO);
	/* The alert that says so. */
	send_now(s);
}

/* Decrypts all that came, to `decrypted`; its length. */
BOUND
static size_t decrypt(struct stream *s)
{
	struct stream_tls *t = s->tls;
	size_t len = 0;
	int n;

	ERR_clear_error();
	do {
		ASSERT(len < sizeof decrypted);
		n = SSL_read(t->ssl, decrypted + len, (int)(sizeof decrypted - len));
		len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	if (SSL_get_error(t->ssl, n) != SSL_ERROR_WANT_READ) {
		end_by(s, n);
	} else if (t->next.len > 0) {
		send_on(s);
	}
	return len;
}

static void drop_input(struct stream_tls *t)
{
	t->input = NULL;
	t->input_len = 0;
	free(t->kept);
	t->kept = NULL;
}

/* Data may follow the handshake in one piece: it waits until the owner asks. */
static void keep_input(struct stream_tls *t)
{
	unsigned char *copy = NULL;

	if (t->input_len > 0) {
		copy = malloc(t->input_len);
		if (copy == NULL) {
			end_with(t, -ENOMEM);
			t->input_len = 0;
		} else {
			memcpy(copy, t->input, t->input_len);
		}
	}
	free(t->kept);
	t->kept = copy;
	t->input = copy;
}

BOUND
static void tell_secured(struct stream *s, int result)
{
	stream_secured_fn on_secured = s->tls->on_secured;

	s->tls->receiving = false;
	s->tls->on_secured = NULL;
	if (s->tap != NULL) {
		stream_note_secured(s, result);
	}
	on_secured(s, result);
}

BOUND
static void handshake(struct stream *s)
{
	struct stream_tls *t = s->tls;
	int n;

	ERR_clear_error();
	n = SSL_do_handshake(t->ssl);
	if (n == 1) {
		t->state = TLS_OPEN;
		keep_input(t);
		send_on(s);
		tell_secured(s, 0);
	} else if (SSL_get_error(t->ssl, n) == SSL_ERROR_WANT_READ) {
		drop_input(t);
		send_on(s);
		mux_recv(s->agent->mux, &s->recv, s->fd);
	} else {
		end_by(s, n);
		tell_secured(s, t->end_result != 0 ? t->end_result : -EPROTO);
	}
}

/* The socket itself has ended, or failed. */
static void end_of_socket(struct stream_tls *t, int result)
{
	if (t->state == TLS_HANDSHAKE) {
		snprintf(t->why, sizeof t->why, "the peer closed the connection%s%s",
			 result < 0 ? ": " : "", result < 0 ? strerror(-result) : "");
		t->state = TLS_FAILED;
	}
	end_with(t, result < 0 ? result : -ECONNABORTED);
}

/*
 * What a receive brought, or the next reap when there was something to tell already. All of it is
 * decrypted at once, so that nothing is left for the next time.
 */
BOUND
static void tls_received(struct mux_op *op, int result)
{
	struct stream *s = CONTAINER_OF(op, struct stream, recv);
	struct stream_tls *t = s->tls;
	size_t len = 0;

	if (t->cancelled || (result == -ECANCELED && !t->prompted)) {
		t->receiving = false;
		s->on_received(s, NULL, -ECANCELED);
		return;
	}
	if (!t->prompted) {
		if (result > 0) {
			t->input = op->data;
			t->input_len = (size_t)result;
		} else {
			end_of_socket(t, result);
		}
	}
	t->prompted = false;
	if (t->on_secured != NULL && t->ended) {
		tell_secured(s, t->end_result);
		return;
	}
	if (t->state == TLS_HANDSHAKE) {
		handshake(s);
		return;
	}
	if (t->input_len > 0) {
		len = decrypt(s);
		drop_input(t);
	}
	if (len == 0 && !t->ended) {
		mux_recv(s->agent->mux, &s->recv, s->fd);
		return;
	}
	t->receiving = false;
	s->on_received(s, decrypted, len > 0 ? (int)len : t->end_result);
}

BOUND
static void prompt(struct stream *s)
{
	s->tls->prompted = true;
	mux_nop(s->agent->mux, &s->recv);
}

void stream_tls_recv(struct stream *s)
{
	struct stream_tls *t = s->tls;

	ASSERT(t->state != TLS_HANDSHAKE && !t->receiving);
	t->receiving = true;
	if (t->ended || t->kept != NULL) {
		prompt(s);
	} else {
		mux_recv(s->agent->mux, &s->recv, s->fd);
	}
}

bool stream_tls_recv_busy(const struct stream *s)
{
	return s->tls->receiving || mux_op_busy(&s->recv);
}

/* ---- life ---- */

static void plain_received(struct mux_op *op, int result)
{
	struct stream *s = CONTAINER_OF(op, struct stream, recv);

	s->on_received(s, op->data, result);
}

static void plain_sent(struct mux_op *op, int result)
{
	struct stream *s = CONTAINER_OF(op, struct stream, send);

	s->on_sent(s, result);
}

void stream_init(struct stream *s, struct agent *agent, stream_received_fn on_received,
		 stream_sent_fn on_sent)
{
	s->agent = agent;
	s->fd = -1;
	s->direct = true;
	s->tap = NULL;
	s->tls = NULL;
	s->on_received = on_received;
	s->on_sent = on_sent;
	mux_op_init(&s->recv, agent, plain_received);
	mux_op_init(&s->send, agent, plain_sent);
}

void stream_leave(struct stream *s)
{
	ASSERT(!stream_busy(s) && s->tap == NULL);
	mux_forget(s->agent->mux, s->fd);
	s->agent = NULL;
}

void stream_join(struct stream *s, struct agent *agent)
{
	s->agent = agent;
	mux_op_init(&s->recv, agent, s->recv.on_complete);
	mux_op_init(&s->send, agent, s->send.on_complete);
}

void stream_connect(struct stream *s, const struct sockaddr_storage *address, socklen_t len)
{
	s->send.address = *address;
	s->send.address_len = len;
	mux_connect(s->agent->mux, &s->send, s->fd);
}

static int attach(struct stream_tls *t)
{
	BIO *bio;

	pthread_once(&once, make_bio_method);
	bio = BIO_new(bio_method);
	if (bio == NULL) {
		return -ENOMEM;
	}
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	/* One reference for each direction. */
	BIO_up_ref(bio);
	SSL_set0_rbio(t->ssl, bio);
	SSL_set0_wbio(t->ssl, bio);
	return 0;
}

void stream_secure(struct stream *s, const struct tls_wish *wish, stream_secured_fn on_secured)
{
	struct stream_tls *t = check_memory(calloc(1, sizeof *t), "a TLS stream");

	ASSERT(s->tls == NULL && !stream_busy(s));
	s->tls = t;
	s->direct = false;
	s->recv.on_complete = tls_received;
	s->send.on_complete = tls_sent;
	t->on_secured = on_secured;
	t->receiving = true;
	t->ssl = tls_open(wish, t->why);
	if (t->ssl == NULL || attach(t) != 0) {
		t->state = TLS_FAILED;
		end_with(t, -EPROTO);
		prompt(s);
	} else if (SSL_is_server(t->ssl)) {
		mux_recv(s->agent->mux, &s->recv, s->fd);
	} else {
		prompt(s);
	}
}

void stream_cancel(struct stream *s)
{
	if (s->tls != NULL) {
		s->tls->cancelled = true;
	}
	mux_cancel(s->agent->mux, &s->recv);
	mux_cancel(s->agent->mux, &s->send);
}

void stream_stop_recv(struct stream *s)
{
	mux_cancel(s->agent->mux, &s->recv);
}

/* Only where a part of a record cannot have been sent before. */
BOUND
static void notify_close(struct stream *s)
{
	struct stream_tls *t = s->tls;

	if (t == NULL || t->state != TLS_OPEN || t->notified || t->send_error != 0 ||
	    mux_op_busy(&s->send)) {
		return;
	}
	t->notified = true;
	ERR_clear_error();
	SSL_shutdown(t->ssl);
	ERR_clear_error();
	send_now(s);
	t->send_error = -EPIPE;
}

void stream_end(struct stream *s)
{
	notify_close(s);
	shutdown(s->fd, SHUT_WR);
}

void stream_release(struct stream *s)
{
	struct stream_tls *t = s->tls;

	ASSERT(!stream_busy(s));
	if (s->tap != NULL) {
		struct stream_tap *tap = s->tap;

		stream_tap_off(s);
		tap->ops->closed(tap);
	}
	if (t == NULL) {
		return;
	}
	notify_close(s);
	SSL_free(t->ssl);
	drop_input(t);
	output_free(&t->next);
	output_free(&t->sent);
	free(t);
	s->tls = NULL;
	s->direct = true;
}

void stream_close(struct stream *s)
{
	stream_release(s);
	mux_close(s->agent->mux, s->fd);
	s->fd = -1;
}

struct tls_agreed stream_agreed(const struct stream *s)
{
	return tls_agreed(s->tls->ssl);
}

const SSL *stream_session(const struct stream *s)
{
	return s->tls->ssl;
}

enum tls_fault stream_fault(const struct stream *s)
{
	return s->tls != NULL && s->tls->ssl != NULL ? tls_fault(s->tls->ssl) : TLS_FAULT_OTHER;
}

const char *stream_why(const struct stream *s)
{
	return s->tls != NULL ? s->tls->why : "";
}
