/*
 * What a regex cannot do without: runs of plain characters that are outside of groups and not
 * optional, and of groups that are not, one of the words that their alternatives cannot do without.
 * Each of these needs is a bit of the regex; it may match when the text has seen them all. Whatever
 * is not plainly understood makes the regex one that is always tried.
 */
#include "core/mail/bounce_filter.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

/* A word is found by its last bytes, then compared. */
#define GRAM 3
#define BUCKETS 4096
#define WORDS_MAX 64
#define WORD_LEN_MAX 31
#define DEPTH_MAX 16

struct word {
	/* In lower case. */
	char text[WORD_LEN_MAX];
	uint8_t len;
};

/* A word of the filter. */
struct entry {
	struct word word;
	uint32_t index;
	/* The bit of its need. */
	uint8_t need;
	/* Next one of the bucket, from 1; 0: none. */
	uint32_t next;
};

struct bounce_filter {
	uint32_t count;
	uint32_t always_count;
	/* Of each regex: bits of what it needs; 0: nothing. */
	uint8_t *needs;
	struct entry *entries;
	uint32_t entry_count;
	uint32_t entry_size;
	uint32_t buckets[BUCKETS];
};

/* One of these is in every text that matches. */
struct words {
	struct word list[WORDS_MAX];
	unsigned count;
	/* Of the shortest; 0: there are none to rely on. */
	size_t len;
};

struct parser {
	const char *at;
	unsigned depth;
	/* Something that is not understood. */
	bool lost;
	/* There are several of the whole regex. */
	bool alternatives;
	/* What the only alternative needs, all of it; in no particular order. */
	struct words needs[BOUNCE_FILTER_NEEDS];
	unsigned need_count;
};

static uint32_t bucket_of(uint32_t gram)
{
	return gram * UINT32_C(2654435761) >> 20;
}

