/*
 * What the SMTP listener counts, on each scheduler: one counter for each reason to refuse, each
 * limit and each way in which a session ends. Names and labels are in counts.c.
 */
#pragma once

#include "core/runtime/counter.h"
#include "core/runtime/thread_class.h"

enum smtp_count {
	SMTP_COUNT_SESSIONS,
	SMTP_COUNT_SESSIONS_OPEN,
	SMTP_COUNT_COMMANDS,
	SMTP_COUNT_ACCEPTED,
	SMTP_COUNT_REFUSED_SYNTAX,
	SMTP_COUNT_REFUSED_LONG_COMMAND,
	SMTP_COUNT_REFUSED_UNKNOWN,
	SMTP_COUNT_REFUSED_ORDER,
	SMTP_COUNT_REFUSED_ADDRESS,
	SMTP_COUNT_REFUSED_RELAY,
	SMTP_COUNT_REFUSED_RECIPIENTS,
	SMTP_COUNT_REFUSED_SIZE,
	SMTP_COUNT_REFUSED_NUL,
	SMTP_COUNT_REFUSED_BARE,
	SMTP_COUNT_REFUSED_LONG_LINE,
	SMTP_COUNT_REFUSED_LOOP,
	SMTP_COUNT_REFUSED_SPOOL_FULL,
	SMTP_COUNT_REFUSED_MEMORY,
	SMTP_COUNT_CROWDED_OUT,
	SMTP_COUNT_REFUSED_BUSY,
	SMTP_COUNT_REFUSED_STOPPING,
	SMTP_COUNT_STORE_FAILED,
	SMTP_COUNT_EARLY_TALKERS,
	SMTP_COUNT_EARLY_DATA,
	SMTP_COUNT_STARTTLS_INJECTION,
	SMTP_COUNT_TLS_12,
	SMTP_COUNT_TLS_13,
	SMTP_COUNT_TLS_RESUMED,
	SMTP_COUNT_TLS_FAILED,
	SMTP_COUNT_LIMIT_IDLE_COMMANDS,
	SMTP_COUNT_LIMIT_RECEPTIONS,
	SMTP_COUNT_TIMEOUT_IDLE,
	SMTP_COUNT_TIMEOUT_SESSION,
	SMTP_COUNT_TIMEOUT_CLOSING,
	SMTP_COUNT_LOST,
	SMTP_COUNT_LOST_STORING,
	SMTP_COUNT_OUTPUT_BLOCKED,
	SMTP_COUNT_PAUSED,
	SMTP_COUNTS
};

BOUND
struct smtp_counts {
	struct counter *of[SMTP_COUNTS];
};

/* Makes the counters in `set`, while the program is set up. */
SINGLE
void smtp_counts_create(struct smtp_counts *counts, struct counter_set *set);

static inline void smtp_count(struct smtp_counts *counts, enum smtp_count what)
{
	counter_inc(counts->of[what]);
}
