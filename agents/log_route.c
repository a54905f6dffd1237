#include "agents/log_route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log/destination.h"
#include "core/log/event_json.h"
#include "core/log/event_macro.h"
#include "core/log/event_text.h"
#include "core/runtime/check.h"

_Static_assert(EVENT_JSON_MAX <= LOG_RECORD_MAX && EVENT_MACRO_LINE_MAX <= LOG_RECORD_MAX &&
		       EVENT_TEXT_LINE_MAX <= LOG_RECORD_MAX && LOG_BLOCK_SIZE <= LOG_RECORD_MAX,
	       "outputs have room for every record");

static const char *const main_file[] = {"file:mainlog"};
static const char *const reject_file[] = {"file:rejectlog"};
static const char *const panic_file[] = {"file:paniclog"};
static const char *const bounce_file[] = {"file:bouncelog"};
static const char *const feedback_file[] = {"file:fbllog"};
static const char *const acct_file[] = {"file:acctlog"};

static const struct log_destinations usual[LOG_FILES] = {
	[LOG_MAIN] = {main_file, 1},         [LOG_REJECT] = {reject_file, 1},
	[LOG_PANIC] = {panic_file, 1},       [LOG_BOUNCE] = {bounce_file, 1},
	[LOG_FEEDBACK] = {feedback_file, 1}, [LOG_ACCT] = {acct_file, 1},
};

/* ---- opening ---- */

/* The output of a destination, opened if nobody has named it before: its place, or a negative
 * errno. */
static int find_output(struct log_routes *r, struct log_output_host *h, const char *destination,
		       FILE *errors)
{
	int rc;

	for (uint32_t i = 0; i < r->output_count; i++) {
		if (strcmp(r->names[i], destination) == 0) {
			return (int)i;
		}
	}
	ASSERT(r->output_count < LOG_DESTINATIONS_MAX);
	rc = log_output_open(&r->outputs[r->output_count], h, destination, errors);
	if (rc != 0) {
		return rc;
	}
	r->names[r->output_count] = destination;
	return (int)r->output_count++;
}

/* Another log has the same events written there as JSON, which say of themselves what they are. */
static bool is_there(const struct log_routes *r, enum event_kind kind, const struct log_target *t)
{
	for (uint32_t i = 0; i < r->target_count[kind]; i++) {
		if (r->targets[kind][i].output == t->output && r->outputs[t->output]->json) {
			return true;
		}
	}
	return false;
}

static void add_target(struct log_routes *r, enum event_kind kind, const struct log_target *t)
{
	uint32_t n = r->target_count[kind];

	if (t->macro == NULL && is_there(r, kind, t)) {
		return;
	}
	r->targets[kind] =
		check_memory(realloc(r->targets[kind], (n + 1) * sizeof(*t)), "the logs");
	r->targets[kind][n] = *t;
	r->target_count[kind] = n + 1;
	r->reached[event_log(kind)] |= UINT32_C(1) << t->output;
}

static int open_log(struct log_routes *r, struct log_output_host *h, enum log_file log,
		    const struct log_destinations *d, FILE *errors)
{
	for (uint32_t i = 0; i < d->count; i++) {
		struct log_target t = {.log = log};
		int place = find_output(r, h, d->names[i], errors);

		if (place < 0) {
			return place;
		}
		t.output = (uint32_t)place;
		if (log == LOG_PANIC) {
			r->reached[log] |= UINT32_C(1) << place;
		}
		for (unsigned kind = 0; kind < EVENT_KINDS; kind++) {
			bool wanted = (event_logs((enum event_kind)kind) >> log & 1) != 0 &&
				      (kind != EVENT_TRANSIENT || log != LOG_BOUNCE ||
				       r->transient_failures);

			if (wanted) {
				add_target(r, (enum event_kind)kind, &t);
			}
		}
	}
	return 0;
}

