/*
 * flywheel: the console of flywheeld. It sends commands to the control socket and shows the
 * answers, as text for people or as JSON. Start reading at run_command().
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/version.h"
#include "tools/config_repository.h"
#include "tools/console_client.h"
#include "tools/console_pager.h"
#include "tools/console_prompt.h"
#include "tools/console_render.h"
#include "tools/console_top.h"
#include "tools/log_commands.h"

#define DEFAULT_SOCKET "/run/flywheel/control"

enum { EXIT_OK = 0, EXIT_COMMAND = 1, EXIT_CONNECTION = 2 };

static const char help_text[] =
	"NAME\n"
	"    flywheel - console of the mail transfer agent flywheeld\n"
	"\n"
	"SYNOPSIS\n"
	"    flywheel [-s SOCKET] [--json] COMMAND [ARGUMENT...]\n"
	"    flywheel [-s SOCKET] [--json]\n"
	"\n"
	"DESCRIPTION\n"
	"    Sends COMMAND to a running flywheeld and shows the answer. Without COMMAND it reads\n"
	"    commands: on a terminal with a prompt, line editing, history and completion by the\n"
	"    Tab key, where long answers go to $PAGER and ^C ends what runs; otherwise one from each line of standard input, where empty lines and lines\n"
	"    that begin with # are skipped. \"quit\" or the end of input leaves.\n"
	"\n"
	"OPTIONS\n"
	"    -s, --socket SOCKET\n"
	"        The control socket: the path of \"listen\" in control_listener of flywheeld's\n"
	"        configuration. Default: $FLYWHEEL_SOCKET, or " DEFAULT_SOCKET ".\n"
	"    -j, --json\n"
	"        Show results as JSON. Keys are lower case and end in their unit: _bytes, _s, _ms,\n"
	"        _us, _ns, _per_s; _at is a moment in ISO 8601.\n"
	"    -V, --version\n"
	"        Show the console's version. The command \"version\" shows flywheeld's.\n"
	"    -h, --help\n"
	"        Show this text.\n"
	"\n"
	"COMMANDS\n"
	"    help [COMMAND]         what flywheeld understands; the list here may be older\n"
	"    summary                the whole program in numbers\n"
	"    top                    a live view: rates, agents, the busiest domains; h shows keys\n"
	"    mailq [N]              the N longest queues\n"
	"    why domain NAME        why it is not moving: what holds it, who set that, until when\n"
	"    why, why message ID    the same of the longest queues, of one message\n"
	"    domain NAME            one domain: what holds its queue and until when, its limits,\n"
	"                           next hops and connections\n"
	"    domains                every domain, one line each\n"
	"    active N, delayed N    domains with more than N messages in that queue\n"
	"    message ID [full]      one queued message; ID is the second field of mainlog\n"
	"    message retry ID, message fail ID [quiet]\n"
	"    flush domain NAME|all, fail domain NAME [quiet]\n"
	"    suspend domain NAME, resume domain NAME\n"
	"    bounce_stats           recipients that failed, by class\n"
	"    threads, counters [PATTERN], errors, memory, version\n"
	"    log rotate             put log files aside, and begin new ones\n"
	"    trace smtp add|list|remove\n"
	"                           whole SMTP dialogues of connections that match, to a file\n"
	"    reopen logs            after a rotation\n"
	"    shutdown               stop gracefully\n"
	"\n"
	"    log read|tail|subscribers|stats|repair|write JOURNAL\n"
	"                           journals, on the disk and without flywheeld: flywheel log --help\n"
	"    config bootstrap URL, config pull|commit|status, config history [N]\n"
	"                           the configuration in a git repository: flywheel config --help\n"
	"\n"
	"EXIT STATUS\n"
	"    0  the command (of several: every command) succeeded\n"
	"    1  a command failed; the reason is on standard error\n"
	"    2  wrong usage, or flywheeld could not be reached\n"
	"\n"
	"ENVIRONMENT\n"
	"    FLYWHEEL_SOCKET        the control socket, unless -s is given\n"
	"    PAGER                  shows long answers at the prompt (less -FRX); empty: nothing\n"
	"    HOME                   the history of the prompt is in ~/.flywheel_history\n"
	"\n"
	"EXAMPLES\n"
	"    flywheel domain example.net\n"
	"    flywheel --json summary | jq .delivery_rate_per_s\n"
	"    flywheel counters 'scheduler.*.delivered'\n"
	"\n"
	"SEE ALSO\n"
	"    flywheel-log(1), flywheel-config(1), flywheeld(8), flywheel.conf(5)\n";

struct session {
	const char *socket;
	bool json;
	/* With a prompt. */
	bool interactive;
	/* Process id of flywheeld; 0: not known. */
	json_int_t pid;
	struct console *console;
};

