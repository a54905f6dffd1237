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
#include <stdlib.h>
#include <string.h>

#include "core/policy/policy.h"
#include "core/runtime/check.h"

struct mime_part;

#define POLICY_MAGIC 0x706f6c69U
/* Instructions between two looks at the budget. */
#define POLICY_STEP 200
/* What functions of C do with so many bytes counts as one instruction. */
#define POLICY_BYTES_PER_INSTRUCTION 64
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

/* How a body is encoded: as msys.core.EC_MIME_TE_... */
enum policy_transfer { POLICY_7BIT, POLICY_8BIT, POLICY_BASE64, POLICY_QUOTED };

/* Their names in Content-Transfer-Encoding. */
extern const char *const policy_transfers[];

/* What a text is to be written as: a field's value. */
SINGLE
struct policy_content {
	char field[256];
};

/* Something that a coroutine waits for; the first member of it. */
SINGLE
struct policy_wait {
	/* NULL: nobody waits any more. */
	struct policy_run *run;
	/* Nobody waits any more: end it. NULL: its end, which comes, frees it. */
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
	/* Clocks when what runs was looked at: the coarse one last, 0: not yet; the time on the
	 * processor first. */
	uint64_t step_coarse_ns;
	uint64_t step_ns;
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
	/* Path of the script that is run; NULL: none is. */
	const char *folder;
	/* Whose counts its modules go on with, at the start. */
	const struct policy *before;
	/* Those who have it: while there are any it is not freed, closed or not. */
	uint32_t subjects;
	/* Under way: calls that wait, and orders. */
	struct policy_call *calls;
	struct policy_order *orders;
	/* Set, or running; how many; and they go off, as the agent runs, until the state ends. */
	struct policy_timer *timers;
	uint32_t timer_count;
	bool timers_run;
	/* States in which functions run on threads of the pool, and who waits for one of them. */
	struct policy_pool *pool;
	_Atomic uint64_t ran_in_place;
	/* Databases, and series of counts, that scripts have asked for so far. */
	struct db_source *sources;
	struct audit_series *series;
	uint32_t series_count;
	uint64_t series_bytes;
	/* When the next answer of a script that was stopped is due, monotonic. */
	uint64_t penalty_ns;
	/* Of a thread of the pool: no agent, and what takes time is waited for in place. */
	bool blocking;
};

/* Zeroed memory for what outlives a call of Lua's, and a copy of a text in it; free(). */
SINGLE
static inline void *policy_make(size_t size)
{
	return check_memory(calloc(1, size), "what a script asked for");
}

SINGLE
static inline char *policy_copy(const char *text, size_t len)
{
	char *c = policy_make(len + 1);

	memcpy(c, text, len);
	return c;
}

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
/* Takes what is on top of the stack into the registry: a reference, for luaL_unref(). Has memory
 * whatever the state has left: a table that cannot grow loses what it had (LuaJIT), and all that we
 * keep is in this one. */
SINGLE
int policy_reference(lua_State *state);
/* A policy with a state of its own, for a thread of the pool; its libraries, no scripts, nothing of
 * the program around it but `limits`. NULL: there is no memory for it. */
SINGLE
struct policy *policy_create_blocking(const struct policy_limits *limits);
/* NULL is ignored. */
SINGLE
void policy_destroy_blocking(struct policy *p);
/* Wall clock, seconds. */
BOUND
double policy_now_s(const struct policy *p);
/* What a function of C has done counts as so many instructions of its caller's; raises no error, as
 * the next instruction does. */
SINGLE
void policy_charge(struct policy *p, uint64_t instructions);
/* Raises the error of a budget that is used up, if it is. */
SINGLE
void policy_check_budget(lua_State *state);
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
/* What its answer is to wait, ms, when it failed after it took `spent_ns` of the thread: so that
 * scripts which fail leave most of the time to others, however many sessions ask for them. */
SINGLE
uint64_t policy_penalty_ms(struct policy *p, uint64_t spent_ns);
/* Its locks are free again: lib_lock.c. */
SINGLE
void policy_release_locks(struct policy_run *r);
/* Frees what scripts had of these, when the state is closed. */
SINGLE
void policy_close_timers(struct policy *p);
SINGLE
void policy_close_pool(struct policy *p);
SINGLE
void policy_close_sources(struct policy *p);
/* Ends connections that no query uses, on a thread of the pool: the state ends. */
SINGLE
void policy_close_connections(struct policy *p);
SINGLE
void policy_close_series(struct policy *p);
/* Raises the error that says why nothing may wait here. */
SINGLE
void policy_run_check(lua_State *state, const char *what);
SINGLE
bool policy_run_may_wait(lua_State *state);
/* Tells operators of an error whose message is on top of `thread`'s stack. */
SINGLE
void policy_report(struct policy *p, lua_State *thread, const char *where, bool exhausted);

/* ---- call.c ---- */

/* Calls that wait end as failed; returns how many there were. */
BOUND
uint32_t policy_end_calls(struct policy *p);

/* ---- lib_pool.c ---- */

/* Functions that nobody waits for end: those that wait for a state, and completions, of which none
 * begins any more. Returns how many there were. */
BOUND
uint32_t policy_drop_tasks(struct policy *p);

/* ---- policy.c ---- */

