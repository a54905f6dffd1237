/*
 * What a sink does wrong on purpose. A rule is STAGE:ACTION[:VALUE][@RATE]; the first rule of a
 * stage that is drawn applies. Draws come from a seed, so a run with one connection repeats.
 *
 * Start reading at fault_add().
 */
#pragma once

#include <stdint.h>

enum sink_stage {
	STAGE_CONNECT,
	STAGE_BANNER,
	STAGE_EHLO,
	STAGE_MAIL,
	STAGE_RCPT,
	STAGE_DATA,
	STAGE_BODY,
	STAGE_DOT,
	STAGE_RSET,
	STAGE_QUIT,
	STAGE_COUNT,
};

enum fault_action {
	FAULT_TEMPFAIL,
	FAULT_PERMFAIL,
	/* Answer 421 and close. */
	FAULT_SHUTDOWN,
	FAULT_DELAY,
	FAULT_DROP,
	FAULT_GARBAGE,
	FAULT_FLOOD,
	FAULT_SILENCE,
};

struct fault {
	enum fault_action action;
	/* Reply code, milliseconds or lines, by action. */
	uint32_t value;
	double rate;
};

#define FAULT_RULES_MAX 16

struct fault_set {
	struct fault rules[STAGE_COUNT][FAULT_RULES_MAX];
	unsigned counts[STAGE_COUNT];
	uint64_t random;
	/* How often a rule applied. */
	uint64_t applied;
};

/* Adds the rule in `spec`. Returns 0, -EINVAL when it is none, or -ENOSPC. */
int fault_add(struct fault_set *set, const char *spec);

/* Draws for one event of `stage`. Returns the rule that applies, or NULL when all goes well. */
const struct fault *fault_draw(struct fault_set *set, enum sink_stage stage);

/*
 * Reads the name of a stage that ends with a colon at the start of `spec`.
 * Returns what follows the colon, or NULL.
 */
const char *sink_stage_parse(const char *spec, enum sink_stage *stage);
