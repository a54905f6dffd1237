/*
 * A segment: one file of the spool, with a header block and then records, appended by one writer.
 * Here is what is known of it in memory, and what can be done to its file at once; what takes the
 * disk's time goes through the multiplexor (commit.c, upkeep.c, compaction.c).
 *
 * A segment may be given up (reused or unlinked) only when nothing in it is needed: no live
 * message, no delivery's latest state, and no tombstone of a message that is still on disk
 * elsewhere. For the last it keeps a set of the segments that it must outlive, `holds`, unless its
 * tombstones have been written again; and in `copies` those that have older copies of messages
 * copied to it. Both are always older in use, so there is no circle.
 *
 * Life: SPARE -> ACTIVE -> FULL -> SEALED -> RETIRING -> SPARE or gone; a failed write or sync
 * makes it ABANDONED: readable, never written or synced again, and unlinked once nothing in it is
 * needed.
 *
 * Start reading at struct segment.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/pool.h"
#include "core/runtime/thread_class.h"
#include "spool/record.h"

#define SEGMENT_NAME_MAX 24

enum segment_state {
	/* Empty, and ready for use. */
	SEGMENT_SPARE,
	/* Appended to. */
	SEGMENT_ACTIVE,
	/* No more appends; waits for its index to be written. */
	SEGMENT_FULL,
	SEGMENT_SEALED,
	SEGMENT_ABANDONED,
	/* Being made free on disk. */
	SEGMENT_RETIRING,
};

/* The index of a segment that has none on disk yet, as it will be written. */
#define INDEX_CHUNK_RECORDS 1638U

SINGLE
struct index_chunk {
	struct index_chunk *next;
	uint32_t count;
	uint32_t unused;
	struct index_record records[INDEX_CHUNK_RECORDS];
};

/* Segments by slot number (see segment_store). */
SINGLE
struct segment_set {
	uint64_t *words;
	uint32_t word_count;
	uint32_t count;
};

SINGLE
struct segment {
	uint32_t magic;
	enum segment_state state;
	uint32_t id;
	/* Random, and new with each use of the file: what was written to it before never matches,
	 * nor does a forged record inside of a message. 0: never used. */
	uint32_t generation;
	/* Place in segment_store.segments. */
	uint32_t slot;
	int fd;
	/* The same file with O_DIRECT, for durable writes and what is prepared. Open while it may
	 * be written to so; -1: not, or not possible. */
	int direct_fd;
	/* It turned out that direct_fd cannot be written to. */
	bool direct_refused;
	uint64_t size;
	/* Where the next record goes. */
	uint64_t end;
	/* Bytes from the start that have been written before, whole blocks; being extended while
	 * prepare_busy. */
	uint64_t prepared;
	bool prepare_busy;
	/* The header on disk does not say OPEN yet: the first batch writes it. */
	bool fresh;
	/* Batches staged or under way for it. */
	uint32_t batches;
	/* Who reads it now, or needs it to stay for another reason. */
	uint32_t pins;
	/* A read failed or its index is wrong: it is left alone. */
	bool stuck;
	/* Its name is gone, perhaps not for good: the directory's sync failed, and a later one that
	 * succeeds would not say more. */
	bool unlinked;
	/* An fsync of it failed, whoever asked for it. */
	bool sync_failed;
	/* Records were answered that no sync has covered: a durable write behind them does not. */
	bool unsynced;
	uint32_t live_messages;
	uint32_t live_states;
	uint64_t live_bytes;
	/* The segments whose dead messages have their tombstones here; and whether all those
	 * tombstones are in a newer segment too. */
	struct segment_set holds;
	bool tombs_moved;
	/* The segments with older copies of what is here. */
	struct segment_set copies;
	/* Records placed, staged ones included; and committed: those in the index. */
	uint32_t placed;
	uint32_t index_count;
	uint64_t index_offset;
	uint32_t index_crc;
	struct index_chunk *chunks;
	struct index_chunk *last_chunk;
	struct segment *next_spare;
};

#define SEGMENT_STRUCT_MAGIC 0x7365676dU

/* "seg-0000002a.fws" */
CONCURRENT
void segment_name(uint32_t id, char name[SEGMENT_NAME_MAX]);
/* True, and the id, when `name` is a segment's. */
CONCURRENT
bool segment_name_parse(const char *name, uint32_t *id);

/* Another generation. */
SINGLE
void segment_renew(struct segment *s);

