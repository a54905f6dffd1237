/*
 * For control_world.h: what commands ask of the configuration's loading, where there is none.
 */
#pragma once

#include "config/ask.h"
#include "config/writeback.h"

struct config *config_hold(struct config *config)
{
	return config;
}

struct config *config_load_again(const struct config *config, const struct overlay *overlay,
				 FILE *errors)
{
	(void)config;
	(void)overlay;
	(void)errors;
	return NULL;
}

struct config *config_writeback(const struct config *running, const struct overlay *overlay,
				void (*wrote)(void *context, const char *path), void *context,
				FILE *errors)
{
	(void)running;
	(void)overlay;
	(void)wrote;
	(void)context;
	(void)errors;
	return NULL;
}
