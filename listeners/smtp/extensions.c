#include "listeners/smtp/extensions.h"

#include <stdio.h>

#include "listeners/smtp/auth.h"
#include "listeners/smtp/policy.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/xclient.h"

/* Unless a script took it away. */
static void offer(struct smtp_session *ss, const char *keyword)
{
	if (!smtp_policy_removed(ss, keyword)) {
		smtp_session_say(ss, "250-");
		smtp_session_say(ss, keyword);
		smtp_session_say(ss, "\r\n");
	}
}

void smtp_extensions_say(struct smtp_session *ss)
{
	static const char *const always[] = {"8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8",
					     "CHUNKING", "DSN"};
	char size[32];

	snprintf(size, sizeof(size), "%llu", (unsigned long long)ss->options->max_message_bytes);
	smtp_session_say(ss, "250-");
	smtp_session_say(ss, ss->options->hostname);
	smtp_session_say(ss, "\r\n250-PIPELINING\r\n250-SIZE ");
	smtp_session_say(ss, size);
	smtp_session_say(ss, "\r\n");
	for (unsigned i = 0; i < sizeof(always) / sizeof(always[0]); i++) {
		offer(ss, always[i]);
	}
	if (ss->options->tls != NULL && !ss->secure) {
		offer(ss, "STARTTLS");
	}
	if (ss->secure) {
		/* RFC 8689 section 3: not before. */
		smtp_session_say(ss, "250-REQUIRETLS\r\n");
	}
	if (smtp_auth_offered(ss) && !smtp_policy_removed(ss, "AUTH")) {
		smtp_session_say(ss, "250-AUTH PLAIN LOGIN\r\n");
	}
	if (ss->xclient) {
		smtp_session_say(ss, "250-XCLIENT " XCLIENT_ATTRIBUTES "\r\n");
	}
	smtp_policy_say_capabilities(ss);
	smtp_session_say(ss, "250 HELP\r\n");
}
