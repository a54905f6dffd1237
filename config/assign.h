/*
 * From a value in the tree to a field of a struct, as the option's row in the schema says, and from
 * struct to struct where scopes fall back. Private to config/.
 */
#pragma once

#include "config/generation.h"
#include "config/report.h"
#include "config/schema.h"
#include "config/tree.h"
#include "core/runtime/thread_class.h"

/* One generation while it is built. */
SINGLE
struct builder {
	struct config *config;
	struct report *report;
};

#define TARGET_BIT(target) (UINT32_C(1) << (target))

/* The structs that a scope's options go to; options with a target that is NULL are left out. */
SINGLE
struct targets {
	void *base[TARGETS];
};

/* Write each option that `scope` sets to its target. Bad values are reported and change nothing.
 * Returns the options that were set. */
SINGLE
struct schema_set assign_scope(struct builder *builder, const struct tree_scope *scope,
			       const struct targets *targets);

/* Copy the fields of the options in `set` that belong to `target`. */
SINGLE
void assign_overlay(enum schema_target target, const struct schema_set *set, void *to,
		    const void *from);

/* Give each option that `scope` may have and does not set its default, if it has one. `targets` are
 * bits of enum schema_target: options for others are left out. */
SINGLE
void assign_missing(struct builder *builder, struct tree_scope *scope, uint32_t targets);

/* Set an option of `scope` to one word, as a default or because of what stands at `source`. */
SINGLE
void assign_implied(struct builder *builder, struct tree_scope *scope, const char *name,
		    const char *word, struct source source);
