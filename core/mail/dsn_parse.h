/*
 * What comes back as mail: delivery status notifications (RFC 3464), the bounces of those who write
 * them their own way, auto-replies, and feedback reports (RFC 5965). Made for mail that anybody may
 * have written: nothing here fails, what is not understood is REPORT_UNKNOWN.
 *
 * Start reading at dsn_parse().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/mail/chain.h"
#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

/* A message is looked at up to here. */
#define REPORT_BYTES_MAX (256 << 10)
#define REPORT_RECIPIENTS_MAX 128
#define REPORT_TEXT_MAX 1024

enum report_kind { REPORT_UNKNOWN, REPORT_BOUNCE, REPORT_AUTO_REPLY, REPORT_FEEDBACK };

/* RFC 3464 section 2.3.3; REPORT_DONE is one of those that tell of no failure. */
enum report_action { REPORT_FAILED, REPORT_DELAYED, REPORT_DONE };

/* What is not known is empty. */
SINGLE
struct report_recipient {
	enum report_action action;
	/* The original one, where it is told. */
	char address[ADDRESS_MAX + 1];
	/* 0: none. */
	unsigned code;
	char status[12];
	/* What a server said, in one line. */
	char text[REPORT_TEXT_MAX];
	char remote_mta[256];
};

SINGLE
struct report {
	enum report_kind kind;
	/* Who wrote it: From. */
	char from[ADDRESS_MAX + 1];
	/* Subject, and the start of the text, in one line. */
	char text[REPORT_TEXT_MAX];
	/* Feedback: "abuse", and the program that wrote the report. */
	char feedback_type[64];
	char user_agent[256];
	/* Of a bounce one or more; of feedback one or none. */
	unsigned recipient_count;
	struct report_recipient recipients[REPORT_RECIPIENTS_MAX];
};

/* Understands a message in wire form. */
SINGLE
void dsn_parse(const struct chain *body, struct report *r);

/* The recipient that a bounce address has in it: `prefix+local=domain` or `prefix-local=domain` as
 * the local part, where the prefix ends with its first + or -. False when there is none. */
SINGLE
bool dsn_verp(const char *bounce_address, char recipient[ADDRESS_MAX + 1]);
