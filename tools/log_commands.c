#include "tools/log_commands.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_LOGS "/var/log/flywheel"
#define TAIL_RECORDS 10

static const char help_text[] =
	"NAME\n"
	"    flywheel log - reads journals, and looks after them\n"
	"\n"
	"SYNOPSIS\n"
	"    flywheel log read JOURNAL [--subscriber NAME] [--follow] [--json] [--count N]\n"
	"                 [--no-checkpoint]\n"
	"    flywheel log tail JOURNAL [-n N] [--follow] [--json]\n"
	"    flywheel log subscribers JOURNAL [add NAME [--end] | remove NAME]\n"
	"    flywheel log stats JOURNAL\n"
	"    flywheel log repair JOURNAL\n"
	"    flywheel log write JOURNAL [--subscriber NAME]... [--segment-size SIZE]\n"
	"                 [--size-limit SIZE] [--sync never|segment|batch] [--acknowledge]\n"
	"\n"
	"DESCRIPTION\n"
	"    A journal is a directory in the format of libjlog, such as those that flywheeld logs\n"
	"    to. It is read and changed on the disk; flywheeld need not run, and other readers and\n"
	"    writers may. JOURNAL without a slash that is not here is looked for in $FLYWHEEL_LOGS,\n"
	"    or " DEFAULT_LOGS ".\n"
	"\n"
	"COMMANDS\n"
	"    read\n"
	"        The records, one on each line, from the oldest on. With --subscriber those after its\n"
	"        checkpoint, which is then moved, but never beyond what has been written to standard\n"
	"        output: after each 1 000 records, when there are no more for now, and at the end.\n"
	"        Killed at any moment, it goes on at the checkpoint the next time: nothing is left\n"
	"        out, and what was written after the checkpoint comes once more.\n"
	"    tail\n"
	"        The last N records, 10 if not said; no subscriber is needed or changed.\n"
	"    subscribers\n"
	"        Who reads, where each is, how far behind, and until it reads on that it was dropped,\n"
	"        and what it lost at least. A new one begins with the oldest record that is kept, with\n"
	"        --end after the newest. What none needs any more is removed; so remove a subscriber\n"
	"        that nobody reads for.\n"
	"    stats\n"
	"        Segments, bytes, records, and how far behind each subscriber is.\n"
	"    repair\n"
	"        Puts a journal right: a record that is not whole at the end is cut off, what is no\n"
	"        record amid records is taken out, metastore, indexes and checkpoints are made right.\n"
	"        flywheeld does the same at its start, except that it does not look into segments that\n"
	"        are closed; readers pass over what is damaged there.\n"
	"    write\n"
	"        Each line of standard input becomes a record. The journal is made if it is not there.\n"
	"\n"
	"OPTIONS\n"
	"    -S, --subscriber NAME   whose checkpoint; for write, those to make if they are not there\n"
	"    -f, --follow            go on: wait for more, until SIGINT or SIGTERM\n"
	"    -n, --count N           no more than N records\n"
	"    --no-checkpoint         leave the checkpoint where it is\n"
	"    -j, --json              records that are JSON as they are; of others the place, the time\n"
	"                            and the fields between @, as an object. Results of the other\n"
	"                            commands as JSON\n"
	"    --end                   begin after the newest record\n"
	"    --segment-size SIZE     when a segment is full; 4M if not said\n"
	"    --size-limit SIZE       what all segments may take: the slowest subscriber is dropped, and\n"
	"                            the oldest segments are removed, rather than to go beyond it\n"
	"    --sync WHEN             never, when a segment is full (segment, the default), or after\n"
	"                            each batch of lines\n"
	"    --acknowledge           say how many records have been written, after each batch\n"
	"    -h, --help              show this text\n"
	"\n"
	"EXIT STATUS\n"
	"    0  done\n"
	"    1  it cannot be done: there is no such journal or subscriber, or the subscriber was\n"
	"       removed or dropped meanwhile\n"
	"    2  wrong usage, or standard output cannot be written to\n"
	"\n"
	"EXAMPLES\n"
	"    flywheel log subscribers main.jlog add billing\n"
	"    flywheel log read main.jlog --subscriber billing --json --follow | ship\n"
	"    flywheel log tail main.jlog -n 100 --follow\n"
	"\n"
	"SEE ALSO\n"
	"    flywheel(1), flywheeld(8), flywheel.conf(5)\n";

