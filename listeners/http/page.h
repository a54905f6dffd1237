/*
 * What is at /: listeners/http/page.html, which the program has built in.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

CONCURRENT
const char *page_text(void);

/* Bytes. */
CONCURRENT
size_t page_size(void);
