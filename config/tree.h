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

struct schema_option;
struct search;

/* A place in a file; line 0 is the file as a whole, or what the console has set. */
READONLY
struct source {
	uint32_t file;
	uint32_t line;
};

/* Files 0 and up are as parsed; this one stands for defaults. */
#define SOURCE_DEFAULT ((struct source){.file = UINT32_MAX, .line = 0})

enum { TREE_DIGEST = 32 };

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

/* Where a statement stands in the text of a file: offsets of its first byte, of its value, and of
 * what follows it. */
READONLY
struct tree_place {
	uint32_t file;
	uint32_t begin;
	uint32_t value;
	uint32_t end;
};

/* `name = value`. The same name may come several times in a scope; the last one counts. */
READONLY
struct tree_option {
	struct tree_option *next;
	const char *name;
	struct tree_value value;
	/* NULL: places are not kept, or it stands in no file. */
	const struct tree_place *place;
	/* Of the schema, set when its scope was understood; NULL: it may not stand there. */
	const struct schema_option *row;
};

/* Once that a scope was opened: offsets behind its brace, and of the one that closes it. */
READONLY
struct tree_opening {
	struct tree_opening *next;
	uint32_t file;
	uint32_t begin;
	uint32_t body;
	uint32_t end;
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
	/* All places where it was, the last one first; NULL: places are not kept. */
	struct tree_opening *openings;
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
	/* Of its text: whether it was changed since; zero of what was in memory. */
	unsigned char digest[TREE_DIGEST];
	/* When places are kept: what it says. */
	const char *text;
	size_t len;
};

/* A file's text, as it is to become. */
READONLY
struct tree_file_text {
	const char *path;
	const char *text;
	size_t len;
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
	/* Before it is parsed: tells where included files are; NULL: beside those that include
	 * them. */
	const struct search *search;
	/* The same: what files are to say in place of what they do, `text_count` of them. */
	const struct tree_file_text *texts;
	uint32_t text_count;
	/* The same: keeps where statements stand, for who changes the text. */
	bool keeps_places;
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

/* Registers a file under the name to show in messages; returns its number for `struct source`. What
 * the console has set has a file of its own, whose name says so, and no lines. */
SINGLE
uint32_t tree_add_file(struct tree *tree, const char *path, bool readonly);

/* A scope's instance as it is kept: domains and kinds of agents have no case, but patterns of
 * domains do; names of bindings and files have, too. */
SINGLE
const char *tree_text_instance(struct tree *tree, const char *scope, const char *text, size_t len);

/* FILE:LINE, FILE for a file as a whole, what the console has set, or "default", into `text`.
 * Returns `text`. */
READONLY
const char *tree_place_text(const struct tree *tree, struct source source, char *text, size_t size);

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

/* The same by texts that need not be interned. */
READONLY
struct tree_scope *tree_scope_find_text(const struct tree *tree, const struct tree_scope *parent,
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

/* Whether they say the same; they may be of different trees. */
READONLY
bool tree_value_same(const struct tree_value *a, const struct tree_value *b);

/* `domain "example.com"`, `spool`, or `the global scope`, into `label`. Returns `label`. */
READONLY
const char *tree_scope_label(const struct tree_scope *scope, char *label, size_t size);

/* Whether nobody has set it. */
READONLY
static inline bool tree_option_is_default(const struct tree_option *option)
{
	return option->value.source.file == SOURCE_DEFAULT.file;
}

/* Whether its scope says something else of it later. */
READONLY
static inline bool tree_option_comes_again(const struct tree_option *option)
{
	const struct tree_option *o = option->next;

	while (o != NULL && o->name != option->name) {
		o = o->next;
	}
	return o != NULL;
}
