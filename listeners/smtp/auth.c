#include "listeners/smtp/auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agents/password_file.h"
#include "agents/thread_pool.h"
#include "listeners/smtp/sasl.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/session_log.h"

#define TEXT_MAX 320

enum auth_step {
	/* Waits for a line. */
	AUTH_PLAIN,
	AUTH_LOGIN_USER,
	AUTH_LOGIN_PASSWORD,
	/* A worker is at it. */
	AUTH_CHECKING,
	/* It failed, and is answered later. */
	AUTH_DELAYED,
};

BOUND
struct smtp_auth {
	struct smtp_session *session;
	enum auth_step step;
	/* By LOGIN; else by PLAIN. */
	bool login;
	struct job job;
	struct timer delay;
	/* The worker's: what it reads, and what came out. */
	const char *path;
	struct sasl_credentials credentials;
	char binding[ENVELOPE_BINDING_MAX + 1];
	int result;
};

static struct scheduler *scheduler_of(const struct smtp_session *ss)
{
	return ss->listener->scheduler;
}

bool smtp_auth_offered(const struct smtp_session *ss)
{
	return ss->options->auth_file != NULL && (ss->secure || ss->options->allow_plain_auth);
}

bool smtp_auth_waits_for_line(const struct smtp_session *ss)
{
	return ss->auth != NULL && ss->auth->step < AUTH_CHECKING;
}

/* ---- the end ---- */

static void release(struct smtp_session *ss)
{
	struct smtp_auth *a = ss->auth;

	ss->auth = NULL;
	explicit_bzero(&a->credentials, sizeof(a->credentials));
	free(a);
}

void smtp_auth_abandon(struct smtp_session *ss)
{
	if (ss->auth == NULL || ss->auth->step == AUTH_CHECKING) {
		return;
	}
	timer_cancel(&ss->auth->delay);
	release(ss);
}

static const char *method_of(const struct smtp_auth *a)
{
	return a->login ? "LOGIN" : "PLAIN";
}

static void log_access(struct smtp_session *ss, const char *user, bool granted)
{
	smtp_log_authentication(ss, user, method_of(ss->auth), granted);
}

/* `why` in the reject log, with the user's name if one was told. */
static void log_refusal(struct smtp_session *ss, unsigned code, const char *status, const char *why)
{
	const char *user = ss->auth->credentials.user;
	char text[TEXT_MAX];

	snprintf(text, sizeof(text), "%s%s%s", why, user[0] != '\0' ? ": user " : "", user);
	smtp_log_rejection(ss, SMTP_STAGE_AFTER_EHLO,
			   &(struct smtp_refusal){(uint16_t)code, status, text}, NULL, NULL);
}

/* The exchange is over without a verdict. */
static void give_up(struct smtp_session *ss, unsigned code, const char *status, const char *text)
{
	log_refusal(ss, code, status, text);
	release(ss);
	smtp_session_reply(ss, code, status, "%s", text);
}

/* Answered, and back to commands. */
static void resume(struct smtp_session *ss)
{
	if (ss->state == SMTP_SESSION_AUTH) {
		ss->state = SMTP_SESSION_COMMANDS;
		if (ss->listener->stopping) {
			smtp_count(smtp_session_counts(ss), SMTP_COUNT_REFUSED_STOPPING);
			smtp_session_dismiss(ss, "4.3.2", "Shutting down");
		}
	}
	smtp_session_resume(ss);
	smtp_session_settle(ss);
}

static void on_delay(struct timer *t)
{
	struct smtp_session *ss = CONTAINER_OF(t, struct smtp_auth, delay)->session;

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	release(ss);
	if (++ss->auth_failures >= SMTP_AUTH_FAILURES_MAX) {
		smtp_session_dismiss(ss, "4.7.0", "Too many authentication failures, closing");
	} else {
		smtp_session_reply(ss, 535, "5.7.8", "Authentication credentials invalid");
	}
	resume(ss);
}

static void deny(struct smtp_session *ss)
{
	struct smtp_auth *a = ss->auth;

	smtp_count(smtp_session_counts(ss), SMTP_COUNT_AUTH_FAILED);
	log_refusal(ss, 535, "5.7.8", "Authentication credentials invalid");
	log_access(ss, a->credentials.user, false);
	a->step = AUTH_DELAYED;
	ss->state = SMTP_SESSION_AUTH;
	timer_arm(&a->delay, agent_now_ms(&scheduler_of(ss)->base) + SMTP_AUTH_DELAY_MS);
}

static void grant(struct smtp_session *ss)
{
	struct smtp_auth *a = ss->auth;

	smtp_count(smtp_session_counts(ss), SMTP_COUNT_AUTH_GRANTED);
	log_access(ss, a->credentials.user, true);
	auth_limit_return(&ss->listener->auth_limit, &ss->peer);
	smtp_session_set_user(ss, a->credentials.user, a->binding[0] != '\0' ? a->binding : NULL);
	ss->auth_method = method_of(a);
	ss->idle_commands = 0;
	release(ss);
	smtp_session_say(ss, "235 2.7.0 Authentication successful\r\n");
}

