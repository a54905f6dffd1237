/*
 * Those who read a journal: each has a name and a checkpoint, the last record that it is done with.
 * Segments that some subscriber still needs are kept; so there must be no more subscribers than
 * there are readers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/log/jlog_format.h"

READONLY
struct jlog_subscriber {
	char name[JLOG_SUBSCRIBER_MAX + 1];
	/* 0, 0 where the file has none yet: all is still needed. */
	struct jlog_id checkpoint;
};

/* Of the name of a file of a subscriber, with NUL. */
#define JLOG_SUBSCRIBER_FILE 256

/* The name of its file: `prefix`, of three bytes, and `name` in hexadecimal. False: nobody can be
 * called so. */
CONCURRENT
bool jlog_subscriber_file(const char *prefix, const char *name, char file[JLOG_SUBSCRIBER_FILE]);

/* In the order of their names. */
SINGLE
struct jlog_subscribers {
	struct jlog_subscriber *items;
	unsigned count;
};

/* Lists what is there; jlog_subscribers_free() what comes. Returns 0 or a negative errno. */
SINGLE
int jlog_subscribers_list(int directory, struct jlog_subscribers *list);
SINGLE
void jlog_subscribers_free(struct jlog_subscribers *list);

/* A new subscriber that is done with `at`; on disk when it is there, with all of its checkpoint.
 * Returns 0, -EEXIST, -EINVAL (no name for one) or another negative errno. */
SINGLE
int jlog_subscriber_add(int directory, const char *name, struct jlog_id at);

/* Returns 0, -ESRCH (there is none) or another negative errno. */
SINGLE
int jlog_subscriber_remove(int directory, const char *name);

/* Returns 0, -ESRCH (there is no such subscriber: it was removed, or dropped as it never read) or
 * another negative errno. */
SINGLE
int jlog_checkpoint_read(int directory, const char *name, struct jlog_id *id);

/* The same; `sync`: it is on the disk when this returns. Waits for a lock that others hold for
 * moments, 1 s at most: -EAGAIN. */
SINGLE
int jlog_checkpoint_write(int directory, const char *name, struct jlog_id id, bool sync);
