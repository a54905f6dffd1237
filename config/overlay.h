/*
 * What is set while the program runs, over what the files say: a list of changes, one for each
 * option of a scope that was set or unset. A generation is loaded from files and an overlay
 * (config_load_from()); the overlay stays on top until it is unset or written into the files.
 *
 * It belongs to one agent; others are given copies. Start reading at overlay_change().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/ask.h"
#include "core/runtime/thread_class.h"

struct report;
struct tree;

enum { OVERLAY_WHO = 64 };

SINGLE
struct overlay_change {
	/* As config_scope_parse() has it, and its text. */
	struct config_scope scope;
	/* Lower case. */
	char *option;
	/* As it would be written in a file; NULL: what the files say does not count. */
	char *value;
	char who[OVERLAY_WHO];
	uint64_t wall_ns;
};

/* All zero is an empty one. */
SINGLE
struct overlay {
	struct overlay_change *changes;
	uint32_t count;
};

/* Sets `option` of `scope` to `value`, or with NULL unsets it, in place of what was said of it
 * before, and behind all others. All texts are copied. */
SINGLE
void overlay_change(struct overlay *overlay, const struct config_scope *scope, const char *option,
		    const char *value, const char *who, uint64_t wall_ns);

/* The same behind what was said of it before: one step of what is to be merged later. */
SINGLE
void overlay_append(struct overlay *overlay, const struct config_scope *scope, const char *option,
		    const char *value, const char *who, uint64_t wall_ns);

/* What is said of it, the first; NULL: nothing. */
READONLY
const struct overlay_change *overlay_find(const struct overlay *overlay,
					  const struct config_scope *scope, const char *option);

/* What the console says of it ends: then what the files say counts again; when it says nothing,
 * neither do the files. */
SINGLE
void overlay_unset(struct overlay *overlay, const struct config_scope *scope, const char *option,
		   const char *who, uint64_t wall_ns);

/* A copy. */
SINGLE
struct overlay overlay_copy(const struct overlay *overlay);

/* All changes of `from`, in their order, on top: as overlay_change() and overlay_unset() do it. */
SINGLE
void overlay_merge(struct overlay *overlay, const struct overlay *from);

SINGLE
void overlay_free(struct overlay *overlay);

/* Lays it over what was parsed. */
SINGLE
void overlay_apply(const struct overlay *overlay, struct tree *tree);
