/*
 * Scripts of a generation: read and compiled once, then loaded by the state of each scheduler.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/runtime/thread_class.h"

#define POLICY_DIGEST 32
/* Largest script, bytes. */
#define POLICY_SCRIPT_MAX (UINT32_C(4) << 20)
#define POLICY_WHY 512

READONLY
struct policy_script {
	/* As the configuration calls it; as errors name it. */
	char *name;
	char *path;
	/* Bytecode with its lines. */
	char *code;
	size_t code_len;
};

READONLY
struct policy_scripts {
	struct policy_script *list;
	uint32_t count;
	/* Of their names, paths and texts, in order: SHA-256. Zeros when there are none. */
	unsigned char digest[POLICY_DIGEST];
};

/* Reads and compiles the file `path` (may block) and adds it as `name`. 0, or a negative errno, and
 * `why` says file:line: what is wrong. */
SINGLE
int policy_scripts_add(struct policy_scripts *s, const char *name, const char *path,
		       char why[POLICY_WHY]);

SINGLE
void policy_scripts_close(struct policy_scripts *s);
