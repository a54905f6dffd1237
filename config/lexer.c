#include "config/lexer.h"

#include <string.h>

static bool is_control(char c)
{
	return (unsigned char)c < ' ' || c == 0x7f;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

static bool is_punctuation(char c)
{
	return c != '\0' && strchr("={}()[],;", c) != NULL;
}

static bool starts_comment(const struct lexer *lexer)
{
	return *lexer->at == '#' ||
	       (*lexer->at == '/' && lexer->end - lexer->at > 1 && lexer->at[1] == '*');
}

/* A slash is part of a word (paths, networks, rates), unless a comment begins with it. */
static bool is_word(const struct lexer *lexer)
{
	char c = *lexer->at;
	return !is_control(c) && c != ' ' && c != '"' && c != '\'' && !is_punctuation(c) &&
	       !starts_comment(lexer);
}

static void skip_line_comment(struct lexer *lexer)
{
	const char *end = memchr(lexer->at, '\n', (size_t)(lexer->end - lexer->at));
	lexer->at = end != NULL ? end : lexer->end;
}

static void skip_block_comment(struct lexer *lexer)
{
	struct source opened = lexer->source;
	for (lexer->at += 2; lexer->end - lexer->at > 1; lexer->at++) {
		if (lexer->at[0] == '*' && lexer->at[1] == '/') {
			lexer->at += 2;
			return;
		}
		lexer->source.line += *lexer->at == '\n';
	}
	lexer->at = lexer->end;
	if (lexer->report != NULL) {
		report_error(lexer->report, opened, "comment is not closed; expected */");
	}
}

/* The byte at the front belongs in no text. */
static void report_byte(struct lexer *lexer)
{
	if (lexer->report != NULL) {
		report_error(lexer->report, lexer->source, "unexpected byte 0x%02x; expected text",
			     (unsigned)*lexer->at);
	}
}

/* To the next byte that belongs to a token. */
static void skip_blank(struct lexer *lexer)
{
	while (lexer->at < lexer->end) {
		if (is_space(*lexer->at)) {
			lexer->source.line += *lexer->at == '\n';
			lexer->at++;
		} else if (*lexer->at == '#') {
			skip_line_comment(lexer);
		} else if (starts_comment(lexer)) {
			skip_block_comment(lexer);
		} else if (is_control(*lexer->at)) {
			report_byte(lexer);
			lexer->at++;
		} else {
			return;
		}
	}
}

/* In double quotes \" and \\ stand for the second character; other backslashes for themselves. */
static struct token unescaped(const struct lexer *lexer, struct token token)
{
	char *out = arena_alloc(lexer->arena, token.len, 1);
	size_t len = 0;
	for (size_t i = 0; i < token.len; i++) {
		if (token.text[i] == '\\' && i + 1 < token.len &&
		    (token.text[i + 1] == '"' || token.text[i + 1] == '\\')) {
			i++;
		}
		out[len++] = token.text[i];
	}
	token.text = out;
	token.len = len;
	return token;
}

/* Whether the byte at the front may not stand in quotes. A carriage return ends a line that way. */
static bool is_foreign(const struct lexer *lexer)
{
	char c = *lexer->at;
	if (c == '\r') {
		return lexer->end - lexer->at < 2 || lexer->at[1] != '\n';
	}
	return is_control(c) && c != '\t';
}

/* One character between quotes. Returns whether it was escaped. */
static bool quoted_character(struct lexer *lexer, char quote)
{
	if (is_foreign(lexer)) {
		report_byte(lexer);
	}
	bool escaped = *lexer->at == '\\' && quote == '"' && lexer->end - lexer->at > 1 &&
		       (lexer->at[1] == '"' || lexer->at[1] == '\\');
	lexer->at += escaped ? 2 : 1;
	return escaped;
}

static struct token quoted_word(struct lexer *lexer)
{
	char quote = *lexer->at++;
	bool escapes = false;
	struct token token = {
		.kind = TOKEN_WORD,
		.quoted = true,
		.line = lexer->source.line,
		.text = lexer->at,
	};
	while (lexer->at < lexer->end && *lexer->at != quote && *lexer->at != '\n') {
		escapes |= quoted_character(lexer, quote);
	}
	token.len = (size_t)(lexer->at - token.text);
	if (lexer->at < lexer->end && *lexer->at == quote) {
		lexer->at++;
	} else if (lexer->report != NULL) {
		report_error(lexer->report, lexer->source,
			     "quoted text is not closed; expected %c on the same line", quote);
	}
	return escapes ? unescaped(lexer, token) : token;
}

static struct token bare_word(struct lexer *lexer)
{
	struct token token = {
		.kind = TOKEN_WORD,
		.line = lexer->source.line,
		.text = lexer->at,
	};
	while (lexer->at < lexer->end && is_word(lexer)) {
		lexer->at++;
	}
	token.len = (size_t)(lexer->at - token.text);
	return token;
}

static struct token next_token(struct lexer *lexer)
{
	if (lexer->at == lexer->end) {
		return (struct token){.kind = TOKEN_END, .line = lexer->source.line, .text = ""};
	}
	if (*lexer->at == '"' || *lexer->at == '\'') {
		return quoted_word(lexer);
	}
	if (is_punctuation(*lexer->at)) {
		struct token token = {
			.kind = *lexer->at,
			.line = lexer->source.line,
			.text = lexer->at,
			.len = 1,
		};
		lexer->at++;
		return token;
	}
	return bare_word(lexer);
}

struct token lexer_next(struct lexer *lexer)
{
	skip_blank(lexer);
	const char *begin = lexer->at;
	struct token token = next_token(lexer);
	token.begin = begin;
	token.end = lexer->at;
	return token;
}
