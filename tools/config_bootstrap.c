/*
 * `flywheel config bootstrap`: a folder becomes a clone. What is in it stays as it is; what the
 * repository has and the folder has not comes in.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/config_repository.h"

/* Files that no repository should have; the repository's own .gitignore counts for more. */
static const char ignored[] = "# Secrets stay on their machine.\n"
			      "*.key\n"
			      "*.pem\n"
			      "*.private\n"
			      "passwords\n";

static bool step(const char *folder, const char *what, struct ran *ran, bool well)
{
	if (!well) {
		config_refuse("%s: cannot %s: %s", folder, what, ran->errors);
	}
	ran_free(ran);
	return well;
}

/* Nothing of it is ever committed, so it is there before the first `git add`. */
static bool write_ignored(const char *folder)
{
	char path[PATH_MAX];
	FILE *file;
	bool well;

	snprintf(path, sizeof path, "%s/.git/info", folder);
	/* git has made it, unless its template has none. */
	(void)mkdir(path, 0700);
	snprintf(path, sizeof path, "%s/.git/info/exclude", folder);
	file = fopen(path, "we");
	well = file != NULL && fputs(ignored, file) >= 0;
	well = file != NULL && fclose(file) == 0 && well;
	if (!well) {
		config_refuse("%s: %s", path, strerror(errno));
	}
	return well;
}

/* A folder without a commit that knows where its repository is. */
static bool make_clone(const char *folder, const struct config_request *q)
{
	struct ran ran;
	bool well = git_run(&ran, folder, "init", "--quiet", "-b", q->branch, NULL);

	if (!step(folder, "make a repository", &ran, well)) {
		return false;
	}
	well = git_run(&ran, folder, "remote", "add", "origin", q->url, NULL);
	return step(folder, "name the repository", &ran, well) && write_ignored(folder);
}

/* Does the branch exist there? -1: the repository cannot be reached, which is said. */
static int branch_exists(const char *folder, const struct config_request *q)
{
	char branch[256];
	struct ran ran;
	int exists;

	snprintf(branch, sizeof branch, "refs/heads/%s", q->branch);
	if (!git_run(&ran, folder, "ls-remote", q->url, branch, NULL)) {
		config_refuse("cannot reach the repository %s: %s", q->url, ran.errors);
		exists = -1;
	} else {
		exists = ran.out[0] != '\0';
	}
	ran_free(&ran);
	return exists;
}

/* The empty repository gets what is here. */
static bool give(const char *folder, const struct config_request *q)
{
	struct ran ran;
	bool well;

	well = git_run(&ran, folder, "add", "--all", NULL);
	well = step(folder, "take its files", &ran, well) &&
	       step(folder, "commit", &ran,
		    git_run(&ran, folder, "commit", "--quiet", "-m",
			    q->message != NULL ? q->message : "The configuration as it was", NULL));
	return well &&
	       step(folder, "hand it on", &ran,
		    git_run(&ran, folder, "push", "--quiet", "-u", "origin", q->branch, NULL));
}

/* Files that are here already are a failure to git, and none to us. */
static bool write_missing(const char *folder)
{
	struct ran ran;
	char *missing;
	bool well;

	git_run(&ran, folder, "checkout-index", "--all", NULL);
	missing = git_ask(folder, "ls-files", "--deleted", NULL);
	well = missing != NULL && missing[0] == '\0';
	free(missing);
	return step(folder, "write its files", &ran, well);
}

/* What is here and differs is seen as edited from now on. */
static bool take(const char *folder, const struct config_request *q)
{
	char upstream[256];
	struct ran ran;
	bool well;

	snprintf(upstream, sizeof upstream, "refs/remotes/origin/%s", q->branch);
	well = git_run(&ran, folder, "fetch", "--quiet", "origin", NULL);
	well = step(folder, "fetch", &ran, well) &&
	       step(folder, "begin at its last commit", &ran,
		    git_run(&ran, folder, "reset", "--quiet", upstream, NULL));
	return well && write_missing(folder);
}

int config_bootstrap(const struct config_request *q)
{
	char path[PATH_MAX];
	char git[PATH_MAX + 8];
	const char *folder = config_folder(q, path);
	char *inside;
	int exists;

	if (mkdir(folder, 0755) == 0) {
		printf("made %s\n", folder);
	}
	if (config_become_owner(folder) != CONFIG_EXIT_OK) {
		return CONFIG_EXIT_FAILED;
	}
	inside = git_ask(folder, "rev-parse", "--show-toplevel", NULL);
	if (inside != NULL) {
		config_refuse("%s is in the clone %s already", folder, inside);
		free(inside);
		return CONFIG_EXIT_FAILED;
	}
	exists = branch_exists(folder, q);
	if (exists < 0) {
		return CONFIG_EXIT_FAILED;
	}
	/* What is committed may be nobody else's business. */
	snprintf(git, sizeof git, "%s/.git", folder);
	if (mkdir(git, 0700) != 0) {
		return config_refuse("%s: %s", git, strerror(errno));
	}
	config_name_committer(folder);
	if (!make_clone(folder, q) || !(exists > 0 ? take(folder, q) : give(folder, q))) {
		/* It can be tried again. */
		config_remove(git);
		return CONFIG_EXIT_FAILED;
	}
	return config_status(q);
}
