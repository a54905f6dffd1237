/*
 * What is at /metrics: every counter, histograms, the process, agents and threads, and of domains
 * and bindings what a snapshot has.
 *
 * Start reading at metrics_write().
 */
#pragma once

#include "core/runtime/thread_class.h"
#include "listeners/http/gather.h"
#include "listeners/http/text.h"

struct http;

BOUND
void metrics_write(struct text *t, const struct http *http, const struct snapshot *s);
