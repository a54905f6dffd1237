/*
 * Commands about traces of SMTP dialogues: what an operator says of them, and what they have seen.
 */
#include "listeners/control/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/word.h"
#include "core/runtime/clock.h"
#include "core/runtime/text.h"
#include "listeners/control/traces.h"

#define SAMPLE_MAX 1000000
#define TIME_MAX_MS (7 * 24 * 60 * 60 * UINT64_C(1000))

/* ---- rows ---- */

static uint64_t count(const _Atomic uint64_t *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

static const char *state_of(const struct trace *t, uint64_t now_wall_ms)
{
	uint64_t sessions = count(&t->sessions);

	if (now_wall_ms >= t->until_wall_ms) {
		return "time is over";
	}
	if (t->failed) {
		return "file cannot be written";
	}
	if (t->full) {
		return "file is full";
	}
	return sessions >= t->spec.sessions_max ? "has its connections" : "running";
}

static json_t *row_of(const struct order *o, const struct trace *t)
{
	json_t *v = value_object();
	char conditions[1024];

	trace_describe(&t->spec, conditions, sizeof(conditions));
	value_set_number(v, "trace", t->number);
	value_set_text(v, "conditions", conditions);
	value_set_text(v, "state", state_of(t, agent_wall_ms(&o->scheduler->base)));
	value_set_number(v, "matched", count(&t->matched));
	value_set_number(v, "connections", count(&t->sessions));
	value_set_number(v, "connections_max", t->spec.sessions_max);
	value_set_number(v, "open", count(&t->open));
	value_set_number(v, "lines", count(&t->lines));
	value_set_number(v, "lines_dropped", count(&t->dropped));
	value_set_number(v, "written_bytes", count(&t->bytes));
	value_set_number(v, "limit_bytes", t->spec.bytes_max);
	value_set_time(v, "ends_at", t->until_wall_ms);
	value_set_text(v, "file", t->path);
	return v;
}

/* ---- words ---- */

/* Each takes one value; NULL, or what is wrong with it: the rest of a sentence. */
typedef const char *(*take_fn)(struct order *o, struct trace_spec *spec, const char *word);

static const char *take_direction(struct order *o, struct trace_spec *spec, const char *word)
{
	(void)o;
	if (strcasecmp(word, "in") != 0 && strcasecmp(word, "out") != 0) {
		return "is neither in nor out";
	}
	spec->direction = strcasecmp(word, "in") == 0 ? TRACE_IN : TRACE_OUT;
	return NULL;
}

static const char *take_peer(struct order *o, struct trace_spec *spec, const char *word)
{
	(void)o;
	spec->has_peer = true;
	return word_cidr(word, &spec->peer);
}

static const char *take_binding(struct order *o, struct trace_spec *spec, const char *word)
{
	const struct config *config = order_config(o);

	text_copy(spec->binding, sizeof(spec->binding), word);
	for (uint32_t i = 0; i < config_binding_count(config); i++) {
		if (strcmp(config_binding(config, i)->name, word) == 0) {
			return NULL;
		}
	}
	return strcmp(word, "default") == 0 ? NULL : "is no binding";
}

static const char *take_listener(struct order *o, struct trace_spec *spec, const char *word)
{
	const struct config *config = order_config(o);

	text_copy(spec->listener, sizeof(spec->listener), word);
	for (uint32_t i = 0; i < config_smtp_listen_count(config); i++) {
		if (strcmp(config_smtp_listen(config, i)->name, word) == 0) {
			return NULL;
		}
	}
	return "is not what a listen of esmtp_listener is called, such as *:25";
}

static const char *take_sample(struct order *o, struct trace_spec *spec, const char *word)
{
	const char *wrong;

	(void)o;
	wrong = word_number(strncmp(word, "1/", 2) == 0 ? word + 2 : word, &spec->sample);
	if (wrong == NULL && (spec->sample < 1 || spec->sample > SAMPLE_MAX)) {
		return "is not within 1/1 and 1/1000000";
	}
	return wrong;
}

static const char *take_max(struct order *o, struct trace_spec *spec, const char *word)
{
	const char *wrong = word_number(word, &spec->sessions_max);

	(void)o;
	return wrong == NULL && spec->sessions_max == 0 ? "has to be 1 or more" : wrong;
}

static const char *take_bytes(struct order *o, struct trace_spec *spec, const char *word)
{
	const char *wrong = word_size(word, &spec->bytes_max);

	(void)o;
	return wrong == NULL && spec->bytes_max == 0 ? "has to be 1 or more" : wrong;
}

static const char *take_time(struct order *o, struct trace_spec *spec, const char *word)
{
	uint64_t ns;
	const char *wrong = word_time(word, &ns);

	(void)o;
	if (wrong != NULL) {
		return wrong;
	}
	spec->time_ms = ns / NS_PER_MS;
	return spec->time_ms == 0 || spec->time_ms > TIME_MAX_MS ? "is not within 1ms and 7d"
								 : NULL;
}

static const char *take_file(struct order *o, struct trace_spec *spec, const char *word)
{
	(void)o;
	text_copy(spec->name, sizeof(spec->name), word);
	return trace_name_wrong(word);
}

static const struct {
	const char *word;
	take_fn take;
} conditions[] = {
	{"direction", take_direction}, {"peer", take_peer},     {"binding", take_binding},
	{"listener", take_listener},   {"sample", take_sample}, {"max", take_max},
	{"bytes", take_bytes},         {"for", take_time},      {"file", take_file},
};

#define CONDITIONS (sizeof(conditions) / sizeof(conditions[0]))

/* Takes argument `i` and its value; false and answered when they make no sense. */
static bool take_condition(struct order *o, struct trace_spec *spec, unsigned i)
{
	const char *word = o->arguments[i];
	const char *wrong;
	unsigned k = 0;

	if (i + 1 == o->argument_count) {
		order_fail(o,
			   "\"%.64s\" needs a value, or is no condition; see help trace smtp add",
			   word);
		return false;
	}
	if (strcasecmp(word, "domain") == 0) {
		if (!command_domain(o, i + 1)) {
			return false;
		}
		text_copy(spec->domain, sizeof(spec->domain), o->arguments[i + 1]);
		return true;
	}
	while (k < CONDITIONS && strcasecmp(word, conditions[k].word) != 0) {
		k++;
	}
	if (k == CONDITIONS) {
		order_fail(o, "\"%.64s\" is no condition; see help trace smtp add", word);
		return false;
	}
	wrong = conditions[k].take(o, spec, o->arguments[i + 1]);
	if (wrong != NULL) {
		order_fail(o, "%s: \"%.64s\" %s", conditions[k].word, o->arguments[i + 1], wrong);
		return false;
	}
	return true;
}

/* Conditions that nothing can fulfil are a mistake. */
static bool make_sense(struct order *o, struct trace_spec *spec)
{
	if (spec->binding[0] != '\0' &&
	    (spec->direction == TRACE_IN || spec->listener[0] != '\0')) {
		order_fail(o, "a binding is known of deliveries only: direction out");
		return false;
	}
	if (spec->listener[0] != '\0' && spec->direction == TRACE_OUT) {
		order_fail(o, "deliveries have no listener");
		return false;
	}
	if (spec->binding[0] != '\0') {
		spec->direction = TRACE_OUT;
	} else if (spec->listener[0] != '\0') {
		spec->direction = TRACE_IN;
	}
	return true;
}

static bool parse(struct order *o, struct trace_spec *spec)
{
	*spec = (struct trace_spec){
		.sample = 1,
		.sessions_max = TRACE_SESSIONS_DEFAULT,
		.bytes_max = TRACE_BYTES_DEFAULT,
		.time_ms = TRACE_TIME_DEFAULT_MS,
	};
	for (unsigned i = 0; i < o->argument_count; i++) {
		if (strcasecmp(o->arguments[i], "content") == 0) {
			spec->content = true;
		} else if (!take_condition(o, spec, i++)) {
			return false;
		}
	}
	return make_sense(o, spec);
}

/* ---- the commands ---- */

static void on_done(void *context, struct trace *t, int result)
{
	struct order *o = context;

	if (!order_back(o)) {
		return;
	}
	if (result == -EEXIST) {
		order_fail(o, "%.200s is there already: another name, please", t->path);
	} else if (result != 0) {
		order_fail(o, "cannot make %.200s: %s", t->path, strerror(-result));
	} else {
		order_answer(o, row_of(o, t));
	}
}

void command_trace_add(struct order *o)
{
	struct trace_spec spec;
	int rc;

	if (!parse(o, &spec)) {
		return;
	}
	order_wait(o);
	rc = traces_begin(o->scheduler->traces, &spec, on_done, o);
	if (rc == 0 || !order_back(o)) {
		return;
	}
	if (rc == -EBUSY) {
		order_fail(o, "there are %d traces already: remove one", TRACES_MAX);
	} else if (rc == -EAGAIN) {
		order_fail(o, "another trace is just beginning: once more, please");
	} else {
		order_fail(o, "no log agent runs that could write a trace");
	}
}

void command_trace_remove(struct order *o)
{
	int rc;

	if (!command_number(o, 0)) {
		return;
	}
	order_wait(o);
	rc = traces_end(o->scheduler->traces, o->number, on_done, o);
	if (rc == 0 || !order_back(o)) {
		return;
	}
	if (rc == -EAGAIN) {
		order_fail(o, "trace %llu is just beginning or ending",
			   (unsigned long long)o->number);
	} else {
		order_fail(o, "no trace %llu; \"trace smtp list\" shows those that run",
			   (unsigned long long)o->number);
	}
}

void command_trace_list(struct order *o)
{
	json_t *rows = value_array();

	for (unsigned i = 0; i < TRACES_MAX; i++) {
		const struct trace *t = o->scheduler->traces->slots[i];

		if (t != NULL && t->until_wall_ms != 0) {
			value_append(rows, row_of(o, t));
		}
	}
	order_answer(o, rows);
}
