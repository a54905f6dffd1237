/*
 * core/mail/sts_policy.c: a byte of options, then a policy of MTA-STS, or a TXT record. What is
 * taken has all that it must have, and lists the hosts that its patterns are.
 */
#include "core/mail/sts_policy.h"
#include "tests/fuzz/fuzz_input.h"

static void check_pattern(const struct sts_policy *p, const char *pattern)
{
	char host[300];

	FUZZ_CHECK(pattern[0] != '\0' && strlen(pattern) <= 255);
	for (const char *c = pattern; *c != '\0'; c++) {
		FUZZ_CHECK(*c > ' ' && *c < 0x7f && !(*c >= 'A' && *c <= 'Z'));
	}
	snprintf(host, sizeof(host), "%s%s", pattern[0] == '*' ? "Any" : "",
		 pattern + (pattern[0] == '*'));
	FUZZ_CHECK(sts_policy_lists(p, host));
	if (pattern[0] == '*') {
		FUZZ_CHECK(!sts_policy_lists(p, "") && !sts_policy_lists(p, "."));
	}
}

static void policy(const struct fuzz_input *in)
{
	char *text = (char *)fuzz_copy(in->at, in->left);
	char why[STS_WHY] = "";
	struct sts_policy *p = sts_policy_parse(text, in->left, why);

	free(text);
	if (p == NULL) {
		FUZZ_CHECK(why[0] != '\0');
		return;
	}
	FUZZ_CHECK(p->mode <= STS_MODE_ENFORCE && p->max_age_s <= STS_MAX_AGE_MAX);
	FUZZ_CHECK(p->mode == STS_MODE_NONE || p->mx_count > 0);
	for (uint32_t i = 0; i < p->mx_count; i++) {
		check_pattern(p, p->mx[i]);
	}
	sts_policy_release(sts_policy_hold(p));
	sts_policy_release(p);
}

/* One record, in strings of up to 255 bytes. */
static void record(const struct fuzz_input *in)
{
	size_t left = in->left < 2000 ? in->left : 2000;
	unsigned char *data = malloc(left + left / 255 + 2);
	const unsigned char *rdata[] = {data};
	size_t len = 0;
	struct dns_raw raw = {.type = DNS_TXT,
			      .status = DNS_FOUND,
			      .rdata = rdata,
			      .rdata_len = &len,
			      .count = 1};
	struct dns_answer *a;
	char id[STS_ID_MAX + 1];

	FUZZ_CHECK(data != NULL);
	for (size_t at = 0; at < left;) {
		size_t n = left - at < 255 ? left - at : 255;

		data[len++] = (unsigned char)n;
		memcpy(data + len, in->at + at, n);
		len += n;
		at += n;
	}
	a = dns_answer_create(&raw);
	free(data);
	if (sts_record_id(a, id)) {
		FUZZ_CHECK(id[0] != '\0' && strlen(id) <= STS_ID_MAX);
		FUZZ_CHECK(
			strspn(id,
			       "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ==
			strlen(id));
	}
	dns_answer_release(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);

	if (fuzz_byte(&in) & 1) {
		record(&in);
	} else {
		policy(&in);
	}
	return 0;
}