/* Nobody can tell: it is no failure of the client's. */
static void no_verdict(struct smtp_session *ss, int error)
{
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_AUTH_TROUBLE);
	agent_error(&scheduler_of(ss)->base, error, "a password could not be checked (auth_file)");
	auth_limit_return(&ss->listener->auth_limit, &ss->peer);
	give_up(ss, 454, "4.7.0", "Temporary authentication failure");
}

/* ---- the check ---- */

static void work(struct job *job)
{
	struct smtp_auth *a = CONTAINER_OF(job, struct smtp_auth, job);

	a->result = password_file_check(a->path, a->credentials.user, a->credentials.password,
					a->binding);
}

static void on_checked(struct agent *self, struct job *job, int result)
{
	struct smtp_auth *a = CONTAINER_OF(job, struct smtp_auth, job);
	struct smtp_session *ss = a->session;

	(void)self;
	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	OWNER_CHECK(ss);
	ASSERT(ss->auth == a && a->step == AUTH_CHECKING);
	result = result != 0 ? result : a->result;
	if (ss->state != SMTP_SESSION_AUTH) {
		/* It closes. */
		release(ss);
		smtp_session_settle(ss);
		return;
	}
	if (result == -EACCES) {
		deny(ss);
		smtp_session_settle(ss);
		return;
	}
	if (result == 0) {
		grant(ss);
	} else {
		no_verdict(ss, result);
	}
	resume(ss);
}

/* User and password are there. */
static void check(struct smtp_session *ss)
{
	struct smtp_auth *a = ss->auth;
	struct scheduler *s = scheduler_of(ss);

	if (!auth_limit_take(&ss->listener->auth_limit, &ss->peer, ss->options->max_auth_failures,
			     agent_now_ms(&s->base))) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_AUTH_LIMITED);
		log_refusal(ss, 421, "4.7.0", "Too many authentication failures, try again later");
		release(ss);
		smtp_session_dismiss(ss, "4.7.0",
				     "Too many authentication failures, try again later");
		return;
	}
	a->step = AUTH_CHECKING;
	a->path = ss->options->auth_file;
	a->job = (struct job){.work = work, .on_done = on_checked, .from = &s->base};
	ss->state = SMTP_SESSION_AUTH;
	thread_pool_run(s->program->pool, &s->base, &a->job);
}

/* ---- the exchange ---- */

static void challenge(struct smtp_session *ss, enum auth_step step)
{
	/* "Username:", "Password:"; PLAIN asks nothing. */
	const char *text = step == AUTH_LOGIN_USER       ? "334 VXNlcm5hbWU6\r\n"
			   : step == AUTH_LOGIN_PASSWORD ? "334 UGFzc3dvcmQ6\r\n"
							 : "334 \r\n";

	ss->auth->step = step;
	smtp_session_say(ss, text);
}

static void take_response(struct smtp_session *ss, const char *text, size_t len)
{
	struct smtp_auth *a = ss->auth;
	int rc;

	switch (a->step) {
	case AUTH_LOGIN_USER:
		rc = sasl_login_parse(text, len, a->credentials.user);
		break;
	case AUTH_LOGIN_PASSWORD:
		rc = sasl_login_parse(text, len, a->credentials.password);
		break;
	default:
		rc = sasl_plain_parse(text, len, &a->credentials);
		break;
	}
	if (rc == -EINVAL) {
		give_up(ss, 501, "5.5.2", "Cannot decode the response");
	} else if (a->step == AUTH_LOGIN_USER) {
		challenge(ss, AUTH_LOGIN_PASSWORD);
	} else if (rc == -EACCES) {
		deny(ss);
	} else {
		check(ss);
	}
}

void smtp_auth_line(struct smtp_session *ss, const char *line, size_t len)
{
	if (len == 1 && line[0] == '*') {
		give_up(ss, 501, "5.0.0", "Authentication cancelled");
		return;
	}
	take_response(ss, line, len);
}

void smtp_auth_begin(struct smtp_session *ss, const char *argument, size_t len)
{
	const char *space = memchr(argument, ' ', len);
	size_t word = space != NULL ? (size_t)(space - argument) : len;
	const char *initial = space != NULL ? space + 1 : NULL;
	bool login = word == 5 && strncasecmp(argument, "LOGIN", 5) == 0;

	if (!login && (word != 5 || strncasecmp(argument, "PLAIN", 5) != 0)) {
		smtp_session_reply(ss, 504, "5.5.4", "Mechanism not offered");
		return;
	}
	ss->auth = check_memory(calloc(1, sizeof(*ss->auth)), "an authentication");
	ss->auth->session = ss;
	timer_init(&ss->auth->delay, &scheduler_of(ss)->base, on_delay);
	ss->auth->login = login;
	ss->auth->step = login ? AUTH_LOGIN_USER : AUTH_PLAIN;
	if (initial != NULL) {
		take_response(ss, initial, len - word - 1);
	} else {
		challenge(ss, ss->auth->step);
	}
}
