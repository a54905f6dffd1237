/*
 * Destinations of log records, as configuration writes them: "file:NAME", "json:NAME" and
 * "jlog:NAME". A NAME is a path; a relative one is below the folder of the logs.
 */
#pragma once

#include "core/runtime/thread_class.h"

/* Of all logs together. */
#define LOG_DESTINATIONS_MAX 32

/* What is wrong with `text` as a destination, such as "has no name"; NULL: nothing. */
CONCURRENT
const char *log_destination_check(const char *text);

/* Behind the colon; `text` was checked. */
CONCURRENT
const char *log_destination_name(const char *text);
