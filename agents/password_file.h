/*
 * Password file: lines "user:hash", empty ones, and those that start with "#". What follows a
 * further ":" is ignored, but for a field "binding=NAME": the binding, or the binding_group, that
 * mail of the user is sent by. Hashes are Argon2id as its reference program writes them
 * ($argon2id$...), or what crypt(5) knows and begins with "$": SHA-512-crypt ($6$...), yescrypt
 * ($y$...) and others. A user may be there once: the first line counts.
 *
 * Checking a password takes milliseconds to a second, by design, and reads a file: it belongs on a
 * worker of the thread pool (agents/thread_pool.h), never on a scheduler. The file is read anew for
 * each check, so that a change of it counts at once.
 */
#pragma once

#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

/* Longer lines belong to nobody. */
#define PASSWORD_FILE_LINE_MAX 1024

/*
 * Whether `password` is the one of `user` in the file `path`. Returns 0 when it is, and what the
 * line says of the user's binding, or "", in `binding`; -EACCES when it is not, or there is no such
 * user, after about the same time; another negative errno when nobody can tell: the file cannot be
 * read, or there is no memory for the hash.
 */
CONCURRENT
int password_file_check(const char *path, const char *user, const char *password,
			char binding[ENVELOPE_BINDING_MAX + 1]);
