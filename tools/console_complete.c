#include "tools/console_complete.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WORD_MAX 128
#define WORDS_MAX 1000

/* Words that the console itself obeys. */
static const char *const own_words[] = {"quit", "exit", "top"};

SINGLE
struct found {
	json_t *words;
	const char *prefix;
};

/* In upper case: it stands for something. */
static bool is_placeholder(const char *word)
{
	return isupper((unsigned char)word[0]) &&
	       (word[1] == '\0' || isupper((unsigned char)word[1]));
}

static void add(struct found *f, const char *word, size_t len)
{
	json_t *other;
	size_t i;

	if (len < strlen(f->prefix) || strncasecmp(word, f->prefix, strlen(f->prefix)) != 0 ||
	    json_array_size(f->words) >= WORDS_MAX) {
		return;
	}
	json_array_foreach(f->words, i, other)
	{
		if (json_string_length(other) == len &&
		    strncmp(json_string_value(other), word, len) == 0) {
			return;
		}
	}
	json_array_append_new(f->words, json_stringn(word, len));
}

static void add_names(const struct complete *c, struct found *f, const char *kind)
{
	json_t *names = c->names(c->context, kind, f->prefix);
	json_t *name;
	size_t i;

	json_array_foreach(names, i, name)
	{
		if (json_is_string(name)) {
			add(f, json_string_value(name), json_string_length(name));
		}
	}
	json_decref(names);
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return text != NULL ? text : "";
}

/* ---- names of commands ---- */

/* Both have their words separated by one blank. */
static void add_commands(const struct complete *c, struct found *f, const char *before)
{
	size_t len = strlen(before);
	json_t *row;
	size_t i;

	json_array_foreach(c->commands, i, row)
	{
		const char *name = text_of(row, "command");

		if (strncasecmp(name, before, len) == 0) {
			add(f, name + len, strcspn(name + len, " "));
		}
	}
}

/* ---- arguments ---- */

/* The next word of `*at`, what arguments are called: "[domain NAME]" is two words; "in|out" is one.
 * False at the end. */
static bool next_word(const char **at, char word[WORD_MAX])
{
	const char *from = *at + strspn(*at, " []");
	size_t len = strcspn(from, " []");

	if (len == 0) {
		return false;
	}
	*at = from + len;
	len = len < WORD_MAX - 1 ? len : WORD_MAX - 1;
	memcpy(word, from, len);
	word[len] = '\0';
	return true;
}

/* What a placeholder stands for, after the word `by` or in a command called so. */
static const char *kind_of(const char *placeholder, const char *by)
{
	if (strcmp(placeholder, "BINDING") == 0) {
		return "binding";
	}
	if (strcmp(placeholder, "DOMAIN") == 0) {
		return "domain";
	}
	if (strcmp(placeholder, "NAME") != 0) {
		return NULL;
	}
	if (strcmp(by, "binding") == 0 || strcmp(by, "bindings") == 0) {
		return "binding";
	}
	return strcmp(by, "domain") == 0 || strcmp(by, "site") == 0 ? "domain" : NULL;
}

/* What stands at one place: words to choose from, or a name. */
static void add_place(const struct complete *c, struct found *f, char *place, const char *by)
{
	char *rest = NULL;

	if (is_placeholder(place)) {
		const char *kind = kind_of(place, by);

		if (kind != NULL) {
			add_names(c, f, kind);
		}
		return;
	}
	for (char *word = strtok_r(place, "|", &rest); word != NULL;
	     word = strtok_r(NULL, "|", &rest)) {
		if (!is_placeholder(word) && strchr(word, '/') == NULL) {
			add(f, word, strlen(word));
		}
	}
}

/* Whether `word` is one of "a|b". */
static bool is_among(const char *word, const char *place)
{
	size_t len = strlen(word);

	while (len > 0 && *place != '\0') {
		size_t n = strcspn(place, "|");

		if (n == len && strncasecmp(place, word, n) == 0) {
			return true;
		}
		place += n + (place[n] == '|');
	}
	return false;
}

/* A word that has a value after it, within the same brackets: what comes next is that. */
static bool add_value(const struct complete *c, struct found *f, const char *syntax,
		      const char *last)
{
	const char *at = syntax;
	char word[WORD_MAX];
	char value[WORD_MAX];

	while (next_word(&at, word)) {
		const char *behind = at;

		if (!is_placeholder(word) && is_among(last, word) && *behind == ' ' &&
		    next_word(&behind, value)) {
			add_place(c, f, value, last);
			return true;
		}
	}
	return false;
}

static void add_arguments(const struct complete *c, struct found *f, const json_t *command,
			  const char *last)
{
	const char *syntax = text_of(command, "arguments");
	const char *name = text_of(command, "command");
	const char *by = strrchr(name, ' ') != NULL ? strrchr(name, ' ') + 1 : name;
	const char *at = syntax;
	char word[WORD_MAX];
	bool value = false;

	if (last[0] != '\0' && add_value(c, f, syntax, last)) {
		return;
	}
	while (next_word(&at, word)) {
		/* The value of a word is offered behind that word only. */
		bool has_value = !is_placeholder(word) && *at == ' ';

		if (!value) {
			add_place(c, f, word, by);
		}
		value = has_value;
	}
}

/* The command with the longest name that `before` begins with; its length. */
static const json_t *find_command(const struct complete *c, const char *before, size_t *len)
{
	const json_t *best = NULL;
	json_t *row;
	size_t i;

	*len = 0;
	json_array_foreach(c->commands, i, row)
	{
		const char *name = text_of(row, "command");
		size_t n = strlen(name);

		if (n > *len && strncasecmp(name, before, n) == 0 && before[n] == ' ') {
			best = row;
			*len = n;
		}
	}
	return best;
}

/* One blank between words, none in front, one behind the last. malloc. */
static char *tidy(const char *before)
{
	char *text = malloc(strlen(before) + 2);
	char *to = text;

	if (text == NULL) {
		return NULL;
	}
	while (*(before += strspn(before, " \t")) != '\0') {
		size_t len = strcspn(before, " \t");

		memcpy(to, before, len);
		to += len;
		*to++ = ' ';
		before += len;
	}
	*to = '\0';
	return text;
}

/* The last word of arguments that end in a blank; in place. */
static const char *last_word(char *arguments)
{
	size_t len = strlen(arguments);
	const char *blank;

	if (len == 0) {
		return "";
	}
	arguments[len - 1] = '\0';
	blank = strrchr(arguments, ' ');
	return blank != NULL ? blank + 1 : arguments;
}

json_t *complete_words(const struct complete *c, const char *before, const char *word)
{
	struct found f = {.words = json_array(), .prefix = word};
	char *line = tidy(before);
	const json_t *command;
	size_t len;

	if (f.words == NULL || line == NULL) {
		free(line);
		return f.words;
	}
	if (strncasecmp(line, "help ", 5) == 0) {
		add_commands(c, &f, line + 5);
		free(line);
		return f.words;
	}
	add_commands(c, &f, line);
	if (line[0] == '\0') {
		for (unsigned i = 0; i < sizeof(own_words) / sizeof(own_words[0]); i++) {
			add(&f, own_words[i], strlen(own_words[i]));
		}
	}
	command = find_command(c, line, &len);
	if (command != NULL) {
		add_arguments(c, &f, command, last_word(line + len + 1));
	}
	free(line);
	return f.words;
}
