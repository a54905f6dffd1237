/*
 * The simulated kernel: what the program sees of the world. Descriptors from KERNEL_FD on, the
 * system calls that the program makes with them or with paths below "/sim" (linked by ld's --wrap),
 * and a multiplexor back end, `sim`, whose operations complete when and in the order the world
 * likes.
 *
 * The table is the process's own memory and ends with it. Each system call may be this life's last
 * moment: kernel_moment().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define KERNEL_FD 1000000

/* A new process: nothing is open. This life ends by `end` at `end_ns` (UINT64_MAX: not). */
void kernel_boot(int end, uint64_t end_ns);

/* Ends the process if its time has come. */
void kernel_moment(void);

/* The program gets a signal (by its signalfd). */
void kernel_signal(int signal);

/* Whether it has got SIGTERM. */
bool kernel_told_to_stop(void);

/* Whether an eventfd was written since it was last asked. */
bool kernel_take_bell(int eventfd);

/* After the program stopped by itself: no descriptor is open. World_fail()s. */
void kernel_check_closed(void);
