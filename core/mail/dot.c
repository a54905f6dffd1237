#include "core/mail/dot.h"

#include <string.h>

/* Tests build without it, to have the twin tested too. */
#if defined(__x86_64__) && !defined(FLYWHEEL_PORTABLE)
#define HAVE_AVX2
#include <immintrin.h>
#endif

/* Bytes looked at together: one bit each in a word. */
#define BLOCK 64

#define RECEIVED "received:"
#define RECEIVED_LEN 9
/* The line is known to begin with something else, or was counted. */
#define RECEIVED_DONE 255

/* Which bytes of a block are what, lowest bit first. */
struct block_masks {
	uint64_t lf;
	uint64_t cr;
	uint64_t nul;
	uint64_t high;
	uint64_t dot;
};

typedef struct block_masks (*look_fn)(const unsigned char *data);

#ifdef HAVE_AVX2
__attribute__((target("avx2"))) static inline uint64_t avx2_equal(__m256i a, __m256i b, char c)
{
	__m256i wanted = _mm256_set1_epi8(c);
	uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, wanted));
	uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, wanted));

	return (uint64_t)high << 32 | low;
}

__attribute__((target("avx2"))) static inline struct block_masks
block_look_avx2(const unsigned char *data)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)(const void *)data);
	__m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(data + 32));
	uint64_t high = (uint32_t)_mm256_movemask_epi8(b);

	return (struct block_masks){
		.lf = avx2_equal(a, b, '\n'),
		.cr = avx2_equal(a, b, '\r'),
		.nul = avx2_equal(a, b, '\0'),
		.high = high << 32 | (uint32_t)_mm256_movemask_epi8(a),
		.dot = avx2_equal(a, b, '.'),
	};
}
#endif

static inline struct block_masks block_look(const unsigned char *data)
{
	struct block_masks m = {.high = 0};

	for (unsigned i = 0; i < BLOCK; i++) {
		m.lf |= (uint64_t)(data[i] == '\n') << i;
		m.cr |= (uint64_t)(data[i] == '\r') << i;
		m.nul |= (uint64_t)(data[i] == '\0') << i;
		m.high |= (uint64_t)(data[i] >> 7) << i;
		m.dot |= (uint64_t)(data[i] == '.') << i;
	}
	return m;
}

/* One call of dot_scan(). */
struct scan {
	struct dot_scanner *scanner;
	const unsigned char *data;
	size_t len;
	/* First byte of the current line that is in `data`. */
	size_t line_start;
	/* The message's bytes end here, for now or for good; `len` while nothing stopped it. */
	size_t stop;
	bool end;
};

static void line_begin(struct dot_scanner *s, bool after_crlf)
{
	s->line_len = 0;
	s->line_dotted = false;
	s->matched = 0;
	s->after_crlf = after_crlf;
}

void dot_scanner_init(struct dot_scanner *s, uint32_t line_max, bool bare_ends_line)
{
	*s = (struct dot_scanner){.line_max = line_max, .bare_ends_line = bare_ends_line};
	line_begin(s, true);
}

/* Goes on comparing the line with "received:", up to byte `to`. */
static void header_match(const struct scan *scan, size_t to)
{
	struct dot_scanner *s = scan->scanner;

	for (size_t i = scan->line_start; i < to && s->matched < RECEIVED_LEN; i++) {
		unsigned char c = scan->data[i];

		c = c >= 'A' && c <= 'Z' ? (unsigned char)(c | 32) : c;
		s->matched = c == RECEIVED[s->matched] ? (uint8_t)(s->matched + 1) : RECEIVED_DONE;
	}
	if (s->matched == RECEIVED_LEN) {
		s->received++;
		s->matched = RECEIVED_DONE;
	}
}