/* The kinds of events of each stage of a custom logger. */
static const uint32_t stage_kinds[CUSTOM_STAGES] = {
	[CUSTOM_RECEPTION] = 1U << EVENT_RECEPTION,
	[CUSTOM_DELIVERY] = 1U << EVENT_DELIVERY,
	[CUSTOM_TRANSIENT] = 1U << EVENT_TRANSIENT,
	[CUSTOM_PERMANENT] =
		1U << EVENT_BOUNCE | 1U << EVENT_EXPIRATION | 1U << EVENT_ADMIN_FAILURE,
	[CUSTOM_REJECTION] = 1U << EVENT_REJECTION,
};

static int open_custom(struct log_routes *r, struct log_output_host *h,
		       const struct custom_logger *logger, FILE *errors)
{
	for (unsigned stage = 0; stage < CUSTOM_STAGES; stage++) {
		struct log_target t = {.macro = logger->macros[stage],
				       .sanitizer = &logger->sanitizer};
		int place;

		if (t.macro == NULL) {
			continue;
		}
		place = find_output(r, h, logger->destinations[stage], errors);
		if (place < 0) {
			return place;
		}
		t.output = (uint32_t)place;
		for (uint32_t kinds = stage_kinds[stage]; kinds != 0; kinds &= kinds - 1) {
			add_target(r, (enum event_kind)__builtin_ctz(kinds), &t);
		}
	}
	return 0;
}

int log_routes_open(struct log_routes *r, struct log_output_host *h,
		    const struct log_options *options, FILE *errors)
{
	const struct log_destinations *logs = options->logs != NULL ? options->logs : usual;

	*r = (struct log_routes){
		.transient_failures = options->transient_failures,
		.rules = options->rules,
	};
	for (unsigned i = 0; i < LOG_FILES; i++) {
		int rc = open_log(r, h, (enum log_file)i, &logs[i], errors);

		if (rc != 0) {
			return rc;
		}
	}
	for (uint32_t i = 0; i < options->custom_count; i++) {
		int rc = open_custom(r, h, &options->custom[i], errors);

		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

void log_routes_close(struct log_routes *r)
{
	for (uint32_t i = 0; i < r->output_count; i++) {
		log_output_close(r->outputs[i]);
	}
	for (unsigned kind = 0; kind < EVENT_KINDS; kind++) {
		free(r->targets[kind]);
	}
}

/* ---- formatting ---- */

static size_t write_event(const struct log_routes *r, const struct log_target *t,
			  struct log_output *o, const struct event *e)
{
	if (t->macro != NULL) {
		size_t room = event_macro_room(t->macro, e);

		return event_macro_format(t->macro, t->sanitizer, e, r->rules,
					  log_output_reserve(o, room), room);
	}
	if (o->json) {
		size_t room = event_json_room(e);

		return event_json(log_output_reserve(o, room), room, e, r->rules);
	}
	return event_text(log_output_reserve(o, EVENT_TEXT_LINE_MAX), t->log, e);
}

void log_routes_event(struct log_routes *r, const struct event *e)
{
	/* A report of a delay that is not to be told. */
	bool delay = e->kind == EVENT_OUT_OF_BAND && !e->permanent && !r->transient_failures;

	for (uint32_t i = 0; i < r->target_count[e->kind]; i++) {
		const struct log_target *t = &r->targets[e->kind][i];
		struct log_output *o = r->outputs[t->output];

		if (!delay) {
			log_output_commit(o, write_event(r, t, o, e));
		}
	}
}

void log_routes_line(struct log_routes *r, const char *line, size_t len)
{
	for (uint32_t i = 0; i < r->output_count; i++) {
		if ((r->reached[LOG_PANIC] >> i & 1) != 0) {
			memcpy(log_output_reserve(r->outputs[i], len), line, len);
			log_output_commit(r->outputs[i], len);
		}
	}
}

bool log_routes_full(const struct log_routes *r, enum log_file log)
{
	for (uint32_t left = r->reached[log]; left != 0; left &= left - 1) {
		if (log_output_full(r->outputs[__builtin_ctz(left)])) {
			return true;
		}
	}
	return false;
}
