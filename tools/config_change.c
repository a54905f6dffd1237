/*
 * `flywheel config pull` and `commit`: what others committed comes here, and what was edited here
 * goes to them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/config_repository.h"

#define PUSH_TRIES 5

/* ---- pull ---- */

static int switch_to(struct repository *r, const char *from, const char *to)
{
	char *candidate = candidate_make(r, from, to);
	char *name = repository_describe(r, to);
	int rc = CONFIG_EXIT_FAILED;

	if (candidate != NULL && !repository_valid(r, candidate)) {
		config_refuse("commit %s is refused, nothing has changed", name);
	} else if (candidate != NULL && r->request->dry_run) {
		printf("valid: %s\n", name);
		rc = CONFIG_EXIT_OK;
	} else if (candidate != NULL && repository_switch(r, from, to)) {
		printf("now at %s\n", name);
		rc = CONFIG_EXIT_OK;
	}
	if (candidate != NULL) {
		candidate_remove(candidate);
	}
	free(name);
	return rc;
}

/* flywheeld follows; what it cannot do takes the switch back, so that files and program agree. */
static int apply(const struct repository *r, const char *before)
{
	static const char *const said[] = {
		[APPLY_NOT_NEEDED] = "flywheeld has it already",
		[APPLY_DONE] = "flywheeld has reloaded",
		[APPLY_LATER] = "flywheeld does not run: it will start with it",
	};
	char *now = repository_commit(r, "HEAD");
	enum apply_result result = repository_apply(r);

	if (result == APPLY_FAILED) {
		if (before != NULL && now != NULL && strcmp(before, now) != 0 &&
		    repository_switch(r, now, before)) {
			config_refuse("back at %.10s", before);
		}
	} else if (!r->request->quiet || result == APPLY_DONE) {
		puts(said[result]);
	}
	free(now);
	return result == APPLY_FAILED ? CONFIG_EXIT_FAILED : CONFIG_EXIT_OK;
}

static bool is_ancestor(const struct repository *r, const char *old, const char *new)
{
	char *said = git_ask(r->folder, "merge-base", "--is-ancestor", old, new, NULL);
	bool is = said != NULL;

	free(said);
	return is;
}

static int pull(struct repository *r)
{
	char upstream[PATH_MAX];
	char *here;
	char *there;
	int rc = repository_fetch(r);

	if (rc != CONFIG_EXIT_OK) {
		return rc;
	}
	repository_upstream(r, upstream);
	here = repository_commit(r, "HEAD");
	there = repository_commit(r, upstream);
	if (here == NULL || there == NULL) {
		rc = config_refuse("branch %s has no commit here or in the repository", r->branch);
	} else if (is_ancestor(r, there, here)) {
		if (!r->request->quiet) {
			puts("nothing new");
		}
	} else if (!is_ancestor(r, here, there)) {
		rc = config_refuse("commits were made here that the repository does not have: "
				   "\"flywheel config commit\" hands them on");
	} else {
		rc = switch_to(r, here, there);
	}
	if (rc == CONFIG_EXIT_OK && !r->request->dry_run) {
		rc = apply(r, here);
	}
	free(there);
	free(here);
	return rc;
}

int config_pull(const struct config_request *q)
{
	struct repository r;
	int rc = repository_open(&r, q);

	if (rc == CONFIG_EXIT_OK) {
		rc = pull(&r);
	}
	repository_close(&r);
	return rc;
}

/* ---- commit ---- */

/* Whatever has no name of its own in git's configuration is this machine. */
void config_name_committer(const char *folder)
{
	char *name = git_ask(folder, "config", "user.name", NULL);
	char *address = git_ask(folder, "config", "user.email", NULL);
	const char *user = getenv("USER") != NULL ? getenv("USER") : "root";
	char host[256] = "localhost";
	char text[600];

	gethostname(host, sizeof host - 1);
	snprintf(text, sizeof text, "%s@%s", user, host);
	if (name == NULL || address == NULL) {
		setenv("GIT_AUTHOR_NAME", user, 0);
		setenv("GIT_AUTHOR_EMAIL", text, 0);
		setenv("GIT_COMMITTER_NAME", user, 0);
		setenv("GIT_COMMITTER_EMAIL", text, 0);
	}
	free(name);
	free(address);
}

