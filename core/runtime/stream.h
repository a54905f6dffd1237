/*
 * Stream: a socket of an agent's multiplexor that begins in plain text and may become TLS, and
 * looks the same to its owner either way. In plain text it is the multiplexor's receive and send,
 * and nothing else. With TLS it encrypts and decrypts in memory; OpenSSL never touches the socket.
 *
 * As with the multiplexor, one receive and one send may be under way, and callbacks run from
 * mux_reap() only. Belongs to the agent that opened it. Start reading at tls_received() in
 * stream.c.
 *
 * A tap sees what goes by, in plain text. A stream without one pays nothing for that: its sends
 * look at one flag, which says whether there is TLS or a tap.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/runtime/agent.h"
#include "core/runtime/mux.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/tls.h"

/* Largest piece that one receive delivers, in bytes: with TLS, what came and the record that it
 * completes. */
#define STREAM_RECV_MAX (2 * MUX_RECV_MAX + 1024)
/* Plain text that is encrypted and handed to the kernel at a time, in bytes. */
#define STREAM_SEND_MAX 65536

struct stream;
struct stream_tap;
struct stream_tls;

/* `data` is lent for the length of the callback. `result`: bytes, 1 or more; 0 at the end of the
 * stream (with TLS: announced by close_notify); or a negative errno: -ECONNABORTED when a TLS
 * stream was cut, -EPROTO when the peer broke TLS (stream_why()), -ECANCELED. */
typedef void (*stream_received_fn)(struct stream *s, const unsigned char *data, int result);
/* `result`: bytes sent in all, 0 for a connect, or a negative errno. */
typedef void (*stream_sent_fn)(struct stream *s, int result);
/* `result`: 0, or a negative errno: -EPROTO when the peers did not agree (stream_why()). */
typedef void (*stream_secured_fn)(struct stream *s, int result);

/* What a tap is told; it may neither send, receive nor close, nor take itself off. */
READONLY
struct stream_tap_ops {
	/* 1 byte or more, before the owner gets them. */
	void (*received)(struct stream_tap *t, const unsigned char *data, size_t len);
	/* Before they are sent. */
	void (*sending)(struct stream_tap *t, const struct iovec *iov, unsigned count);
	/* What happened to the connection, one line: stream_note(). */
	void (*note)(struct stream_tap *t, const char *text);
	/* The stream is closed and has forgotten the tap, which may go. */
	void (*closed)(struct stream_tap *t);
};

/* Part of whatever listens; one at most for a stream. */
BOUND
struct stream_tap {
	const struct stream_tap_ops *ops;
	stream_received_fn owner_received;
};

BOUND
struct stream {
	struct agent *agent;
	int fd;
	/* Neither TLS nor a tap: what is sent goes straight to the multiplexor. */
	bool direct;
	struct stream_tap *tap;
	/* NULL: plain text. */
	struct stream_tls *tls;
	stream_received_fn on_received;
	stream_sent_fn on_sent;
	struct mux_op recv;
	/* Connect, then send. */
	struct mux_op send;
};

/* Sets `s` up without a socket. */
BOUND
void stream_init(struct stream *s, struct agent *agent, stream_received_fn on_received,
		 stream_sent_fn on_sent);

/* Gives it a non-blocking socket, connected, or to be connected by stream_connect(). Who closes it:
 * stream_close(). */
BOUND
static inline void stream_open(struct stream *s, int fd)
{
	s->fd = fd;
}

/* Connects; on_sent(s, 0), or with a negative errno. */
BOUND
void stream_connect(struct stream *s, const struct sockaddr_storage *address, socklen_t len);

/*
 * Begins TLS, as the end that wish->context is for; `wish` is not kept. No receive and no send is
 * under way. What the peer sent in plain text before has been received by the owner, if at all:
 * none is kept here, and whether some may be obeyed is the owner's to decide (RFC 3207 section 6).
 * Afterwards only on_secured is called, until it was: the owner may receive and send from there on.
 */
BOUND
void stream_secure(struct stream *s, const struct tls_wish *wish, stream_secured_fn on_secured);

BOUND
void stream_tls_recv(struct stream *s);
/* What stream_send() does when it is not direct. */
BOUND
void stream_send_by(struct stream *s, struct iovec *iov, unsigned count);

