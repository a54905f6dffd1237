/*
 * What the reply to EHLO offers, as configured, as the session stands, and as scripts say.
 */
#pragma once

#include "core/runtime/thread_class.h"

struct smtp_session;

/* All lines of the reply to EHLO. */
BOUND
void smtp_extensions_say(struct smtp_session *ss);
