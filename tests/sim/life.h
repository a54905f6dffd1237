/*
 * One life of the program: fork, start, step its threads in any order until its end, and say how
 * it ended.
 *
 * Start reading at run() in life.c.
 */
#pragma once

#include "tests/sim/scenario.h"

/* Forks a process that runs the program; returns enum life_end. LIFE_FAILED: world->failure says
 * why. Otherwise disk, network and books know of the end. */
int life_run(const struct scenario *s, const struct scenario_life *plan);
