#include "listeners/smtp/proxy_header.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define V1_MAX 107
#define V1_WORDS 6
#define V2_FIXED 16
#define SIGNATURE_BYTES 12

enum { V2_LOCAL = 0x20, V2_PROXY = 0x21 };
enum { V2_TCP4 = 0x11, V2_TCP6 = 0x21, V2_TCP4_BYTES = 12, V2_TCP6_BYTES = 36 };

static const unsigned char signature[SIGNATURE_BYTES] = {'\r', '\n', '\r', '\n', '\0', '\r',
							 '\n', 'Q',  'U',  'I',  'T',  '\n'};
static const unsigned char v1_start[] = {'P', 'R', 'O', 'X', 'Y', ' '};

static void map_ipv4(struct in6_addr *to, const void *ipv4)
{
	*to = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(&to->s6_addr[12], ipv4, 4);
}

/* ---- version 1: a line of text ---- */

static bool take_address(const char *text, bool ipv6, struct in6_addr *address)
{
	struct in_addr ipv4;

	if (ipv6) {
		return inet_pton(AF_INET6, text, address) == 1;
	}
	if (inet_pton(AF_INET, text, &ipv4) != 1) {
		return false;
	}
	map_ipv4(address, &ipv4);
	return true;
}

static bool take_port(const char *text, uint16_t *port)
{
	uint32_t n = 0;

	if (*text == '\0' || (text[0] == '0' && text[1] != '\0')) {
		return false;
	}
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9' || n > UINT16_MAX) {
			return false;
		}
		n = n * 10 + (uint32_t)(*text - '0');
	}
	*port = (uint16_t)n;
	return n <= UINT16_MAX;
}

/* Cuts at single spaces; 0 when there are more words than that. */
static unsigned split(char *line, char *words[V1_WORDS])
{
	unsigned count = 0;

	for (char *at = line; at != NULL;) {
		char *space = strchr(at, ' ');

		if (count == V1_WORDS) {
			return 0;
		}
		words[count++] = at;
		if (space != NULL) {
			*space++ = '\0';
		}
		at = space;
	}
	return count;
}

/* Whatever follows it. */
static bool is_unknown(const char *line)
{
	static const char start[] = "PROXY UNKNOWN";
	size_t n = sizeof(start) - 1;

	return strncmp(line, start, n) == 0 && (line[n] == '\0' || line[n] == ' ');
}

static int parse_line(char *line, struct proxy_header *h)
{
	struct in6_addr to;
	uint16_t to_port;
	char *words[V1_WORDS];
	bool ipv6;

	if (is_unknown(line)) {
		return 0;
	}
	if (split(line, words) != V1_WORDS) {
		return -EPROTO;
	}
	ipv6 = strcmp(words[1], "TCP6") == 0;
	if ((!ipv6 && strcmp(words[1], "TCP4") != 0) || !take_address(words[2], ipv6, &h->client) ||
	    !take_address(words[3], ipv6, &to) || !take_port(words[4], &h->client_port) ||
	    !take_port(words[5], &to_port)) {
		return -EPROTO;
	}
	h->has_client = true;
	return 0;
}

static int parse_v1(const unsigned char *data, size_t len, struct proxy_header *h)
{
	size_t max = len < V1_MAX ? len : V1_MAX;
	const unsigned char *lf = memchr(data, '\n', max);
	size_t used = lf != NULL ? (size_t)(lf - data) + 1 : 0;
	char line[V1_MAX + 1];
	int rc;

	if (lf == NULL) {
		return len >= V1_MAX ? -EPROTO : 0;
	}
	if (lf[-1] != '\r' || memchr(data, '\0', used) != NULL) {
		return -EPROTO;
	}
	memcpy(line, data, used - 2);
	line[used - 2] = '\0';
	rc = parse_line(line, h);
	return rc != 0 ? rc : (int)used;
}

/* ---- version 2: binary ---- */

static int parse_v2(const unsigned char *data, size_t len, struct proxy_header *h)
{
	const unsigned char *addresses = data + V2_FIXED;
	size_t size;

	if (len < V2_FIXED) {
		return 0;
	}
	size = (size_t)data[14] << 8 | data[15];
	if (V2_FIXED + size > PROXY_HEADER_MAX || (data[12] != V2_LOCAL && data[12] != V2_PROXY)) {
		return -EPROTO;
	}
	if (len < V2_FIXED + size) {
		return 0;
	}
	/* What a health check says of addresses is to be ignored; 0 is "unspecified". */
	if (data[12] == V2_PROXY && data[13] == V2_TCP4 && size >= V2_TCP4_BYTES) {
		map_ipv4(&h->client, addresses);
		h->client_port = (uint16_t)(addresses[8] << 8 | addresses[9]);
		h->has_client = true;
	} else if (data[12] == V2_PROXY && data[13] == V2_TCP6 && size >= V2_TCP6_BYTES) {
		memcpy(&h->client, addresses, sizeof(h->client));
		h->client_port = (uint16_t)(addresses[32] << 8 | addresses[33]);
		h->has_client = true;
	} else if (data[12] == V2_PROXY && data[13] != 0) {
		return -EPROTO;
	}
	return (int)(V2_FIXED + size);
}

static bool begins_like(const unsigned char *data, size_t len, const unsigned char *start,
			size_t start_len)
{
	return memcmp(data, start, len < start_len ? len : start_len) == 0;
}

int proxy_header_parse(const unsigned char *data, size_t len, struct proxy_header *h)
{
	*h = (struct proxy_header){.has_client = false};
	if (begins_like(data, len, signature, sizeof(signature))) {
		return len < sizeof(signature) ? 0 : parse_v2(data, len, h);
	}
	if (begins_like(data, len, v1_start, sizeof(v1_start))) {
		return len < sizeof(v1_start) ? 0 : parse_v1(data, len, h);
	}
	return -EPROTO;
}
