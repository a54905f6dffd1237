#include "core/log/jlog_scan.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"

#define BUFFER_BYTES (128U << 10)

void jlog_scan_begin(struct jlog_scan *s, int fd, uint32_t log)
{
	*s = (struct jlog_scan){.fd = fd, .last = {.log = log}};
}

void jlog_scan_end(struct jlog_scan *s)
{
	free(s->buffer);
	*s = (struct jlog_scan){.fd = -1};
}

static int file_bytes(int fd, uint64_t *bytes)
{
	struct stat st;

	*bytes = 0;
	if (fstat(fd, &st) != 0) {
		return -errno;
	}
	*bytes = (uint64_t)st.st_size;
	return 0;
}

/* Returns how many bytes there were, up to `len`, or a negative errno. */
static ssize_t read_at(int fd, void *to, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)to + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return -errno;
		}
		if (n == 0) {
			break;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Makes `len` bytes from s->offset on stand in the buffer. Returns 1, 0 (the file has not got them)
 * or a negative errno. */
static int need(struct jlog_scan *s, size_t len)
{
	ssize_t n;

	if (s->offset >= s->at && s->offset + len <= s->at + s->filled) {
		return 1;
	}
	if (len > s->size) {
		size_t size = len > BUFFER_BYTES ? len : BUFFER_BYTES;

		free(s->buffer);
		s->buffer = check_memory(malloc(size), "a record of a journal");
		s->size = size;
	}
	s->at = s->offset;
	s->filled = 0;
	n = read_at(s->fd, s->buffer, s->size, s->at);
	if (n < 0) {
		return (int)n;
	}
	s->filled = (size_t)n;
	return s->filled >= len;
}

static int scan_next(struct jlog_scan *s, struct jlog_record *r)
{
	struct jlog_header h;
	uint64_t bytes;
	int rc = need(s, sizeof(h));

	if (rc <= 0) {
		return rc;
	}
	memcpy(&h, s->buffer + (s->offset - s->at), sizeof(h));
	if (h.magic != JLOG_MAGIC) {
		return -EBADMSG;
	}
	if (s->offset + sizeof(h) + h.len > s->at + s->filled) {
		/* No room is made for what a torn header promises. */
		rc = file_bytes(s->fd, &bytes);
		if (rc != 0 || s->offset + sizeof(h) + h.len > bytes) {
			return rc;
		}
		rc = need(s, sizeof(h) + h.len);
		if (rc <= 0) {
			return rc;
		}
	}
	s->last.marker++;
	*r = (struct jlog_record){
		.id = s->last,
		.wall_us = (uint64_t)h.seconds * 1000000 + h.microseconds,
		.data = s->buffer + (s->offset - s->at) + sizeof(h),
		.len = h.len,
	};
	s->offset += sizeof(h) + h.len;
	return 1;
}

int jlog_scan_next(struct jlog_scan *s, struct jlog_record *r)
{
	int rc = scan_next(s, r);

	/* What is not whole may be cut off, and something else be written there. */
	if (rc != 1) {
		s->filled = 0;
	}
	return rc;
}

/* Does a record of segment `fd` begin at `offset`? */
static bool plausible(int fd, uint64_t offset, uint64_t bytes)
{
	struct jlog_header h;
	uint32_t magic;
	uint64_t after;

	if (read_at(fd, &h, sizeof(h), offset) != sizeof(h) || h.magic != JLOG_MAGIC) {
		return false;
	}
	after = offset + sizeof(h) + h.len;
	if (after == bytes) {
		return true;
	}
	return after + sizeof(h) <= bytes &&
	       read_at(fd, &magic, sizeof(magic), after) == sizeof(magic) && magic == JLOG_MAGIC;
}

int jlog_scan_skip(struct jlog_scan *s)
{
	static const uint32_t magic = JLOG_MAGIC;
	unsigned char piece[16384];
	uint64_t bytes;
	uint64_t at = s->offset + 1;
	int rc = file_bytes(s->fd, &bytes);

	while (rc == 0 && at + sizeof(struct jlog_header) <= bytes) {
		ssize_t n = read_at(s->fd, piece, sizeof(piece), at);
		const unsigned char *found;

		if (n < (ssize_t)sizeof(magic)) {
			return n < 0 ? (int)n : 0;
		}
		found = memmem(piece, (size_t)n, &magic, sizeof(magic));
		if (found == NULL) {
			/* One may begin in the last three bytes. */
			at += (uint64_t)n - (sizeof(magic) - 1);
			continue;
		}
		at += (uint64_t)(found - piece);
		if (plausible(s->fd, at, bytes)) {
			s->skipped += at - s->offset;
			s->offset = at;
			return 1;
		}
		at++;
	}
	return rc;
}

int jlog_scan_next_closed(struct jlog_scan *s, struct jlog_record *r)
{
	for (;;) {
		int rc = jlog_scan_next(s, r);

		if (rc == 0 || rc == -EBADMSG) {
			rc = jlog_scan_skip(s);
			if (rc == 1) {
				continue;
			}
		}
		return rc;
	}
}
