/*
 * The effective configuration, in the language it is written in: each scope's options in the order
 * of the schema, each with where it was set. What is read back says the same, but for secrets.
 */
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/generation.h"

struct dump {
	const struct tree *tree;
	FILE *out;
	bool origins;
};

static void indent(const struct dump *d, unsigned depth)
{
	while (depth-- > 0) {
		fputc('\t', d->out);
	}
}

void dump_quoted(const char *word, FILE *out)
{
	fputc('"', out);
	for (; *word != '\0'; word++) {
		if (*word == '"' || *word == '\\') {
			fputc('\\', out);
		}
		fputc(*word, out);
	}
	fputc('"', out);
}

/* Numbers are plain; everything else is quoted, whether it needs it or not. */
static void print_word(const struct dump *d, const char *word)
{
	if (*word != '\0' && strspn(word, "0123456789") == strlen(word)) {
		fputs(word, d->out);
	} else {
		dump_quoted(word, d->out);
	}
}

static void print_value(const struct dump *d, const struct tree_value *value)
{
	if (value->kind == TREE_WORD) {
		print_word(d, value->word);
		return;
	}
	fputs(value->kind == TREE_LIST ? "(" : "[", d->out);
	for (const struct tree_value *v = value->first; v != NULL; v = v->next) {
		fputc(' ', d->out);
		if (value->kind == TREE_DICTIONARY) {
			fprintf(d->out, "%s = ", v->key);
		}
		print_value(d, v);
	}
	fputs(value->kind == TREE_LIST ? " )" : " ]", d->out);
}

void dump_value(const struct tree_value *value, FILE *out)
{
	struct dump d = {.out = out};

	print_value(&d, value);
}

/* A secret's line is a comment: what is printed here is copied elsewhere, and a mask would be read
 * back as the secret. */
static void print_setting(const struct dump *d, const struct schema_option *row,
			  const struct tree_value *value)
{
	/* To compare two of them, all counts. */
	char *mask = d->origins && value->kind == TREE_WORD ? schema_mask(row, value->word) : NULL;

	if (mask == NULL) {
		fprintf(d->out, "%s = ", row->name);
		print_value(d, value);
	} else if (row->secret) {
		fprintf(d->out, "# %s is a secret", row->name);
	} else {
		fprintf(d->out, "# %s = ", row->name);
		print_word(d, mask);
	}
	free(mask);
}

static void print_option(const struct dump *d, const struct tree_option *option, unsigned depth)
{
	struct source source = option->value.source;
	char place[PATH_MAX + 16];

	indent(d, depth);
	print_setting(d, option->row, &option->value);
	if (d->origins) {
		fprintf(d->out, "\t# %s", tree_place_text(d->tree, source, place, sizeof(place)));
	}
	fputc('\n', d->out);
}

static void print_options(const struct dump *d, const struct tree_scope *scope, unsigned depth)
{
	const struct tree_option *effective[SCHEMA_OPTIONS_MAX] = {NULL};
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		effective[schema_number(o->row)] = o;
	}
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		if (effective[i] != NULL) {
			print_option(d, effective[i], depth);
		}
	}
}

static void print_scope(const struct dump *d, const struct tree_scope *scope, unsigned depth)
{
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		indent(d, depth);
		fputs(s->name, d->out);
		if (s->instance != NULL) {
			fputc(' ', d->out);
			print_word(d, s->instance);
		}
		fputs(" {\n", d->out);
		print_options(d, s, depth + 1);
		print_scope(d, s, depth + 1);
		indent(d, depth);
		fputs("}\n", d->out);
	}
}

static void dump(const struct config *config, bool origins, FILE *out)
{
	struct dump d = {.tree = &config->tree, .out = out, .origins = origins};
	print_options(&d, config->tree.root, 0);
	print_scope(&d, config->tree.root, 0);
}

void config_dump(const struct config *config, FILE *out)
{
	dump(config, true, out);
}

void config_dump_values(const struct config *config, FILE *out)
{
	dump(config, false, out);
}

/* ---- the reference ---- */

enum { CELLS = 8, CELL_MAX = 256 };

/* One option's line. */
SINGLE
struct reference_row {
	char cells[CELLS][CELL_MAX];
};

static void append(char *cell, const char *separator, const char *text)
{
	size_t used = strlen(cell);

	snprintf(cell + used, CELL_MAX - used, "%s%s", used == 0 ? "" : separator, text);
}

/* All kinds of scopes that are called `name` are among `scopes`. */
static bool covers(uint32_t scopes, const char *name)
{
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if (strcmp(row->name, name) == 0 && (scopes >> row->scope & 1) == 0) {
			return false;
		}
	}
	return true;
}

/* "agent" when every agent has the option, else "agent wheel|log|pool". */
static void describe_instances(uint32_t scopes, const char *name, char *text)
{
	append(text, "", name);
	if (covers(scopes, name)) {
		return;
	}
	const char *separator = " ";
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if (strcmp(row->name, name) != 0 || (scopes >> row->scope & 1) == 0) {
			continue;
		}
		for (const char *const *w = row->instances; w != NULL && *w != NULL; w++) {
			append(text, separator, *w);
			separator = "|";
		}
	}
}

/* A name that stands for several kinds of scopes is said once. */
static void describe_scopes(uint32_t scopes, char *cell)
{
	if ((scopes >> SCOPE_GLOBAL & 1) != 0) {
		append(cell, "", "global");
	}
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		bool said = (scopes >> row->scope & 1) == 0;
		for (uint32_t j = 0; j < i; j++) {
			said = said || (strcmp(schema_scope_rows[j].name, row->name) == 0 &&
					(scopes >> schema_scope_rows[j].scope & 1) != 0);
		}
		if (!said) {
			char text[CELL_MAX] = "";
			describe_instances(scopes, row->name, text);
			append(cell, ", ", text);
		}
	}
}

static void describe_option(const struct schema_option *o, struct reference_row *row)
{
	char expected[CELL_MAX];

	memset(row, 0, sizeof(*row));
	append(row->cells[0], "", o->name);
	append(row->cells[1], "", schema_type_name(o->type));
	append(row->cells[2], "", schema_type_unit(o->type));
	append(row->cells[3], "", o->fallback != NULL ? o->fallback : "-");
	describe_scopes(o->scopes, row->cells[4]);
	append(row->cells[5], "", o->restart ? "restart" : "dynamic");
	append(row->cells[6], "", schema_expectation(o, expected, sizeof(expected)));
	append(row->cells[7], "", o->help);
}

void config_reference(FILE *out)
{
	struct reference_row row;
	size_t widths[CELLS] = {0};

	for (uint32_t i = 0; i < schema_option_count(); i++) {
		describe_option(&schema_options[i], &row);
		for (uint32_t c = 0; c < CELLS; c++) {
			size_t len = strlen(row.cells[c]);
			widths[c] = len > widths[c] ? len : widths[c];
		}
	}
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		describe_option(&schema_options[i], &row);
		for (uint32_t c = 0; c + 1 < CELLS; c++) {
			fprintf(out, "%-*s\t", (int)widths[c], row.cells[c]);
		}
		fprintf(out, "%s\n", row.cells[CELLS - 1]);
	}
}
