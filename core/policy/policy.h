/*
 * Policy: the Lua state of one scheduler, with the modules that its scripts have registered. Hooks
 * run in coroutines: one that waits suspends what it was called for, and nothing else. What a
 * script may take is bounded, in instructions and in memory; what goes wrong in it ends its hook,
 * never the program.
 *
 * Bound to the agent that made it. What it needs of others comes by struct policy_ops.
 *
 * Start reading at policy_call_begin(), then call.c; state.c has what scripts are kept from.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/policy/hook.h"
#include "core/policy/mail.h"
#include "core/policy/scripts.h"
#include "core/runtime/agent.h"
#include "core/runtime/histogram.h"
#include "core/runtime/thread_class.h"

#define POLICY_MODULE_NAME 64
/* A module's function was asked to be called again after so long. */
#define POLICY_AGAIN_MS 100
/* And no more often than that. */
#define POLICY_AGAIN_MAX 600
#define POLICY_LOCK_NAME 64
/* Longest text that macros expand to. */
#define POLICY_EXPANSION_MAX 16384

struct dns_answer;
struct policy;
struct policy_held;
struct policy_order;
struct policy_run;
struct policy_subject;
struct policy_wait;
struct lua_State;

/* A question to the name service; the one who asks owns it, and is answered once. */
SINGLE
struct policy_lookup {
	char name[POLICY_DOMAIN_MAX + 1];
	int type;
	/* On the policy's agent. */
	void (*on_answer)(struct policy_lookup *q, const struct dns_answer *answer);
};

/* Something that may block. */
SINGLE
struct policy_job {
	/* On a thread that may; touches only what the job owns. */
	void (*work)(struct policy_job *job);
	/* On the policy's agent; 0, or -EAGAIN when it has not run. */
	void (*on_done)(struct policy_job *job, int result);
};

/* A named lock that all schedulers know; the one who asks for it owns it, and is answered once. */
SINGLE
struct policy_lock {
	char name[POLICY_LOCK_NAME];
	/* On the policy's agent: 0, it is held now; or -EAGAIN, too many wait. */
	void (*on_granted)(struct policy_lock *l, int result);
	/* The program's own, while it waits or is held. */
	void *host;
};

/* A database that scripts may ask, by its name. */
READONLY
struct policy_source {
	const char *name;
	/* "sqlite:PATH", "redis:HOST[:PORT][/DATABASE]" */
	const char *uri;
	/* Of one answer; what is beyond is left out. */
	uint64_t max_rows;
	/* Of one scheduler. */
	uint64_t max_connections;
	/* Of a connection being made, and of one query. */
	uint64_t timeout_ms;
};

/* What clients do, as msys.audit counts it. */
enum policy_event { POLICY_CONNECTION, POLICY_RECEPTION, POLICY_REJECTION, POLICY_EVENTS };

/* Networks of a client that are counted, widest last: their bits of 128, IPv4 as v4-mapped. */
#define POLICY_NETWORKS 4

READONLY
static inline const unsigned *policy_networks(const struct in6_addr *client)
{
	static const unsigned bits[2][POLICY_NETWORKS] = {{128, 64, 48, 32}, {128, 120, 112, 104}};

	return bits[IN6_IS_ADDR_V4MAPPED(client) ? 1 : 0];
}

/* How often something happened to clients in a network. */
SINGLE
struct policy_events {
	enum policy_event event;
	/* Of a monitor: how long a window is, and how many there are before the one that goes on.
	 */
	uint32_t interval_s;
	uint32_t windows;
	/* IPv4 as v4-mapped, and its bits of 128. */
	struct in6_addr address;
	unsigned prefix;
	/* Which of them, both included; 0 is the one that goes on. */
	uint32_t first;
	uint32_t last;
};

/* What policy asks of the program around it. */
READONLY
struct policy_ops {
	/* A script prints; `text` is one line or more. */
	void (*print)(void *context, const char *text, size_t len);
	/* A script failed; the first line says where and why, a traceback follows. NULL: one more
	 * than are told. */
	void (*error)(void *context, const char *text);
	/* Whether the next error would be told; NULL: each is. A text with a traceback takes longer
	 * than the script that fails. */
	bool (*tells)(void *context);
	void (*lookup)(void *context, struct policy_lookup *q);
	void (*run)(void *context, struct policy_job *job);
	/* There is such a binding, or such a group of some. */
	bool (*is_binding)(void *context, const char *name);
	/* Each of these may be NULL: then there is no such thing. A lock that was granted is given
	 * back by unlock(), after which it may go at once. */
	void (*lock)(void *context, struct policy_lock *l);
	void (*unlock)(void *context, struct policy_lock *l);
	/* NULL: there is none of this name. */
	const struct policy_source *(*source)(void *context, const char *name);
	/* Expands the macros of `format` over what `s` is about (NULL: nothing), into `to` of
	 * POLICY_EXPANSION_MAX bytes. Its length, or -1 after writing to `why`. */
	int (*expand)(void *context, struct policy_subject *s, const char *format, char *to,
		      char why[POLICY_WHY]);
	/* Sessions of `service` ("SMTP") that are open from a network now, on all schedulers; -1:
	 * there is no such service. */
	int64_t (*sessions)(void *context, const char *service, const struct in6_addr *address,
			    unsigned prefix);
	/* On all schedulers; -1: there is no such monitor. */
	int64_t (*events)(void *context, const struct policy_events *asked);
};