/* A subject has it no more. NULL is ignored. */
SINGLE
void policy_let_go(struct policy *p);

/* ---- objects ---- */

/* Pushes the object of `kind`, made when it is needed first. In a protected call. */
SINGLE
void policy_push_object(lua_State *state, struct policy_subject *s, enum policy_kind kind);
/* What argument `index` is of; raises an error when it is something else, or over. */
SINGLE
struct policy_subject *policy_check_object(lua_State *state, int index, enum policy_kind kind);
SINGLE
struct policy_mail *policy_check_mail(lua_State *state, int index);
/* The message that argument 1 is; raises an error when it has no text that could be changed. */
SINGLE
struct policy_mail *policy_check_writable(lua_State *state);
/* Notes the reply that argument `index` and the text behind it are, or raises an error. */
SINGLE
void policy_take_code(lua_State *state, struct policy_subject *s, int index);
/* The address without brackets that argument `index` is; raises an error when it is none. */
SINGLE
const char *policy_check_address(lua_State *state, int index, bool may_be_empty);
/* Pushes how many sessions there are from the network that argument `index` is (nothing: from the
 * client), at the service behind it; returns how many values. */
SINGLE
int policy_push_sessions(lua_State *state, int index);
/* Pushes the text encoded; `fold`: in lines. */
SINGLE
void policy_push_base64(lua_State *state, const char *text, size_t len, bool fold);
SINGLE
void policy_push_quoted(lua_State *state, const char *text, size_t len);
/* Pushes the part's body, decoded. */
SINGLE
void policy_push_decoded(lua_State *state, const struct mime_part *part);
/* The same, in UTF-8. False: it is in a charset that nobody knows, and stays as it is. */
SINGLE
bool policy_push_text(lua_State *state, const struct mime_part *part);
/* Parameter `name` of the part's Content-Type, as mime_parameter() has it. */
SINGLE
bool policy_part_parameter(const struct mime_part *part, const char *name, char *to, size_t size);
/* The text on top is converted; false: it cannot be, and stays. */
SINGLE
bool policy_convert(lua_State *state, const char *to, const char *from);
/* Pushes the text encoded. */
SINGLE
void policy_push_encoded(lua_State *state, const char *text, size_t len,
			 enum policy_transfer transfer);
/* Of text(value[, type[, charset]]): what value is, which is pushed in its charset; or an error. */
SINGLE
struct policy_content policy_check_content(lua_State *state);
/* Pushes an empty block that the collector frees; whoever is done with it closes it before. */
SINGLE
struct policy_text *policy_push_block(lua_State *state);
/* Pushes the whole message: its header, an empty line, its text. */
SINGLE
void policy_push_raw(lua_State *state, struct policy_mail *m);
/* Pushes the part, with its parts in it, that a text with header and body is. False: it has more
 * parts than there may be, which are left out. */
SINGLE
bool policy_push_parts(lua_State *state, const char *text, size_t len);
/* The same, so that they can be changed; raises an error when there are more. */
SINGLE
void policy_push_all_parts(lua_State *state, const char *text, size_t len);
/* Raises an error unless what is at `index` is a part. */
SINGLE
void policy_check_part(lua_State *state, int index);
/* text() of the part that argument 1 is: its body decoded, texts in UTF-8; or nothing. */
SINGLE
int policy_part_text(lua_State *state);
/* What the part at `index` is; its header and body are valid as long as it has them. */
SINGLE
struct mime_part policy_part_at(lua_State *state, int index);
/* Sets a field of the part on top. */
SINGLE
void policy_set_part_string(lua_State *state, const char *name, const char *text, size_t len);
/* Type and encoding of the part on top are those that its header says now. */
SINGLE
void policy_describe_part(lua_State *state);
/* "192.0.2.0/24" or an address alone, perhaps in brackets; of IPv4 as v4-mapped, `prefix` of 128
 * bits. False: it is none. */
SINGLE
bool policy_read_network(const char *text, struct in6_addr *address, unsigned *prefix);
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
SINGLE
void policy_open_timer(lua_State *state);
SINGLE
void policy_open_lock(lua_State *state);
SINGLE
void policy_open_macro(lua_State *state);
SINGLE
void policy_open_audit(lua_State *state);
SINGLE
void policy_open_pool(lua_State *state);
SINGLE
void policy_open_db(lua_State *state);
SINGLE
void policy_open_build(lua_State *state);
SINGLE
void policy_open_pattern(lua_State *state);
SINGLE
void policy_open_part(lua_State *state);

/* Pushes the value of a context, or nil; true: there is one. */
SINGLE
bool policy_push_context(lua_State *state, struct policy_subject *s, enum policy_context context,
			 const char *key);

/* The name of a header field that argument `index` is, or an error. */
SINGLE
const char *policy_check_field(lua_State *state, int index);
/* Its mode, by its name; to replace is the default. */
SINGLE
enum policy_field_mode policy_check_field_mode(lua_State *state, int index);
/* Pushes an array of the values of all fields `name`. */
SINGLE
void policy_push_fields(lua_State *state, const char *header, size_t len, const char *name);
/* Pushes an array of a component of each address in the fields `name`, which is argument 2, the
 * component argument 3. */
SINGLE
int policy_push_address_header(lua_State *state, const char *header, size_t len);
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