/* A tree on top of a commit, to be freed; NULL after a line that says why not. */
static char *commit_tree(const struct repository *r, const char *parent, const char *message,
			 const char *tree)
{
	struct ran ran;
	char *commit = NULL;

	if (git_run(&ran, r->folder, "commit-tree", "-p", parent, "-m", message, tree, NULL)) {
		commit = strdup(ran.out);
	} else {
		config_refuse("cannot commit: %s", ran.errors);
	}
	ran_free(&ran);
	return commit;
}

/* A commit of all that was edited here, on top of HEAD, to which no branch points yet; to be freed.
 * NULL after a line that says why not. HEAD itself when nothing was edited. */
static char *commit_edits(const struct repository *r, const char *head)
{
	char *tree = NULL;
	char *before = git_ask(r->folder, "rev-parse", "HEAD^{tree}", NULL);
	char *commit = NULL;
	struct ran ran;

	if (git_run(&ran, r->folder, "add", "--all", NULL)) {
		ran_free(&ran);
		if (git_run(&ran, r->folder, "write-tree", NULL)) {
			tree = strdup(ran.out);
		}
	}
	if (tree == NULL) {
		config_refuse("cannot take what was edited: %s", ran.errors);
	}
	ran_free(&ran);
	if (tree != NULL && before != NULL && strcmp(tree, before) == 0) {
		commit = strdup(head);
	} else if (tree != NULL) {
		commit = commit_tree(r, head, r->request->message, tree);
	}
	free(before);
	free(tree);
	return commit;
}

/* The same change on top of what others committed; to be freed. NULL: a line said why, such as that
 * they conflict. */
static char *join(const struct repository *r, const char *commit, const char *there)
{
	struct ran ran;
	char *joined = NULL;
	char *rest;

	if (git_run(&ran, r->folder, "merge-tree", "--write-tree", "--name-only", "--no-messages",
		    there, commit, NULL)) {
		char *message = git_ask(r->folder, "log", "-1", "--format=%B", commit, NULL);

		if (message != NULL) {
			joined = commit_tree(r, there, message, ran.out);
		} else {
			config_refuse("cannot read commit %.10s", commit);
		}
		free(message);
	} else {
		/* The first line is a tree with the conflicts in it. */
		rest = ran.out;
		strsep(&rest, "\n");
		for (char *name; rest != NULL && (name = strsep(&rest, "\n")) != NULL;) {
			if (!repository_say_conflict(r, name, commit, there)) {
				config_refuse("conflict: %s was changed here, and there", name);
			}
		}
		config_refuse(
			"nothing was committed; \"git diff HEAD\" in %s shows what was edited here, "
			"\"git checkout HEAD -- FILE\" gives it up",
			r->folder);
	}
	ran_free(&ran);
	return joined;
}

enum push { PUSHED, PUSH_AGAIN, PUSH_FAILED };

static enum push push(const struct repository *r, const char *commit)
{
	char what[PATH_MAX];
	struct ran ran;
	enum push result = PUSHED;

	snprintf(what, sizeof what, "%s:refs/heads/%s", commit, r->branch);
	if (!git_run(&ran, r->folder, "push", "--quiet", "origin", what, NULL)) {
		/* Somebody else was faster. */
		if (strstr(ran.errors, "fetch first") != NULL ||
		    strstr(ran.errors, "non-fast-forward") != NULL ||
		    strstr(ran.errors, "cannot lock ref") != NULL) {
			result = PUSH_AGAIN;
		} else {
			config_refuse("cannot hand it on: %s", ran.errors);
			result = PUSH_FAILED;
		}
	}
	ran_free(&ran);
	return result;
}

