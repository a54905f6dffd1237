#include "tools/config_repository.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "tools/config_modes.h"
#include "tools/console_client.h"

/* Below .git: the commit that flywheeld was told of last. */
#define APPLIED_FILE "flywheel-applied"

int config_refuse(const char *format, ...)
{
	va_list arguments;

	fputs("flywheel: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	putc('\n', stderr);
	return CONFIG_EXIT_FAILED;
}

/* ---- the clone ---- */

const char *config_main_file(const struct config_request *q)
{
	return q->file != NULL ? q->file : CONFIG_FILE;
}

const char *config_folder(const struct config_request *q, char *path)
{
	snprintf(path, PATH_MAX, "%s", config_main_file(q));
	return dirname(path);
}

int config_become_owner(const char *folder)
{
	struct passwd *owner;
	struct stat st;

	if (stat(folder, &st) != 0) {
		return config_refuse("%s: %s", folder, strerror(errno));
	}
	if (geteuid() != 0 || st.st_uid == 0) {
		return CONFIG_EXIT_OK;
	}
	owner = getpwuid(st.st_uid);
	if (owner == NULL) {
		return config_refuse("%s belongs to user %u, whom this machine does not know",
				     folder, (unsigned)st.st_uid);
	}
	if (initgroups(owner->pw_name, owner->pw_gid) != 0 || setgid(owner->pw_gid) != 0 ||
	    setuid(owner->pw_uid) != 0) {
		return config_refuse("%s: cannot go on as its owner %s: %s", folder, owner->pw_name,
				     strerror(errno));
	}
	/* What git and ssh have for root is out of reach now. */
	setenv("HOME", owner->pw_dir, 1);
	unsetenv("XDG_CONFIG_HOME");
	return CONFIG_EXIT_OK;
}

bool repository_is_clone(const struct config_request *q)
{
	char path[PATH_MAX];
	const char *folder = config_folder(q, path);
	char *top = NULL;
	bool is;

	if (config_become_owner(folder) == CONFIG_EXIT_OK) {
		top = git_ask(folder, "rev-parse", "--show-toplevel", NULL);
	}
	is = top != NULL;
	free(top);
	return is;
}

/* The folder of the main file is the clone's uppermost one, or below it by a prefix. */
static int find_clone(struct repository *r)
{
	char path[PATH_MAX];
	const char *file = config_main_file(r->request);
	const char *folder = config_folder(r->request, path);
	char *prefix;
	struct ran top;
	int rc = config_become_owner(folder);

	if (rc != CONFIG_EXIT_OK) {
		return rc;
	}
	if (git_run(&top, folder, "rev-parse", "--show-toplevel", NULL)) {
		prefix = git_ask(folder, "rev-parse", "--show-prefix", NULL);
		snprintf(r->folder, sizeof r->folder, "%s", top.out);
		snprintf(r->main, sizeof r->main, "%s%s", prefix != NULL ? prefix : "",
			 strrchr(file, '/') != NULL ? strrchr(file, '/') + 1 : file);
		free(prefix);
	} else {
		rc = config_refuse("%s is no clone of a repository; \"flywheel config bootstrap "
				   "URL\" makes it one: %s",
				   folder, top.errors);
	}
	ran_free(&top);
	return rc;
}

static int lock_clone(struct repository *r)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof path, "%s/flywheel-lock", r->git);
	r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r->lock < 0 || flock(r->lock, LOCK_EX) != 0) {
		return config_refuse("%s: %s", path, strerror(errno));
	}
	return CONFIG_EXIT_OK;
}

int repository_open(struct repository *r, const struct config_request *q)
{
	char *text;
	int rc;

	*r = (struct repository){.request = q, .lock = -1};
	rc = find_clone(r);
	if (rc != CONFIG_EXIT_OK) {
		return rc;
	}
	text = git_ask(r->folder, "rev-parse", "--absolute-git-dir", NULL);
	snprintf(r->git, sizeof r->git, "%s", text != NULL ? text : "");
	free(text);
	r->branch = git_ask(r->folder, "symbolic-ref", "--short", "HEAD", NULL);
	if (r->branch == NULL) {
		return config_refuse("%s: no branch is checked out there", r->folder);
	}
	return lock_clone(r);
}

