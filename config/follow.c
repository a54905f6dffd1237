/*
 * One generation after the other: what takes effect with a restart only stays as it is. The trees
 * of both are compared, and where they differ in that, a new tree is put together, of what is
 * dynamic in the new one and what is not in the running one, and built like any other. Throttles of
 * the same scopes share what they count by.
 *
 * Start reading at config_follow().
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "core/runtime/check.h"

/* ---- what takes effect with a restart only ---- */

/* Kinds of scopes, by bits. */
READONLY
struct kinds {
	/* With options that are dynamic, and with others. */
	uint32_t dynamic;
	uint32_t restart;
};

static struct kinds find_kinds(void)
{
	struct kinds k = {0};

	for (uint32_t i = 0; i < schema_option_count(); i++) {
		*(schema_options[i].restart ? &k.restart : &k.dynamic) |= schema_options[i].scopes;
		k.dynamic |= schema_options[i].dynamic_in != NULL ? schema_options[i].scopes : 0;
	}
	/* What threads are made for takes effect with a restart only, but not what they are like.
	 */
	k.restart |= 1U << SCOPE_GROUP;
	return k;
}

static bool needs_restart(const struct schema_option *row, const struct tree_scope *scope)
{
	return row->restart && (row->dynamic_in == NULL || scope->instance == NULL ||
				strcmp(row->dynamic_in, scope->instance) != 0);
}

/* Whether there is such a scope takes effect with a restart only, too. */
static bool is_fixed(const struct kinds *k, const struct tree_scope *scope)
{
	return (k->restart >> scope->kind & 1) != 0 && (k->dynamic >> scope->kind & 1) == 0;
}

/* ---- copying ---- */

enum part { PART_DYNAMIC, PART_RESTART };

/* From one tree to another; files of the source get other numbers there. */
SINGLE
struct graft {
	struct tree *to;
	const struct tree *from;
	/* The numbers that they have there, plus one; 0: nothing that was copied is of it. */
	uint32_t *files;
	enum part part;
	struct kinds kinds;
};

/* Each once: generations that follow each other have most of them in common. */
static uint32_t add_file(struct tree *to, const struct tree_file *file)
{
	for (uint32_t i = 0; i < to->file_count; i++) {
		if (to->files[i].readonly == file->readonly &&
		    strcmp(to->files[i].path, file->path) == 0) {
			return i;
		}
	}
	return tree_add_file(to, file->path, file->readonly);
}

static void graft_open(struct graft *g)
{
	g->files = calloc((size_t)g->from->file_count + 1, sizeof(g->files[0]));
	if (g->files == NULL) {
		fatal("configuration: out of memory (%u files)", g->from->file_count);
	}
}

static struct source copy_source(const struct graft *g, struct source source)
{
	uint32_t *number;

	if (source.file >= g->from->file_count) {
		return source;
	}
	number = &g->files[source.file];
	if (*number == 0) {
		*number = add_file(g->to, &g->from->files[source.file]) + 1;
	}
	return (struct source){*number - 1, source.line};
}

static const char *copy_text(struct graft *g, const char *text)
{
	return text != NULL ? tree_text(g->to, text, strlen(text)) : NULL;
}

static void copy_value(struct graft *g, struct tree_value *to, const struct tree_value *from)
{
	struct tree_value **at = &to->first;

	*to = (struct tree_value){
		.key = copy_text(g, from->key),
		.source = copy_source(g, from->source),
		.kind = from->kind,
		.count = from->count,
	};
	if (from->kind == TREE_WORD) {
		to->word = copy_text(g, from->word);
		return;
	}
	for (const struct tree_value *v = from->first; v != NULL; v = v->next) {
		*at = arena_alloc(&g->to->arena, sizeof(**at), _Alignof(struct tree_value));
		copy_value(g, *at, v);
		at = &(*at)->next;
	}
}

