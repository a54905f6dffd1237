#include "tools/config_modes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "tools/config_repository.h"

/* A path, and what it was; no mode: nothing. */
SINGLE
struct noted {
	char *path;
	struct stat was;
};

static void note(struct modes *m, const char *folder, const char *name, size_t len)
{
	struct noted *n;

	m->list = realloc(m->list, (m->count + 1) * sizeof *m->list);
	ASSERT(m->list != NULL);
	n = &m->list[m->count++];
	if (asprintf(&n->path, "%s/%.*s", folder, (int)len, name) < 0) {
		fatal("flywheel: out of memory");
	}
	if (lstat(n->path, &n->was) != 0) {
		n->was.st_mode = 0;
	}
}

void modes_note(struct modes *m, const char *folder, const char *main, const char *names)
{
	char path[2 * PATH_MAX];

	*m = (struct modes){0};
	snprintf(path, sizeof path, "%s/%s", folder, main);
	if (stat(folder, &m->folder) != 0 || stat(path, &m->file) != 0) {
		m->file = m->folder;
		m->file.st_mode = S_IFREG | (m->folder.st_mode & 0666);
	}
	for (const char *name = names; *name != '\0'; name += strlen(name) + 1) {
		for (const char *slash = name; (slash = strchr(slash, '/')) != NULL; slash++) {
			note(m, folder, name, (size_t)(slash - name));
		}
		note(m, folder, name, strlen(name));
	}
}

/* Whether a file is a program is git's to say. */
static mode_t mode_wanted(const struct stat *was, const struct stat *is)
{
	mode_t mode = was->st_mode & 07777;

	if (S_ISREG(is->st_mode)) {
		mode &= 0666;
		mode |= (is->st_mode & 0100) != 0 ? (mode & 0444) >> 2 : 0;
	}
	return mode;
}

static void restore(const struct modes *m, const struct noted *n)
{
	/* Neither a link nor a pipe. */
	int fd = open(n->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	const struct stat *was = &n->was;
	struct stat is;
	mode_t mode;

	if (fd < 0) {
		return;
	}
	if (fstat(fd, &is) == 0 && (S_ISREG(is.st_mode) || S_ISDIR(is.st_mode))) {
		if (((was->st_mode ^ is.st_mode) & S_IFMT) != 0) {
			was = S_ISDIR(is.st_mode) ? &m->folder : &m->file;
		}
		mode = mode_wanted(was, &is);
		if ((is.st_uid != was->st_uid || is.st_gid != was->st_gid) &&
		    fchown(fd, was->st_uid, was->st_gid) != 0 &&
		    fchown(fd, (uid_t)-1, was->st_gid) != 0) {
			mode &= ~(mode_t)070 | (mode & 07) << 3;
		}
		if (mode != (is.st_mode & 07777) && fchmod(fd, mode) != 0) {
			config_refuse("%s: cannot give it its mode: %s", n->path, strerror(errno));
		}
	}
	close(fd);
}

void modes_restore(struct modes *m)
{
	for (size_t i = 0; i < m->count; i++) {
		restore(m, &m->list[i]);
		free(m->list[i].path);
	}
	free(m->list);
}