READONLY
struct policy_limits {
	/* Of one state, bytes; of one call of a hook, instructions. */
	uint64_t memory_bytes;
	uint64_t instructions;
};

/* What one module did at one hook. Written by the owner, read by all. */
CONCURRENT
struct policy_stats {
	_Atomic uint64_t calls;
	_Atomic uint64_t errors;
	_Atomic uint64_t stopped;
	_Atomic uint64_t suspended;
	/* States of the agent that count in it: one takes over from the one before. */
	uint32_t users;
	/* From the call to its end, waiting included. */
	struct histogram ns;
};

READONLY
struct policy_module {
	char name[POLICY_MODULE_NAME];
	/* Its table. */
	int reference;
	/* Bits of the hooks it has functions for. */
	uint32_t hooks;
	/* It was said that this hook's function returns nothing. */
	uint32_t silent;
	/* NULL: not one of its hooks. */
	struct policy_stats *stats[POLICY_HOOKS];
};

/* What policy_create() is told. */
READONLY
struct policy_start {
	const struct policy_scripts *scripts;
	struct policy_limits limits;
	const struct policy_ops *ops;
	void *context;
	/* Of the same agent: hooks of the same modules go on with its counts. NULL: there is none.
	 */
	const struct policy *before;
};

/* Runs all scripts, and their modules' init. NULL when that failed, and `errors` has what is wrong,
 * FILE:LINE: and a traceback. What `start` points to is of no more use to it then, but `ops`. */
SINGLE
struct policy *policy_create(struct agent *self, const struct policy_start *start, FILE *errors);

/* The agent runs: timers that scripts have set so far begin. */
BOUND
void policy_start_timers(struct policy *p);

/* The state ends: no timer of a script's goes off any more, and what one of them began is dropped;
 * connections to databases are closed once no query uses them, which is waited for as for others
 * who work for it. */
BOUND
void policy_stop_timers(struct policy *p);

/* Nothing waits in it, and nobody outside works for it. */
BOUND
bool policy_idle(const struct policy *p);

/* What waits in it ends now: hooks as failed, orders with `why`. Returns how many there were. */
BOUND
uint32_t policy_end_all(struct policy *p, const char *why);

/* Calls deinit, and closes the state; it is drained, and nothing is suspended. Subjects may still
 * have it: the last one frees what is left. NULL is ignored. */
SINGLE
void policy_destroy(struct policy *p);

/* Nobody outside works for it any more. */
SINGLE
bool policy_drained(const struct policy *p);

/* Bits of the hooks that any module has; 0 without a policy. */
READONLY
uint32_t policy_hooks(const struct policy *p);

READONLY
uint32_t policy_module_count(const struct policy *p);
READONLY
const struct policy_module *policy_module_at(const struct policy *p, uint32_t index);

/* Bytes that its scripts and objects take now, and took at most. */
CONCURRENT
uint64_t policy_memory(const struct policy *p);
CONCURRENT
uint64_t policy_memory_max(const struct policy *p);
/* Functions given to msys.runInPool that ran on the scheduler, as they could not be taken away. */
CONCURRENT
uint64_t policy_ran_in_place(const struct policy *p);
READONLY
const struct policy_limits *policy_limits_of(const struct policy *p);

/* ---- what hooks are about ---- */

enum policy_context { POLICY_MESS = 1, POLICY_CONN = 2 };

#define POLICY_KNOWN_MAX 512

/* What the owner of a connection tells, and does. Each may be NULL: then there is nothing. */
READONLY
struct policy_subject_ops {
	/* What a predefined context says, perhaps in `scratch`; NULL: there is none. */
	const char *(*known)(void *owner, enum policy_context context, const char *name,
			     char scratch[POLICY_KNOWN_MAX]);
	uint32_t (*recipient_count)(void *owner);
	const char *(*recipient)(void *owner, uint32_t index);
	/* 0 or a negative errno. */
	int (*add_recipient)(void *owner, const char *address);
	int (*remove_recipient)(void *owner, const char *address);
	/* The message as it is now goes to `recipient` too, as one of its own; or another text of
	 * `len` bytes, if it is not NULL. */
	int (*inject)(void *owner, const char *sender, const char *recipient, const char *text,
		      size_t len);
	/* Offers an extension in the reply to EHLO, or none of that name. */
	void (*capability)(void *owner, const char *name, bool add);
};

