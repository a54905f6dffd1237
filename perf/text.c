#include "perf/text.h"

#include <assert.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void text_reserve(struct text *t, size_t more)
{
	size_t wanted = t->len + more;
	size_t capacity = t->capacity > 0 ? t->capacity : 256;

	if (wanted <= t->capacity) {
		return;
	}
	while (capacity < wanted) {
		capacity *= 2;
	}
	t->data = realloc(t->data, capacity);
	if (t->data == NULL) {
		err(2, "%zu bytes", capacity);
	}
	t->capacity = capacity;
}

void text_printf(struct text *t, const char *format, ...)
{
	va_list arguments;
	int len;

	va_start(arguments, format);
	len = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	assert(len >= 0);
	text_reserve(t, (size_t)len + 1);
	va_start(arguments, format);
	vsnprintf(t->data + t->len, (size_t)len + 1, format, arguments);
	va_end(arguments);
	t->len += (size_t)len;
}

void text_append_json(struct text *t, const char *value)
{
	text_append(t, "\"", 1);
	for (const char *p = value; *p != '\0'; p++) {
		unsigned char c = (unsigned char)*p;
		if (c == '"' || c == '\\') {
			text_printf(t, "\\%c", c);
		} else if (c < 0x20 || c > 0x7e) {
			text_printf(t, "\\u%04x", c);
		} else {
			text_append(t, p, 1);
		}
	}
	text_append(t, "\"", 1);
}

void text_append_number(struct text *t, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	text_append(t, digits + at, sizeof(digits) - at);
}

void text_consume(struct text *t, size_t count)
{
	assert(count <= t->len);
	t->len -= count;
	if (t->len > 0 && count > 0) {
		memmove(t->data, t->data + count, t->len);
	}
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int text_write_file(const struct text *t, const char *path)
{
	char temporary[PATH_MAX];
	int len = snprintf(temporary, sizeof(temporary), "%s.new", path);
	int fd;
	int rc;

	if (len < 0 || (size_t)len >= sizeof(temporary)) {
		return -ENAMETOOLONG;
	}
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		return -errno;
	}
	rc = write_all(fd, t->data, t->len);
	if (close(fd) != 0 && rc == 0) {
		rc = -errno;
	}
	if (rc == 0 && rename(temporary, path) != 0) {
		rc = -errno;
	}
	return rc;
}

void text_free(struct text *t)
{
	free(t->data);
	*t = (struct text){0};
}
