#include "spool/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"

void segment_name(uint32_t id, char name[SEGMENT_NAME_MAX])
{
	snprintf(name, SEGMENT_NAME_MAX, "seg-%08x.fws", id);
}

bool segment_name_parse(const char *name, uint32_t *id)
{
	char again[SEGMENT_NAME_MAX];
	unsigned value;

	if (sscanf(name, "seg-%8x.fws", &value) != 1) {
		return false;
	}
	segment_name(value, again);
	*id = value;
	return strcmp(again, name) == 0;
}

struct segment *segment_new(uint32_t id, uint64_t size)
{
	struct segment *s = check_memory(calloc(1, sizeof(*s)), "the spool");

	s->magic = SEGMENT_STRUCT_MAGIC;
	s->state = SEGMENT_SPARE;
	s->id = id;
	s->size = size;
	s->end = SEGMENT_BLOCK;
	s->prepared = SEGMENT_BLOCK;
	s->fresh = true;
	s->fd = -1;
	s->direct_fd = -1;
	return s;
}

void segment_free(struct segment *s, struct pool *chunks)
{
	CHECK_MAGIC(s, SEGMENT_STRUCT_MAGIC);
	segment_index_drop(s, chunks);
	free(s->holds.words);
	free(s->copies.words);
	segment_close_direct(s);
	if (s->fd >= 0) {
		close(s->fd);
	}
	s->magic = 0;
	free(s);
}

/* A new file's blocks: reserved where the file system can do that, so that a full disk is found now
 * and not when a tombstone has to be written. */
static int reserve(int fd, uint64_t size)
{
	if (fallocate(fd, 0, 0, (off_t)size) == 0) {
		return 0;
	}
	if (errno != EOPNOTSUPP && errno != ENOSYS) {
		return -errno;
	}
	return ftruncate(fd, (off_t)size) == 0 ? 0 : -errno;
}

void segment_renew(struct segment *s)
{
	uint32_t before = s->generation;

	while (s->generation == before || s->generation == 0) {
		if (getrandom(&s->generation, sizeof(s->generation), 0) !=
		    (ssize_t)sizeof(s->generation)) {
			s->generation = before + 1;
		}
	}
}

static int sync_directory(int dir_fd)
{
	return fsync(dir_fd) == 0 ? 0 : -errno;
}

int segment_create_file(struct segment *s, int dir_fd, uint32_t writer)
{
	unsigned char block[SEGMENT_BLOCK];
	char name[SEGMENT_NAME_MAX];
	int rc;

	ASSERT(s->fd < 0);
	segment_name(s->id, name);
	s->fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->fd < 0) {
		return -errno;
	}
	segment_encode_header(s, writer, SEGMENT_DISK_FREE, block);
	rc = reserve(s->fd, s->size);
	if (rc == 0) {
		rc = segment_write(s, 0, block, sizeof(block));
	}
	if (rc == 0 && fdatasync(s->fd) != 0) {
		rc = -errno;
	}
	if (rc == 0) {
		rc = sync_directory(dir_fd);
	}
	if (rc != 0) {
		close(s->fd);
		s->fd = -1;
		unlinkat(dir_fd, name, 0);
	}
	return rc;
}

