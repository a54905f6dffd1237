/*
 * Lines of the main log; the reference is snprintf() of the same fields without escapes.
 */
#include "core/mail/mainlog.h"

#include <stdio.h>

#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16
#define TIME_S UINT64_C(1751371200)

static struct message_id id = {.high = TIME_S * 1000 << 16 | 7, .low = 1};

static const struct mainlog_reception reception = {
	.prefix = {.time_s = TIME_S, .id = &id, .batch = 1, .connection = 0x4711},
	.recipient = "someone@receiver.example",
	.sender = "news@sender.example",
	.peer_ip = "192.0.2.7",
	.size = 10240,
	.protocol = "esmtp",
	.binding_group = "default",
	.binding = "default",
};

static const struct mainlog_attempt attempt = {
	.prefix = {.time_s = TIME_S, .id = &id, .batch = 1, .connection = 0x4711},
	.domain = "receiver.example",
	.size = 10240,
	.binding_group = "default",
	.binding = "default",
	.queued_s = 1,
	.remote_ip = "198.51.100.25",
};

static uint64_t format_r(const void *own)
{
	char line[MAINLOG_LINE_MAX];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		id.low++;
		measure_use(mainlog_reception(line, measure_hide(&reception)));
	}
	return REPEATS;
}

static uint64_t format_d(const void *own)
{
	char line[MAINLOG_LINE_MAX];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		id.low++;
		measure_use(mainlog_delivery(line, measure_hide(&attempt)));
	}
	return REPEATS;
}

static uint64_t print_r(const void *own)
{
	const struct mainlog_reception *r = &reception;
	char line[MAINLOG_LINE_MAX];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		int n = snprintf(line, sizeof(line),
				 "%llu@%026llx@%llx@%llx@R@%s@%s@%s@%llu@%s@%s@%s\n",
				 (unsigned long long)r->prefix.time_s, (unsigned long long)++id.low,
				 (unsigned long long)r->prefix.batch,
				 (unsigned long long)r->prefix.connection, r->recipient, r->sender,
				 r->peer_ip, (unsigned long long)r->size, r->protocol,
				 r->binding_group, r->binding);

		measure_use((uint64_t)n);
	}
	return REPEATS;
}

static uint64_t print_d(const void *own)
{
	const struct mainlog_attempt *a = &attempt;
	char line[MAINLOG_LINE_MAX];

	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		int n = snprintf(line, sizeof(line),
				 "%llu@%026llx@%llx@%llx@D@%s@%llu@%s@%s@%u@%llu@%s\n",
				 (unsigned long long)a->prefix.time_s, (unsigned long long)++id.low,
				 (unsigned long long)a->prefix.batch,
				 (unsigned long long)a->prefix.connection, a->domain,
				 (unsigned long long)a->size, a->binding_group, a->binding,
				 a->retries, (unsigned long long)a->queued_s, a->remote_ip);

		measure_use((uint64_t)n);
	}
	return REPEATS;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = format_r,
	 .rows = {{"mainlog.r", "ns", "mainlog.r-printf"}}},
	{.run = measure_case_ns, .step = print_r, .rows = {{"mainlog.r-printf", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = format_d,
	 .rows = {{"mainlog.d", "ns", "mainlog.d-printf"}}},
	{.run = measure_case_ns, .step = print_d, .rows = {{"mainlog.d-printf", "ns", NULL}}},
};

const struct micro_group micro_mainlog = {
	.name = "mainlog",
	.label = "lines of the main log, formatted",
	MICRO_CASES(cases),
};
