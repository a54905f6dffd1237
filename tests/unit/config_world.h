/*
 * For tests of configurations: loads a text, says what is wrong with it; files in a working
 * directory of the program's own, which cmocka_run_group_tests() makes by enter_folder().
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"

static inline struct config *load(const char *text, char **errors)
{
	size_t size;
	FILE *out = open_memstream(errors, &size);
	assert_non_null(out);
	struct config *config = config_load_text("test.conf", text, strlen(text), out);
	fclose(out);
	return config;
}

static inline struct config *load_valid(const char *text)
{
	char *errors;
	struct config *config = load(text, &errors);
	if (config == NULL) {
		print_error("%s\n%s", text, errors);
	}
	assert_non_null(config);
	free(errors);
	return config;
}

static char folder[] = "/tmp/flywheel-config-XXXXXX";

static inline int enter_folder(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	assert_int_equal(chdir(folder), 0);
	return 0;
}

/* Whatever is in it. */
static inline int leave_folder(void **state)
{
	char command[64];
	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return chdir("/") != 0 || system(command) != 0 ? -1 : 0;
}

static inline void write_file(const char *name, const char *text)
{
	FILE *file = fopen(name, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static inline void write_key(const char *name, const char *pem)
{
	write_file(name, pem);
	assert_int_equal(chmod(name, 0640), 0);
}
