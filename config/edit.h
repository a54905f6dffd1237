/*
 * Changes of the text of files as a person would make them: one value, one line, or one scope, and
 * nothing else. Works on what was parsed with places (tree.h); writes no file. Private to config/.
 *
 * Start reading at edit_change().
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/overlay.h"
#include "config/tree.h"
#include "core/runtime/thread_class.h"

/* What a file is to say. */
SINGLE
struct edit {
	/* NULL: nothing is to be changed. */
	char *text;
	size_t len;
	/* In the tree. */
	uint32_t file;
};

/*
 * What is to change so that the files say what `change` does: the value of the option where it is
 * set last; else a new line at the end of its scope where that was opened last; else a new scope at
 * the end of the first file. What is to be unset goes with its line; when it is set several times,
 * the last one of them: call again, with what was parsed anew, until there is no more. Returns 0
 * with `edit`, whose text is malloc, or -EROFS: `why` says which file is not to be changed.
 */
SINGLE
int edit_change(const struct tree *tree, const struct overlay_change *change, struct edit *edit,
		char why[CONFIG_WHY]);
