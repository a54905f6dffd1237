/*
 * Internationalized domain names (IDNA2008, RFC 5891): from what people write to what the DNS, the
 * configuration and the queues know, the A-label form. Names of ASCII only never come here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/runtime/thread_class.h"

/* Of a name in the DNS, and a NUL. */
#define IDNA_MAX 256

/* Whether any of `len` octets is above 127: such a domain has a U-label, or is none. */
CONCURRENT
bool idna_needed(const char *text, size_t len);

/*
 * The A-label form of a domain, `len` octets of UTF-8, as it is looked up: mapped by UTS #46 (upper
 * case, full-width letters, the ideographic full stop), nontransitional. In lower case,
 * NUL-terminated, 1 to 253 octets. Allocates and frees.
 * Returns its length, or 0 when IDNA2008 does not allow the name.
 */
CONCURRENT
size_t idna_to_ascii(const char *domain, size_t len, char to[IDNA_MAX]);
