/*
 * flywheel-spool: looks into a spool that no flywheeld has open, checks it, and takes mail out of
 * it. Start reading at run().
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/version.h"
#include "tools/spool_commands.h"

#define DEFAULT_SPOOL "/var/spool/flywheel"

static const char help_text[] =
	"NAME\n"
	"    flywheel-spool - looks into the spool of a stopped flywheeld, and repairs it\n"
	"\n"
	"SYNOPSIS\n"
	"    flywheel-spool [-d SPOOL] list\n"
	"    flywheel-spool [-d SPOOL] show SEGMENT\n"
	"    flywheel-spool [-d SPOOL] check [--repair DIRECTORY]\n"
	"    flywheel-spool [-d SPOOL] cat [--envelope] ID\n"
	"    flywheel-spool [-d SPOOL] extract DIRECTORY\n"
	"\n"
	"DESCRIPTION\n"
	"    Reads a spool as a start of flywheeld would, and changes nothing in it, unless check is\n"
	"    told to. It locks the spool: while flywheeld runs it refuses, and the other way round.\n"
	"    Run it as root or as the user that flywheeld runs as.\n"
	"\n"
	"COMMANDS\n"
	"    list\n"
	"        The segments, one line each: state (free; open: its index will be made by the next\n"
	"        start; sealed: it has one), bytes, records, and what is still needed of it: messages\n"
	"        that wait, latest states of deliveries, and their bytes.\n"
	"    show SEGMENT\n"
	"        The records of one segment, by its name or its number in hexadecimal.\n"
	"    check\n"
	"        Reads all records, checks every checksum, and tells of each that is damaged and still\n"
	"        needed:\n"
	"        - a message whose envelope is damaged is not queued, nobody is told, and its segment\n"
	"          is kept for ever;\n"
	"        - one whose body is damaged is queued, cannot be sent, and returns to its sender when\n"
	"          it expires, or at once by \"flywheel message fail ID\";\n"
	"        - with a damaged state a delivery begins anew: early, or twice, but it is not lost.\n"
	"    check --repair DIRECTORY\n"
	"        Gives up messages of the first kind: what can be read of them is put into DIRECTORY,\n"
	"        as ID.damaged, and then their segment's index forgets them. When an older copy of one\n"
	"        is left, it counts again from the next start on.\n"
	"    cat ID\n"
	"        A message that waits, as it would be sent; ID is the second field of mainlog.\n"
	"    cat --envelope ID\n"
	"        Its sender and recipients, and how far their deliveries have got: \"to:\" still waits\n"
	"        for its mail, \"over:\" does not.\n"
	"    extract DIRECTORY\n"
	"        All messages that wait: ID.eml and ID.envelope, and ID.damaged for the bytes of one that\n"
	"        is damaged. They stay in the spool, too.\n"
	"\n"
	"OPTIONS\n"
	"    -d, --directory SPOOL\n"
	"        The spool: \"path\" of flywheeld's configuration. Default: $FLYWHEEL_SPOOL, or\n"
	"        " DEFAULT_SPOOL ".\n"
	"    -V, --version\n"
	"        Show the version.\n"
	"    -h, --help\n"
	"        Show this text.\n"
	"\n"
	"EXIT STATUS\n"
	"    0  done; of check and extract: nothing that is needed is damaged, or it was given up\n"
	"    1  something that is needed is damaged, or what was asked for is not there\n"
	"    2  wrong usage, the spool cannot be opened, or DIRECTORY cannot be written to\n"
	"\n"
	"EXAMPLES\n"
	"    systemctl stop flywheel && flywheel-spool check\n"
	"    flywheel-spool check --repair /root/given-up\n"
	"    flywheel-spool cat 01jd0000000000000000000000 | less\n"
	"\n"
	"SEE ALSO\n"
	"    flywheeld(8), flywheel(1)\n";

SINGLE
struct request {
	const char *path;
	const char *command;
	const char *argument;
	const char *repair;
	bool envelope;
};

static int usage(const char *what)
{
	fprintf(stderr, "flywheel-spool: %s; flywheel-spool --help tells more\n", what);
	return SPOOL_EXIT_USAGE;
}

/* NULL, or what is wrong with it. */
static const char *request_fault(const struct request *q)
{
	static const struct {
		const char *name;
		bool argument;
	} commands[] = {{"list", false},
			{"show", true},
			{"check", false},
			{"cat", true},
			{"extract", true}};

	if (q->repair != NULL && strcmp(q->command, "check") != 0) {
		return "--repair is check's";
	}
	if (q->envelope && strcmp(q->command, "cat") != 0) {
		return "--envelope is cat's";
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, q->command) == 0) {
			return commands[i].argument == (q->argument != NULL)
				       ? NULL
				       : "wrong number of arguments";
		}
	}
	return "unknown command";
}

static int run(const struct request *q)
{
	struct spool_view view;
	int status;

	if (spool_view_open(&view, q->path) != 0) {
		return SPOOL_EXIT_USAGE;
	}
	if (strcmp(q->command, "list") == 0) {
		status = spool_list(&view);
	} else if (strcmp(q->command, "show") == 0) {
		status = spool_show(&view, q->argument);
	} else if (strcmp(q->command, "check") == 0) {
		status = spool_check(&view, q->path, q->repair);
	} else if (strcmp(q->command, "cat") == 0) {
		status = spool_cat(&view, q->argument, q->envelope);
	} else {
		status = spool_extract(&view, q->argument);
	}
	spool_view_close(&view);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "flywheel-spool: cannot write: %s\n", strerror(errno));
		return SPOOL_EXIT_USAGE;
	}
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"directory", required_argument, NULL, 'd'},
		{"repair", required_argument, NULL, 'r'},
		{"envelope", no_argument, NULL, 'e'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const char *path = getenv("FLYWHEEL_SPOOL");
	struct request q = {.path = path != NULL && *path != '\0' ? path : DEFAULT_SPOOL};
	const char *fault;
	int c;

	while ((c = getopt_long(argc, argv, "d:Vh", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			q.path = optarg;
			break;
		case 'r':
			q.repair = optarg;
			break;
		case 'e':
			q.envelope = true;
			break;
		case 'V':
			puts("flywheel-spool " FLYWHEEL_VERSION);
			return SPOOL_EXIT_OK;
		case 'h':
			fputs(help_text, stdout);
			return SPOOL_EXIT_OK;
		default:
			return usage("wrong option");
		}
	}
	if (optind == argc || argc - optind > 2) {
		return usage(optind == argc ? "no command" : "too many words");
	}
	q.command = argv[optind];
	q.argument = argv[optind + 1];
	fault = request_fault(&q);
	return fault != NULL ? usage(fault) : run(&q);
}
