/*
 * Cuts the text of one file into words and punctuation, and counts lines. A word is bare or quoted;
 * quoted ones end on the line they began on, so that a forgotten quote is reported where it is.
 *
 * A lexer is a small value: a copy of it with `report` NULL looks ahead without a trace.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/arena.h"
#include "config/report.h"
#include "core/runtime/thread_class.h"

/* Punctuation is its own kind, such as '=' and '{'. */
enum { TOKEN_END = 0, TOKEN_WORD = 1 };

SINGLE
struct token {
	/* TOKEN_END, TOKEN_WORD, or one of = { } ( ) [ ] , ; */
	int kind;
	/* Was written in quotes. */
	bool quoted;
	uint32_t line;
	/* The word without its quotes and escapes, or the punctuation; not NUL-terminated. */
	const char *text;
	size_t len;
	/* As it stands in the file, with its quotes. */
	const char *begin;
	const char *end;
};

SINGLE
struct lexer {
	const char *at;
	const char *end;
	struct source source;
	/* For words with escapes, which are not a part of the text as they are. */
	struct arena *arena;
	/* NULL: quiet. */
	struct report *report;
};

/* The next token. What no token may hold is reported and skipped. At the end: TOKEN_END for ever.
 */
SINGLE
struct token lexer_next(struct lexer *lexer);
