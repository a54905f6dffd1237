/*
 * Inside the simulated disk: what disk.c and the other disk_*.c share. Nobody else includes it.
 *
 * disk_pages.c   sparse content, by pages
 * disk_file.c    a file: its cache, its changes that are not durable yet, and what becomes of them
 * disk_dir.c     a directory: its names, in the same two forms; paths
 * disk_flight.c  operations that take their time
 * disk.c         disk.h: calls that take place at once, and the ends of lives
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/sim/disk.h"

#define DISK_PAGE 4096U
#define DISK_SECTOR 512U
#define DISK_NAME_MAX 255
#define DISK_FILE_MAX (UINT64_C(1) << 30)
/* A change that has not completed: no sync covers it. */
#define DISK_UNDER_WAY UINT64_MAX

struct disk_flight;

struct disk_page {
	/* NULL: zeros. */
	unsigned char *data;
	/* It takes up room on the disk, whether with zeros or not. */
	bool allocated;
};

struct disk_pages {
	struct disk_page *page;
	uint32_t room;
};

/* A change of a file that is in the cache and not yet durable. */
struct disk_record {
	struct disk_record *prev;
	struct disk_record *next;
	/* The file was given the size `offset`; otherwise bytes were written. */
	bool resize;
	/* Is to be settled by the sync at hand. */
	bool chosen;
	uint64_t offset;
	uint64_t len;
	/* Of the file's clock, when the write completed. */
	uint64_t stamp;
	/* Who stamps it, while the write is under way. */
	struct disk_record **owner;
	/* Bytes of `data`: `len` at first, or 0 for zeros. */
	uint64_t stored;
	unsigned char data[];
};

struct disk_entry {
	struct disk_entry *next;
	struct disk_node *node;
	char name[DISK_NAME_MAX + 1];
};

/* A name was given to `node`, or taken away (NULL); not yet durable. */
struct disk_change {
	struct disk_change *next;
	uint64_t stamp;
	struct disk_node *node;
	char name[DISK_NAME_MAX + 1];
};

struct disk_node {
	struct disk_node *prev;
	struct disk_node *next;
	uint64_t number;
	bool directory;
	mode_t mode;
	uint64_t modified_ns;
	/* Its first name, for what people read. */
	char name[32];

	/* Who refers to it: descriptors, operations under way, names that can be seen, and names
	 * that are durable or may become so. */
	unsigned held;
	unsigned flights;
	unsigned links;
	unsigned names;

	/* Changes that have completed; a sync covers those that it finds. */
	uint64_t clock;

	/* A file's. `allocated` pages are part of the disk's `used` while somebody can use them. */
	struct disk_pages cache;
	struct disk_pages durable;
	uint64_t size;
	uint64_t durable_size;
	uint64_t allocated;
	bool counted;
	/* A sync has failed: cache and durable content may differ without a record of it. */
	bool lost;
	struct disk_record *first;
	struct disk_record *last;

	/* A directory's. */
	struct disk_node *parent;
	struct disk_entry *entries;
	struct disk_entry *durable_entries;
	struct disk_change *changes;
};

struct disk {
	struct disk_faults faults;
	enum disk_direct direct;
	struct disk_node *root;
	/* All there are. */
	struct disk_node *nodes;
	struct disk_flight *flights;
	uint64_t numbers;
	/* Pages. */
	uint64_t used;
};

/* What becomes of changes that are not durable: all, none, or a part by lot. */
enum disk_lot { DISK_LOT_ALL, DISK_LOT_NONE, DISK_LOT_MIXED };

/* ---- disk.c ---- */

/* Draws a fault: never before the first life, and never when the world is calm. */
bool disk_fault(unsigned permille);
/* What a sync says that fails. */
int disk_draw_error(void);
enum disk_lot disk_draw_lot(void);
struct disk_node *disk_node_new(struct disk *d, bool directory, mode_t mode, const char *name);
/* After a reference was added or dropped: counts its pages or no more, frees what is unreferenced.
 */
