#include "tests/sim/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/disk_node.h"
#include "tests/sim/world.h"

/* What a disk without a limit says that it has. */
#define ENDLESS_BYTES (UINT64_C(1) << 40)
#define ALL_STAMPS UINT64_MAX

/* ---- lots ---- */

bool disk_fault(unsigned permille)
{
	return world->life != 0 && !world->calm && world_chance(permille);
}

enum disk_lot disk_draw_lot(void)
{
	uint64_t way = world_below(8);

	return way == 0 ? DISK_LOT_ALL : way == 1 ? DISK_LOT_NONE : DISK_LOT_MIXED;
}

int disk_draw_error(void)
{
	return world_chance(250) ? -ENOSPC : -EIO;
}

/* ---- nodes ---- */

struct disk *disk_create(void)
{
	struct disk *d = world_alloc(sizeof(*d));

	d->faults = (struct disk_faults){
		.latency_min_ns = 20 * NS_PER_US,
		.latency_max_ns = 2 * NS_PER_MS,
		.capacity = UINT64_MAX,
	};
	d->root = disk_node_new(d, true, 0755, "sim");
	d->root->parent = d->root;
	d->root->links = 1;
	return d;
}

struct disk_faults *disk_faults(struct disk *d)
{
	return &d->faults;
}

void disk_set_direct(struct disk *d, enum disk_direct direct)
{
	d->direct = direct;
}

struct disk_node *disk_node_new(struct disk *d, bool directory, mode_t mode, const char *name)
{
	struct disk_node *n = world_alloc(sizeof(*n));

	n->number = ++d->numbers;
	n->directory = directory;
	n->mode = (directory ? S_IFDIR : S_IFREG) | (mode & 07777);
	n->modified_ns = world->now_ns;
	snprintf(n->name, sizeof(n->name), "%.*s", (int)sizeof(n->name) - 1, name);
	n->next = d->nodes;
	if (n->next != NULL) {
		n->next->prev = n;
	}
	d->nodes = n;
	return n;
}

static void node_free(struct disk *d, struct disk_node *n)
{
	if (n->prev == NULL) {
		d->nodes = n->next;
	} else {
		n->prev->next = n->next;
	}
	if (n->next != NULL) {
		n->next->prev = n->prev;
	}
	disk_dir_free(d, n);
	disk_file_free(n);
	world_free(n, sizeof(*n));
}

void disk_node_update(struct disk *d, struct disk_node *n)
{
	bool counted = n->held > 0 || n->flights > 0 || n->links > 0;

	if (counted != n->counted) {
		d->used = counted ? d->used + n->allocated : d->used - n->allocated;
		n->counted = counted;
	}
	if (!counted && n->names == 0) {
		node_free(d, n);
	}
}

uint64_t disk_pages_left(const struct disk *d)
{
	uint64_t pages = d->faults.capacity / DISK_PAGE;

	if (world->life == 0 || world->calm) {
		return UINT64_MAX;
	}
	return pages > d->used ? pages - d->used : 0;
}

/* ---- names ---- */

static int find(struct disk *d, struct disk_node *dir, const char *path, struct disk_node **out)
{
	char name[DISK_NAME_MAX + 1];
	struct disk_node *parent;
	int rc = disk_dir_resolve(d, dir, path, &parent, name);

	if (rc != 0) {
		return rc;
	}
	*out = disk_dir_find(parent, name);
	return *out != NULL ? 0 : -ENOENT;
}

static int create(struct disk *d, struct disk_node *dir, const char *name, bool directory,
		  mode_t mode, struct disk_node **out)
{
	if (disk_fault(d->faults.create_error)) {
		return disk_draw_error();
	}
	*out = disk_node_new(d, directory, mode, name);
	disk_dir_add(d, dir, name, *out);
	world_trace("disk create", (*out)->number, directory);
	return 0;
}

/* What open(2) says of a file that is there. */
static int open_found(struct disk *d, struct disk_node *n, int flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;

	if ((flags & O_DIRECT) != 0 && d->direct == DISK_DIRECT_NOT_OPENED) {
		return -EINVAL;
	}
	if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) {
		return -EEXIST;
	}
	if (n->directory && (writes || (flags & O_CREAT) != 0)) {
		return -EISDIR;
	}
	if (!n->directory && (flags & O_DIRECTORY) != 0) {
		return -ENOTDIR;
	}
	if ((flags & O_TRUNC) != 0 && writes) {
		disk_file_resize(d, n, 0);
	}
	return 0;
}

