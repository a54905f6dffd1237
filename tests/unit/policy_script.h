/*
 * What tests of policy begin with: scripts from texts, and a clock that stands still.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/policy/policy.h"

static inline uint64_t tell_time(void *context)
{
	(void)context;
	return NS_PER_S;
}

static const struct clock fixed = {.monotonic_ns = tell_time, .wall_ns = tell_time};

/* The file of each script, while it is read: this program's, and always the same, as it counts for
 * the digest. */
static inline const char *script_path(void)
{
	static char path[64];

	snprintf(path, sizeof path, "/tmp/flywheel-policy.%d.lua", (int)getpid());
	return path;
}

static inline void add_script(struct policy_scripts *scripts, const char *name, const char *text)
{
	char why[POLICY_WHY];
	FILE *f = fopen(script_path(), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(policy_scripts_add(scripts, name, script_path(), why), 0);
	remove(script_path());
}
