/*
 * The file of policies of MTA-STS: a line for each domain, "DOMAIN ID UNTIL MODE MAX_AGE MX...",
 * after one that says what it is. Written anew as a whole: made in memory by its owner, written
 * beside the old one, synced and put in its place by the thread pool. Private to sts.c.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "agents/thread_pool.h"
#include "core/mail/sts_policy.h"
#include "core/runtime/thread_class.h"

/* What is being written; the job is run by the owner, who sets on_done. */
SINGLE
struct sts_file_write {
	struct job job;
	const char *path;
	char *text;
	size_t len;
	int result;
};

/* Takes `policy` over. */
typedef void (*sts_file_read_fn)(void *context, const char *domain, const char *id,
				 uint64_t until_ms, struct sts_policy *policy);

/* Reads it, if it is there; lines that are wrong are left out. */
SINGLE
void sts_file_read(const char *path, sts_file_read_fn on_policy, void *context);

/* Begins, puts domains, and ends: then w->job is ready. NULL, or not 0: memory is short, and there
 * is no job. */
SINGLE
FILE *sts_file_begin(struct sts_file_write *w, const char *path);
SINGLE
void sts_file_put(FILE *out, const char *domain, const char *id, uint64_t until_ms,
		  const struct sts_policy *policy);
SINGLE
int sts_file_end(struct sts_file_write *w, FILE *out);

/* The job has come back with `result`: 0, or a negative errno of it or of the file. */
SINGLE
int sts_file_done(struct sts_file_write *w, int result);
