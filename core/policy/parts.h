/*
 * Policy from inside: the state, coroutines, and how the libraries meet both. Private to
 * core/policy.
 *
 * No function of Lua that can raise an error is called outside of a protected call: what can is
 * called from lua_CFunctions only.
 */
#pragma once

#include <luajit-2.1/lauxlib.h>
#include <luajit-2.1/lua.h>
#include <luajit-2.1/lualib.h>

#include "core/policy/policy.h"
#include "core/runtime/check.h"

#define POLICY_MAGIC 0x706f6c69U
/* Instructions between two looks at the budget. */
#define POLICY_STEP 1000
/* Coroutines kept for reuse. */
#define POLICY_THREADS_KEEP 32
#define POLICY_RETURN_CONT 0
#define POLICY_RETURN_DONE 1
#define POLICY_RETURN_AGAIN 2

enum policy_kind { POLICY_MSG, POLICY_VCTX, POLICY_ACCEPT, POLICY_KINDS };

/* What an object in Lua is of; NULL: that is over. */
SINGLE
struct policy_handle {
	struct policy_subject *subject;
};

/* Pushes a function and its arguments; returns how many arguments. May raise errors. */
typedef int (*policy_push_fn)(lua_State *state, void *context);

/* Something that a coroutine waits for; the first member of it. */
SINGLE
struct policy_wait {
	/* NULL: nobody waits any more. */
	struct policy_run *run;
	/* Nobody waits any more: end it, or let it end by itself. */
	void (*abandon)(struct policy_wait *w);
};

SINGLE
struct policy {
	uint32_t magic;
	struct agent *agent;
	lua_State *lua;
	const struct policy_ops *ops;
	void *context;
	struct policy_limits limits;
	uint32_t hooks;
	struct policy_module *modules;
	uint32_t module_count;
	_Atomic uint64_t used;
	_Atomic uint64_t used_max;
	/* While an error is told of, a little more than the limit may be used. */
	uint64_t relief;
	/* NULL: no coroutine runs now. */
	struct policy_run *running;
	/* At the start: nothing may wait. */
	bool starting;
	/* Others who work for it. */
	uint32_t outside;
	int threads[POLICY_THREADS_KEEP];
	uint32_t thread_count;
	/* Tables in the registry: commands; counters; networks. */
	int controls;
	int counters;
	int networks;
	int locks;
	const char *folder;
	/* Under way. */
	struct policy_order *orders;
};

/* The policy that a state belongs to. */
static inline struct policy *policy_of(lua_State *state)
{
	void *context;

	lua_getallocf(state, &context);
	return context;
}

/* ---- state.c ---- */

/* Opens the state with all libraries, the hook for the budget armed; 0 or -ENOMEM. */
SINGLE
int policy_state_open(struct policy *p);
/* After an end: takes what is garbage back if there is much. */
SINGLE
void policy_state_tidy(struct policy *p, bool out_of_memory);
/* A protected call on the main thread: 0, or an error of Lua's, which is written to `why`. */
SINGLE
int policy_protected(struct policy *p, lua_CFunction f, void *context, char why[POLICY_WHY]);
/* Before Lua runs for `r`: its budget counts from here. */
SINGLE
void policy_budget_begin(struct policy *p);

/* ---- run.c ---- */

/* Starts a coroutine. r->on_end is called when it ends, perhaps from within. */
SINGLE
void policy_run_start(struct policy *p, struct policy_run *r, policy_push_fn push, void *context);
/* What it waited for has come: pushes results and goes on. Frees nothing. */
SINGLE
void policy_run_wake(struct policy_wait *w, policy_push_fn push, void *context);
SINGLE
void policy_run_cancel(struct policy_run *r);
/* In a lua_CFunction: suspends the coroutine, until `w` is there. `return policy_run_wait(...)`.
 * Raises an error where nothing may wait: see policy_run_may_wait(). */
SINGLE
int policy_run_wait(lua_State *state, struct policy_wait *w);
/* Raises the error that says why nothing may wait here. */
SINGLE
void policy_run_check(lua_State *state, const char *what);
SINGLE
bool policy_run_may_wait(lua_State *state);
/* Tells operators of an error whose message is on top of `thread`'s stack. */
SINGLE
void policy_report(struct policy *p, lua_State *thread, const char *where, bool exhausted);

/* ---- objects ---- */

/* Pushes the object of `kind`, made when it is needed first. In a protected call. */
SINGLE
void policy_push_object(lua_State *state, struct policy_subject *s, enum policy_kind kind);
/* What argument `index` is of; raises an error when it is something else, or over. */
SINGLE
struct policy_subject *policy_check_object(lua_State *state, int index, enum policy_kind kind);
SINGLE
struct policy_mail *policy_check_mail(lua_State *state, int index);
/* Raises an error unless `domain` may be one. */
SINGLE
void policy_check_domain(lua_State *state, const char *domain);
/* Makes a class: its methods, by name. */
SINGLE
void policy_class(lua_State *state, const char *name, const luaL_Reg *methods);

/* Each adds its functions; in a protected call. `msys` is at index 1. */
SINGLE
void policy_open_core(lua_State *state);
SINGLE
void policy_open_message(lua_State *state);
SINGLE
void policy_open_session(lua_State *state);
SINGLE
void policy_open_mime(lua_State *state);
SINGLE
void policy_open_wait(lua_State *state);
SINGLE
void policy_open_text(lua_State *state);
SINGLE
void policy_open_net(lua_State *state);
SINGLE
void policy_open_digest(lua_State *state);
SINGLE
void policy_open_pcre(lua_State *state);
SINGLE
void policy_open_xml(lua_State *state);
SINGLE
void policy_open_json(lua_State *state);

/* Pushes the value of a field, unfolded. */
SINGLE
void policy_push_field(lua_State *state, const char *header, const struct policy_field *f);
/* Adds to the array at `table` what is asked for of each address in `text`: "email", "name",
 * "localpart", "domain" or "complete". */
SINGLE
void policy_push_addresses(lua_State *state, int table, const char *text, const char *component);
/* Replaces in `subject` (`len` bytes) all that `pattern` matches, onto the stack; raises errors. */
SINGLE
void policy_pcre_replace(lua_State *state, const char *subject, size_t len, const char *pattern,
			 const char *with);
/* Pushes what msys.pcre.match() returns; returns how many. */
SINGLE
int policy_pcre_match(lua_State *state, const char *subject, size_t len, const char *pattern);
