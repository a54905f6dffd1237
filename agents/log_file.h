/*
 * Log file: an output that appends records to a plain file, one a line.
 */
#pragma once

#include <stdio.h>

#include "agents/log_output.h"

/* Opens file `name` of the host's directory for appending, mode 0644. 0, or a negative errno after
 * one line on `errors`. */
SINGLE
int log_file_open(struct log_output **out, struct log_output_host *h, const char *name,
		  FILE *errors);