/* Adds the bytes up to `to` to the current line. */
static void line_extend(struct scan *scan, size_t to)
{
	struct dot_scanner *s = scan->scanner;

	if (to == scan->line_start) {
		return;
	}
	if (s->line_len == 0) {
		s->line_dotted = s->after_crlf && scan->data[scan->line_start] == '.';
	}
	if (!s->header_ended) {
		header_match(scan, to);
	}
	s->line_len += to - scan->line_start;
	scan->line_start = to;
}

/* The current line, extended to its end, has `terminator` bytes of line end. */
static void line_finish(struct dot_scanner *s, unsigned terminator, bool crlf)
{
	uint64_t length = s->line_len - terminator - s->line_dotted;

	if (length > s->line_max) {
		s->flags |= DOT_LONG_LINE;
	}
	if (length == 0) {
		s->header_ended = true;
	}
	line_begin(s, crlf);
}

/* Looks for the end of the data at the start of a line; stops the scan there when it is the end or
 * could become it. */
static bool end_check(struct scan *scan, size_t at)
{
	static const unsigned char end[DOT_END_BYTES] = {'.', '\r', '\n'};
	size_t n = scan->len - at;

	/* Few lines begin with a dot. */
	if (n == 0 || scan->data[at] != end[0]) {
		return false;
	}
	n = n < DOT_END_BYTES ? n : DOT_END_BYTES;
	if (memcmp(scan->data + at, end, n) != 0) {
		return false;
	}
	scan->stop = at;
	scan->end = n == DOT_END_BYTES;
	return true;
}

/* A line ends at byte `at`: with it if that is a LF, else before it, with a bare CR. Returns
 * whether the scan stops. */
static bool on_line_end(struct scan *scan, size_t at, bool crlf)
{
	bool lf = scan->data[at] == '\n';
	size_t next = lf ? at + 1 : at;

	line_extend(scan, next);
	line_finish(scan->scanner, crlf ? 2 : 1, crlf);
	return crlf && end_check(scan, next);
}

/* Line ends among the `n` bytes from `at`, in order; returns whether the scan stops. */
static bool block_lines(struct scan *scan, size_t at, uint64_t line_ends, uint64_t crlf)
{
	while (line_ends != 0) {
		unsigned i = (unsigned)__builtin_ctzll(line_ends);

		line_ends &= line_ends - 1;
		if (on_line_end(scan, at + i, (crlf >> i & 1) != 0)) {
			return true;
		}
	}
	return false;
}

static uint64_t first_bits(size_t n)
{
	return n < BLOCK ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
}

/* Whether byte `at` is the dot that a line begins with. */
static bool begins_with_dot(const struct scan *scan, size_t at)
{
	const struct dot_scanner *s = scan->scanner;

	return s->line_len == 0 && s->after_crlf && scan->line_start == at && at < scan->len &&
	       scan->data[at] == '.';
}

/* Judges the `n` bytes (up to 64) from `at`, whose masks are given; returns whether the scan stops.
 */
static inline bool block_scan(struct scan *scan, size_t at, size_t n, const struct block_masks *m)
{
	struct dot_scanner *s = scan->scanner;
	uint64_t valid = first_bits(n);
	uint64_t after_cr = m->cr << 1 | (s->after_cr ? 1 : 0);
	uint64_t crlf = m->lf & after_cr & valid;
	uint64_t bare_lf = m->lf & ~after_cr & valid;
	uint64_t after_bare_cr = after_cr & ~m->lf & valid;
	uint64_t bare = s->bare_ends_line ? bare_lf | after_bare_cr : 0;
	uint64_t dotted = m->dot & (crlf << 1 | (begins_with_dot(scan, at) ? 1 : 0));
	bool stopped = block_lines(scan, at, crlf | bare, crlf);

	if (stopped) {
		/* The line end may be this block's last byte, and the stop the next one's first. */
		n = scan->stop - at;
		valid = first_bits(n);
	}
	s->flags |= (bare_lf & valid) != 0 ? DOT_BARE_LF : 0;
	s->flags |= (after_bare_cr & valid) != 0 ? DOT_BARE_CR : 0;
	s->flags |= (m->nul & valid) != 0 ? DOT_NUL : 0;
	s->flags |= (m->high & valid) != 0 ? DOT_8BIT : 0;
	s->flags |= (dotted & valid) != 0 ? DOT_STUFFED : 0;
	if (n > 0) {
		s->after_cr = (m->cr >> (n - 1) & 1) != 0;
	}
	return stopped;
}

