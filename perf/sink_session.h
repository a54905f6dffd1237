/*
 * One connection to the sink: the server's side of SMTP (RFC 5321, 2920, 3030), strict about order
 * and about a client that talks before it was asked to.
 *
 * The sink's loop calls sink_session_on_event() for the socket and sink_session_resume() when a
 * pause is over. A session frees itself when its connection ends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "perf/message_reader.h"
#include "perf/sink.h"

enum sink_session_state {
	SESSION_COMMAND,
	/* The DATA reply was 354. */
	SESSION_BODY,
	/* The octets of a chunk are to come. */
	SESSION_CHUNK,
	/* The banner refused the client: only QUIT is answered. */
	SESSION_REFUSED,
};

struct sink_session {
	struct sink *sink;
	struct sink_session *next;
	struct sink_session *prev;
	struct sink_session *next_paused;
	int fd;
	/* NULL: plain text. */
	SSL *tls;
	/* The handshake is under way. */
	bool shaking;
	uint64_t number;
	enum sink_session_state state;
	bool greeted;
	/* It was offered, so the client may send commands in groups. */
	bool pipelining;
	bool has_sender;
	/* Close once the output is sent. */
	bool closing;
	/* Close at once. */
	bool dropped;
	/* Neither reads nor answers before resume_ns (MOMENT_NEVER: never again). */
	bool paused;
	bool listed_paused;
	uint64_t resume_ns;
	/* Lines still to send; UINT64_MAX: without end. What `flood_end` holds follows them. */
	uint64_t flood_lines;
	struct text flood_end;
	struct text in;
	struct text out;
	struct message_reader reader;
	bool body_started;
	/* Octets of the chunk that are still to come; those of one that was refused are dropped. */
	uint64_t chunk_left;
	bool chunk_last;
	bool chunk_dropped;
	uint64_t messages;
	struct sink_recipient *recipients;
	unsigned recipient_count;
	unsigned recipient_capacity;
	struct text first_recipient;
	/* Number of the domain that this connection sends to, or UINT32_MAX. */
	uint32_t domain;
};

/* Takes over the accepted socket `fd` and greets the client. */
void sink_session_open(struct sink *sink, int fd);

/* The socket is readable, writable or broken, as `events` (of epoll) say. */
void sink_session_on_event(struct sink_session *s, uint32_t events);

/* Goes on with a session whose pause is over. */
void sink_session_resume(struct sink_session *s);

void sink_session_close(struct sink_session *s);
