/*
 * spool/record.c and the envelopes in its records. A byte chooses: bytes that claim to be a segment
 * header, a record or an envelope, which must be refused or safe to use; or numbers that make a
 * record, which must be read back as it was written, whatever the pieces, and be refused when one
 * bit of it is another.
 */
#include <strings.h>

#include "core/mail/message.h"
#include "spool/record.h"
#include "tests/fuzz/fuzz_input.h"

/* ---- reading anything ---- */

static void read_segment_header(struct fuzz_input *in)
{
	unsigned char *block = calloc(1, SEGMENT_BLOCK);
	struct segment_header h;
	size_t n;
	const unsigned char *piece = fuzz_piece(in, SEGMENT_BLOCK, &n);

	FUZZ_CHECK(block != NULL);
	memcpy(block, piece, n);
	if (segment_header_decode(block, &h) == 0) {
		FUZZ_CHECK(h.version <= SPOOL_FORMAT_VERSION);
		FUZZ_CHECK(h.state >= SEGMENT_DISK_FREE && h.state <= SEGMENT_DISK_SEALED);
	}
	/* What is written is read, and nothing near it is. */
	h.state = (uint16_t)(SEGMENT_DISK_FREE + h.state % 3U);
	segment_header_encode(block, &h);
	FUZZ_CHECK(segment_header_decode(block, &h) == 0);
	block[fuzz_byte(in) % sizeof(h)] ^= (unsigned char)(1U << (n & 7));
	FUZZ_CHECK(segment_header_decode(block, &h) != 0);
	free(block);
}

/* Everything that a scheduler looks at in a message that comes back. */
static void walk_envelope(const struct envelope *e)
{
	size_t total = strlen(envelope_sender(e));
	uint32_t recipients = 0;

	for (uint32_t i = 0; i < e->delivery_count; i++) {
		const struct envelope_delivery *d = envelope_delivery(e, i);

		FUZZ_CHECK(d->count > 0 && d->count <= ENVELOPE_DELIVERY_RECIPIENTS);
		for (uint32_t j = 0; j < d->count; j++) {
			uint32_t r = d->first + j;
			const char *at = strrchr(envelope_address(e, r), '@');

			FUZZ_CHECK(strlen(envelope_address(e, r)) == envelope_recipient(e, r)->len);
			FUZZ_CHECK(at != NULL);
			FUZZ_CHECK((e->flags & ENVELOPE_ROUTED) != 0 ||
				   strcasecmp(at + 1, envelope_domain(e, i)) == 0);
		}
		recipients += d->count;
		total += strlen(envelope_domain(e, i));
	}
	FUZZ_CHECK(recipients == e->recipient_count && total < e->size);
}

/* The size and version are made right, or hardly an input would get further. */
static void read_envelope(struct fuzz_input *in)
{
	size_t size = in->left;
	struct envelope *e = (struct envelope *)(void *)fuzz_copy(in->at, size);

	if (size >= sizeof(*e)) {
		e->size = (uint32_t)size;
		e->version = ENVELOPE_VERSION;
	}
	if (envelope_check(e, size) == 0) {
		walk_envelope(e);
	}
	free(e);
}

static void read_record(struct fuzz_input *in)
{
	struct record_header h = {.magic = 0};
	size_t n;
	const unsigned char *piece = fuzz_piece(in, sizeof(h), &n);
	uint64_t room = 65536;

	memcpy(&h, piece, n);
	h.magic = RECORD_MAGIC;
	if (record_plausible(&h, h.segment, h.generation, room)) {
		FUZZ_CHECK(record_bytes(h.length) <= room && h.head_bytes <= h.length);
		struct record_check c;
		unsigned char *rest = fuzz_copy(in->at, in->left);

		record_check_begin(&c, &h);
		FUZZ_CHECK(record_check_feed(&c, rest, in->left) <= h.length);
		if (h.head_bytes <= in->left) {
			record_head_ok(&h, rest);
		}
		record_check_ok(&c);
		free(rest);
	}
}

/* ---- writing and reading back ---- */

struct made {
	struct record_header header;
	struct record_state state;
	char reason[512];
	struct envelope_builder builder;
	struct envelope *envelope;
	struct pool buffers;
	struct chain body;
};

static void make_envelope(struct made *m, struct fuzz_input *in)
{
	unsigned count = 1 + fuzz_byte(in);
	unsigned domains = 1 + fuzz_byte(in) % 5;
	char address[64];
	int len;

	envelope_set_sender(&m->builder, "sender@example.com", 18);
	if (count % 2 == 0) {
		envelope_set_envid(&m->builder, "QQ+2B", 5);
	}
	for (unsigned i = 0; i < count; i++) {
		len = snprintf(address, sizeof(address), "r%u@D%u.example", i % 200, i % domains);
		if (envelope_add_recipient(&m->builder, address, (size_t)len) && i % 3 == 0) {
			envelope_set_notify(&m->builder, i % 16, "rfc822;x+20y", 12);
		}
	}
	m->envelope = malloc(envelope_size(&m->builder));
	FUZZ_CHECK(m->envelope != NULL);
	envelope_build(&m->builder, m->envelope);
	FUZZ_CHECK(envelope_check(m->envelope, m->envelope->size) == 0);
	walk_envelope(m->envelope);
}

