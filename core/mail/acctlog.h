/*
 * Lines of acctlog: who showed who it is, and who could not. Fields and escapes as in the main log
 * (core/mail/mainlog.h):
 *
 *     time@N@listener@peer_ip@user@1|0                           1: it is the user, 0: it is not
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define ACCTLOG_LINE_MAX 1024

/* Strings are NUL-terminated; user and address are cut at 256 bytes as written. */
READONLY
struct acctlog_authentication {
	uint64_t time_s;
	/* Such as "esmtp". */
	const char *listener;
	const char *peer_ip;
	const char *user;
	bool granted;
};

/* Writes one line with its LF, without a NUL, and returns its length. */
CONCURRENT
size_t acctlog_authentication(char line[ACCTLOG_LINE_MAX], const struct acctlog_authentication *a);
