/*
 * What is at /: listeners/http/page.html, which the program has built in. It is one file and asks
 * for nothing but what this listener serves.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Bytes, with the NUL. */
#define PAGE_POLICY 512

CONCURRENT
const char *page_text(void);

/* Bytes. */
CONCURRENT
size_t page_size(void);

/* Its Content-Security-Policy (W3C CSP Level 3): the one style and the one script of the page,
 * known by their hashes, and requests to where it came from; nothing else. Text that becomes markup
 * or code is refused, too. */
CONCURRENT
void page_policy(char policy[PAGE_POLICY]);
