#include "tools/console_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

SINGLE
struct console {
	struct sockaddr_un address;
	/* NULL: no connection. */
	FILE *in;
	bool renewed;
	/* `config begin` was answered, and nothing has ended it. */
	bool gathers;
	/* It did, on a connection that is no more, and nobody was told. */
	bool lost;
	char *line;
	size_t line_size;
};

/* False with errno set. */
static bool open_connection(struct console *c)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int saved;

	if (fd >= 0 && connect(fd, (struct sockaddr *)&c->address, sizeof(c->address)) == 0) {
		c->in = fdopen(fd, "r");
	}
	if (c->in != NULL) {
		return true;
	}
	saved = errno;
	if (fd >= 0) {
		close(fd);
	}
	errno = saved;
	return false;
}

static void close_connection(struct console *c)
{
	if (c->in != NULL) {
		fclose(c->in);
		c->in = NULL;
	}
}

struct console *console_connect(const char *path)
{
	struct console *c;
	int saved;

	if (strlen(path) >= sizeof(c->address.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		return NULL;
	}
	c->address.sun_family = AF_UNIX;
	strcpy(c->address.sun_path, path);
	if (open_connection(c)) {
		return c;
	}
	saved = errno;
	free(c);
	errno = saved;
	return NULL;
}

static bool is_closed(const struct console *c)
{
	char octet;

	return recv(fileno(c->in), &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
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

static json_t *ask(struct console *c, const char *command)
{
	int fd = fileno(c->in);
	ssize_t len;

	if (!send_all(fd, command, strlen(command)) || !send_all(fd, "\n", 1)) {
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

/* `verb` NULL: with whatever comes then. */
static bool is_config(const char *command, const char *verb)
{
	char words[2][16];
	int count = sscanf(command, "%15s %15s", words[0], words[1]);

	return count > 0 && strcasecmp(words[0], "config") == 0 &&
	       (verb == NULL || (count > 1 && strcasecmp(words[1], verb) == 0));
}

/* `answer` NULL: none came, and what became of the command is not known. */
static void note_transaction(struct console *c, const char *command, const json_t *answer)
{
	bool refused = json_is_false(json_object_get(answer, "ok"));

	if (is_config(command, "begin")) {
		c->gathers |= answer != NULL && !refused;
	} else if (is_config(command, "commit") || is_config(command, "rollback")) {
		c->gathers &= refused;
	}
}

json_t *console_ask(struct console *c, const char *command)
{
	json_t *answer;
	int saved;

	if (strchr(command, '\n') != NULL) {
		errno = EINVAL;
		return NULL;
	}
	if (c->in != NULL && is_closed(c)) {
		close_connection(c);
	}
	if (c->in == NULL) {
		if (!open_connection(c)) {
			return NULL;
		}
		c->renewed = true;
		c->lost |= c->gathers;
		c->gathers = false;
	}
	if (c->lost && is_config(command, NULL)) {
		c->lost = false;
		errno = ESTALE;
		return NULL;
	}
	answer = ask(c, command);
	note_transaction(c, command, answer);
	if (answer == NULL) {
		/* What may still come is the answer to something that nobody waits for. */
		saved = errno;
		close_connection(c);
		errno = saved;
	}
	return answer;
}

bool console_was_renewed(struct console *c)
{
	bool renewed = c->renewed;

	c->renewed = false;
	return renewed;
}

void console_close(struct console *c)
{
	if (c == NULL) {
		return;
	}
	close_connection(c);
	free(c->line);
	free(c);
}
