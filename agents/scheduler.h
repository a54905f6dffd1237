/*
 * Scheduler: the agent that multiplexes I/O and timed events and owns domain records, connections
 * and mail queues; one for each pinned core. Listeners serve their connections on it, and the
 * dispatcher (core/outbound) sends from it.
 *
 * This header is what listeners use: take a connection, store a message, refuse mail, log.
 * Start reading at scheduler_do_work(), last in scheduler.c.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "agents/inbound_audit.h"
#include "agents/log_writer.h"
#include "agents/policy_host.h"
#include "agents/resolver.h"
#include "agents/signing.h"
#include "agents/thread_pool.h"
#include "agents/trace_client.h"
#include "config/config.h"
#include "config/overlay.h"
#include "core/mail/bounce_class.h"
#include "core/mail/envelope.h"
#include "core/mail/message.h"
#include "core/outbound/dispatch.h"
#include "core/outbound/reply_top.h"
#include "core/runtime/agent.h"
#include "core/runtime/histogram.h"
#include "spool/spool.h"

#define SCHEDULERS_MAX 48
#define LISTENERS_MAX 4
#define ACCEPT_MAGIC 0x61636370U

struct crew;
struct generation_change;
struct generations;
struct listener_ops;
struct lock_keeper;
struct master;
struct scheduler;
struct sts;
struct traces;

enum bounce_way { BOUNCE_IN_BAND, BOUNCE_DEFERRED, BOUNCE_OUT_OF_BAND, BOUNCE_WAYS };

/* What all agents of the program share; immutable once they run, but for `config` and for who the
 * schedulers are. */
READONLY
struct program {
	struct runtime runtime;
	/* The newest generation: the first scheduler's alone once the program runs. Others have
	 * taken one (agents/generation.h). */
	struct config *config;
	/* What the console has set, over the files: the first scheduler's, which changes it only
	 * when a change of the configuration ends; on the pool it may be read while one is
	 * prepared. */
	struct overlay overlay;
	/* What takes effect with a restart only, for as long as the program runs. */
	struct config *foundation;
	/* The first scheduler's. */
	struct generations *generations;
	/* Says on `errors` what of a configuration this program cannot do. May be NULL. */
	bool (*check)(const struct config *config, FILE *errors);
	/* Another generation begins to count, on the first scheduler: what it says of agents may
	 * differ. True: that is being changed, generation_taken() follows. May be NULL. */
	bool (*on_agents_changed)(struct program *p, const struct config *before,
				  const struct config *after, struct generation_change *g);
	struct spool *spool;
	/* Those that there ever were: one that has left keeps its place and its counters, and comes
	 * back to it. */
	struct scheduler *schedulers[SCHEDULERS_MAX];
	struct dispatcher *dispatchers[SCHEDULERS_MAX];
	_Atomic uint32_t scheduler_count;
	/* The first so many take connections and are homes of records; for all but schedulers,
	 * whose dispatchers know themselves. The crew (agents/crew.h) changes it. */
	_Atomic uint32_t home_count;
	struct crew *crew;
	struct master *master;
	struct agent *log;
	struct thread_pool *pool;
	struct bounce_rules *bounce_rules;
	struct resolver *resolver;
	/* NULL: scripts have no locks. */
	struct lock_keeper *locks;
	/* NULL: policies of MTA-STS are not known. */
	struct sts *sts;
	const struct listener_ops *listeners[LISTENERS_MAX];
	uint32_t listener_count;
	struct outbound_limits limits;
	/* Makes ids of this start sort above those of earlier ones. */
	uint64_t epoch;
};

/* Orders of one scheduler that go through queues one at a time, and mark what they have seen. */
BOUND
struct selection_turns {
	/* Whose turn it is, and who waits for that. */
	struct selection *running;
	struct selection *first;
	/* The last one that was used: of deliveries; of records, by orders to all of them. */
	uint16_t mark;
	uint32_t order_mark;
	/* Walks through this scheduler's queues whose timers run: they go on here. */
	uint32_t resting;
};

