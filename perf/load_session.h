/*
 * One connection of the load generator: the client's side of SMTP (RFC 5321, RFC 2920).
 *
 * A session waits for each reply; MAIL, RCPT and DATA go out together when the server offers
 * PIPELINING. It is over when the run has no message left for it, or when it cannot connect.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "perf/load.h"

/* What the session waits for. */
enum load_state {
	/* Nothing: it ended. */
	LOAD_OVER,
	/* Its time, wake_ns: to connect again or to try again. */
	LOAD_PAUSED,
	LOAD_CONNECTING,
	/* The end of the TLS handshake. */
	LOAD_SHAKING,
	LOAD_BANNER,
	LOAD_STARTTLS,
	LOAD_EHLO,
	LOAD_HELO,
	/* A message that is due. */
	LOAD_IDLE,
	LOAD_MAIL,
	LOAD_RCPT,
	LOAD_DATA,
	LOAD_DOT,
	LOAD_RSET,
	LOAD_QUIT,
	/* The server's end of the connection. */
	LOAD_CLOSING,
};

enum load_recipient_state {
	RECIPIENT_PENDING,
	/* Accepted in the transaction that is under way. */
	RECIPIENT_TAKEN,
	RECIPIENT_DONE,
	RECIPIENT_REFUSED,
};

struct load_session {
	struct load *load;
	enum load_state state;
	int fd;
	/* NULL: plain text. */
	SSL *tls;
	bool pipelining;
	bool offers_size;
	bool has_message;
	/* Set from the reply to MAIL to that of the final dot: RSET clears it otherwise. */
	bool mail_accepted;
	struct load_session *next_idle;
	uint64_t wake_ns;
	/* The reply that is waited for must be here by then. */
	uint64_t deadline_ns;
	/* Since when connecting has failed; 0: it did not. */
	uint64_t connect_failing_ns;
	uint64_t sent_on_connection;

	uint64_t number;
	uint64_t start_ns;
	const struct message_body *body;
	/* One per recipient of the message. */
	uint8_t *recipients;
	/* The recipient whose reply is next. */
	unsigned recipient;
	unsigned taken;
	/* The code that refused MAIL when the rest of the group was already sent; 0: none. */
	unsigned refusal;

	/* Output: `out`, then `tail`; `sent` bytes of both have gone. */
	struct text out;
	const char *tail;
	size_t tail_len;
	size_t sent;
	/* The beginning of a line that is not yet complete. */
	struct text in;
};

void load_session_init(struct load_session *s, struct load *load);

/* Connects. Also when a pause is over and the connection is gone. */
void load_session_connect(struct load_session *s);

/* A message became due and the session was idle; it is no longer listed as such. */
void load_session_start(struct load_session *s);

/* The socket is readable, writable or broken, as `events` (of epoll) say. */
void load_session_on_event(struct load_session *s, uint32_t events);

/* The pause is over, or the deadline has passed. */
void load_session_on_time(struct load_session *s);

/* The run is over: counts the message in hand as an error. */
void load_session_end(struct load_session *s);

void load_session_free(struct load_session *s);
