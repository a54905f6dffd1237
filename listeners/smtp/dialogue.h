/*
 * Dialogue: what each SMTP command means, in which order they may come, and which limits hold.
 *
 * Start reading at smtp_dialogue_line().
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

struct smtp_session;

/* Obeys or refuses one command line, `len` bytes without its CR LF. session->unread bytes were
 * received after it. May close the session, never frees it. */
BOUND
void smtp_dialogue_line(struct smtp_session *ss, const char *line, size_t len);

/* Lines that are no command: ended by LF without CR, and longer than is allowed. */
BOUND
void smtp_dialogue_bare_lf(struct smtp_session *ss);
BOUND
void smtp_dialogue_long_line(struct smtp_session *ss);

/* Something was received before the banner was sent: 554, and close. */
BOUND
void smtp_dialogue_early_talker(struct smtp_session *ss);
