#include "core/outbound/reply_top.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "core/runtime/fnv.h"

#define HALVE_MS (10 * 60 * 1000)
/* Words with a digit that are as long as this are taken for ids. */
#define ID_LEN 5

/* ---- texts ---- */

/* A reply code, or an enhanced one (RFC 3463): digits and dots. */
static bool is_code(const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)word[i]) && word[i] != '.') {
			return false;
		}
	}
	return len >= 3 && len <= 9;
}

static bool has_digit(const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (isdigit((unsigned char)word[i])) {
			return true;
		}
	}
	return false;
}

/* What stands for the word; `len` is its own when it stands for itself. */
static const char *stand_in(const char *word, size_t len)
{
	if (memchr(word, '@', len) != NULL) {
		return "<address>";
	}
	return len >= ID_LEN && has_digit(word, len) ? "#" : NULL;
}

static size_t append(char *to, size_t at, const char *from, size_t len)
{
	for (size_t i = 0; i < len && at < REPLY_TOP_TEXT - 1; i++) {
		to[at++] = isprint((unsigned char)from[i]) ? from[i] : '?';
	}
	return at;
}

void reply_top_normalise(char to[REPLY_TOP_TEXT], const char *text)
{
	static const char blanks[] = " \t\r\n";
	bool codes = true;
	size_t at = 0;

	for (text += strspn(text, blanks); *text != '\0'; text += strspn(text, blanks)) {
		size_t len = strcspn(text, blanks);
		const char *other;

		codes = codes && is_code(text, len);
		other = codes ? NULL : stand_in(text, len);
		if (at != 0) {
			at = append(to, at, " ", 1);
		}
		at = other != NULL ? append(to, at, other, strlen(other))
				   : append(to, at, text, len);
		text += len;
	}
	to[at] = '\0';
}

/* ---- counts ---- */

void reply_top_age(struct reply_top *t, uint64_t now_ms)
{
	uint32_t kept = 0;

	if (t->halved_ms == 0) {
		t->halved_ms = now_ms;
	}
	for (unsigned i = 0; i < 64 && now_ms - t->halved_ms >= HALVE_MS; i++) {
		t->halved_ms += HALVE_MS;
		kept = 0;
		for (uint32_t n = 0; n < t->used; n++) {
			t->entries[n].count /= 2;
			t->entries[n].error /= 2;
			if (t->entries[n].count != 0) {
				t->entries[kept++] = t->entries[n];
			}
		}
		t->used = kept;
	}
	if (now_ms - t->halved_ms >= HALVE_MS) {
		/* All are gone by now. */
		t->halved_ms = now_ms;
	}
}

static struct reply_top_entry *rarest(struct reply_top *t)
{
	struct reply_top_entry *least = &t->entries[0];

	for (uint32_t i = 1; i < t->used; i++) {
		if (t->entries[i].count < least->count) {
			least = &t->entries[i];
		}
	}
	return least;
}

void reply_top_count(struct reply_top *t, const char *text, uint64_t recipients, uint64_t now_ms)
{
	char plain[REPLY_TOP_TEXT];
	struct reply_top_entry *e;
	uint64_t hash;

	reply_top_age(t, now_ms);
	reply_top_normalise(plain, text);
	hash = fnv_text(FNV_START, plain);
	for (uint32_t i = 0; i < t->used; i++) {
		e = &t->entries[i];
		if (e->hash == hash && strcmp(e->text, plain) == 0) {
			e->count += recipients;
			return;
		}
	}
	if (t->used < REPLY_TOP_ENTRIES) {
		e = &t->entries[t->used++];
		e->error = 0;
	} else {
		e = rarest(t);
		e->error = e->count;
	}
	e->hash = hash;
	e->count = e->error + recipients;
	memcpy(e->text, plain, sizeof(plain));
}
