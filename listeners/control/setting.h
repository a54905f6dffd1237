/*
 * A scope and an option of the configuration as a command names them.
 */
#pragma once

#include "config/ask.h"
#include "listeners/control/order.h"

BOUND
struct setting {
	struct config_scope scope;
	char scope_text[CONFIG_SCOPE_TEXT];
	/* In the order's words, lower case. */
	char *option;
	/* How many arguments the scope has. */
	unsigned taken;
};

/* What the order's arguments begin with: a scope, and with a `rest` of 1 or more an option that it
 * may have, with `rest` - 1 words after that. config_scope_free() of the scope when it is true;
 * false and answered when it is not like that. */
BOUND
bool setting_parse(struct order *o, unsigned rest, struct setting *s);
