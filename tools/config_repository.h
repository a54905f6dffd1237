/*
 * `flywheel config pull|commit|status|history|bootstrap`: the folder of the configuration as a
 * clone of a git repository that the nodes of a cluster share. git is the engine; what is done here
 * is that nothing invalid is switched to or handed on, and that a running flywheeld follows.
 *
 * Start reading at config_pull() and config_commit().
 */
#pragma once

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "core/runtime/thread_class.h"
#include "tools/config_git.h"

#define CONFIG_FILE "/etc/flywheel/flywheel.conf"

enum { CONFIG_EXIT_OK = 0, CONFIG_EXIT_FAILED = 1, CONFIG_EXIT_USAGE = 2 };

/* What was asked for. */
SINGLE
struct config_request {
	/* The main file; NULL: CONFIG_FILE. */
	const char *file;
	/* As flywheeld's option; NULL: this machine's. */
	const char *node;
	const char *message;
	/* Of the remote repository, and of its branch. */
	const char *url;
	const char *branch;
	/* The control socket of the flywheeld that is to follow. */
	const char *socket;
	char **words;
	int word_count;
	bool all_nodes;
	bool dry_run;
	bool quiet;
	bool json;
};

/* The clone that the main file is in. */
SINGLE
struct repository {
	const struct config_request *request;
	/* Its uppermost folder, its .git, and the main file below the former. */
	char folder[PATH_MAX];
	char git[PATH_MAX];
	char main[PATH_MAX];
	char *branch;
	/* Holds off other commands while it is open. */
	int lock;
};

/* Is `flywheel config WORD` for here, and not for flywheeld? */
CONCURRENT
bool config_command_is(const char *word);

/* Runs "config COMMAND ...": `argv` begins with "config". Returns the program's exit status. */
SINGLE
int config_command(int argc, char **argv, const char *socket, bool json);

/* Each runs one command, and returns the exit status. */
SINGLE
int config_pull(const struct config_request *q);
SINGLE
int config_commit(const struct config_request *q);
SINGLE
int config_status(const struct config_request *q);
SINGLE
int config_history(const struct config_request *q);
SINGLE
int config_bootstrap(const struct config_request *q);

/* The main file, and its folder in `path`, which has PATH_MAX. */
CONCURRENT
const char *config_main_file(const struct config_request *q);
CONCURRENT
const char *config_folder(const struct config_request *q, char *path);

/*
 * Root goes on as the owner of a folder that is not its own, for good: git runs programs that a
 * clone's files name (hooks, core.sshCommand), and what is made in the folder is to be its owner's.
 * 0, or the exit status after a line that says why not.
 */
SINGLE
int config_become_owner(const char *folder);

/* Is the main file's folder in a clone? As repository_open() it becomes the folder's owner. */
SINGLE
bool repository_is_clone(const struct config_request *q);

/* Finds the clone and locks it, as its owner. 0, or the exit status after a line that says why not.
 */
SINGLE
int repository_open(struct repository *r, const struct config_request *q);
SINGLE
void repository_close(struct repository *r);

/* Whoever has no name of its own in git's configuration commits as this user of this machine. */
SINGLE
void config_name_committer(const char *folder);

/* One line on standard error, behind "flywheel: ". Returns CONFIG_EXIT_FAILED. */
SINGLE
int config_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fetches the branch. 0, or the exit status after a line that says why not. */
SINGLE
int repository_fetch(const struct repository *r);

/* The commit that a name stands for, to be freed; NULL: there is none. */
SINGLE
char *repository_commit(const struct repository *r, const char *name);

/* Says that the file was changed here, and by which commit that leads to `to` and not to `from`.
 * False and nothing said: by none. */
SINGLE
bool repository_say_conflict(const struct repository *r, const char *name, const char *from,
			     const char *to);

/* Removes a folder with all that is in it. */
SINGLE
void config_remove(const char *path);

/* What a commit is, for people: "1a2b3c4 by NAME: SUBJECT"; to be freed. */
SINGLE
char *repository_describe(const struct repository *r, const char *commit);

/* What the nodes share, as it was fetched: "refs/remotes/origin/BRANCH". `name` has PATH_MAX. */
SINGLE
void repository_upstream(const struct repository *r, char *name);

/* Is the configuration valid whose main file is `main` below `folder`? Else its errors are said,
 * with the names that the files have in the clone. */
SINGLE
bool repository_valid(const struct repository *r, const char *folder);

/*
 * What the clone's folder would be when its files went from commit `from` to commit `to`: in a new
 * folder, whose name comes back, with all that git does not know of. What was edited and not
 * committed stays as it is; where the commits differ in the same file that is a conflict, whose
 * files are said, and NULL comes back. candidate_remove() removes and frees it.
 */
SINGLE
char *candidate_make(const struct repository *r, const char *from, const char *to);
SINGLE
void candidate_remove(char *candidate);

/* The same with the clone's folder itself; its branch is at `to` then. False when that failed,
 * after a line that says why; nothing has changed then. */
SINGLE
bool repository_switch(const struct repository *r, const char *from, const char *to);

/* What a running flywheeld answers to a command; NULL with errno set:
 * ENOENT and ECONNREFUSED when none runs, else its answer does not come. */
SINGLE
json_t *config_ask(const struct config_request *q, const char *command);

enum apply_result { APPLY_NOT_NEEDED, APPLY_DONE, APPLY_LATER, APPLY_FAILED };

/* Tells a running flywheeld to reload, unless it has what is there now. APPLY_LATER: none runs;
 * APPLY_FAILED: it refuses, or cannot be asked, after a line that says why. */
SINGLE
enum apply_result repository_apply(const struct repository *r);