/* Valid once more, as it is together with what others did. */
static bool joined_valid(const struct repository *r, const char *commit, const char *joined)
{
	char *candidate;
	bool valid;

	if (strcmp(commit, joined) == 0) {
		return true;
	}
	candidate = candidate_make(r, commit, joined);
	valid = candidate != NULL && repository_valid(r, candidate);
	if (candidate != NULL && !valid) {
		config_refuse("that is so with what others committed; nothing was committed");
	}
	if (candidate != NULL) {
		candidate_remove(candidate);
	}
	return valid;
}

/* One try: joins `commit` with what the repository has, and pushes. `*joined` is what was pushed.
 */
static enum push hand_on(const struct repository *r, const char *commit, char **joined)
{
	char upstream[PATH_MAX];
	char *there;
	enum push result = PUSH_FAILED;

	*joined = NULL;
	if (repository_fetch(r) != CONFIG_EXIT_OK) {
		return PUSH_FAILED;
	}
	repository_upstream(r, upstream);
	there = repository_commit(r, upstream);
	*joined = there == NULL || is_ancestor(r, there, commit) ? strdup(commit)
								 : join(r, commit, there);
	if (*joined != NULL && joined_valid(r, commit, *joined)) {
		if (r->request->dry_run) {
			puts("valid");
			result = PUSHED;
		} else {
			result = push(r, *joined);
		}
	}
	free(there);
	return result;
}

/* The index says that all is committed, while no branch says so: what was edited is to be seen as
 * that again. */
static void forget_edits(const struct repository *r)
{
	struct ran ran;

	git_run(&ran, r->folder, "reset", "--quiet", NULL);
	ran_free(&ran);
}

static int hand_on_and_follow(const struct repository *r, const char *commit)
{
	char *joined = NULL;
	enum push result = PUSH_AGAIN;
	int rc = CONFIG_EXIT_FAILED;

	for (int i = 0; i < PUSH_TRIES && result == PUSH_AGAIN; i++) {
		free(joined);
		result = hand_on(r, commit, &joined);
	}
	if (result == PUSH_AGAIN) {
		config_refuse("others commit all the time; try again");
	}
	if (result == PUSHED && !r->request->dry_run && repository_switch(r, commit, joined)) {
		char *name = repository_describe(r, joined);

		printf("committed %s\n", name);
		free(name);
		rc = apply(r, NULL);
	} else {
		forget_edits(r);
		rc = result == PUSHED && r->request->dry_run ? CONFIG_EXIT_OK : CONFIG_EXIT_FAILED;
	}
	free(joined);
	return rc;
}

static int commit(struct repository *r)
{
	char upstream[PATH_MAX];
	char *head = repository_commit(r, "HEAD");
	char *there;
	char *edits;
	int rc = CONFIG_EXIT_FAILED;

	if (head == NULL) {
		return config_refuse("branch %s has no commit yet", r->branch);
	}
	if (!repository_valid(r, r->folder)) {
		config_refuse("nothing was committed");
		free(head);
		return CONFIG_EXIT_FAILED;
	}
	config_name_committer(r->folder);
	repository_upstream(r, upstream);
	there = repository_commit(r, upstream);
	edits = commit_edits(r, head);
	if (edits != NULL && there != NULL && strcmp(edits, head) == 0 &&
	    is_ancestor(r, head, there)) {
		puts("nothing was edited here");
		rc = CONFIG_EXIT_OK;
	} else if (edits != NULL) {
		rc = hand_on_and_follow(r, edits);
	} else {
		forget_edits(r);
	}
	free(edits);
	free(there);
	free(head);
	return rc;
}

int config_commit(const struct config_request *q)
{
	struct repository r;
	int rc = repository_open(&r, q);

	if (rc == CONFIG_EXIT_OK) {
		rc = commit(&r);
	}
	repository_close(&r);
	return rc;
}
