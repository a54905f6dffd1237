#include "config/config.h"

#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/generation.h"
#include "config/parser.h"
#include "core/runtime/check.h"

static struct config *config_new(void)
{
	struct config *config = calloc(1, sizeof(*config));
	if (config == NULL) {
		fatal("configuration: out of memory");
	}
	config->magic = CONFIG_MAGIC;
	atomic_init(&config->references, 1);
	tree_init(&config->tree);
	intern_init(&config->shared, &config->tree.arena, _Alignof(max_align_t));
	return config;
}

static void config_free(struct config *config)
{
	domains_free(config);
	dkim_free(config);
	tls_free(config);
	logs_free(config);
	free(config->throttles);
	intern_free(&config->shared);
	tree_free(&config->tree);
	config->magic = 0;
	free(config);
}

/* The tree is parsed: give it meaning, or give it up. */
static struct config *finish(struct config *config, struct report *report)
{
	build_generation(config, report);
	report_close(report);
	if (report->errors != 0) {
		config_release(config);
		return NULL;
	}
	return config;
}

struct config *config_load(const char *path, FILE *errors)
{
	struct config *config = config_new();
	struct report report = {.out = errors, .tree = &config->tree};
	if (parser_load_file(&config->tree, &report, path) != 0) {
		report_close(&report);
		config_release(config);
		return NULL;
	}
	return finish(config, &report);
}

struct config *config_load_text(const char *path, const char *text, size_t len, FILE *errors)
{
	struct config *config = config_new();
	struct report report = {.out = errors, .tree = &config->tree};
	parser_load_text(&config->tree, &report, path, text, len);
	return finish(config, &report);
}

struct config *config_hold(struct config *config)
{
	CHECK_MAGIC(config, CONFIG_MAGIC);
	atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
	return config;
}

void config_release(struct config *config)
{
	CHECK_MAGIC(config, CONFIG_MAGIC);
	/* What others did with the generation comes before its end: each release pairs with the
	 * acquire of the last one. */
	if (atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) == 1) {
		config_free(config);
	}
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
	return config->throttles[index];
}
