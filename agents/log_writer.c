/*
 * A block's way: the client fills it and sends it by ring; the writer formats its events for the
 * outputs that they go to; when the last of that is written everywhere the block goes back to its
 * client's pool. While an output that they may go to is full, blocks wait.
 */
#include "agents/log_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agents/log_output.h"
#include "agents/log_route.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"

#define LOG_WRITER_MAGIC 0x6c6f6777U
#define STOP_PHASE 4

/* Blocks of one log. */
BOUND
struct log_stream {
	/* Those that are not back yet, oldest first. */
	struct log_block *first;
	struct log_block **last;
	/* The first of those that are not in the outputs' buffers; NULL: all are. */
	struct log_block *unread;
};

BOUND
struct log_writer {
	struct agent base;
	uint32_t magic;
	struct log_output_host host;
	struct log_routes routes;
	struct log_stream streams[LOG_FILES];
	/* For the writer's own events. */
	struct log_client own;
	uint64_t heartbeat_ms;
	struct timer heartbeat;
	/* Wakes the writer for outputs that are due. */
	struct timer wake;
	uint64_t waiting_blocks;
	struct counter *blocks;
	struct counter *waiting;
	struct counter *waiting_max;
};

static struct log_writer *log_writer_of(struct agent *base)
{
	struct log_writer *w = CONTAINER_OF(base, struct log_writer, base);

	CHECK_MAGIC(w, LOG_WRITER_MAGIC);
	return w;
}

static void stream_push(struct log_stream *s, struct log_block *b)
{
	b->next = NULL;
	*s->last = b;
	s->last = &b->next;
	if (s->unread == NULL) {
		s->unread = b;
	}
}

static struct log_block *stream_pop(struct log_stream *s)
{
	struct log_block *b = s->first;

	s->first = b->next;
	if (s->first == NULL) {
		s->last = &s->first;
	}
	return b;
}

static void count_waiting(struct log_writer *w, int64_t change)
{
	w->waiting_blocks += (uint64_t)change;
	counter_set_value(w->waiting, w->waiting_blocks);
	counter_max(w->waiting_max, w->waiting_blocks);
}

void log_writer_on_block(struct agent *self, void *object, uint64_t unused)
{
	struct log_writer *w = log_writer_of(self);
	struct log_block *b = object;

	(void)unused;
	ASSERT(b->file < LOG_FILES && b->len > 0 && b->len <= LOG_BLOCK_SIZE);
	stream_push(&w->streams[b->file], b);
	counter_inc(w->blocks);
	count_waiting(w, 1);
}

static void give_back(struct log_writer *w, struct log_block *b)
{
	count_waiting(w, -1);
	agent_send(&w->base, b->from, log_client_on_written, b, 0);
}

static void on_new_error(void *context, const struct errlog_entry *entry)
{
	(void)context;
	fprintf(stderr, "flywheel: %s\n", entry->text);
}

/* The lines of a block of paniclog. */
static void read_lines(struct log_routes *r, const struct log_block *b)
{
	const unsigned char *at = b->data;
	const unsigned char *end = b->data + b->len;

	while (at < end) {
		const unsigned char *feed = memchr(at, '\n', (size_t)(end - at));

		ASSERT(feed != NULL);
		log_routes_line(r, (const char *)at, (size_t)(feed - at));
		at = feed + 1;
	}
}

static void read_events(struct log_routes *r, const struct log_block *b)
{
	struct event e = {0};
	uint32_t at = 0;

	while (at < b->len) {
		int n = event_decode(b->data + at, b->len - at, &e);

		ASSERT(n > 0);
		log_routes_event(r, &e);
		at += (uint32_t)n;
	}
}