static void make(struct made *m, struct fuzz_input *in, struct record_encoder *e)
{
	unsigned type = 1 + fuzz_byte(in) % 3;
	size_t n;
	const unsigned char *piece;

	m->header = (struct record_header){
		.type = (uint8_t)type,
		.count = (uint16_t)fuzz_word(in),
		.segment = fuzz_word(in),
		.generation = fuzz_word(in),
		.delivery = 1 + fuzz_word(in),
		.sequence = fuzz_word(in),
		.id = {fuzz_word(in), fuzz_word(in)},
	};
	if (type == RECORD_MESSAGE) {
		make_envelope(m, in);
		chain_append(&m->body, &m->buffers, in->at, in->left);
		record_encode_message(e, &m->header, m->envelope, &m->body);
	} else if (type == RECORD_STATE) {
		m->state.attempts = (uint16_t)fuzz_word(in);
		piece = fuzz_piece(in, 1 + fuzz_word(in) % 512, &n);
		m->state.text_bytes = (uint16_t)(n > 512 ? 512 : n);
		memcpy(m->reason, piece, m->state.text_bytes);
		record_encode_state(e, &m->header, &m->state, m->reason);
	} else {
		record_encode_done(e, &m->header, fuzz_word(in));
	}
}

/* Written piece by piece; `*len` is its length. */
static unsigned char *encode(struct record_encoder *e, uint32_t seed, size_t *len)
{
	unsigned char *record = malloc((size_t)e->size);

	FUZZ_CHECK(record != NULL && e->size % RECORD_ALIGN == 0);
	for (*len = 0; !record_encoded(e);) {
		size_t room = fuzz_split(&seed, (size_t)e->size - *len);
		size_t n = record_encode(e, record + *len, room);

		FUZZ_CHECK(n == room || record_encoded(e));
		*len += n;
	}
	FUZZ_CHECK(*len == e->size);
	return record;
}

static bool whole(const unsigned char *record, size_t len, uint32_t seed)
{
	struct record_header h;
	struct record_check c;

	memcpy(&h, record, sizeof(h));
	if (!record_plausible(&h, h.segment, h.generation, len)) {
		return false;
	}
	record_check_begin(&c, &h);
	for (size_t at = sizeof(h); at < len;) {
		size_t n = fuzz_split(&seed, len - at);

		record_check_feed(&c, record + at, n);
		at += n;
	}
	return record_check_ok(&c);
}

static void check_copy(const unsigned char *record, size_t len, uint32_t seed)
{
	struct record_header where = {.segment = 7, .generation = 9, .sequence = 11};
	struct record_encoder *e = malloc(sizeof(*e));
	unsigned char *copy;
	size_t copy_len;

	FUZZ_CHECK(e != NULL);
	record_encode_copy(e, &where, record);
	copy = encode(e, seed, &copy_len);
	FUZZ_CHECK(copy_len == len && whole(copy, copy_len, seed));
	FUZZ_CHECK(memcmp(copy + sizeof(where), record + sizeof(where), len - sizeof(where)) == 0);
	free(copy);
	free(e);
}

static void write_and_read(struct fuzz_input *in)
{
	uint32_t seed = fuzz_word(in);
	uint32_t damage = fuzz_word(in);
	struct record_encoder *e = malloc(sizeof(*e));
	struct made m = {.body = CHAIN_EMPTY};
	struct record_header h;
	unsigned char *record;
	size_t len;

	FUZZ_CHECK(e != NULL);
	pool_init(&m.buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	envelope_builder_init(&m.builder);
	make(&m, in, e);
	record = encode(e, seed, &len);
	memcpy(&h, record, sizeof(h));
	FUZZ_CHECK(h.type == m.header.type && h.delivery == m.header.delivery);
	FUZZ_CHECK(memcmp(&h.id, &m.header.id, sizeof(h.id)) == 0);
	FUZZ_CHECK(whole(record, len, seed) && whole(record, len, ~seed));
	check_copy(record, len, seed);
	/* What fills up to a multiple of 8 is not covered. */
	record[damage % (sizeof(h) + h.length)] ^= (unsigned char)(1U << (damage >> 13));
	FUZZ_CHECK(!whole(record, len, seed));
	free(record);
	free(m.envelope);
	envelope_builder_close(&m.builder);
	chain_release(&m.body, &m.buffers);
	pool_close(&m.buffers);
	free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);

	switch (fuzz_byte(&in) % 4) {
	case 0:
		read_segment_header(&in);
		break;
	case 1:
		read_envelope(&in);
		break;
	case 2:
		read_record(&in);
		break;
	default:
		write_and_read(&in);
		break;
	}
	return 0;
}
