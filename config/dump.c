/*
 * The effective configuration, in the language it is written in: each scope's options in the order
 * of the schema, each with where it was set. What is read back says the same.
 */
#include <string.h>

#include "config/generation.h"

struct dump {
	const struct tree *tree;
	FILE *out;
};

static void indent(const struct dump *d, unsigned depth)
{
	while (depth-- > 0) {
		fputc('\t', d->out);
	}
}

static void print_word(const struct dump *d, const char *word)
{
	/* Numbers are plain; everything else is quoted, whether it needs it or not. */
	if (*word != '\0' && strspn(word, "0123456789") == strlen(word)) {
		fputs(word, d->out);
		return;
	}
	fputc('"', d->out);
	for (; *word != '\0'; word++) {
		if (*word == '"' || *word == '\\') {
			fputc('\\', d->out);
		}
		fputc(*word, d->out);
	}
	fputc('"', d->out);
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

static void print_option(const struct dump *d, const struct tree_option *option, unsigned depth)
{
	struct source source = option->value.source;
	indent(d, depth);
	fprintf(d->out, "%s = ", option->name);
	print_value(d, &option->value);
	fprintf(d->out, "\t# %s", tree_path(d->tree, source));
	if (source.line != 0) {
		fprintf(d->out, ":%u", source.line);
	}
	fputc('\n', d->out);
}

static void print_options(const struct dump *d, const struct tree_scope *scope, unsigned depth)
{
	const struct tree_option *effective[SCHEMA_OPTIONS_MAX] = {NULL};
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		effective[schema_number(schema_option_find(o->name, scope->kind))] = o;
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

void config_dump(const struct config *config, FILE *out)
{
	struct dump d = {.tree = &config->tree, .out = out};
	print_options(&d, config->tree.root, 0);
	print_scope(&d, config->tree.root, 0);
}

static void print_scopes(FILE *out, uint32_t scopes)
{
	const char *last = "";
	if ((scopes >> SCOPE_GLOBAL & 1) != 0) {
		fputs("global", out);
		last = "global";
	}
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if ((scopes >> row->scope & 1) != 0 && strcmp(row->name, last) != 0) {
			fprintf(out, "%s%s", *last == '\0' ? "" : ", ", row->name);
			last = row->name;
		}
	}
}

void config_reference(FILE *out)
{
	char expected[256];
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		const struct schema_option *o = &schema_options[i];
		fprintf(out, "%s\t%s\t%s\t%s\t", o->name, schema_type_name(o->type),
			schema_type_unit(o->type), o->fallback != NULL ? o->fallback : "-");
		print_scopes(out, o->scopes);
		fprintf(out, "\t%s\t%s\t%s\n", o->restart ? "restart" : "dynamic",
			schema_expectation(o, expected, sizeof(expected)), o->help);
	}
}
