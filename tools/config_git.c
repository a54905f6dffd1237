#include "tools/config_git.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/runtime/check.h"

#define WORDS_MAX 40

extern char **environ;

/* What was written to a file in memory, as text. */
static char *text_of(int fd)
{
	struct stat st;
	char *text;
	ssize_t len;

	if (fstat(fd, &st) != 0 || (text = malloc((size_t)st.st_size + 1)) == NULL) {
		fatal("flywheel: cannot read what a program said: %s", strerror(errno));
	}
	len = pread(fd, text, (size_t)st.st_size, 0);
	text[len > 0 ? len : 0] = '\0';
	while (len > 0 && text[len - 1] == '\n') {
		text[--len] = '\0';
	}
	return text;
}

static int open_memory(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0) {
		fatal("flywheel: cannot make a file in memory: %s", strerror(errno));
	}
	return fd;
}

static int wait_for(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR) {
			return 127;
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool program_run(struct ran *r, const char *const *words)
{
	posix_spawn_file_actions_t actions;
	int out = open_memory("out");
	int errors = open_memory("errors");
	pid_t child;
	int rc;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
	rc = posix_spawnp(&child, words[0], &actions, NULL, (char *const *)(uintptr_t)words,
			  environ);
	posix_spawn_file_actions_destroy(&actions);
	if (rc != 0) {
		dprintf(errors, "cannot run %s: %s\n", words[0], strerror(rc));
	}
	r->status = rc == 0 ? wait_for(child) : 127;
	r->out = text_of(out);
	r->errors = text_of(errors);
	close(out);
	close(errors);
	return r->status == 0;
}

void ran_free(struct ran *r)
{
	free(r->out);
	free(r->errors);
}

static bool git_run_list(struct ran *r, const char *folder, va_list list)
{
	const char *words[WORDS_MAX] = {"git", "-C", folder};
	int count = 3;

	do {
		ASSERT(count < WORDS_MAX);
		words[count] = va_arg(list, const char *);
	} while (words[count++] != NULL);
	return program_run(r, words);
}

bool git_run(struct ran *r, const char *folder, ...)
{
	va_list list;
	bool well;

	va_start(list, folder);
	well = git_run_list(r, folder, list);
	va_end(list);
	return well;
}

char *git_ask(const char *folder, ...)
{
	struct ran r;
	va_list list;
	bool well;

	va_start(list, folder);
	well = git_run_list(&r, folder, list);
	va_end(list);
	free(r.errors);
	if (well) {
		return r.out;
	}
	free(r.out);
	return NULL;
}

void git_use_index(const char *path)
{
	if (path == NULL) {
		unsetenv("GIT_INDEX_FILE");
	} else {
		setenv("GIT_INDEX_FILE", path, 1);
	}
}
