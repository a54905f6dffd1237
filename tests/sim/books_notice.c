/*
 * Delivery status notifications (RFC 3464), read far enough to know whom they are about.
 */
#include <string.h>

#include "tests/sim/books_parts.h"
#include "tests/sim/world.h"

/* Behind `name` at the start of a line, from `*at` on, moved there; its length up to the line's
 * end; NULL: no such line. */
static const char *next_field(const char *data, size_t len, size_t *at, const char *name,
			      size_t *value_len)
{
	size_t name_len = strlen(name);
	const char *found;
	const char *end;

	while ((found = memmem(data + *at, len - *at, name, name_len)) != NULL) {
		*at = (size_t)(found - data) + name_len;
		end = memchr(data + *at, '\r', len - *at);
		if (end != NULL && (found == data || found[-1] == '\n')) {
			*value_len = (size_t)(end - data) - *at;
			return found + name_len;
		}
	}
	return NULL;
}

bool books_is_notice(const char *data, size_t len)
{
	static const char type[] = "report-type=delivery-status";

	return memmem(data, len < 2048 ? len : 2048, type, sizeof(type) - 1) != NULL;
}

bool books_notice_id(const char *data, size_t len, struct message_id *id)
{
	char text[MESSAGE_ID_TEXT];
	size_t at = 0;
	size_t value_len;
	const char *value = next_field(data, len, &at, "Message-ID: <", &value_len);

	if (value == NULL || value_len < MESSAGE_ID_TEXT) {
		return false;
	}
	memcpy(text, value, MESSAGE_ID_TEXT - 1);
	text[MESSAGE_ID_TEXT - 1] = '\0';
	return message_id_parse(text, id) == 0;
}

static void read_recipient(struct books *b, struct book_entry *notice, const char *address,
			   size_t len)
{
	uint32_t recipient;
	struct book_entry *e = books_find_address(b, address, len, &recipient);

	if (e == NULL) {
		world_fail("a notification is about \"%.*s\", which is nobody's", (int)len,
			   address);
	}
	if (notice->about != NULL && notice->about != e) {
		world_fail("a notification is about message %u and about %s",
			   notice->about->m.number, books_name(e));
	}
	notice->about = e;
	if ((notice->names >> recipient & 1) != 0) {
		world_fail("a notification names %s twice", e->m.recipients[recipient].address);
	}
	notice->names |= UINT64_C(1) << recipient;
}

void books_notice_read(struct books *b, struct book_entry *notice, const char *data, size_t len)
{
	size_t at = 0;
	size_t value_len;
	uint32_t actions = 0;
	const char *value;
	uint32_t number;

	while ((value = next_field(data, len, &at, "Final-Recipient: rfc822; ", &value_len)) !=
	       NULL) {
		read_recipient(b, notice, value, value_len);
	}
	if (notice->about == NULL) {
		world_fail("a notification names nobody");
	}
	at = 0;
	while (next_field(data, len, &at, "Action: failed", &value_len) != NULL) {
		actions++;
	}
	if (actions != (uint32_t)__builtin_popcountll(notice->names)) {
		world_fail("a notification about message %u names %d recipients, %u failed",
			   notice->about->m.number, __builtin_popcountll(notice->names), actions);
	}
	number = books_sim_number(data, len);
	if (number != 0 && number != notice->about->m.number) {
		world_fail("a notification about message %u has the header of message %u",
			   notice->about->m.number, number);
	}
	if (strcmp(notice->m.recipients[0].address, notice->about->m.sender) != 0) {
		world_fail("a notification about message %u goes to <%s>", notice->about->m.number,
			   notice->m.recipients[0].address);
	}
}
