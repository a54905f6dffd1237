/*
 * Where the logs go: no two of them into one file, but for JSON, whose objects say what they are;
 * custom loggers with their formats compiled; and what has to be captured of messages' headers for
 * them.
 */
#include <stdio.h>
#include <string.h>

#include "config/build.h"
#include "core/log/destination.h"

/* Who writes to a file: a log, or a custom logger. */
struct taken {
	const char *path;
	const char *destination;
	const void *owner;
};

struct logs {
	struct builder *builder;
	struct taken taken[LOG_DESTINATIONS_MAX];
	uint32_t count;
};

static const char *const log_names[LOG_FILES] = {
	[LOG_MAIN] = "main",     [LOG_REJECT] = "reject", [LOG_PANIC] = "panic",
	[LOG_BOUNCE] = "bounce", [LOG_FEEDBACK] = "fbl",  [LOG_ACCT] = "acct",
};
static const char *const stage_names[CUSTOM_STAGES] = {
	[CUSTOM_RECEPTION] = "reception",         [CUSTOM_DELIVERY] = "delivery",
	[CUSTOM_TRANSIENT] = "transient_failure", [CUSTOM_PERMANENT] = "permanent_failure",
	[CUSTOM_REJECTION] = "rejection",
};

/* ---- destinations ---- */

/* The path that a destination is in the end. */
static const char *path_of(struct logs *l, const char *destination)
{
	struct config *config = l->builder->config;
	const char *name = log_destination_name(destination);
	char path[2048];

	if (name[0] == '/') {
		return name;
	}
	snprintf(path, sizeof(path), "%s/%s", config->global.log_path, name);
	return tree_text(&config->tree, path, strlen(path));
}

static bool is_json(const char *destination)
{
	return strncmp(destination, "json:", 5) == 0;
}

/* What `owner` may not do with `destination`, or NULL. */
static const char *take(struct logs *l, const char *destination, const void *owner, bool shared)
{
	const char *path = path_of(l, destination);

	for (uint32_t i = 0; i < l->count; i++) {
		const struct taken *t = &l->taken[i];

		if (strcmp(t->path, path) != 0) {
			continue;
		}
		if (t->owner == owner && !shared) {
			return "is named twice";
		}
		if (t->owner != owner && (!is_json(destination) || !is_json(t->destination))) {
			return "is another log's already";
		}
		/* One output has one name. */
		return strcmp(destination, t->destination) == 0 ? NULL : "is spelled in two ways";
	}
	if (l->count == LOG_DESTINATIONS_MAX) {
		return "is one too many, there may be 32";
	}
	l->taken[l->count++] = (struct taken){path, destination, owner};
	return NULL;
}

static void refuse(struct logs *l, struct source source, const char *option,
		   const char *destination, const char *problem, const char *expected)
{
	report_error(l->builder->report, source, "option \"%s\": \"%.100s\" %s; expected %s",
		     option, destination, problem, expected);
}

static void check_log(struct logs *l, const struct tree_scope *scope, enum log_file log)
{
	const struct tree_option *option = tree_option_find(scope, log_names[log]);
	const struct tree_value *v =
		option->value.kind == TREE_LIST ? option->value.first : &option->value;
	const struct log_destinations *d = &l->builder->config->global.logs[log];

	/* The values are those of the list, unless it was wrong, which was said. */
	for (uint32_t i = 0; i < d->count && v != NULL; i++, v = v->next) {
		const char *problem = take(l, d->names[i], d, false);

		if (problem != NULL) {
			refuse(l, v->source, log_names[log], d->names[i], problem,
			       "a file of its own");
		} else if (log == LOG_PANIC && is_json(d->names[i])) {
			refuse(l, v->source, log_names[log], d->names[i], "is JSON",
			       "a destination for text such as \"file:paniclog\"");
		}
	}
}

/* ---- custom loggers ---- */

/* Remembers that the field of this key is to be captured. */
static bool capture(struct config *config, const char *key)
{
	for (uint32_t i = 0; i < config->captured_count; i++) {
		if (strcmp(config->captured[i], key) == 0) {
			return true;
		}
	}
	if (config->captured_count == CAPTURED_MAX) {
		return false;
	}
	config->captured[config->captured_count++] = tree_text(&config->tree, key, strlen(key));
	return true;
}

static void capture_headers(struct logs *l, struct source source, const struct event_macro *m,
			    const char *option)
{
	const char *key;

	for (uint32_t i = 0; (key = event_macro_header(m, i)) != NULL; i++) {
		if (!capture(l->builder->config, key)) {
			report_error(l->builder->report, source,
				     "option \"%s\": one header field too many for all logs; "
				     "expected at most %u",
				     option, CAPTURED_MAX);
			return;
		}
	}
}

