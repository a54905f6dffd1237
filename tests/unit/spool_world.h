/*
 * A spool with its writers in invoker mode, on a directory of its own, and a model of what was
 * asked of it and answered. The disk is simulated below the multiplexor: operations take place when
 * the test lets them, faults are put in, and at any moment the directory can be copied as a power
 * cut would leave it: what was synced is there, of the rest any sectors.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agents/spool_writer.h"
#include "core/runtime/runtime.h"
#include "spool/spool.h"
#include "tests/unit/spool_disk.h"

#define WORLD_WRITERS_MAX 4
#define WORLD_DELIVERIES_MAX 8

struct world;

/* ---- the model ---- */

enum model_state { MODEL_ASKED, MODEL_STORED, MODEL_REFUSED };

struct model_delivery {
	bool done_asked;
	bool done;
	uint16_t attempts_asked;
	uint16_t attempts;
	/* The state with so many attempts is held and goes elsewhere; 0: none does. */
	uint16_t ordered;
};

struct model_message {
	struct model_message *next;
	struct message_id id;
	enum model_state state;
	int error;
	uint32_t writer;
	uint32_t delivery_count;
	size_t body_bytes;
	enum envelope_durability durability;
	struct spool_entry *entry;
	/* Deliveries that the last start brought back, a bit for each. */
	uint8_t seen;
	struct model_delivery deliveries[WORLD_DELIVERIES_MAX];
};

/* A request under way. */
struct call {
	struct spool_request request;
	struct call *next;
	struct call *prev;
	struct world *world;
	struct model_message *model;
	uint32_t delivery;
	uint16_t attempts;
	bool done;
};

struct world {
	char path[256];
	struct spool_options options;
	struct spool_recovery found;
	struct spool *spool;
	struct runtime rt;
	struct spool_writer writers[WORLD_WRITERS_MAX];
	struct agent client;
	struct mail_pools pools;
	struct envelope_builder builder;
	/* NULL: the real multiplexor `backend`. */
	struct disk *disk;
	enum mux_backend backend;
	uint64_t now_ms;
	uint64_t next_id;
	struct model_message *messages;
	uint32_t message_count;
	uint32_t calls;
	/* What is stored from now on was promised before. */
	bool promised;
	struct call *first_call;
	uint64_t recovered;
	/* The last load gave an envelope. */
	bool loaded_envelope;
	/* Deliveries of refused messages that came back. */
	uint64_t resurrected;
	char errors[4096];
	bool expect_errors;
};

/* An empty directory under /tmp, and defaults: 1 MiB segments, one writer. `simulated`: a disk. */
struct world *world_new(bool simulated);
/* Opens the spool and starts the writers; what is recovered is checked against the model. */
void world_start(struct world *w);
/* Stops in order, closes. The model stays, for the next start. */
void world_stop(struct world *w);
/* The process ends here and now; the directory stays as it is. */
void world_kill(struct world *w);
/* The power is cut: the process ends, and the directory is what was durable, more or less. */
void world_power_cut(struct world *w);
void world_free(struct world *w);

void world_step(struct world *w, unsigned steps);
/* Until no request is under way; with a simulated disk at most 100 000 steps. */
void world_settle(struct world *w);
/* Steps until the segments are in order: no compaction, nothing to make free. */
void world_rest(struct world *w);

struct model_message *world_store(struct world *w, uint32_t deliveries, size_t body_bytes,
				  enum envelope_durability durability);
void world_done(struct world *w, struct model_message *m, uint32_t delivery);
void world_defer(struct world *w, struct model_message *m, uint32_t delivery, uint16_t attempts,
		 uint64_t due_ms);
/* The same, with an operator's orders: it is held, and goes by binding "other" to there.example. */
void world_order(struct world *w, struct model_message *m, uint32_t delivery, uint16_t attempts);
/* Reads envelope and body back and compares; the result. */
int world_load(struct world *w, struct model_message *m);
struct model_message *world_find(const struct world *w, const struct message_id *id);

/* Opens the spool in `path` as another program would, and checks that it holds what the model says:
 * everything that was answered, nothing that was undone. Messages found, or -1 and a line on
 * stderr. */
long world_check_copy(const struct world *w, const char *path);
/* The same for what a power cut would leave now. */
long world_check_power_cut(struct world *w);

uint64_t world_counter(const struct world *w, const char *name);
struct segment_store *world_store_of(struct world *w, uint32_t writer);
/* The deterministic body of a message. */
unsigned char world_body_byte(const struct message_id *id, size_t at);
