#include "core/runtime/errlog.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

_Static_assert((ERRLOG_INDEX & (ERRLOG_INDEX - 1)) == 0, "a mask finds the place");
_Static_assert(ERRLOG_INDEX > ERRLOG_ENTRIES, "probing always finds a free place");

int errlog_init(struct errlog *log)
{
	memset(log, 0, sizeof(*log));
	log->entries = calloc(ERRLOG_ENTRIES, sizeof(*log->entries));
	return log->entries == NULL ? -ENOMEM : 0;
}

static uint64_t hash_of(int code, const char *text)
{
	return fnv_text(FNV_START ^ (uint32_t)code, text);
}

/* The place in the index of the entry, or the free one where it would go. */
static uint16_t *find_place(struct errlog *log, uint64_t hash, int code, const char *text)
{
	uint32_t at = (uint32_t)hash & (ERRLOG_INDEX - 1);

	while (log->index[at] != 0) {
		const struct errlog_entry *e = &log->entries[log->index[at] - 1];

		if (e->hash == hash && e->code == code && strcmp(e->text, text) == 0) {
			break;
		}
		at = (at + 1) & (ERRLOG_INDEX - 1);
	}
	return &log->index[at];
}

static void add_entry(struct errlog *log, uint16_t *place, const struct errlog_entry *entry)
{
	if (log->count == ERRLOG_ENTRIES) {
		log->overflow++;
		return;
	}
	log->entries[log->count] = *entry;
	log->count++;
	*place = (uint16_t)log->count;
	if (log->on_new != NULL) {
		log->on_new(log->context, &log->entries[log->count - 1]);
	}
}

void errlog_record(struct errlog *log, uint64_t wall_ns, int code, const char *format, ...)
{
	struct errlog_entry new = {
		.count = 1, .first_ns = wall_ns, .last_ns = wall_ns, .code = code};
	struct errlog_entry *old;
	uint16_t *place;
	va_list args;

	ASSERT(log->entries != NULL);
	va_start(args, format);
	vsnprintf(new.text, sizeof(new.text), format, args);
	va_end(args);
	new.hash = hash_of(code, new.text);
	place = find_place(log, new.hash, code, new.text);
	if (*place == 0) {
		add_entry(log, place, &new);
		return;
	}
	old = &log->entries[*place - 1];
	old->count++;
	old->last_ns = wall_ns;
}

void errlog_close(struct errlog *log)
{
	free(log->entries);
	memset(log, 0, sizeof(*log));
}
