/*
 * Macros of custom logs (core/log/event_macro.h) in texts of scripts: what would be told of the
 * message that a hook is about, as far as it is known by then.
 */
#pragma once

#include "core/policy/policy.h"
#include "core/runtime/thread_class.h"

/* As `expand` of struct policy_ops; `context` is the scheduler. */
BOUND
int scheduler_expand_macros(void *context, struct policy_subject *s, const char *format, char *to,
			    char why[POLICY_WHY]);
