/*
 * Hooks: the moments at which policy is asked, in the order in which a message meets them. A module
 * takes part in those that its table has a function for.
 */
#pragma once

#include <stdint.h>

#include "core/runtime/thread_class.h"

enum policy_hook {
	/* When the scripts have run, and before they go. */
	POLICY_INIT,
	POLICY_DEINIT,
	/* A client, and what it says. */
	POLICY_CONNECT,
	POLICY_EHLO,
	POLICY_MAILFROM,
	POLICY_RCPTTO,
	/* The message is there, not yet answered. */
	POLICY_DATA,
	POLICY_DATA_SPOOL,
	/* Once for each recipient. */
	POLICY_EACH_RCPT,
	POLICY_ROUTING_DOMAIN,
	POLICY_SET_BINDING,
	POLICY_FINAL,
	/* What became of it, after the fact. */
	POLICY_DELIVERY,
	POLICY_TRANSIENT,
	POLICY_BOUNCE,
	POLICY_HOOKS
};

#define POLICY_BIT(hook) (UINT32_C(1) << (hook))
/* Those that are called for each recipient by itself. */
#define POLICY_BITS_RECIPIENT                                                                      \
	(POLICY_BIT(POLICY_EACH_RCPT) | POLICY_BIT(POLICY_ROUTING_DOMAIN) |                        \
	 POLICY_BIT(POLICY_SET_BINDING) | POLICY_BIT(POLICY_FINAL))
/* All that see a whole message. */
#define POLICY_BITS_MESSAGE                                                                        \
	(POLICY_BIT(POLICY_DATA) | POLICY_BIT(POLICY_DATA_SPOOL) | POLICY_BITS_RECIPIENT)

/* The name of its function in a module's table. */
READONLY
const char *policy_hook_name(enum policy_hook hook);
