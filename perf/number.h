/*
 * Numbers in command lines, read strictly: the whole word, no sign, within a range.
 */
#pragma once

#include <stdint.h>

/*
 * Reads a decimal number of min to max; `k` and `m` at its end stand for 1024 and 1024 * 1024.
 * Returns 0, or -EINVAL when it is no such number, or -ERANGE.
 */
int number_parse(const char *word, uint64_t min, uint64_t max, uint64_t *value);

/* Reads a fraction such as 0.25, of 0 to max. Returns 0, -EINVAL or -ERANGE. */
int number_parse_real(const char *word, double max, double *value);
