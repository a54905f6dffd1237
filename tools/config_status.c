/*
 * `flywheel config status` and `history`: where this node's configuration stands.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/word.h"
#include "tools/config_repository.h"
#include "tools/console_render.h"

#define HISTORY_DEFAULT "20"

static json_t *text_or_null(char *text)
{
	json_t *value = text != NULL ? json_string(text) : json_null();

	free(text);
	return value;
}

static json_int_t count_commits(const struct repository *r, const char *from, const char *to)
{
	char *text = git_ask(r->folder, "rev-list", "--count", to, "--not", from, NULL);
	json_int_t count = text != NULL ? atoll(text) : 0;

	free(text);
	return count;
}

/* What git status(1) says of each file: two letters and its name. */
static json_t *edited_files(const struct repository *r)
{
	char *text = git_ask(r->folder, "status", "--porcelain", "--untracked-files=all", NULL);
	char *rest = text;
	json_t *rows = json_array();

	for (char *line; rest != NULL && (line = strsep(&rest, "\n")) != NULL;) {
		if (strlen(line) > 3) {
			json_array_append_new(rows, json_string(line + 3));
		}
	}
	free(text);
	return rows;
}

/* Where the clone stands. */
static json_t *describe_clone(const struct repository *r)
{
	char upstream[PATH_MAX];
	json_t *v = json_object();
	bool fetched = repository_fetch(r) == CONFIG_EXIT_OK;

	repository_upstream(r, upstream);
	json_object_set_new(v, "folder", json_string(r->folder));
	json_object_set_new(v, "url",
			    text_or_null(git_ask(r->folder, "remote", "get-url", "origin", NULL)));
	json_object_set_new(v, "branch", json_string(r->branch));
	json_object_set_new(v, "commit", text_or_null(repository_describe(r, "HEAD")));
	json_object_set_new(v, "reachable", json_boolean(fetched));
	json_object_set_new(v, "commits_to_pull", json_integer(count_commits(r, "HEAD", upstream)));
	json_object_set_new(v, "commits_not_handed_on",
			    json_integer(count_commits(r, upstream, "HEAD")));
	json_object_set_new(v, "edited", edited_files(r));
	json_object_set_new(v, "valid", json_boolean(repository_valid(r, r->folder)));
	return v;
}

/* Both what runs and what lies in the folder, which is that of what runs unless it is named. */
int config_status(const struct config_request *q)
{
	struct config_request of = *q;
	struct repository r;
	json_t *answer = config_ask(q, "config status");
	json_t *v = json_incref(json_object_get(answer, "result"));
	int rc = CONFIG_EXIT_OK;

	json_decref(answer);
	if (of.file == NULL) {
		of.file = json_string_value(json_object_get(v, "file"));
	}
	if (!repository_is_clone(&of)) {
		if (v == NULL) {
			return config_refuse(
				"flywheeld does not answer at %s, and there is no clone of a "
				"repository in the folder of %s",
				q->socket, config_main_file(&of));
		}
		json_object_set_new(v, "repository", json_null());
		console_put(v, q->json, stdout);
		json_decref(v);
		return CONFIG_EXIT_OK;
	}
	rc = repository_open(&r, &of);
	if (rc == CONFIG_EXIT_OK) {
		v = v != NULL ? v : json_object();
		json_object_set_new(v, "repository", describe_clone(&r));
		console_put(v, q->json, stdout);
	}
	json_decref(v);
	repository_close(&r);
	return rc;
}

/* A line of fields with US (unit separator) between them. */
static json_t *commit_row(char *line)
{
	static const char *const keys[] = {"commit", "at", "by", "subject"};
	json_t *row = json_object();

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		const char *field = strsep(&line, "\x1f");

		json_object_set_new(row, keys[i], json_string(field != NULL ? field : ""));
	}
	return row;
}

/* Takes the lines apart. */
static void show_commits(const struct config_request *q, char *lines)
{
	json_t *rows = json_array();

	for (char *line; lines != NULL && (line = strsep(&lines, "\n")) != NULL;) {
		json_array_append_new(rows, commit_row(line));
	}
	console_put(rows, q->json, stdout);
	json_decref(rows);
}

int config_history(const struct config_request *q)
{
	struct repository r;
	const char *count = q->word_count > 0 ? q->words[0] : HISTORY_DEFAULT;
	uint64_t number;
	char *text;
	int rc;

	/* git takes any word for a number. */
	if (word_number(count, &number) != NULL) {
		return config_refuse("\"%s\" is no number of commits", count);
	}
	rc = repository_open(&r, q);
	if (rc == CONFIG_EXIT_OK) {
		text = git_ask(r.folder, "log", "-n", count, "--date=iso-strict",
			       "--format=%h%x1f%ad%x1f%an%x1f%s", NULL);
		if (text != NULL) {
			show_commits(q, text);
		} else {
			rc = config_refuse("git cannot list the last %s commits", count);
		}
		free(text);
	}
	repository_close(&r);
	return rc;
}
