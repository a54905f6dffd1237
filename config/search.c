#include "config/search.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"

/* Of a subcluster, and what a line of the file that names it may have. */
enum { NAME_LEN_MAX = 64, LINE_SIZE = 256 };

char *search_join(const char *folder, size_t len, const char *name)
{
	char *path;

	if (asprintf(&path, "%.*s/%s", (int)len, folder, name) < 0) {
		fatal("configuration: out of memory");
	}
	return path;
}

/* Where a layer called `name` is: FOLDER/KIND/NAME. */
static char *layer(const char *folder, const char *kind, const char *name)
{
	char *kinds = search_join(folder, strlen(folder), kind);
	char *path = search_join(kinds, strlen(kinds), name);

	free(kinds);
	return path;
}

static bool is_folder(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	return len > 0 && len <= NAME_LEN_MAX && name[0] != '.' && strpbrk(name, "/ \t") == NULL;
}

/* The one line of the file; an empty text when it is not there. */
static int read_subcluster(const char *file, char line[LINE_SIZE], char why[SEARCH_WHY])
{
	line[0] = '\0';
	FILE *in = fopen(file, "re");
	if (in == NULL && errno == ENOENT) {
		return 0;
	}
	if (in == NULL) {
		snprintf(why, SEARCH_WHY, "%.300s: %s; expected a file that can be read", file,
			 strerror(errno));
		return -EINVAL;
	}
	if (fgets(line, LINE_SIZE, in) == NULL) {
		line[0] = '\0';
	}
	fclose(in);
	line[strcspn(line, "\r\n")] = '\0';
	if (!is_name(line)) {
		snprintf(why, SEARCH_WHY,
			 "%.300s: is not the name of a subcluster; expected a line with a name",
			 file);
		return -EINVAL;
	}
	return 0;
}

static int add_subcluster(struct search *search, const char *folder, const char *node_folder,
			  char why[SEARCH_WHY])
{
	char line[LINE_SIZE];
	char *file = search_join(node_folder, strlen(node_folder), "subcluster");
	int rc = read_subcluster(file, line, why);

	if (rc == 0 && line[0] != '\0') {
		char *path = layer(folder, "subcluster", line);

		search->folders[search->count++] = path;
		if (!is_folder(path)) {
			snprintf(why, SEARCH_WHY,
				 "%.300s: there is no %.150s; expected that folder", file, path);
			rc = -EINVAL;
		}
	}
	free(file);
	return rc;
}

static void set_node(struct search *search, const char *node)
{
	if (node != NULL) {
		snprintf(search->node, sizeof(search->node), "%s", node);
	} else if (gethostname(search->node, sizeof(search->node) - 1) != 0) {
		search->node[0] = '\0';
	}
}

int search_init(struct search *search, const char *path, const char *node, char why[SEARCH_WHY])
{
	const char *slash = strrchr(path, '/');
	char *folder =
		check_memory(slash != NULL ? strndup(path, (size_t)(slash - path)) : strdup("."),
			     "the configuration");
	int rc = 0;

	*search = (struct search){.count = 0};
	set_node(search, node);
	if (is_name(search->node)) {
		char *own = layer(folder, "node", search->node);

		if (is_folder(own)) {
			search->folders[search->count++] = own;
			rc = add_subcluster(search, folder, own, why);
		} else {
			free(own);
		}
	}
	search->folders[search->count++] = folder;
	return rc;
}

void search_free(struct search *search)
{
	for (uint32_t i = 0; i < search->count; i++) {
		free(search->folders[i]);
	}
	search->count = 0;
}
