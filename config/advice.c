/*
 * What to say about a name that does not belong where it stands. Declared in schema.h.
 */
#include <stdio.h>
#include <string.h>

#include "config/schema.h"

enum { NAME_MAX_LEN = 40, NAMES_MAX = SCHEMA_OPTIONS_MAX + 32 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;
	return least < c ? least : c;
}

/* Letters to insert, remove, replace, or swap with the next one (optimal string alignment). */
static unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned rows[3][NAME_MAX_LEN + 1];
	unsigned *before = rows[0];
	unsigned *last = rows[1];
	unsigned *row = rows[2];
	for (unsigned j = 0; j <= b_len; j++) {
		last[j] = j;
		before[j] = 0;
	}
	for (unsigned i = 1; i <= a_len; i++) {
		row[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			unsigned differs = a[i - 1] != b[j - 1];
			row[j] = min3(last[j] + 1, row[j - 1] + 1, last[j - 1] + differs);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    before[j - 2] + 1 < row[j]) {
				row[j] = before[j - 2] + 1;
			}
		}
		unsigned *spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[b_len];
}

/* Of `words` (NULL at the end) the one that `name` most likely was meant to be, or NULL. */
static const char *nearest_word(const char *name, const char *const *words)
{
	size_t len = strlen(name);
	const char *nearest = NULL;
	/* A third of the letters may be wrong, not more. */
	unsigned least = (unsigned)len / 3 + 1;
	if (len > NAME_MAX_LEN) {
		return NULL;
	}
	for (; *words != NULL; words++) {
		size_t word_len = strlen(*words);
		if (word_len > NAME_MAX_LEN) {
			continue;
		}
		unsigned distance = edit_distance(name, len, *words, word_len);
		if (distance < least) {
			least = distance;
			nearest = *words;
		}
	}
	return nearest;
}

static bool is_in(uint32_t scopes, enum schema_scope scope)
{
	return (scopes >> scope & 1) != 0;
}

/* The option in this scope that `name` resembles. */
static const char *nearest_option(const char *name, enum schema_scope scope)
{
	const char *names[NAMES_MAX];
	size_t count = 0;
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		if (is_in(schema_options[i].scopes, scope)) {
			names[count++] = schema_options[i].name;
		}
	}
	names[count] = NULL;
	return nearest_word(name, names);
}

/* The scope in this one that `name` resembles. */
static const char *nearest_scope(const char *name, enum schema_scope scope)
{
	const char *names[NAMES_MAX];
	size_t count = 0;
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		if (is_in(schema_scope_rows[i].parents, scope)) {
			names[count++] = schema_scope_rows[i].name;
		}
	}
	names[count] = NULL;
	return nearest_word(name, names);
}

/* Adds `word` to the enumeration in `text`, once: "a, b, c". */
static void enumerate(char *text, size_t size, const char *word)
{
	size_t len = strlen(word);
	for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
		bool starts = at == text || at[-1] == ' ';
		if (starts && (at[len] == '\0' || at[len] == ',')) {
			return;
		}
	}
	size_t used = strlen(text);
	snprintf(text + used, size - used, "%s%s", used == 0 ? "" : ", ", word);
}

/* A scope as one writes it: "spool", or "agent wheel" for each instance when there are a few. */
static void enumerate_row(const struct schema_scope_row *row, char *text, size_t size)
{
	char name[64];
	if (row->instances == NULL) {
		enumerate(text, size, row->name);
		return;
	}
	for (const char *const *instance = row->instances; *instance != NULL; instance++) {
		snprintf(name, sizeof(name), "%s %s", row->name, *instance);
		enumerate(text, size, name);
	}
}

/* Names of the kinds of scopes in `scopes`. */
static void enumerate_scopes(uint32_t scopes, char *text, size_t size)
{
	if (is_in(scopes, SCOPE_GLOBAL)) {
		enumerate(text, size, "the global scope");
	}
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		if (is_in(scopes, schema_scope_rows[i].scope)) {
			enumerate_row(&schema_scope_rows[i], text, size);
		}
	}
}

const char *schema_advise_option(const char *name, enum schema_scope scope, char *text, size_t size)
{
	char places[256] = "";
	uint32_t scopes = 0;
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		if (strcmp(schema_options[i].name, name) == 0) {
			scopes |= schema_options[i].scopes;
		}
	}
	if (scopes != 0) {
		enumerate_scopes(scopes, places, sizeof(places));
		snprintf(text, size, "not possible here; expected it in %s", places);
		return text;
	}
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if (strcmp(row->name, name) == 0) {
			snprintf(text, size, "not an option; expected a scope, %s%s { ... }", name,
				 row->instance == INSTANCE_REQUIRED ? " \"NAME\"" : "");
			return text;
		}
	}
	const char *nearest = nearest_option(name, scope);
	if (nearest != NULL) {
		snprintf(text, size, "unknown; expected an option, did you mean \"%s\"?", nearest);
	} else {
		snprintf(text, size, "unknown; expected an option of this scope");
	}
	return text;
}

/* `name` may stand here, but not with this instance. */
static void advise_instance(const char *name, const char *instance, enum schema_scope scope,
			    char *text, size_t size)
{
	char known[256] = "";
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if (strcmp(row->name, name) != 0 || !is_in(row->parents, scope)) {
			continue;
		}
		if (row->instance == INSTANCE_NONE) {
			snprintf(text, size, "takes no name; expected %s { ... }", name);
			return;
		}
		for (const char *const *c = row->instances; c != NULL && *c != NULL; c++) {
			enumerate(known, sizeof(known), *c);
		}
	}
	if (instance == NULL || known[0] == '\0') {
		snprintf(text, size, "needs a name; expected %s \"NAME\" { ... }", name);
	} else {
		snprintf(text, size, "unknown; expected one of %s", known);
	}
}

const char *schema_advise_scope(const char *name, const char *instance, enum schema_scope scope,
				char *text, size_t size)
{
	char places[256] = "";
	uint32_t parents = 0;
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		if (strcmp(schema_scope_rows[i].name, name) == 0) {
			parents |= schema_scope_rows[i].parents;
		}
	}
	const char *nearest = nearest_scope(name, scope);
	if (is_in(parents, scope)) {
		advise_instance(name, instance, scope, text, size);
	} else if (parents != 0) {
		enumerate_scopes(parents, places, sizeof(places));
		snprintf(text, size, "not possible here; expected it in %s", places);
	} else if (schema_option_find(name, scope) != NULL) {
		snprintf(text, size, "not a scope; expected an option, %s = VALUE", name);
	} else if (nearest != NULL) {
		snprintf(text, size, "unknown; expected a scope, did you mean \"%s\"?", nearest);
	} else {
		snprintf(text, size, "unknown; expected a scope that may stand here");
	}
	return text;
}
