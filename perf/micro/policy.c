/*
 * Policy: what a hook costs that does nothing, and the one that chooses bindings by a field of the
 * header; beside the branch that is all where no script has the hook.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mail/message.h"
#include "core/policy/policy.h"
#include "perf/micro/body.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16

static const char script[] = "local mod = {};\n"
			     "function mod:validate_data(msg, ac, vctx)\n"
			     "end\n"
			     "function mod:validate_set_binding(msg)\n"
			     "  local mybinding = msg:header(\"Message-Id\");\n"
			     "  local err = msg:binding(mybinding);\n"
			     "end\n"
			     "msys.registerModule(\"policy\", mod);\n";

static uint64_t tell_time(void *context)
{
	(void)context;
	return 1;
}

static const struct clock fixed = {.monotonic_ns = tell_time, .wall_ns = tell_time};

static struct {
	struct mail_pools pools;
	struct chain body;
	struct agent agent;
	struct policy *policy;
	struct policy_subject subject;
	unsigned char bytes[BODY_2K];
} world;

static void ignore_print(void *context, const char *text, size_t len)
{
	(void)context;
	(void)text;
	(void)len;
}

static void fail(void *context, const char *text)
{
	(void)context;
	errx(2, "%s", text);
}

static bool is_binding(void *context, const char *name)
{
	(void)context;
	(void)name;
	return true;
}

static const struct policy_ops ops = {
	.print = ignore_print,
	.error = fail,
	.is_binding = is_binding,
};
static const struct policy_subject_ops no_facts = {.known = NULL};

static void load(struct policy_scripts *scripts)
{
	char path[] = "/tmp/fwmicro-policy-XXXXXX";
	char why[POLICY_WHY];
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, script, sizeof(script) - 1) != sizeof(script) - 1) {
		err(2, "%s", path);
	}
	close(fd);
	if (policy_scripts_add(scripts, "policy", path, why) != 0) {
		errx(2, "%s", why);
	}
	unlink(path);
}

static void begin(void)
{
	struct policy_scripts scripts = {0};
	const struct policy_start start = {
		.scripts = &scripts,
		.limits = {.memory_bytes = 64 << 20, .instructions = 1000000},
		.ops = &ops,
	};

	mail_pools_init(&world.pools);
	body_fill(world.bytes, sizeof(world.bytes));
	chain_append(&world.body, &world.pools.buffers, world.bytes, sizeof(world.bytes));
	load(&scripts);
	world.agent.clock = &fixed;
	world.policy = policy_create(&world.agent, &start, stderr);
	policy_scripts_close(&scripts);
	if (world.policy == NULL) {
		errx(2, "the script cannot be run");
	}
	policy_subject_init(&world.subject, world.policy, &no_facts, NULL);
}

static void end(void)
{
	policy_subject_close(&world.subject);
	policy_destroy(world.policy);
	chain_release(&world.body, &world.pools.buffers);
	mail_pools_close(&world.pools);
}

/* One message, and one hook that sees it. */
static void pass(enum policy_hook hook)
{
	struct policy_mail mail;
	struct policy_call call = {.subject = &world.subject, .hook = hook};

	policy_mail_init(&mail);
	mail.body = &world.body;
	mail.buffers = &world.pools.buffers;
	policy_subject_set_mail(&world.subject, &mail);
	if (!policy_call_begin(&call) || call.result != POLICY_GO_ON) {
		errx(2, "the hook failed");
	}
	policy_mail_settle(&mail);
	policy_subject_set_mail(&world.subject, NULL);
	policy_mail_close(&mail);
}

static uint64_t pass_empty(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		pass(POLICY_DATA);
	}
	return REPEATS;
}

static uint64_t pass_binding(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		pass(POLICY_SET_BINDING);
	}
	return REPEATS;
}

static uint64_t pass_none(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		const uint32_t *hooks = measure_hide(&(uint32_t){0});

		measure_use((*hooks & POLICY_BIT(POLICY_DATA)) != 0);
	}
	return REPEATS;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = pass_empty,
	 .rows = {{"policy.empty", "ns", "policy.none"}}},
	{.run = measure_case_ns,
	 .step = pass_binding,
	 .rows = {{"policy.binding", "ns", "policy.none"}}},
	{.run = measure_case_ns, .step = pass_none, .rows = {{"policy.none", "ns", NULL}}},
};

const struct micro_group micro_policy = {
	.name = "policy",
	.label = "hooks of policy in Lua",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
