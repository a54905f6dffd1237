#include "core/mail/smtp_stage.h"

const char *smtp_stage_name(enum smtp_stage stage)
{
	static const char *const names[] = {
		[SMTP_STAGE_NOT_CONNECTED] = "not connected",
		[SMTP_STAGE_IDLE] = "idle",
		[SMTP_STAGE_DURING_MAIL] = "during MAIL FROM",
		[SMTP_STAGE_AFTER_MAIL] = "after MAIL FROM",
		[SMTP_STAGE_DURING_RCPT] = "during RCPT TO",
		[SMTP_STAGE_AFTER_RCPT] = "after RCPT TO",
		[SMTP_STAGE_DURING_DATA] = "during DATA",
		[SMTP_STAGE_AFTER_DATA] = "after DATA",
		[SMTP_STAGE_BODY] = "sending body",
		[SMTP_STAGE_CONFIRMATION] = "reading confirmation",
		[SMTP_STAGE_DURING_EHLO] = "during EHLO",
		[SMTP_STAGE_AFTER_EHLO] = "after EHLO",
		[SMTP_STAGE_BANNER] = "reading banner",
		[SMTP_STAGE_DURING_RSET] = "during RSET",
		[SMTP_STAGE_AFTER_RSET] = "after RSET",
		[SMTP_STAGE_DURING_STARTTLS] = "during STARTTLS",
		[SMTP_STAGE_AFTER_STARTTLS] = "after STARTTLS",
		[SMTP_STAGE_TLS_HANDSHAKE] = "TLS handshake",
		[SMTP_STAGE_TLS_RENEGOTIATION] = "TLS renegotiation",
		[SMTP_STAGE_DURING_XCLIENT] = "during XCLIENT",
		[SMTP_STAGE_AFTER_XCLIENT] = "after XCLIENT",
		[SMTP_STAGE_OUT_OF_BAND] = "out-of-band bounce",
		[SMTP_STAGE_UNKNOWN] = "unknown",
	};

	return (unsigned)stage <= SMTP_STAGE_UNKNOWN ? names[stage] : names[SMTP_STAGE_UNKNOWN];
}