void disk_node_update(struct disk *d, struct disk_node *n);
/* A sync that covers changes stamped up to `covers` ends: 0, or the error it says. */
int disk_node_sync(struct disk *d, struct disk_node *n, uint64_t covers);
/* Pages that can still be allocated. */
uint64_t disk_pages_left(const struct disk *d);

/* ---- disk_pages.c ---- */

/* `data` NULL: zeros. */
void disk_pages_write(struct disk_pages *p, uint64_t offset, const unsigned char *data,
		      uint64_t len);
void disk_pages_read(const struct disk_pages *p, uint64_t offset, unsigned char *out, uint64_t len);
/* Marks what `offset` and `len` touch as allocated, at most `limit` pages anew (`*taken`). Returns
 * how many bytes from `offset` on are allocated now. */
uint64_t disk_pages_reserve(struct disk_pages *p, uint64_t offset, uint64_t len, uint64_t limit,
			    uint64_t *taken);
/* All beyond `size` is zero and takes no room. Returns how many pages were allocated there. */
uint64_t disk_pages_cut(struct disk_pages *p, uint64_t size);
/* Makes the bytes of `p` those of `from`. */
void disk_pages_copy(struct disk_pages *p, const struct disk_pages *from);
/* The same for some of them. */
void disk_pages_copy_part(struct disk_pages *p, const struct disk_pages *from, uint64_t offset,
			  uint64_t len);
/* What has data is allocated. Returns how many pages are. */
uint64_t disk_pages_account(struct disk_pages *p);
void disk_pages_free(struct disk_pages *p);

/* ---- disk_file.c ---- */

/* Draws how a write of `len` bytes will go and takes the room for it: how many bytes of it are
 * written, a multiple of `unit` as `len` is, and `*result`, what it says. */
uint32_t disk_file_draw_write(struct disk *d, struct disk_node *n, uint64_t offset, uint32_t len,
			      uint32_t unit, int *result);
/* Into the cache, and to the changes that are not durable. `owner` NULL: completed; otherwise
 * `*owner` is set, until disk_file_complete() or until it is durable before that. */
void disk_file_write(struct disk *d, struct disk_node *n, uint64_t offset,
		     const unsigned char *data, uint64_t len, struct disk_record **owner);
/* The write that made these records has completed. */
void disk_file_complete(struct disk_node *n, struct disk_record **records, unsigned count);
int disk_file_read(const struct disk_node *n, uint64_t offset, void *out, uint64_t len);
/* The size is `size` from now on. */
void disk_file_resize(struct disk *d, struct disk_node *n, uint64_t size);
int disk_file_allocate(struct disk *d, struct disk_node *n, uint64_t offset, uint64_t len);
/* Decides what becomes of all changes stamped up to `covers`, for ever. */
void disk_file_settle(struct disk_node *n, uint64_t covers, enum disk_lot lot);
/* The synced write that made these records ends: decides what becomes of its sectors, with all that
 * is in them, and of nothing else. */
void disk_file_settle_write(struct disk_node *n, struct disk_record **records, unsigned count,
			    enum disk_lot lot);
/* What can be seen is what is durable. */
void disk_file_revert(struct disk_node *n);
void disk_file_free(struct disk_node *n);

/* ---- disk_dir.c ---- */

/* The directory that a path's last name is in, and that name ("." for the start of the path). */
int disk_dir_resolve(struct disk *d, struct disk_node *dir, const char *path,
		     struct disk_node **parent, char name[DISK_NAME_MAX + 1]);
/* NULL: not there. */
struct disk_node *disk_dir_find(struct disk_node *dir, const char *name);
void disk_dir_add(struct disk *d, struct disk_node *dir, const char *name, struct disk_node *n);
void disk_dir_remove(struct disk *d, struct disk_node *dir, const char *name);
/* As disk_file_settle(), for names. */
void disk_dir_settle(struct disk *d, struct disk_node *dir, uint64_t covers, enum disk_lot lot);
void disk_dir_revert(struct disk *d, struct disk_node *dir);
void disk_dir_free(struct disk *d, struct disk_node *dir);

/* ---- disk_flight.c ---- */

/* Drops what is under way: writes as far as they have come, a sync carried out or not. */
void disk_flights_drop(struct disk *d);
