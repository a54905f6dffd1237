#include "tools/console_prompt.h"

#include <editline/readline.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "tools/console_complete.h"

#define HISTORY_LINES 1000
#define INTERRUPT ('C' & 0x1f)

/* What callbacks of line editing, which have no context of their own, work on. */
static struct console *console;
static struct complete completion;
static json_t *candidates;
static bool interrupted;

/* ---- completion ---- */

static json_t *ask(const char *command)
{
	json_t *answer = console_ask(console, command);
	json_t *result = json_incref(json_object_get(answer, "result"));

	json_decref(answer);
	return result;
}

static json_t *ask_names(void *context, const char *kind, const char *prefix)
{
	char command[512];
	int len = snprintf(command, sizeof(command), "complete %s%s%s", kind,
			   prefix[0] != '\0' ? " " : "", prefix);

	(void)context;
	if (len < 0 || (size_t)len >= sizeof(command) || strpbrk(prefix, "\"\n") != NULL) {
		return NULL;
	}
	return ask(command);
}

static char *next_candidate(const char *word, int state)
{
	static size_t next;
	const char *text;

	(void)word;
	next = state == 0 ? 0 : next;
	text = json_string_value(json_array_get(candidates, next++));
	return text != NULL ? strdup(text) : NULL;
}

static char **complete(const char *word, int start, int end)
{
	char *before = strndup(rl_line_buffer, (size_t)start);
	char **matches = NULL;

	(void)end;
	rl_attempted_completion_over = 1;
	if (completion.commands == NULL) {
		completion.commands = ask("help");
	}
	if (before != NULL) {
		candidates = complete_words(&completion, before, word);
		matches = rl_completion_matches(word, next_candidate);
		json_decref(candidates);
		candidates = NULL;
	}
	free(before);
	return matches;
}

/* ---- history ---- */

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

/* For its owner's eyes only, whatever it was before. */
static void save_history(const char *path)
{
	mode_t mask = umask(077);

	if (access(path, F_OK) == 0) {
		chmod(path, 0600);
	}
	write_history(path);
	umask(mask);
}

/* ---- the prompt ---- */

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

static int on_interrupt(int count, int key)
{
	(void)count;
	(void)key;
	interrupted = true;
	rl_done = 1;
	return 0;
}

/* A line, or NULL at the end of input. While it is written ^C is a key, which drops the line, and
 * no signal: nothing that runs can be hit by it. */
static char *read_line(void)
{
	struct termios saved;
	struct termios quiet;
	bool terminal = tcgetattr(STDIN_FILENO, &saved) == 0;
	char *line;

	do {
		interrupted = false;
		rl_done = 0;
		if (terminal) {
			quiet = saved;
			quiet.c_cc[VINTR] = _POSIX_VDISABLE;
			tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet);
		}
		line = readline("flywheel> ");
		if (terminal) {
			tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
		}
		if (interrupted) {
			puts("^C");
		}
	} while (line == NULL && interrupted);
	return line;
}

static int read_lines(prompt_run_fn run, void *context)
{
	int rc = 0;
	char *line;

	while ((line = read_line()) != NULL) {
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

	console = c;
	completion = (struct complete){.names = ask_names};
	rl_readline_name = "flywheel";
	rl_attempted_completion_function = complete;
	rl_initialize();
	rl_add_defun("flywheel-interrupt", on_interrupt, INTERRUPT);
	using_history();
	stifle_history(HISTORY_LINES);
	if (path != NULL) {
		read_history(path);
	}
	rc = read_lines(run, context);
	if (path != NULL) {
		save_history(path);
	}
	free(path);
	json_decref(completion.commands);
	return rc;
}
