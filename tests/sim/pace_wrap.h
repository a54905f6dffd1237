/*
 * What ld's --wrap links the pace of long work beside mail to: drawn (operator.c), as the world has
 * no CPU time that could tell who is busy.
 */
#pragma once

#include "listeners/control/pace.h"

int __wrap_pace_begin(struct pace *p, uint64_t mono_ns, uint64_t cpu_ns);
