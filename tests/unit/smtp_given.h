/*
 * For smtp_world.h and tests/fuzz/fuzz_smtp_session.c: what a listener is given in place of the
 * library's, and is the same for every session.
 */
#pragma once

#include <stdio.h>

#include "agents/scheduler.h"
#include "config/config.h"

void scheduler_format_number(const struct scheduler *s, uint64_t number, char text[24])
{
	(void)s;
	snprintf(text, 24, "%llu", (unsigned long long)number);
}

uint32_t config_smtp_listen_count(const struct config *config)
{
	(void)config;
	return 1;
}

const struct listen_options *config_smtp_listen(const struct config *config, uint32_t index)
{
	static const struct listen_options listen = {.name = "192.0.2.25:25"};

	(void)config;
	(void)index;
	return &listen;
}

/* There is one generation, which is nobody's. */
struct config *config_hold(struct config *config)
{
	return config;
}

void config_release(struct config *config)
{
	(void)config;
}

uint64_t config_number(const struct config *config)
{
	(void)config;
	return 1;
}
