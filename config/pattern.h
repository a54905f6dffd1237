/*
 * Scopes for many domains: `domain "/REGEX/"`. A regular expression (PCRE2) is looked for anywhere
 * in a domain's name, which is in lower case, as A-labels; capitals in it stand for small letters.
 * In each scope the domain's own name comes first, then patterns in the order of the files: the
 * first one that matches counts. Compiled when the generation is built. Private to config/.
 */
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>

#include "config/assign.h"
#include "config/generation.h"
#include "core/runtime/thread_class.h"

READONLY
struct pattern {
	struct pattern *next;
	const struct tree_scope *scope;
	pcre2_code *code;
};

/* The patterns of one scope, in their order. */
READONLY
struct pattern_set {
	struct pattern_set *next;
	const struct tree_scope *parent;
	struct pattern *first;
	struct pattern *last;
};

/* Whether the name of a domain scope is a pattern: it begins with a slash. */
READONLY
bool pattern_is(const char *instance);

/* NULL, or what is wrong with its form, as the rest of a sentence that begins with it. */
READONLY
const char *pattern_check(const char *instance);

/* Compiles all patterns of the tree, and tries each: one that cannot be compiled, or takes too long
 * for short texts, is reported. */
SINGLE
void patterns_build(struct builder *builder);

SINGLE
void patterns_free(struct config *config);

/* The first of the patterns in `parent` that matches the name; NULL: none does. One that takes too
 * long does not, and is counted. Allocates, if there are patterns in `parent`. */
CONCURRENT
const struct tree_scope *pattern_find(const struct config *config, const struct tree_scope *parent,
				      const char *domain, size_t len);