void repository_close(struct repository *r)
{
	if (r->lock >= 0) {
		close(r->lock);
	}
	free(r->branch);
}

int repository_fetch(const struct repository *r)
{
	struct ran ran;
	int rc = CONFIG_EXIT_OK;

	if (!git_run(&ran, r->folder, "fetch", "--quiet", "origin", r->branch, NULL)) {
		rc = config_refuse("cannot fetch from the repository: %s", ran.errors);
	}
	ran_free(&ran);
	return rc;
}

char *repository_commit(const struct repository *r, const char *name)
{
	char wanted[PATH_MAX + 16];

	snprintf(wanted, sizeof wanted, "%s^{commit}", name);
	return git_ask(r->folder, "rev-parse", "--quiet", "--verify", wanted, NULL);
}

char *repository_describe(const struct repository *r, const char *commit)
{
	return git_ask(r->folder, "log", "-1", "--format=%h by %an: %s", commit, NULL);
}

void repository_upstream(const struct repository *r, char *name)
{
	snprintf(name, PATH_MAX, "refs/remotes/origin/%s", r->branch);
}

/* ---- what is valid ---- */

/* flywheeld as it was built or installed beside this program, else as PATH has it. */
static const char *daemon_program(void)
{
	static const char *const places[] = {"flywheeld", "../sbin/flywheeld"};
	static char path[PATH_MAX + 32];
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);

	self[len > 0 ? len : 0] = '\0';
	for (size_t i = 0; len > 0 && i < sizeof places / sizeof places[0]; i++) {
		char copy[PATH_MAX];

		memcpy(copy, self, sizeof copy);
		snprintf(path, sizeof path, "%s/%s", dirname(copy), places[i]);
		if (access(path, X_OK) == 0) {
			return path;
		}
	}
	return "flywheeld";
}

/* The lines of a text, with `from` at their beginnings as `to`. */
static void say_lines(char *text, const char *from, const char *to)
{
	size_t len = strlen(from);

	for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
		bool named = strncmp(line, from, len) == 0;

		fprintf(stderr, "%s%s\n", named ? to : "", named ? line + len : line);
	}
}

static bool valid_on(const struct repository *r, const char *folder, const char *node)
{
	char path[2 * PATH_MAX];
	const char *words[] = {daemon_program(), "--config", path, "--check", NULL, NULL, NULL};
	struct ran ran;
	bool valid;

	snprintf(path, sizeof path, "%s/%s", folder, r->main);
	if (node != NULL) {
		words[4] = "--node";
		words[5] = node;
	}
	valid = program_run(&ran, words);
	if (!valid) {
		say_lines(ran.errors, folder, r->folder);
		config_refuse("the configuration is not valid%s%s", node != NULL ? " on node " : "",
			      node != NULL ? node : "");
	}
	ran_free(&ran);
	return valid;
}

bool repository_valid(const struct repository *r, const char *folder)
{
	bool valid = valid_on(r, folder, r->request->node);
	char path[2 * PATH_MAX];
	struct dirent **names = NULL;
	char *slash;
	int count;

	if (!r->request->all_nodes) {
		return valid;
	}
	snprintf(path, sizeof path, "%s/%s", folder, r->main);
	slash = strrchr(path, '/');
	snprintf(slash, sizeof path - (size_t)(slash - path), "/node");
	count = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (names[i]->d_name[0] != '.') {
			valid = valid_on(r, folder, names[i]->d_name) && valid;
		}
		free(names[i]);
	}
	free(names);
	return valid;
}

/* ---- from one commit to another ---- */

bool repository_say_conflict(const struct repository *r, const char *name, const char *from,
			     const char *to)
{
	char *who = git_ask(r->folder, "log", "-1", "--format=%h by %an: %s", to, "--not", from,
			    "--", name, NULL);
	bool known = who != NULL && who[0] != '\0';

	if (known) {
		config_refuse("conflict: %s was changed here, and in commit %s", name, who);
	}
	free(who);
	return known;
}

