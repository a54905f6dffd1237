/*
 * How long the disk takes to make one message durable, bare: what every latency of mail that is
 * synced contains at least once.
 */
#include "perf/micro/body.h"
#include "perf/micro/disk.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define FILE_BYTES (UINT64_C(64) << 20)

static struct disk_file file;

static void begin(void)
{
	measure_unpin();
	disk_open(&file, micro_count(FILE_BYTES, FILE_BYTES / 64), BODY_10K);
}

static void end(void)
{
	disk_close(&file);
	measure_pin(0);
}

static void run_commits(const struct micro_case *c, double *values)
{
	struct histogram *h = measure_histogram();
	uint64_t count = micro_count(3000, 10);

	(void)c;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t began = measure_ticks();

		disk_commit(&file, BODY_10K);
		histogram_record(h, measure_ticks() - began);
	}
	measure_quantiles(h, values);
}

static const struct micro_case cases[] = {
	{.run = run_commits,
	 .rows = {{"fsync.p50", "ns", NULL},
		  {"fsync.p99", "ns", NULL},
		  {"fsync.p99.9", "ns", NULL}}},
};

const struct micro_group micro_fsync = {
	.name = "fsync",
	.label = "pwrite() of 10 KiB and fdatasync(), bare",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
