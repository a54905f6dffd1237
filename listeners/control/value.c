#include "listeners/control/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/utf8.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

static json_t *made(json_t *value)
{
	if (value == NULL) {
		fatal("out of memory for the answer to a command");
	}
	return value;
}

json_t *value_object(void)
{
	return made(json_object());
}

json_t *value_array(void)
{
	return made(json_array());
}

void value_set(json_t *object, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, made(value)) != 0) {
		fatal("out of memory for the answer to a command");
	}
}

void value_set_number(json_t *object, const char *key, uint64_t number)
{
	value_set(object, key, json_integer((json_int_t)number));
}

double value_real(double number)
{
	return round(number * 1000) / 1000;
}

void value_set_real(json_t *object, const char *key, double number)
{
	value_set(object, key, json_real(value_real(number)));
}

void value_set_bool(json_t *object, const char *key, bool value)
{
	value_set(object, key, json_boolean(value));
}

void value_set_text(json_t *object, const char *key, const char *text)
{
	value_set(object, key, text != NULL ? value_text(text) : json_null());
}

void value_set_time(json_t *object, const char *key, uint64_t wall_ms)
{
	char text[CLOCK_UTC_TEXT];

	value_set_text(object, key, wall_ms != 0 ? clock_format_utc(wall_ms, text) : NULL);
}

json_t *value_text(const char *text)
{
	json_t *value = json_string(text);
	size_t len = strlen(text);
	char *clean;

	if (value != NULL) {
		return value;
	}
	clean = check_memory(malloc(len + 1), "the answer to a command");
	len = utf8_clean(text, len, "?", clean);
	value = made(json_stringn(clean, len));
	free(clean);
	return value;
}

void value_append(json_t *array, json_t *value)
{
	if (json_array_append_new(array, made(value)) != 0) {
		fatal("out of memory for the answer to a command");
	}
}

char *value_dump(const json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));

	if (text == NULL) {
		fatal("out of memory for the answer to a command");
	}
	return text;
}