/* Which files both have changed: what was edited here, and what differs between two commits. */
static void say_conflicts(const struct repository *r, const char *from, const char *to)
{
	char *edited = git_ask(r->folder, "diff", "--name-only", "--no-renames", from, NULL);
	char *rest = edited;

	for (char *name; rest != NULL && (name = strsep(&rest, "\n")) != NULL;) {
		if (name[0] != '\0') {
			repository_say_conflict(r, name, from, to);
		}
	}
	free(edited);
}

/* Two-way merge into a folder and its index, as git read-tree(1) has it for a fast-forward. */
static bool move_files(const struct repository *r, const char *folder, const char *from,
		       const char *to, char **why)
{
	char tree[PATH_MAX + 32];
	char dir[PATH_MAX + 32];
	char *names = git_ask(r->folder, "diff-tree", "-r", "-z", "--name-only", from, to, NULL);
	struct modes modes;
	struct ran ran;
	mode_t mask;
	bool well;

	snprintf(tree, sizeof tree, "--work-tree=%s", folder);
	snprintf(dir, sizeof dir, "--git-dir=%s", r->git);
	/* Files that were edited are no failure; what they are comes next. */
	(void)git_run(&ran, folder, tree, dir, "update-index", "-q", "--refresh", NULL);
	ran_free(&ran);
	modes_note(&modes, folder, r->main, names != NULL ? names : "");
	free(names);
	/* Until a file has its own mode it is nobody else's business. */
	mask = umask(077);
	well = git_run(&ran, folder, tree, dir, "read-tree", "-m", "-u", from, to, NULL);
	umask(mask);
	modes_restore(&modes);
	*why = well ? NULL : strdup(ran.errors);
	ran_free(&ran);
	return well;
}

/* All but .git, which stays where it is: `to` is below it. */
static bool copy_folder(const char *from, const char *to)
{
	struct dirent **names = NULL;
	int count = scandir(from, &names, NULL, alphasort);
	bool well = count >= 0;

	for (int i = 0; i < count; i++) {
		const char *name = names[i]->d_name;
		char source[PATH_MAX + 256];
		const char *const words[] = {"cp", "-a", "--reflink=auto", "--", source, to, NULL};
		struct ran ran;

		snprintf(source, sizeof source, "%s/%s", from, name);
		if (well && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
		    strcmp(name, ".git") != 0) {
			well = program_run(&ran, words);
			if (!well) {
				config_refuse("cannot copy %s: %s", source, ran.errors);
			}
			ran_free(&ran);
		}
		free(names[i]);
	}
	free(names);
	return well;
}

void config_remove(const char *path)
{
	const char *const words[] = {"rm", "-rf", "--", path, NULL};
	struct ran ran;

	program_run(&ran, words);
	ran_free(&ran);
}

void candidate_remove(char *candidate)
{
	char *slash = strrchr(candidate, '/');

	/* Its folder holds the index, too. */
	*slash = '\0';
	config_remove(candidate);
	free(candidate);
}

/* The index of a candidate begins as the clone's. */
static bool copy_index(const struct repository *r, const char *index)
{
	char own[PATH_MAX + 16];
	const char *const words[] = {"cp", "-p", "--", own, index, NULL};
	struct ran ran;
	bool well;

	snprintf(own, sizeof own, "%s/index", r->git);
	well = program_run(&ran, words);
	if (!well) {
		config_refuse("cannot copy %s: %s", own, ran.errors);
	}
	ran_free(&ran);
	return well;
}

/* Below .git, as its files may be nobody else's business. */
static char *make_folder(const struct repository *r)
{
	static const char form[] = "/flywheel-candidate-XXXXXX";
	char *path = malloc(strlen(r->git) + sizeof form + sizeof "/tree");

	ASSERT(path != NULL);
	strcat(strcpy(path, r->git), form);
	if (mkdtemp(path) == NULL || mkdir(strcat(path, "/tree"), 0700) != 0) {
		config_refuse("%s: %s", path, strerror(errno));
		free(path);
		return NULL;
	}
	return path;
}

