#include "config/assign.h"

#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/parser.h"
#include "config/word.h"
#include "core/log/destination.h"
#include "core/log/event_macro.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

/* Next hops are tried one after the other: nobody waits for more. */
enum { GATEWAYS_MAX = 64, HOST_BYTES = 256 };

/* One option of one scope on its way into `base`. */
struct assignment {
	struct builder *builder;
	const struct tree_scope *scope;
	const struct schema_option *option;
	void *base;
	/* The same option comes again in the same scope: this value is checked and not used. */
	bool superseded;
};

static void *field(const struct assignment *a)
{
	return (char *)a->base + a->option->offset;
}

static struct arena *arena_of(const struct assignment *a)
{
	return &a->builder->config->tree.arena;
}

/* The field has the width that its struct gives it. */
static void put_integer(const struct assignment *a, uint64_t value)
{
	uint8_t u8 = (uint8_t)value;
	uint16_t u16 = (uint16_t)value;
	uint32_t u32 = (uint32_t)value;
	switch (a->option->size) {
	case sizeof(u8):
		memcpy(field(a), &u8, sizeof(u8));
		break;
	case sizeof(u16):
		memcpy(field(a), &u16, sizeof(u16));
		break;
	case sizeof(u32):
		memcpy(field(a), &u32, sizeof(u32));
		break;
	default:
		ASSERT(a->option->size == sizeof(value));
		memcpy(field(a), &value, sizeof(value));
	}
}

static void put_pointer(const struct assignment *a, const void *pointer)
{
	ASSERT(a->option->size == sizeof(pointer));
	memcpy(field(a), &pointer, sizeof(pointer));
}

static void put_list(const struct assignment *a, const void *items, uint32_t count)
{
	put_pointer(a, items);
	memcpy((char *)a->base + a->option->count_offset, &count, sizeof(count));
}

static const char *check_range(const struct schema_option *option, uint64_t value)
{
	if (value < option->min) {
		return "is too small";
	}
	if (value > option->max) {
		return "is too large";
	}
	if (option->type == TYPE_POWER_OF_TWO && (value & (value - 1)) != 0) {
		return "is not a power of two";
	}
	return NULL;
}

/* In the unit of the option: milliseconds or nanoseconds. */
static const char *convert_time(const struct schema_option *option, const char *word,
				uint64_t *value)
{
	const char *problem = word_time(word, value);
	if (problem == NULL && option->type == TYPE_TIME_MS) {
		problem = *value % NS_PER_MS != 0 ? "is not a whole number of milliseconds" : NULL;
		*value /= NS_PER_MS;
	}
	return problem;
}

static const char *convert_integer(const struct schema_option *option, const char *word,
				   uint64_t *value)
{
	switch (option->type) {
	case TYPE_PERCENT:
		return word_percent(word, value);
	case TYPE_MODE:
		return word_mode(word, value);
	case TYPE_SIZE:
		return word_size(word, value);
	case TYPE_TIME_MS:
	case TYPE_TIME_NS:
		return convert_time(option, word, value);
	default:
		return word_number(word, value);
	}
}

static const char *assign_integer(const struct assignment *a, const char *word)
{
	uint64_t value;
	const char *problem = convert_integer(a->option, word, &value);
	if (problem == NULL) {
		problem = check_range(a->option, value);
	}
	if (problem == NULL) {
		put_integer(a, value);
	}
	return problem;
}

static const char *assign_text(const struct assignment *a, const char *word)
{
	const char *problem = NULL;
	if (a->option->type == TYPE_FIELD) {
		problem = *word != '\0' ? word_field(word) : NULL;
	} else if (a->option->type == TYPE_HOSTNAME) {
		problem = word_hostname(word);
	} else if (a->option->type == TYPE_ADDRESS) {
		problem = word_address(word);
	} else if (a->option->type == TYPE_DESTINATION) {
		problem = log_destination_check(word);
	} else if (*word == '\0') {
		problem = "is empty";
	} else if (strlen(word) > a->option->max) {
		problem = "is too long";
	}
	if (problem == NULL) {
		put_pointer(a, word);
	}
	return problem;
}

/* One object for the scope that sets it: who falls back to the scope shares it. */
static struct throttle *throttle_new(const struct assignment *a, uint64_t count, uint64_t period_s)
{
	struct config *config = a->builder->config;
	struct throttle *throttle =
		arena_alloc(arena_of(a), sizeof(*throttle), _Alignof(struct throttle));
	char label[256];
	tree_scope_label(a->scope, label, sizeof(label));
	throttle_init(throttle, count, period_s, tree_text(&config->tree, label, strlen(label)));
	throttle_detach(throttle);

