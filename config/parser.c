#include "config/parser.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/include.h"
#include "config/lexer.h"
#include "core/runtime/check.h"

/* Deeper nesting is a mistake, and recursion has to end. */
enum { SCOPE_DEPTH_MAX = 32, VALUE_DEPTH_MAX = 16 };

/* For "%.*s". */
#define TOKEN_SHOWN(token) (int)((token)->len < 100 ? (token)->len : 100), (token)->text

/* One file being parsed. Those that include it wait further up the stack. */
struct parser {
	struct tree *tree;
	struct report *report;
	struct include_file *file;
	struct lexer lexer;
	struct token token;
	/* Where the token before it ended. */
	const char *behind;
	uint32_t depth;
	/* Nothing more is said about this file. */
	bool abandoned;
};

static void parse_block(struct parser *p, struct tree_scope *scope, const struct source *opened);

static void advance(struct parser *p)
{
	p->behind = p->token.end;
	p->token = lexer_next(&p->lexer);
}

/* What comes after the current token, without taking it. */
static int peek(const struct parser *p)
{
	struct lexer ahead = p->lexer;
	ahead.report = NULL;
	return lexer_next(&ahead).kind;
}

static struct source at_line(const struct parser *p, uint32_t line)
{
	return (struct source){.file = p->lexer.source.file, .line = line};
}

static void abandon(struct parser *p)
{
	p->abandoned = true;
	p->lexer.at = p->lexer.end;
	advance(p);
}

/* After an error on `line`: what is left of that line is not understood. A scope that opens there
 * is still parsed, for its own errors and its closing brace, and then forgotten. */
static void skip_line(struct parser *p, uint32_t line)
{
	while (p->token.kind != TOKEN_END && p->token.kind != '}' && p->token.line == line) {
		if (p->token.kind == '{') {
			struct source opened = at_line(p, p->token.line);
			struct tree_scope *nowhere = tree_scope_detached(p->tree);
			nowhere->name = "{";
			advance(p);
			parse_block(p, nowhere, &opened);
		} else {
			advance(p);
		}
	}
}

static void unexpected(struct parser *p, const char *expected)
{
	uint32_t line = p->token.line;
	if (p->token.kind == TOKEN_END) {
		report_error(p->report, at_line(p, line), "end of file; expected %s", expected);
		return;
	}
	report_error(p->report, at_line(p, line), "unexpected %.*s; expected %s",
		     TOKEN_SHOWN(&p->token), expected);
	skip_line(p, line);
}

static const char *token_text(struct parser *p, const struct token *token)
{
	return tree_text(p->tree, token->text, token->len);
}

static const char *token_folded(struct parser *p, const struct token *token)
{
	return tree_text_folded(p->tree, token->text, token->len);
}

/* Values. Each returns 0 with the token after the value, or -EINVAL when it said what is wrong. */

static int parse_value(struct parser *p, struct tree_value *value, uint32_t depth);

static int parse_key(struct parser *p, struct tree_value *item)
{
	if (p->token.kind != TOKEN_WORD) {
		return -EINVAL;
	}
	item->key = token_folded(p, &p->token);
	advance(p);
	if (p->token.kind != '=') {
		return -EINVAL;
	}
	advance(p);
	return 0;
}

/* The items of a list or dictionary up to its closing `end`; commas between them are tolerated. */
static int parse_items(struct parser *p, struct tree_value *value, char end, uint32_t depth)
{
	struct tree_value **link = &value->first;
	advance(p);
	while (p->token.kind != end) {
		struct tree_value *item =
			arena_alloc(&p->tree->arena, sizeof(*item), _Alignof(struct tree_value));
		if ((end == ']' && parse_key(p, item) != 0) || parse_value(p, item, depth) != 0) {
			return -EINVAL;
		}
		*link = item;
		link = &item->next;
		value->count++;
		if (p->token.kind == ',') {
			advance(p);
		}
	}
	advance(p);
	return 0;
}

static int parse_value(struct parser *p, struct tree_value *value, uint32_t depth)
{
	value->source = at_line(p, p->token.line);
	if (p->token.kind == TOKEN_WORD) {
		value->kind = TREE_WORD;
		value->word = token_text(p, &p->token);
		advance(p);
		return 0;
	}
	if ((p->token.kind != '(' && p->token.kind != '[') || depth == VALUE_DEPTH_MAX) {
		return -EINVAL;
	}
	bool list = p->token.kind == '(';
	value->kind = list ? TREE_LIST : TREE_DICTIONARY;
	return parse_items(p, value, list ? ')' : ']', depth + 1);
}

