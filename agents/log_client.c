#include "agents/log_client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agents/log_writer.h"
#include "core/log/event_text.h"
#include "core/runtime/check.h"

/* Empty blocks that a client keeps. */
#define CLIENT_KEEP 16
#define PANIC_TEXT 1024

void log_client_init(struct log_client *c, struct agent *self, struct agent *writer)
{
	memset(c, 0, sizeof(*c));
	c->self = self;
	c->writer = writer;
	for (unsigned i = 0; i < LOG_FILES; i++) {
		c->last_wait[i] = &c->waits[i];
	}
	pool_init(&c->blocks, "log blocks", sizeof(struct log_block) + LOG_BLOCK_SIZE, CLIENT_KEEP);
}

static void tell_waiting(struct log_client *c, enum log_file file, int result)
{
	struct log_wait *w;

	while ((w = c->waits[file]) != NULL && w->block <= c->back[file]) {
		c->waits[file] = w->next;
		if (c->waits[file] == NULL) {
			c->last_wait[file] = &c->waits[file];
		}
		w->on_written(w, result);
	}
}

static void on_nothing_to_wait(struct agent *self, void *object, uint64_t unused)
{
	struct log_wait *w = object;

	(void)self;
	(void)unused;
	w->on_written(w, 0);
}

void log_client_wait(struct log_client *c, enum log_file file, struct log_wait *w)
{
	ASSERT(c->writer != NULL);
	if (c->begun[file] == c->back[file]) {
		agent_send(c->self, c->self, on_nothing_to_wait, w, 0);
		return;
	}
	w->next = NULL;
	w->block = c->begun[file];
	*c->last_wait[file] = w;
	c->last_wait[file] = &w->next;
}

void log_client_on_written(struct agent *self, void *object, uint64_t unused)
{
	struct log_block *b = object;
	struct log_client *c = b->client;
	enum log_file file = b->file;
	int result = b->lost ? -EIO : 0;

	(void)unused;
	ASSERT(c->self == self && c->outstanding > 0);
	c->outstanding--;
	pool_put(&c->blocks, b);
	c->back[file]++;
	tell_waiting(c, file, result);
}

static void hand_over(struct log_client *c, enum log_file file)
{
	struct log_block *b = c->open[file];

	c->open[file] = NULL;
	c->outstanding++;
	agent_send(c->self, c->writer, log_writer_on_block, b, 0);
}

static struct log_block *open_block(struct log_client *c, enum log_file file)
{
	struct log_block *b = pool_get(&c->blocks);

	b->next = NULL;
	b->from = c->self;
	b->client = c;
	b->file = file;
	b->len = 0;
	memset(b->ends, 0, sizeof(b->ends));
	b->lost = false;
	c->open[file] = b;
	c->begun[file]++;
	return b;
}

/* The block of `file` that has room for `len` bytes more, or another one. */
static struct log_block *block_with_room(struct log_client *c, enum log_file file, size_t len)
{
	struct log_block *b = c->open[file];

	if (b != NULL && b->len + len > LOG_BLOCK_SIZE) {
		hand_over(c, file);
		b = NULL;
	}
	return b != NULL ? b : open_block(c, file);
}

static void print_event(const struct event *e)
{
	char line[EVENT_TEXT_LINE_MAX];

	for (unsigned i = 0; i < LOG_FILES; i++) {
		size_t len = event_text(line, (enum log_file)i, e);

		if (len > 0) {
			fprintf(stderr, "%.*s\n", (int)len, line);
		}
	}
}

void log_event(struct log_client *c, const struct event *e)
{
	enum log_file file = event_log(e->kind);
	struct log_block *b;
	size_t len;

	if (c->writer == NULL) {
		print_event(e);
		return;
	}
	b = block_with_room(c, file, EVENT_HEAD_BYTES);
	len = event_encode(e, b->data + b->len, LOG_BLOCK_SIZE - b->len);
	if (len == 0) {
		b = block_with_room(c, file, LOG_BLOCK_SIZE);
		len = event_encode(e, b->data, LOG_BLOCK_SIZE);
		ASSERT(len > 0);
	}
	b->len += (uint32_t)len;
}

void log_event_again(struct log_client *c, const struct event *e, uint32_t changed)
{
	struct log_block *b = c->open[event_log(e->kind)];
	size_t len = 0;

	/* A block begins with a whole event. */
	if (b != NULL) {
		len = event_encode_again(e, changed, b->data + b->len, LOG_BLOCK_SIZE - b->len);
		b->len += (uint32_t)len;
	}
	if (len == 0) {
		log_event(c, e);
	}
}

void log_line(struct log_client *c, const char *line, size_t len)
{
	struct log_block *b;

	if (len > 0 && line[len - 1] == '\n') {
		len--;
	}
	ASSERT(len < LOG_BLOCK_SIZE);
	if (c->writer == NULL) {
		fprintf(stderr, "%.*s\n", (int)len, line);
		return;
	}
	b = block_with_room(c, LOG_PANIC, len + 1);
	memcpy(b->data + b->len, line, len);
	b->data[b->len + len] = '\n';
	b->len += (uint32_t)len + 1;
}

void log_panic_on_new(void *client, const struct errlog_entry *entry)
{
	struct log_client *c = client;
	const char *reason = entry->code < 0 ? strerror(-entry->code) : "";
	bool said = reason[0] == '\0' || strstr(entry->text, reason) != NULL;
	char text[ERRLOG_TEXT + 256];
	char line[PANIC_TEXT + 32];
	size_t len;

	snprintf(text, sizeof(text), "%.64s: %s%s%s", c->self != NULL ? c->self->name : "flywheel",
		 entry->text, said ? "" : ": ", said ? "" : reason);
	len = (size_t)snprintf(line, sizeof(line), "%llu@",
			       (unsigned long long)(entry->first_ns / NS_PER_S));
	len += event_text_escape(text, strlen(text), line + len, PANIC_TEXT);
	log_line(c, line, len);
}

void log_client_flush(struct log_client *c)
{
	for (unsigned i = 0; i < LOG_FILES; i++) {
		if (c->open[i] != NULL && c->outstanding < LOG_BLOCKS_EAGER) {
			hand_over(c, (enum log_file)i);
		}
	}
}

bool log_client_drained(const struct log_client *c)
{
	for (unsigned i = 0; i < LOG_FILES; i++) {
		if (c->open[i] != NULL) {
			return false;
		}
	}
	return c->outstanding == 0;
}

/* What a block has, as text on stderr. */
static void print_block(const struct log_block *b)
{
	struct event e = {0};
	uint32_t at = 0;

	if (b->file == LOG_PANIC) {
		fwrite(b->data, 1, b->len, stderr);
		return;
	}
	while (at < b->len) {
		int n = event_decode(b->data + at, b->len - at, &e);

		ASSERT(n > 0);
		print_event(&e);
		at += (uint32_t)n;
	}
}

void log_client_close(struct log_client *c)
{
	for (unsigned i = 0; i < LOG_FILES; i++) {
		struct log_block *b = c->open[i];

		if (b != NULL) {
			print_block(b);
			pool_put(&c->blocks, b);
			c->open[i] = NULL;
		}
	}
	pool_close(&c->blocks);
}
