#include "listeners/smtp/sasl.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* Three words, two NULs between them. */
#define PLAIN_MAX (3 * SASL_WORD_MAX + 2)
#define PLAIN_TEXT_MAX ((PLAIN_MAX + 2) / 3 * 4)

static int digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c != '\0' ? strchr(digits, c) : NULL;

	return p != NULL ? (int)(p - digits) : -1;
}

/* Four digits; `pad` of them are "=". */
static int decode_group(const char *text, unsigned pad, unsigned char *to)
{
	uint32_t bits = 0;

	for (unsigned i = 0; i < 4; i++) {
		int value = i < 4 - pad ? digit(text[i]) : 0;

		if (value < 0) {
			return -EINVAL;
		}
		bits = bits << 6 | (uint32_t)value;
	}
	/* What the padding leaves over says nothing. */
	if ((bits & ((1U << (8 * pad)) - 1)) != 0) {
		return -EINVAL;
	}
	for (unsigned i = 0; i < 3 - pad; i++) {
		to[i] = (unsigned char)(bits >> (16 - 8 * i));
	}
	return (int)(3 - pad);
}

int sasl_base64_decode(const char *text, size_t len, unsigned char *to)
{
	int n = 0;

	if (len % 4 != 0) {
		return -EINVAL;
	}
	for (size_t i = 0; i < len; i += 4) {
		unsigned pad = 0;
		int used;

		if (i + 4 == len && text[i + 3] == '=') {
			pad = text[i + 2] == '=' ? 2 : 1;
		}
		used = decode_group(text + i, pad, to + n);
		if (used < 0) {
			return used;
		}
		n += used;
	}
	return n;
}

static int take_word(const unsigned char *data, size_t len, char word[SASL_WORD_MAX + 1])
{
	if (len == 0 || len > SASL_WORD_MAX || memchr(data, '\0', len) != NULL) {
		return -EINVAL;
	}
	memcpy(word, data, len);
	word[len] = '\0';
	return 0;
}

int sasl_login_parse(const char *text, size_t len, char word[SASL_WORD_MAX + 1])
{
	unsigned char data[PLAIN_MAX + 3];
	int n = len <= PLAIN_TEXT_MAX ? sasl_base64_decode(text, len, data) : -EINVAL;
	int rc = n < 0 ? n : take_word(data, (size_t)n, word);

	explicit_bzero(data, sizeof(data));
	return rc;
}

static int split_plain(const unsigned char *data, size_t len, struct sasl_credentials *c)
{
	const unsigned char *first = memchr(data, '\0', len);
	const unsigned char *user = first != NULL ? first + 1 : data + len;
	const unsigned char *second = memchr(user, '\0', (size_t)(data + len - user));
	size_t acts_as = first != NULL ? (size_t)(first - data) : 0;

	if (second == NULL || take_word(user, (size_t)(second - user), c->user) != 0 ||
	    take_word(second + 1, (size_t)(data + len - second) - 1, c->password) != 0) {
		return -EINVAL;
	}
	if (acts_as != 0 && (acts_as != strlen(c->user) || memcmp(data, c->user, acts_as) != 0)) {
		return -EACCES;
	}
	return 0;
}

int sasl_plain_parse(const char *text, size_t len, struct sasl_credentials *c)
{
	unsigned char data[PLAIN_MAX + 3];
	int n = len <= PLAIN_TEXT_MAX ? sasl_base64_decode(text, len, data) : -EINVAL;
	int rc = n < 0 ? n : split_plain(data, (size_t)n, c);

	explicit_bzero(data, sizeof(data));
	return rc;
}