/* Receives once what is there. */
BOUND
static inline void stream_recv(struct stream *s)
{
	if (s->tls == NULL) {
		mux_recv(s->agent->mux, &s->recv, s->fd);
	} else {
		stream_tls_recv(s);
	}
}

/* Sends all of `iov`; as mux_send(), of which it has the limits. */
BOUND
static inline void stream_send(struct stream *s, struct iovec *iov, unsigned count)
{
	if (s->direct) {
		mux_send(s->agent->mux, &s->send, s->fd, iov, count);
	} else {
		stream_send_by(s, iov, count);
	}
}

/* The same for the last words: when they are out, stream_end() or the end of the socket follows at
 * once. Plain text goes along with that, in one segment. */
BOUND
static inline void stream_send_last(struct stream *s, struct iovec *iov, unsigned count)
{
	if (s->direct) {
		mux_send_last(s->agent->mux, &s->send, s->fd, iov, count);
	} else {
		stream_send_by(s, iov, count);
	}
}

BOUND
bool stream_tls_recv_busy(const struct stream *s);
BOUND
bool stream_tls_send_busy(const struct stream *s);

/* The owner's receive is under way, or the handshake. */
BOUND
static inline bool stream_recv_busy(const struct stream *s)
{
	return s->tls == NULL ? mux_op_busy(&s->recv) : stream_tls_recv_busy(s);
}

/* The owner's send is under way. */
BOUND
static inline bool stream_send_busy(const struct stream *s)
{
	return s->tls == NULL ? mux_op_busy(&s->send) : stream_tls_send_busy(s);
}

/* Something is under way, if only TLS's own: the stream cannot be closed yet. */
BOUND
static inline bool stream_busy(const struct stream *s)
{
	return mux_op_busy(&s->recv) || mux_op_busy(&s->send);
}

/* Ends what is under way: for each direction that is busy, the owner's or not, its callback runs
 * once more, on_received or on_sent even in a handshake. Only stream_close() may follow. */
BOUND
void stream_cancel(struct stream *s);

/* Takes the receive that is under way back, and nothing else: on_received(s, NULL, -ECANCELED), or
 * what had come before. The stream may go on, or move. Not in a handshake. */
BOUND
void stream_stop_recv(struct stream *s);

/* Takes a stream away from its agent's multiplexor: nothing is busy, and there is no tap. The
 * agent that gets it calls stream_join() before all else. */
BOUND
void stream_leave(struct stream *s);
BOUND
void stream_join(struct stream *s, struct agent *agent);

/* Tells the peer that nothing more will be sent, when no send is under way: close_notify, if it can
 * go without waiting, and the end of the socket's sending side. */
BOUND
void stream_end(struct stream *s);

/* Forgets TLS, with close_notify if it can go without waiting. The socket stays, for who closes it
 * himself. Nothing may be busy. */
BOUND
void stream_release(struct stream *s);

/* The same, and closes the socket. */
BOUND
void stream_close(struct stream *s);

/* `t` listens from now on, with t->ops set, until stream_tap_off() or its closed(). There is no
 * other tap. May be called from within a callback of the stream, whose data it does not see then.
 */
BOUND
void stream_tap_on(struct stream *s, struct stream_tap *t);

/* Nobody listens any more; not from within a callback of the stream. */
BOUND
void stream_tap_off(struct stream *s);

/* Tells the tap, if there is one. */
BOUND
void stream_note(struct stream *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The tap, which is there, hears how the handshake ended: for stream.c. */
BOUND
void stream_note_secured(struct stream *s, int result);

static inline bool stream_is_secure(const struct stream *s)
{
	return s->tls != NULL;
}

/* What the handshake agreed on; the stream is secure. */
BOUND
struct tls_agreed stream_agreed(const struct stream *s);

/* Its session, for what tls_peer.h tells; the stream is secure. */
BOUND
const SSL *stream_session(const struct stream *s);

/* Why the handshake failed. */
BOUND
enum tls_fault stream_fault(const struct stream *s);

/* What TLS says about its failure, one line; "" when it did not fail. */
BOUND
const char *stream_why(const struct stream *s);