/* What is left of a line end at the end of a block, and what was seen, while blocks are skipped. */
struct skip {
	uint64_t after_cr;
	uint64_t nul;
	uint64_t high;
	/* Bytes of the current line, and whether it began in a skipped block. */
	uint64_t line_len;
	bool line_began;
};

/* Whether nothing in a body's block needs a closer look: each CR and LF is of a line end, no line
 * begins with a dot, and the first that ends is not too long; those that also begin here are
 * shorter than a block. Behind a line end at the block's end the end of the data may follow. */
static inline __attribute__((always_inline)) bool
block_skips(struct skip *k, const struct block_masks *m, uint32_t line_max)
{
	uint64_t lf = m->lf;

	if (lf != (m->cr << 1 | k->after_cr) || (m->dot & lf << 1) != 0 || lf >> (BLOCK - 1) != 0) {
		return false;
	}
	if (lf == 0) {
		k->line_len += BLOCK;
	} else if (k->line_len + (unsigned)__builtin_ctzll(lf) > line_max) {
		return false;
	} else {
		k->line_len = (unsigned)__builtin_clzll(lf);
		k->line_began = true;
	}
	k->after_cr = m->cr >> (BLOCK - 1);
	k->nul |= m->nul;
	k->high |= m->high;
	return true;
}

/* Goes over the blocks from `at` that are like most of a body; returns where another one begins. */
static inline __attribute__((always_inline)) size_t blocks_skip(struct scan *scan, size_t at,
								look_fn look)
{
	struct dot_scanner *s = scan->scanner;
	uint32_t line_max = s->line_max;
	struct skip k = {
		.after_cr = s->after_cr ? 1 : 0,
		.line_len = s->line_len + (at - scan->line_start),
	};

	if (!s->header_ended || line_max < BLOCK || begins_with_dot(scan, at)) {
		return at;
	}
	for (; scan->len - at >= BLOCK; at += BLOCK) {
		struct block_masks m = look(scan->data + at);

		if (!block_skips(&k, &m, line_max)) {
			break;
		}
	}
	s->after_cr = k.after_cr != 0;
	s->flags |= (k.nul != 0 ? DOT_NUL : 0) | (k.high != 0 ? DOT_8BIT : 0);
	if (k.line_began) {
		line_begin(s, true);
		scan->line_start = at - k.line_len;
	}
	return at;
}

static inline __attribute__((always_inline)) void scan_with(struct scan *scan, look_fn look)
{
	unsigned char block[BLOCK];
	struct block_masks m;
	size_t at = blocks_skip(scan, 0, look);

	for (; scan->len - at >= BLOCK; at = blocks_skip(scan, at + BLOCK, look)) {
		m = look(scan->data + at);
		if (block_scan(scan, at, BLOCK, &m)) {
			return;
		}
	}
	if (at < scan->len) {
		memset(block, ' ', sizeof(block));
		memcpy(block, scan->data + at, scan->len - at);
		m = look(block);
		block_scan(scan, at, scan->len - at, &m);
	}
}

#ifdef HAVE_AVX2
__attribute__((target("avx2"))) static void scan_avx2(struct scan *scan)
{
	scan_with(scan, block_look_avx2);
}
#endif

static void scan_blocks(struct scan *scan)
{
#ifdef HAVE_AVX2
	if (__builtin_cpu_supports("avx2")) {
		scan_avx2(scan);
		return;
	}
#endif
	scan_with(scan, block_look);
}