static struct source source_of(const struct tree_scope *scope, const char *name)
{
	const struct tree_option *option = tree_option_find(scope, name);

	return option != NULL ? option->value.source : scope->source;
}

/* Where a stage goes that has a format. */
static void build_destination(struct logs *l, const struct tree_scope *scope,
			      const struct custom_settings *settings, struct custom_logger *logger,
			      enum custom_stage stage)
{
	const char *own = settings->logfile[stage];
	const char *destination = own != NULL ? own : settings->mainlog;
	const char *problem;
	char option[64];

	snprintf(option, sizeof(option), "%s_logfile", stage_names[stage]);
	if (destination == NULL) {
		report_error(l->builder->report, source_of(scope, option),
			     "option \"%s\": missing; expected it, or mainlog", option);
		return;
	}
	if (own == NULL) {
		snprintf(option, sizeof(option), "mainlog");
	}
	problem = is_json(destination) ? "is JSON" : take(l, destination, logger, true);
	if (problem != NULL) {
		refuse(l, source_of(scope, option), option, destination, problem,
		       "a file of its own such as \"file:my.log\"");
	}
	logger->destinations[stage] = destination;
}

static void build_stage(struct logs *l, const struct tree_scope *scope,
			const struct custom_settings *settings, struct custom_logger *logger,
			enum custom_stage stage)
{
	struct event_macro *macro;
	char why[EVENT_MACRO_WHY];
	char option[64];

	if (settings->format[stage] == NULL) {
		return;
	}
	snprintf(option, sizeof(option), "%s_format", stage_names[stage]);
	macro = event_macro_compile(settings->format[stage], why);
	if (macro == NULL) {
		report_error(l->builder->report, source_of(scope, option),
			     "option \"%s\": %s; expected text with macros such as %%i or %%r",
			     option, why);
		return;
	}
	logger->macros[stage] = macro;
	capture_headers(l, source_of(scope, option), macro, option);
	build_destination(l, scope, settings, logger, stage);
}

static void build_logger(struct logs *l, struct tree_scope *scope, struct custom_logger *logger)
{
	struct custom_settings settings = {0};
	struct targets targets = {.base = {[TARGET_CUSTOM] = &settings}};
	bool any = false;

	assign_missing(l->builder, scope, TARGET_BIT(TARGET_CUSTOM));
	assign_scope(l->builder, scope, &targets);
	*logger = (struct custom_logger){.name = scope->instance};
	event_sanitizer_init(&logger->sanitizer);
	for (uint32_t i = 0; i < settings.sanitize_count; i++) {
		event_sanitizer_add(&logger->sanitizer, settings.sanitize[i]);
	}
	for (unsigned stage = 0; stage < CUSTOM_STAGES; stage++) {
		any |= settings.format[stage] != NULL;
		build_stage(l, scope, &settings, logger, (enum custom_stage)stage);
	}
	if (!any) {
		report_warning(l->builder->report, scope->source,
			       "scope custom_logger \"%.100s\": logs nothing; expected a format "
			       "such as delivery_format",
			       scope->instance);
	}
}

void logs_build(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	const struct tree_scope *scope = tree_scope_find(
		&config->tree, root, tree_text(&config->tree, "log", strlen("log")), NULL);
	struct logs l = {.builder = b};
	uint32_t count = 0;

	for (unsigned i = 0; i < LOG_FILES; i++) {
		check_log(&l, scope, (enum log_file)i);
	}
	for (uint32_t i = 0; i < config->global.context_header_count; i++) {
		if (!capture(config, config->global.context_headers[i])) {
			report_error(b->report, source_of(scope, "context_headers"),
				     "option \"context_headers\": too many; expected at most %u",
				     CAPTURED_MAX);
			break;
		}
	}
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_CUSTOM_LOGGER;
	}
	config->custom_loggers =
		arena_alloc(&config->tree.arena, count * sizeof(struct custom_logger),
			    _Alignof(struct custom_logger));
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_CUSTOM_LOGGER) {
			build_logger(&l, s, &config->custom_loggers[config->custom_logger_count++]);
		}
	}
}

void logs_free(struct config *config)
{
	for (uint32_t i = 0; i < config->custom_logger_count; i++) {
		for (unsigned stage = 0; stage < CUSTOM_STAGES; stage++) {
			event_macro_free(
				(struct event_macro *)config->custom_loggers[i].macros[stage]);
		}
	}
}

const struct custom_logger *config_custom_loggers(const struct config *config, uint32_t *count)
{
	*count = config->custom_logger_count;
	return config->custom_loggers;
}

const char *const *config_captured(const struct config *config, uint32_t *count)
{
	*count = config->captured_count;
	return config->captured;
}
