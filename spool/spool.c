#include "spool/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "spool/recovery.h"
#include "spool/store.h"

#define SPOOL_MAGIC 0x73706f6fU
#define LOCK_NAME "lock"
#define WRITERS_MAX 64

SINGLE
struct spool {
	uint32_t magic;
	struct spool_options options;
	char *path;
	int dir_fd;
	int lock_fd;
	uint64_t highest_id;
	struct segment_store *stores;
	struct agent **agents;
	/* A bit for each writer that cannot take new mail. */
	_Alignas(CACHE_LINE) _Atomic uint64_t full_bits;
};

static int complain(const char *path, int error, FILE *errors)
{
	const char *what = strerror(-error);

	if (error == -ENOTDIR) {
		what = "is not a directory";
	} else if (error == -EROFS) {
		what = "is on a read-only file system";
	} else if (error == -EACCES || error == -EPERM) {
		what = "no permission to read and write there";
	} else if (error == -ENOSPC || error == -EDQUOT) {
		what = "no space left on the file system";
	}
	fprintf(errors, "spool %s: %s\n", path, what);
	return error;
}

/* The name of the spool outlives a power cut, too. Where it was there before, the parent may be
 * one that must not be read: then whoever made the spool saw to it. */
static int sync_parent(const char *path, bool made)
{
	char *copy = strdup(path);
	int fd;
	int rc = 0;

	if (copy == NULL) {
		return -ENOMEM;
	}
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 ? made : fsync(fd) != 0 && errno != EINVAL && errno != EROFS) {
		rc = -errno;
	}
	if (fd >= 0) {
		close(fd);
	}
	free(copy);
	return rc;
}

static int open_directory(struct spool *s)
{
	bool made = !s->options.read_only && mkdir(s->path, 0700) == 0;

	if (!made && !s->options.read_only && errno != EEXIST && errno != EROFS) {
		return -errno;
	}
	s->dir_fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0) {
		return -errno;
	}
	return s->options.read_only ? 0 : sync_parent(s->path, made);
}

/* Who holds the lock, by what it wrote there; 0: unknown. */
static long lock_holder(int fd)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	return n > 0 ? strtol(text, NULL, 10) : 0;
}

static int lock(struct spool *s, FILE *errors)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[32];
	int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	s->lock_fd = openat(s->dir_fd, LOCK_NAME,
			    O_RDWR | O_CLOEXEC | (s->options.read_only ? 0 : O_CREAT), 0600);
	if (s->lock_fd < 0 && errno == ENOENT && s->options.read_only) {
		fprintf(errors, "spool %s: is no spool, it has no file \"" LOCK_NAME "\"\n",
			s->path);
		return -ENOENT;
	}
	if (s->lock_fd < 0) {
		return complain(s->path, -errno, errors);
	}
	if (fcntl(s->lock_fd, F_OFD_SETLK, &whole) != 0) {
		if (errno != EAGAIN && errno != EACCES) {
			return complain(s->path, -errno, errors);
		}
		fprintf(errors, "spool %s: in use by another process (number %ld)\n", s->path,
			lock_holder(s->lock_fd));
		return -EBUSY;
	}
	/* For people; on a full disk it has to go without. */
	if (ftruncate(s->lock_fd, 0) != 0 ||
	    pwrite(s->lock_fd, text, (size_t)len, 0) != (ssize_t)len) {
		errno = 0;
	}
	return 0;
}

static struct spool *spool_new(const struct spool_options *options)
{
	struct spool *s = check_memory(aligned_alloc(CACHE_LINE, sizeof(*s)), "the spool");

	memset(s, 0, sizeof(*s));
	s->magic = SPOOL_MAGIC;
	s->path = check_memory(strdup(options->path), "the spool");
	s->options = *options;
	s->options.path = s->path;
	s->dir_fd = -1;
	s->lock_fd = -1;
	s->stores = check_memory(calloc(options->writers, sizeof(*s->stores)), "the spool");
	s->agents = check_memory(calloc(options->writers, sizeof(struct agent *)), "the spool");
	return s;
}

