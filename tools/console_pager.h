/*
 * Long answers of the interactive console, a page at a time: by $PAGER, or less.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Shows `len` bytes of `text` on standard output, which is a terminal: as it is when it fits on the
 * screen, or when there is no pager. An empty $PAGER is none. */
SINGLE
void pager_show(const char *text, size_t len);

/* Lines of a screen `columns` wide that `text` takes. */
CONCURRENT
size_t pager_lines(const char *text, size_t len, size_t columns);
