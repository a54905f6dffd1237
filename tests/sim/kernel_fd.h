/*
 * Descriptors of the simulated kernel; for kernel*.c and mux_sim.c only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/runtime/mux.h"
#include "tests/sim/kernel.h"

struct disk_node;
struct mux_sim;
struct net_end;
struct net_listener;

enum kernel_kind {
	KERNEL_FREE,
	KERNEL_FILE,
	/* A socket that is neither connected nor listening. */
	KERNEL_SOCKET,
	KERNEL_CONNECTION,
	KERNEL_LISTENER,
	KERNEL_EVENTFD,
	KERNEL_SIGNALFD,
};

struct kernel_fd {
	enum kernel_kind kind;
	int number;
	/* A file. */
	struct disk_node *node;
	uint64_t position;
	bool append;
	bool direct;
	/* A socket. */
	struct net_end *end;
	struct net_listener *listener;
	struct sockaddr_storage address;
	socklen_t address_len;
	/* Operations of the multiplexor that wait for it. */
	struct mux_sim *mux;
	struct mux_op *reader;
	struct mux_op *writer;
	/* A look at the reader or the writer is on its way. */
	bool look_reader;
	bool look_writer;
	/* An eventfd. */
	bool rung;
	/* A signalfd: signals that wait, a bit for each. */
	uint64_t signals;
};

/* The descriptor; NULL when it is not of this kernel. */
struct kernel_fd *kernel_fd(int fd);
/* The same for a descriptor that must be open. */
struct kernel_fd *kernel_open_fd(int fd);
/* The lowest free descriptor; never NULL. */
struct kernel_fd *kernel_new_fd(enum kernel_kind kind);

/* Wakes what waits for a descriptor: mux_sim.c looks again, soon. */
void mux_sim_look(struct kernel_fd *f, int events);

/* A read or a write of a file: when it is opened for direct ones, it has to be aligned. */
void kernel_check_aligned(const struct kernel_fd *f, const void *data, size_t len, uint64_t offset);

/* Sets errno for a negative result, and returns what a system call returns. */
long kernel_result(long result);