	uint32_t used = config->throttle_count;
	if ((used & (used + 1)) == 0) {
		size_t room = ((size_t)used + 1) * 2;
		config->throttles = realloc(config->throttles, room * sizeof(*config->throttles));
		if (config->throttles == NULL) {
			fatal("configuration: out of memory (%zu throttles)", room);
		}
	}
	config->throttles[config->throttle_count++] =
		(struct throttle_use){.throttle = throttle, .scope = a->scope, .option = a->option};
	return throttle;
}

static const char *assign_throttle(const struct assignment *a, const char *word)
{
	uint64_t count;
	uint64_t period_s;
	const char *problem = word_throttle(word, &count, &period_s);
	if (problem == NULL && count > a->option->max) {
		problem = "is too large";
	}
	if (problem == NULL) {
		put_pointer(a,
			    count == 0 || a->superseded ? NULL : throttle_new(a, count, period_s));
	}
	return problem;
}

static const char *assign_tls_ca(const struct assignment *a, const char *word)
{
	struct tls_context *context;
	const char *problem = tls_build_client(a->builder, word, &context);
	if (problem == NULL) {
		put_pointer(a, context);
	}
	return problem;
}

static const char *assign_rate(const struct assignment *a, const char *word)
{
	uint64_t count;
	uint64_t period_s;
	const char *problem = word_throttle(word, &count, &period_s);
	if (problem == NULL && (count > a->option->max || period_s > UINT32_MAX)) {
		problem = "is too large";
	}
	if (problem == NULL) {
		struct rate rate = {(uint32_t)count, count != 0 ? (uint32_t)period_s : 0};
		ASSERT(a->option->size == sizeof(rate));
		memcpy(field(a), &rate, sizeof(rate));
	}
	return problem;
}

static const char *assign_word(const struct assignment *a, const char *word)
{
	bool flag;
	int core;
	uint64_t value;
	const char *problem;
	switch (a->option->type) {
	case TYPE_BOOLEAN:
		problem = word_boolean(word, &flag);
		if (problem == NULL) {
			put_integer(a, flag);
		}
		return problem;
	case TYPE_CHOICE:
		problem = word_choice(word, a->option->choices, &value);
		if (problem == NULL) {
			put_integer(a, value);
		}
		return problem;
	case TYPE_CORE:
		problem = word_core(word, &core);
		if (problem == NULL) {
			put_integer(a, (uint64_t)core);
		}
		return problem;
	case TYPE_TEXT:
	case TYPE_HOSTNAME:
	case TYPE_ADDRESS:
	case TYPE_FIELD:
	case TYPE_DESTINATION:
		return assign_text(a, word);
	case TYPE_THROTTLE:
		return assign_throttle(a, word);
	case TYPE_TLS_CA:
		return assign_tls_ca(a, word);
	case TYPE_RATE:
		return assign_rate(a, word);
	default:
		return assign_integer(a, word);
	}
}

static const char *check_sanitizer(const char *rule)
{
	struct event_sanitizer s;
	event_sanitizer_init(&s);
	return event_sanitizer_add(&s, rule);
}

static const char *check_monitor(const char *word, struct inbound_monitor *m)
{
	char seconds[16] = "";
	uint64_t interval_s;
	uint64_t windows;
	const char *comma = strchr(word, ',');

	if (comma != NULL && (size_t)(comma - word) < sizeof(seconds)) {
		memcpy(seconds, word, (size_t)(comma - word));
	}
	if (word_number(seconds, &interval_s) != NULL || word_number(comma + 1, &windows) != NULL) {
		return "is not SECONDS,WINDOWS";
	}
	if (interval_s < 1 || interval_s > INBOUND_SECONDS_MAX) {
		return "has windows that are too short or too long";
	}
	if (windows > INBOUND_WINDOWS_MAX) {
		return "has too many windows";
	}
	*m = (struct inbound_monitor){(uint32_t)interval_s, (uint32_t)windows};
	return NULL;
}

