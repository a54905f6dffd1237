#include "perf/micro/disk.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/micro/micro.h"
#include "perf/random.h"

/* No device has seen these bytes before. */
static void fill(unsigned char *block, size_t bytes)
{
	uint64_t seed = 3;

	for (size_t i = 0; i < bytes; i++) {
		block[i] = (unsigned char)random_next(&seed);
	}
}

static void write_all(const struct disk_file *f, uint64_t offset, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pwrite(f->fd, f->block + done, bytes - done, (off_t)(offset + done));

		if (n <= 0) {
			err(2, "cannot write to %s", micro.directory);
		}
		done += (size_t)n;
	}
}

static void sync_all(const struct disk_file *f)
{
	if (fdatasync(f->fd) != 0) {
		err(2, "cannot sync in %s", micro.directory);
	}
}

void disk_open(struct disk_file *f, uint64_t size, size_t block_bytes)
{
	char path[4200];

	*f = (struct disk_file){.size = size, .block_bytes = block_bytes};
	f->block = malloc(block_bytes);
	if (f->block == NULL) {
		errx(2, "out of memory");
	}
	fill(f->block, block_bytes);
	snprintf(path, sizeof(path), "%s/bare", micro.directory);
	f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd < 0) {
		err(2, "%s", path);
	}
	unlink(path);
	for (uint64_t at = 0; at < size; at += block_bytes) {
		write_all(f, at, size - at < block_bytes ? (size_t)(size - at) : block_bytes);
	}
	if (fsync(f->fd) != 0) {
		err(2, "cannot sync in %s", micro.directory);
	}
}

void disk_commit(struct disk_file *f, size_t bytes)
{
	if (f->size - f->at < bytes) {
		f->at = 0;
	}
	write_all(f, f->at, bytes);
	f->at += bytes;
	sync_all(f);
}

void disk_close(struct disk_file *f)
{
	close(f->fd);
	free(f->block);
}
