/*
 * Header fields: the one that every message gets, and one that is looked for. References:
 * snprintf() of the same text, and memchr() over the same header.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>

#include "core/mail/header.h"
#include "core/mail/message.h"
#include "perf/micro/body.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16
#define TIME_S UINT64_C(1751371200)

static const uint8_t peer_ip[16] = {[10] = 0xff, [11] = 0xff, [12] = 192, [14] = 2, [15] = 7};

static struct {
	struct mail_pools pools;
	struct chain body;
	unsigned char bytes[BODY_2K];
} world;

static void begin(void)
{
	mail_pools_init(&world.pools);
	body_fill(world.bytes, sizeof(world.bytes));
	chain_append(&world.body, &world.pools.buffers, world.bytes, sizeof(world.bytes));
}

static void end(void)
{
	chain_release(&world.body, &world.pools.buffers);
	mail_pools_close(&world.pools);
}

static uint64_t format_received(const void *own)
{
	struct message_id id = {.high = TIME_S * 1000 << 16 | 7, .low = 1};
	struct header_received r = {
		.helo = "client.example",
		.peer_ip = peer_ip,
		.hostname = "relay.example",
		.id = &id,
		.protocol = ENVELOPE_ESMTP,
	};
	char text[HEADER_RECEIVED_MAX];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		/* Mail comes many messages to the second. */
		r.time_s = TIME_S;
		id.low++;
		measure_use(header_received_format(measure_hide(&r), text));
	}
	return REPEATS;
}

static uint64_t print_received(const void *own)
{
	char text[HEADER_RECEIVED_MAX];
	uint64_t number = 0;

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		int n = snprintf(
			text, sizeof(text),
			"Received: from %s ([%d.%d.%d.%d])\r\n\tby %s with %s id %026llx;\r\n"
			"\t%s, %d %s %d %02d:%02d:%02d +0000\r\n",
			"client.example", peer_ip[12], peer_ip[13], peer_ip[14], peer_ip[15],
			"relay.example", "ESMTP", (unsigned long long)number++, "Tue", 1, "Jul",
			2025, 12, 0, 0);

		measure_use((uint64_t)n);
	}
	return REPEATS;
}

static uint64_t format_date(const void *own)
{
	char text[HEADER_DATE_MAX];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		measure_use(header_date_format(TIME_S + i, text));
	}
	return REPEATS;
}

static uint64_t find_field(const void *own)
{
	char value[256];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		int n = header_find(measure_hide(&world.body), "Message-Id", value, sizeof(value));

		if (n < 0) {
			errx(2, "the field was not found");
		}
		measure_use((uint64_t)n);
	}
	return REPEATS;
}

/* Up to the line that the field is in. */
static uint64_t find_line(const void *own)
{
	uint64_t lines = 0;

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		const char *at = measure_hide(world.bytes);
		const char *stop = at + sizeof(world.bytes);

		while (at < stop && strncasecmp(at, "Message-Id:", 11) != 0) {
			at = (const char *)memchr(at, '\n', (size_t)(stop - at)) + 1;
			lines++;
		}
	}
	measure_use(lines);
	return REPEATS;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = format_received,
	 .rows = {{"header.received", "ns", "header.printf"}}},
	{.run = measure_case_ns, .step = print_received, .rows = {{"header.printf", "ns", NULL}}},
	{.run = measure_case_ns, .step = format_date, .rows = {{"header.date", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = find_field,
	 .rows = {{"header.find", "ns", "header.memchr"}}},
	{.run = measure_case_ns, .step = find_line, .rows = {{"header.memchr", "ns", NULL}}},
};

const struct micro_group micro_header = {
	.name = "header",
	.label = "header fields, written and looked for",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
