/*
 * What a program that stopped by itself must have given back: tasks, operations, timers, objects of
 * pools, and what its own accounts say is in use. Looked at in each build, with the sanitizers or
 * without.
 *
 * Files, sockets and descriptors are the kernel's to check: kernel.h, net.h, disk.h. Start reading
 * at end() in life.c.
 */
#pragma once

#include "agents/scheduler.h"

/* Before the program begins: what is allocated until the end must be free by then. */
void accounts_begin(void);

/* All agents have drained, none is torn down: no task waits, no operation is under way, and the
 * wheel keeps no deadline but those that its owners know of. World_fail()s, as the others do. */
void accounts_check_drained(const struct program *p);

/* All are torn down. */
void accounts_check_torn_down(const struct program *p);

/* The program is gone: every pool is closed, what one pool gave another one of its name took back,
 * and with jemalloc, whose count is exact for a thread, the heap is what it was at the beginning.
 */
void accounts_check_closed(void);