void segment_open_direct(struct segment *s, int dir_fd)
{
	char name[SEGMENT_NAME_MAX];

	if (s->direct_fd < 0) {
		segment_name(s->id, name);
		s->direct_fd = openat(dir_fd, name, O_WRONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
	}
}

void segment_close_direct(struct segment *s)
{
	if (s->direct_fd >= 0) {
		close(s->direct_fd);
		s->direct_fd = -1;
	}
}

/* EINVAL: blocks larger than ours, perhaps. */
bool segment_direct_refused(struct segment *s, int fd, int result)
{
	bool refused = result == -EINVAL && fd == s->direct_fd;

	s->direct_refused |= refused;
	return refused;
}

int segment_unlink(struct segment *s, int dir_fd)
{
	char name[SEGMENT_NAME_MAX];

	ASSERT(!s->unlinked);
	segment_name(s->id, name);
	if (unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT) {
		return -errno;
	}
	s->unlinked = true;
	return sync_directory(dir_fd);
}

void segment_encode_header(const struct segment *s, uint32_t writer, enum segment_disk_state state,
			   unsigned char block[SEGMENT_BLOCK])
{
	struct segment_header h = {
		.state = (uint16_t)state,
		.id = s->id,
		.generation = s->generation,
		.writer = writer,
		.size = s->size,
		.prepared = s->prepared,
		.index_offset = state == SEGMENT_DISK_SEALED ? s->index_offset : 0,
	};

	segment_header_encode(block, &h);
}

int segment_read(const struct segment *s, uint64_t offset, void *to, size_t len)
{
	unsigned char *at = to;

	while (len > 0) {
		ssize_t n = pread(s->fd, at, len, (off_t)offset);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n == 0 ? -ENODATA : -errno;
		}
		at += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int segment_write(const struct segment *s, uint64_t offset, const void *from, size_t len)
{
	const unsigned char *at = from;

	while (len > 0) {
		ssize_t n = pwrite(s->fd, at, len, (off_t)offset);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n == 0 ? -EIO : -errno;
		}
		at += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

bool segment_fits(const struct segment *s, uint64_t bytes, uint64_t reserve_bytes)
{
	return s->end + bytes + segment_index_bytes(s->placed + 1) + reserve_bytes <= s->size;
}

uint64_t segment_size_for(uint64_t bytes)
{
	return SEGMENT_BLOCK + bytes + segment_index_bytes(64) + SEGMENT_BLOCK;
}

void segment_index_add(struct segment *s, struct pool *chunks, const struct index_record *r)
{
	struct index_chunk *chunk = s->last_chunk;

	if (chunk == NULL || chunk->count == INDEX_CHUNK_RECORDS) {
		chunk = pool_get(chunks);
		chunk->next = NULL;
		chunk->count = 0;
		if (s->last_chunk == NULL) {
			s->chunks = chunk;
		} else {
			s->last_chunk->next = chunk;
		}
		s->last_chunk = chunk;
	}
	chunk->records[chunk->count++] = *r;
	s->index_crc = record_crc(s->index_crc, r, sizeof(*r));
	s->index_count++;
}

void segment_index_drop(struct segment *s, struct pool *chunks)
{
	while (s->chunks != NULL) {
		struct index_chunk *chunk = s->chunks;

		s->chunks = chunk->next;
		pool_put(chunks, chunk);
	}
	s->last_chunk = NULL;
}

void segment_index_head(const struct segment *s, uint64_t sequence,
			unsigned char head[SEGMENT_INDEX_HEAD])
{
	struct record_index index = {.crc = s->index_crc, .count = s->index_count};
	struct record_header h = {
		.magic = RECORD_MAGIC,
		.length = (uint32_t)(segment_index_bytes(s->index_count) - sizeof(h)),
		.head_bytes = sizeof(index),
		.type = RECORD_INDEX,
		.segment = s->id,
		.generation = s->generation,
		.sequence = sequence,
	};

	record_seal(&h, &index);
	memcpy(head, &h, sizeof(h));
	memcpy(head + sizeof(h), &index, sizeof(index));
}

int segment_read_index(const struct segment *s, struct index_record **records, uint32_t *count,
		       uint64_t *sequence)
{
	unsigned char head[SEGMENT_INDEX_HEAD];
	struct record_header h;
	struct record_index index;
	int rc = segment_read(s, s->index_offset, head, sizeof(head));

	*records = NULL;
	if (rc != 0) {
		return rc;
	}
	memcpy(&h, head, sizeof(h));
	memcpy(&index, head + sizeof(h), sizeof(index));
	if (!record_plausible(&h, s->id, s->generation, s->size - s->index_offset) ||
	    h.type != RECORD_INDEX || !record_head_ok(&h, &index) ||
	    h.length != segment_index_bytes(index.count) - sizeof(h)) {
		return -EBADMSG;
	}
	*sequence = h.sequence;
	*records = check_memory(malloc((index.count + 1) * sizeof(**records)), "the spool");
	rc = segment_read(s, s->index_offset + sizeof(head), *records,
			  index.count * sizeof(**records));
	if (rc == 0 && record_crc(0, *records, index.count * sizeof(**records)) != index.crc) {
		rc = -EBADMSG;
	}
	if (rc != 0) {
		free(*records);
		*records = NULL;
	}
	*count = index.count;
	return rc;
}

bool segment_set_has(const struct segment_set *set, uint32_t slot)
{
	uint32_t word = slot / 64;

	return word < set->word_count && (set->words[word] >> (slot % 64) & 1U) != 0;
}

bool segment_set_add(struct segment_set *set, uint32_t slot)
{
	uint32_t word = slot / 64;

	if (segment_set_has(set, slot)) {
		return false;
	}
	if (word >= set->word_count) {
		uint64_t *words =
			check_memory(realloc(set->words, (word + 1) * sizeof(*words)), "the spool");

		memset(words + set->word_count, 0, (word + 1 - set->word_count) * sizeof(*words));
		set->words = words;
		set->word_count = word + 1;
	}
	set->words[word] |= UINT64_C(1) << (slot % 64);
	set->count++;
	return true;
}

bool segment_set_remove(struct segment_set *set, uint32_t slot)
{
	if (!segment_set_has(set, slot)) {
		return false;
	}
	set->words[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
	set->count--;
	return true;
}

void segment_set_clear(struct segment_set *set)
{
	for (uint32_t i = 0; i < set->word_count; i++) {
		set->words[i] = 0;
	}
	set->count = 0;
}
