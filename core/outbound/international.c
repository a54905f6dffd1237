#include "core/outbound/international.h"

#include <string.h>

#include "core/mail/envelope.h"
#include "core/mail/idna.h"

/* The header ends with an empty line, or the message without one. A buffer may end anywhere. */
static bool header_is_ascii(const struct chain *body)
{
	static const char end[] = "\r\n\r\n";
	/* Of `end` were seen: an empty header is its second half alone. */
	size_t seen = 2;

	for (const struct chain_buffer *b = body->head; b != NULL; b = b->next) {
		for (uint32_t i = 0; i < b->len; i++) {
			char c = (char)b->data[i];

			if ((unsigned char)c >= 0x80) {
				return false;
			}
			seen = c == end[seen] ? seen + 1 : c == end[0];
			if (seen == sizeof(end) - 1) {
				return true;
			}
		}
	}
	return true;
}

static bool text_is_ascii(const char *text)
{
	return !idna_needed(text, strlen(text));
}

struct recipient_set international_recipients(const struct content *content, uint32_t index,
					      const struct recipient_set *recipients)
{
	const struct envelope *e = content_envelope(content);
	const struct envelope_delivery *own = envelope_delivery(e, index);
	struct recipient_set found = {{0, 0}};

	if (!text_is_ascii(envelope_sender(e)) || !header_is_ascii(&content->body)) {
		return *recipients;
	}
	for (unsigned i = recipient_set_next(recipients, 0); i < own->count;
	     i = recipient_set_next(recipients, i + 1)) {
		if (!text_is_ascii(envelope_address(e, own->first + i))) {
			recipient_set_add(&found, i);
		}
	}
	return found;
}