struct policy_handle;

/* One connection, and its message while it has one. */
BOUND
struct policy_subject {
	/* NULL: none. */
	struct policy *policy;
	const struct policy_subject_ops *ops;
	void *owner;
	/* Set by policy_subject_set_mail(). */
	struct policy_mail *mail;
	struct policy_pairs connection;
	/* What scripts have decided so far; the owner takes it, and clears it. A code of 0:
	 * nothing. */
	unsigned code;
	char text[POLICY_REASON_MAX + 1];
	bool disconnect;
	uint64_t tarpit_ms;
	/* Private: its objects in Lua, and the table of the tables that `self` is. */
	struct policy_handle *handles[3];
	int handle_references[3];
	int selves;
};

BOUND
void policy_subject_init(struct policy_subject *s, struct policy *p,
			 const struct policy_subject_ops *ops, void *owner);

/* Its hooks are called in `p` from now on: its objects and `self` of before are of no use any more,
 * its context stays. No hook of it waits. */
BOUND
void policy_subject_move(struct policy_subject *s, struct policy *p);

/* The message is another one now; NULL: none. Objects of the one before are of no use any more. */
BOUND
void policy_subject_set_mail(struct policy_subject *s, struct policy_mail *mail);

/* The connection is over: so are its objects. */
BOUND
void policy_subject_close(struct policy_subject *s);

/* ---- calling ---- */

enum policy_result {
	POLICY_GO_ON,
	/* A script failed, or took too much: it was told to operators. */
	POLICY_FAILED,
};

/* A coroutine has ended: `status` 0, and its results are on its thread, or an error of Lua's. */
typedef void (*policy_end_fn)(struct policy_run *r, int status);

/* A coroutine under way. */
BOUND
struct policy_run {
	struct policy *policy;
	struct lua_State *thread;
	int reference;
	/* What it is about; NULL: nothing. */
	struct policy_subject *subject;
	/* Locks that it holds. */
	struct policy_held *locks;
	/* What is left of its budget, instructions. */
	uint64_t budget;
	/* What it took of the thread so far. */
	uint64_t spent_ns;
	bool exhausted;
	/* What it waits for; NULL: it runs. */
	struct policy_wait *wait;
	/* When it could not be started there is no thread, and this says why. */
	const char *why;
	/* Where print() goes; NULL: to the paniclog. */
	struct policy_text *output;
	policy_end_fn on_end;
	void *context;
};

/* One passage of a hook, through all modules that have it. Embedded in what waits for it. */
BOUND
struct policy_call {
	struct policy_subject *subject;
	enum policy_hook hook;
	/* The string argument, and the number of those hooks that have one. */
	const char *argument;
	unsigned number;
	/* When it had to wait; never from within policy_call_begin(). */
	void (*on_done)(struct policy_call *c);
	enum policy_result result;
	/* Private. */
	struct policy_run run;
	struct timer again;
	uint32_t again_count;
	uint32_t module;
	uint64_t began_ns;
	bool drives;
	/* Among those that wait; NULL: it does not. */
	struct policy_call *next;
	struct policy_call **place;
};

/* True: it is over, see c->result. False: c->on_done will be called. */
BOUND
bool policy_call_begin(struct policy_call *c);

/* Nobody waits for it any more: its hook is dropped where it is. Idempotent. */
BOUND
void policy_call_cancel(struct policy_call *c);

/* ---- what operators ask ---- */

/* Whether a script has registered this command. */
BOUND
bool policy_has_control(struct policy *p, const char *name);

/* `failed`: the output ends in the reason. */
typedef void (*policy_ordered_fn)(void *context, const char *output, size_t len, bool failed);

/* Runs a registered command with its words, the first of which is its name; or, when `words` is
 * NULL, the text `code`. All that is kept until `on_done`, which is called once, perhaps from
 * within. */
BOUND
void policy_order(struct policy *p, char *const *words, unsigned count, const char *code,
		  policy_ordered_fn on_done, void *context);

/* Orders that wait are dropped: each one's on_done hears `why`. So is what scripts have begun in
 * the pool that nobody waits for, but what runs there; none of it begins any more. Returns how many
 * there were. */
BOUND
uint32_t policy_drop_orders(struct policy *p, const char *why);