/* The value of `name`, which began with `opening`, went wrong at the current token. */
static void report_bad_value(struct parser *p, const char *name, uint32_t line, int opening)
{
	const char *kind = opening == '(' ? "list" : "dictionary";
	const char *close = opening == '(' ? ")" : "]";
	struct source source = at_line(p, line);
	if (opening != '(' && opening != '[') {
		report_error(p->report, source,
			     "option \"%.100s\": no value; expected a value after =", name);
		skip_line(p, line);
		return;
	}
	if (p->token.kind == TOKEN_END) {
		report_error(p->report, source, "option \"%.100s\": %s is not closed; expected %s",
			     name, kind, close);
		return;
	}
	report_error(p->report, at_line(p, p->token.line),
		     "option \"%.100s\": unexpected %.*s in a %s; expected %s or %s", name,
		     TOKEN_SHOWN(&p->token), kind,
		     opening == '(' ? "words, in quotes if they have punctuation in them,"
				    : "key = value",
		     close);
	skip_line(p, p->token.line);
}

static uint32_t offset_of(const struct parser *p, const char *at)
{
	return (uint32_t)(at - p->file->text);
}

/* `name =` is read. */
static void parse_option(struct parser *p, struct tree_scope *scope, const struct token *name)
{
	const char *folded = token_folded(p, name);
	struct tree_value value = {0};
	struct tree_option *option;
	const char *value_begin = p->token.begin;
	int opening = p->token.kind;

	/* `a =` and on the next line `b = 1` or `b {`: the value of a was forgotten. */
	if (opening == TOKEN_WORD && !p->token.quoted && p->token.line > name->line) {
		int after = peek(p);
		if (after == '=' || after == '{') {
			opening = '=';
		}
	}
	if (opening == '=' || parse_value(p, &value, 0) != 0) {
		report_bad_value(p, folded, name->line, opening);
		return;
	}
	option = tree_option_add(p->tree, scope, folded);
	option->value = value;
	if (p->tree->keeps_places) {
		struct tree_place *place =
			arena_alloc(&p->tree->arena, sizeof(*place), _Alignof(struct tree_place));
		*place = (struct tree_place){
			.file = p->file->number,
			.begin = offset_of(p, name->begin),
			.value = offset_of(p, value_begin),
			.end = offset_of(p, p->behind),
		};
		option->place = place;
	}
}

/* The scope's brace was the last token; where it closes is not known yet. */
static struct tree_opening *keep_opening(struct parser *p, struct tree_scope *scope,
					 const struct token *name)
{
	struct tree_opening *opening;
	if (!p->tree->keeps_places) {
		return NULL;
	}
	opening = arena_alloc(&p->tree->arena, sizeof(*opening), _Alignof(struct tree_opening));
	*opening = (struct tree_opening){
		.next = scope->openings,
		.file = p->file->number,
		.begin = offset_of(p, name->begin),
		.body = offset_of(p, p->behind),
	};
	scope->openings = opening;
	return opening;
}

/* `name {` or `name "instance" {` is current at its brace. */
static void parse_scope(struct parser *p, struct tree_scope *parent, const struct token *name,
			const struct token *instance)
{
	struct source opened = at_line(p, name->line);
	const char *folded = token_folded(p, name);
	const char *text = NULL;
	struct tree_scope *scope;
	struct tree_opening *opening;

	if (instance != NULL) {
		text = tree_text_instance(p->tree, folded, instance->text, instance->len);
	}
	advance(p);
	scope = tree_scope_open(p->tree, parent, folded, text, opened);
	opening = keep_opening(p, scope, name);
	parse_block(p, scope, &opened);
	if (opening != NULL) {
		/* Behind the brace, which was taken. */
		opening->end = offset_of(p, p->behind) - 1;
	}
}

static void parse_file(struct include_file *file, struct tree *tree, struct report *report,
		       struct tree_scope *scope, uint32_t depth)
{
	struct parser p = {
		.tree = tree,
		.report = report,
		.file = file,
		.lexer =
			{
				.at = file->text,
				.end = file->text + file->len,
				.source = {.file = file->number, .line = 1},
				.arena = &tree->arena,
				.report = report,
			},
		.depth = depth,
	};
	if (tree->keeps_places) {
		tree->files[file->number].text = arena_text(&tree->arena, file->text, file->len);
		tree->files[file->number].len = file->len;
	}
	advance(&p);
	parse_block(&p, scope, NULL);
}

/* `include "path"`: its statements stand where the include stands. */
static void parse_include(struct parser *p, struct tree_scope *scope, bool readonly)
{
	struct include include = {
		.tree = p->tree,
		.report = p->report,
		.from = p->file,
		.source = at_line(p, p->token.line),
		.readonly = readonly || p->file->readonly,
	};
	const char *path = token_text(p, &p->token);
	advance(p);

	struct include_list list = include_list(&include, path);
	for (size_t i = 0; i < list.count; i++) {
		struct include_file file;
		if (include_open(&include, list.paths[i], &file) == 0) {
			parse_file(&file, p->tree, p->report, scope, p->depth);
			include_close(&file);
		}
	}
	include_list_free(&list);
}

