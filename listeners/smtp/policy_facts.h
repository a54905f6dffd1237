/*
 * What scripts may know of an SMTP session, and do to its recipients: struct policy_subject_ops.
 * The owner is the session's struct smtp_policy.
 */
#pragma once

#include "core/policy/policy.h"
#include "core/runtime/thread_class.h"

struct envelope_builder;

extern const struct policy_subject_ops smtp_policy_facts;

/* Makes the envelope anew, with another sender (NULL: the same), without recipient `leave_out` and
 * with `add` (NULL: nobody) as its last. What was said of notifications stays with each. */
BOUND
void smtp_policy_rebuild(struct envelope_builder *b, const char *sender, const char *leave_out,
			 const char *add);

/* Copies recipient `index` of `from`, with what was said of notifications, to the end of `to`. */
BOUND
void smtp_policy_copy_recipient(struct envelope_builder *to, const struct envelope_builder *from,
				uint32_t index);
