#include "config/edit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/word.h"
#include "core/runtime/check.h"

/* One piece of a file's text is replaced. */
struct splice {
	size_t from;
	size_t to;
	char *with;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* ---- looking at text ---- */

static size_t line_begin(const struct tree_file *file, size_t at)
{
	while (at > 0 && file->text[at - 1] != '\n') {
		at--;
	}
	return at;
}

static size_t skip_blanks(const struct tree_file *file, size_t at)
{
	while (at < file->len && is_blank(file->text[at])) {
		at++;
	}
	return at;
}

/* How lines of the file end. */
static const char *line_end(const struct tree_file *file)
{
	const char *lf = memchr(file->text, '\n', file->len);

	return lf != NULL && lf > file->text && lf[-1] == '\r' ? "\r\n" : "\n";
}

/* What the file's first indented line begins with: one step of it. */
static void indent_unit(const struct tree_file *file, char *unit, size_t size)
{
	size_t at = 0;

	snprintf(unit, size, "\t");
	while (at < file->len) {
		size_t from = at;

		at = skip_blanks(file, at);
		if (at > from && at - from < size && at < file->len &&
		    strchr("\n#/*", file->text[at]) == NULL) {
			memcpy(unit, file->text + from, at - from);
			unit[at - from] = '\0';
			return;
		}
		const char *lf = memchr(file->text + at, '\n', file->len - at);
		at = lf != NULL ? (size_t)(lf - file->text) + 1 : file->len;
	}
}

/* ---- what is written ---- */

static void print_setting(FILE *out, const struct overlay_change *change)
{
	fprintf(out, "%s = %s", change->option, change->value);
}

/* Whether a bare word ends before this character. */
static bool ends_word(const struct tree_file *file, size_t at)
{
	return at >= file->len || is_blank(file->text[at]) ||
	       strchr("\n\v\f={}()[],;#\"'", file->text[at]) != NULL ||
	       (file->text[at] == '/' && at + 1 < file->len && file->text[at + 1] == '*');
}

/* The value of `change`, before what stands at `at`. */
static char *value_before(const struct tree_file *file, size_t at,
			  const struct overlay_change *change)
{
	char *text;
	size_t len;
	FILE *out = check_memory(open_memstream(&text, &len), "the configuration");

	if (strchr("\"'([", change->value[0]) != NULL || ends_word(file, at)) {
		fputs(change->value, out);
	} else {
		dump_quoted(change->value, out);
	}
	fclose(out);
	return text;
}

/* ---- an option that is set ---- */

static struct splice replace_value(const struct tree_file *file, const struct tree_place *place,
				   const struct overlay_change *change)
{
	return (struct splice){
		.from = place->value,
		.to = place->end,
		.with = value_before(file, place->end, change),
	};
}

/* Behind the line's end, when nothing but a comment stands between `at` and that; else 0. */
static size_t rest_of_line(const struct tree_file *file, size_t at)
{
	at = skip_blanks(file, at);
	while (at + 1 < file->len && file->text[at] == '/' && file->text[at + 1] == '*') {
		for (at += 2; at + 1 < file->len && file->text[at] != '\n'; at++) {
			if (file->text[at] == '*' && file->text[at + 1] == '/') {
				break;
			}
		}
		if (at + 1 >= file->len || file->text[at] == '\n') {
			return 0;
		}
		at = skip_blanks(file, at + 2);
	}
	if (at < file->len && file->text[at] == '#') {
		const char *lf = memchr(file->text + at, '\n', file->len - at);

		at = lf != NULL ? (size_t)(lf - file->text) : file->len;
	}
	if (at == file->len) {
		return at;
	}
	return file->text[at] == '\n' ? at + 1 : 0;
}

static struct splice remove_statement(const struct tree_file *file, const struct tree_place *place)
{
	size_t begin = line_begin(file, place->begin);
	size_t behind = rest_of_line(file, place->end);
	struct splice splice = {.from = place->begin, .to = place->end};

	splice.with = check_memory(strdup(""), "the configuration");
	if (skip_blanks(file, begin) == place->begin && behind != 0) {
		splice.from = begin;
		splice.to = behind;
		return splice;
	}
	/* Others share its line: one of the spaces around it goes with it. */
	splice.to = skip_blanks(file, splice.to);
	if (splice.to == file->len || file->text[splice.to] == '\n') {
		splice.to = place->end;
		while (splice.from > begin && is_blank(file->text[splice.from - 1])) {
			splice.from--;
		}
	}
	return splice;
}

/* ---- an option that is not set ---- */

/* Where the last statement of the scope in these braces begins; 0: there is none. */
static size_t last_statement(const struct tree_scope *scope, const struct tree_opening *opening)
{
	size_t last = 0;

	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		if (o->place != NULL && o->place->file == opening->file &&
		    o->place->begin > opening->body && o->place->begin < opening->end &&
		    o->place->begin > last) {
			last = o->place->begin;
		}
	}
	for (const struct tree_scope *c = scope->first_child; c != NULL; c = c->next) {
		for (const struct tree_opening *p = c->openings; p != NULL; p = p->next) {
			if (p->file == opening->file && p->begin > opening->body &&
			    p->begin < opening->end && p->begin > last) {
				last = p->begin;
			}
		}
	}
	return last;
}