static bool is_of_part(const struct graft *g, const struct tree_scope *scope,
		       const struct tree_option *option)
{
	return needs_restart(option->row, scope) == (g->part == PART_RESTART);
}

/* The scope of the other tree that this one is copied to, opened when there is something in it. */
static struct tree_scope *counterpart(struct graft *g, const struct tree_scope *scope)
{
	struct tree_scope *parent;
	struct tree_scope *found;

	if (scope->parent == NULL) {
		return g->to->root;
	}
	parent = counterpart(g, scope->parent);
	found = tree_scope_find_text(g->to, parent, scope->name, scope->instance);
	return found != NULL ? found
			     : tree_scope_open(g->to, parent, copy_text(g, scope->name),
					       copy_text(g, scope->instance),
					       copy_source(g, scope->source));
}

static void copy_options(struct graft *g, const struct tree_scope *scope, bool whole)
{
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		if (!tree_option_is_default(o) && (whole || is_of_part(g, scope, o))) {
			struct tree_scope *to = counterpart(g, scope);

			copy_value(g, &tree_option_add(g->to, to, copy_text(g, o->name))->value,
				   &o->value);
		}
	}
}

static void copy_scopes(struct graft *g, const struct tree_scope *scope)
{
	for (const struct tree_scope *c = scope->first_child; c != NULL; c = c->next) {
		bool fixed = is_fixed(&g->kinds, c);

		if (fixed != (g->part == PART_RESTART) &&
		    (fixed || (g->kinds.restart >> c->kind & 1) == 0)) {
			continue;
		}
		if (fixed || g->part == PART_DYNAMIC || c->kind == SCOPE_GROUP) {
			counterpart(g, c);
		}
		copy_options(g, c, fixed);
		copy_scopes(g, c);
	}
}

static void copy_part(struct tree *to, const struct tree *from, enum part part)
{
	struct graft g = {.to = to, .from = from, .part = part, .kinds = find_kinds()};

	graft_open(&g);
	copy_options(&g, from->root, false);
	copy_scopes(&g, from->root);
	free(g.files);
}

/* What is dynamic in the global scope. */
static void copy_root(struct tree *to, const struct tree *from)
{
	struct graft g = {.to = to, .from = from, .part = PART_DYNAMIC, .kinds = find_kinds()};

	graft_open(&g);
	copy_options(&g, from->root, false);
	free(g.files);
}

struct config *config_foundation(const struct config *config)
{
	struct config *foundation = config_new();
	char *text = NULL;
	size_t len;
	FILE *out = check_memory(open_memstream(&text, &len), "the configuration");
	struct report report = {.out = out, .tree = &foundation->tree};

	copy_part(&foundation->tree, &config->tree, PART_RESTART);
	/* It is checked against that. */
	copy_root(&foundation->tree, &config->tree);
	foundation = config_finish(foundation, &report);
	fclose(out);
	if (foundation == NULL) {
		fatal("configuration: what needs a restart does not stand alone: %s", text);
	}
	free(text);
	return foundation;
}

/* ---- comparing ---- */

/* Both trees, and what was found to differ. */
SINGLE
struct comparison {
	const struct config *fresh;
	const struct config *running;
	struct kinds kinds;
	struct config_kept **end;
};

/* What one of them says; all NULL: nothing. */
SINGLE
struct saying {
	const struct tree *tree;
	const struct tree_scope *scope;
	const struct tree_option *option;
};

/* `row` NULL: of the scope itself. */
static char *text_of(const struct saying *s, const struct schema_option *row)
{
	char *text = NULL;
	char *mask;
	size_t len;
	FILE *out = check_memory(open_memstream(&text, &len), "the configuration");

	if (s->option != NULL) {
		dump_value(&s->option->value, out);
	} else if (row == NULL && s->scope != NULL) {
		fputs("{ ... }", out);
	}
	fclose(out);
	mask = s->option != NULL ? schema_mask(row, text) : NULL;
	if (mask == NULL) {
		return text;
	}
	free(text);
	return mask;
}

