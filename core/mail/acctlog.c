#include "core/mail/acctlog.h"

#include <stdio.h>
#include <string.h>

#include "core/mail/mainlog.h"

#define FIELD_MAX 256

static size_t put(char *line, size_t at, const char *text)
{
	at += mainlog_escape(text, strlen(text), line + at, FIELD_MAX);
	line[at] = '@';
	return at + 1;
}

size_t acctlog_authentication(char line[ACCTLOG_LINE_MAX], const struct acctlog_authentication *a)
{
	size_t at =
		(size_t)snprintf(line, ACCTLOG_LINE_MAX, "%llu@N@", (unsigned long long)a->time_s);

	at = put(line, at, a->listener);
	at = put(line, at, a->peer_ip);
	at = put(line, at, a->user);
	line[at++] = a->granted ? '1' : '0';
	line[at++] = '\n';
	return at;
}
