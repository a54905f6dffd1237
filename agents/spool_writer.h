/*
 * Spool writer: the IO agent. It owns a set of spool segments and group-commits: everything that
 * waits is gathered into one batch, written, synced once, and answered; the next batch starts as
 * soon as the last sync has returned.
 *
 * Start reading at spool_writer_do_work(), last in spool_writer.c.
 */
#pragma once

#include "core/mail/message.h"
#include "core/runtime/agent.h"
#include "spool/spool.h"

struct segment_store;

/* Where a recovered delivery goes: hand it to its home with agent_send() from `self`. */
typedef void (*spool_recovered_fn)(struct agent *self, void *context, struct delivery *delivery);

BOUND
struct spool_writer {
	struct agent base;
	struct spool *spool;
	uint32_t index;
	struct mail_pools pools;
	spool_recovered_fn on_recovered;
	void *context;
	/* Everything else is private to spool_writer.c and spool/. */
	struct spool_commit *commit;
};

/* Sets up writer `index` of `spool`; `name` is not copied. */
SINGLE
void spool_writer_init(struct spool_writer *w, const char *name, struct spool *spool,
		       uint32_t index, spool_recovered_fn on_recovered, void *context);
