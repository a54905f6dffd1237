/*
 * core/log/event.c, event_json.c and event_macro.c: a byte for what is done. An event of the
 * input's numbers and strings, one on a line, is encoded, and a series of it, and decoded to the
 * same; or the input is records that nobody wrote. What was decoded is formatted in every way. Or
 * the input is a format, of a custom log.
 */
#include "core/log/event.h"

#include <jansson.h>

#include "core/log/event_json.h"
#include "core/log/event_macro.h"
#include "core/log/event_text.h"
#include "core/mail/context.h"
#include "tests/fuzz/fuzz_input.h"

/* Every way: none writes more than it may, and JSON is JSON, in UTF-8. */
static void format(const struct event *e)
{
	static struct event_macro *macro;
	static struct event_sanitizer sanitizer;
	char why[EVENT_MACRO_WHY];
	size_t json_room = event_json_room(e);
	char *json = malloc(json_room);
	char *line = malloc(EVENT_TEXT_LINE_MAX);
	char *custom;
	size_t room;
	json_t *o;

	if (macro == NULL) {
		event_sanitizer_init(&sanitizer);
		macro = event_macro_compile("%t %us{9} %i %BI %r %R %m %M %n %h{Subject} %s %c %T "
					    "%vctx_mess{a} %t{%c}",
					    why);
	}
	/* Its own integers have a sign. */
	o = json_loadb(json, event_json(json, json_room, e, NULL), JSON_DECODE_INT_AS_REAL, NULL);
	FUZZ_CHECK(o != NULL && json_is_string(json_object_get(o, "type")));
	json_decref(o);
	room = event_macro_room(macro, e);
	custom = malloc(room);
	room = event_macro_format(macro, &sanitizer, e, NULL, custom, room);
	FUZZ_CHECK(memchr(custom, '\n', room) == NULL);
	for (unsigned log = 0; log < LOG_FILES; log++) {
		FUZZ_CHECK(event_text(line, (enum log_file)log, e) <= EVENT_TEXT_LINE_MAX);
	}
	free(custom);
	free(line);
	free(json);
}

/* Records that nobody wrote, one behind the other. */
static void decode(struct fuzz_input in)
{
	unsigned char *records = fuzz_copy(in.at, in.left);
	struct event e = {0};
	size_t at = 0;

	while (at < in.left) {
		int n = event_decode(records + at, in.left - at, &e);

		if (n < 0) {
			break;
		}
		FUZZ_CHECK((size_t)n <= in.left - at);
		at += (size_t)n;
		format(&e);
	}
	free(records);
}

static void check_same(const struct event *a, const struct event *b)
{
	FUZZ_CHECK(a->kind == b->kind && a->stage == b->stage && a->permanent == b->permanent &&
		   a->granted == b->granted && a->code == b->code &&
		   a->bounce_class == b->bounce_class && a->retries == b->retries &&
		   a->time_ms == b->time_ms && a->batch == b->batch && a->size == b->size &&
		   a->connection == b->connection && a->queued_ms == b->queued_ms &&
		   a->id.high == b->id.high && a->id.low == b->id.low);
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		const char *left = event_field(a, (enum event_field)i);
		const char *right = event_field(b, (enum event_field)i);

		/* The longest are cut. */
		FUZZ_CHECK(strncmp(left, right, strlen(right)) == 0 &&
			   (strlen(right) == strlen(left) || strlen(right) >= EVENT_WORD_MAX));
	}
	FUZZ_CHECK(a->context_len == b->context_len &&
		   (a->context_len == 0 || memcmp(a->context, b->context, a->context_len) == 0));
}

static struct event take_numbers(struct fuzz_input *in)
{
	uint64_t n = (uint64_t)fuzz_word(in) << (fuzz_byte(in) & 63);

	return (struct event){
		.kind = (enum event_kind)(fuzz_byte(in) % EVENT_KINDS),
		.stage = (enum smtp_stage)(fuzz_byte(in) % (SMTP_STAGE_UNKNOWN + 1)),
		.permanent = (n & 1) != 0,
		.granted = (n & 2) != 0,
		.code = (uint16_t)fuzz_word(in),
		.bounce_class = (uint16_t)fuzz_byte(in),
		.retries = (uint32_t)n,
		.time_ms = n,
		.id = {n, n},
		.batch = n,
		.connection = n,
		.size = n,
		.queued_ms = n,
	};
}

static void add_pairs(struct fuzz_input *in, struct context *context)
{
	context_reset(context);
	for (unsigned count = fuzz_byte(in) % 4; count > 0; count--) {
		char *key = fuzz_string(in);
		char *value = fuzz_string(in);

		if (key[0] != '\0') {
			context_add(context, key, value, strlen(value), CONTEXT_MAX);
		}
		free(key);
		free(value);
	}
}

/* What is encoded comes back, alone and as one of a series. */
static void encode(struct fuzz_input in)
{
	unsigned char *records = malloc(2 * EVENT_SIZE_MAX);
	struct event e = take_numbers(&in);
	char *strings[EVENT_FIELDS];
	struct event back = {0};
	struct context context;
	uint32_t changed = fuzz_word(&in) % (EVENT_BIT(EVENT_FIELDS) - 1);
	size_t first;
	size_t second;

	add_pairs(&in, &context);
	e.context = context.pairs;
	e.context_len = context.len;
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		strings[i] = fuzz_string(&in);
		e.text[i] = strings[i];
	}
	first = event_encode(&e, records, EVENT_SIZE_MAX);
	FUZZ_CHECK(first > 0 && event_decode(records, first, &back) == (int)first);
	check_same(&e, &back);
	format(&back);
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		e.text[i] = (changed >> i & 1) != 0 ? strings[EVENT_FIELDS - 1 - i] : e.text[i];
	}
	e.code++;
	second = event_encode_again(&e, changed, records + first, EVENT_SIZE_MAX);
	FUZZ_CHECK(second > 0 && event_decode(records + first, second, &back) == (int)second);
	check_same(&e, &back);
	format(&back);
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		free(strings[i]);
	}
	free(records);
}

static void compile(struct fuzz_input in)
{
	char *text = fuzz_string(&in);
	struct event_sanitizer sanitizer;
	struct event e = {.text = {[EVENT_REPLY] = text, [EVENT_RECIPIENT] = text}};
	char why[EVENT_MACRO_WHY];
	struct event_macro *m = event_macro_compile(text, why);
	char *line = malloc(EVENT_MACRO_LINE_MAX);
	size_t len;

	event_sanitizer_init(&sanitizer);
	event_sanitizer_add(&sanitizer, text);
	if (m == NULL) {
		FUZZ_CHECK(strlen(why) > 0);
	} else {
		len = event_macro_format(m, &sanitizer, &e, NULL, line, EVENT_MACRO_LINE_MAX);
		FUZZ_CHECK(len <= EVENT_MACRO_LINE_MAX && memchr(line, '\n', len) == NULL);
	}
	event_macro_free(m);
	free(line);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);

	switch (fuzz_byte(&in) % 3) {
	case 0:
		encode(in);
		break;
	case 1:
		decode(in);
		break;
	default:
		compile(in);
	}
	return 0;
}
