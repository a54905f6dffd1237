/*
 * A compressed file gets its name only when it is complete and on the disk, and the original goes
 * only then: a crash at any moment leaves at least one of the two, whole.
 */
#include "agents/log_archive.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/check.h"

/* Read at a time, and so often in one part of a pass. */
#define READ_SIZE ((size_t)1 << 20)
#define READS_PER_STEP 8
#define NUMBER_DIGITS 6
/* YYYYMMDDTHHMMSS */
#define DATE_LEN 15
/* Names that others took, before giving up. */
#define NAMES_TRIED 100
#define TEMPORARY ".tmp"

enum archive_kind { ARCHIVE_PLAIN, ARCHIVE_COMPRESSED, ARCHIVE_TEMPORARY };

SINGLE
struct archive_file {
	uint64_t number;
	enum archive_kind kind;
	char *path;
};

/* ---- names ---- */

static char *format_path(const struct log_archive *a, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", a->folder, name) < 0) {
		fatal("out of memory for the path of log file %s", name);
	}
	return path;
}

/* What follows the date: nothing, a suffix of some compression, that of a temporary file, too. */
static bool parse_suffix(const char *text, enum archive_kind *kind)
{
	static const enum log_compress compressed[] = {LOG_COMPRESS_ZSTD, LOG_COMPRESS_GZIP};

	*kind = ARCHIVE_PLAIN;
	for (size_t i = 0; i < sizeof(compressed) / sizeof(compressed[0]); i++) {
		const char *suffix = log_compress_suffix(compressed[i]);
		size_t len = strlen(suffix);

		if (strncmp(text, suffix, len) == 0) {
			*kind = ARCHIVE_COMPRESSED;
			text += len;
			break;
		}
	}
	if (*kind == ARCHIVE_COMPRESSED && strcmp(text, TEMPORARY) == 0) {
		*kind = ARCHIVE_TEMPORARY;
		return true;
	}
	return *text == '\0';
}

/* Is this the name of a rotated file? Of others nothing is known, and they are left alone. */
static bool parse_name(const struct log_archive *a, const char *name, struct archive_file *f)
{
	size_t len = strlen(a->name);
	char *end;

	if (strncmp(name, a->name, len) != 0 || name[len] != '.' ||
	    !isdigit((unsigned char)name[len + 1])) {
		return false;
	}
	errno = 0;
	f->number = strtoull(name + len + 1, &end, 10);
	if (errno != 0 || end < name + len + 1 + NUMBER_DIGITS || *end++ != '-') {
		return false;
	}
	for (unsigned i = 0; i < DATE_LEN; i++) {
		if (i == 8 ? end[i] != 'T' : !isdigit((unsigned char)end[i])) {
			return false;
		}
	}
	return parse_suffix(end + DATE_LEN, &f->kind);
}

static char *new_path(const struct log_archive *a, int64_t wall_s)
{
	char name[NAME_MAX + 64];
	char date[DATE_LEN + 1];
	time_t t = (time_t)wall_s;
	struct tm tm;

	localtime_r(&t, &tm);
	strftime(date, sizeof(date), "%Y%m%dT%H%M%S", &tm);
	snprintf(name, sizeof(name), "%s.%0*llu-%s", a->name, NUMBER_DIGITS,
		 (unsigned long long)a->next_number, date);
	return format_path(a, name);
}

/* ---- what the log file's owner does ---- */

/* As rename(), but never onto a file that is there; EEXIST then. Some file systems have no such
 * call: nobody else makes such names there. */
static int move_file(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
		return 0;
	}
	if (errno != EINVAL && errno != ENOSYS) {
		return -errno;
	}
	if (access(to, F_OK) == 0) {
		return -EEXIST;
	}
	return rename(from, to) == 0 ? 0 : -errno;
}

int log_archive_add(struct log_archive *a, int64_t wall_s)
{
	char *path = format_path(a, a->name);
	int rc = -EEXIST;

	for (unsigned i = 0; i < NAMES_TRIED && rc == -EEXIST; i++) {
		char *to = new_path(a, wall_s);

		rc = move_file(path, to);
		if (rc == 0 || rc == -EEXIST) {
			a->next_number++;
		}
		if (rc == 0) {
			free(a->last);
			a->last = to;
		} else {
			free(to);
		}
	}
	free(path);
	return rc;
}

int log_archive_undo(struct log_archive *a)
{
	char *path = format_path(a, a->name);
	int rc = move_file(a->last, path);

	free(path);
	return rc;
}

/* ---- a pass ---- */

