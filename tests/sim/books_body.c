/*
 * Bodies. All are made of one text, drawn once: a message has a head of its own, lines of the text
 * from somewhere on, and a tail of its own. So any part of any body is at hand without being kept.
 */
#include <stdio.h>
#include <string.h>

#include "core/mail/header.h"
#include "tests/sim/books_parts.h"
#include "tests/sim/world.h"

#define TEXT_BYTES 65536U
#define TEXT_LINE_MAX 1000U

/* ---- making ---- */

static uint32_t line_length(void)
{
	unsigned kind = (unsigned)world_below(100);

	if (kind < 10) {
		return 0;
	}
	if (kind < 85) {
		return (uint32_t)world_between(1, 78);
	}
	return (uint32_t)world_between(79, kind < 98 ? 300 : TEXT_LINE_MAX - 2);
}

/* A line's start decides what servers make of it. */
static uint32_t put_start(char *to)
{
	static const char *const starts[] = {"..", "...", "..\t", "From ", " ", "\t", ">", "-- "};
	const char *start = starts[world_below(sizeof(starts) / sizeof(starts[0]))];

	memcpy(to, start, strlen(start));
	return (uint32_t)strlen(start);
}

static uint32_t put_line(char *to)
{
	uint32_t len = line_length();
	uint64_t bits = world_random();
	uint32_t n = len > 8 && world_chance(150) ? put_start(to) : 0;
	bool eight_bit = world_chance(20);

	/* A dot alone, stuffed. */
	if (len == 1) {
		memcpy(to, "..\r\n", 4);
		return 4;
	}
	for (; n < len; n++) {
		to[n] = (char)(' ' + 1 + bits % 94);
		if (to[n] == '.' && n == 0) {
			to[n] = ',';
		}
		if (eight_bit && n % 2 == 1) {
			to[n] = (char)(0xa0 + bits % 32);
		}
		bits = bits * UINT64_C(6364136223846793005) + 1442695040888963407U;
		bits ^= bits >> 33;
	}
	to[n++] = '\r';
	to[n++] = '\n';
	return n;
}

void books_text_create(struct books *b)
{
	b->text = world_alloc(TEXT_BYTES + TEXT_LINE_MAX + 16);
	b->lines = world_alloc((TEXT_BYTES / 2) * sizeof(*b->lines));
	while (b->text_len < TEXT_BYTES) {
		b->lines[b->line_count++] = b->text_len;
		b->text_len += put_line(b->text + b->text_len);
	}
}

/* The first start of a line at or behind `offset` of the endless text. */
static uint64_t line_start(const struct books *b, uint64_t offset)
{
	uint64_t rounds = offset / b->text_len;
	uint32_t at = (uint32_t)(offset % b->text_len);
	uint32_t low = 0;
	uint32_t high = b->line_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (b->lines[middle] < at) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return rounds * b->text_len + (low < b->line_count ? b->lines[low] : b->text_len);
}

void books_body_draw(struct books *b, struct book_entry *e, uint32_t len)
{
	uint32_t own;

	books_binding_draw(e);
	e->head_len =
		e->field_len +
		(uint32_t)snprintf(e->head + e->field_len, sizeof(e->head) - e->field_len,
				   "X-Sim: %u\r\nFrom: <%s>\r\nSubject: message %u,\r\n\tfolded\r\n"
				   "To: everybody:;\r\n\r\n",
				   e->m.number, e->m.sender, e->m.number);
	e->tail_len = (uint32_t)snprintf(e->tail, sizeof(e->tail), "-- end of %u\r\n", e->m.number);
	own = e->head_len + e->tail_len;
	if (len > own) {
		e->text_start = b->lines[world_below(b->line_count)];
		e->text_len = (uint32_t)(line_start(b, e->text_start + len - own) - e->text_start);
	}
	e->m.body_len = own + e->text_len;
}

/* ---- reading ---- */

