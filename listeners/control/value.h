/*
 * JSON values as answers have them. Keys are lower case with underscores and end in their unit:
 * _bytes, _s, _ms, _us, _ns, _per_s, and _at for a moment in ISO 8601. Running out of memory ends
 * the program.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* An empty object. */
SINGLE
json_t *value_object(void);

SINGLE
json_t *value_array(void);

/* Each sets `key` of an object. */
SINGLE
void value_set(json_t *object, const char *key, json_t *value);
SINGLE
void value_set_number(json_t *object, const char *key, uint64_t number);
/* Rounded to three decimals, as reals are in answers. */
READONLY
double value_real(double number);
SINGLE
void value_set_real(json_t *object, const char *key, double number);
SINGLE
void value_set_bool(json_t *object, const char *key, bool value);
/* Octets that are not UTF-8 become "?"; NULL becomes null. */
SINGLE
void value_set_text(json_t *object, const char *key, const char *text);
/* Wall clock, ms since 1970; 0 becomes null. */
SINGLE
void value_set_time(json_t *object, const char *key, uint64_t wall_ms);

SINGLE
json_t *value_text(const char *text);

/* Appends to an array. */
SINGLE
void value_append(json_t *array, json_t *value);

/* Compact text, without a newline; malloc. */
SINGLE
char *value_dump(const json_t *value);
