#include "config/config.h"

#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/generation.h"
#include "config/overlay.h"
#include "config/parser.h"
#include "config/pattern.h"
#include "config/search.h"
#include "core/runtime/check.h"

struct config *config_new(void)
{
	struct config *config = check_memory(calloc(1, sizeof(*config)), "the configuration");
	config->magic = CONFIG_MAGIC;
	atomic_init(&config->references, 1);
	tree_init(&config->tree);
	intern_init(&config->shared, &config->tree.arena, _Alignof(max_align_t));
	return config;
}

static void config_free(struct config *config)
{
	domains_free(config);
	patterns_free(config);
	dkim_free(config);
	policy_scripts_close(&config->scripts);
	free(config->sources);
	tls_free(config);
	logs_free(config);
	for (uint32_t i = 0; i < config->throttle_count; i++) {
		throttle_close(config->throttles[i].throttle);
	}
	free(config->throttles);
	intern_free(&config->shared);
	tree_free(&config->tree);
	config->magic = 0;
	free(config);
}

struct config *config_finish(struct config *config, struct report *report)
{
	build_generation(config, report);
	report_close(report);
	if (report->errors != 0) {
		config_release(config);
		return NULL;
	}
	return config;
}

/* As they are now, before others come to the tree. */
static void keep_files(struct config *config, const struct tree_file *files, uint32_t count)
{
	struct arena *arena = &config->tree.arena;
	struct tree_file *kept =
		arena_alloc(arena, count * sizeof(*kept), _Alignof(struct tree_file));
	for (uint32_t i = 0; i < count; i++) {
		kept[i] = files[i];
		kept[i].path = arena_text(arena, files[i].path, strlen(files[i].path));
	}
	config->files = kept;
	config->file_count = count;
}

void config_copy_origin(struct config *to, const struct config *from)
{
	struct arena *arena = &to->tree.arena;
	keep_files(to, from->files, from->file_count);
	if (from->path != NULL) {
		to->path = arena_text(arena, from->path, strlen(from->path));
		to->node = arena_text(arena, from->node, strlen(from->node));
	}
}

/* Into the tree. 0 when the main file could be read. */
static int parse_files(struct config *config, struct report *report,
		       const struct config_source *source)
{
	struct tree *tree = &config->tree;
	struct search search;
	char why[SEARCH_WHY];
	int rc = search_init(&search, source->path, source->node, why);

	config->path = arena_text(&tree->arena, source->path, strlen(source->path));
	config->node = arena_text(&tree->arena, search.node, strlen(search.node));
	tree->search = &search;
	int read = parser_load_file(tree, report, source->path);
	tree->search = NULL;
	if (read == 0 && rc != 0) {
		report_error(report, (struct source){0}, "%s", why);
	}
	search_free(&search);
	return read;
}

struct config *config_load_texts(const struct config_source *source,
				 const struct tree_file_text *texts, uint32_t text_count,
				 FILE *errors)
{
	struct config *config = config_new();
	struct report report = {.out = errors, .tree = &config->tree};
	config->tree.texts = texts;
	config->tree.text_count = text_count;
	int rc = parse_files(config, &report, source);
	config->tree.text_count = 0;
	if (rc != 0) {
		report_close(&report);
		config_release(config);
		return NULL;
	}
	keep_files(config, config->tree.files, config->tree.file_count);
	if (source->overlay != NULL) {
		overlay_apply(source->overlay, &config->tree);
	}
	return config_finish(config, &report);
}

struct config *config_load_from(const struct config_source *source, FILE *errors)
{
	return config_load_texts(source, NULL, 0, errors);
}

struct config *config_load(const char *path, FILE *errors)
{
	struct config_source source = {.path = path};
	return config_load_from(&source, errors);
}

struct config *config_load_again(const struct config *config, const struct overlay *overlay,
				 FILE *errors)
{
	struct config_source source = {
		.path = config->path,
		.node = config->node,
		.overlay = overlay,
	};
	ASSERT(config->path != NULL);
	return config_load_from(&source, errors);
}

