/*
 * What an SMTP session tells the logs.
 */
#pragma once

#include <stdbool.h>

#include "core/mail/message.h"
#include "core/mail/smtp_refusal.h"
#include "core/mail/smtp_stage.h"
#include "core/runtime/thread_class.h"

struct smtp_session;

/* A message was accepted: one event for each recipient. */
BOUND
void smtp_log_reception(struct smtp_session *ss, const struct message *m);

/* Something was refused. `sender` and `recipient`: what was refused; NULL: those of the
 * transaction. Counts the rejection, too. */
BOUND
void smtp_log_rejection(struct smtp_session *ss, enum smtp_stage stage,
			const struct smtp_refusal *refusal, const char *sender,
			const char *recipient);

/* The client showed that it is `user` by `method` ("PLAIN"), or could not. */
BOUND
void smtp_log_authentication(struct smtp_session *ss, const char *user, const char *method,
			     bool granted);
