/*
 * A walk over the lines of a body that start with a dot: into wire form, where each has one more
 * (RFC 5321 section 4.5.2), and out of it, for the chunks of BDAT (RFC 3030), which have none. A
 * line starts at the very start and after CR LF, as everywhere else (core/mail/dot.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

SINGLE
struct dot_walk {
	/* Private: what the bytes so far end in. */
	uint8_t state;
};

SINGLE
void dot_walk_init(struct dot_walk *w);

/*
 * Looks at the next `len` bytes (1 or more) of a body. Returns how many of them, from the first, go
 * together: up to the next line that starts with a dot. `*dot`: they start with the dot of such a
 * line, to be doubled or dropped. Any split into calls finds the same dots.
 */
SINGLE
size_t dot_walk_next(struct dot_walk *w, const unsigned char *data, size_t len, bool *dot);

/* Takes the dots of wire form out of a whole body, or of lines that begin it, in place. Returns
 * what is left of `len`. */
SINGLE
size_t dot_unstuff(char *data, size_t len);

/* Whether the bytes so far end in LF, or there were none. */
CONCURRENT
bool dot_walk_at_line_start(const struct dot_walk *w);