int disk_open(struct disk *d, struct disk_node *dir, const char *path, int flags, mode_t mode,
	      struct disk_node **out)
{
	char name[DISK_NAME_MAX + 1];
	struct disk_node *parent;
	struct disk_node *n;
	int rc = disk_dir_resolve(d, dir, path, &parent, name);

	if (rc != 0) {
		return rc;
	}
	n = disk_dir_find(parent, name);
	if (n != NULL) {
		rc = open_found(d, n, flags);
	} else if ((flags & O_CREAT) == 0) {
		rc = -ENOENT;
	} else {
		rc = create(d, parent, name, false, mode, &n);
	}
	if (rc == 0) {
		n->held++;
		disk_node_update(d, n);
		*out = n;
	}
	return rc;
}

void disk_release(struct disk *d, struct disk_node *n)
{
	ASSERT(n->held > 0);
	n->held--;
	disk_node_update(d, n);
}

int disk_mkdir(struct disk *d, const char *path, mode_t mode)
{
	char name[DISK_NAME_MAX + 1];
	struct disk_node *parent;
	struct disk_node *n;
	int rc = disk_dir_resolve(d, NULL, path, &parent, name);

	if (rc != 0) {
		return rc;
	}
	if (disk_dir_find(parent, name) != NULL) {
		return -EEXIST;
	}
	return create(d, parent, name, true, mode, &n);
}

int disk_unlink(struct disk *d, struct disk_node *dir, const char *path)
{
	char name[DISK_NAME_MAX + 1];
	struct disk_node *parent;
	struct disk_node *n;
	int rc = disk_dir_resolve(d, dir, path, &parent, name);

	if (rc != 0) {
		return rc;
	}
	n = disk_dir_find(parent, name);
	if (n == NULL || n->directory) {
		return n == NULL ? -ENOENT : -EISDIR;
	}
	if (disk_fault(d->faults.create_error)) {
		return -EIO;
	}
	world_trace("disk unlink", n->number, 0);
	disk_dir_remove(d, parent, name);
	return 0;
}

const char *disk_list(struct disk *d, struct disk_node *dir, unsigned index)
{
	const struct disk_entry *e = dir->entries;

	(void)d;
	while (e != NULL && index-- > 0) {
		e = e->next;
	}
	return e != NULL ? e->name : NULL;
}

/* ---- what is known of a node ---- */

int disk_fstat(struct disk *d, struct disk_node *n, struct stat *out)
{
	uint64_t ns = WORLD_EPOCH_NS + n->modified_ns;

	(void)d;
	memset(out, 0, sizeof(*out));
	out->st_ino = n->number;
	out->st_mode = n->mode;
	out->st_nlink = n->links;
	out->st_size = n->directory ? DISK_PAGE : (off_t)n->size;
	out->st_blksize = DISK_PAGE;
	out->st_blocks = (blkcnt_t)(n->allocated * (DISK_PAGE / 512));
	out->st_mtim.tv_sec = (time_t)(ns / NS_PER_S);
	out->st_mtim.tv_nsec = (long)(ns % NS_PER_S);
	out->st_ctim = out->st_mtim;
	out->st_atim = out->st_mtim;
	return 0;
}

int disk_stat(struct disk *d, const char *path, struct stat *out)
{
	struct disk_node *n;
	int rc = find(d, NULL, path, &n);

	return rc != 0 ? rc : disk_fstat(d, n, out);
}

int disk_statvfs(struct disk *d, struct statvfs *out)
{
	uint64_t left = disk_pages_left(d);

	memset(out, 0, sizeof(*out));
	out->f_bsize = DISK_PAGE;
	out->f_frsize = DISK_PAGE;
	out->f_bfree = left < ENDLESS_BYTES / DISK_PAGE ? left : ENDLESS_BYTES / DISK_PAGE;
	out->f_bavail = out->f_bfree;
	out->f_blocks = d->used + out->f_bfree;
	out->f_files = UINT32_MAX;
	out->f_ffree = UINT32_MAX;
	out->f_favail = UINT32_MAX;
	out->f_namemax = DISK_NAME_MAX;
	return 0;
}

/* ---- contents ---- */

int disk_truncate(struct disk *d, struct disk_node *n, uint64_t size)
{
	if (n->directory) {
		return -EISDIR;
	}
	if (size > DISK_FILE_MAX) {
		return -EFBIG;
	}
	if (disk_fault(d->faults.write_error)) {
		return -EIO;
	}
	disk_file_resize(d, n, size);
	world_trace("disk truncate", n->number, size);
	return 0;
}