/* Where byte `offset` of the body is, and how many follow it there; 0: the end. */
static uint32_t piece(const struct books *b, const struct book_entry *e, size_t offset,
		      const char **at)
{
	uint32_t place;
	uint32_t left;
	uint32_t round;

	if (offset < e->head_len) {
		*at = e->head + offset;
		return e->head_len - (uint32_t)offset;
	}
	offset -= e->head_len;
	if (offset < e->text_len) {
		place = (uint32_t)((e->text_start + offset) % b->text_len);
		left = e->text_len - (uint32_t)offset;
		round = b->text_len - place;
		*at = b->text + place;
		return left < round ? left : round;
	}
	offset -= e->text_len;
	*at = e->tail + offset;
	return offset < e->tail_len ? e->tail_len - (uint32_t)offset : 0;
}

size_t books_body(const struct book_message *m, size_t offset, char *out, size_t room)
{
	const struct book_entry *e = (const struct book_entry *)(const void *)m;
	size_t n = 0;

	while (n < room) {
		const char *from;
		size_t len = piece(world->books, e, offset + n, &from);

		if (len == 0) {
			break;
		}
		len = len < room - n ? len : room - n;
		memcpy(out + n, from, len);
		n += len;
	}
	return n;
}

uint64_t books_hash(const void *data, size_t len, uint64_t start)
{
	const unsigned char *p = data;
	uint64_t h = start ^ (len * UINT64_C(0x9e3779b97f4a7c15));
	uint64_t word;

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 32;
	}
	word = 0;
	memcpy(&word, p, len);
	h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
	return h ^ h >> 29;
}

/* ---- what was delivered ---- */

/* Behind the first header field, with the lines that continue it. */
static size_t field_end(const char *data, size_t len)
{
	size_t at = 0;

	do {
		const char *lf = memchr(data + at, '\n', len - at);

		if (lf == NULL) {
			return len;
		}
		at = (size_t)(lf - data) + 1;
	} while (at < len && (data[at] == ' ' || data[at] == '\t'));
	return at;
}

/* The trace header's id is the one by which the program knows the message. */
static void check_trace(const struct book_entry *e, const char *data, size_t len)
{
	char field[HEADER_RECEIVED_MAX + 1];
	char id[MESSAGE_ID_TEXT];
	size_t copied = len < HEADER_RECEIVED_MAX ? len : HEADER_RECEIVED_MAX;

	memcpy(field, data, copied);
	field[copied] = '\0';
	message_id_format(&e->id, id);
	if (strncmp(field, "Received: from ", 15) != 0 || (e->known && strstr(field, id) == NULL)) {
		world_fail("%s was delivered with the trace header \"%.300s\"", books_name(e),
			   field);
	}
}

void books_body_check(const struct books *b, const struct book_entry *e, const char *data,
		      size_t len)
{
	size_t trace = field_end(data, len);
	size_t taken = books_binding_taken(e);
	size_t offset = taken;

	check_trace(e, data, trace);
	data += trace;
	len -= trace;
	/* As if it were there. */
	data -= taken;
	len += taken;
	while (offset < e->m.body_len) {
		const char *want;
		size_t n = piece(b, e, offset, &want);
		size_t have = n < len - offset ? n : len - offset;
		size_t same = 0;

		if (have == n && memcmp(want, data + offset, n) == 0) {
			offset += n;
			continue;
		}
		while (same < have && want[same] == data[offset + same]) {
			same++;
		}
		world_fail("%s was changed: byte %zu of %u differs, %zu were delivered",
			   books_name(e), offset + same, e->m.body_len, len);
	}
	if (len != offset) {
		world_fail("%s has %u bytes, %zu were delivered", books_name(e), e->m.body_len,
			   len);
	}
}

uint32_t books_sim_number(const char *data, size_t len)
{
	static const char name[] = "\nX-Sim: ";
	const char *found = memmem(data, len, name, sizeof(name) - 1);
	const char *end = data + len;
	uint32_t number = 0;

	if (found == NULL) {
		return 0;
	}
	for (found += sizeof(name) - 1; found < end && *found >= '0' && *found <= '9'; found++) {
		number = number * 10 + (uint32_t)(*found - '0');
	}
	return number;
}
