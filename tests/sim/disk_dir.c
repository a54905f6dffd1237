/*
 * A directory has the names that can be seen, the names that are durable, and between them a list
 * of changes. Each change becomes durable by itself: nothing says that they do so in order.
 */
#include <errno.h>
#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/disk_node.h"
#include "tests/sim/world.h"

#define ROOT "/sim"

/* ---- names ---- */

/* Where the name's entry hangs, or the end of the list. */
static struct disk_entry **entry_at(struct disk_entry **list, const char *name)
{
	while (*list != NULL && strcmp((*list)->name, name) != 0) {
		list = &(*list)->next;
	}
	return list;
}

static void entry_insert(struct disk_entry **at, const char *name, struct disk_node *n)
{
	struct disk_entry *e = world_alloc(sizeof(*e));

	strcpy(e->name, name);
	e->node = n;
	e->next = *at;
	*at = e;
}

static struct disk_node *entry_remove(struct disk_entry **at)
{
	struct disk_entry *e = *at;
	struct disk_node *n = e->node;

	*at = e->next;
	world_free(e, sizeof(*e));
	return n;
}

static void drop_name(struct disk *d, struct disk_node *n)
{
	n->names--;
	disk_node_update(d, n);
}

static void drop_link(struct disk *d, struct disk_node *n)
{
	n->links--;
	disk_node_update(d, n);
}

/* ---- durable ---- */

static void change_apply(struct disk *d, struct disk_node *dir, const struct disk_change *c)
{
	struct disk_entry **at = entry_at(&dir->durable_entries, c->name);

	if (*at != NULL) {
		drop_name(d, entry_remove(at));
	}
	if (c->node != NULL) {
		entry_insert(at, c->name, c->node);
		c->node->names++;
	}
}

static void change_drop(struct disk *d, struct disk_change **at)
{
	struct disk_change *c = *at;

	*at = c->next;
	if (c->node != NULL) {
		drop_name(d, c->node);
	}
	world_free(c, sizeof(*c));
}

void disk_dir_settle(struct disk *d, struct disk_node *dir, uint64_t covers, enum disk_lot lot)
{
	unsigned chance = 1000;

	if (lot != DISK_LOT_ALL) {
		chance = lot == DISK_LOT_NONE ? 0 : (unsigned)world_between(1, 999);
	}
	while (dir->changes != NULL && dir->changes->stamp <= covers) {
		if (world_chance(chance)) {
			change_apply(d, dir, dir->changes);
		}
		change_drop(d, &dir->changes);
	}
}

static void change_add(struct disk *d, struct disk_node *dir, const char *name, struct disk_node *n)
{
	struct disk_change *c = world_alloc(sizeof(*c));
	struct disk_change **at = &dir->changes;

	while (*at != NULL) {
		at = &(*at)->next;
	}
	strcpy(c->name, name);
	c->node = n;
	c->stamp = ++dir->clock;
	*at = c;
	dir->modified_ns = world->now_ns;
	if (n != NULL) {
		n->names++;
	}
	if (world->life == 0) {
		disk_dir_settle(d, dir, dir->clock, DISK_LOT_ALL);
	}
}

void disk_dir_revert(struct disk *d, struct disk_node *dir)
{
	struct disk_entry *old = dir->entries;
	struct disk_entry **at = &dir->entries;

	ASSERT(dir->changes == NULL);
	*at = NULL;
	for (const struct disk_entry *e = dir->durable_entries; e != NULL; e = e->next) {
		e->node->links++;
		disk_node_update(d, e->node);
		entry_insert(at, e->name, e->node);
		at = &(*at)->next;
	}
	while (old != NULL) {
		drop_link(d, entry_remove(&old));
	}
}

void disk_dir_free(struct disk *d, struct disk_node *dir)
{
	while (dir->changes != NULL) {
		change_drop(d, &dir->changes);
	}
	while (dir->entries != NULL) {
		drop_link(d, entry_remove(&dir->entries));
	}
	while (dir->durable_entries != NULL) {
		drop_name(d, entry_remove(&dir->durable_entries));
	}
}

/* ---- what can be seen ---- */

struct disk_node *disk_dir_find(struct disk_node *dir, const char *name)
{
	const struct disk_entry *e;

	if (strcmp(name, ".") == 0) {
		return dir;
	}
	if (strcmp(name, "..") == 0) {
		return dir->parent;
	}
	e = *entry_at(&dir->entries, name);
	return e != NULL ? e->node : NULL;
}

/* Anywhere among the others: a listing's order says nothing. */
void disk_dir_add(struct disk *d, struct disk_node *dir, const char *name, struct disk_node *n)
{
	struct disk_entry **at = &dir->entries;

	while (*at != NULL && world_chance(700)) {
		at = &(*at)->next;
	}
	entry_insert(at, name, n);
	n->links++;
	if (n->directory) {
		n->parent = dir;
	}
	change_add(d, dir, name, n);
	disk_node_update(d, n);
}

void disk_dir_remove(struct disk *d, struct disk_node *dir, const char *name)
{
	change_add(d, dir, name, NULL);
	drop_link(d, entry_remove(entry_at(&dir->entries, name)));
}

/* ---- paths ---- */

/* Cuts the next name off a path; false: there is none. */
static int next_name(const char **path, char name[DISK_NAME_MAX + 1])
{
	size_t len;

	*path += strspn(*path, "/");
	len = strcspn(*path, "/");
	if (len > DISK_NAME_MAX) {
		return -ENAMETOOLONG;
	}
	memcpy(name, *path, len);
	name[len] = '\0';
	*path += len;
	return len > 0;
}

int disk_dir_resolve(struct disk *d, struct disk_node *dir, const char *path,
		     struct disk_node **parent, char name[DISK_NAME_MAX + 1])
{
	size_t root = sizeof(ROOT) - 1;
	char following[DISK_NAME_MAX + 1];
	int rc;

	if (path[0] == '/') {
		if (strncmp(path, ROOT, root) != 0 || (path[root] != '/' && path[root] != '\0')) {
			return -ENOENT;
		}
		path += root;
		dir = d->root;
	} else if (path[0] == '\0') {
		return -ENOENT;
	}
	ASSERT(dir != NULL);
	strcpy(name, ".");
	while ((rc = next_name(&path, following)) > 0) {
		dir = disk_dir_find(dir, name);
		if (dir == NULL || !dir->directory) {
			return dir == NULL ? -ENOENT : -ENOTDIR;
		}
		strcpy(name, following);
	}
	*parent = dir;
	return rc;
}