static const struct log_command_row {
	const char *name;
	int (*run)(const struct log_request *q);
	/* Words after the journal. */
	int words_max;
} commands[] = {
	{"read", log_read, 0},   {"tail", log_tail, 0},     {"subscribers", log_subscribers, 2},
	{"stats", log_stats, 0}, {"repair", log_repair, 0}, {"write", log_write, 0},
};

static const struct log_command_row *find_command(const char *word)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, word) == 0) {
			return &commands[i];
		}
	}
	return NULL;
}

bool log_command_is(const char *word)
{
	return find_command(word) != NULL || word[0] == '-';
}

/* ---- what commands share ---- */

int log_fault(const char *path, int rc)
{
	const char *why = strerror(-rc);

	switch (rc) {
	case -ESRCH:
		why = "there is no such subscriber: it was never added, or removed, or dropped as it "
		      "was too far behind";
		break;
	case -EPROTONOSUPPORT:
		why = "its records are compressed";
		break;
	case -EAGAIN:
		why = "another program holds its lock";
		break;
	default:
		break;
	}
	fprintf(stderr, "flywheel log: %s: %s\n", path, why);
	return LOG_EXIT_FAILED;
}

void log_id_text(struct jlog_id id, char text[LOG_ID_TEXT])
{
	snprintf(text, LOG_ID_TEXT, "%08x:%08x", id.log, id.marker);
}

/* ---- the command line ---- */

static int usage(const char *what)
{
	fprintf(stderr, "flywheel log: %s; flywheel log --help tells more\n", what);
	return LOG_EXIT_USAGE;
}

/* A number, with k, m or g for its powers of 1024. False: it is none. */
static bool parse_number(const char *word, uint64_t *value)
{
	static const char units[] = "kmg";
	const char *unit;
	char *end;

	errno = 0;
	*value = strtoull(word, &end, 10);
	if (end == word || errno != 0 || word[0] == '-') {
		return false;
	}
	if (*end == '\0') {
		return true;
	}
	unit = strchr(units, *end | 0x20);
	if (unit == NULL || end[1] != '\0' || *value >> (64 - 10 * (unit - units + 1)) != 0) {
		return false;
	}
	*value <<= 10 * (unit - units + 1);
	return true;
}

static bool parse_sync(const char *word, enum jlog_safety *safety)
{
	static const char *const words[] = {
		[JLOG_UNSAFE] = "never",
		[JLOG_ALMOST_SAFE] = "segment",
		[JLOG_SAFE] = "batch",
	};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(word, words[i]) == 0) {
			*safety = (enum jlog_safety)i;
			return true;
		}
	}
	return false;
}

enum { OPT_NO_CHECKPOINT = 256, OPT_END, OPT_SEGMENT, OPT_LIMIT, OPT_SYNC, OPT_ACKNOWLEDGE };

