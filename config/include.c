#include "config/include.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/search.h"
#include "core/runtime/check.h"

enum { INCLUDE_DEPTH_MAX = 32 };
/* Half a million domains are some 50 MiB. */
#define FILE_BYTES_MAX ((size_t)1 << 30)

static void *checked(void *memory)
{
	if (memory == NULL) {
		fatal("configuration: out of memory");
	}
	return memory;
}

/* `path` as seen from the folder of the file that includes it. */
static char *path_beside(const char *from, const char *path)
{
	const char *slash = strrchr(from, '/');
	if (path[0] == '/' || slash == NULL) {
		return checked(strdup(path));
	}
	return search_join(from, (size_t)(slash - from), path);
}

/* Whether it is there, and not what is being read: a layer's file may include what others call by
 * the same name. */
static bool is_candidate(const struct include *include, const char *path)
{
	struct stat status;
	if (stat(path, &status) != 0) {
		return false;
	}
	for (const struct include_file *f = include->from; f != NULL; f = f->from) {
		if (f->device == status.st_dev && f->inode == status.st_ino) {
			return false;
		}
	}
	return true;
}

/* In the layers before the main file's folder, beside the including file, in the main file's
 * folder. What is nowhere is missed beside the including file. */
static char *path_resolve(const struct include *include, const char *path)
{
	const struct search *search = include->tree->search;
	char *beside = path_beside(include->from->path, path);
	if (search == NULL || path[0] == '/') {
		return beside;
	}
	for (uint32_t i = 0; i < search->count; i++) {
		const char *folder = search->folders[i];
		char *found = search_join(folder, strlen(folder), path);
		if (i + 1 == search->count && is_candidate(include, beside)) {
			free(found);
			return beside;
		}
		if (is_candidate(include, found)) {
			free(beside);
			return found;
		}
		free(found);
	}
	return beside;
}

static void list_add(struct include_list *list, char *path)
{
	if ((list->count & (list->count + 1)) == 0) {
		size_t room = (list->count + 1) * 2;
		list->paths = checked(realloc(list->paths, room * sizeof(char *)));
	}
	list->paths[list->count++] = path;
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_folder(struct include_list *list, const char *folder)
{
	struct stat status;
	struct dirent *entry;
	DIR *dir = opendir(folder);
	if (dir == NULL) {
		return -errno;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.') {
			continue;
		}
		char *path = search_join(folder, strlen(folder), entry->d_name);
		if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
			free(path);
			continue;
		}
		list_add(list, path);
	}
	closedir(dir);
	if (list->count != 0) {
		qsort(list->paths, list->count, sizeof(char *), compare_paths);
	}
	return 0;
}

static void report_include(const struct include *include, const char *path, const char *problem,
			   const char *expected)
{
	if (include->from == NULL) {
		struct source file = {.file = tree_add_file(include->tree, path, false)};
		report_error(include->report, file, "%s; expected %s", problem, expected);
	} else {
		report_error(include->report, include->source, "include \"%s\": %s; expected %s",
			     path, problem, expected);
	}
}

struct include_list include_list(const struct include *include, const char *path)
{
	struct include_list list = {0};
	struct stat status;
	char *resolved = path_resolve(include, path);
	int rc = stat(resolved, &status) == 0 ? 0 : -errno;
	if (rc == 0 && S_ISDIR(status.st_mode)) {
		rc = list_folder(&list, resolved);
	} else if (rc == 0) {
		list_add(&list, resolved);
		resolved = NULL;
	}
	if (rc != 0) {
		report_include(include, resolved, strerror(-rc), "a file or a folder of files");
	}
	free(resolved);
	return list;
}

void include_list_free(struct include_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->paths[i]);
	}
	free(list->paths);
	*list = (struct include_list){0};
}

/* Whether the file is open further up, or too many are. */
static int check_stack(const struct include *include, const struct stat *status)
{
	uint32_t depth = 0;
	for (const struct include_file *f = include->from; f != NULL; f = f->from) {
		if ((f->device == status->st_dev && f->inode == status->st_ino) ||
		    ++depth == INCLUDE_DEPTH_MAX) {
			return -ELOOP;
		}
	}
	return 0;
}

/* All of `fd`, of which `status` knows the size, or that it has none (files of the kernel). */
static int read_all(int fd, const struct stat *status, struct include_file *file)
{
	size_t room = (size_t)status->st_size + 1;
	char *text = checked(malloc(room));
	size_t len = 0;
	for (;;) {
		ssize_t got = read(fd, text + len, room - len);
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0 || len + (size_t)got > FILE_BYTES_MAX) {
			int rc = got < 0 ? -errno : -EFBIG;
			free(text);
			return rc;
		}
		if (got == 0) {
			break;
		}
		len += (size_t)got;
		if (len == room) {
			room *= 2;
			text = checked(realloc(text, room));
		}
	}
	file->owned = text;
	file->text = text;
	file->len = len;
	return 0;
}

static int open_and_read(const struct include *include, const char *path, struct include_file *file)
{
	struct stat status;
	/* Not to hang in a FIFO. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		return -errno;
	}
	int rc = fstat(fd, &status) == 0 ? 0 : -errno;
	if (rc == 0 && !S_ISREG(status.st_mode)) {
		rc = S_ISDIR(status.st_mode) ? -EISDIR : -ENODEV;
	}
	if (rc == 0 && (size_t)status.st_size > FILE_BYTES_MAX) {
		rc = -EFBIG;
	}
	if (rc == 0) {
		rc = check_stack(include, &status);
	}
	if (rc == 0) {
		file->device = status.st_dev;
		file->inode = status.st_ino;
		rc = read_all(fd, &status, file);
	}
	close(fd);
	return rc;
}

/* What the file is to say, where it is not what it says now. */
static void replace_text(const struct tree *tree, const char *path, struct include_file *file)
{
	for (uint32_t i = 0; i < tree->text_count; i++) {
		if (strcmp(tree->texts[i].path, path) == 0) {
			file->text = tree->texts[i].text;
			file->len = tree->texts[i].len;
		}
	}
}

void include_digest(const char *text, size_t len, unsigned char digest[TREE_DIGEST])
{
	if (EVP_Digest(text, len, digest, NULL, EVP_sha256(), NULL) != 1) {
		fatal("configuration: no SHA-256");
	}
}

int include_open(const struct include *include, const char *path, struct include_file *file)
{
	*file = (struct include_file){
		.from = include->from,
		.path = path,
		.readonly = include->readonly,
	};
	int rc = open_and_read(include, path, file);
	if (rc == -ELOOP) {
		report_include(include, path, "includes itself, or is nested deeper than 32",
			       "each file to include others only");
	} else if (rc != 0) {
		report_include(include, path, strerror(-rc), "a file that can be read");
	} else {
		replace_text(include->tree, path, file);
		file->number = tree_add_file(include->tree, path, include->readonly);
		include_digest(file->text, file->len, include->tree->files[file->number].digest);
	}
	return rc;
}

void include_close(struct include_file *file)
{
	free(file->owned);
	*file = (struct include_file){0};
}