/* Where that stands, malloc; NULL: nowhere, it is a default. */
static char *place_of(const struct saying *s)
{
	char place[PATH_MAX + 16];
	struct source source = s->option != NULL  ? s->option->value.source
			       : s->scope != NULL ? s->scope->source
						  : SOURCE_DEFAULT;

	return source.file == SOURCE_DEFAULT.file
		       ? NULL
		       : strdup(tree_place_text(s->tree, source, place, sizeof(place)));
}

/* `row` NULL: of the scope itself. */
static void note(struct comparison *c, const struct schema_option *row, const struct saying *wanted,
		 const struct saying *running)
{
	struct config_kept *kept = check_memory(calloc(1, sizeof(*kept)), "the configuration");

	tree_scope_label(wanted->scope != NULL ? wanted->scope : running->scope, kept->scope,
			 sizeof(kept->scope));
	snprintf(kept->option, sizeof(kept->option), "%s", row != NULL ? row->name : "");
	kept->running = text_of(running, row);
	kept->wanted = text_of(wanted, row);
	kept->place = place_of(wanted);
	if (kept->place == NULL) {
		kept->place = place_of(running);
	}
	if (kept->place == NULL) {
		kept->place = check_memory(strdup("default"), "the configuration");
	}
	*c->end = kept;
	c->end = &kept->next;
}

static void compare_options(struct comparison *c, const struct tree_scope *fresh,
			    const struct tree_scope *running)
{
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		const struct schema_option *row = &schema_options[i];
		struct saying f = {&c->fresh->tree, fresh, NULL};
		struct saying r = {&c->running->tree, running, NULL};

		if ((row->scopes >> fresh->kind & 1) == 0 || !needs_restart(row, fresh)) {
			continue;
		}
		f.option = tree_option_find(fresh, row->name);
		r.option = tree_option_find(running, row->name);
		if (f.option == NULL && r.option == NULL) {
			continue;
		}
		if (f.option == NULL || r.option == NULL ||
		    !tree_value_same(&f.option->value, &r.option->value)) {
			note(c, row, &f, &r);
		}
	}
}

/* The same scope of another tree, below `parent`; NULL: there is none. */
static const struct tree_scope *same_scope(const struct tree *tree, const struct tree_scope *parent,
					   const struct tree_scope *scope)
{
	return tree_scope_find_text(tree, parent, scope->name, scope->instance);
}

static void compare_scopes(struct comparison *c, const struct tree_scope *fresh,
			   const struct tree_scope *running)
{
	for (const struct tree_scope *s = fresh->first_child; s != NULL; s = s->next) {
		const struct tree_scope *r;

		if ((c->kinds.restart >> s->kind & 1) == 0) {
			continue;
		}
		r = same_scope(&c->running->tree, running, s);
		if (r != NULL) {
			compare_options(c, s, r);
			compare_scopes(c, s, r);
		} else if (is_fixed(&c->kinds, s)) {
			note(c, NULL, &(struct saying){&c->fresh->tree, s, NULL},
			     &(struct saying){NULL, NULL, NULL});
		}
	}
	for (const struct tree_scope *s = running->first_child; s != NULL; s = s->next) {
		if (is_fixed(&c->kinds, s) && same_scope(&c->fresh->tree, fresh, s) == NULL) {
			note(c, NULL, &(struct saying){NULL, NULL, NULL},
			     &(struct saying){&c->running->tree, s, NULL});
		}
	}
}

void config_kept_free(struct config_kept *kept)
{
	while (kept != NULL) {
		struct config_kept *next = kept->next;

		free(kept->running);
		free(kept->wanted);
		free(kept->place);
		free(kept);
		kept = next;
	}
}

/* ---- throttles ---- */

static uint32_t slot_of(const struct tree_scope *scope, const struct schema_option *option)
{
	return hash_word((uint64_t)(uintptr_t)scope * UINT64_C(0x9e3779b97f4a7c15) ^
			 (uintptr_t)option);
}

