#include "listeners/http/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

#define FORMAT_MAX 4096
#define SIZE_FIRST 4096

void text_add(struct text *t, const char *data, size_t len)
{
	if (len == 0) {
		return;
	}
	if (t->len + len > t->size) {
		size_t size = t->size == 0 ? SIZE_FIRST : t->size;

		while (size < t->len + len) {
			size *= 2;
		}
		t->data = check_memory(realloc(t->data, size), "an answer");
		t->size = size;
	}
	memcpy(t->data + t->len, data, len);
	t->len += len;
}

void text_put(struct text *t, const char *string)
{
	text_add(t, string, strlen(string));
}

void text_format(struct text *t, const char *format, ...)
{
	char line[FORMAT_MAX];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	ASSERT(len >= 0);
	text_add(t, line, (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1);
}

void text_close(struct text *t)
{
	free(t->data);
	*t = (struct text){0};
}
