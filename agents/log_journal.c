#include "agents/log_journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log/jlog_writer.h"
#include "core/runtime/check.h"

BOUND
struct log_journal {
	struct log_output base;
	struct jlog_writer *writer;
	struct jlog_options options;
	/* Counts of writers that were closed by a reopening. */
	struct jlog_writer_counts before;
	struct counter *segments;
	struct counter *removed;
	struct counter *dropped;
	struct counter *syncs;
};

static struct log_journal *log_journal_of(struct log_output *o)
{
	return CONTAINER_OF(o, struct log_journal, base);
}

/* The clock of the agent's duty cycle: no call for each record. */
static void log_journal_frame(struct log_output *o, char *record, size_t len)
{
	jlog_put_header(record - JLOG_HEADER_BYTES, (uint32_t)len,
			o->host->agent->now.wall_ns / 1000);
}

static void count(struct log_journal *j)
{
	const struct jlog_writer_counts *c = jlog_writer_counts(j->writer);

	counter_set_value(j->segments, j->before.segments + c->segments);
	counter_set_value(j->removed, j->before.removed_segments + c->removed_segments);
	counter_set_value(j->dropped, j->before.dropped_subscribers + c->dropped_subscribers);
	counter_set_value(j->syncs, j->before.syncs + c->syncs);
}

/* One buffer at a time: its records lie in it as they will on disk. */
static ssize_t log_journal_write(struct log_output *o)
{
	struct log_journal *j = log_journal_of(o);
	struct iovec records;
	ssize_t n;

	if (log_output_gather(o, &records, 1, UINT64_MAX) == 0) {
		return 0;
	}
	n = jlog_writer_write(j->writer, records.iov_base, records.iov_len);
	count(j);
	return n;
}

/* For who has moved the directory away. */
static int log_journal_reopen(struct log_output *o)
{
	struct log_journal *j = log_journal_of(o);
	const struct jlog_writer_counts *c = jlog_writer_counts(j->writer);
	struct jlog_writer *fresh;
	int rc = jlog_writer_open(&fresh, &j->options);

	if (rc != 0) {
		return rc;
	}
	j->before.segments += c->segments;
	j->before.removed_segments += c->removed_segments;
	j->before.dropped_subscribers += c->dropped_subscribers;
	j->before.syncs += c->syncs;
	(void)jlog_writer_close(j->writer);
	j->writer = fresh;
	count(j);
	return 0;
}

static int log_journal_sync(struct log_output *o)
{
	struct log_journal *j = log_journal_of(o);

	return j->options.safety == JLOG_UNSAFE ? 0 : jlog_writer_sync(j->writer);
}

static void log_journal_close(struct log_output *o)
{
	struct log_journal *j = log_journal_of(o);

	(void)jlog_writer_close(j->writer);
	log_output_free(o);
	free(j);
}

static void on_event(void *context, enum jlog_event event, const char *text)
{
	const struct log_journal *j = context;

	(void)event;
	agent_error(j->base.host->agent, 0, "journal %s: %s", j->base.path, text);
}

static const struct log_output_ops log_journal_ops = {
	.kind = "journal",
	.head = JLOG_HEADER_BYTES,
	.frame = log_journal_frame,
	.write = log_journal_write,
	.reopen = log_journal_reopen,
	.sync = log_journal_sync,
	.close = log_journal_close,
};

static struct jlog_options options_of(const struct log_output_host *h, const char *name)
{
	struct jlog_options options = {
		.segment_bytes = LOG_JOURNAL_SEGMENT_BYTES,
		.limit_bytes = LOG_JOURNAL_LIMIT_BYTES,
		.safety = JLOG_ALMOST_SAFE,
	};

	for (uint32_t i = 0; i < h->journal_count; i++) {
		const struct log_journal_options *o = &h->journals[i];

		if (strcmp(o->name, name) == 0) {
			options.segment_bytes = o->segment_bytes;
			options.limit_bytes = o->limit_bytes;
			options.safety = o->safety;
			options.subscribers = o->subscribers;
			options.subscriber_count = o->subscriber_count;
		}
	}
	return options;
}

static void init_counters(struct log_journal *j)
{
	struct counter_set *set = j->base.counters;

	j->segments =
		counter_create(set, "segments", COUNTER_SUM, "Segments begun or gone on with");
	j->removed = counter_create(set, "removed_segments", COUNTER_SUM,
				    "Segments removed as nobody needed them any more");
	j->dropped = counter_create(set, "dropped_subscribers", COUNTER_SUM,
				    "Subscribers dropped as they were too far behind");
	j->syncs = counter_create(set, "syncs", COUNTER_SUM, "Syncs of the journal to the disk");
}

int log_journal_open(struct log_output **out, struct log_output_host *h, const char *name,
		     FILE *errors)
{
	struct log_journal *j = calloc(1, sizeof(*j));
	int rc;

	if (j == NULL) {
		fatal("out of memory for journal %s", name);
	}
	log_output_init(&j->base, &log_journal_ops, h, name);
	init_counters(j);
	j->options = options_of(h, name);
	j->options.path = j->base.path;
	j->options.report = (struct jlog_report){.say = on_event, .context = j};
	rc = jlog_writer_open(&j->writer, &j->options);
	if (rc != 0) {
		fprintf(errors, "cannot open journal %s: %s\n", j->base.path,
			rc == -EPROTONOSUPPORT ? "its records are compressed" : strerror(-rc));
		log_journal_close(&j->base);
		return rc;
	}
	count(j);
	*out = &j->base;
	return 0;
}
