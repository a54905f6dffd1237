/*
 * Events: encoded and decoded, as a line of the main log, as JSON, and by a format of a custom log;
 * the reference of the lines is snprintf() of the same fields without escapes.
 */
#include "core/log/event.h"

#include <stdio.h>
#include <string.h>

#include "core/log/event_json.h"
#include "core/log/event_macro.h"
#include "core/log/event_text.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16
#define TIME_MS UINT64_C(1751371200123)

static struct event reception = {
	.kind = EVENT_RECEPTION,
	.time_ms = TIME_MS,
	.id = {.high = TIME_MS << 16 | 7, .low = 1},
	.batch = 1,
	.connection = 0x4711,
	.size = 10240,
	.text = {[EVENT_RECIPIENT] = "someone@receiver.example",
		 [EVENT_SENDER] = "news@sender.example",
		 [EVENT_BINDING_GROUP] = "default",
		 [EVENT_BINDING] = "default",
		 [EVENT_PROTOCOL] = "esmtp",
		 [EVENT_REMOTE_IP] = "192.0.2.7",
		 [EVENT_REMOTE_NAME] = "client.sender.example",
		 [EVENT_LOCAL_ADDRESS] = "192.0.2.1:25"},
};

static struct event delivery = {
	.kind = EVENT_DELIVERY,
	.time_ms = TIME_MS,
	.id = {.high = TIME_MS << 16 | 7, .low = 1},
	.code = 250,
	.size = 10240,
	.queued_ms = 1234,
	.text = {[EVENT_RECIPIENT] = "someone@receiver.example",
		 [EVENT_SENDER] = "news@sender.example",
		 [EVENT_REPLY] = "250 2.0.0 OK: queued as 12345",
		 [EVENT_ENHANCED] = "2.0.0",
		 [EVENT_DOMAIN] = "receiver.example",
		 [EVENT_BINDING_GROUP] = "default",
		 [EVENT_BINDING] = "default",
		 [EVENT_SITE] = "mx 10 mx.receiver.example",
		 [EVENT_REMOTE_IP] = "198.51.100.25",
		 [EVENT_REMOTE_NAME] = "mx.receiver.example"},
};

static uint64_t encode(const void *own)
{
	struct event *e = (struct event *)(uintptr_t)own;
	unsigned char record[EVENT_SIZE_MAX];

	for (unsigned i = 0; i < REPEATS; i++) {
		e->id.low++;
		measure_use(event_encode(measure_hide(e), record, sizeof(record)));
	}
	return REPEATS;
}

static uint64_t decode(const void *own)
{
	unsigned char record[EVENT_SIZE_MAX];
	size_t len = event_encode(own, record, sizeof(record));
	struct event e;

	for (unsigned i = 0; i < REPEATS; i++) {
		measure_use((uint64_t)event_decode(measure_hide(record), len, &e));
	}
	return REPEATS;
}

static uint64_t format_text(const void *own)
{
	char line[EVENT_TEXT_LINE_MAX];

	for (unsigned i = 0; i < REPEATS; i++) {
		measure_use(event_text(line, LOG_MAIN, measure_hide(own)));
	}
	return REPEATS;
}

static uint64_t format_json(const void *own)
{
	static char object[EVENT_JSON_MAX];

	for (unsigned i = 0; i < REPEATS; i++) {
		measure_use(event_json(object, sizeof(object), measure_hide(own), NULL));
	}
	return REPEATS;
}

static uint64_t format_macro(const void *own)
{
	static struct event_macro *macro;
	static struct event_sanitizer sanitizer;
	static char line[EVENT_MACRO_LINE_MAX];
	char why[EVENT_MACRO_WHY];

	if (macro == NULL) {
		event_sanitizer_init(&sanitizer);
		macro = event_macro_compile("%t@%i@%r@%R@%m@%M@%B@%b@%g@%H@%n", why);
	}
	for (unsigned i = 0; i < REPEATS; i++) {
		measure_use(event_macro_format(macro, &sanitizer, measure_hide(own), NULL, line,
					       sizeof(line)));
	}
	return REPEATS;
}

static uint64_t print_r(const void *own)
{
	const struct event *e = own;
	char line[EVENT_TEXT_LINE_MAX];

	for (unsigned i = 0; i < REPEATS; i++) {
		int n = snprintf(
			line, sizeof(line), "%llu@%026llx@%llx@%llx@R@%s@%s@%s@%llu@%s@%s@%s",
			(unsigned long long)e->time_ms / 1000, (unsigned long long)e->id.low,
			(unsigned long long)e->batch, (unsigned long long)e->connection,
			e->text[EVENT_RECIPIENT], e->text[EVENT_SENDER], e->text[EVENT_REMOTE_IP],
			(unsigned long long)e->size, e->text[EVENT_PROTOCOL],
			e->text[EVENT_BINDING_GROUP], e->text[EVENT_BINDING]);

		measure_use((uint64_t)n);
	}
	return REPEATS;
}

static uint64_t print_d(const void *own)
{
	const struct event *e = own;
	char line[EVENT_TEXT_LINE_MAX];

	for (unsigned i = 0; i < REPEATS; i++) {
		int n = snprintf(
			line, sizeof(line), "%llu@%026llx@%llx@%llx@D@%s@%llu@%s@%s@%u@%llu@%s",
			(unsigned long long)e->time_ms / 1000, (unsigned long long)e->id.low,
			(unsigned long long)e->batch, (unsigned long long)e->connection,
			e->text[EVENT_DOMAIN], (unsigned long long)e->size,
			e->text[EVENT_BINDING_GROUP], e->text[EVENT_BINDING], e->retries,
			(unsigned long long)e->queued_ms / 1000, e->text[EVENT_REMOTE_IP]);

		measure_use((uint64_t)n);
	}
	return REPEATS;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = encode,
	 .own = &delivery,
	 .rows = {{"event.encode", "ns", "event.text-d"}}},
	{.run = measure_case_ns,
	 .step = decode,
	 .own = &delivery,
	 .rows = {{"event.decode", "ns", "event.text-d"}}},
	{.run = measure_case_ns,
	 .step = format_text,
	 .own = &reception,
	 .rows = {{"event.text-r", "ns", "event.printf-r"}}},
	{.run = measure_case_ns,
	 .step = print_r,
	 .own = &reception,
	 .rows = {{"event.printf-r", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = format_text,
	 .own = &delivery,
	 .rows = {{"event.text-d", "ns", "event.printf-d"}}},
	{.run = measure_case_ns,
	 .step = print_d,
	 .own = &delivery,
	 .rows = {{"event.printf-d", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = format_json,
	 .own = &delivery,
	 .rows = {{"event.json", "ns", "event.text-d"}}},
	{.run = measure_case_ns,
	 .step = format_macro,
	 .own = &delivery,
	 .rows = {{"event.macro", "ns", "event.text-d"}}},
};

const struct micro_group micro_event = {
	.name = "event",
	.label = "events of the logs: encoded, decoded, formatted",
	MICRO_CASES(cases),
};