static int by_number(const void *a, const void *b)
{
	const struct archive_file *x = a;
	const struct archive_file *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static void add_found(struct archive_pass *p, const struct archive_file *f)
{
	struct archive_file *files =
		check_memory(reallocarray(p->files, p->count + 1, sizeof(*files)),
			     "the list of rotated log files");

	p->files = files;
	p->files[p->count++] = *f;
}

/* Takes note of all rotated files. 0 or a negative errno. */
static int list_files(const struct log_archive *a, struct archive_pass *p)
{
	DIR *folder = opendir(a->folder);
	struct dirent *entry;

	if (folder == NULL) {
		return -errno;
	}
	while ((entry = readdir(folder)) != NULL) {
		struct archive_file f;

		if (parse_name(a, entry->d_name, &f)) {
			f.path = format_path(a, entry->d_name);
			add_found(p, &f);
		}
	}
	closedir(folder);
	if (p->count > 1) {
		qsort(p->files, p->count, sizeof(p->files[0]), by_number);
	}
	return 0;
}

static void free_files(struct archive_pass *p)
{
	for (size_t i = 0; i < p->count; i++) {
		free(p->files[i].path);
	}
	free(p->files);
	p->files = NULL;
	p->count = 0;
}

static int report_failure(struct log_archive_report *r, int error, const char *what)
{
	r->error = error;
	r->what = what;
	return error;
}

static int remove_file(const char *path, struct log_archive_report *r)
{
	return unlink(path) == 0 || errno == ENOENT ? 0 : report_failure(r, -errno, "remove");
}

static int remove_temporaries(struct archive_pass *p, struct log_archive_report *r)
{
	int rc = 0;

	for (size_t i = 0; i < p->count && rc == 0; i++) {
		if (p->files[i].kind == ARCHIVE_TEMPORARY) {
			rc = remove_file(p->files[i].path, r);
		}
	}
	return rc;
}

/* The number of the oldest file to be kept. A number may be there twice, when compression ended
 * just before it took the original away. */
static uint64_t oldest_kept(const struct log_archive *a)
{
	const struct archive_pass *p = &a->pass;
	uint64_t oldest = UINT64_MAX;
	uint32_t kept = 0;

	for (size_t i = p->count; i > 0 && kept < a->options.keep; i--) {
		const struct archive_file *f = &p->files[i - 1];

		if (f->kind != ARCHIVE_TEMPORARY && f->number != oldest) {
			oldest = f->number;
			kept++;
		}
	}
	return kept < a->options.keep ? 0 : oldest;
}

static int remove_oldest(struct log_archive *a, struct log_archive_report *r)
{
	struct archive_pass *p = &a->pass;
	uint64_t oldest = a->options.keep == 0 ? 0 : oldest_kept(a);
	int rc = 0;

	for (; p->next < p->count && p->files[p->next].number < oldest && rc == 0; p->next++) {
		if (p->files[p->next].kind != ARCHIVE_TEMPORARY) {
			rc = remove_file(p->files[p->next].path, r);
			r->removed += rc == 0;
		}
	}
	return rc;
}

/* Mode, owner if that is permitted, and times are those of the original. */
static int copy_attributes(int from, int to)
{
	struct stat st;

	if (fstat(from, &st) != 0 || fchmod(to, st.st_mode & 0777) != 0) {
		return -errno;
	}
	if (fchown(to, st.st_uid, st.st_gid) != 0 && errno != EPERM) {
		return -errno;
	}
	return futimens(to, (struct timespec[]){st.st_atim, st.st_mtim}) == 0 ? 0 : -errno;
}

/* 0 when the file's compression has begun, 1 when it is not there any more, or a negative errno. */
static int open_next(struct log_archive *a)
{
	struct archive_pass *p = &a->pass;
	const char *path = p->files[p->next].path;

	p->from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (p->from < 0) {
		return errno == ENOENT ? 1 : -errno;
	}
	if (asprintf(&p->temporary, "%s%s" TEMPORARY, path,
		     log_compress_suffix(a->options.compress)) < 0) {
		fatal("out of memory for the path of %s", path);
	}
	p->to = open(p->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (p->to < 0) {
		return -errno;
	}
	p->compressor = log_compressor_create(a->options.compress, p->to);
	if (p->buffer == NULL) {
		p->buffer = malloc(READ_SIZE);
	}
	return p->compressor == NULL || p->buffer == NULL ? -ENOMEM : 0;
}

/* Ends work on a file; what is not complete goes. */
static void close_current(struct archive_pass *p)
{
	log_compressor_destroy(p->compressor);
	p->compressor = NULL;
	if (p->from >= 0) {
		close(p->from);
		p->from = -1;
	}
	if (p->to >= 0) {
		close(p->to);
		p->to = -1;
	}
	if (p->temporary != NULL) {
		unlink(p->temporary);
		free(p->temporary);
		p->temporary = NULL;
	}
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || fsync(fd) != 0 ? -errno : 0;

	if (fd >= 0) {
		close(fd);
	}
	return rc;
}

/* The compressed file takes the original's place. */
static int finish_file(struct log_archive *a)
{
	struct archive_pass *p = &a->pass;
	char *name = strndup(p->temporary, strlen(p->temporary) - strlen(TEMPORARY));
	int rc;

	if (name == NULL) {
		return -ENOMEM;
	}
	rc = copy_attributes(p->from, p->to);
	if (rc == 0 && (fsync(p->to) != 0 || rename(p->temporary, name) != 0)) {
		rc = -errno;
	}
	free(name);
	if (rc != 0) {
		return rc;
	}
	free(p->temporary);
	p->temporary = NULL;
	rc = sync_folder(a->folder);
	if (rc != 0) {
		return rc;
	}
	return unlink(p->files[p->next].path) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Compresses some of the file. 0, 1 at its end, or a negative errno. */
static int compress_some(struct archive_pass *p, struct log_archive_report *r)
{
	for (unsigned i = 0; i < READS_PER_STEP; i++) {
		ssize_t n = read(p->from, p->buffer, READ_SIZE);
		int rc;

		if (n < 0) {
			return -errno;
		}
		rc = log_compressor_write(p->compressor, p->buffer, (size_t)n, n == 0);
		if (rc != 0) {
			return rc;
		}
		r->compressed_bytes += (uint64_t)n;
		if (n == 0) {
			return 1;
		}
	}
	return 0;
}

/* The next file that is to be compressed; false: there is none. */
static bool find_next(struct log_archive *a)
{
	struct archive_pass *p = &a->pass;

	while (p->next < p->count &&
	       (p->files[p->next].kind != ARCHIVE_PLAIN || p->files[p->next].number >= p->below)) {
		p->next++;
	}
	return a->options.compress != LOG_COMPRESS_NONE && p->next < p->count;
}

/* A part of the compression of the next file. 0 or a negative errno. */
static int compress_next(struct log_archive *a, struct log_archive_report *r)
{
	struct archive_pass *p = &a->pass;
	int rc = p->compressor == NULL ? open_next(a) : 0;

	if (rc == 0) {
		rc = compress_some(p, r);
		if (rc == 0) {
			return 0;
		}
		if (rc == 1) {
			rc = finish_file(a);
			r->compressed += rc == 0;
		}
	}
	close_current(p);
	p->next++;
	return rc < 0 ? report_failure(r, rc, "compress") : 0;
}

static int begin_pass(struct log_archive *a, struct log_archive_report *r)
{
	int rc = list_files(a, &a->pass);

	if (rc != 0) {
		return report_failure(r, rc, "list");
	}
	rc = remove_temporaries(&a->pass, r);
	return rc == 0 ? remove_oldest(a, r) : rc;
}

bool log_archive_step(struct log_archive *a, struct log_archive_report *r)
{
	struct archive_pass *p = &a->pass;

	memset(r, 0, sizeof(*r));
	if (p->files == NULL) {
		return begin_pass(a, r) != 0 || !find_next(a);
	}
	return !find_next(a) || compress_next(a, r) != 0 || !find_next(a);
}

/* ---- life ---- */

void log_archive_begin(struct log_archive *a, uint64_t below)
{
	log_archive_end(a);
	a->pass.below = below;
}

void log_archive_end(struct log_archive *a)
{
	struct archive_pass *p = &a->pass;

	close_current(p);
	free_files(p);
	free(p->buffer);
	*p = (struct archive_pass){.from = -1, .to = -1};
}

bool log_archive_init(struct log_archive *a, const char *path,
		      const struct log_archive_options *options)
{
	const char *slash = strrchr(path, '/');
	bool found;

	ASSERT(slash != NULL);
	memset(a, 0, sizeof(*a));
	a->pass.from = -1;
	a->pass.to = -1;
	a->options = *options;
	a->folder = strndup(path, (size_t)(slash - path));
	a->name = strdup(slash + 1);
	if (a->folder == NULL || a->name == NULL) {
		fatal("out of memory for the rotated files of %s", path);
	}
	/* What cannot be read now is no danger: no name is ever used twice. */
	list_files(a, &a->pass);
	found = a->pass.count > 0;
	a->next_number = found ? a->pass.files[a->pass.count - 1].number + 1 : 1;
	free_files(&a->pass);
	return found;
}

void log_archive_close(struct log_archive *a)
{
	log_archive_end(a);
	free(a->last);
	free(a->name);
	free(a->folder);
}
