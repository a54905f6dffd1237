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

struct dns_answer;
struct policy;
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

/* What policy asks of the program around it. */
READONLY
struct policy_ops {
	/* A script prints; `text` is one line or more. */
	void (*print)(void *context, const char *text, size_t len);
	/* A script failed; the first line says where and why, a traceback follows. */
	void (*error)(void *context, const char *text);
	void (*lookup)(void *context, struct policy_lookup *q);
	void (*run)(void *context, struct policy_job *job);
	/* There is such a binding, or such a group of some. */
	bool (*is_binding)(void *context, const char *name);
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

/* Runs all scripts, and their modules' init. NULL when that failed, and `errors` has a line. */
SINGLE
struct policy *policy_create(struct agent *self, const struct policy_scripts *scripts,
			     const struct policy_limits *limits, const struct policy_ops *ops,
			     void *context, FILE *errors);

/* Calls deinit, and frees it; it is drained, and nothing is suspended. NULL is ignored. */
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
	/* The message as it is now goes to `recipient` too, as one of its own. */
	int (*inject)(void *owner, const char *sender, const char *recipient);
	/* Offers an extension in the reply to EHLO, or none of that name. */
	void (*capability)(void *owner, const char *name, bool add);
};

struct policy_handle;

/* One connection, and its message while it has one. */
BOUND
struct policy_subject {
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
	/* What is left of its budget, instructions. */
	uint64_t budget;
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
	bool waits;
	bool drives;
};

/* True: it is over, see c->result. False: c->on_done will be called. */
BOUND
bool policy_call_begin(struct policy_call *c);

/* Whether it waits. */
static inline bool policy_call_waits(const struct policy_call *c)
{
	return c->waits;
}

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

/* Orders that wait are dropped: each one's on_done hears that the program stops. */
BOUND
void policy_drop_orders(struct policy *p);