static char lower(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

static uint32_t gram_add(uint32_t gram, char c)
{
	return (gram << 8 | (unsigned char)lower(c)) & 0xffffff;
}

/* ---- what a regex needs ---- */

static bool parse_alternatives(struct parser *p, struct words *found);

/* These are needed beside what was found before; the set that says more stands for both. */
static void need(struct parser *p, struct words *best, const struct words *other)
{
	if (other->len == 0) {
		return;
	}
	if (p->depth == 0 && p->need_count < BOUNCE_FILTER_NEEDS) {
		p->needs[p->need_count++] = *other;
	}
	if (other->len > best->len) {
		*best = *other;
	}
}

/* A run of plain characters has ended. */
static void take_run(struct parser *p, struct words *best, struct word *run)
{
	struct words one = {.list[0] = *run, .count = 1, .len = run->len};

	if (run->len >= GRAM) {
		need(p, best, &one);
	}
	run->len = 0;
}

static void run_add(struct word *run, char c)
{
	if (run->len < WORD_LEN_MAX) {
		run->text[run->len++] = lower(c);
	}
}

/* Behind a class of characters; `at` is behind its bracket. */
static void skip_class(struct parser *p)
{
	p->at += *p->at == '^';
	p->at += *p->at == ']';
	while (*p->at != '\0' && *p->at != ']') {
		if (p->at[0] == '[' && p->at[1] == ':') {
			const char *end = strstr(p->at + 2, ":]");

			p->at = end != NULL ? end + 2 : p->at + 1;
		} else {
			p->at += p->at[0] == '\\' && p->at[1] != '\0' ? 2 : 1;
		}
	}
	p->lost = p->lost || *p->at == '\0';
	p->at += *p->at != '\0';
}

/* Skips a quantifier; what it stands behind may be missing: true. */
static bool skip_quantifier(struct parser *p)
{
	bool optional = *p->at == '?' || *p->at == '*' || *p->at == '{';
	size_t len = 1;

	if (*p->at == '{') {
		len = 1 + strspn(p->at + 1, "0123456789,");
		p->lost = p->lost || len == 1 || p->at[len] != '}';
		len++;
	} else if (!optional && *p->at != '+') {
		return false;
	}
	if (p->lost) {
		return true;
	}
	p->at += len;
	/* Lazy or possessive. */
	p->at += *p->at == '?' || *p->at == '+';
	return optional;
}

/* What stands in brackets, `at` being behind the first; its words if they are needed. */
static void parse_group(struct parser *p, struct words *best)
{
	static const char *const plain[] = {"?:", "?>"};
	static const char *const looking[] = {"?=", "?!", "?<=", "?<!"};
	struct words inner;
	bool needed = *p->at != '?' && *p->at != '*';
	bool known = needed;
	size_t head = 0;

	for (unsigned i = 0; !known && i < 2; i++) {
		head = strlen(plain[i]);
		known = strncmp(p->at, plain[i], head) == 0;
		needed = known;
	}
	for (unsigned i = 0; !known && i < 4; i++) {
		head = strlen(looking[i]);
		known = strncmp(p->at, looking[i], head) == 0;
	}
	if (!known || ++p->depth > DEPTH_MAX) {
		p->lost = true;
		return;
	}
	p->at += head;
	if (!parse_alternatives(p, &inner) || *p->at != ')') {
		p->lost = true;
		return;
	}
	p->depth--;
	p->at++;
	if (!skip_quantifier(p) && needed) {
		need(p, best, &inner);
	}
}

/* An escaped character into `*c`; false when it stands for something else than itself. */
static bool parse_escape(struct parser *p, char *c)
{
	*c = *p->at;
	if (*c == '\0') {
		p->lost = true;
		return false;
	}
	p->at++;
	if ((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z')) {
		p->lost = p->lost || strchr("dDsSwWbBhHvVRAzZ", *c) == NULL;
		return false;
	}
	return true;
}

/* One character, class or group that is no plain character. */
static void parse_other(struct parser *p, struct words *best)
{
	char c = *p->at++;

	if (c == '(') {
		parse_group(p, best);
		return;
	}
	if (c == '[') {
		skip_class(p);
	}
	p->lost = p->lost || strchr("?*+{", c) != NULL;
	if (!p->lost) {
		skip_quantifier(p);
	}
}

/* A plain character, which `c` is, and what follows it. */
static void parse_plain(struct parser *p, struct words *best, struct word *run, char c)
{
	bool again = *p->at == '+';

	if (*p->at == '\0' || strchr("?*+{", *p->at) == NULL) {
		run_add(run, c);
		return;
	}
	if (again) {
		run_add(run, c);
	}
	take_run(p, best, run);
	skip_quantifier(p);
}

/* One alternative, up to | or ) or the end. */
static void parse_sequence(struct parser *p, struct words *best)
{
	struct word run = {.len = 0};

	best->count = 0;
	best->len = 0;
	while (!p->lost && *p->at != '\0' && *p->at != '|' && *p->at != ')') {
		char c = *p->at;

		if (strchr("([.^$?*+{", c) != NULL) {
			take_run(p, best, &run);
			parse_other(p, best);
			continue;
		}
		p->at++;
		if (c != '\\' || parse_escape(p, &c)) {
			parse_plain(p, best, &run, c);
		} else {
			take_run(p, best, &run);
			skip_quantifier(p);
		}
	}
	take_run(p, best, &run);
}

/* All of them: each needs words, or none are to be relied on. False when it is not understood. */
static bool parse_alternatives(struct parser *p, struct words *found)
{
	struct words next;

	parse_sequence(p, found);
	while (!p->lost && *p->at == '|') {
		p->alternatives = p->alternatives || p->depth == 0;
		p->at++;
		parse_sequence(p, &next);
		if (found->len == 0 || next.len == 0 || found->count + next.count > WORDS_MAX) {
			found->count = 0;
			found->len = 0;
			continue;
		}
		memcpy(found->list + found->count, next.list, next.count * sizeof(next.list[0]));
		found->count += next.count;
		found->len = next.len < found->len ? next.len : found->len;
	}
	return !p->lost;
}

/* ---- the filter ---- */

static void *allocate(size_t count, size_t size)
{
	return check_memory(calloc(count != 0 ? count : 1, size), "bounce rules");
}

struct bounce_filter *bounce_filter_create(uint32_t count)
{
	struct bounce_filter *f = allocate(1, sizeof(*f));

	f->count = count;
	f->needs = allocate(count, sizeof(*f->needs));
	return f;
}

void bounce_filter_free(struct bounce_filter *f)
{
	if (f != NULL) {
		free(f->needs);
		free(f->entries);
		free(f);
	}
}

static void add_word(struct bounce_filter *f, const struct word *word, uint32_t index, uint8_t need)
{
	uint32_t *bucket;
	uint32_t gram = 0;

	for (unsigned i = word->len - GRAM; i < word->len; i++) {
		gram = gram_add(gram, word->text[i]);
	}
	bucket = &f->buckets[bucket_of(gram)];
	if (f->entry_count == f->entry_size) {
		f->entry_size = f->entry_size != 0 ? 2 * f->entry_size : 256;
		f->entries = check_memory(realloc(f->entries, f->entry_size * sizeof(*f->entries)),
					  "bounce rules");
	}
	f->entries[f->entry_count] = (struct entry){*word, index, need, *bucket};
	*bucket = ++f->entry_count;
}

static void add_need(struct bounce_filter *f, const struct words *words, uint32_t index)
{
	uint8_t need = (uint8_t)(f->needs[index] + 1U);

	f->needs[index] |= need;
	for (unsigned i = 0; i < words->count; i++) {
		add_word(f, &words->list[i], index, need);
	}
}

void bounce_filter_add(struct bounce_filter *f, uint32_t index, const char *pattern)
{
	struct parser *p = allocate(1, sizeof(*p));
	struct words *found = allocate(1, sizeof(*found));
	bool known;

	ASSERT(index < f->count && f->needs[index] == 0);
	p->at = pattern;
	known = parse_alternatives(p, found) && *p->at == '\0' && found->len != 0;
	if (!known) {
		f->always_count++;
	} else if (p->alternatives) {
		add_need(f, found, index);
	} else {
		for (unsigned i = 0; i < p->need_count; i++) {
			add_need(f, &p->needs[i], index);
		}
	}
	free(found);
	free(p);
}

uint32_t bounce_filter_always(const struct bounce_filter *f)
{
	return f->always_count;
}

static bool ends_in(const char *text, size_t len, const struct word *word)
{
	const char *from = text + len - word->len;

	if (len < word->len) {
		return false;
	}
	for (unsigned i = 0; i < word->len; i++) {
		if (lower(from[i]) != word->text[i]) {
			return false;
		}
	}
	return true;
}

void bounce_filter_mark(const struct bounce_filter *f, const char *text, size_t len, uint8_t *seen)
{
	uint32_t gram = 0;

	memset(seen, 0, f->count);
	/* The first ones hold NUL bytes, which no word has. */
	for (size_t i = 0; i < len; i++) {
		gram = gram_add(gram, text[i]);
		for (uint32_t n = f->buckets[bucket_of(gram)]; n != 0; n = f->entries[n - 1].next) {
			const struct entry *e = &f->entries[n - 1];

			if ((seen[e->index] & e->need) == 0 && ends_in(text, i + 1, &e->word)) {
				seen[e->index] |= e->need;
			}
		}
	}
	for (uint32_t i = 0; i < f->count; i++) {
		seen[i] = seen[i] == f->needs[i];
	}
}
