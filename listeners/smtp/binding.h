/*
 * Which binding a message is sent by, decided once, when all of it has been received. What comes
 * first decides: the header field binding_header, of clients that may send to any domain; `binding`
 * of the client's peer, listen or listener; what auth_file says of the user; else it is the default
 * one.
 *
 * Others are not asked: whoever may only send to our own domains could choose whose reputation his
 * mail is at the cost of. Their field is mail like the rest of it, and stays.
 */
#pragma once

#include "core/queue/binding.h"
#include "core/runtime/thread_class.h"

struct smtp_session;

/* So many names that nobody knows are told in the error log, then only that there are more. */
#define SMTP_BINDING_UNKNOWN_TOLD 16

/* For the session's transaction, which is complete. Takes binding_header out of its header, if it
 * is obeyed, whatever it says. A name that there is no binding or group of is counted and told to
 * operators, and stands for the default binding. What policy has chosen (empty: nothing) comes
 * before all that. Never NULL. */
BOUND
struct binding_record *smtp_binding_choose(struct smtp_session *ss, const char *policy);
