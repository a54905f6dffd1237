/*
 * A prepared negative reply: what to answer to a command that cannot be obeyed as it stands. All
 * texts are static. On the wire: "code status text" and CRLF.
 */
#pragma once

#include <stdint.h>

#include "core/runtime/thread_class.h"

READONLY
struct smtp_refusal {
	/* RFC 5321 section 4.2.3, such as 501. */
	uint16_t code;
	/* RFC 3463, such as "5.5.4". */
	const char *status;
	const char *text;
};