/* By scope and option: open addressing, at least half of it empty. */
SINGLE
struct throttle_index {
	const struct throttle_use **slots;
	uint32_t mask;
};

static const struct throttle_use **index_find(const struct throttle_index *x,
					      const struct tree_scope *scope,
					      const struct schema_option *option)
{
	uint32_t i = slot_of(scope, option) & x->mask;

	while (x->slots[i] != NULL &&
	       (x->slots[i]->scope != scope || x->slots[i]->option != option)) {
		i = (i + 1) & x->mask;
	}
	return &x->slots[i];
}

static struct throttle_index index_throttles(const struct config *config)
{
	struct throttle_index x = {.mask = 15};

	while (x.mask < config->throttle_count * 2) {
		x.mask = x.mask * 2 + 1;
	}
	x.slots = calloc((size_t)x.mask + 1, sizeof(const struct throttle_use *));
	if (x.slots == NULL) {
		fatal("configuration: out of memory (%u throttles)", config->throttle_count);
	}
	for (uint32_t i = 0; i < config->throttle_count; i++) {
		const struct throttle_use *u = &config->throttles[i];

		*index_find(&x, u->scope, u->option) = u;
	}
	return x;
}

static const struct tree_scope *scope_in(const struct tree *tree, const struct tree_scope *scope)
{
	const struct tree_scope *parent;

	if (scope->parent == NULL) {
		return tree->root;
	}
	parent = scope_in(tree, scope->parent);
	return parent != NULL ? same_scope(tree, parent, scope) : NULL;
}

static void inherit_throttles(struct config *fresh, const struct config *running)
{
	struct throttle_index x = index_throttles(running);

	for (uint32_t i = 0; i < fresh->throttle_count; i++) {
		const struct throttle_use *u = &fresh->throttles[i];
		const struct tree_scope *scope = scope_in(&running->tree, u->scope);
		const struct throttle_use *old =
			scope != NULL ? *index_find(&x, scope, u->option) : NULL;

		if (old != NULL) {
			throttle_inherit(u->throttle, old->throttle);
		}
	}
	free(x.slots);
}

void config_apply_throttles(const struct config *config, uint64_t now_ns)
{
	for (uint32_t i = 0; i < config->throttle_count; i++) {
		throttle_apply(config->throttles[i].throttle, now_ns);
	}
}

/* ---- following ---- */

/* What is dynamic of one, and what is not of the other. Says nothing when all is well: what there
 * is to warn of was said of `fresh`. */
static struct config *put_together(const struct config *fresh, const struct config *running,
				   FILE *errors)
{
	struct config *config = config_new();
	char *text = NULL;
	size_t len;
	FILE *out = check_memory(open_memstream(&text, &len), "the configuration");
	struct report report = {.out = out, .tree = &config->tree};

	copy_part(&config->tree, &fresh->tree, PART_DYNAMIC);
	copy_part(&config->tree, &running->tree, PART_RESTART);
	config_copy_origin(config, fresh);
	config = config_finish(config, &report);
	fclose(out);
	if (config == NULL) {
		fputs(text, errors);
		fputs("these are checked with what takes effect with a restart only as it is "
		      "now\n",
		      errors);
	}
	free(text);
	return config;
}

struct config *config_follow(struct config *fresh, const struct config *running,
			     struct config_kept **kept, FILE *errors)
{
	struct comparison c = {.fresh = fresh, .running = running, .kinds = find_kinds()};

	*kept = NULL;
	c.end = kept;
	compare_options(&c, fresh->tree.root, running->tree.root);
	compare_scopes(&c, fresh->tree.root, running->tree.root);
	if (*kept != NULL) {
		struct config *whole = put_together(fresh, running, errors);

		config_release(fresh);
		fresh = whole;
	}
	if (fresh != NULL) {
		inherit_throttles(fresh, running);
	}
	return fresh;
}
