/*
 * Values of Lua as bytes, so that they come from one state into another: what has no end but in its
 * own state, such as messages and what C made, cannot be packed. Functions in Lua go along with
 * what they have taken along. What the libraries have goes by its name, as each state has them.
 *
 * Start reading at pack_value() in pack.c.
 */
#pragma once

#include <luajit-2.1/lua.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/policy/text.h"
#include "core/runtime/thread_class.h"

/* Notes what this state's libraries have by name; in a protected call, before any script runs. */
SINGLE
void policy_pack_open(lua_State *state);

/* Appends the `count` values from `first` on, an absolute index, to `to`, up to `max` bytes of it.
 * Without `functions` one that no library has is an error. Raises errors, which begin with `what`
 * or the name of what cannot be packed; what `to` holds then is of no use. */
SINGLE
void policy_pack(lua_State *state, int first, int count, bool functions, const char *what,
		 struct policy_text *to, size_t max);

/* Pushes what was packed, and returns how many values. Raises errors. */
SINGLE
int policy_unpack(lua_State *state, const struct policy_text *from);
