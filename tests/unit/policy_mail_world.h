/*
 * A state whose hook for data has a script's text, and a message for it.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/policy_script.h"

#define PRINTED 4096

SINGLE
struct world {
	struct agent agent;
	struct policy *policy;
	struct policy_subject subject;
	struct pool buffers;
	struct chain body;
	struct policy_mail mail;
	char printed[PRINTED];
	char errors[PRINTED];
};

static void on_print(void *context, const char *text, size_t len)
{
	struct world *w = context;

	snprintf(w->printed + strlen(w->printed), PRINTED - strlen(w->printed), "%.*s;", (int)len,
		 text);
}

static void on_error(void *context, const char *text)
{
	struct world *w = context;

	snprintf(w->errors, PRINTED, "%s", text);
}

static const struct policy_ops ops = {.print = on_print, .error = on_error};
static const struct policy_subject_ops no_facts = {.known = NULL};

/* A state whose hook for data has `body`, and a message with this text. */
static inline struct world *open_world(const char *body, const char *text, size_t len)
{
	struct world *w = calloc(1, sizeof(*w));
	struct policy_scripts scripts = {0};
	const struct policy_start start = {
		.scripts = &scripts,
		.limits = {.memory_bytes = 4 << 20, .instructions = 10000000},
		.ops = &ops,
		.context = w,
	};
	char script[8192];
	int used;

	assert_non_null(w);
	used = snprintf(
		script, sizeof(script),
		"msys.registerModule('m', { validate_data = function(self, msg, ac, vctx)\n%s\n"
		"return 0 end })",
		body);
	assert_in_range(used, 1, sizeof(script) - 1);
	add_script(&scripts, "test", script);
	w->agent.clock = &fixed;
	w->policy = policy_create(&w->agent, &start, stderr);
	assert_non_null(w->policy);
	policy_scripts_close(&scripts);
	policy_subject_init(&w->subject, w->policy, &no_facts, w);
	pool_init(&w->buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	policy_mail_init(&w->mail);
	policy_text_store(text, len, true, &w->body, &w->buffers);
	w->mail.body = &w->body;
	w->mail.buffers = &w->buffers;
	policy_subject_set_mail(&w->subject, &w->mail);
	return w;
}

static inline void close_world(struct world *w)
{
	policy_subject_close(&w->subject);
	policy_mail_close(&w->mail);
	chain_release(&w->body, &w->buffers);
	pool_close(&w->buffers);
	policy_destroy(w->policy);
	free(w);
}

/* The hook ends at once. */
static inline enum policy_result run(struct world *w)
{
	struct policy_call c = {.subject = &w->subject, .hook = POLICY_DATA, .argument = ""};

	assert_true(policy_call_begin(&c));
	return c.result;
}