static void say_cannot_connect(const char *path, int error)
{
	const char *hint = "";

	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		hint = " (is flywheeld running, and is this its control socket? -s names another)";
		break;
	case EACCES:
		hint = " (root and members of flywheeld's group may use it)";
		break;
	default:
		break;
	}
	fprintf(stderr, "flywheel: cannot connect to %s: %s%s\n", path, strerror(error), hint);
}

static void say_lost(const char *path, int error)
{
	const char *why = strerror(error);

	if (error == EINTR) {
		fputs("flywheel: interrupted; what was ordered goes on\n", stderr);
		return;
	}
	if (error == ENOENT || error == ECONNREFUSED || error == EACCES) {
		say_cannot_connect(path, error);
		return;
	}
	if (error == ESTALE) {
		fputs("flywheel: the connection was lost, and with it the transaction: nothing has "
		      "changed; expected config begin\n",
		      stderr);
		return;
	}
	if (error == EPROTO) {
		why = "what answers there is not flywheeld";
	} else if (error == ECONNRESET || error == EPIPE) {
		why = "flywheeld closed the connection";
	}
	fprintf(stderr, "flywheel: %s: %s\n", path, why);
}

static void show(const struct session *s, const json_t *result)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = s->interactive ? open_memstream(&text, &len) : NULL;

	if (f == NULL) {
		console_put(result, s->json, stdout);
		fflush(stdout);
		return;
	}
	console_put(result, s->json, f);
	fclose(f);
	pager_show(text, len);
	free(text);
}

/* The reason is made harmless for terminals like any other text; it may have several lines, each by
 * itself. */
static void say_error(const json_t *answer)
{
	const char *at = json_string_value(json_object_get(answer, "error"));
	const char *before = "flywheel: ";

	while (at != NULL) {
		size_t len = strcspn(at, "\n");
		json_t *line = json_stringn(at, len);
		char *text = console_value_text("error", line);

		fprintf(stderr, "%s%s\n", before, text);
		free(text);
		json_decref(line);
		before = "";
		at = at[len] != '\0' ? at + len + 1 : NULL;
	}
}

/* Of the flywheeld that answers now; 0: it does not. */
static json_int_t ask_pid(struct session *s)
{
	json_t *answer = console_ask(s->console, "version");
	json_int_t pid =
		json_integer_value(json_object_get(json_object_get(answer, "result"), "pid"));

	json_decref(answer);
	return pid;
}

/* At the prompt: another flywheeld may answer now than before. */
static void say_if_restarted(struct session *s)
{
	json_int_t pid;

	if (!s->interactive || !console_was_renewed(s->console)) {
		return;
	}
	pid = ask_pid(s);
	if (pid != 0 && pid != s->pid) {
		printf("(flywheeld was started anew: process %lld)\n", (long long)pid);
		s->pid = pid;
	}
}

/* Sends a command and shows the answer. */
static int run_command(void *context, const char *command)
{
	struct session *s = context;
	json_t *answer = console_ask(s->console, command);
	int rc = EXIT_OK;

	if (answer == NULL) {
		say_lost(s->socket, errno);
		return EXIT_CONNECTION;
	}
	say_if_restarted(s);
	if (json_is_true(json_object_get(answer, "ok")) && json_object_get(answer, "result")) {
		show(s, json_object_get(answer, "result"));
	} else if (json_object_get(answer, "error") != NULL) {
		say_error(answer);
		rc = EXIT_COMMAND;
	} else {
		say_lost(s->socket, EPROTO);
		rc = EXIT_CONNECTION;
	}
	json_decref(answer);
	return rc;
}

/* A word as the server's command line wants it: in double quotes when it has blanks. */
static void put_word(FILE *f, const char *word)
{
	bool quote = word[0] == '\0' || strpbrk(word, " \t") != NULL;

	fprintf(f, quote ? "\"%s\"" : "%s", word);
}

static int run_arguments(struct session *s, char **words, int count)
{
	char *command = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&command, &len);
	int rc;

	if (f == NULL) {
		perror("flywheel");
		return EXIT_CONNECTION;
	}
	for (int i = 0; i < count; i++) {
		if (i != 0) {
			putc(' ', f);
		}
		/* One argument may be a whole command in the shell's quotes. */
		if (count == 1) {
			fputs(words[i], f);
		} else {
			put_word(f, words[i]);
		}
	}
	fclose(f);
	rc = run_command(s, command);
	free(command);
	return rc;
}

