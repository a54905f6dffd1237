#include "config/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/word.h"
#include "core/mail/idna.h"
#include "core/runtime/check.h"

enum { INDEX_FIRST = 256, FOLD_BYTES = 256 };

static struct tree_scope **index_new(uint32_t count)
{
	struct tree_scope **slots = calloc(count, sizeof(struct tree_scope *));
	if (slots == NULL) {
		fatal("configuration: out of memory (%u scopes)", count);
	}
	return slots;
}

void tree_init(struct tree *tree)
{
	*tree = (struct tree){0};
	intern_init(&tree->strings, &tree->arena, 1);
	tree->index = index_new(INDEX_FIRST);
	tree->index_mask = INDEX_FIRST - 1;
	tree->root = tree_scope_detached(tree);
}

void tree_free(struct tree *tree)
{
	free(tree->index);
	free(tree->files);
	intern_free(&tree->strings);
	arena_free(&tree->arena);
	*tree = (struct tree){0};
}

const char *tree_text(struct tree *tree, const char *text, size_t len)
{
	return intern_bytes(&tree->strings, text, len);
}

static char fold(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

const char *tree_text_folded(struct tree *tree, const char *text, size_t len)
{
	char small[FOLD_BYTES];
	char *folded = len <= sizeof(small) ? small : arena_alloc(&tree->arena, len, 1);
	for (size_t i = 0; i < len; i++) {
		folded[i] = fold(text[i]);
	}
	return tree_text(tree, folded, len);
}

const char *tree_text_domain(struct tree *tree, const char *text, size_t len)
{
	char name[2 + IDNA_MAX];
	size_t start = len > 0 && text[0] == '*' ? 1 : 0;
	size_t n;
	start += len > start && text[start] == '.' ? 1 : 0;
	n = idna_needed(text, len) ? idna_to_ascii(text + start, len - start, name + start) : 0;
	if (n == 0) {
		return tree_text_folded(tree, text, len);
	}
	memcpy(name, text, start);
	return tree_text(tree, name, start + n);
}

uint32_t tree_add_file(struct tree *tree, const char *path, bool readonly)
{
	uint32_t number = tree->file_count;
	/* Grown at powers of two. */
	if ((number & (number + 1)) == 0) {
		size_t room = ((size_t)number + 1) * 2;
		struct tree_file *files = realloc(tree->files, room * sizeof(*files));
		if (files == NULL) {
			fatal("configuration: out of memory (%zu files)", room);
		}
		tree->files = files;
	}
	/* A name with a line feed in it must not break a message or a dump into two lines. */
	char *shown = arena_text(&tree->arena, path, strlen(path));
	for (char *c = shown; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f) {
			*c = '?';
		}
	}
	tree->files[number] = (struct tree_file){.path = shown, .readonly = readonly};
	tree->file_count++;
	return number;
}

const char *tree_text_instance(struct tree *tree, const char *scope, const char *text, size_t len)
{
	bool pattern = len > 0 && text[0] == '/';
	if ((strcmp(scope, "domain") == 0 && !pattern) || strcmp(scope, "dkim") == 0 ||
	    strcmp(scope, "tls_certificate") == 0) {
		return tree_text_domain(tree, text, len);
	}
	return strcmp(scope, "agent") == 0 ? tree_text_folded(tree, text, len)
					   : tree_text(tree, text, len);
}

const char *tree_place_text(const struct tree *tree, struct source source, char *text, size_t size)
{
	if (source.file < tree->file_count && source.line != 0) {
		snprintf(text, size, "%s:%u", tree_path(tree, source), source.line);
	} else {
		snprintf(text, size, "%s", tree_path(tree, source));
	}
	return text;
}

const char *tree_path(const struct tree *tree, struct source source)
{
	return source.file < tree->file_count ? tree->files[source.file].path : "default";
}

/* Interned texts and scopes never move, so that their addresses are their identity. */
static uint32_t index_hash(const struct tree_scope *parent, const char *name, const char *instance)
{
	uint64_t key = (uint64_t)(uintptr_t)parent * UINT64_C(0x9e3779b97f4a7c15);
	key = (key ^ (uintptr_t)name) * UINT64_C(0x9e3779b97f4a7c15);
	return hash_word(key ^ (uintptr_t)instance);
}

