#include "tools/console_prompt.h"

#include <editline/readline.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY_LINES 1000
#define NAMES_MAX 64

/* What completion, which has no context of its own, completes. */
static char *names[NAMES_MAX];
static unsigned name_count;

static void learn_names(struct console *c)
{
	json_t *answer = console_ask(c, "help");
	json_t *rows = json_object_get(answer, "result");
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const char *name = json_string_value(json_object_get(row, "command"));

		if (name != NULL && name_count < NAMES_MAX) {
			names[name_count++] = strdup(name);
		}
	}
	json_decref(answer);
	if (name_count < NAMES_MAX) {
		names[name_count++] = strdup("quit");
	}
}

/* The next word of a command name that goes on from what stands on the line before the word. */
static char *next_word(const char *word, int state)
{
	static unsigned next;
	size_t before = (size_t)rl_point - strlen(word);

	if (state == 0) {
		next = 0;
	}
	while (next < name_count) {
		const char *name = names[next++];

		if (name != NULL && strncmp(name, rl_line_buffer, before) == 0 &&
		    strncmp(name + before, word, strlen(word)) == 0) {
			return strndup(name + before, strcspn(name + before, " "));
		}
	}
	return NULL;
}

static char **complete(const char *word, int start, int end)
{
	(void)start;
	(void)end;
	rl_attempted_completion_over = 1;
	return rl_completion_matches(word, next_word);
}

/* "~/.flywheel_history"; NULL without a home. */
static char *history_path(void)
{
	const char *home = getenv("HOME");
	char *path;

	if (home == NULL || asprintf(&path, "%s/.flywheel_history", home) < 0) {
		return NULL;
	}
	return path;
}

static bool is_quit(const char *line)
{
	return strcmp(line, "quit") == 0 || strcmp(line, "exit") == 0;
}

/* In place: without blanks around it. */
static char *trim(char *line)
{
	size_t len;

	line += strspn(line, " \t");
	len = strlen(line);
	while (len > 0 && strchr(" \t\r\n", line[len - 1]) != NULL) {
		line[--len] = '\0';
	}
	return line;
}

static int read_lines(prompt_run_fn run, void *context)
{
	int rc = 0;
	char *line;

	while (rc != 2 && (line = readline("flywheel> ")) != NULL) {
		char *command = trim(line);

		if (is_quit(command)) {
			free(line);
			return rc;
		}
		if (command[0] != '\0') {
			add_history(command);
			rc = run(context, command);
		}
		free(line);
	}
	putchar('\n');
	return rc;
}

int prompt_loop(struct console *c, prompt_run_fn run, void *context)
{
	char *path = history_path();
	int rc;

	rl_readline_name = "flywheel";
	rl_attempted_completion_function = complete;
	rl_initialize();
	using_history();
	stifle_history(HISTORY_LINES);
	if (path != NULL) {
		read_history(path);
	}
	learn_names(c);
	rc = read_lines(run, context);
	if (path != NULL) {
		write_history(path);
	}
	free(path);
	while (name_count > 0) {
		free(names[--name_count]);
	}
	return rc;
}