/* One item of a list option into element `i` of `items`. */
static const char *assign_item(const struct assignment *a, const char *word, void *items,
			       uint32_t i)
{
	struct tree *tree = &a->builder->config->tree;
	char host[HOST_BYTES];
	const char *problem;
	switch (a->option->type) {
	case TYPE_CORES:
		return word_core(word, &((int *)items)[i]);
	case TYPE_NETWORKS:
		return word_cidr(word, &((struct cidr *)items)[i]);
	case TYPE_DOMAINS:
		word = tree_text_domain(tree, word, strlen(word));
		((const char **)items)[i] = word;
		return word_domain_pattern(word);
	case TYPE_FIELDS:
		((const char **)items)[i] = tree_text_folded(tree, word, strlen(word));
		return word_field(word);
	case TYPE_BIND_ADDRESSES:
		return word_ip(word, &((struct in6_addr *)items)[i]);
	case TYPE_NAME_SERVERS:
		((const char **)items)[i] = word;
		return word_name_server(word);
	case TYPE_DESTINATIONS:
		((const char **)items)[i] = word;
		return log_destination_check(word);
	case TYPE_SANITIZERS:
		((const char **)items)[i] = word;
		return check_sanitizer(word);
	case TYPE_SUBSCRIBERS:
		((const char **)items)[i] = word;
		return word_subscriber(word);
	case TYPE_MONITORS:
		return i < a->option->max
			       ? check_monitor(word, &((struct inbound_monitor *)items)[i])
			       : "is one too many";
	default:
		ASSERT(a->option->type == TYPE_GATEWAYS);
		problem = word_gateway(word, &((struct gateway *)items)[i], host, sizeof(host));
		if (problem == NULL) {
			((struct gateway *)items)[i].host =
				tree_text_folded(tree, host, strlen(host));
		}
		return problem;
	}
}

static bool is_list(enum schema_type type)
{
	return type == TYPE_CORES || type == TYPE_NETWORKS || type == TYPE_DOMAINS ||
	       type == TYPE_NAME_SERVERS || type == TYPE_GATEWAYS || type == TYPE_FIELDS ||
	       type == TYPE_BIND_ADDRESSES || type == TYPE_DESTINATIONS ||
	       type == TYPE_SANITIZERS || type == TYPE_SUBSCRIBERS || type == TYPE_MONITORS;
}

static size_t item_size(enum schema_type type)
{
	switch (type) {
	case TYPE_CORES:
		return sizeof(int);
	case TYPE_NETWORKS:
		return sizeof(struct cidr);
	case TYPE_BIND_ADDRESSES:
		return sizeof(struct in6_addr);
	case TYPE_MONITORS:
		return sizeof(struct inbound_monitor);
	case TYPE_DOMAINS:
	case TYPE_FIELDS:
	case TYPE_NAME_SERVERS:
	case TYPE_DESTINATIONS:
	case TYPE_SANITIZERS:
	case TYPE_SUBSCRIBERS:
		return sizeof(const char *);
	default:
		return sizeof(struct gateway);
	}
}

/* By preference; equal ones stay as they were written. */
static void sort_gateways(struct gateway *gateways, uint32_t count)
{
	for (uint32_t i = 1; i < count; i++) {
		struct gateway moved = gateways[i];
		uint32_t at = i;
		while (at > 0 && gateways[at - 1].preference > moved.preference) {
			gateways[at] = gateways[at - 1];
			at--;
		}
		gateways[at] = moved;
	}
}

static void report_value(const struct assignment *a, const struct tree_value *value,
			 const char *problem)
{
	char expected[256];
	schema_expectation(a->option, expected, sizeof(expected));
	if (value->kind == TREE_WORD) {
		report_error(a->builder->report, value->source,
			     "option \"%s\": \"%.100s\" %s; expected %s", a->option->name,
			     value->word, problem, expected);
	} else {
		report_error(a->builder->report, value->source, "option \"%s\": %s %s; expected %s",
			     a->option->name, value->kind == TREE_LIST ? "a list" : "a dictionary",
			     problem, expected);
	}
}

/* No two of one family. */
static const char *check_families(const struct in6_addr *addresses, uint32_t count)
{
	if (count == 0) {
		return "is empty";
	}
	return count > 2 || (count == 2 && IN6_IS_ADDR_V4MAPPED(&addresses[0]) ==
						   IN6_IS_ADDR_V4MAPPED(&addresses[1]))
		       ? "has two addresses of one family"
		       : NULL;
}

/* A list, or one word for a list of one. */
static bool assign_list(const struct assignment *a, const struct tree_value *value)
{
	bool good = true;
	uint32_t count = 0;
	const struct tree_value *first = value->kind == TREE_WORD ? value : value->first;
	uint32_t room = value->kind == TREE_WORD ? 1 : value->count;
	if (a->option->type == TYPE_GATEWAYS && room > GATEWAYS_MAX) {
		report_value(a, value, "has more than 64 next hops");
		return false;
	}
	void *items = arena_alloc(arena_of(a), room * item_size(a->option->type), 8);
	for (const struct tree_value *v = first; v != NULL && count < room; v = v->next) {
		const char *problem = "does not belong in a list here";
		if (v->kind == TREE_WORD) {
			problem = assign_item(a, v->word, items, count++);
		}
		if (problem != NULL) {
			report_value(a, v, problem);
			good = false;
		}
	}
	if (good && a->option->type == TYPE_BIND_ADDRESSES) {
		const char *problem = check_families(items, count);
		if (problem != NULL) {
			report_value(a, value, problem);
			good = false;
		}
	}
	if (!good) {
		return false;
	}
	if (a->option->type == TYPE_GATEWAYS) {
		sort_gateways(items, count);
	}
	/* Equal lists are one list, so that options which differ in nothing else are one struct. */
	put_list(a,
		 intern_bytes(&a->builder->config->shared, items,
			      count * item_size(a->option->type)),
		 count);
	return true;
}