/*
 * Accept construct: one accepted connection with the listener's closure. Made by the master, then
 * handed to the scheduler that serves it, which gives it back with scheduler_close_accept(), or has
 * another one serve it from there on: scheduler_hand_on().
 */
SINGLE
struct accept {
	uint32_t magic;
	OWNER_FIELD
	int fd;
	/* Which listener of the program, and which listen of that listener in `config`, which is
	 * held; NULL: it is of no more use. */
	uint32_t listener;
	uint32_t listen;
	struct config *config;
	/* The master's own. */
	uint32_t slot;
	/* The scheduler that it was sharded to. */
	uint32_t scheduler;
	/* Its listener's, from a scheduler that has handed it on; NULL: it is new. */
	void *session;
	/* Number of the connection, unique in this run. */
	uint64_t number;
	/* IPv4 as v4-mapped. */
	struct in6_addr peer;
	uint16_t peer_port;
	char peer_text[INET6_ADDRSTRLEN];
	/* Whether and as whose the inbound audit counts it; the client behind a proxy, when that
	 * has told. */
	bool counted;
	struct in6_addr client;
};

/* Whoever serves it needs its generation no more. */
SINGLE
static inline void accept_let_go(struct accept *a)
{
	config_release(a->config);
	a->config = NULL;
}

/* A network service. Every function runs on the scheduler's thread. */
READONLY
struct listener_ops {
	const char *name;
	/* Listens in the configuration. */
	uint32_t (*listen_count)(const struct config *config);
	const struct listen_options *(*listen)(const struct config *config, uint32_t index);
	/* Served by the master's scheduler only (control), not sharded. */
	bool on_master;
	/* Makes this listener's state on a scheduler; 0 or a negative errno: then close() follows
	 * if there is a state. */
	int (*open)(struct scheduler *s, void **state);
	/* Takes a connection over, or goes on with one: a->session. */
	void (*serve)(struct scheduler *s, void *state, struct accept *a);
	/* Called once in each duty cycle; returns the work done. May be NULL. */
	int (*do_work)(struct scheduler *s, void *state);
	/* The scheduler has another generation: once. May be NULL. */
	void (*renew)(struct scheduler *s, void *state);
	/* A trace begins: offers it the connections that are open (s->trace). May be NULL. */
	void (*trace)(struct scheduler *s, void *state);
	/* The scheduler leaves and the program goes on: hands its connections on as soon as that
	 * can be. stop() may follow. May be NULL: stop. */
	void (*leave)(struct scheduler *s, void *state);
	/* The program stops: finish what is in flight, then close. `hurry`: now. */
	void (*stop)(struct scheduler *s, void *state, bool hurry);
	bool (*drained)(struct scheduler *s, void *state);
	void (*close)(struct scheduler *s, void *state);
};

BOUND
struct scheduler {
	struct agent base;
	struct program *program;
	uint32_t index;
	/* The generation that counts here, held; and who this machine is to the name service. */
	struct config *config;
	const struct global_options *global;
	const struct route_self *self;
	/* What is being taken; and what records may still have options of, held. NULL: nothing. */
	struct generation_change *taking;
	struct config *old;
	struct mail_pools pools;
	/* When they are next trimmed, monotonic ms. */
	uint64_t trim_ms;
	struct pool requests;
	struct log_client log;
	struct trace_client trace;
	/* On the console's scheduler: all traces (listeners/control/traces.h). */
	struct traces *traces;
	struct dispatcher dispatcher;
	void *listener_state[LISTENERS_MAX];
	/* Last count used for a message id. */
	uint64_t id_count;
	/* What the order among equal mail exchangers is drawn from. */
	uint64_t route_seed;
	/* Requests at the spool, bounces being made, names being looked up. */
	uint32_t spool_waiting;
	/* Deliveries held, released, sent on or failed by operators, of which the spool does not
	 * know yet. */
	uint32_t orders_waiting;
	/* Where listeners take orders: selections of mail. */
	struct selection_turns selections;
	/* As long as its place is there; NULL: nothing is counted. */
	struct inbound_audit *audit;
	uint32_t bounces_waiting;
	uint32_t lookups_waiting;
	bool stopping;
	/* ... as it leaves the program, which goes on: what began here ends well. */
	bool leaves;
	bool hurried;
	/* What was made has been freed: it has left. */
	bool shut;
	/* The crew wants to know when all records are at home. */
	bool probed;
	/* Memory of mail being received here, not yet accepted, and in how many transactions. */
	_Atomic uint64_t receiving_bytes;
	_Atomic uint64_t receiving_count;

