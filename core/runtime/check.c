#include "core/runtime/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/runtime/agent.h"

void fatal(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	/* In one piece, as other threads may have something to say too. */
	fprintf(stderr, "flywheel: fatal: %s\n", text);
	abort();
}

void check_memory_fail(const char *what)
{
	fatal("out of memory for %s", what);
}

void check_fail(const char *file, int line, const char *condition)
{
	fatal("%s:%d: %s does not hold (agent %s)", file, line, condition,
	      agent_current != NULL ? agent_current->name : "none");
}

#ifdef FLYWHEEL_TSA
struct agent_role agent_role;

void agent_role_assert(void)
{
}
#endif

#ifdef FLYWHEEL_DEBUG
uint32_t owner_self(void)
{
	return agent_current != NULL ? agent_current->id + 1U : 0U;
}

void owner_fail(const char *file, int line, const char *what, uint32_t owner)
{
	struct agent *self = agent_current;
	const char *name = "none";

	if (owner != 0 && self != NULL && self->runtime_agents != NULL) {
		name = self->runtime_agents[owner - 1]->name;
	}
	fatal("%s:%d: %s belongs to agent %s, touched by %s", file, line, what, name,
	      self != NULL ? self->name : "none");
}
#endif