/* Puts what a block has into the outputs' buffers. */
static void block_read(struct log_routes *r, struct log_block *b)
{
	uint64_t before[LOG_DESTINATIONS_MAX];

	for (uint32_t i = 0; i < r->output_count; i++) {
		before[i] = log_output_committed(r->outputs[i]);
	}
	if (b->file == LOG_PANIC) {
		read_lines(r, b);
	} else {
		read_events(r, b);
	}
	for (uint32_t i = 0; i < r->output_count; i++) {
		uint64_t now = log_output_committed(r->outputs[i]);

		b->ends[i] = now != before[i] ? now : 0;
	}
}

static bool block_written(const struct log_routes *r, const struct log_block *b)
{
	for (uint32_t i = 0; i < r->output_count; i++) {
		if (b->ends[i] > log_output_written(r->outputs[i])) {
			return false;
		}
	}
	return true;
}

static void stream_read(struct log_routes *r, struct log_stream *s, enum log_file log)
{
	while (s->unread != NULL && !log_routes_full(r, log)) {
		block_read(r, s->unread);
		s->unread = s->unread->next;
	}
}

static int stream_give_back(struct log_writer *w, struct log_stream *s)
{
	int work = 0;

	while (s->first != s->unread && block_written(&w->routes, s->first)) {
		give_back(w, stream_pop(s));
		work++;
	}
	return work;
}

/* The program must end, and clients wait for their blocks, although the output takes nothing. */
static void output_abandon(struct log_writer *w, uint32_t output)
{
	struct log_output *o = w->routes.outputs[output];

	for (unsigned i = 0; i < LOG_FILES; i++) {
		const struct log_stream *s = &w->streams[i];

		for (struct log_block *b = s->first; b != s->unread; b = b->next) {
			b->lost |= b->ends[output] > log_output_written(o);
		}
	}
	log_output_abandon(o);
}

static int outputs_do_work(struct log_writer *w)
{
	bool hurry = atomic_load_explicit(&w->base.runtime->hurry, memory_order_relaxed);
	int work = 0;

	for (uint32_t i = 0; i < w->routes.output_count; i++) {
		struct log_output *o = w->routes.outputs[i];

		work += log_output_do_work(o, agent_now_ms(&w->base));
		if (o->failed && hurry && !log_output_empty(o)) {
			output_abandon(w, i);
		}
	}
	return work;
}

/* Makes sure that the writer wakes up when an output has something to do, or to try again. */
static void arm_wake(struct log_writer *w)
{
	uint64_t due_ms = log_output_host_wake_ms(&w->host);

	if (due_ms != 0 && due_ms != w->wake.due_ms) {
		timer_arm(&w->wake, due_ms);
	}
}

static void on_wake(struct timer *t)
{
	/* Waking up was all. */
	(void)t;
}

static void on_heartbeat(struct timer *t)
{
	struct log_writer *w = log_writer_of(t->owner);

	/* While the last one still waits, another one would say nothing. */
	if (w->own.outstanding == 0) {
		log_event(&w->own, &(struct event){.kind = EVENT_HEARTBEAT,
						   .time_ms = agent_wall_ms(t->owner)});
	}
	timer_arm(t, agent_now_ms(t->owner) + w->heartbeat_ms);
}

void log_writer_on_reopen(struct agent *writer, void *unused, uint64_t value)
{
	struct log_writer *w = log_writer_of(writer);

	(void)unused;
	(void)value;
	for (struct log_output *o = w->host.outputs; o != NULL; o = o->next) {
		log_output_reopen(o, agent_now_ms(writer));
	}
}

void log_writer_rotate(struct agent *writer, log_rotated_fn each, void *context)
{
	struct log_writer *w = log_writer_of(writer);

	for (struct log_output *o = w->host.outputs; o != NULL; o = o->next) {
		each(context, o, log_output_rotate(o, agent_now_ms(writer)));
	}
}

static int log_writer_start(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	timer_init(&w->heartbeat, self, on_heartbeat);
	timer_init(&w->wake, self, on_wake);
	return 0;
}

static void log_writer_start_complete(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	if (w->heartbeat_ms != 0) {
		timer_arm(&w->heartbeat, agent_now_ms(self) + w->heartbeat_ms);
	}
}