static int run_stdin(struct session *s)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	int rc = EXIT_OK;

	while (rc != EXIT_CONNECTION && (len = getline(&line, &size, stdin)) > 0) {
		char *command = line + strspn(line, " \t");
		int one;

		command[strcspn(command, "\r\n")] = '\0';
		if (strcmp(command, "quit") == 0 || strcmp(command, "exit") == 0) {
			break;
		}
		if (command[0] == '\0' || command[0] == '#') {
			continue;
		}
		one = run_command(s, command);
		rc = one > rc ? one : rc;
	}
	free(line);
	return rc;
}

/* ---- the prompt ---- */

static void on_interrupt(int number)
{
	(void)number;
}

static int run_top(struct session *s, const char *arguments)
{
	char *copy = strdup(arguments);
	char *words[8];
	char *rest = NULL;
	int count = 0;
	int rc;

	if (copy == NULL) {
		perror("flywheel");
		return EXIT_CONNECTION;
	}
	for (char *word = strtok_r(copy, " \t", &rest); word != NULL && count < 8;
	     word = strtok_r(NULL, " \t", &rest)) {
		words[count++] = word;
	}
	rc = console_top(s->console, words, count);
	free(copy);
	return rc;
}

/* A command of the prompt: those of the console itself are not flywheeld's. */
static int run_line(void *context, const char *command)
{
	struct session *s = context;
	int rc;

	if (strncmp(command, "top", 3) == 0 && (command[3] == '\0' || command[3] == ' ')) {
		return run_top(s, command + 3);
	}
	rc = run_command(s, command);
	if (rc == EXIT_OK && strcmp(command, "help") == 0 && !s->json) {
		puts("\nHere there are also \"top\", a live view, and \"quit\". The Tab key completes "
		     "words, and ^C ends\nwhat runs.");
	}
	return rc;
}

/* ^C ends the wait for an answer, not the console. */
static int run_prompt(struct session *s)
{
	struct sigaction interrupt = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &interrupt, NULL);
	s->interactive = true;
	s->pid = ask_pid(s);
	printf("flywheel %s on %s; \"help\" lists commands, \"quit\" leaves\n", FLYWHEEL_VERSION,
	       s->socket);
	return prompt_loop(s->console, run_line, s);
}

static int run(struct session *s, char **words, int count)
{
	int rc;

	s->console = console_connect(s->socket);
	if (s->console == NULL) {
		say_cannot_connect(s->socket, errno);
		return EXIT_CONNECTION;
	}
	if (count > 0 && strcmp(words[0], "top") == 0) {
		rc = console_top(s->console, words + 1, count - 1);
	} else if (count > 0) {
		rc = run_arguments(s, words, count);
	} else if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
		rc = run_prompt(s);
	} else {
		rc = run_stdin(s);
	}
	console_close(s->console);
	return rc;
}

static const char *default_socket(void)
{
	const char *path = getenv("FLYWHEEL_SOCKET");

	return path != NULL && path[0] != '\0' ? path : DEFAULT_SOCKET;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"socket", required_argument, NULL, 's'},
						{"json", no_argument, NULL, 'j'},
						{"version", no_argument, NULL, 'V'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct session s = {.socket = default_socket()};
	int c;

	signal(SIGPIPE, SIG_IGN);
	while ((c = getopt_long(argc, argv, "+s:jVh", options, NULL)) != -1) {
		switch (c) {
		case 's':
			s.socket = optarg;
			break;
		case 'j':
			s.json = true;
			break;
		case 'V':
			printf("flywheel %s\n", FLYWHEEL_VERSION);
			return EXIT_OK;
		case 'h':
			fputs(help_text, stdout);
			return EXIT_OK;
		default:
			fprintf(stderr, "usage: flywheel [-s SOCKET] [--json] [COMMAND...]; see "
					"flywheel --help\n");
			return EXIT_CONNECTION;
		}
	}
	if (argc - optind > 1 && strcmp(argv[optind], "log") == 0 &&
	    log_command_is(argv[optind + 1])) {
		return log_command(argc - optind, argv + optind, s.json);
	}
	if (argc - optind > 1 && strcmp(argv[optind], "config") == 0 &&
	    config_command_is(argv[optind + 1])) {
		return config_command(argc - optind, argv + optind, s.socket, s.json);
	}
	return run(&s, argv + optind, argc - optind);
}
