#include "config/pattern.h"

#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"

/* Steps of one match; some milliseconds. */
enum { MATCH_LIMIT = 100000, PROBE_LEN = 250, BODY_MAX = 1024 };

bool pattern_is(const char *instance)
{
	return instance[0] == '/';
}

/* The expression between the slashes; 0: there is none. */
static size_t body_len(const char *instance)
{
	size_t len = strlen(instance);

	if (len > 3 && strcmp(instance + len - 2, "/i") == 0) {
		return len - 3;
	}
	return len > 2 && instance[len - 1] == '/' ? len - 2 : 0;
}

const char *pattern_check(const char *instance)
{
	size_t len = body_len(instance);

	if (len == 0) {
		return "is no regular expression between slashes";
	}
	return len > BODY_MAX ? "is longer than 1024 bytes" : NULL;
}

static pcre2_match_context *limits_new(void)
{
	pcre2_match_context *limits = pcre2_match_context_create(NULL);

	if (limits == NULL) {
		fatal("configuration: out of memory");
	}
	pcre2_set_match_limit(limits, MATCH_LIMIT);
	return limits;
}

static pcre2_match_data *match_new(void)
{
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);

	if (match == NULL) {
		fatal("configuration: out of memory");
	}
	return match;
}

/* Whether it takes too long for `unit` again and again, and then what is no domain: that the
 * expression itself stands there lets nobody see early that a letter is missing. */
static bool is_slow_for(const struct config *config, const pcre2_code *code,
			const struct tree_scope *scope, const char *unit)
{
	char text[PROBE_LEN + BODY_MAX + 8];
	size_t len = 0;
	pcre2_match_data *match = match_new();

	while (len < PROBE_LEN) {
		text[len] = unit[len % strlen(unit)];
		len++;
	}
	len += (size_t)snprintf(text + len, sizeof(text) - len, "!%s", scope->instance);
	int rc = pcre2_match(code, (PCRE2_SPTR)text, len, 0, 0, match, config->pattern_limits);
	pcre2_match_data_free(match);
	return rc < 0 && rc != PCRE2_ERROR_NOMATCH;
}

/* Tries what expressions with nested repetitions go through in very many ways: letters that they
 * have in them, and some more. */
static bool is_slow(const struct config *config, const pcre2_code *code,
		    const struct tree_scope *scope)
{
	static const char *const units[] = {"a", "1", "a.", "a-", "ab", "a1"};
	bool slow = false;

	for (size_t i = 0; !slow && i < sizeof(units) / sizeof(units[0]); i++) {
		slow = is_slow_for(config, code, scope, units[i]);
	}
	for (char c = 'a'; !slow && c <= 'z'; c++) {
		char unit[] = {c, '\0'};

		slow = strchr(scope->instance, c) != NULL && is_slow_for(config, code, scope, unit);
	}
	return slow;
}

static pcre2_code *compile(struct builder *b, const struct tree_scope *scope)
{
	char why[256] = "";
	int error;
	PCRE2_SIZE at;
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)scope->instance + 1, body_len(scope->instance),
					 PCRE2_CASELESS | PCRE2_DOLLAR_ENDONLY, &error, &at, NULL);

	if (code == NULL) {
		pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof(why));
		report_error(b->report, scope->source,
			     "scope domain \"%.200s\": %s, at byte %zu; expected a regular "
			     "expression as PCRE has them",
			     scope->instance, why, (size_t)at);
		return NULL;
	}
	/* Without it they are slower, no more. */
	(void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
	if (is_slow(b->config, code, scope)) {
		report_error(b->report, scope->source,
			     "scope domain \"%.200s\": takes too long; expected a regular "
			     "expression without repetitions of repetitions",
			     scope->instance);
	}
	return code;
}

static struct pattern_set *set_of(const struct config *config, const struct tree_scope *parent)
{
	struct pattern_set *set = config->patterns;

	while (set != NULL && set->parent != parent) {
		set = set->next;
	}
	return set;
}

static void add(struct config *config, const struct tree_scope *scope, pcre2_code *code)
{
	struct arena *arena = &config->tree.arena;
	struct pattern *pattern = arena_alloc(arena, sizeof(*pattern), _Alignof(struct pattern));
	struct pattern_set *set = set_of(config, scope->parent);

	if (set == NULL) {
		set = arena_alloc(arena, sizeof(*set), _Alignof(struct pattern_set));
		set->parent = scope->parent;
		set->next = config->patterns;
		config->patterns = set;
	}
	*pattern = (struct pattern){.scope = scope, .code = code};
	*(set->last != NULL ? &set->last->next : &set->first) = pattern;
	set->last = pattern;
}

static void build_in(struct builder *b, const struct tree_scope *parent)
{
	for (const struct tree_scope *s = parent->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_BINDING || s->kind == SCOPE_BINDING_GROUP) {
			build_in(b, s);
		} else if (s->kind == SCOPE_DOMAIN && pattern_is(s->instance)) {
			pcre2_code *code = compile(b, s);

			if (code != NULL) {
				add(b->config, s, code);
			}
		}
	}
}

void patterns_build(struct builder *b)
{
	b->config->pattern_limits = limits_new();
	b->config->pattern_failures =
		arena_alloc(&b->config->tree.arena, sizeof(*b->config->pattern_failures),
			    _Alignof(_Atomic uint64_t));
	build_in(b, b->config->tree.root);
}

void patterns_free(struct config *config)
{
	for (struct pattern_set *set = config->patterns; set != NULL; set = set->next) {
		for (struct pattern *p = set->first; p != NULL; p = p->next) {
			pcre2_code_free(p->code);
		}
	}
	pcre2_match_context_free(config->pattern_limits);
}

const struct tree_scope *pattern_find(const struct config *config, const struct tree_scope *parent,
				      const char *domain, size_t len)
{
	const struct pattern_set *set = config->patterns == NULL ? NULL : set_of(config, parent);
	const struct tree_scope *found = NULL;
	pcre2_match_data *match;

	if (set == NULL) {
		return NULL;
	}
	match = match_new();
	for (const struct pattern *p = set->first; p != NULL && found == NULL; p = p->next) {
		int rc = pcre2_match(p->code, (PCRE2_SPTR)domain, len, 0, 0, match,
				     config->pattern_limits);

		if (rc >= 0) {
			found = p->scope;
		} else if (rc != PCRE2_ERROR_NOMATCH) {
			atomic_fetch_add_explicit(config->pattern_failures, 1,
						  memory_order_relaxed);
		}
	}
	pcre2_match_data_free(match);
	return found;
}

uint64_t config_pattern_failures(const struct config *config)
{
	return config->pattern_failures == NULL
		       ? 0
		       : atomic_load_explicit(config->pattern_failures, memory_order_relaxed);
}
