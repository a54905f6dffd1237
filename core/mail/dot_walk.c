#include "core/mail/dot_walk.h"

#include <string.h>

enum walk_state {
	/* After CR LF, or at the very start. */
	WALK_START,
	WALK_BARE_START,
	WALK_CR,
	WALK_LINE,
};

void dot_walk_init(struct dot_walk *w)
{
	w->state = WALK_START;
}

/* Where the first line starts that does so with a dot, behind a CR LF in `data`; else `len`. */
static size_t find_dotted_line(const unsigned char *data, size_t len)
{
	const unsigned char *end = data + len;
	const unsigned char *p = data;

	/* By lines: memmem() takes several times as long for so short a needle. */
	while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL && ++p < end) {
		if (*p == '.' && p - data > 1 && p[-2] == '\r') {
			return (size_t)(p - data);
		}
	}
	return len;
}

static uint8_t state_after(uint8_t before, const unsigned char *data, size_t len)
{
	bool after_cr = len > 1 ? data[len - 2] == '\r' : before == WALK_CR;

	if (data[len - 1] == '\n') {
		return after_cr ? WALK_START : WALK_BARE_START;
	}
	return data[len - 1] == '\r' ? WALK_CR : WALK_LINE;
}

size_t dot_walk_next(struct dot_walk *w, const unsigned char *data, size_t len, bool *dot)
{
	/* The LF of a CR that came before: a dot may follow it. */
	bool line_end = w->state == WALK_CR && data[0] == '\n';
	size_t n = line_end ? 1 : find_dotted_line(data, len);

	*dot = w->state == WALK_START && data[0] == '.';
	w->state = state_after(w->state, data, n);
	return n;
}

size_t dot_unstuff(char *data, size_t len)
{
	struct dot_walk walk;
	size_t to = 0;
	size_t n;

	dot_walk_init(&walk);
	for (size_t at = 0; at < len; at += n) {
		bool dot;

		n = dot_walk_next(&walk, (const unsigned char *)data + at, len - at, &dot);
		memmove(data + to, data + at + dot, n - dot);
		to += n - dot;
	}
	return to;
}

bool dot_walk_at_line_start(const struct dot_walk *w)
{
	return w->state == WALK_START || w->state == WALK_BARE_START;
}
