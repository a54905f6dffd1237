/*
 * What the SMTP server reads: command lines, and mail data up to its end. The data's reference is
 * memchr() from line end to line end, which finds lines and judges nothing; and a plain copy.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/dot.h"
#include "core/mail/smtp_command.h"
#include "core/runtime/mux.h"
#include "perf/micro/body.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16
#define LINE_MAX_BYTES 998

static const char end[] = ".\r\n";

static uint64_t parse_line(const void *own)
{
	const char *line = own;
	size_t len = strlen(line);
	struct smtp_command c;
	struct smtp_refusal refusal;

	for (unsigned i = 0; i < REPEATS; i++) {
		const char *hidden = measure_hide(line);

		if (smtp_command_parse(&c, hidden, len, &refusal) != 0) {
			errx(2, "\"%s\" is refused", line);
		}
		measure_use((uint64_t)c.verb + c.path_len);
	}
	return REPEATS;
}

/* A message as the network brings it. */
struct data {
	unsigned char *bytes;
	/* Of the body and of all, the end included. */
	size_t body;
	size_t len;
	unsigned char *copy;
};

static struct data data_make(size_t body)
{
	struct data d = {.body = body, .len = body + sizeof(end) - 1};

	d.bytes = malloc(d.len);
	d.copy = malloc(d.len);
	if (d.bytes == NULL || d.copy == NULL) {
		errx(2, "out of memory");
	}
	body_fill(d.bytes, body);
	memcpy(d.bytes + body, end, sizeof(end) - 1);
	return d;
}

/* In pieces as large as a reception's. */
static uint64_t scan_data(const void *own)
{
	const struct data *d = own;

	for (unsigned i = 0; i < REPEATS; i++) {
		struct dot_scanner s;
		bool ended = false;
		size_t at = 0;

		dot_scanner_init(&s, LINE_MAX_BYTES, false);
		while (at < d->len && !ended) {
			size_t n = d->len - at < MUX_RECV_MAX ? d->len - at : MUX_RECV_MAX;

			at += dot_scan(&s, d->bytes + at, n, &ended);
		}
		if (!ended || at != d->body) {
			errx(2, "the end of the data was not found");
		}
		measure_use(s.flags);
	}
	return REPEATS * d->len;
}

static uint64_t find_lines(const void *own)
{
	const struct data *d = own;
	uint64_t lines = 0;

	for (unsigned i = 0; i < REPEATS; i++) {
		const unsigned char *at = measure_hide(d->bytes);
		const unsigned char *stop = at + d->len;

		while (at < stop) {
			at = (const unsigned char *)memchr(at, '\n', (size_t)(stop - at)) + 1;
			lines++;
		}
	}
	measure_use(lines);
	return REPEATS * d->len;
}

static uint64_t copy_data(const void *own)
{
	const struct data *d = own;

	for (unsigned i = 0; i < REPEATS; i++) {
		memcpy(d->copy, measure_hide(d->bytes), d->len);
		measure_use(d->copy[d->len - 1]);
	}
	return REPEATS * d->len;
}

static void run_data(const struct micro_case *c, double *values)
{
	struct data d = data_make(c->number);

	values[0] = 1e3 / measure_ns_each(c->step, &d);
	free(d.bytes);
	free(d.copy);
}

#define COMMAND(what, line)                                                                        \
	{                                                                                          \
		.run = measure_case_ns, .step = parse_line, .own = (line), .rows = {               \
			{"smtp." what, "ns", NULL}                                                 \
		}                                                                                  \
	}
#define DATA(size, bytes)                                                                          \
	{.run = run_data,                                                                          \
	 .number = (bytes),                                                                        \
	 .step = scan_data,                                                                        \
	 .rows = {{"smtp.data-" size, "MB/s", "smtp.memchr-" size}}},                              \
		{.run = run_data,                                                                  \
		 .number = (bytes),                                                                \
		 .step = find_lines,                                                               \
		 .rows = {{"smtp.memchr-" size, "MB/s", NULL}}},                                   \
	{                                                                                          \
		.run = run_data, .number = (bytes), .step = copy_data, .rows = {                   \
			{"smtp.memcpy-" size, "MB/s", NULL}                                        \
		}                                                                                  \
	}

static const struct micro_case cases[] = {
	COMMAND("ehlo", "EHLO client.example"),
	COMMAND("mail", "MAIL FROM:<news@sender.example> SIZE=10240 BODY=8BITMIME"),
	COMMAND("rcpt", "RCPT TO:<someone@receiver.example>"),
	COMMAND("data", "DATA"),
	DATA("2k", BODY_2K),
	DATA("10k", BODY_10K),
};

const struct micro_group micro_smtp = {
	.name = "smtp",
	.label = "the SMTP server's parser of commands, and its search for the end of mail data",
	MICRO_CASES(cases),
};
