/*
 * Health, for those who start programs and spread clients over them: does the program run, does it
 * take mail. Answered from what anybody may read, at once.
 */
#pragma once

#include "core/runtime/thread_class.h"

struct request;

/* /healthz/live: 200 as long as anybody answers. */
BOUND
void health_live(struct request *r);

/* /healthz/ready, /healthz: 200, or 503 with the reason why mail is put off. */
BOUND
void health_ready(struct request *r);