/* The slot that holds the scope, or the empty one where it belongs. */
static struct tree_scope **index_slot(const struct tree *tree, const struct tree_scope *parent,
				      const char *name, const char *instance)
{
	uint32_t i = index_hash(parent, name, instance) & tree->index_mask;
	for (;; i = (i + 1) & tree->index_mask) {
		const struct tree_scope *scope = tree->index[i];
		if (scope == NULL || (scope->parent == parent && scope->name == name &&
				      scope->instance == instance)) {
			return &tree->index[i];
		}
	}
}

static void index_grow(struct tree *tree)
{
	struct tree_scope **old = tree->index;
	uint32_t old_count = tree->index_mask + 1;
	ASSERT(old_count <= UINT32_MAX / 2);
	tree->index = index_new(old_count * 2);
	tree->index_mask = old_count * 2 - 1;
	for (uint32_t i = 0; i < old_count; i++) {
		if (old[i] != NULL) {
			*index_slot(tree, old[i]->parent, old[i]->name, old[i]->instance) = old[i];
		}
	}
	free(old);
}

struct tree_scope *tree_scope_detached(struct tree *tree)
{
	return arena_alloc(&tree->arena, sizeof(struct tree_scope), _Alignof(struct tree_scope));
}

struct tree_scope *tree_scope_open(struct tree *tree, struct tree_scope *parent, const char *name,
				   const char *instance, struct source source)
{
	struct tree_scope **slot = index_slot(tree, parent, name, instance);
	if (*slot != NULL) {
		return *slot;
	}
	struct tree_scope *scope = tree_scope_detached(tree);
	scope->name = name;
	scope->instance = instance;
	scope->parent = parent;
	scope->source = source;
	if (parent->last_child == NULL) {
		parent->first_child = scope;
	} else {
		parent->last_child->next = scope;
	}
	parent->last_child = scope;
	*slot = scope;
	tree->scope_count++;
	if (tree->scope_count > (tree->index_mask + 1) / 4 * 3) {
		index_grow(tree);
	}
	return scope;
}

struct tree_scope *tree_scope_find(const struct tree *tree, const struct tree_scope *parent,
				   const char *name, const char *instance)
{
	return *index_slot(tree, parent, name, instance);
}

struct tree_scope *tree_scope_find_text(const struct tree *tree, const struct tree_scope *parent,
					const char *name, const char *instance)
{
	name = intern_find(&tree->strings, name, strlen(name));
	if (instance != NULL) {
		instance = intern_find(&tree->strings, instance, strlen(instance));
		if (instance == NULL) {
			return NULL;
		}
	}
	return name != NULL ? tree_scope_find(tree, parent, name, instance) : NULL;
}

struct tree_option *tree_option_add(struct tree *tree, struct tree_scope *scope, const char *name)
{
	struct tree_option *option =
		arena_alloc(&tree->arena, sizeof(*option), _Alignof(struct tree_option));
	option->name = name;
	if (scope->last_option == NULL) {
		scope->first_option = option;
	} else {
		scope->last_option->next = option;
	}
	scope->last_option = option;
	return option;
}

const struct tree_option *tree_option_find(const struct tree_scope *scope, const char *name)
{
	const struct tree_option *found = NULL;
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		if (word_same(o->name, name)) {
			found = o;
		}
	}
	return found;
}

bool tree_value_same(const struct tree_value *a, const struct tree_value *b)
{
	const struct tree_value *v = a->first;
	const struct tree_value *w = b->first;

	if (a->kind != b->kind || a->count != b->count) {
		return false;
	}
	if (a->kind == TREE_WORD) {
		return strcmp(a->word, b->word) == 0;
	}
	while (v != NULL && w != NULL && tree_value_same(v, w)) {
		if (a->kind == TREE_DICTIONARY && strcmp(v->key, w->key) != 0) {
			return false;
		}
		v = v->next;
		w = w->next;
	}
	return v == NULL && w == NULL;
}

const char *tree_scope_label(const struct tree_scope *scope, char *label, size_t size)
{
	if (scope->name == NULL) {
		snprintf(label, size, "the global scope");
	} else if (scope->instance == NULL) {
		snprintf(label, size, "%s", scope->name);
	} else {
		snprintf(label, size, "%s \"%s\"", scope->name, scope->instance);
	}
	return label;
}
