/*
 * Hexadecimal digits.
 */
#pragma once

#include "core/runtime/thread_class.h"

/* By value, as we write them. */
#define HEX_DIGITS "0123456789abcdef"

/* Of a digit as we write it, in lower case: 0 to 15; -1 for anything else. */
CONCURRENT
static inline int hex_own_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The same of what others write, in either case. */
CONCURRENT
static inline int hex_value(char c)
{
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : hex_own_value(c);
}
