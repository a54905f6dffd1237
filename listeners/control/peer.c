#include "listeners/control/peer.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUPS_MAX 1024

int peer_credentials(int fd, struct peer *peer)
{
	struct ucred c;
	socklen_t len = sizeof(c);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) != 0) {
		return -errno;
	}
	*peer = (struct peer){.pid = c.pid, .uid = c.uid, .gid = c.gid};
	return 0;
}

/* Supplementary groups; a kernel that cannot say counts as a no. */
static bool in_group(int fd, gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	socklen_t len = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
		return false;
	}
	for (socklen_t i = 0; i < len / sizeof(gid_t); i++) {
		if (groups[i] == gid) {
			return true;
		}
	}
	return false;
}

bool peer_authorised(int fd, const struct peer *peer)
{
	return peer->uid == 0 || peer->uid == geteuid() || peer->gid == getegid() ||
	       in_group(fd, getegid());
}
