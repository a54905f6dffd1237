#include "perf/micro/pair.h"

#include <err.h>
#include <string.h>

#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

struct pair pair;

int pair_no_work(struct agent *self)
{
	(void)self;
	return 0;
}

void pair_run(const struct pair_plan *plan)
{
	struct runtime *rt = &pair.runtime;
	int rc;

	/* The runtime counts the cores that it may use. */
	measure_unpin();
	runtime_init(rt, &clock_system);
	agent_init(&pair.first, &plan->first, "first", 0);
	agent_init(&pair.second, &plan->second, "second", 0);
	runtime_add(rt, runtime_group(rt, "first", micro.cores[0], &plan->first_idle), &pair.first);
	runtime_add(rt, runtime_group(rt, "second", micro.cores[1], &plan->second_idle),
		    &pair.second);
	rc = runtime_prepare(rt);
	if (rc == 0) {
		rc = runtime_run(rt);
	}
	if (rc != 0) {
		errx(2, "the agents cannot start: %s", strerror(-rc));
	}
	runtime_close(rt);
	measure_pin(0);
	agent_close(&pair.first);
	agent_close(&pair.second);
}