char *candidate_make(const struct repository *r, const char *from, const char *to)
{
	char *candidate = make_folder(r);
	char index[PATH_MAX + 64];
	char *why = NULL;
	bool well;

	if (candidate == NULL) {
		return NULL;
	}
	snprintf(index, sizeof index, "%s-index", candidate);
	if (copy_folder(r->folder, candidate) && copy_index(r, index)) {
		git_use_index(index);
		well = move_files(r, candidate, from, to, &why);
		git_use_index(NULL);
		if (well) {
			return candidate;
		}
		say_conflicts(r, from, to);
		config_refuse("nothing has changed: %s", why);
		free(why);
	}
	candidate_remove(candidate);
	return NULL;
}

bool repository_switch(const struct repository *r, const char *from, const char *to)
{
	char branch[PATH_MAX];
	struct ran ran;
	char *why;

	if (!move_files(r, r->folder, from, to, &why)) {
		config_refuse("cannot switch to %.10s: %s", to, why);
		free(why);
		return false;
	}
	snprintf(branch, sizeof branch, "refs/heads/%s", r->branch);
	if (!git_run(&ran, r->folder, "update-ref", "-m", "flywheel config", branch, to, NULL)) {
		config_refuse("cannot move branch %s: %s", r->branch, ran.errors);
		ran_free(&ran);
		if (!move_files(r, r->folder, to, from, &why)) {
			config_refuse("cannot take the files back to %.10s: %s", from, why);
			free(why);
		}
		return false;
	}
	ran_free(&ran);
	return true;
}

/* ---- flywheeld follows ---- */

/* The commit that flywheeld was told of last; to be freed. */
static char *read_applied(const struct repository *r)
{
	char path[PATH_MAX + 32];
	char text[128] = "";
	FILE *file;

	snprintf(path, sizeof path, "%s/" APPLIED_FILE, r->git);
	file = fopen(path, "re");
	if (file != NULL) {
		if (fgets(text, sizeof text, file) == NULL) {
			text[0] = '\0';
		}
		fclose(file);
	}
	text[strcspn(text, "\n")] = '\0';
	return strdup(text);
}

static void write_applied(const struct repository *r, const char *commit)
{
	char path[PATH_MAX + 32];
	FILE *file;

	snprintf(path, sizeof path, "%s/" APPLIED_FILE, r->git);
	file = fopen(path, "we");
	if (file == NULL || fprintf(file, "%s\n", commit) < 0 || fclose(file) != 0) {
		config_refuse("%s: %s", path, strerror(errno));
	}
}

json_t *config_ask(const struct config_request *q, const char *command)
{
	struct console *console = console_connect(q->socket);
	json_t *answer;
	int saved;

	if (console == NULL) {
		return NULL;
	}
	answer = console_ask(console, command);
	saved = errno;
	console_close(console);
	errno = saved;
	return answer;
}

enum apply_result repository_apply(const struct repository *r)
{
	char *head = repository_commit(r, "HEAD");
	char *applied = read_applied(r);
	json_t *answer;
	enum apply_result result = APPLY_NOT_NEEDED;

	if (head != NULL && applied != NULL && strcmp(head, applied) != 0) {
		answer = config_ask(r->request, "config reload");
		if (answer == NULL && (errno == ENOENT || errno == ECONNREFUSED)) {
			result = APPLY_LATER;
		} else if (answer == NULL) {
			config_refuse("cannot ask flywheeld at %s: %s", r->request->socket,
				      strerror(errno));
			result = APPLY_FAILED;
		} else if (json_is_true(json_object_get(answer, "ok"))) {
			write_applied(r, head);
			result = APPLY_DONE;
		} else {
			config_refuse("flywheeld refuses it: %s",
				      json_string_value(json_object_get(answer, "error")));
			result = APPLY_FAILED;
		}
		json_decref(answer);
	}
	free(applied);
	free(head);
	return result;
}
