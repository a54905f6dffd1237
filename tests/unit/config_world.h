/*
 * For tests of configurations in files: loads a text, says what is wrong with it, writes key files.
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

/* A key file in the working directory. */
static inline void write_key(const char *name, const char *pem)
{
	FILE *file = fopen(name, "w");
	assert_non_null(file);
	fputs(pem, file);
	fclose(file);
	assert_int_equal(chmod(name, 0640), 0);
}
