/*
 * A dispatcher in invoker mode: one scheduler-like agent with a real multiplexor over loopback, the
 * wheel agent in a group of its own, a clock that the test turns, and scripted SMTP servers that
 * are stepped by hand in the same thread. What becomes of each attempt is written down, and the
 * delivery goes back to its queue as a scheduler would send it.
 *
 * After every step the books are checked: queues are valid, and no limit is exceeded.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/wheel.h"
#include "core/outbound/connection.h"
#include "core/outbound/dispatch.h"
#include "core/outbound/obstacle.h"
#include "core/runtime/runtime.h"

#define OUTBOUND_PEERS_MAX 64
#define OUTBOUND_DOMAINS_MAX 64
#define OUTBOUND_OUTCOMES_MAX 4096
#define OUTBOUND_LOADS_MAX 64
#define PEER_CONNECTIONS_MAX 64
#define PEER_LOG_SIZE 65536

/* ---- servers ---- */

enum peer_verb {
	PEER_BANNER,
	PEER_EHLO,
	PEER_HELO,
	PEER_MAIL,
	PEER_RCPT,
	PEER_DATA,
	/* The dot, or the end of a chunk. */
	PEER_BODY,
	PEER_RSET,
	PEER_QUIT,
	PEER_OTHER,
	PEER_VERBS
};

/* In place of a reply: none; close; and reset. A reply that ends in "!" is followed by a close. */
#define PEER_SILENT ""
#define PEER_CLOSE "!"
#define PEER_RESET "!!"

#define PEER_PIPELINING "250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000"
#define PEER_CHUNKING "250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING"
#define PEER_PLAIN "250 mx.test"

struct peer_connection {
	int fd;
	bool in_data;
	/* Octets of a chunk that are still to come. */
	unsigned long chunk_left;
	char line[1024];
	unsigned line_len;
	/* Transactions begun. */
	unsigned mails;
};

struct outbound_world;

/* One server: what it says to each verb. Recipients whose address starts with "bad" are refused,
 * with "later" deferred, unless its RCPT reply says otherwise. */
struct peer {
	struct outbound_world *world;
	int listen_fd;
	uint16_t port;
	const char *reply[PEER_VERBS];
	/* Decides before `reply`; NULL, or NULL from it: `reply` decides. */
	const char *(*answer)(struct peer *p, struct peer_connection *c, enum peer_verb verb);
	/* Takes other bodies than those that this world makes. */
	bool any_body;
	/* Reads nothing, for the time being. */
	bool stalled;
	struct peer_connection connections[PEER_CONNECTIONS_MAX];
	unsigned open;
	unsigned open_max;
	unsigned accepted;
	/* Most lines that came in one piece. */
	unsigned lines_max;
	unsigned bodies;
	uint64_t body_bytes;
	unsigned count[PEER_VERBS];
	char log[PEER_LOG_SIZE];
	unsigned log_len;
};

/* ---- the world ---- */

/* What became of an attempt. */
struct outcome {
	uint32_t number;
	char domain[64];
	struct attempt attempt;
	/* Recipients that were told something of their own, and what the first and last were told.
	 */
	unsigned own_replies;
	char first_text[128];
	char last_text[128];
	bool doomed_quiet;
	uint64_t at_ms;
};

struct outbound_domain {
	char name[64];
	struct domain_options options;
	struct gateway gateways[8];
};

struct outbound_world {
	struct runtime runtime;
	struct wheel_agent *wheel;
	struct agent agent;
	struct dispatcher dispatcher;
	struct mail_pools pools;
	struct outbound_limits limits;
	struct instant now;
	struct domain_options options;
	/* Of sites that are MX sets, and of the provider "big", whose exchangers are of big.test.
	 */
	struct domain_options site_options;
	struct domain_options provider_options;
	struct outbound_domain domains[OUTBOUND_DOMAINS_MAX];
	unsigned domain_count;
	struct peer peers[OUTBOUND_PEERS_MAX];
	unsigned peer_count;
	struct outcome outcomes[OUTBOUND_OUTCOMES_MAX];
	unsigned outcome_count;
	uint32_t numbers;
	/* Content is read back from here on, instead of being at hand; and the envelopes that are
	 * on disk only. */
	bool not_resident;
	struct stored_envelope *stored;
	/* Loads wait until this is false; and what they end with. */
	bool hold_loads;
	int load_result;
	struct delivery *loads[OUTBOUND_LOADS_MAX];
	unsigned load_count;
	/* Look-ups asked for and not answered. */
	struct domain *resolving[OUTBOUND_DOMAINS_MAX];
	unsigned resolving_count;
	unsigned resolves;
	uint64_t body_bytes;
	uint16_t envelope_flags;
	enum envelope_durability durability;
	bool stopped;
	/* max_outbound_connections was lowered: there may be more. */
	bool lowered;
};

