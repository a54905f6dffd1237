#include "agents/listen_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/runtime/check.h"

/* How often an address that is in use is tried. */
#define BIND_AGAIN_MS 20

/* A socket file that nobody serves any more is in the way. */
static void remove_stale(const struct sockaddr_un *address)
{
	struct stat st;
	int fd;

	if (stat(address->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
		return;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		if (connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
		    errno == ECONNREFUSED) {
			unlink(address->sun_path);
		}
		close(fd);
	}
}

/* The kernel lets go of the sockets of a killed process that used io_uring a moment after it has
 * ended: who starts again at once finds them taken, and waits a little. */
static bool bind_patiently(int fd, const struct listen_options *o, int patience_ms)
{
	for (int waited_ms = 0;; waited_ms += BIND_AGAIN_MS) {
		if (o->address.ss_family == AF_UNIX) {
			remove_stale((const struct sockaddr_un *)(const void *)&o->address);
		}
		if (bind(fd, (const struct sockaddr *)&o->address, o->address_len) == 0) {
			return true;
		}
		if (errno != EADDRINUSE || waited_ms >= patience_ms) {
			return false;
		}
		usleep(BIND_AGAIN_MS * 1000);
	}
}

/* Binds and listens: the descriptor, or -1 and a line on `errors`. */
static int open_socket(const struct listen_options *o, int patience_ms, FILE *errors)
{
	int family = o->address.ss_family;
	int on = 1;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		fprintf(errors, "flywheeld: cannot listen on %s: %s\n", o->name, strerror(errno));
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (!bind_patiently(fd, o, patience_ms) ||
	    (family == AF_UNIX && chmod(o->name, o->file_mode) != 0) ||
	    listen(fd, (int)o->backlog) != 0) {
		fprintf(errors, "flywheeld: cannot listen on %s: %s%s\n", o->name, strerror(errno),
			errno == EADDRINUSE
				? " (does another program, or another flywheeld, use it?)"
				: "");
		close(fd);
		return -1;
	}
	return fd;
}

int64_t listen_find(const struct listener_ops *ops, const struct config *config,
		    const struct listen_options *o)
{
	uint32_t count = ops->listen_count(config);

	for (uint32_t i = 0; i < count; i++) {
		if (config_same_address(ops->listen(config, i), o)) {
			return i;
		}
	}
	return -1;
}

void listen_sockets_close(struct listen_sockets *sockets)
{
	for (uint32_t i = 0; sockets != NULL && i < sockets->count; i++) {
		if (sockets->list[i].fd >= 0) {
			close(sockets->list[i].fd);
			if (sockets->list[i].path != NULL) {
				unlink(sockets->list[i].path);
			}
		}
	}
	free(sockets);
}

struct listen_sockets *listen_sockets_open(const struct program *p, const struct config *config,
					   const struct config *running, int patience_ms,
					   FILE *errors)
{
	struct listen_sockets *sockets = check_memory(calloc(1, sizeof(*sockets)), "sockets");
	bool good = true;
	uint32_t sum = 0;

	for (uint32_t listener = 0; listener < p->listener_count; listener++) {
		const struct listener_ops *ops = p->listeners[listener];
		uint32_t count = ops->listen_count(config);

		sum += count;
		for (uint32_t i = 0; i < count && sum <= LISTENS_MAX; i++) {
			const struct listen_options *o = ops->listen(config, i);
			int fd;

			if (running != NULL && listen_find(ops, running, o) >= 0) {
				continue;
			}
			fd = open_socket(o, patience_ms, errors);
			good = good && fd >= 0;
			sockets->list[sockets->count].listener = listener;
			sockets->list[sockets->count].index = i;
			sockets->list[sockets->count].path =
				o->address.ss_family == AF_UNIX ? o->name : NULL;
			sockets->list[sockets->count++].fd = fd;
		}
	}
	if (sum > LISTENS_MAX) {
		fprintf(errors, "flywheeld: %u listens are configured, expected at most %d\n", sum,
			LISTENS_MAX);
		good = false;
	}
	if (!good) {
		listen_sockets_close(sockets);
		return NULL;
	}
	return sockets;
}
