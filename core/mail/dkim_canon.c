#include "core/mail/dkim_canon.h"

#include <string.h>

/* Tests build without it, to have the twin tested too. */
#if defined(__SSE2__) && !defined(FLYWHEEL_PORTABLE)
#define HAVE_SSE2
#include <emmintrin.h>
#endif

#define BLOCK 16

/* ---- the sink ---- */

void dkim_sink_init(struct dkim_sink *s, void (*take)(void *context, const void *data, size_t len),
		    void *context)
{
	s->take = take;
	s->context = context;
	s->len = 0;
}

void dkim_sink_flush(struct dkim_sink *s)
{
	if (s->len > 0) {
		s->take(s->context, s->bytes, s->len);
		s->len = 0;
	}
}

static void put(struct dkim_sink *s, const void *data, size_t len)
{
	if (len > sizeof(s->bytes) - s->len) {
		dkim_sink_flush(s);
		if (len > sizeof(s->bytes)) {
			s->take(s->context, data, len);
			return;
		}
	}
	memcpy(s->bytes + s->len, data, len);
	s->len += len;
}

static inline void put_byte(struct dkim_sink *s, unsigned char c)
{
	if (s->len == sizeof(s->bytes)) {
		dkim_sink_flush(s);
	}
	s->bytes[s->len++] = c;
}

static inline bool is_blank(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* ---- bodies ---- */

void dkim_body_init(struct dkim_body *b, enum dkim_canon canon, struct dkim_sink *sink)
{
	*b = (struct dkim_body){.sink = sink, .canon = canon, .line_start = true};
}

/* Text follows: the lines that ended before it are no trailing ones. */
static inline void end_lines(struct dkim_body *b)
{
	for (; b->line_ends > 0; b->line_ends--) {
		put(b->sink, "\r\n", 2);
	}
	b->any = true;
}

#ifdef HAVE_SSE2
static inline __m128i equal(__m128i block, char c)
{
	return _mm_cmpeq_epi8(block, _mm_set1_epi8(c));
}

/* Bytes from the first, in whole blocks or up to what was looked for: a tab, or a space with white
 * space behind it. */
static size_t clean_blocks(const unsigned char *text, size_t len)
{
	size_t at = 0;

	for (; len - at > BLOCK; at += BLOCK) {
		__m128i block = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
		__m128i next = _mm_loadu_si128((const __m128i *)(const void *)(text + at + 1));
		__m128i after = _mm_or_si128(equal(next, ' '), equal(next, '\t'));
		__m128i bad =
			_mm_or_si128(equal(block, '\t'), _mm_and_si128(equal(block, ' '), after));
		unsigned mask = (unsigned)_mm_movemask_epi8(bad);

		if (mask != 0) {
			return at + (size_t)__builtin_ctz(mask);
		}
	}
	return at;
}
#else
static size_t clean_blocks(const unsigned char *text, size_t len)
{
	(void)text;
	(void)len;
	return 0;
}
#endif

/* Bytes of the text, from the first, that are canonical as they are: white space among them is one
 * space with other text behind it. */
static size_t clean_length(const unsigned char *text, size_t len)
{
	size_t at = clean_blocks(text, len);

	while (at < len && text[at] != '\t' &&
	       (text[at] != ' ' || (at + 1 < len && !is_blank(text[at + 1])))) {
		at++;
	}
	return at;
}

/* Text of one line, or a piece of it, without its end. */
static void relax(struct dkim_body *b, const unsigned char *text, size_t len)
{
	size_t clean;

	for (;;) {
		while (b->blank && len > 0 && is_blank(*text)) {
			text++;
			len--;
		}
		if (len == 0) {
			return;
		}
		clean = clean_length(text, len);
		if (clean > 0) {
			end_lines(b);
			if (b->blank) {
				put_byte(b->sink, ' ');
				b->blank = false;
			}
			put(b->sink, text, clean);
		}
		text += clean;
		len -= clean;
		b->blank = len > 0;
	}
}

static void body_text(struct dkim_body *b, const unsigned char *text, size_t len)
{
	if (b->canon == DKIM_RELAXED) {
		relax(b, text, len);
	} else if (len > 0) {
		end_lines(b);
		put(b->sink, text, len);
	}
}

void dkim_body_add(struct dkim_body *b, const void *data, size_t len)
{
	const unsigned char *at = data;
	const unsigned char *end = at + len;

	while (at < end) {
		const unsigned char *stop;

		if (b->line_start) {
			b->line_start = false;
			at += *at == '.';
		} else if (b->cr) {
			b->cr = false;
			if (*at == '\n') {
				b->line_ends++;
				b->blank = false;
				b->line_start = true;
				at++;
			} else {
				body_text(b, (const unsigned char *)"\r", 1);
			}
		} else {
			stop = memchr(at, '\r', (size_t)(end - at));
			b->cr = stop != NULL;
			stop = stop != NULL ? stop : end;
			body_text(b, at, (size_t)(stop - at));
			at = stop + b->cr;
		}
	}
}

/* RFC 6376 section 3.4.3: a body that ends in no CR LF, or is empty, gets one; 3.4.4: an empty one
 * stays empty. */
void dkim_body_end(struct dkim_body *b)
{
	if (b->cr) {
		body_text(b, (const unsigned char *)"\r", 1);
	}
	if (b->any || b->canon == DKIM_SIMPLE) {
		put(b->sink, "\r\n", 2);
	}
	dkim_sink_flush(b->sink);
}

/* ---- header fields ---- */

void dkim_header_init(struct dkim_header *h, enum dkim_canon canon, struct dkim_sink *sink)
{
	*h = (struct dkim_header){.sink = sink, .canon = canon, .line_start = true};
}

/* The name in lower case up to the colon, and no white space around that. */
static void relax_name(struct dkim_header *h, unsigned char c)
{
	if (!is_blank(c)) {
		put_byte(h->sink, c >= 'A' && c <= 'Z' ? (unsigned char)(c | 32) : c);
	}
	h->value = c == ':';
}

static void relax_value(struct dkim_header *h, unsigned char c)
{
	if (is_blank(c)) {
		h->blank = true;
		return;
	}
	if (h->blank && h->any) {
		put_byte(h->sink, ' ');
	}
	h->blank = false;
	h->any = true;
	put_byte(h->sink, c);
}

static void header_byte(struct dkim_header *h, unsigned char c)
{
	if (h->canon == DKIM_SIMPLE) {
		put_byte(h->sink, c);
	} else if (h->value) {
		relax_value(h, c);
	} else {
		relax_name(h, c);
	}
}

static void header_line_end(struct dkim_header *h)
{
	h->line_start = true;
	/* Relaxed: lines are unfolded. */
	if (h->canon == DKIM_SIMPLE) {
		put(h->sink, "\r\n", 2);
	}
}

void dkim_header_add(struct dkim_header *h, const void *data, size_t len)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = bytes[i];
		bool stuffed = h->line_start && c == '.';
		bool after_cr = h->cr;

		h->line_start = false;
		h->cr = c == '\r';
		if (after_cr && c == '\n') {
			header_line_end(h);
			continue;
		}
		if (after_cr) {
			header_byte(h, '\r');
		}
		if (!stuffed && c != '\r') {
			header_byte(h, c);
		}
	}
}

void dkim_header_end_bare(struct dkim_header *h)
{
	if (h->cr) {
		header_byte(h, '\r');
	}
}

void dkim_header_end(struct dkim_header *h)
{
	dkim_header_end_bare(h);
	if (h->canon == DKIM_RELAXED) {
		put(h->sink, "\r\n", 2);
	}
}
