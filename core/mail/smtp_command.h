/*
 * One SMTP command line, parsed: verb, argument, path and parameters. Knows syntax only: whether
 * the command may come now, and whether an address is good (address_parse()), is the session's
 * matter.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/dsn_parameter.h"
#include "core/mail/smtp_refusal.h"
#include "core/runtime/thread_class.h"

/* Longest line without its CRLF; RFC 5321 section 4.5.3.1.4 asks for 512 and what extensions add;
 * RFC 4954 section 4 for 12 288 with AUTH. */
#define SMTP_COMMAND_LINE_MAX 2048
#define SMTP_COMMAND_AUTH_LINE_MAX 12288

enum smtp_verb {
	SMTP_VERB_UNKNOWN,
	SMTP_VERB_HELO,
	SMTP_VERB_EHLO,
	SMTP_VERB_MAIL,
	SMTP_VERB_RCPT,
	SMTP_VERB_DATA,
	SMTP_VERB_RSET,
	SMTP_VERB_NOOP,
	SMTP_VERB_QUIT,
	SMTP_VERB_VRFY,
	SMTP_VERB_EXPN,
	SMTP_VERB_HELP,
	SMTP_VERB_STARTTLS,
	SMTP_VERB_AUTH,
	SMTP_VERB_BDAT,
	SMTP_VERB_XCLIENT,
};

enum smtp_body { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME };

/* Pointers go into the line that was parsed. */
SINGLE
struct smtp_command {
	enum smtp_verb verb;
	/* What follows the verb, without spaces around it. */
	const char *argument;
	size_t argument_len;
	/* MAIL, RCPT: the path, brackets included. */
	const char *path;
	size_t path_len;
	/* MAIL: SIZE= in bytes (larger than 64 bits: UINT64_MAX); BDAT: bytes of the chunk. */
	uint64_t size;
	bool has_size;
	/* MAIL: BODY=, and whether it was given at all. */
	enum smtp_body body;
	bool has_body;
	bool smtputf8;
	bool requiretls;
	/* MAIL, RCPT: RET, ENVID, NOTIFY, ORCPT. */
	struct dsn_parameters dsn;
	/* BDAT: the last chunk. */
	bool last;
};

/*
 * Parses one command, `len` bytes without the CRLF, which may hold anything.
 * RFC 5321 section 4.1.1; MAIL parameters SIZE (RFC 1870), BODY=7BIT and 8BITMIME (RFC 6152),
 * SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689), RET and ENVID (RFC 3461); RCPT parameters NOTIFY and
 * ORCPT; BDAT (RFC 3030). Spaces after "FROM:" and "TO:" and at the end of the line are tolerated.
 * Control characters, NUL and bare CR or LF among them, are refused, octets above 127 are refused
 * outside of a path. Returns 0; else -EINVAL, and `refusal` is what to reply (500 5.5.2, 501 5.5.2,
 * 501 5.5.4, 555 5.5.4); `c->verb` is set whenever the verb is known.
 */
SINGLE
int smtp_command_parse(struct smtp_command *c, const char *line, size_t len,
		       struct smtp_refusal *refusal);

/* In capitals; "unknown" for SMTP_VERB_UNKNOWN. */
CONCURRENT
const char *smtp_verb_name(enum smtp_verb verb);
