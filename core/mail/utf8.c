#include "core/mail/utf8.h"

#include <string.h>

/* Length that a first byte announces; 0 for one that cannot be first. */
static size_t announced_length(unsigned char c)
{
	if (c < 0x80) {
		return 1;
	}
	if (c >= 0xc2 && c <= 0xdf) {
		return 2;
	}
	if (c >= 0xe0 && c <= 0xef) {
		return 3;
	}
	return c >= 0xf0 && c <= 0xf4 ? 4 : 0;
}

size_t utf8_decode(const char *text, size_t len, unsigned *code_point)
{
	static const unsigned least[5] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = (unsigned char)text[0];
	size_t n = announced_length(first);
	unsigned code = n == 1 ? first : first & (0xffU >> (n + 1));

	if (n == 0 || n > len) {
		return 0;
	}
	for (size_t i = 1; i < n; i++) {
		unsigned char c = (unsigned char)text[i];

		if ((c & 0xc0) != 0x80) {
			return 0;
		}
		code = code << 6 | (c & 0x3fU);
	}
	if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
		return 0;
	}
	*code_point = code;
	return n;
}

size_t utf8_sequence(const char *text, size_t len)
{
	unsigned code_point;

	return utf8_decode(text, len, &code_point);
}

size_t utf8_clean(const char *text, size_t len, const char *replacement, char *to)
{
	size_t replacement_len = strlen(replacement);
	char *at = to;

	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence(text + i, len - i);

		if (n == 0) {
			memcpy(at, replacement, replacement_len);
			at += replacement_len;
			i++;
		} else {
			memcpy(at, text + i, n);
			at += n;
			i += n;
		}
	}
	return (size_t)(at - to);
}