/* A segment in memory, SPARE, without a file. Never NULL. */
SINGLE
struct segment *segment_new(uint32_t id, uint64_t size);
/* Closes its file and frees it. */
SINGLE
void segment_free(struct segment *s, struct pool *chunks);

/*
 * Makes the file of a new segment: created, its size reserved where the file system can, its header
 * (FREE) written and synced, and the directory synced. Blocks for that long.
 * 0 or a negative errno; then there is no file.
 */
SINGLE
int segment_create_file(struct segment *s, int dir_fd, uint32_t writer);

/*
 * Opens it for direct writes too, where the file system knows them: otherwise it is written to as
 * it is. Once is enough.
 */
SINGLE
void segment_open_direct(struct segment *s, int dir_fd);
/* No more direct writes; none is under way. */
SINGLE
void segment_close_direct(struct segment *s);
/* The descriptor for what is written in whole blocks, from aligned memory. */
static inline int segment_block_fd(const struct segment *s)
{
	return s->direct_fd >= 0 && !s->direct_refused ? s->direct_fd : s->fd;
}
/* A write of whole blocks to `fd` ended with `result`: true when that was a direct one which this
 * file system or disk does not take; it can be made again as another. */
SINGLE
bool segment_direct_refused(struct segment *s, int fd, int result);

static inline uint64_t segment_block_floor(uint64_t offset)
{
	return offset & ~(uint64_t)(SEGMENT_BLOCK - 1);
}
static inline uint64_t segment_block_ceil(uint64_t offset)
{
	return segment_block_floor(offset + SEGMENT_BLOCK - 1);
}

/* Unlinks the file and syncs the directory. Blocks. 0 or a negative errno; not again after an error
 * that left s->unlinked true. */
SINGLE
int segment_unlink(struct segment *s, int dir_fd);

/* Fills `block` with the header that says `state`. */
SINGLE
void segment_encode_header(const struct segment *s, uint32_t writer, enum segment_disk_state state,
			   unsigned char block[SEGMENT_BLOCK]);

/* Reads all of `len` bytes. 0, -ENODATA when the file ends before, or a negative errno. Blocks. */
SINGLE
int segment_read(const struct segment *s, uint64_t offset, void *to, size_t len);
/* Writes all of `len` bytes. 0 or a negative errno. Blocks. */
SINGLE
int segment_write(const struct segment *s, uint64_t offset, const void *from, size_t len);

/* Has it room for a record of `bytes`, its share of the index, and `reserve` besides? */
SINGLE
bool segment_fits(const struct segment *s, uint64_t bytes, uint64_t reserve);

/* The file size that a segment needs to hold one record of `bytes`. */
CONCURRENT
uint64_t segment_size_for(uint64_t bytes);

/* One more record for the index that will end it. */
SINGLE
void segment_index_add(struct segment *s, struct pool *chunks, const struct index_record *r);
SINGLE
void segment_index_drop(struct segment *s, struct pool *chunks);
/* The start of the index as it goes to the disk: header and head. */
#define SEGMENT_INDEX_HEAD (sizeof(struct record_header) + sizeof(struct record_index))
SINGLE
void segment_index_head(const struct segment *s, uint64_t sequence,
			unsigned char head[SEGMENT_INDEX_HEAD]);

static inline uint64_t segment_index_bytes(uint32_t count)
{
	return SEGMENT_INDEX_HEAD + (uint64_t)count * sizeof(struct index_record);
}

/*
 * Reads the index of a sealed segment from its file; its chunks stay as they are. `*records` is the
 * caller's to free, NULL after an error; `*sequence` is set once the index's head is known to be
 * right. 0, -EBADMSG when it is damaged, -ENODATA when the file ends before, or a negative errno.
 * Blocks.
 */
SINGLE
int segment_read_index(const struct segment *s, struct index_record **records, uint32_t *count,
		       uint64_t *sequence);

/* True when `slot` was not in it. */
SINGLE
bool segment_set_add(struct segment_set *set, uint32_t slot);
SINGLE
bool segment_set_remove(struct segment_set *set, uint32_t slot);
SINGLE
bool segment_set_has(const struct segment_set *set, uint32_t slot);
SINGLE
void segment_set_clear(struct segment_set *set);

/* Needed by nothing but segments that it must outlive. */
static inline bool segment_dead(const struct segment *s)
{
	return s->live_messages == 0 && s->live_states == 0;
}
