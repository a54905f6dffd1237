#include "core/mail/envelope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mail/dsn_parameter.h"
#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

/* Blocks are padded to this, so that one may follow another. */
#define ENVELOPE_ALIGN 8
/* What a builder keeps from message to message. */
#define BUILDER_KEEP_BYTES 65536
#define BUILDER_KEEP_SLOTS 2048

static const char base32[] = "0123456789abcdefghjkmnpqrstvwxyz";

/* The lowest `count` digits of 5 bits. */
static inline void digits_put(char *text, unsigned count, uint64_t value)
{
	while (count > 0) {
		text[--count] = base32[value & 31];
		value >>= 5;
	}
}

void message_id_format(const struct message_id *id, char text[MESSAGE_ID_TEXT])
{
	/* 26 digits of 5 bits, of which the first one has only 3. */
	digits_put(text + 14, 12, id->low);
	digits_put(text + 2, 12, id->high << 4 | id->low >> 60);
	digits_put(text, 2, id->high >> 56);
	text[MESSAGE_ID_TEXT - 1] = '\0';
}

/* 0 to 31, or -1. */
static int base32_value(char c)
{
	const char *p;

	if (c >= 'A' && c <= 'Z') {
		c = (char)(c - 'A' + 'a');
	}
	p = c != '\0' ? strchr(base32, c) : NULL;
	return p != NULL ? (int)(p - base32) : -1;
}

int message_id_parse(const char *text, struct message_id *id)
{
	struct message_id parsed = {0, 0};

	for (unsigned i = 0; i < MESSAGE_ID_TEXT - 1; i++) {
		int value = base32_value(text[i]);

		if (value < 0 || (i == 0 && value > 7)) {
			return -EINVAL;
		}
		parsed.high = parsed.high << 5 | parsed.low >> 59;
		parsed.low = parsed.low << 5 | (uint64_t)value;
	}
	if (text[MESSAGE_ID_TEXT - 1] != '\0') {
		return -EINVAL;
	}
	*id = parsed;
	return 0;
}

void envelope_builder_init(struct envelope_builder *b)
{
	*b = (struct envelope_builder){.text = NULL};
}

/* One huge message must not make a builder large, and slow to reset, for ever. */
static void drop_large_memory(struct envelope_builder *b)
{
	if (b->text_size > BUILDER_KEEP_BYTES || b->index_size > BUILDER_KEEP_SLOTS) {
		envelope_builder_close(b);
	}
}

void envelope_builder_reset(struct envelope_builder *b)
{
	drop_large_memory(b);
	b->text_len = 0;
	b->recipient_count = 0;
	b->sender_len = 0;
	b->head_len = 0;
	b->binding = NULL;
	b->routing = NULL;
	b->context = NULL;
	b->flags = 0;
	b->has_sender = false;
	b->sorted = false;
	if (b->index != NULL) {
		memset(b->index, 0, b->index_size * sizeof(*b->index));
	}
}

void envelope_builder_close(struct envelope_builder *b)
{
	free(b->text);
	free(b->recipients);
	free(b->index);
	envelope_builder_init(b);
}

size_t envelope_builder_bytes(const struct envelope_builder *b)
{
	/* Of the index two to four slots for each recipient. */
	return b->text_len + b->recipient_count * (sizeof(*b->recipients) + 4 * sizeof(*b->index));
}

static void *grow(void *old, size_t count, size_t size)
{
	void *p = reallocarray(old, count, size);

	if (p == NULL) {
		fatal("out of memory: envelope of %zu bytes", count * size);
	}
	return p;
}

static void text_reserve(struct envelope_builder *b, size_t more)
{
	size_t size = b->text_size != 0 ? b->text_size : 1024;

	while (size - b->text_len < more) {
		size *= 2;
	}
	if (size != b->text_size) {
		b->text = grow(b->text, size, 1);
		b->text_size = size;
	}
}

/* The sender stays at the start of the text, so it is set first, and once. */
void envelope_set_sender(struct envelope_builder *b, const char *address, size_t len)
{
	ASSERT(len <= ADDRESS_MAX);
	ASSERT(!b->has_sender && b->recipient_count == 0);
	text_reserve(b, len + 1);
	memcpy(b->text, address, len);
	b->text[len] = '\0';
	b->text_len = len + 1;
	b->sender_len = len;
	b->head_len = b->text_len;
	b->has_sender = true;
}