struct spool *spool_open(const struct spool_options *options, FILE *errors,
			 struct spool_recovery *found)
{
	struct spool_recovery ignored;
	struct spool *s;
	int rc;

	ASSERT(options->writers > 0 && options->writers <= WRITERS_MAX);
	ASSERT(options->segment_bytes >= 1U << 20 && options->segment_bytes <= UINT64_C(1) << 32);
	ASSERT(options->segment_bytes % SEGMENT_BLOCK == 0);
	if (found == NULL) {
		found = &ignored;
	}
	memset(found, 0, sizeof(*found));
	s = spool_new(options);
	rc = open_directory(s);
	rc = rc != 0 ? complain(s->path, rc, errors) : lock(s, errors);
	for (uint32_t i = 0; i < options->writers; i++) {
		store_init(&s->stores[i], &s->options, i, s->dir_fd, &s->full_bits);
	}
	if (rc == 0) {
		rc = recovery_run(s->stores, &s->options, s->dir_fd, errors, found, &s->highest_id);
	}
	if (rc != 0) {
		spool_close(s);
		return NULL;
	}
	return s;
}

void spool_close(struct spool *s)
{
	CHECK_MAGIC(s, SPOOL_MAGIC);
	for (uint32_t i = 0; i < s->options.writers; i++) {
		store_close(&s->stores[i]);
	}
	if (s->dir_fd >= 0) {
		close(s->dir_fd);
	}
	if (s->lock_fd >= 0) {
		close(s->lock_fd);
	}
	free(s->stores);
	free(s->agents);
	free(s->path);
	s->magic = 0;
	free(s);
}

struct segment_store *spool_store(struct spool *s, uint32_t writer)
{
	CHECK_MAGIC(s, SPOOL_MAGIC);
	ASSERT(writer < s->options.writers);
	return &s->stores[writer];
}

void spool_set_writer(struct spool *s, uint32_t writer, struct agent *agent)
{
	spool_store(s, writer)->agent = agent;
	s->agents[writer] = agent;
}

uint32_t spool_writer_of(const struct spool *s, uint32_t id)
{
	return id % s->options.writers;
}

bool spool_full(const struct spool *s)
{
	return atomic_load_explicit(&s->full_bits, memory_order_relaxed) != 0;
}

const struct histogram *spool_commit_ns(const struct spool *s, uint32_t writer)
{
	ASSERT(writer < s->options.writers);
	return &s->stores[writer].stats.commit_ns;
}

const struct histogram *spool_batch_records(const struct spool *s, uint32_t writer)
{
	ASSERT(writer < s->options.writers);
	return &s->stores[writer].stats.batch_records;
}

uint32_t spool_writer_count(const struct spool *s)
{
	return s->options.writers;
}

uint64_t spool_highest_id(const struct spool *s)
{
	return s->highest_id;
}

/* On the writer's agent. */
static void take_request(struct agent *self, void *object, uint64_t value)
{
	struct spool *s = (struct spool *)(uintptr_t)value;
	struct spool_request *r = object;
	struct segment_store *store = spool_store(s, r->writer);

	ASSERT(store->agent == self);
	queue_push(r->verb == SPOOL_LOAD ? &store->loads : &store->queue, r);
}

void spool_submit(struct spool *s, struct agent *self, struct spool_request *r)
{
	CHECK_MAGIC(s, SPOOL_MAGIC);
	ASSERT(r->writer < s->options.writers && r->on_done != NULL);
	ASSERT(r->verb <= SPOOL_LOAD);
	ASSERT(r->verb != SPOOL_STORE || r->message != NULL);
	ASSERT((r->verb != SPOOL_STATE && r->verb != SPOOL_DONE) || r->entry != NULL);
	r->from = self;
	r->result = 0;
	agent_send(self, s->agents[r->writer], take_request, r, (uint64_t)(uintptr_t)s);
}
