/*
 * The files behind `include` and `readonly_include`: which ones a path means, whether they may be
 * read now, and their text. A file that is still open further up the stack would include itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config/report.h"
#include "config/tree.h"
#include "core/runtime/thread_class.h"

/* A file while it is parsed. */
SINGLE
struct include_file {
	/* Who included it; NULL for the first one. */
	const struct include_file *from;
	const char *path;
	/* In the tree. */
	uint32_t number;
	dev_t device;
	ino_t inode;
	bool readonly;
	const char *text;
	size_t len;
	/* The text, when it is to be freed. */
	char *owned;
};

/* One include statement; all but tree and report is zero for the first file. */
SINGLE
struct include {
	struct tree *tree;
	struct report *report;
	const struct include_file *from;
	struct source source;
	bool readonly;
};

SINGLE
struct include_list {
	char **paths;
	size_t count;
};

/* The files that `path` means, in the first of the folders of the tree's search where it is, or
 * beside the including file: itself, or in a folder all in alphabetical order without dotfiles and
 * subfolders. Empty when there was an error, which is reported. */
SINGLE
struct include_list include_list(const struct include *include, const char *path);

SINGLE
void include_list_free(struct include_list *list);

/* Read `path`. Returns 0, or a negative errno that is reported: -ELOOP when it is being parsed
 * already, -EFBIG, or why it cannot be read. */
SINGLE
int include_open(const struct include *include, const char *path, struct include_file *file);

SINGLE
void include_close(struct include_file *file);

/* SHA-256 of a file's text. */
CONCURRENT
void include_digest(const char *text, size_t len, unsigned char digest[TREE_DIGEST]);
