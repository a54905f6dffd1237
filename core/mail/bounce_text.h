/*
 * Bounces that are written for people: who did not get the message, and why, as qmail, Exim,
 * Postfix, Sendmail, Exchange and others put it. Private to dsn_parse.c and its tests.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/mail/dsn_parse.h"

/* Recipients and reasons in `text`, to which `r` gets added. `failed`: addresses that are known to
 * have failed, separated by commas; NULL: none are. `from_daemon`: the message says that it comes
 * from a mail system; otherwise only a well-known phrase makes it a bounce. */
SINGLE
void bounce_text_parse(const char *text, const char *failed, bool from_daemon, struct report *r);

/* The first address in `text` (up to `len` bytes), without brackets; false when there is none. */
SINGLE
bool bounce_text_address(const char *text, size_t len, char address[ADDRESS_MAX + 1]);

/* Copies `len` bytes of `from` as one line: white space and control characters become one space.
 * NUL-terminated, cut at `size` - 1. */
SINGLE
void bounce_text_fold(const char *from, size_t len, char *to, size_t size);

/* Where they are not known yet, reply code and enhanced status are taken from the text. */
SINGLE
void bounce_text_codes(struct report_recipient *x);