struct config *config_load_text(const char *path, const char *text, size_t len, FILE *errors)
{
	struct config *config = config_new();
	struct report report = {.out = errors, .tree = &config->tree};
	parser_load_text(&config->tree, &report, path, text, len);
	keep_files(config, config->tree.files, config->tree.file_count);
	return config_finish(config, &report);
}

struct config *config_hold(struct config *config)
{
	CHECK_MAGIC(config, CONFIG_MAGIC);
	atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
	return config;
}

void config_release(struct config *config)
{
	if (config == NULL) {
		return;
	}
	CHECK_MAGIC(config, CONFIG_MAGIC);
	/* What others did with the generation comes before its end: each release pairs with the
	 * acquire of the last one. */
	if (atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) == 1) {
		config_free(config);
	}
}

uint32_t config_file_count(const struct config *config)
{
	return config->file_count;
}

const char *config_file(const struct config *config, uint32_t index)
{
	ASSERT(index < config->file_count);
	return config->files[index].path;
}

uint32_t config_references(const struct config *config)
{
	return atomic_load_explicit(&config->references, memory_order_acquire);
}

void config_set_number(struct config *config, uint64_t number, uint64_t since_ms)
{
	config->number = number;
	config->since_ms = since_ms;
}

uint64_t config_number(const struct config *config)
{
	return config->number;
}

uint64_t config_since_ms(const struct config *config)
{
	return config->since_ms;
}

const char *config_path(const struct config *config)
{
	return config->path != NULL ? config->path : config_file(config, 0);
}

const struct global_options *config_global(const struct config *config)
{
	return &config->global;
}

const struct agent_options *config_agent(const struct config *config, enum config_agent agent)
{
	ASSERT(agent < CONFIG_AGENTS);
	return &config->agents[agent];
}

const struct group_options *config_group(const struct config *config, const char *name)
{
	for (uint32_t i = 0; i < config->group_count; i++) {
		if (strcmp(config->groups[i].name, name) == 0) {
			return &config->groups[i];
		}
	}
	return NULL;
}

uint32_t config_group_count(const struct config *config)
{
	return config->group_count;
}

const struct group_options *config_group_at(const struct config *config, uint32_t index)
{
	ASSERT(index < config->group_count);
	return &config->groups[index];
}

uint32_t config_smtp_listen_count(const struct config *config)
{
	return config->smtp_listen_count;
}

const struct listen_options *config_smtp_listen(const struct config *config, uint32_t index)
{
	ASSERT(index < config->smtp_listen_count);
	return &config->smtp_listens[index].options;
}

bool config_smtp_listen_find(const struct config *config, const struct listen_options *same,
			     uint32_t *index)
{
	for (uint32_t i = 0; i < config->smtp_listen_count; i++) {
		if (config_same_address(&config->smtp_listens[i].options, same)) {
			*index = i;
			return true;
		}
	}
	return false;
}

uint32_t config_control_listen_count(const struct config *config)
{
	return config->control_listen_count;
}

const struct listen_options *config_control_listen(const struct config *config, uint32_t index)
{
	ASSERT(index < config->control_listen_count);
	return &config->control_listens[index];
}

uint32_t config_throttle_count(const struct config *config)
{
	return config->throttle_count;
}

const struct throttle *config_throttle(const struct config *config, uint32_t index)
{
	ASSERT(index < config->throttle_count);
	return config->throttles[index].throttle;
}

const struct policy_source *config_source(const struct config *config, const char *name)
{
	for (uint32_t i = 0; i < config->source_count; i++) {
		if (strcmp(config->sources[i].name, name) == 0) {
			return &config->sources[i];
		}
	}
	return NULL;
}

const struct policy_scripts *config_scripts(const struct config *config)
{
	return &config->scripts;
}