	struct counter *connections_in;
	struct counter *connections_open;
	struct counter *received;
	struct counter *received_bytes;
	struct counter *recipients;
	struct counter *rejected;
	struct counter *rejected_busy;
	struct counter *delivered;
	struct counter *failed;
	struct counter *transient;
	struct counter *bounces;
	struct counter *bodies_dropped;
	struct counter *bodies_loaded;
	struct counter *captures_cut;
	struct counter *out_of_band;
	struct counter *feedback_reports;
	/* From the request to the answer of the spool, ns. */
	struct histogram store_ns;
	struct envelope_builder bounce_envelope;
	struct signing signing;
	struct policy_host policy;
	struct bounce_classifier classifier;
	/* What next hops said when they refused. */
	struct reply_top refusals;
	/* Recipients that failed, by how it came to be known and by class. */
	struct counter bounce_classes[BOUNCE_WAYS][BOUNCE_CLASS_MAX + 1];
};

/* Sets up scheduler `index` of program->scheduler_count; `name` is not copied. */
SINGLE
void scheduler_init(struct scheduler *s, const char *name, struct program *program, uint32_t index);

/* One that has left the program frees what it does not need to be there; and makes that again, to
 * come back. Counters, message ids and the error log go on. */
SINGLE
void scheduler_shut(struct scheduler *s);
SINGLE
void scheduler_reopen(struct scheduler *s);

/* Frees what scheduler_init() made; the agent has been torn down, or never started. */
SINGLE
void scheduler_close(struct scheduler *s);

/* Hands a recovered or accepted delivery to its home; `self` is any agent. */
BOUND
void scheduler_send_home(struct program *p, struct agent *self, struct delivery *delivery);

/* Finds out where a program with this configuration takes mail. `self->listens` is malloc. */
CONCURRENT
void program_find_self(const struct config *config, struct route_self *self);

/* Takes the generation that program->config is, between two tasks: what begins from now on has it,
 * records and sites are moved to it in the duty cycles that follow, then generation_taken() is
 * told. */
BOUND
void scheduler_take(struct scheduler *s, struct generation_change *g, struct config *config,
		    const struct route_self *self);

/* Bytes of envelopes and bodies in memory, of all schedulers. */
READONLY
int64_t program_resident_bytes(const struct program *p);

/* A connection was sharded to this scheduler: task. */
BOUND
void scheduler_on_accept(struct agent *self, void *accept, uint64_t value);

/* Another scheduler goes on with the connection: its listener finds a->session there, which is not
 * NULL. This one leaves, and no operation of its multiplexor uses the socket. */
BOUND
void scheduler_hand_on(struct scheduler *s, struct accept *a);

/* The program stops: messages that are only in memory go to the spool. */
BOUND
void scheduler_keep_all(struct scheduler *s);

/* First home of a domain record: mail and orders for it are sent there, wherever it is. For any
 * agent; it may be outdated when it is used: dispatch_elsewhere() knows more. */
CONCURRENT
uint32_t home_of(const struct program *p, const char *binding, const char *domain);

/* A new message id. */
BOUND
struct message_id scheduler_new_id(struct scheduler *s);