static void log_writer_stop(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	log_output_host_stop(&w->host);
	timer_cancel(&w->heartbeat);
}

static bool log_writer_drained(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	if (w->waiting_blocks != 0 || !log_client_drained(&w->own) ||
	    log_output_host_busy(&w->host)) {
		return false;
	}
	/* What failed has been given up. */
	timer_cancel(&w->wake);
	return true;
}

static void log_writer_tear_down(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);

	for (struct log_output *o = w->host.outputs; o != NULL; o = o->next) {
		log_output_sync(o);
	}
}

static int log_writer_do_work(struct agent *self)
{
	struct log_writer *w = log_writer_of(self);
	int work = 0;

	for (unsigned i = 0; i < LOG_FILES; i++) {
		stream_read(&w->routes, &w->streams[i], (enum log_file)i);
	}
	work += outputs_do_work(w);
	for (unsigned i = 0; i < LOG_FILES; i++) {
		work += stream_give_back(w, &w->streams[i]);
	}
	arm_wake(w);
	log_client_flush(&w->own);
	return work;
}

static const struct agent_ops log_writer_ops = {
	.kind = "log",
	.start = log_writer_start,
	.start_complete = log_writer_start_complete,
	.do_work = log_writer_do_work,
	.stop = log_writer_stop,
	.drained = log_writer_drained,
	.tear_down = log_writer_tear_down,
};

/* 0, or a negative errno that has been reported. */
static int open_outputs(struct log_writer *w, const struct log_options *options, FILE *errors)
{
	if (mkdir(options->path, 0755) != 0 && errno != EEXIST) {
		int rc = -errno;

		fprintf(errors, "cannot make log directory %s: %s\n", options->path, strerror(-rc));
		return rc;
	}
	w->host.journals = options->journals;
	w->host.journal_count = options->journal_count;
	return log_routes_open(&w->routes, &w->host, options, errors);
}

static void init_counters(struct log_writer *w)
{
	struct counter_set *set = w->base.counters;

	w->blocks = counter_create(set, "blocks", COUNTER_SUM, "Blocks of log records taken");
	w->waiting = counter_create(set, "waiting", COUNTER_GAUGE, "Blocks not yet written");
	w->waiting_max = counter_create(set, "waiting_max", COUNTER_MAX,
					"Most blocks that ever waited to be written");
}

struct log_writer *log_writer_create(const char *name, const struct log_options *options,
				     FILE *errors)
{
	struct log_writer *w = aligned_alloc(CACHE_LINE, sizeof(*w));

	if (w == NULL) {
		fatal("out of memory for agent %s", name);
	}
	memset(w, 0, sizeof(*w));
	w->magic = LOG_WRITER_MAGIC;
	w->heartbeat_ms = options->heartbeat_ms;
	agent_init(&w->base, &log_writer_ops, name, STOP_PHASE);
	init_counters(w);
	log_output_host_init(&w->host, &w->base, options->path, &options->rotation);
	log_client_init(&w->own, &w->base, &w->base);
	for (unsigned i = 0; i < LOG_FILES; i++) {
		w->streams[i].last = &w->streams[i].first;
	}
	/* Journals may have something to say as they are opened. */
	w->base.errors.on_new = on_new_error;
	if (open_outputs(w, options, errors) != 0) {
		log_writer_destroy(w);
		return NULL;
	}
	return w;
}

void log_writer_set_jobs(struct log_writer *w, struct thread_pool *pool)
{
	w->host.jobs = pool;
}

struct agent *log_writer_agent(struct log_writer *w)
{
	return &w->base;
}

void log_writer_destroy(struct log_writer *w)
{
	if (w == NULL) {
		return;
	}
	CHECK_MAGIC(w, LOG_WRITER_MAGIC);
	log_client_close(&w->own);
	log_routes_close(&w->routes);
	log_output_host_close(&w->host);
	agent_close(&w->base);
	w->magic = 0;
	free(w);
}
