#include "config/writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/build.h"
#include "config/edit.h"
#include "config/generation.h"
#include "config/include.h"
#include "config/parser.h"
#include "config/search.h"
#include "core/runtime/check.h"

/* A file that is to become another. */
SINGLE
struct draft {
	char *path;
	/* Where it really is, and what is put in its place. */
	char *target;
	char *temporary;
	/* As it was found. */
	unsigned char digest[TREE_DIGEST];
};

SINGLE
struct writeback {
	const struct config *running;
	const struct overlay *overlay;
	FILE *errors;
	struct draft *drafts;
	/* What they are to say, in the same order. */
	struct tree_file_text *texts;
	uint32_t count;
};

/* ---- parsing what is there, and what is to be ---- */

/* All files with the drafts' texts, without meaning. tree_free() either way. */
static int parse(const struct writeback *w, struct tree *tree)
{
	struct report report = {.out = w->errors, .tree = tree};
	struct search search;
	char why[SEARCH_WHY];
	int rc = search_init(&search, w->running->path, w->running->node, why);

	tree_init(tree);
	tree->keeps_places = true;
	tree->texts = w->texts;
	tree->text_count = w->count;
	tree->search = &search;
	if (rc == 0) {
		rc = parser_load_file(tree, &report, w->running->path);
	} else {
		fprintf(w->errors, "%s\n", why);
	}
	tree->search = NULL;
	search_free(&search);
	report_close(&report);
	return rc == 0 && report.errors != 0 ? -EINVAL : rc;
}

/* Whether the files are those that the program runs with. */
static int check_unchanged(const struct writeback *w, const struct tree *tree)
{
	uint32_t count = config_file_count(w->running);
	int rc = 0;

	for (uint32_t i = 0; i < count || i < tree->file_count; i++) {
		const struct tree_file *now = i < tree->file_count ? &tree->files[i] : NULL;
		const struct tree_file *then = i < count ? &w->running->files[i] : NULL;

		if (now == NULL || then == NULL || strcmp(now->path, then->path) != 0 ||
		    memcmp(now->digest, then->digest, TREE_DIGEST) != 0) {
			fprintf(w->errors,
				"%s: was changed since the configuration was loaded; expected it "
				"as it was, or config reload first\n",
				now != NULL ? now->path : then->path);
			rc = -ESTALE;
			break;
		}
	}
	return rc;
}

/* ---- drafts ---- */

static void draft(struct writeback *w, const struct tree *tree, struct edit *edit)
{
	const struct tree_file *file = &tree->files[edit->file];
	uint32_t i = 0;

	while (i < w->count && strcmp(w->drafts[i].path, file->path) != 0) {
		i++;
	}
	if (i == w->count) {
		w->drafts = check_memory(realloc(w->drafts, (i + 1) * sizeof(*w->drafts)),
					 "the configuration");
		w->texts = check_memory(realloc(w->texts, (i + 1) * sizeof(*w->texts)),
					"the configuration");
		w->drafts[i] = (struct draft){
			.path = check_memory(strdup(file->path), "the configuration")};
		memcpy(w->drafts[i].digest, file->digest, TREE_DIGEST);
		w->texts[i] = (struct tree_file_text){.path = w->drafts[i].path};
		w->count++;
	} else {
		free((char *)w->texts[i].text);
	}
	w->texts[i].text = edit->text;
	w->texts[i].len = edit->len;
}

/* All that one change does to the texts: unsetting may be more than one edit. */
static int edit_all(struct writeback *w, const struct overlay_change *change)
{
	for (;;) {
		struct tree tree;
		struct edit edit = {.text = NULL};
		char why[CONFIG_WHY];
		int rc = parse(w, &tree);

		if (rc == 0) {
			rc = edit_change(&tree, change, &edit, why);
			if (rc != 0) {
				fprintf(w->errors, "%s\n", why);
			}
		}
		if (edit.text != NULL) {
			draft(w, &tree, &edit);
		}
		tree_free(&tree);
		if (rc != 0 || edit.text == NULL || change->value != NULL) {
			return rc;
		}
	}
}

static int edit_files(struct writeback *w)
{
	struct tree tree;
	int rc = parse(w, &tree);

	if (rc == 0) {
		rc = check_unchanged(w, &tree);
	}
	tree_free(&tree);
	for (uint32_t i = 0; rc == 0 && i < w->overlay->count; i++) {
		rc = edit_all(w, &w->overlay->changes[i]);
	}
	return rc;
}

/* ---- the same as before? ---- */

static char *values_of(const struct config *config)
{
	char *text;
	size_t size;
	FILE *out = check_memory(open_memstream(&text, &size), "the configuration");

	config_dump_values(config, out);
	fclose(out);
	return text;
}

/* What the new texts load to; NULL, when that is not what the old ones and the overlay do. */
static struct config *load_drafts(const struct writeback *w)
{
	struct config_source source = {.path = w->running->path, .node = w->running->node};
	struct config *before = config_load_again(w->running, w->overlay, w->errors);
	struct config *after = NULL;