static bool is_name(const struct token *token, const char *name)
{
	return token->len == strlen(name) && strncasecmp(token->text, name, token->len) == 0;
}

/* A word that is not followed by = or { : an option without a value, or worse. */
static void report_no_statement(struct parser *p, const struct token *name)
{
	report_error(p->report, at_line(p, name->line),
		     "\"%.*s\": neither a value nor a scope; expected %.*s = VALUE or %.*s { ... }",
		     TOKEN_SHOWN(name), TOKEN_SHOWN(name), TOKEN_SHOWN(name));
	skip_line(p, name->line);
}

static void parse_statement(struct parser *p, struct tree_scope *scope)
{
	struct token name = p->token;
	if (name.kind != TOKEN_WORD || name.quoted) {
		unexpected(p, "the name of an option or scope");
		return;
	}
	advance(p);
	if (p->token.kind == '=') {
		advance(p);
		parse_option(p, scope, &name);
	} else if (p->token.kind == '{') {
		parse_scope(p, scope, &name, NULL);
	} else if (p->token.kind == TOKEN_WORD && is_name(&name, "include")) {
		parse_include(p, scope, false);
	} else if (p->token.kind == TOKEN_WORD && is_name(&name, "readonly_include")) {
		parse_include(p, scope, true);
	} else if (p->token.kind == TOKEN_WORD && peek(p) == '{') {
		struct token instance = p->token;
		advance(p);
		parse_scope(p, scope, &name, &instance);
	} else {
		report_no_statement(p, &name);
	}
}

/* Statements up to the brace that closes `scope`, or with `opened` NULL to the end of the file. */
static void parse_block(struct parser *p, struct tree_scope *scope, const struct source *opened)
{
	char label[256];
	if (p->depth == SCOPE_DEPTH_MAX) {
		report_error(p->report, opened != NULL ? *opened : at_line(p, p->token.line),
			     "scope %.100s: nested deeper than %d; expected }",
			     tree_scope_label(scope, label, sizeof(label)), SCOPE_DEPTH_MAX);
		abandon(p);
		return;
	}
	p->depth++;
	while (p->token.kind != TOKEN_END && (p->token.kind != '}' || opened == NULL)) {
		if (p->token.kind == '}') {
			report_error(p->report, at_line(p, p->token.line),
				     "unexpected }; expected a scope to be open in this file");
			advance(p);
		} else {
			parse_statement(p, scope);
		}
	}
	p->depth--;
	if (p->token.kind == '}') {
		advance(p);
	} else if (opened != NULL && !p->abandoned) {
		report_error(p->report, *opened,
			     "scope %s: not closed; expected } before the end "
			     "of the file",
			     tree_scope_label(scope, label, sizeof(label)));
	}
}

int parser_load_file(struct tree *tree, struct report *report, const char *path)
{
	struct include include = {.tree = tree, .report = report};
	struct include_file file;
	int rc = include_open(&include, path, &file);
	if (rc == 0) {
		parse_file(&file, tree, report, tree->root, 0);
		include_close(&file);
	}
	return rc;
}

void parser_load_text(struct tree *tree, struct report *report, const char *path, const char *text,
		      size_t len)
{
	struct include_file file = {
		.path = path,
		.number = tree_add_file(tree, path, false),
		.text = text,
		.len = len,
	};
	parse_file(&file, tree, report, tree->root, 0);
}

int parser_value_find(const char *text, const char **begin, const char **end)
{
	struct tree tree;
	struct report report = {.tree = &tree};
	struct tree_value value = {0};
	struct parser p = {.tree = &tree, .report = &report};
	char *errors = NULL;
	size_t size;
	tree_init(&tree);
	report.out = check_memory(open_memstream(&errors, &size), "the configuration");
	p.lexer = (struct lexer){
		.at = text,
		.end = text + strlen(text),
		.source = {.line = 1},
		.arena = &tree.arena,
		.report = &report,
	};
	advance(&p);
	*begin = p.token.begin;
	bool good = parse_value(&p, &value, 0) == 0 && p.token.kind == TOKEN_END;
	*end = p.behind;
	good = good && report.errors == 0 && p.token.line == 1;
	report_close(&report);
	fclose(report.out);
	free(errors);
	tree_free(&tree);
	return good ? 0 : -EINVAL;
}

int parser_value(struct tree *tree, const char *text, struct source source,
		 struct tree_value *value)
{
	struct parser p = {
		.tree = tree,
		.lexer = {.at = text, .end = text + strlen(text), .source = source},
	};
	p.lexer.arena = &tree->arena;
	advance(&p);
	*value = (struct tree_value){0};
	if (parse_value(&p, value, 0) != 0 || p.token.kind != TOKEN_END) {
		return -EINVAL;
	}
	return 0;
}