size_t dot_scan(struct dot_scanner *s, const unsigned char *data, size_t len, bool *end)
{
	struct scan scan = {.scanner = s, .data = data, .len = len, .stop = len};

	*end = false;
	/* At the very start of a line the end may follow, held back by the call before. */
	if (s->line_len == 0 && s->after_crlf && end_check(&scan, 0)) {
		*end = scan.end;
		return 0;
	}
	scan_blocks(&scan);
	line_extend(&scan, scan.stop);
	*end = scan.end;
	return scan.stop;
}

/* What the converter's input is in the middle of. */
enum convert_state {
	/* At the start of a line, after CR LF in the input. */
	CONVERT_START,
	/* There, and a dot is held back. */
	CONVERT_DOT,
	/* At the start of a line that a bare CR or LF began. */
	CONVERT_BARE_START,
	/* Within a line. */
	CONVERT_LINE,
	/* A CR is held back; its line is done but for the line end. */
	CONVERT_CR,
};

void dot_converter_init(struct dot_converter *c)
{
	c->state = CONVERT_START;
}

static const unsigned char *find_cr_or_lf(const unsigned char *data, const unsigned char *end)
{
	const unsigned char *lf = memchr(data, '\n', (size_t)(end - data));
	const unsigned char *cr = memchr(data, '\r', (size_t)((lf != NULL ? lf : end) - data));

	return cr != NULL ? cr : lf != NULL ? lf : end;
}

/* Copies what is no CR or LF; returns where it stopped. */
static const unsigned char *convert_run(struct dot_converter *c, const unsigned char *data,
					const unsigned char *end, struct chain *to,
					struct pool *buffers)
{
	const unsigned char *stop = find_cr_or_lf(data, end);

	if (stop > data) {
		chain_append(to, buffers, data, (size_t)(stop - data));
		c->state = CONVERT_LINE;
	}
	return stop;
}

/* One CR or LF of the input. */
static void convert_line_end(struct dot_converter *c, unsigned char byte, struct chain *to,
			     struct pool *buffers)
{
	/* A dot held back is dropped: it was stuffed, and what it was stuffed before is the bare
	 * line end. With one that is none, the dot would be the end of the data. */
	if (byte == '\r') {
		c->state = CONVERT_CR;
		return;
	}
	chain_append(to, buffers, "\r\n", 2);
	c->state = CONVERT_BARE_START;
}

/* The byte after a CR: with LF a line end, else the CR was a bare one. Returns how many bytes were
 * used. */
static size_t convert_after_cr(struct dot_converter *c, unsigned char byte, struct chain *to,
			       struct pool *buffers)
{
	chain_append(to, buffers, "\r\n", 2);
	c->state = byte == '\n' ? CONVERT_START : CONVERT_BARE_START;
	return byte == '\n' ? 1 : 0;
}

/* A dot at the start of a line: held back when the input may have stuffed it, else stuffed here. */
static void convert_first_dot(struct dot_converter *c, struct chain *to, struct pool *buffers)
{
	if (c->state == CONVERT_START) {
		c->state = CONVERT_DOT;
		return;
	}
	chain_append(to, buffers, "..", 2);
	c->state = CONVERT_LINE;
}

static bool at_line_start(const struct dot_converter *c)
{
	return c->state == CONVERT_START || c->state == CONVERT_BARE_START;
}

void dot_convert(struct dot_converter *c, const unsigned char *data, size_t len, struct chain *to,
		 struct pool *buffers)
{
	const unsigned char *end = data + len;

	while (data < end) {
		if (c->state == CONVERT_CR) {
			data += convert_after_cr(c, *data, to, buffers);
		} else if (*data == '\r' || *data == '\n') {
			convert_line_end(c, *data++, to, buffers);
		} else if (at_line_start(c) && *data == '.') {
			convert_first_dot(c, to, buffers);
			data++;
		} else {
			if (c->state == CONVERT_DOT) {
				chain_append(to, buffers, ".", 1);
			}
			data = convert_run(c, data, end, to, buffers);
		}
	}
}
