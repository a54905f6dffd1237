/*
 * msys.lock, msys.unlock: locks with names that all schedulers know. Who waits for one is
 * suspended, and what a coroutine holds at its end is given back.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

/* Nobody waits longer for a lock. */
#define WAIT_MAX_MS 30000

/* A lock that a coroutine waits for, then holds. */
BOUND
struct policy_held {
	struct policy_wait wait;
	struct policy *policy;
	struct policy_lock lock;
	struct timer timer;
	struct policy_held *next;
};

static void give_back(struct policy_held *h)
{
	h->policy->ops->unlock(h->policy->context, &h->lock);
	free(h);
}

void policy_release_locks(struct policy_run *r)
{
	while (r->locks != NULL) {
		struct policy_held *h = r->locks;

		r->locks = h->next;
		give_back(h);
	}
}

static void abandon(struct policy_wait *w)
{
	struct policy_held *h = CONTAINER_OF(w, struct policy_held, wait);

	/* The answer ends it. */
	timer_cancel(&h->timer);
}

static int push_true(lua_State *state, void *context)
{
	(void)context;
	lua_pushboolean(state, 1);
	return 1;
}

static int push_refusal(lua_State *state, void *context)
{
	lua_pushboolean(state, 0);
	lua_pushstring(state, context);
	return 2;
}

static void on_granted(struct policy_lock *l, int result)
{
	static char refusal[] = "too many wait for locks";
	struct policy_held *h = CONTAINER_OF(l, struct policy_held, lock);
	struct policy_run *r = h->wait.run;

	h->policy->outside--;
	timer_cancel(&h->timer);
	if (result != 0) {
		if (r != NULL) {
			policy_run_wake(&h->wait, push_refusal, refusal);
		}
		free(h);
	} else if (r != NULL) {
		h->next = r->locks;
		r->locks = h;
		policy_run_wake(&h->wait, push_true, NULL);
	} else {
		give_back(h);
	}
}

static void on_late(struct timer *t)
{
	static char refusal[] = "waited 30 seconds";
	struct policy_held *h = CONTAINER_OF(t, struct policy_held, timer);

	/* It is given back when it comes. */
	policy_run_wake(&h->wait, push_refusal, refusal);
}

static const char *check_name(lua_State *state)
{
	size_t len;
	const char *name = luaL_checklstring(state, 1, &len);

	luaL_argcheck(state, len > 0 && len < POLICY_LOCK_NAME && strlen(name) == len, 1,
		      "1 to 63 bytes expected");
	return name;
}

static struct policy_held **find(struct policy_run *r, const char *name)
{
	struct policy_held **at = &r->locks;

	while (*at != NULL && strcmp((*at)->lock.name, name) != 0) {
		at = &(*at)->next;
	}
	return at;
}

/* lock(name): true; or false and why not. */
static int lock(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *name = check_name(state);
	struct policy_held *h;

	policy_run_check(state, "msys.lock");
	if (p->ops->lock == NULL) {
		return luaL_error(state, "msys.lock: there are no locks here");
	}
	if (*find(p->running, name) != NULL) {
		return luaL_error(state, "msys.lock: \"%s\" is held already", name);
	}
	h = check_memory(calloc(1, sizeof(*h)), "a lock");
	h->wait.abandon = abandon;
	h->policy = p;
	h->lock.on_granted = on_granted;
	strcpy(h->lock.name, name);
	timer_init(&h->timer, p->agent, on_late);
	timer_arm(&h->timer, agent_now_ms(p->agent) + WAIT_MAX_MS);
	p->outside++;
	p->ops->lock(p->context, &h->lock);
	return policy_run_wait(state, &h->wait);
}

static int unlock(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *name = check_name(state);
	struct policy_held **at;
	struct policy_held *h;

	policy_run_check(state, "msys.unlock");
	at = find(p->running, name);
	h = *at;
	if (h == NULL) {
		return luaL_error(state, "msys.unlock: \"%s\" is not held here", name);
	}
	*at = h->next;
	give_back(h);
	return 0;
}

void policy_open_lock(lua_State *state)
{
	static const luaL_Reg msys[] = {{"lock", lock}, {"unlock", unlock}, {NULL, NULL}};

	luaL_register(state, NULL, msys);
}
