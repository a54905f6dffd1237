#include "tools/console_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

SINGLE
struct console {
	int fd;
	FILE *in;
	char *line;
	size_t line_size;
};

struct console *console_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct console *c;
	int fd;
	int saved;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(address.sun_path, path);
	c = calloc(1, sizeof(*c));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c != NULL && fd >= 0 &&
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		c->fd = fd;
		c->in = fdopen(fd, "r");
	}
	if (c != NULL && c->in != NULL) {
		return c;
	}
	saved = errno;
	if (fd >= 0) {
		close(fd);
	}
	free(c);
	errno = saved;
	return NULL;
}

bool console_is_closed(struct console *c)
{
	char octet;

	return recv(c->fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* False with errno set. */
static bool send_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return false;
		}
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static json_t *parse_answer(const char *line, size_t len)
{
	json_t *answer = json_loadb(line, len, 0, NULL);

	if (!json_is_boolean(json_object_get(answer, "ok"))) {
		json_decref(answer);
		errno = EPROTO;
		return NULL;
	}
	return answer;
}

json_t *console_ask(struct console *c, const char *command)
{
	ssize_t len;

	if (strchr(command, '\n') != NULL) {
		errno = EINVAL;
		return NULL;
	}
	if (!send_all(c->fd, command, strlen(command)) || !send_all(c->fd, "\n", 1)) {
		/* It may have said why it closes before it did. */
		if (errno != EPIPE && errno != ECONNRESET) {
			return NULL;
		}
	}
	errno = 0;
	len = getline(&c->line, &c->line_size, c->in);
	if (len <= 0) {
		errno = errno != 0 ? errno : ECONNRESET;
		return NULL;
	}
	return parse_answer(c->line, (size_t)len);
}

void console_close(struct console *c)
{
	if (c == NULL) {
		return;
	}
	fclose(c->in);
	free(c->line);
	free(c);
}
