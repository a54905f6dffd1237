/*
 * What the SMTP client reads: replies, as Postfix and Exchange write them. The reference finds
 * their lines by memchr() and no more.
 */
#include <err.h>
#include <string.h>

#include "core/mail/smtp_reply.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16

/* One message's replies: MAIL, RCPT, DATA, end of data. */
static const char message[] = "250 2.1.0 Ok\r\n"
			      "250 2.1.5 Ok\r\n"
			      "354 End data with <CR><LF>.<CR><LF>\r\n"
			      "250 2.0.0 Ok: queued as 4bXq7k1Fz2z9rxN\r\n";

static const char ehlo[] = "250-mail.receiver.example Hello [192.0.2.7]\r\n"
			   "250-SIZE 37748736\r\n"
			   "250-PIPELINING\r\n"
			   "250-DSN\r\n"
			   "250-ENHANCEDSTATUSCODES\r\n"
			   "250-STARTTLS\r\n"
			   "250-8BITMIME\r\n"
			   "250-CHUNKING\r\n"
			   "250 SMTPUTF8\r\n";

static const char refusal[] =
	"550-5.7.1 [192.0.2.7] Our system has detected that this message is\r\n"
	"550-5.7.1 likely unsolicited mail. To reduce the amount of spam sent, this\r\n"
	"550-5.7.1 message has been blocked. Please visit\r\n"
	"550 5.7.1 https://support.receiver.example/mail/answer/188131 for more information.\r\n";

static uint64_t parse(const void *own)
{
	static struct smtp_reply r;
	size_t len = strlen(own);
	uint64_t count = 0;

	for (unsigned i = 0; i < REPEATS; i++) {
		const char *at = measure_hide(own);
		size_t left = len;

		while (left > 0) {
			size_t used;

			smtp_reply_reset(&r);
			if (smtp_reply_feed(&r, at, left, &used) != 1) {
				errx(2, "a reply was not understood");
			}
			measure_use(r.code + r.text_len);
			at += used;
			left -= used;
			count++;
		}
	}
	return count;
}

static uint64_t find_lines(const void *own)
{
	size_t len = strlen(own);
	uint64_t lines = 0;

	for (unsigned i = 0; i < REPEATS; i++) {
		const char *at = measure_hide(own);
		const char *stop = at + len;

		while (at < stop) {
			at = (const char *)memchr(at, '\n', (size_t)(stop - at)) + 1;
			lines++;
		}
	}
	measure_use(lines);
	return REPEATS * len;
}

/* The case's number is how many replies there are in the text. */
static void run_parse(const struct micro_case *c, double *values)
{
	double ns = measure_ns_each(c->step, c->own);

	values[0] = 1e9 / ns;
	values[1] = (double)strlen(c->own) / (double)c->number / ns * 1e3;
}

static void run_lines(const struct micro_case *c, double *values)
{
	values[0] = 1e3 / measure_ns_each(c->step, c->own);
}

#define REPLIES(what, replies, text)                                                               \
	{.run = run_parse,                                                                         \
	 .step = parse,                                                                            \
	 .number = (replies),                                                                      \
	 .own = (text),                                                                            \
	 .rows = {{"reply." what ".replies", "/s", NULL},                                          \
		  {"reply." what ".bytes", "MB/s", "reply." what ".memchr"}}},                     \
	{                                                                                          \
		.run = run_lines, .step = find_lines, .own = (text), .rows = {                     \
			{"reply." what ".memchr", "MB/s", NULL}                                    \
		}                                                                                  \
	}

static const struct micro_case cases[] = {
	REPLIES("message", 4, message),
	REPLIES("ehlo", 1, ehlo),
	REPLIES("refusal", 1, refusal),
};

const struct micro_group micro_reply = {
	.name = "reply",
	.label = "the SMTP client's parser of replies",
	MICRO_CASES(cases),
};
