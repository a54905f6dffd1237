/*
 * What flywheel-spool does, one function for each command. Each writes to stdout, mistakes to
 * stderr, and returns the exit status.
 */
#pragma once

#include <stdio.h>

#include "tools/spool_view.h"

enum spool_exit {
	SPOOL_EXIT_OK = 0,
	/* Something that is still needed is damaged, or what was asked for is not there. */
	SPOOL_EXIT_DAMAGED = 1,
	/* Wrong usage, or the spool or what was to be written cannot be opened. */
	SPOOL_EXIT_USAGE = 2,
};

SINGLE
int spool_list(const struct spool_view *v);
SINGLE
int spool_show(const struct spool_view *v, const char *segment);
/* `envelope`: that, and not the body. */
SINGLE
int spool_cat(const struct spool_view *v, const char *id, bool envelope);
SINGLE
int spool_extract(const struct spool_view *v, const char *directory);
/* `repair`: NULL, or the directory for what is given up. `path` is the spool's. */
SINGLE
int spool_check(const struct spool_view *v, const char *path, const char *repair);

/* ---- shared by them ---- */

/* What is in a file of the spool may do harm to a terminal: control characters become "?". */
SINGLE
void spool_put_text(FILE *f, const char *text);
/* "from <a@example.com> to <b@example.net>", and how many more. */
SINGLE
void spool_put_addresses(FILE *f, const struct envelope *e);
/* "what is wrong": of a piece that is not whole. */
SINGLE
const char *spool_piece_fault(const struct spool_piece *p);
/* Makes `directory` where there is none. 0, or -1 with the reason on stderr. */
SINGLE
int spool_make_directory(const char *directory);
/* A new file of that directory, for its owner alone: the message's id and `suffix`. NULL with the
 * reason on stderr. */
SINGLE
FILE *spool_make_file(const char *directory, const struct message_id *id, const char *suffix);
/* 0, or -1 with the reason on stderr. */
SINGLE
int spool_close_file(FILE *f, const char *directory);
/* What was written there is on the disk afterwards. 0, or -1 with the reason on stderr. */
SINGLE
int spool_sync_files(const char *directory);
