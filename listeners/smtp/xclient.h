/*
 * XCLIENT: a proxy says whose the session is, by attributes (Postfix's XCLIENT_README). Syntax
 * only.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/smtp_refusal.h"
#include "core/runtime/thread_class.h"

/* What EHLO says of it, and which attributes are taken. */
#define XCLIENT_ATTRIBUTES "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
#define XCLIENT_WORD_MAX 255

/* NAME, PROTO, DESTADDR and DESTPORT are checked, and of no use here. */
SINGLE
struct xclient {
	/* ADDR is an address (IPv4 as v4-mapped), not [UNAVAILABLE]. */
	bool has_address;
	struct in6_addr address;
	bool has_port;
	uint16_t port;
	/* HELO or LOGIN was given; the text is empty when it is [UNAVAILABLE]. */
	bool has_helo;
	bool has_login;
	char helo[XCLIENT_WORD_MAX + 1];
	char login[XCLIENT_WORD_MAX + 1];
};

/* Parses the argument of the command. 0; or -EINVAL, and `refusal` is what to reply (501 5.5.4). */
SINGLE
int xclient_parse(const char *argument, size_t len, struct xclient *x,
		  struct smtp_refusal *refusal);
