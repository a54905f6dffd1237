/*
 * The four thread classes, as tags that stand on the line before each struct and each public
 * prototype, and the run-time ownership check behind them.
 *
 * Under `make tsa` BOUND becomes a clang capability, so that a function of class CONCURRENT that
 * calls a BOUND one does not compile. Debug builds (FLYWHEEL_DEBUG) check who owns what while the
 * program runs. Release builds see empty macros.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/* Any thread, any time. */
#define CONCURRENT
/* Concurrent read-only: immutable once it was published. */
#define READONLY
/* One thread at a time; may be handed over, inside a task. */
#define SINGLE

/* Only the agent that made it. */
#ifdef FLYWHEEL_TSA
struct __attribute__((capability("agent thread"))) agent_role {
	char unused;
};
extern struct agent_role agent_role;
#define BOUND __attribute__((requires_capability(agent_role)))
/* Says to the checker that the code that follows runs on its agent's thread. */
void agent_role_assert(void) __attribute__((assert_capability(agent_role)));
#else
#define BOUND
static inline void agent_role_assert(void)
{
}
#endif

#ifdef FLYWHEEL_DEBUG
/* Number of the agent whose code this thread runs now, plus one; 0 outside of all agents. */
uint32_t owner_self(void);
_Noreturn void owner_fail(const char *file, int line, const char *what, uint32_t owner);

#define OWNER_FIELD _Atomic uint32_t owner_agent;
#define OWNER_CLAIM(p) atomic_store_explicit(&(p)->owner_agent, owner_self(), memory_order_relaxed)
#define OWNER_RELEASE(p) atomic_store_explicit(&(p)->owner_agent, 0U, memory_order_relaxed)
#define OWNER_CHECK(p)                                                                             \
	do {                                                                                       \
		uint32_t owner_ = atomic_load_explicit(&(p)->owner_agent, memory_order_relaxed);   \
		if (owner_ != owner_self()) {                                                      \
			owner_fail(__FILE__, __LINE__, #p, owner_);                                \
		}                                                                                  \
	} while (0)
#else
#define OWNER_FIELD
#define OWNER_CLAIM(p) ((void)(p))
#define OWNER_RELEASE(p) ((void)(p))
#define OWNER_CHECK(p) ((void)(p))
#endif
