/*
 * A file that is rotated is renamed, and a new one opened, between two writes that both end with a
 * whole record; so no line is lost, split or repeated. What is then done with the old one is a pass
 * of its archive, which runs on the thread pool.
 */
#include "agents/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agents/thread_pool.h"
#include "core/runtime/check.h"

/* Buffers given to one writev. */
#define GATHER_PIECES 16
/* A rotation that was due and failed, and a pass that failed, are tried again after so long. */
#define ROTATION_RETRY_MS 1000
#define PASS_RETRY_MS 60000
/* The wall clock may jump: it is looked at so often. */
#define CLOCK_LOOK_MS 60000
#define MODE_NEW 0644

BOUND
struct log_file {
	struct log_output base;
	int fd;
	/* The file ends in a part of a line: the program was killed while it wrote. */
	bool torn;
	/* A plain file, not a device or a link to somewhere else. */
	bool regular;
	/* Bytes of the file, and when that was written which was found in it, UNIX seconds; 0: it
	 * was empty. */
	uint64_t size;
	int64_t found_s;

	struct log_schedule schedule;
	bool scheduled;
	/* To be rotated when the record is whole that is being written. */
	bool rotate;
	/* A rotation that was due has failed: not before that again. */
	uint64_t rotate_ms;

	struct log_archive archive;
	/* The archive is to be gone through, but not before `pass_ms`. */
	bool pass_wanted;
	uint64_t pass_ms;
	/* The number of the archive's file that is still being written, as no new one could be
	 * opened; UINT64_MAX: none is. */
	uint64_t stuck;
	struct job job;
	/* The job's result. */
	bool pass_over;
	struct log_archive_report report;

	struct counter *rotations;
	struct counter *rotation_errors;
	struct counter *compressed_files;
	struct counter *compressed_bytes;
	struct counter *removed_files;
	struct counter *archive_errors;
};

static struct log_file *log_file_of(struct log_output *o)
{
	return CONTAINER_OF(o, struct log_file, base);
}

static void log_file_frame(struct log_output *o, char *record, size_t len)
{
	(void)o;
	record[len] = '\n';
}

/* ---- the file ---- */

/* Does the file end in the middle of a line? `size` is more than 0. */
static bool ends_torn(const char *path, off_t size)
{
	char last = '\n';
	int reader = open(path, O_RDONLY | O_CLOEXEC);

	if (reader < 0) {
		return false;
	}
	if (pread(reader, &last, 1, size - 1) != 1) {
		last = '\n';
	}
	close(reader);
	return last != '\n';
}

static int open_file(struct log_file *f)
{
	const char *path = f->base.path;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, MODE_NEW);
	struct stat st;
	struct stat link;

	if (fd < 0) {
		return -errno;
	}
	f->fd = fd;
	f->size = 0;
	f->found_s = 0;
	f->torn = false;
	f->regular = false;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
		f->size = (uint64_t)st.st_size;
		f->found_s = st.st_mtim.tv_sec;
		f->torn = ends_torn(path, st.st_size);
	}
	if (lstat(path, &link) == 0) {
		f->regular = S_ISREG(link.st_mode);
	}
	return 0;
}

static int log_file_reopen(struct log_output *o)
{
	struct log_file *f = log_file_of(o);
	int old = f->fd;
	int rc = open_file(f);

	if (rc == 0) {
		close(old);
		f->scheduled = false;
		f->rotate = false;
		f->pass_wanted = f->pass_wanted || f->stuck != UINT64_MAX;
		f->stuck = UINT64_MAX;
	}
	return rc;
}

/* What the next line begins with must not be taken for the rest of the last one. 0 or a negative
 * errno.
 */
static int end_torn_line(struct log_file *f)
{
	if (f->torn) {
		if (write(f->fd, "\n", 1) != 1) {
			return -errno;
		}
		f->torn = false;
		f->size++;
	}
	return 0;
}

/* ---- rotation ---- */

