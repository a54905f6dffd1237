#include "core/log/destination.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 512

/* A path has one spelling, and does not leave the folder that it begins in. */
static bool is_crooked(const char *name)
{
	static const char *const bad[] = {"//", "/./", "/../"};
	char padded[NAME_MAX_BYTES + 3];

	snprintf(padded, sizeof(padded), "%s%s/", name[0] == '/' ? "" : "/", name);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (strstr(padded, bad[i]) != NULL) {
			return true;
		}
	}
	return false;
}

static const char *check_name(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || name[len - 1] == '/') {
		return "has no name";
	}
	if (len > NAME_MAX_BYTES) {
		return "is too long";
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)name[i] < ' ' || name[i] == 127) {
			return "has a control character";
		}
	}
	return is_crooked(name) ? "has \".\", \"..\" or \"//\" in its name" : NULL;
}

const char *log_destination_check(const char *text)
{
	const char *colon = strchr(text, ':');
	size_t len = colon != NULL ? (size_t)(colon + 1 - text) : 0;

	if (len != 5 || (strncmp(text, "file:", len) != 0 && strncmp(text, "json:", len) != 0 &&
			 strncmp(text, "jlog:", len) != 0)) {
		return "is of no kind that is known";
	}
	return check_name(colon + 1);
}

const char *log_destination_name(const char *text)
{
	return text + 5;
}
