/*
 * Distinct error log: one entry for each distinct (code, text) with a count and the first and last
 * time, so that a storm of one error costs one counter and never fills a disk. One writer, the
 * agent that owns it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define ERRLOG_ENTRIES 256
#define ERRLOG_TEXT 232
#define ERRLOG_INDEX 512

BOUND
struct errlog_entry {
	uint64_t hash;
	uint64_t count;
	uint64_t first_ns;
	uint64_t last_ns;
	int code;
	char text[ERRLOG_TEXT];
};

BOUND
struct errlog {
	/* In order of first appearance. */
	struct errlog_entry *entries;
	uint32_t count;
	/* Open addressing by hash: number of the entry plus one, 0 is free. */
	uint16_t index[ERRLOG_INDEX];
	/* Errors that found ERRLOG_ENTRIES distinct ones already and were not kept. */
	uint64_t overflow;
	/* Told of each new distinct error, once; may be NULL. */
	void (*on_new)(void *context, const struct errlog_entry *entry);
	void *context;
};

SINGLE
int errlog_init(struct errlog *log);

/* Records an error at `wall_ns`. `code` is a negative errno or 0. The text should name what was
 * touched, not values that change each time. */
BOUND
void errlog_record(struct errlog *log, uint64_t wall_ns, int code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

SINGLE
void errlog_close(struct errlog *log);
