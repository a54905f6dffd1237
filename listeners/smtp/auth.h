/*
 * AUTH (RFC 4954): the exchange of the mechanisms PLAIN (RFC 4616) and LOGIN, from the command to
 * 235 or 535. Passwords are checked on a worker of the thread pool; meanwhile the session looks at
 * no input. A failure is answered late, counted against its peer address (max_auth_failures), and
 * written to the reject log with the user's name; no password is ever written anywhere.
 *
 * AUTH is offered where `auth_file` is configured, on connections that nobody can listen to
 * (session->secure), or where `allow_plain_auth` says that it does not matter.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/runtime/thread_class.h"

/* A failure is answered after so long, ms; after so many of them on one connection it is closed. */
#define SMTP_AUTH_DELAY_MS 1000
#define SMTP_AUTH_FAILURES_MAX 3

struct smtp_session;

/* Whether EHLO offers it now. */
BOUND
bool smtp_auth_offered(const struct smtp_session *ss);

/* AUTH may come now: `argument` is mechanism and perhaps initial response. */
BOUND
void smtp_auth_begin(struct smtp_session *ss, const char *argument, size_t len);

/* Whether the next line is a response to 334, which smtp_auth_line() takes, without CR LF. */
BOUND
bool smtp_auth_waits_for_line(const struct smtp_session *ss);
BOUND
void smtp_auth_line(struct smtp_session *ss, const char *line, size_t len);

/* The session says no more, or the line is lost. What a worker is busy with ends later: until then
 * session->auth remains, and the session must not be freed. */
BOUND
void smtp_auth_abandon(struct smtp_session *ss);
