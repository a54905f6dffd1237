/*
 * Where included files are looked for. Beside the main file may be folders for one node, and for
 * the nodes of a subcluster:
 *
 *     FOLDER/node/NODE/         what is said on this node alone
 *     FOLDER/subcluster/NAME/   what is said on all nodes of a subcluster
 *     FOLDER/                   what is said everywhere
 *
 * A name is looked for in this order. A node is in the subcluster that the one line of
 * FOLDER/node/NODE/subcluster names. Private to config/.
 */
#pragma once

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

enum { SEARCH_NODE_MAX = 256, SEARCH_FOLDERS = 3, SEARCH_WHY = 512 };

SINGLE
struct search {
	char node[SEARCH_NODE_MAX];
	/* From the node's to the main file's; each malloc. */
	char *folders[SEARCH_FOLDERS];
	uint32_t count;
};

/* The folders that are there for the main file `path` on `node` (NULL: the machine's name). 0, or
 * -EINVAL: `why` says what is wrong with the subcluster, as a sentence that begins with the file's
 * name and what was expected. search_free() either way. */
SINGLE
int search_init(struct search *search, const char *path, const char *node, char why[SEARCH_WHY]);

SINGLE
void search_free(struct search *search);

/* `folder`, of `len` bytes, a slash and `name`; malloc. */
SINGLE
char *search_join(const char *folder, size_t len, const char *name);
