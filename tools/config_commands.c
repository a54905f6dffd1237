#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/config_repository.h"

static const char help_text[] =
	"NAME\n"
	"    flywheel config - the configuration in a git repository that a cluster shares\n"
	"\n"
	"SYNOPSIS\n"
	"    flywheel config bootstrap URL [-c FILE] [-b BRANCH]\n"
	"    flywheel config pull [-c FILE] [-n] [-q]\n"
	"    flywheel config commit -m TEXT [-c FILE] [-a] [-n]\n"
	"    flywheel config status [-c FILE]\n"
	"    flywheel config history [N] [-c FILE]\n"
	"\n"
	"COMMANDS\n"
	"    bootstrap\n"
	"        Makes the folder of the configuration a clone of the repository at URL. An empty\n"
	"        repository gets what is in the folder.\n"
	"    pull\n"
	"        Fetches what others committed, checks it together with what was edited here, and\n"
	"        only then switches to it and has flywheeld reload.\n"
	"    commit\n"
	"        Checks what was edited here, joins it with what others committed meanwhile, checks\n"
	"        that, hands it on, and has flywheeld reload.\n"
	"    status\n"
	"        What runs, and where this node stands: commits that wait on either side, edits.\n"
	"    history\n"
	"        The last N commits, 20 by default.\n"
	"\n"
	"    What is not valid, or was changed on both sides, is refused, and nothing has changed\n"
	"    then. Other words behind \"config\" are for flywheeld: flywheel help config.\n"
	"\n"
	"OPTIONS\n"
	"    -c, --config FILE    the main file (default /etc/flywheel/flywheel.conf)\n"
	"    -N, --node NAME      check as on this node, as flywheeld's option of that name\n"
	"    -m, --message TEXT   what the commit is for\n"
	"    -a, --all-nodes      check as on each node that has a folder in node/, too\n"
	"    -b, --branch NAME    the branch that the nodes share (default main)\n"
	"    -n, --dry-run        only check\n"
	"    -q, --quiet          say nothing when nothing is new, for timers\n"
	"    -h, --help           show this text\n"
	"\n"
	"EXIT STATUS\n"
	"    0  done, or nothing to do\n"
	"    1  refused, or failed; the reason is on standard error\n"
	"    2  wrong usage\n";

static const struct command {
	const char *name;
	int (*run)(const struct config_request *q);
	int words_min;
	int words_max;
} commands[] = {
	{"bootstrap", config_bootstrap, 1, 1}, {"pull", config_pull, 0, 0},
	{"commit", config_commit, 0, 0},       {"status", config_status, 0, 0},
	{"history", config_history, 0, 1},
};

static const struct command *find_command(const char *word)
{
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(commands[i].name, word) == 0) {
			return &commands[i];
		}
	}
	return NULL;
}

bool config_command_is(const char *word)
{
	return find_command(word) != NULL || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static bool take_option(struct config_request *q, int option)
{
	switch (option) {
	case 'c':
		q->file = optarg;
		return true;
	case 'N':
		q->node = optarg;
		return true;
	case 'm':
		q->message = optarg;
		return true;
	case 'b':
		q->branch = optarg;
		return true;
	case 'a':
		q->all_nodes = true;
		return true;
	case 'n':
		q->dry_run = true;
		return true;
	case 'q':
		q->quiet = true;
		return true;
	default:
		return false;
	}
}

int config_command(int argc, char **argv, const char *socket, bool json)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"node", required_argument, NULL, 'N'},
		{"message", required_argument, NULL, 'm'},
		{"branch", required_argument, NULL, 'b'},
		{"all-nodes", no_argument, NULL, 'a'},
		{"dry-run", no_argument, NULL, 'n'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct config_request q = {.socket = socket, .json = json, .branch = "main"};
	const struct command *command = find_command(argv[1]);
	int c;

	if (command == NULL) {
		fputs(help_text, stdout);
		return CONFIG_EXIT_OK;
	}
	/* 0: anew, after main(). */
	optind = 0;
	while ((c = getopt_long(argc - 1, argv + 1, "c:N:m:b:anqh", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(help_text, stdout);
			return CONFIG_EXIT_OK;
		}
		if (!take_option(&q, c)) {
			command = NULL;
			break;
		}
	}
	q.words = argv + 1 + optind;
	q.word_count = argc - 1 - optind;
	if (command == NULL || q.word_count < command->words_min ||
	    q.word_count > command->words_max) {
		fputs("usage: flywheel config bootstrap URL | pull | commit | status | history [N]; "
		      "see flywheel config --help\n",
		      stderr);
		return CONFIG_EXIT_USAGE;
	}
	q.url = command->run == config_bootstrap ? q.words[0] : NULL;
	if (command->run == config_commit && q.message == NULL) {
		fputs("flywheel: what is the commit for? flywheel config commit -m TEXT\n", stderr);
		return CONFIG_EXIT_USAGE;
	}
	return command->run(&q);
}
