#include "core/mail/idna.h"

#include <idn2.h>
#include <string.h>

#include "core/mail/address.h"

bool idna_needed(const char *text, size_t len)
{
	unsigned char all = 0;

	for (size_t i = 0; i < len; i++) {
		all |= (unsigned char)text[i];
	}
	return all >= 0x80;
}

size_t idna_to_ascii(const char *domain, size_t len, char to[IDNA_MAX])
{
	char text[ADDRESS_DOMAIN_MAX + 1];
	uint8_t *found = NULL;
	size_t n = 0;

	if (len == 0 || len > ADDRESS_DOMAIN_MAX || memchr(domain, '\0', len) != NULL) {
		return 0;
	}
	memcpy(text, domain, len);
	text[len] = '\0';
	if (idn2_lookup_u8((const uint8_t *)text, &found, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) ==
	    IDN2_OK) {
		n = strlen((const char *)found);
	}
	/* The mapping may leave what is no host name: spaces, an empty label. */
	if (n > 0 && n < IDNA_MAX && address_domain_valid((const char *)found, n, false)) {
		memcpy(to, found, n + 1);
	} else {
		n = 0;
	}
	idn2_free(found);
	return n;
}
