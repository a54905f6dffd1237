#include "perf/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "perf/number.h"
#include "perf/random.h"

static const char *const stage_names[STAGE_COUNT] = {
	"connect", "banner", "ehlo", "mail", "rcpt", "data", "body", "dot", "rset", "quit",
};

static const struct {
	const char *name;
	enum fault_action action;
	uint32_t value;
	uint32_t value_min;
	uint32_t value_max;
} actions[] = {
	{"4xx", FAULT_TEMPFAIL, 451, 400, 499},
	{"5xx", FAULT_PERMFAIL, 554, 500, 599},
	{"421", FAULT_SHUTDOWN, 0, 0, 0},
	{"delay", FAULT_DELAY, 1000, 0, 86400000},
	{"drop", FAULT_DROP, 0, 0, 0},
	{"garbage", FAULT_GARBAGE, 0, 0, 0},
	{"flood", FAULT_FLOOD, 0, 0, UINT32_MAX},
	{"silence", FAULT_SILENCE, 0, 0, 0},
};

const char *sink_stage_parse(const char *spec, enum sink_stage *stage)
{
	const char *colon = strchr(spec, ':');

	for (unsigned i = 0; colon != NULL && i < STAGE_COUNT; i++) {
		size_t len = strlen(stage_names[i]);
		if (len == (size_t)(colon - spec) && strncasecmp(spec, stage_names[i], len) == 0) {
			*stage = (enum sink_stage)i;
			return colon + 1;
		}
	}
	return NULL;
}

/* Reads ACTION or ACTION:VALUE. */
static int parse_action(char *words, struct fault *f)
{
	char *value = strchr(words, ':');
	uint64_t number;

	if (value != NULL) {
		*value++ = '\0';
	}
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		if (strcasecmp(words, actions[i].name) != 0) {
			continue;
		}
		number = actions[i].value;
		if (value != NULL && (actions[i].value_max == 0 ||
				      number_parse(value, actions[i].value_min,
						   actions[i].value_max, &number) != 0)) {
			return -EINVAL;
		}
		f->action = actions[i].action;
		f->value = (uint32_t)number;
		return 0;
	}
	return -EINVAL;
}

int fault_add(struct fault_set *set, const char *spec)
{
	struct fault f = {.rate = 1};
	enum sink_stage stage;
	const char *rest = sink_stage_parse(spec, &stage);
	char words[64];
	char *rate;

	if (rest == NULL || strlen(rest) >= sizeof(words)) {
		return -EINVAL;
	}
	strcpy(words, rest);
	rate = strchr(words, '@');
	if (rate != NULL) {
		*rate++ = '\0';
		if (number_parse_real(rate, 1, &f.rate) != 0) {
			return -EINVAL;
		}
	}
	if (parse_action(words, &f) != 0) {
		return -EINVAL;
	}
	if (set->counts[stage] == FAULT_RULES_MAX) {
		return -ENOSPC;
	}
	set->rules[stage][set->counts[stage]++] = f;
	return 0;
}

const struct fault *fault_draw(struct fault_set *set, enum sink_stage stage)
{
	for (unsigned i = 0; i < set->counts[stage]; i++) {
		if (random_fraction(&set->random) < set->rules[stage][i].rate) {
			set->applied++;
			return &set->rules[stage][i];
		}
	}
	return NULL;
}