/* Is what is called `path` the open file? Somebody else may have moved it. */
static bool is_in_place(const struct log_file *f)
{
	struct stat there;
	struct stat here;

	return lstat(f->base.path, &there) == 0 && fstat(f->fd, &here) == 0 &&
	       there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

/* The new file may be read by those who might read the old one. */
static void copy_mode(int from, int to)
{
	struct stat st;

	if (fstat(from, &st) == 0 && (st.st_mode & 0777) != MODE_NEW) {
		fchmod(to, st.st_mode & 0777);
	}
}

/* The file has been moved to the archive: opens a new one, or moves it back. 0 or a negative errno.
 */
static int replace_file(struct log_file *f, uint64_t now_ms)
{
	int old = f->fd;
	int rc = open_file(f);

	if (rc == 0) {
		copy_mode(old, f->fd);
		close(old);
		return 0;
	}
	if (log_archive_undo(&f->archive) != 0) {
		f->stuck = f->archive.next_number - 1;
		f->base.reopen = true;
		f->base.retry_ms = now_ms + ROTATION_RETRY_MS;
	}
	return rc;
}

static int rotate_file(struct log_file *f, uint64_t now_ms)
{
	int64_t now_s = (int64_t)(agent_wall_ms(f->base.host->agent) / 1000);
	int rc;

	f->rotate = false;
	if (!is_in_place(f)) {
		log_output_reopen(&f->base, now_ms);
		return f->base.reopen ? -ENOENT : -ESTALE;
	}
	rc = end_torn_line(f);
	if (rc == 0) {
		rc = log_archive_add(&f->archive, now_s);
	}
	if (rc == 0) {
		rc = replace_file(f, now_ms);
	}
	if (rc == 0) {
		f->base.rotated = f->archive.last;
		counter_inc(f->rotations);
		log_schedule_next(&f->schedule, now_s);
		f->pass_wanted = true;
		return 0;
	}
	counter_inc(f->rotation_errors);
	agent_error(f->base.host->agent, rc,
		    "cannot rotate log file %s: %s; it is written as before", f->base.path,
		    strerror(-rc));
	return rc;
}

static int log_file_rotate(struct log_output *o, uint64_t now_ms)
{
	struct log_file *f = log_file_of(o);

	if (!f->regular) {
		return -ENOTSUP;
	}
	if (f->size == 0) {
		return -ENODATA;
	}
	if (log_output_in_record(o)) {
		f->rotate = true;
		return -EAGAIN;
	}
	return rotate_file(f, now_ms);
}

/* It is due: does it unless that failed just now. */
static void rotate_due(struct log_file *f, uint64_t now_ms)
{
	int rc;

	if (now_ms < f->rotate_ms) {
		return;
	}
	rc = log_file_rotate(&f->base, now_ms);
	f->rotate_ms = rc == 0 || rc == -ENODATA || rc == -EAGAIN || rc == -ESTALE
			       ? 0
			       : now_ms + ROTATION_RETRY_MS;
}

/* Is it time? An empty file is left alone until there is something in it. */
static bool is_time(struct log_file *f)
{
	int64_t now_s = (int64_t)(agent_wall_ms(f->base.host->agent) / 1000);
	bool due;

	if (!f->scheduled) {
		log_schedule_start(&f->schedule, f->base.host->rotation.period,
				   f->found_s != 0 ? f->found_s : now_s);
		f->scheduled = true;
	}
	due = log_schedule_due(&f->schedule, now_s);
	if (due && f->size == 0) {
		log_schedule_next(&f->schedule, now_s);
		due = false;
	}
	return due;
}

/* ---- the archive ---- */

static void begin_job(struct log_file *f);

static void count_report(struct log_file *f)
{
	const struct log_archive_report *r = &f->report;

	counter_add(f->compressed_files, r->compressed);
	counter_add(f->compressed_bytes, r->compressed_bytes);
	counter_add(f->removed_files, r->removed);
	if (r->error != 0) {
		counter_inc(f->archive_errors);
		agent_error(f->base.host->agent, r->error,
			    "cannot %s rotated files of log file %s: %s; trying again every minute",
			    r->what, f->base.path, strerror(-r->error));
	}
}

static void on_step(struct agent *self, struct job *job, int result)
{
	struct log_file *f = CONTAINER_OF(job, struct log_file, job);

	if (result == 0) {
		count_report(f);
		if (!f->pass_over && !f->base.host->stopping) {
			begin_job(f);
			return;
		}
	}
	if (result != 0 || f->report.error != 0) {
		f->pass_wanted = true;
		f->pass_ms = agent_now_ms(self) + PASS_RETRY_MS;
	}
	log_archive_end(&f->archive);
	f->base.host->at_work = NULL;
}

/* On a worker of the thread pool. */
static void step_archive(struct job *job)
{
	struct log_file *f = CONTAINER_OF(job, struct log_file, job);

	f->pass_over = log_archive_step(&f->archive, &f->report);
}

static void begin_job(struct log_file *f)
{
	struct log_output_host *h = f->base.host;

	f->job.work = step_archive;
	f->job.on_done = on_step;
	thread_pool_run(h->jobs, h->agent, &f->job);
}

static void begin_pass(struct log_file *f)
{
	f->base.host->at_work = &f->base;
	f->pass_wanted = false;
	memset(&f->report, 0, sizeof(f->report));
	log_archive_begin(&f->archive,
			  f->stuck < f->archive.next_number ? f->stuck : f->archive.next_number);
	begin_job(f);
}

/* ---- work ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

static void set_wake(struct log_file *f, uint64_t now_ms)
{
	uint64_t wake = 0;

	if (f->base.host->rotation.period != LOG_PERIOD_NEVER) {
		uint64_t wall_ms = agent_wall_ms(f->base.host->agent);
		uint64_t next_ms = (uint64_t)f->schedule.next_s * 1000;
		uint64_t left = next_ms > wall_ms ? next_ms - wall_ms : ROTATION_RETRY_MS;

		wake = now_ms + (left < CLOCK_LOOK_MS ? left : CLOCK_LOOK_MS);
	}
	wake = earlier(wake, f->rotate_ms > now_ms ? f->rotate_ms : 0);
	f->base.wake_ms = earlier(wake, f->pass_wanted && f->pass_ms > now_ms ? f->pass_ms : 0);
}

static void log_file_prepare(struct log_output *o, uint64_t now_ms)
{
	struct log_file *f = log_file_of(o);

	if ((o->host->rotation.period != LOG_PERIOD_NEVER && is_time(f)) || f->rotate) {
		rotate_due(f, now_ms);
	}
	if (f->pass_wanted && now_ms >= f->pass_ms && o->host->jobs != NULL &&
	    o->host->at_work == NULL && !o->host->stopping) {
		begin_pass(f);
	}
	set_wake(f, now_ms);
}

/* How many more bytes the file may take. Rotates it when the next record would be too many. */
static uint64_t make_room(struct log_file *f)
{
	uint64_t max = f->base.host->rotation.size_max;
	uint64_t now_ms = agent_now_ms(f->base.host->agent);
	struct iovec next;

	if (max == 0) {
		return UINT64_MAX;
	}
	log_output_gather(&f->base, &next, 1, 1);
	if (f->size > 0 && f->size + next.iov_len > max) {
		rotate_due(f, now_ms);
	}
	if (now_ms < f->rotate_ms) {
		return UINT64_MAX;
	}
	return max > f->size ? max - f->size : 0;
}

static ssize_t log_file_write(struct log_output *o)
{
	struct log_file *f = log_file_of(o);
	struct iovec iov[GATHER_PIECES];
	ssize_t n = end_torn_line(f);
	int count;

	if (n != 0) {
		return n;
	}
	/* That may open another file. */
	count = log_output_gather(o, iov, GATHER_PIECES, make_room(f));
	n = writev(f->fd, iov, count);
	if (n < 0) {
		return -errno;
	}
	f->size += (uint64_t)n;
	return n;
}

static int log_file_sync(struct log_output *o)
{
	if (fdatasync(log_file_of(o)->fd) == 0) {
		return 0;
	}
	/* EINVAL: not a file that can be synced, such as a device. */
	return errno == EINVAL || errno == EROFS ? 0 : -errno;
}

/* ---- life ---- */

static void log_file_close(struct log_output *o)
{
	struct log_file *f = log_file_of(o);

	if (f->fd >= 0) {
		close(f->fd);
	}
	log_archive_close(&f->archive);
	log_output_free(o);
	free(f);
}

static const struct log_output_ops log_file_ops = {
	.kind = "log file",
	.tail = 1,
	.frame = log_file_frame,
	.prepare = log_file_prepare,
	.write = log_file_write,
	.reopen = log_file_reopen,
	.rotate = log_file_rotate,
	.sync = log_file_sync,
	.close = log_file_close,
};

static void init_counters(struct log_file *f)
{
	struct counter_set *set = f->base.counters;

	f->rotations = counter_create(set, "rotations", COUNTER_SUM, "Rotations of the log file");
	f->rotation_errors = counter_create(set, "rotation_errors", COUNTER_SUM,
					    "Rotations of the log file that failed");
	f->compressed_files = counter_create(set, "compressed_files", COUNTER_SUM,
					     "Rotated log files that were compressed");
	f->compressed_bytes = counter_create(set, "compressed_bytes", COUNTER_SUM,
					     "Bytes of rotated log files before compression");
	f->removed_files =
		counter_create(set, "removed_files", COUNTER_SUM,
			       "Rotated log files removed to keep as many as configured");
	f->archive_errors =
		counter_create(set, "archive_errors", COUNTER_SUM,
			       "Compressions and removals of rotated files that failed");
}

int log_file_open(struct log_output **out, struct log_output_host *h, const char *name,
		  FILE *errors)
{
	struct log_file *f = calloc(1, sizeof(*f));
	int rc;

	if (f == NULL) {
		fatal("out of memory for log file %s", name);
	}
	f->fd = -1;
	f->stuck = UINT64_MAX;
	log_output_init(&f->base, &log_file_ops, h, name);
	init_counters(f);
	/* What an earlier run left half done is done in this one. */
	f->pass_wanted = log_archive_init(&f->archive, f->base.path, &h->rotation.archive);
	rc = open_file(f);
	if (rc != 0) {
		fprintf(errors, "cannot open log file %s: %s\n", f->base.path, strerror(-rc));
		log_file_close(&f->base);
		return rc;
	}
	*out = &f->base;
	return 0;
}