/* Text of a connection's and a batch's number in logs: "SS-NNNNNNNN" in hexadecimal. */
BOUND
void scheduler_format_number(const struct scheduler *s, uint64_t number, char text[24]);

typedef void (*stored_fn)(struct scheduler *s, void *owner, int result);

/*
 * Makes an accepted message as durable as its envelope says, then hands its deliveries to their
 * homes, then calls `on_stored` with 0; or with -ENOSPC or -EIO, and the message is gone: tempfail
 * it. Takes over the caller's reference. `on_stored` runs later, never from within.
 */
BOUND
void scheduler_store(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner);

typedef void (*loaded_fn)(struct scheduler *s, void *owner, struct content *content, int result);

/*
 * Reads the content of a message back that is only in the spool. `on_loaded` runs later, with 0 and
 * content that belongs to it; or with -EIO and an envelope whose body cannot be read; or with -EIO
 * or -ENOENT (all its deliveries are over) and NULL. The message need not live that long.
 */
BOUND
void scheduler_load(struct scheduler *s, const struct message *m, loaded_fn on_loaded, void *owner);

/* The same for the envelope of message `id`, which `writer` keeps, without its body. */
BOUND
void scheduler_load_envelope(struct scheduler *s, uint8_t writer, const struct message_id *id,
			     loaded_fn on_loaded, void *owner);

/*
 * Understands a message that came for bounce domains, logs what it tells in the bounce log or the
 * feedback log, and frees it: nobody gets it. Then calls `on_taken` with 0 when the log agent has
 * written that; or with -EIO: tempfail it. `batch` and `connection` are its numbers in the logs,
 * `peer_ip` who brought it. Takes over the caller's reference. `on_taken` runs later, never from
 * within.
 */
BOUND
void scheduler_understand(struct scheduler *s, struct message *m, uint64_t batch,
			  uint64_t connection, const char *peer_ip, stored_fn on_taken,
			  void *owner);

/* Reception is to pause: 0, or the reason as a negative errno: -ENOSPC (spool full), -ENOMEM
 * (reception budget used up), -ESHUTDOWN (stopping). While rings or logs are under pressure nothing
 * is refused: listeners stop reading. */
BOUND
int scheduler_refuses(const struct scheduler *s);

/* Memory of mail under reception: `bytes` more or less, and `transactions` more or less that have
 * some. */
BOUND
void scheduler_receiving(struct scheduler *s, int64_t bytes, int transactions);

/* How much one transaction may hold: anything while there is room, else an equal share of the
 * reception budget. There is room up to twice the budget, so that mail under way can be finished
 * while new mail is put off; for one that `stalls`, up to the budget. */
BOUND
uint64_t scheduler_reception_share(const struct scheduler *s, bool stalls);

/* A trace of SMTP dialogues begins, or ends, on this scheduler (agents/trace.h). */
BOUND
void scheduler_trace(struct scheduler *s, struct trace *t);
BOUND
void scheduler_trace_no_more(struct scheduler *s, struct trace *t);
/* The scheduler leaves: none goes on here. */
BOUND
void scheduler_trace_leave(struct scheduler *s);

/* Closes the socket, unless a->fd is -1 as somebody else has closed it or will, and gives the
 * construct back to the master. No operation may be under way. */
BOUND
void scheduler_close_accept(struct scheduler *s, struct accept *a);

/* Its client is another one than who has connected: a proxy says so. */
BOUND
static inline void scheduler_move_accept(struct scheduler *s, struct accept *a,
					 const struct in6_addr *client)
{
	if (a->counted) {
		inbound_audit_end(s->audit, a->listener, &a->client);
		inbound_audit_begin(s->audit, a->listener, client);
	}
	a->client = *client;
}

/* A client did something that msys.audit counts. */
BOUND
static inline void scheduler_audit(struct scheduler *s, const struct in6_addr *client,
				   enum policy_event event)
{
	if (s->audit != NULL) {
		inbound_audit_note(s->audit, client, event, agent_wall_ms(&s->base) / 1000);
	}
}
