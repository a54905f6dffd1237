/*
 * Edits of a configuration's text: the first line of the input is a command, "SCOPE OPTION VALUE"
 * or, behind a minus, "SCOPE OPTION"; the rest is the text. If that parses, it parses after the
 * edit to the same with that one option changed; and what is not of the statement's lines is there
 * byte for byte: where they are is found out here from its offsets.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "config/edit.h"
#include "config/parser.h"
#include "tests/fuzz/fuzz_input.h"

enum { WORDS_MAX = 16, EDITS_MAX = 1000 };

/* ---- trees ---- */

static bool parse(struct tree *tree, const char *text, size_t len)
{
	char *errors = NULL;
	size_t errors_len;
	struct report report = {.tree = tree};

	report.out = open_memstream(&errors, &errors_len);
	FUZZ_CHECK(report.out != NULL);
	tree_init(tree);
	tree->keeps_places = true;
	parser_load_text(tree, &report, "fuzz.conf", text, len);
	bool good = report.errors == 0;
	report_close(&report);
	fclose(report.out);
	free(errors);
	return good;
}

static bool same_value(const struct tree_value *a, const struct tree_value *b)
{
	if (a->kind != b->kind || a->count != b->count) {
		return false;
	}
	if (a->kind == TREE_WORD) {
		return strcmp(a->word, b->word) == 0;
	}
	const struct tree_value *v = a->first;
	const struct tree_value *w = b->first;
	for (; v != NULL; v = v->next, w = w->next) {
		if ((v->key != NULL && strcmp(v->key, w->key) != 0) || !same_value(v, w)) {
			return false;
		}
	}
	return true;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* The next option that counts, from `o` on: the last of its name. */
static const struct tree_option *next_effective(const struct tree_scope *scope,
						const struct tree_option *o)
{
	while (o != NULL && tree_option_find(scope, o->name) != o) {
		o = o->next;
	}
	return o;
}

/* All that `a` says and counts, but `except` of the scope `at`, `b` says too, if not more. */
static void check_has(const struct tree_scope *a, const struct tree_scope *b,
		      const struct tree_scope *at, const char *except)
{
	for (const struct tree_option *o = next_effective(a, a->first_option); o != NULL;
	     o = next_effective(a, o->next)) {
		if (a == at && strcmp(o->name, except) == 0) {
			continue;
		}
		const struct tree_option *other = tree_option_find(b, o->name);
		FUZZ_CHECK(other != NULL && same_value(&o->value, &other->value));
	}
	for (const struct tree_scope *c = a->first_child; c != NULL; c = c->next) {
		const struct tree_scope *d = b->first_child;
		while (d != NULL &&
		       (strcmp(c->name, d->name) != 0 || !same_text(c->instance, d->instance))) {
			d = d->next;
		}
		/* What the edit has opened is empty but for its option. */
		FUZZ_CHECK(d != NULL || c == at || c->first_option == NULL);
		if (d != NULL) {
			check_has(c, d, at, except);
		}
	}
}

static const struct tree_scope *scope_of(const struct tree *tree, const struct config_scope *path)
{
	const struct tree_scope *scope = tree->root;

	for (uint32_t i = 0; scope != NULL && i < path->depth; i++) {
		const struct tree_scope *c = scope->first_child;
		while (c != NULL && (strcmp(c->name, path->steps[i].name) != 0 ||
				     !same_text(c->instance, path->steps[i].instance))) {
			c = c->next;
		}
		scope = c;
	}
	return scope;
}

/* ---- commands ---- */

/* Splits at blanks; in double quotes they belong to a word. */
static unsigned split(char *line, char *words[WORDS_MAX])
{
	unsigned count = 0;

	for (char *at = line; *at != '\0' && count < WORDS_MAX;) {
		while (*at == ' ') {
			at++;
		}
		if (*at == '\0') {
			break;
		}
		char end = *at == '"' ? '"' : ' ';
		at += end == '"' ? 1 : 0;
		words[count++] = at;
		while (*at != '\0' && *at != end) {
			at++;
		}
		if (*at != '\0') {
			*at++ = '\0';
		}
	}
	return count;
}

/* One change; false: the line is none. */
static bool read_change(char *line, struct overlay *overlay)
{
	bool unset = line[0] == '-';
	char *words[WORDS_MAX];
	char *copy = strdup(line + unset);
	char why[CONFIG_WHY];
	char *value = NULL;
	struct config_scope scope;
	bool good = false;

	FUZZ_CHECK(copy != NULL);
	unsigned count = split(copy, words);
	unsigned rest = unset ? 1 : 2;
	int taken = config_scope_parse(&scope, words, count, rest, why);
	if (taken >= 0) {
		unsigned at = (unsigned)taken;
		if (at + rest <= count && config_option_check(&scope, words[at], why) == NULL) {
			const char *text = line + unset;
			text += unset ? 0 : words[at + 1] - copy;
			text -= !unset && text > line && text[-1] == '"' ? 1 : 0;
			good = unset || config_value_read(text, &value) == NULL;
		}
		if (good) {
			overlay_change(overlay, &scope, words[at], value, "fuzz", 0);
		}
		config_scope_free(&scope);
	}
	free(value);
	free(copy);
	return good;
}

/* ---- checks ---- */

/* What an edit may touch: [from, to) of the text as it was. All else is there as it was. */
struct touched {
	size_t from;
	size_t to;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static size_t begin_of_line(const struct tree_file *file, size_t at)
{
	while (at > 0 && file->text[at - 1] != '\n') {
		at--;
	}
	return at;
}

/* Behind its LF. */
static size_t end_of_line(const struct tree_file *file, size_t at)
{
	const char *lf = memchr(file->text + at, '\n', file->len - at);

	return lf != NULL ? (size_t)(lf - file->text) + 1 : file->len;
}

static bool all_blank(const struct tree_file *file, size_t from, size_t to)
{
	while (from < to && is_blank(file->text[from])) {
		from++;
	}
	return from >= to;
}

/* Only what is between may differ. */
static void check_around(const struct tree_file *before, const struct edit *edit, struct touched t)
{
	size_t behind = before->len - t.to;

	FUZZ_CHECK(edit->len >= t.from + behind);
	FUZZ_CHECK(memcmp(edit->text, before->text, t.from) == 0);
	FUZZ_CHECK(memcmp(edit->text + edit->len - behind, before->text + t.to, behind) == 0);
}

/* Whether `text` is the piece of the file, but for blanks at its end, or its begin. */
static bool is_piece(const struct tree_file *file, size_t from, size_t to, const char *text,
		     size_t len)
{
	return len <= to - from && memcmp(text, file->text + from, len) == 0 &&
	       all_blank(file, from + len, to);
}

static bool is_tail(const struct tree_file *file, size_t from, size_t to, const char *text,
		    size_t len)
{
	return len <= to - from && memcmp(text, file->text + to - len, len) == 0 &&
	       all_blank(file, from, to - len);
}

/* Behind comments and blanks that are in one line, with its LF; else where something else is. */
static size_t behind_comments(const struct tree_file *file, size_t at, size_t end)
{
	while (at < end && (is_blank(file->text[at]) || file->text[at] == '\n')) {
		at++;
	}
	if (at < end && file->text[at] == '#') {
		return end;
	}
	if (at + 1 < end && file->text[at] == '/' && file->text[at + 1] == '*') {
		const char *close = memmem(file->text + at + 2, end - at - 2, "*/", 2);

		return close != NULL ? behind_comments(file, (size_t)(close - file->text) + 2, end)
				     : at;
	}
	return at;
}

/* Of the statement's lines is left what is before it and behind it, or nothing at all where that is
 * no more than a comment behind it. */
static void check_removed(const struct tree_file *before, const struct edit *edit,
			  const struct tree_place *place)
{
	struct touched lines = {begin_of_line(before, place->begin),
				end_of_line(before, place->end)};
	bool alone = all_blank(before, lines.from, place->begin) &&
		     behind_comments(before, place->end, lines.to) == lines.to;

	check_around(before, edit, lines);
	const char *left = edit->text + lines.from;
	size_t len = edit->len - lines.from - (before->len - lines.to);
	bool found = alone && len == 0;
	for (size_t head = 0; !found && !alone && head <= len; head++) {
		found = is_piece(before, lines.from, place->begin, left, head) &&
			is_tail(before, place->end, lines.to, left + head, len - head);
	}
	FUZZ_CHECK(found);
}

/* Where the scope's last brace is, something is put before it: a line, if it has one of its own. */
static void check_inserted(const struct tree_file *before, const struct edit *edit,
			   const struct tree_opening *opening)
{
	size_t line = begin_of_line(before, opening->end);
	bool own = line > opening->body && all_blank(before, line, opening->end);
	size_t at = own ? line : opening->end;

	check_around(before, edit, (struct touched){at, at});
	size_t len = edit->len - before->len;
	const char *lf = memchr(edit->text + at, '\n', len);
	FUZZ_CHECK(own ? lf == edit->text + at + len - 1 : lf == NULL);
}

/* All that is not of the statement's lines is byte for byte as before. */
static void check_bytes(const struct tree *tree, const struct edit *edit,
			const struct overlay_change *change)
{
	const struct tree_file *before = &tree->files[0];
	const struct tree_scope *scope = scope_of(tree, &change->scope);
	const struct tree_option *option =
		scope != NULL ? tree_option_find(scope, change->option) : NULL;

	if (option != NULL && change->value != NULL) {
		check_around(before, edit,
			     (struct touched){option->place->value, option->place->end});
	} else if (option != NULL) {
		check_removed(before, edit, option->place);
	} else if (scope != NULL && scope->parent != NULL) {
		check_inserted(before, edit, scope->openings);
	} else {
		check_around(before, edit, (struct touched){before->len, before->len});
	}
}

static void check_edit(const struct tree *before, const struct edit *edit,
		       const struct overlay_change *change)
{
	struct tree after;
	bool good = parse(&after, edit->text, edit->len);

	if (!good) {
		fprintf(stderr, "before:\n%.*s\nafter:\n%s\n", (int)before->files[0].len,
			before->files[0].text, edit->text);
	}
	FUZZ_CHECK(good);
	check_bytes(before, edit, change);
	check_has(before->root, after.root, scope_of(before, &change->scope), change->option);
	check_has(after.root, before->root, scope_of(&after, &change->scope), change->option);
	if (change->value != NULL) {
		struct tree_value wanted;
		const struct tree_scope *scope = scope_of(&after, &change->scope);
		const struct tree_option *found =
			scope != NULL ? tree_option_find(scope, change->option) : NULL;
		FUZZ_CHECK(found != NULL);
		FUZZ_CHECK(parser_value(&after, change->value, SOURCE_DEFAULT, &wanted) == 0);
		FUZZ_CHECK(same_value(&found->value, &wanted));
	}
	tree_free(&after);
}

/* Until nothing is left to unset. */
static void edit_all(const char *text, size_t len, const struct overlay_change *change)
{
	char *owned = NULL;

	for (unsigned i = 0;; i++) {
		struct tree before;
		struct edit edit = {.text = NULL};
		char why[CONFIG_WHY];

		FUZZ_CHECK(i < EDITS_MAX);
		bool good = parse(&before, text, len);
		FUZZ_CHECK(good || i == 0);
		if (good) {
			FUZZ_CHECK(edit_change(&before, change, &edit, why) == 0);
		}
		if (edit.text != NULL) {
			check_edit(&before, &edit, change);
		} else if (good) {
			FUZZ_CHECK(change->value == NULL);
		}
		tree_free(&before);
		free(owned);
		owned = edit.text;
		text = edit.text;
		len = edit.len;
		if (edit.text == NULL || change->value != NULL) {
			break;
		}
	}
	free(owned);
}

/* A path in an include could lead anywhere. */
static bool names_files(const char *text, size_t len)
{
	for (size_t i = 0; i + 7 <= len; i++) {
		if (strncasecmp(text + i, "include", 7) == 0) {
			return true;
		}
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *all = (char *)fuzz_copy(data, size);
	char *lf = memchr(all, '\n', size);
	struct overlay overlay = {.count = 0};
	bool good = false;

	if (lf != NULL && memchr(all, '\0', (size_t)(lf - all)) == NULL &&
	    !names_files(all, size)) {
		*lf = '\0';
		good = read_change(all, &overlay);
	}
	if (good) {
		edit_all(lf + 1, size - (size_t)(lf + 1 - all), &overlay.changes[0]);
	}
	overlay_free(&overlay);
	free(all);
	return good ? 0 : -1;
}