static void text_append(struct envelope_builder *b, const char *text, size_t len)
{
	text_reserve(b, len + 1);
	memcpy(b->text + b->text_len, text, len);
	b->text[b->text_len + len] = '\0';
	b->text_len += len + 1;
}

void envelope_set_envid(struct envelope_builder *b, const char *envid, size_t len)
{
	ASSERT(len > 0 && len <= DSN_ENVID_MAX);
	ASSERT(b->has_sender && b->text_len == b->sender_len + 1);
	text_append(b, envid, len);
	b->head_len = b->text_len;
	b->flags |= ENVELOPE_ENVID;
}

void envelope_set_binding(struct envelope_builder *b, const char *name)
{
	ASSERT(name == NULL || (name[0] != '\0' && strlen(name) <= ENVELOPE_BINDING_MAX));
	b->binding = name;
}

void envelope_set_context(struct envelope_builder *b, const struct context *context)
{
	b->context = context != NULL && context->count != 0 ? context : NULL;
}

void envelope_set_routing(struct envelope_builder *b, const char *domain)
{
	ASSERT(domain == NULL || (domain[0] != '\0' && strlen(domain) < ADDRESS_MAX));
	b->routing = domain;
}

void envelope_set_notify(struct envelope_builder *b, uint16_t notify, const char *orcpt,
			 size_t orcpt_len)
{
	struct envelope_recipient *r;

	ASSERT(b->recipient_count > 0 && (notify & ~ENVELOPE_NOTIFY) == 0);
	/* Those added last have their text last, and are not sorted yet. */
	r = &b->recipients[b->recipient_count - 1];
	ASSERT(r->offset + r->len + 1U == b->text_len);
	r->flags = notify;
	if (orcpt != NULL) {
		ASSERT(orcpt_len > 0 && orcpt_len <= DSN_ORCPT_MAX);
		text_append(b, orcpt, orcpt_len);
		r->flags |= ENVELOPE_ORCPT;
	}
}

/* Where the domain starts in an address that has one; NULL if it has none. */
static const char *domain_of(const char *address, size_t len)
{
	const char *at = memrchr(address, '@', len);

	return at != NULL ? at + 1 : NULL;
}

static unsigned char lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static uint64_t address_hash(const char *address, size_t len)
{
	size_t local_len = (size_t)(domain_of(address, len) - address);
	uint64_t hash = fnv_bytes(FNV_START, address, local_len);

	for (size_t i = local_len; i < len; i++) {
		hash = fnv_octet(hash, lower(address[i]));
	}
	return hash;
}

static bool address_equal(const char *stored, const char *address, size_t len)
{
	size_t local_len = (size_t)(domain_of(address, len) - address);

	return strlen(stored) == len && memcmp(stored, address, local_len) == 0 &&
	       strncasecmp(stored + local_len, address + local_len, len - local_len) == 0;
}

/* The slot that holds the address, or the free one where it would go. */
static uint32_t *index_slot(struct envelope_builder *b, const char *address, size_t len)
{
	uint32_t mask = b->index_size - 1;
	uint32_t i = (uint32_t)address_hash(address, len) & mask;

	while (b->index[i] != 0 && !address_equal(b->text + b->index[i], address, len)) {
		i = (i + 1) & mask;
	}
	return &b->index[i];
}

/* Twice as many slots as recipients, at least. */
static void index_reserve(struct envelope_builder *b)
{
	if (b->index_size >= 2 * (b->recipient_count + 1)) {
		return;
	}
	b->index_size = b->index_size != 0 ? 2 * b->index_size : 64;
	b->index = grow(b->index, b->index_size, sizeof(*b->index));
	memset(b->index, 0, b->index_size * sizeof(*b->index));
	for (uint32_t i = 0; i < b->recipient_count; i++) {
		const struct envelope_recipient *r = &b->recipients[i];

		*index_slot(b, b->text + r->offset, r->len) = r->offset;
	}
}

static void recipients_reserve(struct envelope_builder *b)
{
	if (b->recipient_count < b->recipient_size) {
		return;
	}
	b->recipient_size = b->recipient_size != 0 ? 2 * b->recipient_size : 16;
	b->recipients = grow(b->recipients, b->recipient_size, sizeof(*b->recipients));
}