/* NULL, or what is wrong. */
static const char *take_option(struct log_request *q, int option)
{
	switch (option) {
	case 'S':
		if (q->subscriber_count == LOG_SUBSCRIBERS_MAX) {
			return "too many subscribers";
		}
		q->subscribers[q->subscriber_count++] = optarg;
		return NULL;
	case 'f':
		q->follow = true;
		return NULL;
	case 'j':
		q->json = true;
		return NULL;
	case 'n':
		q->counted = true;
		return parse_number(optarg, &q->count) ? NULL : "--count wants a number";
	case OPT_NO_CHECKPOINT:
		q->no_checkpoint = true;
		return NULL;
	case OPT_END:
		q->at_end = true;
		return NULL;
	case OPT_SEGMENT:
		return parse_number(optarg, &q->segment_bytes) && q->segment_bytes > 0 &&
				       q->segment_bytes <= UINT32_MAX
			       ? NULL
			       : "--segment-size wants a size below 4G";
	case OPT_LIMIT:
		return parse_number(optarg, &q->limit_bytes) ? NULL : "--size-limit wants a size";
	case OPT_SYNC:
		return parse_sync(optarg, &q->safety) ? NULL
						      : "--sync wants never, segment or batch";
	case OPT_ACKNOWLEDGE:
		q->acknowledge = true;
		return NULL;
	default:
		return "unknown option";
	}
}

/* Where a journal is; malloc. */
static char *find_journal(const char *name)
{
	const char *logs = getenv("FLYWHEEL_LOGS");
	char *path = NULL;
	struct stat st;

	if (strchr(name, '/') == NULL && stat(name, &st) != 0) {
		if (logs == NULL || logs[0] == '\0') {
			logs = DEFAULT_LOGS;
		}
		if (asprintf(&path, "%s/%s", logs, name) >= 0 && stat(path, &st) == 0) {
			return path;
		}
		free(path);
	}
	return strdup(name);
}

static const char *parse_options(struct log_request *q, int argc, char **argv)
{
	static const struct option options[] = {
		{"subscriber", required_argument, NULL, 'S'},
		{"follow", no_argument, NULL, 'f'},
		{"json", no_argument, NULL, 'j'},
		{"count", required_argument, NULL, 'n'},
		{"help", no_argument, NULL, 'h'},
		{"no-checkpoint", no_argument, NULL, OPT_NO_CHECKPOINT},
		{"end", no_argument, NULL, OPT_END},
		{"segment-size", required_argument, NULL, OPT_SEGMENT},
		{"size-limit", required_argument, NULL, OPT_LIMIT},
		{"sync", required_argument, NULL, OPT_SYNC},
		{"acknowledge", no_argument, NULL, OPT_ACKNOWLEDGE},
		{NULL, 0, NULL, 0},
	};
	const char *fault = NULL;
	int c;

	/* It has been used for what stands before. */
	optind = 0;
	while (fault == NULL && (c = getopt_long(argc, argv, "S:fjn:h", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(help_text, stdout);
			exit(fflush(stdout) == 0 ? LOG_EXIT_OK : LOG_EXIT_USAGE);
		}
		fault = take_option(q, c);
	}
	q->words = argv + optind;
	q->word_count = argc - optind;
	return fault;
}

static int run(const struct log_command_row *row, struct log_request *q)
{
	char *path;
	int status;

	if (q->word_count < 2) {
		return usage("which journal?");
	}
	if (q->word_count > 2 + row->words_max) {
		return usage("too many words");
	}
	if (q->subscriber_count > 1 && row->run != log_write) {
		return usage("one subscriber reads at a time");
	}
	path = find_journal(q->words[1]);
	if (path == NULL) {
		return log_fault(q->words[1], -ENOMEM);
	}
	q->path = path;
	q->words += 2;
	q->word_count -= 2;
	status = row->run(q);
	free(path);
	if (fflush(stdout) != 0 && status == LOG_EXIT_OK) {
		fprintf(stderr, "flywheel log: cannot write: %s\n", strerror(errno));
		status = LOG_EXIT_USAGE;
	}
	return status;
}

int log_command(int argc, char **argv, bool json)
{
	struct log_request q = {.safety = JLOG_ALMOST_SAFE, .json = json, .count = TAIL_RECORDS};
	const char *fault = parse_options(&q, argc, argv);
	const struct log_command_row *row;

	if (fault != NULL) {
		return usage(fault);
	}
	if (q.word_count == 0) {
		return usage("which command?");
	}
	row = find_command(q.words[0]);
	return row != NULL ? run(row, &q) : usage("unknown command");
}
