/*
 * Who is at the other end of a Unix socket, and may they give orders?
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "core/runtime/thread_class.h"

SINGLE
struct peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
};

/* Reads the credentials that the kernel kept when `fd` was connected. 0 or a negative errno. */
CONCURRENT
int peer_credentials(int fd, struct peer *peer);

/* Root, this process's own user, and members of its group may. */
CONCURRENT
bool peer_authorised(int fd, const struct peer *peer);
