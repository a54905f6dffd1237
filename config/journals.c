/*
 * How journals are to be, and that there are such: a stanza says nothing of a destination that no
 * log has.
 */
#include <inttypes.h>
#include <string.h>

#include "config/build.h"
#include "config/word.h"
#include "core/log/destination.h"

/* Segments that a journal at its limit has at least: what is kept then goes in such steps. */
#define SEGMENTS_OF_LIMIT 10

static bool is_named(const char *const *destinations, uint32_t count, const char *journal)
{
	for (uint32_t i = 0; i < count; i++) {
		if (destinations[i] != NULL && log_destination_is_journal(destinations[i]) &&
		    strcmp(log_destination_name(destinations[i]), journal) == 0) {
			return true;
		}
	}
	return false;
}

static bool has_log(const struct config *config, const char *journal)
{
	for (unsigned i = 0; i < LOG_FILES; i++) {
		const struct log_destinations *d = &config->global.logs[i];

		if (is_named(d->names, d->count, journal)) {
			return true;
		}
	}
	for (uint32_t i = 0; i < config->custom_logger_count; i++) {
		if (is_named(config->custom_loggers[i].destinations, CUSTOM_STAGES, journal)) {
			return true;
		}
	}
	return false;
}

/* The usual one, or as the limit allows. */
static void imply_segment_size(struct builder *b, struct tree_scope *scope,
			       struct log_journal_options *o)
{
	char text[32];

	o->segment_bytes = JOURNAL_SEGMENT_BYTES;
	if (o->limit_bytes != 0 && o->segment_bytes > o->limit_bytes / SEGMENTS_OF_LIMIT) {
		o->segment_bytes = (uint32_t)(o->limit_bytes / SEGMENTS_OF_LIMIT);
	}
	word_format_size(o->segment_bytes, text, sizeof(text));
	assign_implied(b, scope, "segment_size", text, SOURCE_DEFAULT);
}

static void check_sizes(struct builder *b, struct tree_scope *scope, struct log_journal_options *o)
{
	const struct tree_option *segment = tree_option_find(scope, "segment_size");
	const struct tree_option *limit = tree_option_find(scope, "size_limit");
	char text[32];

	if (o->limit_bytes != 0 && o->limit_bytes < SEGMENTS_OF_LIMIT * JOURNAL_SEGMENT_BYTES_MIN) {
		word_format_size(SEGMENTS_OF_LIMIT * JOURNAL_SEGMENT_BYTES_MIN, text, sizeof(text));
		report_error(b->report, limit->value.source,
			     "option \"size_limit\": too small; expected at least %s, or 0 for "
			     "none",
			     text);
	} else if (segment == NULL) {
		imply_segment_size(b, scope, o);
	} else if (o->limit_bytes != 0 && o->segment_bytes > o->limit_bytes / SEGMENTS_OF_LIMIT) {
		/* In a unit that people write. */
		word_format_size(o->limit_bytes / SEGMENTS_OF_LIMIT / 1024 * 1024, text,
				 sizeof(text));
		report_error(
			b->report, segment->value.source,
			"option \"segment_size\": more than a tenth of size_limit; expected at "
			"most %s, or a larger size_limit",
			text);
	}
}

static void check_subscribers(struct builder *b, const struct tree_scope *scope,
			      const struct log_journal_options *o)
{
	const struct tree_option *option = tree_option_find(scope, "subscribers");

	for (uint32_t i = 0; i < o->subscriber_count; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (strcmp(o->subscribers[i], o->subscribers[k]) == 0) {
				report_error(b->report, option->value.source,
					     "option \"subscribers\": \"%.126s\" is named twice; "
					     "expected each once",
					     o->subscribers[i]);
			}
		}
	}
}

static void build_journal(struct builder *b, struct tree_scope *scope,
			  struct log_journal_options *o)
{
	struct targets targets = {.base = {[TARGET_JOURNAL] = o}};

	*o = (struct log_journal_options){.name = scope->instance};
	assign_missing(b, scope, TARGET_BIT(TARGET_JOURNAL));
	assign_scope(b, scope, &targets);
	check_sizes(b, scope, o);
	check_subscribers(b, scope, o);
	if (!has_log(b->config, o->name)) {
		report_warning(b->report, scope->source,
			       "scope journal \"%.100s\": no log goes there; expected a "
			       "destination \"jlog:%.100s\", or \"json:NAME.jlog\"",
			       o->name, o->name);
	}
}

void journals_build(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	uint32_t count = 0;

	for (const struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_JOURNAL;
	}
	config->journals =
		arena_alloc(&config->tree.arena, count * sizeof(struct log_journal_options),
			    _Alignof(struct log_journal_options));
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_JOURNAL) {
			build_journal(b, s, &config->journals[config->journal_count++]);
		}
	}
}

const struct log_journal_options *config_journals(const struct config *config, uint32_t *count)
{
	*count = config->journal_count;
	return config->journals;
}
