#include "core/mail/context.h"

#include <string.h>

#include "core/mail/utf8.h"
#include "core/runtime/check.h"

/* How many of `len` bytes are whole characters. */
static size_t whole_characters(const char *text, size_t len, size_t max)
{
	size_t at = 0;

	if (len <= max) {
		return len;
	}
	while (at < max) {
		size_t n = utf8_sequence(text + at, len - at);

		n = n != 0 ? n : 1;
		if (at + n > max) {
			break;
		}
		at += n;
	}
	return at;
}

void context_add(struct context *c, const char *key, const char *value, size_t value_len,
		 size_t limit)
{
	size_t key_len = strlen(key);
	size_t room;
	size_t n;

	ASSERT(limit <= CONTEXT_MAX && key_len > 0);
	if (c->len + key_len + 3 > limit) {
		c->cut = true;
		return;
	}
	room = limit - c->len - key_len - 2;
	n = whole_characters(value, value_len, room < CONTEXT_VALUE_MAX ? room : CONTEXT_VALUE_MAX);
	c->cut |= n < value_len;
	memcpy(c->pairs + c->len, key, key_len + 1);
	memcpy(c->pairs + c->len + key_len + 1, value, n);
	c->len += (uint32_t)(key_len + n + 2);
	c->pairs[c->len - 1] = '\0';
	c->count++;
}

bool context_next(const char *pairs, size_t len, size_t *at, const char **key, const char **value)
{
	const char *end;

	if (*at >= len) {
		return false;
	}
	end = pairs + len;
	*key = pairs + *at;
	*value = memchr(*key, '\0', (size_t)(end - *key));
	if (*value == NULL || ++*value == end) {
		return false;
	}
	end = memchr(*value, '\0', (size_t)(end - *value));
	if (end == NULL) {
		return false;
	}
	*at = (size_t)(end + 1 - pairs);
	return true;
}

const char *context_find(const char *pairs, size_t len, const char *key)
{
	const char *found;
	const char *value;
	size_t at = 0;

	while (context_next(pairs, len, &at, &found, &value)) {
		if (strcmp(found, key) == 0) {
			return value;
		}
	}
	return NULL;
}

bool context_valid(const char *pairs, size_t len)
{
	const char *key;
	const char *value;
	size_t at = 0;

	while (context_next(pairs, len, &at, &key, &value)) {
		if (key[0] == '\0') {
			return false;
		}
	}
	return at == len;
}