static bool assign(const struct assignment *a, const struct tree_value *value)
{
	if (value->kind == TREE_DICTIONARY ||
	    (value->kind == TREE_LIST && !is_list(a->option->type))) {
		report_value(a, value, "is not possible here");
		return false;
	}
	if (is_list(a->option->type)) {
		return assign_list(a, value);
	}
	const char *problem = assign_word(a, value->word);
	if (problem != NULL) {
		report_value(a, value, problem);
	}
	return problem == NULL;
}

/* In place of a value that was refused, lest what depends on it is refused too. */
static void assign_default(const struct assignment *a)
{
	struct tree *tree = &a->builder->config->tree;
	struct tree_value value;
	if (a->option->fallback != NULL) {
		int rc = parser_value(tree, a->option->fallback, SOURCE_DEFAULT, &value);
		ASSERT(rc == 0 && assign(a, &value));
	}
}

struct schema_set assign_scope(struct builder *builder, const struct tree_scope *scope,
			       const struct targets *targets)
{
	struct schema_set set = {0};
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		const struct schema_option *row = o->row;
		if (row == NULL || targets->base[row->target] == NULL) {
			continue;
		}
		struct assignment a = {
			.builder = builder,
			.scope = scope,
			.option = row,
			.base = targets->base[row->target],
			/* Only a throttle is an object, of which one too many would be seen. */
			.superseded = row->type == TYPE_THROTTLE && tree_option_comes_again(o),
		};
		if (assign(&a, &o->value)) {
			schema_set_add(&set, row);
		} else {
			assign_default(&a);
		}
	}
	return set;
}

void assign_overlay(enum schema_target target, const struct schema_set *set, void *to,
		    const void *from)
{
	for (uint32_t w = 0; w < sizeof(set->words) / sizeof(set->words[0]); w++) {
		for (uint64_t bits = set->words[w]; bits != 0; bits &= bits - 1) {
			const struct schema_option *o =
				&schema_options[w * 64 + (uint32_t)__builtin_ctzll(bits)];
			if (o->target != target) {
				continue;
			}
			memcpy((char *)to + o->offset, (const char *)from + o->offset, o->size);
			if (is_list(o->type)) {
				memcpy((char *)to + o->count_offset,
				       (const char *)from + o->count_offset, sizeof(uint32_t));
			}
		}
	}
}

/* Whatever may be wrong with it. */
static struct schema_set set_by(const struct tree_scope *scope)
{
	struct schema_set set = {0};
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		if (o->row != NULL) {
			schema_set_add(&set, o->row);
		}
	}
	return set;
}

static struct tree_option *add_option(struct tree *tree, struct tree_scope *scope,
				      const struct schema_option *row)
{
	struct tree_option *option =
		tree_option_add(tree, scope, tree_text(tree, row->name, strlen(row->name)));
	option->row = row;
	return option;
}

void assign_missing(struct builder *builder, struct tree_scope *scope, uint32_t targets)
{
	struct tree *tree = &builder->config->tree;
	struct schema_set set = set_by(scope);
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		const struct schema_option *row = &schema_options[i];
		if (row->fallback == NULL || (row->scopes >> scope->kind & 1) == 0 ||
		    (targets & TARGET_BIT(row->target)) == 0 || schema_set_has(&set, row)) {
			continue;
		}
		struct tree_option *option = add_option(tree, scope, row);
		int rc = parser_value(tree, row->fallback, SOURCE_DEFAULT, &option->value);
		ASSERT(rc == 0);
	}
}

void assign_implied(struct builder *builder, struct tree_scope *scope, const char *name,
		    const char *word, struct source source)
{
	struct tree *tree = &builder->config->tree;
	struct tree_option *option = add_option(tree, scope, schema_option_find(name, scope->kind));
	option->value = (struct tree_value){
		.kind = TREE_WORD,
		.word = tree_text(tree, word, strlen(word)),
		.source = source,
	};
}