int disk_allocate(struct disk *d, struct disk_node *n, uint64_t offset, uint64_t len)
{
	int rc;

	if (n->directory || len == 0) {
		return n->directory ? -EISDIR : -EINVAL;
	}
	if (disk_fault(d->faults.write_error)) {
		return disk_draw_error();
	}
	rc = disk_file_allocate(d, n, offset, len);
	world_trace("disk allocate", n->number, (uint64_t)(int64_t)rc);
	return rc;
}

ssize_t disk_read(struct disk *d, struct disk_node *n, void *data, size_t len, uint64_t offset)
{
	if (n->directory) {
		return -EISDIR;
	}
	if (disk_fault(d->faults.read_error)) {
		return -EIO;
	}
	return disk_file_read(n, offset, data, len);
}

ssize_t disk_write(struct disk *d, struct disk_node *n, const void *data, size_t len,
		   uint64_t offset)
{
	int result = 0;

	if (n->directory) {
		return -EISDIR;
	}
	ASSERT(len <= UINT32_MAX);
	if (len > 0) {
		uint32_t bytes = disk_file_draw_write(d, n, offset, (uint32_t)len, 1, &result);

		disk_file_write(d, n, offset, data, bytes, NULL);
	}
	world_trace("disk write", n->number, (uint64_t)(int64_t)result);
	return result;
}

int disk_node_sync(struct disk *d, struct disk_node *n, uint64_t covers)
{
	int result = disk_fault(d->faults.sync_error) ? disk_draw_error() : 0;
	enum disk_lot lot = result == 0 ? DISK_LOT_ALL : disk_draw_lot();

	if (n->directory) {
		disk_dir_settle(d, n, covers, lot);
	} else {
		disk_file_settle(n, covers, lot);
	}
	return result;
}

int disk_sync(struct disk *d, struct disk_node *n)
{
	int result = disk_node_sync(d, n, n->clock);

	world_trace("disk sync", n->number, (uint64_t)(int64_t)result);
	return result;
}

char *disk_content(struct disk *d, const char *path, size_t *len)
{
	struct disk_node *n;
	char *data;

	if (find(d, NULL, path, &n) != 0 || n->directory) {
		return NULL;
	}
	*len = n->size;
	data = world_alloc(n->size);
	disk_file_read(n, 0, data, n->size);
	return data;
}

/* ---- the end of a life ---- */

void disk_process_died(struct disk *d)
{
	struct disk_node *next;

	disk_flights_drop(d);
	for (struct disk_node *n = d->nodes; n != NULL; n = next) {
		next = n->next;
		if (n->held > 0) {
			n->held = 0;
			disk_node_update(d, n);
		}
	}
}

/* Nothing goes while this is being decided: each node is held. */
static void hold_all(struct disk *d)
{
	for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
		n->held++;
		disk_node_update(d, n);
	}
}

static void release_all(struct disk *d)
{
	struct disk_node *next;

	for (struct disk_node *n = d->nodes; n != NULL; n = next) {
		/* It may free others, which have been released before. */
		next = n->next;
		disk_release(d, n);
	}
}

static void cut_file(struct disk *d, struct disk_node *n, enum disk_lot lot)
{
	d->used -= n->allocated;
	disk_file_settle(n, ALL_STAMPS, lot);
	disk_file_revert(n);
	d->used += n->allocated;
	world_trace("disk cut", n->number, n->size);
}

void disk_power_cut(struct disk *d)
{
	enum disk_lot all = disk_draw_lot();

	ASSERT(d->flights == NULL);
	hold_all(d);
	for (struct disk_node *n = d->nodes; n != NULL; n = n->next) {
		enum disk_lot lot = all == DISK_LOT_MIXED ? disk_draw_lot() : all;

		if (n->directory) {
			disk_dir_settle(d, n, ALL_STAMPS, lot);
			disk_dir_revert(d, n);
		} else {
			cut_file(d, n, lot);
		}
	}
	release_all(d);
}

void disk_check_closed(struct disk *d)
{
	if (d->flights != NULL) {
		world_fail("the program stopped with disk operations under way");
	}
	for (const struct disk_node *n = d->nodes; n != NULL; n = n->next) {
		if (n->held > 0) {
			world_fail("the program stopped and left %s open", n->name);
		}
	}
}
