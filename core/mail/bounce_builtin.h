/*
 * The shipped bounce rules as they were when the program was built: config/bounce_rules, byte by
 * byte.
 */
#pragma once

extern const char bounce_builtin[];
extern const char bounce_builtin_end[];
