/*
 * Bodies to measure with: printable lines of up to 76 characters in SMTP wire form, some of which
 * begin with a (stuffed) dot, after a short header. The same each time.
 */
#pragma once

#include <stddef.h>

/* Bytes of body that the measured mail has: "2k" and "10k" in the rows' names. */
#define BODY_2K 2048
#define BODY_10K 10240

/* Fills `len` bytes, 512 or more; the last are CR LF. Not the final dot. */
void body_fill(unsigned char *body, size_t len);
