/*
 * Paths of MAIL and RCPT, checked and made canonical; the reference copies them.
 */
#include <err.h>
#include <string.h>

#include "core/mail/address.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16

static uint64_t parse(const void *own)
{
	const char *path = own;
	size_t len = strlen(path);
	struct smtp_refusal refusal;
	struct address a;

	for (unsigned i = 0; i < REPEATS; i++) {
		const char *hidden = measure_hide(path);

		if (address_parse(&a, hidden, len, ADDRESS_RECIPIENT, true, &refusal) != 0) {
			errx(2, "%s is refused", path);
		}
		measure_use(a.len);
	}
	return REPEATS;
}

static uint64_t copy(const void *own)
{
	const char *path = own;
	size_t len = strlen(path);
	char to[ADDRESS_MAX + 1];

	for (unsigned i = 0; i < REPEATS; i++) {
		memcpy(to, measure_hide(path), len);
		measure_use((uint64_t)(unsigned char)to[len - 1]);
	}
	return REPEATS;
}

static const char plain[] = "<someone@receiver.example>";

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = parse,
	 .own = plain,
	 .rows = {{"address.plain", "ns", "address.copy"}}},
	{.run = measure_case_ns,
	 .step = copy,
	 .own = plain,
	 .rows = {{"address.copy", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = parse,
	 .own = "<bounce+4711-someone=receiver.example@Returns.News.Sender.Example>",
	 .rows = {{"address.long", "ns", "address.copy"}}},
	{.run = measure_case_ns,
	 .step = parse,
	 .own = "<\"some \\\"one\\\"\"@receiver.example>",
	 .rows = {{"address.quoted", "ns", "address.copy"}}},
	{.run = measure_case_ns,
	 .step = parse,
	 .own = "<j\303\266rg@r\303\274ckl\303\244ufer.example>",
	 .rows = {{"address.utf8", "ns", "address.copy"}}},
	{.run = measure_case_ns,
	 .step = parse,
	 .own = "<someone@[IPv6:2001:db8::4711]>",
	 .rows = {{"address.literal", "ns", "address.copy"}}},
};

const struct micro_group micro_address = {
	.name = "address",
	.label = "the parser of addresses",
	MICRO_CASES(cases),
};
