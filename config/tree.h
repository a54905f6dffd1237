/*
 * What the files say, before anybody asks what it means: scopes with options with values, each with
 * its file and line. Made by parser.c; given meaning by build.c through schema.c; kept for as long
 * as the generation, because scopes are looked up in it and --dump prints it.
 *
 * All texts are interned: names in lower case, and equal texts are equal pointers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/arena.h"
#include "config/intern.h"
#include "core/runtime/thread_class.h"

/* A place in a file; line 0 is the file as a whole. */
READONLY
struct source {
	uint32_t file;
	uint32_t line;
};

/* Files 0 and up are as parsed; this one stands for defaults. */
#define SOURCE_DEFAULT ((struct source){.file = UINT32_MAX, .line = 0})

enum tree_kind { TREE_WORD, TREE_LIST, TREE_DICTIONARY };

READONLY
struct tree_value {
	/* Next in the same list or dictionary. */
	struct tree_value *next;
	/* In a dictionary: its key. */
	const char *key;
	union {
		/* TREE_WORD. */
		const char *word;
		/* TREE_LIST, TREE_DICTIONARY: NULL when empty. */
		struct tree_value *first;
	};
	struct source source;
	enum tree_kind kind;
	/* Items of a list or dictionary. */
	uint32_t count;
};

/* `name = value`. The same name may come several times in a scope; the last one counts. */
READONLY
struct tree_option {
	struct tree_option *next;
	const char *name;
	struct tree_value value;
};

READONLY
struct tree_scope {
	const char *name;
	/* NULL: anonymous. */
	const char *instance;
	struct tree_scope *parent;
	struct tree_scope *next;
	struct tree_scope *first_child;
	struct tree_scope *last_child;
	struct tree_option *first_option;
	struct tree_option *last_option;
	/* Where it was opened first. */
	struct source source;
	/* Of the schema (enum schema_scope), set when the scope was understood. */
	uint32_t kind;
	/* Owned by the room that builds this kind of scope. */
	const void *settings;
	const void *effective;
};

READONLY
struct tree_file {
	const char *path;
	/* Came by readonly_include. */
	bool readonly;
};

SINGLE
struct tree {
	struct arena arena;
	struct intern strings;
	struct tree_scope *root;
	struct tree_file *files;
	uint32_t file_count;
	/* Scopes by (parent, name, instance): open addressing, a power of two. */
	struct tree_scope **index;
	uint32_t index_mask;
	uint32_t scope_count;
};

SINGLE
void tree_init(struct tree *tree);
SINGLE
void tree_free(struct tree *tree);

/* Interned copy of `len` bytes; the second one folds ASCII to lower case first. */
SINGLE
const char *tree_text(struct tree *tree, const char *text, size_t len);
SINGLE
const char *tree_text_folded(struct tree *tree, const char *text, size_t len);
/* The same of a domain, maybe behind "*." or ".": what is not ASCII becomes A-labels (idna.h); what
 * IDNA2008 does not allow stays as it is, and is no domain for word_domain(). */
SINGLE
const char *tree_text_domain(struct tree *tree, const char *text, size_t len);

/* Registers a file under the name to show in messages; returns its number for `struct source`. */
SINGLE
uint32_t tree_add_file(struct tree *tree, const char *path, bool readonly);

/* The name of a source's file: as registered, or "default". */
READONLY
const char *tree_path(const struct tree *tree, struct source source);

/* The child of `parent` with this name and instance, made when there was none. Both are interned;
 * `instance` may be NULL. */
SINGLE
struct tree_scope *tree_scope_open(struct tree *tree, struct tree_scope *parent, const char *name,
				   const char *instance, struct source source);

/* The same, or NULL when there is none. O(1). */
READONLY
struct tree_scope *tree_scope_find(const struct tree *tree, const struct tree_scope *parent,
				   const char *name, const char *instance);

/* A scope that belongs to no tree: what is parsed into it is forgotten. */
SINGLE
struct tree_scope *tree_scope_detached(struct tree *tree);

/* Appends an option to `scope` and returns it; the caller fills in the value. */
SINGLE
struct tree_option *tree_option_add(struct tree *tree, struct tree_scope *scope, const char *name);

/* The option that counts in `scope` itself: the last of that name; NULL when there is none. */
READONLY
const struct tree_option *tree_option_find(const struct tree_scope *scope, const char *name);

/* `domain "example.com"`, `spool`, or `the global scope`, into `label`. Returns `label`. */
READONLY
const char *tree_scope_label(const struct tree_scope *scope, char *label, size_t size);
