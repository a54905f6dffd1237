#include "config/overlay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/parser.h"
#include "config/tree.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

static char *copy(const char *text)
{
	return text != NULL ? check_memory(strdup(text), "the configuration") : NULL;
}

static void change_free(struct overlay_change *change)
{
	config_scope_free(&change->scope);
	free(change->option);
	free(change->value);
}

static struct overlay_change *add(struct overlay *overlay)
{
	size_t room = (size_t)overlay->count + 1;

	overlay->changes = realloc(overlay->changes, room * sizeof(*overlay->changes));
	if (overlay->changes == NULL) {
		fatal("configuration: out of memory (%zu changes)", room);
	}
	return &overlay->changes[overlay->count++];
}

static struct overlay_change change_copy(const struct overlay_change *from)
{
	struct overlay_change made = *from;

	made.scope = config_scope_copy(&from->scope);
	made.option = copy(from->option);
	made.value = copy(from->value);
	return made;
}

const struct overlay_change *overlay_find(const struct overlay *overlay,
					  const struct config_scope *scope, const char *option)
{
	for (uint32_t i = 0; i < overlay->count; i++) {
		const struct overlay_change *c = &overlay->changes[i];

		if (strcmp(c->option, option) == 0 && config_scope_same(&c->scope, scope)) {
			return c;
		}
	}
	return NULL;
}

/* Nothing is said of it any more. */
static void forget(struct overlay *overlay, const struct config_scope *scope, const char *option)
{
	const struct overlay_change *found = overlay_find(overlay, scope, option);

	if (found == NULL) {
		return;
	}
	size_t index = (size_t)(found - overlay->changes);
	change_free(&overlay->changes[index]);
	overlay->count--;
	memmove(&overlay->changes[index], &overlay->changes[index + 1],
		(overlay->count - index) * sizeof(*overlay->changes));
}

void overlay_append(struct overlay *overlay, const struct config_scope *scope, const char *option,
		    const char *value, const char *who, uint64_t wall_ns)
{
	struct overlay_change *change = add(overlay);
	*change = (struct overlay_change){
		.scope = config_scope_copy(scope),
		.option = copy(option),
		.value = copy(value),
		.wall_ns = wall_ns,
	};
	snprintf(change->who, sizeof(change->who), "%s", who);
}

void overlay_change(struct overlay *overlay, const struct config_scope *scope, const char *option,
		    const char *value, const char *who, uint64_t wall_ns)
{
	forget(overlay, scope, option);
	overlay_append(overlay, scope, option, value, who, wall_ns);
}

void overlay_unset(struct overlay *overlay, const struct config_scope *scope, const char *option,
		   const char *who, uint64_t wall_ns)
{
	const struct overlay_change *found = overlay_find(overlay, scope, option);

	if (found != NULL && found->value != NULL) {
		forget(overlay, scope, option);
	} else {
		overlay_change(overlay, scope, option, NULL, who, wall_ns);
	}
}

struct overlay overlay_copy(const struct overlay *overlay)
{
	struct overlay made = {.count = 0};

	for (uint32_t i = 0; i < overlay->count; i++) {
		*add(&made) = change_copy(&overlay->changes[i]);
	}
	return made;
}

void overlay_merge(struct overlay *overlay, const struct overlay *from)
{
	for (uint32_t i = 0; i < from->count; i++) {
		const struct overlay_change *c = &from->changes[i];

		if (c->value != NULL) {
			overlay_change(overlay, &c->scope, c->option, c->value, c->who, c->wall_ns);
		} else {
			overlay_unset(overlay, &c->scope, c->option, c->who, c->wall_ns);
		}
	}
}

void overlay_free(struct overlay *overlay)
{
	for (uint32_t i = 0; i < overlay->count; i++) {
		change_free(&overlay->changes[i]);
	}
	free(overlay->changes);
	*overlay = (struct overlay){.count = 0};
}

/* ---- onto a tree ---- */

static struct source source_of(const struct overlay_change *change, struct tree *tree)
{
	char label[80];
	char time[CLOCK_UTC_TEXT];

	snprintf(label, sizeof(label), "set by the console, %s",
		 clock_format_utc(change->wall_ns / NS_PER_MS, time));
	return (struct source){.file = tree_add_file(tree, label, true)};
}

static const char *interned(struct tree *tree, const char *text)
{
	return text == NULL ? NULL : tree_text(tree, text, strlen(text));
}

static void remove_option(struct tree_scope *scope, const char *name)
{
	struct tree_option **link = &scope->first_option;

	scope->last_option = NULL;
	while (*link != NULL) {
		if ((*link)->name == name) {
			*link = (*link)->next;
		} else {
			scope->last_option = *link;
			link = &(*link)->next;
		}
	}
}

static struct tree_scope *open_scope(struct tree *tree, const struct config_scope *path,
				     struct source source)
{
	struct tree_scope *scope = tree->root;

	for (uint32_t i = 0; i < path->depth; i++) {
		scope = tree_scope_open(tree, scope, interned(tree, path->steps[i].name),
					interned(tree, path->steps[i].instance), source);
	}
	return scope;
}

static void apply(const struct overlay_change *change, struct tree *tree)
{
	const char *name = interned(tree, change->option);

	if (change->value == NULL) {
		struct tree_scope *scope = config_scope_in(tree, &change->scope);

		if (scope != NULL) {
			remove_option(scope, name);
		}
		return;
	}
	struct source source = source_of(change, tree);
	struct tree_scope *scope = open_scope(tree, &change->scope, source);
	struct tree_option *option = tree_option_add(tree, scope, name);
	/* Its texts are kept. */
	int rc = parser_value(tree, arena_text(&tree->arena, change->value, strlen(change->value)),
			      source, &option->value);
	ASSERT(rc == 0);
}

void overlay_apply(const struct overlay *overlay, struct tree *tree)
{
	for (uint32_t i = 0; i < overlay->count; i++) {
		apply(&overlay->changes[i], tree);
	}
}
