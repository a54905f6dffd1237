/*
 * Questions about a generation that people ask, by the names that they write: what a scope says,
 * what applies and who said so, everything that is set somewhere, what two generations differ in.
 *
 * A scope is written as in the files, without braces: `binding "b" domain "example.com"`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "core/runtime/thread_class.h"

struct tree;
struct tree_scope;

enum { CONFIG_DEPTH_MAX = 4, CONFIG_WHY = 512, CONFIG_SCOPE_TEXT = 1600 };

/* A scope by its names, from the outermost in; a depth of 0 is the global one. */
SINGLE
struct config_scope {
	uint32_t depth;
	/* Of the schema. */
	uint32_t kind;
	struct {
		char *name;
		/* NULL: anonymous. */
		char *instance;
	} steps[CONFIG_DEPTH_MAX];
};

/*
 * Reads the scope that `words` begin with, of which at least `rest` are to be left over. "global"
 * is a way to write the outermost. The names are as they are kept: lower case where that makes no
 * difference. Returns how many words it took, or -EINVAL: `why` says what is wrong.
 * config_scope_free() when it was read.
 */
SINGLE
int config_scope_parse(struct config_scope *scope, char *const *words, unsigned count,
		       unsigned rest, char why[CONFIG_WHY]);
SINGLE
void config_scope_free(struct config_scope *scope);
SINGLE
struct config_scope config_scope_copy(const struct config_scope *scope);
READONLY
bool config_scope_same(const struct config_scope *a, const struct config_scope *b);
/* That scope in a tree; NULL: it is not there. Private to config/. */
READONLY
struct tree_scope *config_scope_in(const struct tree *tree, const struct config_scope *scope);
/* `binding "b" domain "x"`, or "global", into `text`. Returns `text`. */
READONLY
const char *config_scope_text(const struct config_scope *scope, char *text, size_t size);

/* NULL when scopes of that kind may have the option (lower case), else `why`. */
READONLY
const char *config_option_check(const struct config_scope *scope, const char *option,
				char why[CONFIG_WHY]);
/* NULL when `text` is one value as a line of a file may have it, which is `*value` then, malloc;
 * else what is wrong with it. Whether an option may have it is told by loading it. */
SINGLE
const char *config_value_read(const char *text, char **value);
/* Whether there is such an option (lower case), in whatever scope. */
READONLY
bool config_option_exists(const char *option);
/* `value` of an option (lower case) of that scope, as a file has it, without secrets; malloc. */
SINGLE
char *config_value_shown(const struct config_scope *scope, const char *option, const char *value);

/* One option that is set somewhere. Texts are there until the function that got it returns. */
READONLY
struct config_setting {
	/* As config_scope_text() has it. */
	const char *scope;
	const char *option;
	/* A word as it is; lists and dictionaries as they are written. */
	const char *value;
	/* FILE:LINE, what the console set, or "default". */
	const char *origin;
	/* Nobody set it. */
	bool is_default;
	/* In its scope something later decides. */
	bool superseded;
};

typedef void (*config_setting_fn)(void *context, const struct config_setting *setting);

/* What exactly that scope says about an option. False: it says nothing, or has a default only. */
READONLY
bool config_get(const struct config *config, const struct config_scope *scope, const char *option,
		config_setting_fn tell, void *context);
/* Whether both generations say the same there, or both nothing. */
READONLY
bool config_same_setting(const struct config *a, const struct config *b,
			 const struct config_scope *scope, const char *option);
/* What applies in that scope, whoever says so. False: nobody does, and there is no default. */
READONLY
bool config_eval(const struct config *config, const struct config_scope *scope, const char *option,
		 config_setting_fn tell, void *context);
/* All that a scope and those in it say, in the order of config_dump(). False: there is no such
 * scope.
 */
READONLY
bool config_show(const struct config *config, const struct config_scope *scope,
		 config_setting_fn tell, void *context);
/* Every place that sets the option, in any scope, to what is shown as `value` (NULL: to anything).
 */
READONLY
void config_locate(const struct config *config, const char *option, const char *value,
		   config_setting_fn tell, void *context);
/* What differs: `a` or `b` is NULL where it is not set, or is as nobody set it and the scope is not
 * there. */
typedef void (*config_difference_fn)(void *context, const struct config_setting *a,
				     const struct config_setting *b);
SINGLE
void config_compare(const struct config *a, const struct config *b, config_difference_fn tell,
		    void *context);
