/*
 * What an SMTP session writes to the main log and to the reject log.
 */
#pragma once

#include "core/mail/message.h"
#include "core/mail/smtp_refusal.h"
#include "core/mail/smtp_stage.h"
#include "core/runtime/thread_class.h"

struct smtp_session;

/* One R line for each recipient of an accepted message. */
BOUND
void smtp_log_reception(struct smtp_session *ss, const struct message *m);

/* One J line. `sender` and `recipient`: what was refused; NULL: those of the transaction. Counts
 * the rejection, too. */
BOUND
void smtp_log_rejection(struct smtp_session *ss, enum smtp_stage stage,
			const struct smtp_refusal *refusal, const char *sender,
			const char *recipient);