bool envelope_add_recipient(struct envelope_builder *b, const char *address, size_t len)
{
	uint32_t *slot;

	ASSERT(len <= ADDRESS_MAX && b->has_sender);
	ASSERT(b->recipient_count < ENVELOPE_RECIPIENTS_MAX);
	ASSERT(domain_of(address, len) != NULL);
	index_reserve(b);
	slot = index_slot(b, address, len);
	if (*slot != 0) {
		return false;
	}
	recipients_reserve(b);
	text_reserve(b, len + 1);
	*slot = (uint32_t)b->text_len;
	b->recipients[b->recipient_count++] = (struct envelope_recipient){
		.offset = (uint32_t)b->text_len,
		.len = (uint16_t)len,
	};
	memcpy(b->text + b->text_len, address, len);
	b->text[b->text_len + len] = '\0';
	b->text_len += len + 1;
	b->sorted = false;
	return true;
}

static const char *own_domain(const char *text, const struct envelope_recipient *r)
{
	return domain_of(text + r->offset, r->len);
}

/* By domain, then in the order of their addition, which is that of their text. */
static int recipient_compare(const void *left, const void *right, void *text)
{
	const struct envelope_recipient *l = left;
	const struct envelope_recipient *r = right;
	int order = strcasecmp(own_domain(text, l), own_domain(text, r));

	if (order != 0) {
		return order;
	}
	return l->offset < r->offset ? -1 : l->offset > r->offset;
}

static void recipients_sort(struct envelope_builder *b)
{
	if (!b->sorted && b->recipient_count > 1) {
		qsort_r(b->recipients, b->recipient_count, sizeof(*b->recipients),
			recipient_compare, b->text);
	}
	b->sorted = true;
}

/* Where the recipient goes. */
static const char *recipient_domain(const struct envelope_builder *b, uint32_t index)
{
	return b->routing != NULL ? b->routing : own_domain(b->text, &b->recipients[index]);
}

/* How many recipients from `first` on have the same domain. */
static uint32_t domain_run(const struct envelope_builder *b, uint32_t first)
{
	const char *domain = recipient_domain(b, first);
	uint32_t i = first + 1;

	while (i < b->recipient_count && strcasecmp(domain, recipient_domain(b, i)) == 0) {
		i++;
	}
	return i - first;
}

struct envelope_layout {
	uint32_t deliveries;
	size_t deliveries_offset;
	size_t recipients_offset;
	size_t text_offset;
	/* Of the name of the binding, behind the head of the text. */
	size_t binding_len;
	/* Of the domains, behind the text. */
	size_t domains_offset;
	/* Of the context, behind those. */
	size_t context_offset;
	size_t text_end;
	size_t size;
};

/* Header, deliveries, recipients, sender, binding, addresses, domains, context, padding. */
static struct envelope_layout layout_of(struct envelope_builder *b)
{
	struct envelope_layout l = {.deliveries_offset = sizeof(struct envelope)};
	size_t domains = 0;

	ASSERT(b->has_sender);
	recipients_sort(b);
	for (uint32_t i = 0; i < b->recipient_count;) {
		uint32_t run = domain_run(b, i);

		l.deliveries += (run - 1) / ENVELOPE_DELIVERY_RECIPIENTS + 1;
		domains += strlen(recipient_domain(b, i)) + 1;
		i += run;
	}
	l.recipients_offset = l.deliveries_offset + l.deliveries * sizeof(struct envelope_delivery);
	l.text_offset =
		l.recipients_offset + b->recipient_count * sizeof(struct envelope_recipient);
	l.binding_len = b->binding != NULL ? strlen(b->binding) + 1 : 0;
	l.domains_offset = l.text_offset + b->text_len + l.binding_len;
	l.context_offset = l.domains_offset + domains;
	l.text_end = l.context_offset + (b->context != NULL ? b->context->len : 0);
	l.size = (l.text_end + ENVELOPE_ALIGN - 1) / ENVELOPE_ALIGN * ENVELOPE_ALIGN;
	ASSERT(l.size <= UINT32_MAX);
	return l;
}

size_t envelope_size(struct envelope_builder *b)
{
	return layout_of(b).size;
}