/* A line before that of the closing brace, as its neighbours are indented. */
static void print_line(FILE *out, const struct tree_file *file, const struct tree_scope *scope,
		       const struct tree_opening *opening, const struct overlay_change *change)
{
	size_t brace = line_begin(file, opening->end);
	size_t last = last_statement(scope, opening);
	size_t line = line_begin(file, last);
	char unit[64];

	if (last > 0 && skip_blanks(file, line) == last && line > opening->body) {
		fwrite(file->text + line, 1, last - line, out);
	} else {
		indent_unit(file, unit, sizeof(unit));
		fwrite(file->text + brace, 1, opening->end - brace, out);
		fputs(unit, out);
	}
	print_setting(out, change);
	fputs(line_end(file), out);
}

static struct splice insert_setting(const struct tree_file *file, const struct tree_scope *scope,
				    const struct tree_opening *opening,
				    const struct overlay_change *change)
{
	struct splice splice = {.from = opening->end};
	size_t len;
	FILE *out = check_memory(open_memstream(&splice.with, &len), "the configuration");
	size_t brace = line_begin(file, opening->end);

	if (brace > opening->body && skip_blanks(file, brace) == opening->end) {
		splice.from = brace;
		print_line(out, file, scope, opening, change);
	} else {
		fputs(is_blank(file->text[opening->end - 1]) ? "" : " ", out);
		print_setting(out, change);
		fputc(' ', out);
	}
	fclose(out);
	splice.to = splice.from;
	return splice;
}

static void print_indent(FILE *out, const char *unit, uint32_t depth)
{
	for (uint32_t i = 0; i < depth; i++) {
		fputs(unit, out);
	}
}

static void print_scopes(FILE *out, const struct tree_file *file,
			 const struct overlay_change *change)
{
	const struct config_scope *scope = &change->scope;
	const char *eol = line_end(file);
	char unit[64];

	indent_unit(file, unit, sizeof(unit));
	for (uint32_t i = 0; i < scope->depth; i++) {
		print_indent(out, unit, i);
		fprintf(out, "%s ", scope->steps[i].name);
		if (scope->steps[i].instance != NULL) {
			dump_quoted(scope->steps[i].instance, out);
			fputc(' ', out);
		}
		fprintf(out, "{%s", eol);
	}
	print_indent(out, unit, scope->depth);
	print_setting(out, change);
	fputs(eol, out);
	for (uint32_t i = scope->depth; i > 0; i--) {
		print_indent(out, unit, i - 1);
		fprintf(out, "}%s", eol);
	}
}

static struct splice append_setting(const struct tree_file *file,
				    const struct overlay_change *change)
{
	struct splice splice = {.from = file->len, .to = file->len};
	size_t len;
	FILE *out = check_memory(open_memstream(&splice.with, &len), "the configuration");

	if (file->len > 0 && file->text[file->len - 1] != '\n') {
		fputs(line_end(file), out);
	}
	if (change->scope.depth == 0) {
		print_setting(out, change);
		fputs(line_end(file), out);
	} else {
		fputs(file->len > 0 ? line_end(file) : "", out);
		print_scopes(out, file, change);
	}
	fclose(out);
	return splice;
}

/* ---- where ---- */

/* NULL, or why the file is not to be changed. */
static const char *refuses(const struct tree *tree, uint32_t file)
{
	if (tree->files[file].readonly) {
		return "was included by readonly_include";
	}
	for (uint32_t i = 0; i < tree->file_count; i++) {
		if (i != file && strcmp(tree->files[i].path, tree->files[file].path) == 0) {
			return "is included more than once";
		}
	}
	return NULL;
}

static int refuse(const struct tree *tree, uint32_t file, char why[CONFIG_WHY])
{
	snprintf(why, CONFIG_WHY, "%.400s: %s; expected a file that may be changed",
		 tree->files[file].path, refuses(tree, file));
	return -EROFS;
}

/* Where the scope was opened last in a file that may be changed; else where it was opened. */
static const struct tree_opening *opening_of(const struct tree *tree,
					     const struct tree_scope *scope)
{
	for (const struct tree_opening *o = scope->openings; o != NULL; o = o->next) {
		if (refuses(tree, o->file) == NULL) {
			return o;
		}
	}
	return scope->openings;
}

static struct edit finish(const struct tree *tree, uint32_t number, struct splice *splice)
{
	const struct tree_file *file = &tree->files[number];
	struct edit edit = {.file = number};
	FILE *out = check_memory(open_memstream(&edit.text, &edit.len), "the configuration");

	fwrite(file->text, 1, splice->from, out);
	fputs(splice->with, out);
	fwrite(file->text + splice->to, 1, file->len - splice->to, out);
	fclose(out);
	free(splice->with);
	return edit;
}

int edit_change(const struct tree *tree, const struct overlay_change *change, struct edit *edit,
		char why[CONFIG_WHY])
{
	const struct tree_scope *scope = config_scope_in(tree, &change->scope);
	const struct tree_option *option =
		scope != NULL ? tree_option_find(scope, change->option) : NULL;
	const struct tree_opening *opening =
		scope != NULL && scope->parent != NULL ? opening_of(tree, scope) : NULL;
	uint32_t file = option != NULL ? option->place->file : opening != NULL ? opening->file : 0;
	struct splice splice;

	*edit = (struct edit){.text = NULL};
	if (option == NULL && change->value == NULL) {
		return 0;
	}
	if (refuses(tree, file) != NULL) {
		return refuse(tree, file, why);
	}
	if (option != NULL && change->value == NULL) {
		splice = remove_statement(&tree->files[file], option->place);
	} else if (option != NULL) {
		splice = replace_value(&tree->files[file], option->place, change);
	} else if (opening != NULL) {
		splice = insert_setting(&tree->files[file], scope, opening, change);
	} else {
		splice = append_setting(&tree->files[file], change);
	}
	*edit = finish(tree, file, &splice);
	return 0;
}
