#include "agents/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agents/trace_client.h"
#include "core/runtime/check.h"

/* Files of earlier runs that are passed over. */
#define NUMBERS_TRIED 100000
#define LAST_LINE_MAX 256

/* ---- opening ---- */

static int create(struct trace *t, size_t folder, const char *name)
{
	int n = snprintf(t->path + folder, sizeof(t->path) - folder, "/%s", name);
	int fd;

	if (n < 0 || (size_t)n >= sizeof(t->path) - folder) {
		return -ENAMETOOLONG;
	}
	fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int create_next(struct trace *t, size_t folder)
{
	char name[TRACE_NAME_MAX];
	int fd = -EEXIST;

	for (unsigned i = 0; i < NUMBERS_TRIED && fd == -EEXIST; i++) {
		snprintf(name, sizeof(name), "trace-%llu.log", (unsigned long long)t->number);
		fd = create(t, folder, name);
		t->number += fd == -EEXIST;
	}
	return fd;
}

static void on_opened(struct agent *self, void *object, uint64_t unused)
{
	struct trace *t = object;

	(void)self;
	(void)unused;
	t->on_opened(t, t->open_result);
}

void trace_file_on_open(struct agent *log, void *object, uint64_t unused)
{
	struct trace *t = object;
	size_t folder = strlen(t->path);

	(void)unused;
	CHECK_MAGIC(t, TRACE_MAGIC);
	t->fd = t->spec.name[0] != '\0' ? create(t, folder, t->spec.name) : create_next(t, folder);
	t->open_result = t->fd < 0 ? t->fd : 0;
	agent_send(log, t->owner, on_opened, t, 0);
}

/* ---- writing ---- */

/* A line that is not whole would hang together with the next one: after a failure nothing follows.
 */
static void write_all(struct agent *log, struct trace *t, const char *data, size_t len)
{
	while (len > 0 && !t->failed) {
		ssize_t n = write(t->fd, data, len);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			agent_error(log, -errno, "cannot write trace file %.200s: %s; it ends here",
				    t->path, strerror(errno));
			t->failed = true;
			return;
		}
		data += n;
		len -= (size_t)n;
	}
}

void trace_file_on_block(struct agent *log, void *object, uint64_t unused)
{
	struct trace_block *b = object;
	struct trace *t = b->trace;

	(void)unused;
	CHECK_MAGIC(t, TRACE_MAGIC);
	write_all(log, t, b->data, b->len);
	if (t->failed) {
		atomic_fetch_add_explicit(&t->dropped, b->lines, memory_order_relaxed);
		atomic_fetch_sub_explicit(&t->lines, b->lines, memory_order_relaxed);
	}
	agent_send(log, b->client->self, trace_client_on_written, b, 0);
}

/* ---- closing ---- */

static void on_closed(struct agent *self, void *object, uint64_t unused)
{
	struct trace *t = object;

	(void)self;
	(void)unused;
	t->on_closed(t);
}

static void write_last_line(struct agent *log, struct trace *t)
{
	uint64_t now_ms = agent_wall_ms(log);
	char line[LAST_LINE_MAX];
	int len = snprintf(
		line, sizeof(line),
		"%llu.%03u -   -  * the trace ends: %llu connections, %llu lines, "
		"%llu dropped\n",
		(unsigned long long)(now_ms / 1000), (unsigned)(now_ms % 1000),
		(unsigned long long)atomic_load_explicit(&t->sessions, memory_order_relaxed),
		(unsigned long long)atomic_load_explicit(&t->lines, memory_order_relaxed),
		(unsigned long long)atomic_load_explicit(&t->dropped, memory_order_relaxed));

	write_all(log, t, line, (size_t)len);
}

void trace_file_on_leave(struct agent *log, void *object, uint64_t unused)
{
	struct trace *t = object;

	(void)unused;
	CHECK_MAGIC(t, TRACE_MAGIC);
	if (++t->left < t->users) {
		return;
	}
	write_last_line(log, t);
	close(t->fd);
	t->fd = -1;
	agent_send(log, t->owner, on_closed, t, 0);
}