/* Writes the domain in lower case at `offset`; returns its length with the NUL. */
static size_t domain_write(char *block, size_t offset, const char *domain)
{
	size_t len = strlen(domain) + 1;

	for (size_t i = 0; i < len; i++) {
		block[offset + i] = (char)lower(domain[i]);
	}
	return len;
}

static void deliveries_write(const struct envelope_builder *b, const struct envelope_layout *l,
			     char *block)
{
	struct envelope_delivery *d =
		(struct envelope_delivery *)(void *)(block + l->deliveries_offset);
	size_t domain_offset = l->domains_offset;

	for (uint32_t i = 0; i < b->recipient_count;) {
		uint32_t left = domain_run(b, i);
		size_t domain_len = domain_write(block, domain_offset, recipient_domain(b, i));

		while (left > 0) {
			uint32_t count = left < ENVELOPE_DELIVERY_RECIPIENTS
						 ? left
						 : ENVELOPE_DELIVERY_RECIPIENTS;

			d->domain_offset = (uint32_t)domain_offset;
			d->first = (uint16_t)i;
			d->count = (uint16_t)count;
			d++;
			i += count;
			left -= count;
		}
		domain_offset += domain_len;
	}
}

static void recipients_write(const struct envelope_builder *b, const struct envelope_layout *l,
			     char *block)
{
	struct envelope_recipient *r =
		(struct envelope_recipient *)(void *)(block + l->recipients_offset);

	for (uint32_t i = 0; i < b->recipient_count; i++) {
		r[i] = b->recipients[i];
		r[i].offset += (uint32_t)(l->text_offset + l->binding_len);
	}
}

static void text_write(const struct envelope_builder *b, const struct envelope_layout *l,
		       char *block)
{
	char *text = block + l->text_offset;

	memcpy(text, b->text, b->head_len);
	if (b->binding != NULL) {
		memcpy(text + b->head_len, b->binding, l->binding_len);
	}
	memcpy(text + b->head_len + l->binding_len, b->text + b->head_len,
	       b->text_len - b->head_len);
}

void envelope_build(struct envelope_builder *b, struct envelope *out)
{
	struct envelope_layout l = layout_of(b);
	char *block = (char *)out;

	*out = (struct envelope){
		.size = (uint32_t)l.size,
		.version = ENVELOPE_VERSION,
		.flags = (uint16_t)((unsigned)b->flags |
				    (b->binding != NULL ? ENVELOPE_BINDING : 0) |
				    (b->routing != NULL ? ENVELOPE_ROUTED : 0)),
		.delivery_count = l.deliveries,
		.recipient_count = b->recipient_count,
		.sender_offset = (uint32_t)l.text_offset,
		.deliveries_offset = (uint32_t)l.deliveries_offset,
		.recipients_offset = (uint32_t)l.recipients_offset,
	};
	text_write(b, &l, block);
	if (b->context != NULL) {
		out->context_count = b->context->count;
		out->context_offset = (uint32_t)l.context_offset;
		memcpy(block + l.context_offset, b->context->pairs, b->context->len);
	}
	memset(block + l.text_end, 0, l.size - l.text_end);
	deliveries_write(b, &l, block);
	recipients_write(b, &l, block);
}

/* Whether `count` objects of `size` bytes lie at `offset`, aligned and behind the header. */
static bool array_inside(const struct envelope *e, uint32_t offset, uint32_t count, size_t size)
{
	return offset >= sizeof(struct envelope) && offset % 4 == 0 && offset <= e->size &&
	       count <= (e->size - offset) / size;
}

/* Texts end at the latest with the block, whose last byte is a NUL. */
static bool text_inside(const struct envelope *e, uint32_t offset)
{
	return offset >= sizeof(struct envelope) && offset < e->size;
}

/* The text behind the one at `offset`, which is inside; NULL when nothing can be there. */
static const char *text_behind(const struct envelope *e, uint32_t offset)
{
	const char *text = (const char *)e + offset;
	size_t end = offset + strlen(text) + 1;

	return end < e->size ? text + strlen(text) + 1 : NULL;
}

static bool envid_valid(const struct envelope *e)
{
	const char *envid;

	if ((e->flags & ENVELOPE_ENVID) == 0) {
		return true;
	}
	envid = text_behind(e, e->sender_offset);
	return envid != NULL && strlen(envid) <= DSN_ENVID_MAX &&
	       dsn_xtext_valid(envid, strlen(envid));
}

