/*
 * What follows the paths of MAIL and RCPT at a next hop: parameters for what the message needs or
 * its sender asked for, as far as the next hop offers the extensions they belong to.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

/* The longest are those of RFC 3461. */
#define PARAMETERS_MAX 640

/*
 * Each writes the parameters, with a space before each one, NUL-terminated: of MAIL SIZE (RFC
 * 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET and ENVID (RFC 3461); of RCPT to `recipient`
 * NOTIFY and ORCPT (RFC 3461). `extensions`: enum smtp_extension.
 */
READONLY
void parameters_mail(const struct envelope *e, uint32_t extensions, char text[PARAMETERS_MAX]);
READONLY
void parameters_rcpt(const struct envelope *e, uint32_t recipient, uint32_t extensions,
		     char text[PARAMETERS_MAX]);
