/*
 * Dialogue: what each SMTP command means, in which order they may come, and which limits hold.
 *
 * Start reading at smtp_dialogue_line().
 */
#pragma once

#include <stddef.h>

#include "core/mail/smtp_refusal.h"
#include "core/runtime/thread_class.h"
#include "listeners/smtp/counts.h"

struct smtp_session;

/* Obeys or refuses one command line, `len` bytes without its CR LF. session->unread bytes were
 * received after it. May close the session, never frees it. */
BOUND
void smtp_dialogue_line(struct smtp_session *ss, const char *line, size_t len);

/* The banner; or, with a refusal, that, and the end. What was sent before it is too early. */
BOUND
void smtp_dialogue_greet(struct smtp_session *ss, const struct smtp_refusal *refusal);

/* Lines that are no command: ended by LF without CR, and longer than is allowed. Of `line` the
 * beginning is at hand. */
BOUND
void smtp_dialogue_bare_lf(struct smtp_session *ss, const char *line, size_t len);
BOUND
void smtp_dialogue_long_line(struct smtp_session *ss, const char *line, size_t len);

/* The octets of a chunk that is refused have been thrown away: the reply, and the transaction, if
 * there is one, is forgotten. */
BOUND
void smtp_dialogue_refuse_chunk(struct smtp_session *ss, const struct smtp_refusal *refusal,
				enum smtp_count count);

/* No PROXY header, or one of who may not send any: 554, and close. */
BOUND
void smtp_dialogue_bad_proxy(struct smtp_session *ss);

/* Something was received before the banner was sent: 554, and close. */
BOUND
void smtp_dialogue_early_talker(struct smtp_session *ss);