	if (before == NULL) {
		return NULL;
	}
	after = config_load_texts(&source, w->texts, w->count, w->errors);
	if (after != NULL) {
		char *wanted = values_of(before);
		char *found = values_of(after);

		if (strcmp(wanted, found) != 0) {
			fprintf(w->errors, "the files would not say the same as what runs; "
					   "expected a change that can be written into them\n");
			config_release(after);
			after = NULL;
		}
		free(wanted);
		free(found);
	}
	config_release(before);
	return after;
}

/* ---- onto the disk ---- */

static int fail(const struct writeback *w, const char *path, const char *what, int rc)
{
	fprintf(w->errors, "%s: cannot %s: %s\n", path, what, strerror(-rc));
	return rc;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* A dotfile, which no include of a folder takes for one of its files. */
static void name_files(struct draft *d)
{
	d->target = realpath(d->path, NULL);
	if (d->target == NULL) {
		d->target = check_memory(strdup(d->path), "the configuration");
	}
	const char *slash = strrchr(d->target, '/');
	const char *name = slash != NULL ? slash + 1 : d->target;
	if (asprintf(&d->temporary, "%.*s.%s.XXXXXX", (int)(name - d->target), d->target, name) <
	    0) {
		fatal("configuration: out of memory");
	}
}

static int write_draft(const struct writeback *w, uint32_t i)
{
	struct draft *d = &w->drafts[i];
	struct stat status;
	int fd;

	name_files(d);
	if (stat(d->target, &status) != 0) {
		int rc = fail(w, d->path, "look at it", -errno);

		free(d->temporary);
		d->temporary = NULL;
		return rc;
	}
	fd = mkostemp(d->temporary, O_CLOEXEC);
	if (fd < 0) {
		int rc = fail(w, d->path, "make a file beside it", -errno);

		free(d->temporary);
		d->temporary = NULL;
		return rc;
	}
	int rc = write_all(fd, w->texts[i].text, w->texts[i].len);
	if (rc == 0 && (fchown(fd, status.st_uid, status.st_gid) != 0 ||
			fchmod(fd, status.st_mode & 07777) != 0 || fsync(fd) != 0)) {
		rc = -errno;
	}
	close(fd);
	return rc == 0 ? 0 : fail(w, d->path, "write a file beside it", rc);
}

static int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = check_memory(slash != NULL ? strndup(path, (size_t)(slash - path) + 1)
						  : strdup("."),
				    "the configuration");
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || fsync(fd) != 0 ? -errno : 0;

	if (fd >= 0) {
		close(fd);
	}
	free(folder);
	return rc;
}

/* Whether it still says what it did when its draft was made. */
static int check_draft(const struct writeback *w, const struct draft *d)
{
	struct tree tree;
	struct report report = {.out = w->errors, .tree = &tree};
	struct include include = {.tree = &tree, .report = &report};
	struct include_file file;

	tree_init(&tree);
	int rc = include_open(&include, d->path, &file);
	if (rc == 0) {
		include_close(&file);
		if (memcmp(tree.files[0].digest, d->digest, TREE_DIGEST) != 0) {
			fprintf(w->errors, "%s: was changed meanwhile\n", d->path);
			rc = -ESTALE;
		}
	}
	report_close(&report);
	tree_free(&tree);
	return rc;
}

static int put_in_place(const struct writeback *w, struct draft *d)
{
	int rc = rename(d->temporary, d->target) == 0 ? 0 : -errno;

	if (rc != 0) {
		return fail(w, d->path, "put a new file in its place", rc);
	}
	free(d->temporary);
	d->temporary = NULL;
	rc = sync_folder(d->target);
	return rc == 0 ? 0 : fail(w, d->path, "sync its folder", rc);
}

static int write_files(const struct writeback *w, void (*wrote)(void *context, const char *path),
		       void *context)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < w->count; i++) {
		rc = write_draft(w, i);
	}
	for (uint32_t i = 0; rc == 0 && i < w->count; i++) {
		rc = check_draft(w, &w->drafts[i]);
	}
	for (uint32_t i = 0; rc == 0 && i < w->count; i++) {
		rc = put_in_place(w, &w->drafts[i]);
		if (w->drafts[i].temporary == NULL) {
			wrote(context, w->drafts[i].path);
		}
	}
	return rc;
}

static void writeback_free(struct writeback *w)
{
	for (uint32_t i = 0; i < w->count; i++) {
		if (w->drafts[i].temporary != NULL) {
			unlink(w->drafts[i].temporary);
		}
		free(w->drafts[i].temporary);
		free(w->drafts[i].target);
		free(w->drafts[i].path);
		free((char *)w->texts[i].text);
	}
	free(w->drafts);
	free(w->texts);
}

struct config *config_writeback(const struct config *running, const struct overlay *overlay,
				void (*wrote)(void *context, const char *path), void *context,
				FILE *errors)
{
	struct writeback w = {.running = running, .overlay = overlay, .errors = errors};
	struct config *after = NULL;

	if (edit_files(&w) == 0) {
		after = load_drafts(&w);
	}
	if (after != NULL && write_files(&w, wrote, context) != 0) {
		config_release(after);
		after = NULL;
	}
	writeback_free(&w);
	return after;
}
