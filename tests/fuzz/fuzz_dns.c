/*
 * core/mail/dns.c: a byte for the type, then records, each with a byte for its length before it.
 * What is kept has the form that its type says, can be written, and names are text that cannot
 * leave a line.
 */
#include "core/mail/dns.h"
#include "tests/fuzz/fuzz_input.h"

#define RECORDS 160

static void check_name(const char *name)
{
	FUZZ_CHECK(strlen(name) < DNS_NAME_TEXT);
	for (; *name != '\0'; name++) {
		FUZZ_CHECK(*name > ' ' && *name < 0x7f);
		FUZZ_CHECK(*name < 'A' || *name > 'Z');
	}
}

static void check_record(enum dns_type type, const struct dns_record *r)
{
	char text[512];

	if (type == DNS_MX) {
		check_name(r->mx.exchange);
	} else if (type == DNS_PTR) {
		check_name(r->ptr);
	} else if (type == DNS_TXT) {
		FUZZ_CHECK(r->txt.text[r->txt.len] == '\0');
	}
	dns_record_format(type, r, text, sizeof text);
	FUZZ_CHECK(strlen(text) < sizeof text);
	for (const char *c = text; *c != '\0'; c++) {
		FUZZ_CHECK(*c >= ' ' && *c < 0x7f);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum dns_type types[] = {DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TXT, DNS_TLSA};
	const unsigned char *rows[RECORDS];
	size_t len[RECORDS];
	struct dns_raw raw = {.rdata = rows, .rdata_len = len, .canonical = "alias."};
	unsigned char *copies[RECORDS];
	struct dns_answer *a;
	size_t at = 1;

	if (size == 0) {
		return 0;
	}
	raw.type = types[data[0] % (sizeof types / sizeof types[0])];
	while (at < size && raw.count < RECORDS) {
		size_t n = data[at] < size - at - 1 ? data[at] : size - at - 1;

		/* Of its own size, for the sanitizer. */
		copies[raw.count] = malloc(n + 1);
		memcpy(copies[raw.count] + 1, data + at + 1, n);
		rows[raw.count] = copies[raw.count] + 1;
		len[raw.count++] = n;
		at += n + 1;
	}
	a = dns_answer_create(&raw);
	FUZZ_CHECK(a->count + a->malformed ==
		   (raw.count < DNS_RECORDS_MAX ? raw.count : DNS_RECORDS_MAX));
	FUZZ_CHECK((a->status == DNS_FOUND) == (a->count > 0));
	for (uint32_t i = 0; i < a->count; i++) {
		check_record(a->type, &a->records[i]);
	}
	dns_answer_release(a);
	for (uint32_t i = 0; i < raw.count; i++) {
		free(copies[i]);
	}
	return 0;
}
