/*
 * listeners/smtp/proxy_header.c: the first bytes of a connection. A header is found as soon as all
 * of it is there, not before, and as the same whatever follows; what is none is refused for good.
 */
#include <errno.h>

#include "listeners/smtp/proxy_header.h"
#include "tests/fuzz/fuzz_input.h"

static int parse(const uint8_t *data, size_t len, struct proxy_header *h)
{
	unsigned char *copy = fuzz_copy(data, len);
	int rc = proxy_header_parse(copy, len, h);

	free(copy);
	return rc;
}

static void check_client(const uint8_t *data, const struct proxy_header *h)
{
	bool v2 = data[0] == '\r';

	if (!h->has_client) {
		return;
	}
	FUZZ_CHECK(v2 ? data[12] == 0x21 : memcmp(data, "PROXY TCP", 9) == 0);
	FUZZ_CHECK(IN6_IS_ADDR_V4MAPPED(&h->client) || (v2 ? data[13] == 0x21 : data[9] == '6'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int before = 0;

	for (size_t len = 0; len <= size && len <= 2 * PROXY_HEADER_MAX; len++) {
		struct proxy_header h;
		int rc = parse(data, len, &h);

		FUZZ_CHECK(rc == -EPROTO || (rc >= 0 && (size_t)rc <= len));
		FUZZ_CHECK(before == 0 ? rc <= 0 || (size_t)rc == len : rc == before);
		FUZZ_CHECK(rc != 0 || len < PROXY_HEADER_MAX);
		if (rc > 0) {
			check_client(data, &h);
		}
		before = rc;
	}
	return 0;
}
