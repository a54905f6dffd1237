/* What the load generator writes: recipients, and headers that all have the same length. */
#include <assert.h>
#include <stdio.h>

#include "perf/load.h"

/* The longest number there is, and the longest domain number. */
#define NUMBER_DIGITS 20U

void load_append_recipient(const struct load_options *o, struct text *t, uint64_t number,
			   unsigned index)
{
	uint64_t serial = number * o->recipients + index;
	uint64_t domain = (o->same_domain ? number : serial) % o->domains;

	text_append(t, "u", 1);
	text_append_number(t, serial);
	text_append(t, "@", 1);
	text_append_string(t, o->domain_prefix);
	if (o->domain_suffix != NULL) {
		text_append_number(t, domain);
		text_append_string(t, o->domain_suffix);
	}
}

static void append_id(const struct load_options *o, struct text *t, uint64_t number)
{
	text_append_string(t, o->id_prefix);
	text_append(t, "-", 1);
	text_append_number(t, number);
}

static void append_hex(struct text *t, uint32_t value)
{
	char digits[8];

	for (unsigned i = 0; i < 8; i++) {
		digits[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
	}
	text_append(t, digits, sizeof(digits));
}

/* All but the padding. */
static void append_fields(const struct load *load, struct text *t, uint64_t number,
			  uint64_t sent_ns)
{
	const struct load_options *o = &load->options;

	text_append_string(t, "X-Fwload-Id: ");
	append_id(o, t, number);
	text_append_string(t, "\r\nX-Fwload-Sum: ");
	append_hex(t, message_pool_body(&load->pool, number)->sum);
	text_append_string(t, "\r\nX-Fwload-Sent: ");
	text_append_number(t, sent_ns);
	text_append_string(t, "\r\nDate: ");
	text_append_string(t, load->date);
	text_append_string(t, "\r\nFrom: <");
	text_append_string(t, o->from);
	text_append_string(t, ">\r\nTo: <");
	load_append_recipient(o, t, number, 0);
	text_append_string(t, ">\r\nMessage-ID: <");
	append_id(o, t, number);
	text_append(t, "@", 1);
	text_append_string(t, o->hostname);
	text_append_string(t, ">\r\nSubject: Message ");
	append_id(o, t, number);
}

size_t load_header_len(const struct load_options *o)
{
	size_t names = sizeof("X-Fwload-Id: X-Fwload-Sum: X-Fwload-Sent: Date: From: To: "
			      "Message-ID: Subject: X-Fwload-Pad: ");
	size_t id = strlen(o->id_prefix) + 1 + NUMBER_DIGITS;
	size_t domain = strlen(o->domain_prefix) +
			(o->domain_suffix != NULL ? NUMBER_DIGITS + strlen(o->domain_suffix) : 0);

	return names + 3 * id + 8 + NUMBER_DIGITS + sizeof("Mon, 01 Jan 2024 00:00:00 +0000") +
	       strlen(o->from) + 2 + 1 + NUMBER_DIGITS + 1 + domain + 2 + strlen(o->hostname) + 3 +
	       sizeof("Message ") + 9 * 2 + 2;
}

void load_append_header(const struct load *load, struct text *t, uint64_t number, uint64_t sent_ns)
{
	static const char pad_name[] = "\r\nX-Fwload-Pad: ";
	size_t start = t->len;
	size_t used;
	size_t pad;

	append_fields(load, t, number, sent_ns);
	text_append(t, pad_name, sizeof(pad_name) - 1);
	used = t->len - start + 4;
	assert(used <= load->header_len);
	pad = load->header_len - used;
	text_reserve(t, pad + 4);
	memset(t->data + t->len, 'x', pad);
	t->len += pad;
	text_append(t, "\r\n\r\n", 4);
}