/* All that bodies consist of. */
#define OUTBOUND_BODY_LINE "0123456789 0123456789 0123456789 0123456789 0123456789 0123"

struct outbound_world *outbound_new(enum mux_backend backend);
/* Stops if the test did not, and checks that nothing is left. */
void outbound_free(struct outbound_world *w);

/* A server that answers as a good one does, without pipelining. */
struct peer *outbound_peer(struct outbound_world *w);
/* Says on all its connections that it has taken the body, which it was silent about. */
void outbound_answer_bodies(struct peer *p);
/* A port of loopback that refuses connections. */
uint16_t outbound_dead_port(void);
struct sockaddr_in outbound_loopback(uint16_t port);
/* For the world: what it has to do now, how much that was; and its end. */
int outbound_peer_step(struct peer *p);
void outbound_peer_close(struct peer *p);
/* Options of a domain of its own, with `peer` (NULL: none) as its only gateway. */
struct domain_options *outbound_domain(struct outbound_world *w, const char *name,
				       const struct peer *peer);
/* One more gateway. */
void outbound_gateway(struct outbound_world *w, const char *name, uint16_t port,
		      uint16_t preference);

/* A message to `locals` ("a,b,c") at `domain` becomes active; returns its number, from 1 on. */
uint32_t outbound_queue(struct outbound_world *w, const char *domain, const char *locals);
/* The same, received `age_ms` ago. */
uint32_t outbound_queue_old(struct outbound_world *w, const char *domain, const char *locals,
			    uint64_t age_ms);
/* A delivery in transit. */
struct delivery *outbound_delivery(struct outbound_world *w, const char *domain,
				   const char *locals);

/* The record, which is there. */
struct domain *outbound_record(struct outbound_world *w, const char *domain);
/* Code of the dispatcher's agent stands between these. */
void outbound_enter(struct outbound_world *w);
void outbound_leave(struct outbound_world *w);

/* One cycle of all agents and servers; the work done. */
int outbound_step(struct outbound_world *w);
/* Until nothing happens any more. */
void outbound_settle(struct outbound_world *w);
/* Until there are `count` outcomes in all, then until nothing happens any more. */
void outbound_until(struct outbound_world *w, unsigned count);
/* Turns the clock, then settles. */
void outbound_pass(struct outbound_world *w, uint64_t ms);
/* The last outcome of message `number`; NULL: none yet. */
const struct outcome *outbound_outcome(const struct outbound_world *w, uint32_t number);
/* The same's attempt; it must be there. */
const struct attempt *outbound_attempt(const struct outbound_world *w, uint32_t number);

/* Recipients by what became of them. */
struct outbound_verdict {
	unsigned delivered;
	unsigned failed;
	unsigned deferred;
};

void outbound_assert_verdict(const struct outbound_world *w, uint32_t number,
			     struct outbound_verdict expected);
/* Stops; `hurry`: at once. True when all connections are gone. */
bool outbound_stop(struct outbound_world *w, bool hurry);

/* A host for outbound_resolve(); `address`, which is its name too, must stay. */
struct host outbound_host(const char *address, uint16_t port, uint16_t preference);
/* Answers the first look-up that waits; count 0: it failed. */
void outbound_resolve(struct outbound_world *w, const struct host *hosts, uint32_t count,
		      bool permanent, uint64_t ttl_ms);
/* Answers all of them: the hosts are those of the MX set `mx`. */
void outbound_resolve_set(struct outbound_world *w, const char *mx, const struct host *hosts,
			  uint32_t count, uint64_t ttl_ms);
/* What holds the record back, the moment when that ends, and the lane, which is there. */
enum domain_hold outbound_hold(const struct domain *d);
uint64_t outbound_hold_until(const struct domain *d);
struct lane *outbound_lane(const struct domain *d);