static bool binding_valid(const struct envelope *e)
{
	uint32_t at = e->sender_offset;
	const char *name;

	if ((e->flags & ENVELOPE_BINDING) == 0) {
		return true;
	}
	if ((e->flags & ENVELOPE_ENVID) != 0) {
		at += (uint32_t)strlen(envelope_sender(e)) + 1;
	}
	name = text_behind(e, at);
	return name != NULL && name[0] != '\0' && strlen(name) <= ENVELOPE_BINDING_MAX;
}

static bool orcpt_valid(const struct envelope *e, const struct envelope_recipient *r)
{
	const char *orcpt;

	if ((r->flags & ENVELOPE_ORCPT) == 0) {
		return true;
	}
	orcpt = text_behind(e, r->offset);
	return orcpt != NULL && dsn_orcpt_valid(orcpt, strlen(orcpt));
}

/* Bytes of the pairs of the context, which are inside; -1: they are not, or are none. */
static int context_bytes(const struct envelope *e)
{
	uint32_t at = e->context_offset;

	for (uint32_t i = 0; i < 2 * (uint64_t)e->context_count; i++) {
		const char *text = (const char *)e + at;

		if (!text_inside(e, at) || at - e->context_offset > CONTEXT_MAX ||
		    (i % 2 == 0 && text[0] == '\0')) {
			return -1;
		}
		at += (uint32_t)strlen(text) + 1;
	}
	return at - e->context_offset <= CONTEXT_MAX ? (int)(at - e->context_offset) : -1;
}

const char *envelope_context(const struct envelope *e, uint32_t *len)
{
	*len = e->context_count != 0 ? (uint32_t)context_bytes(e) : 0;
	return *len != 0 ? (const char *)e + e->context_offset : NULL;
}

static bool header_valid(const struct envelope *e, size_t size)
{
	return size >= sizeof(*e) && e->size == size && e->version == ENVELOPE_VERSION &&
	       ((const char *)e)[size - 1] == '\0' && text_inside(e, e->sender_offset) &&
	       e->tenant_offset < size && e->campaign_offset < size && e->context_offset < size &&
	       e->recipient_count <= ENVELOPE_RECIPIENTS_MAX &&
	       e->delivery_count <= e->recipient_count &&
	       array_inside(e, e->deliveries_offset, e->delivery_count,
			    sizeof(struct envelope_delivery)) &&
	       array_inside(e, e->recipients_offset, e->recipient_count,
			    sizeof(struct envelope_recipient));
}

static bool recipient_valid(const struct envelope *e, const struct envelope_recipient *r,
			    const char *domain)
{
	const char *address = (const char *)e + r->offset;
	const char *own;

	if (!text_inside(e, r->offset) || r->len > ADDRESS_MAX || r->len != strlen(address)) {
		return false;
	}
	own = domain_of(address, r->len);
	return own != NULL && ((e->flags & ENVELOPE_ROUTED) != 0 || strcasecmp(own, domain) == 0) &&
	       orcpt_valid(e, r);
}

static bool delivery_valid(const struct envelope *e, const struct envelope_delivery *d,
			   uint32_t first)
{
	if (!text_inside(e, d->domain_offset) || d->first != first || d->count == 0 ||
	    d->count > ENVELOPE_DELIVERY_RECIPIENTS || d->count > e->recipient_count - first) {
		return false;
	}
	for (uint32_t i = 0; i < d->count; i++) {
		if (!recipient_valid(e, envelope_recipient(e, first + i),
				     (const char *)e + d->domain_offset)) {
			return false;
		}
	}
	return true;
}

int envelope_check(const struct envelope *e, size_t size)
{
	uint32_t first = 0;

	if (!header_valid(e, size) || !envid_valid(e) || !binding_valid(e) ||
	    context_bytes(e) < 0) {
		return -EINVAL;
	}
	for (uint32_t i = 0; i < e->delivery_count; i++) {
		const struct envelope_delivery *d = envelope_delivery(e, i);

		if (!delivery_valid(e, d, first)) {
			return -EINVAL;
		}
		first += d->count;
	}
	return first == e->recipient_count ? 0 : -EINVAL;
}
