#include "listeners/control/select.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "config/word.h"
#include "core/mail/header.h"
#include "core/runtime/clock.h"

/* A value of a header field is looked at so far. */
#define VALUE_MAX 1000

/* ---- patterns ---- */

static bool same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* A star takes as little as it can, and more when the rest does not fit: only the last one has to
 * be tried again. */
bool select_matches(const char *pattern, const char *text)
{
	const char *star = NULL;
	const char *from = NULL;

	while (*text != '\0') {
		if (*pattern == '*') {
			star = pattern++;
			from = text;
		} else if (same_letter(*pattern, *text)) {
			pattern++;
			text++;
		} else if (star != NULL) {
			pattern = star + 1;
			text = ++from;
		} else {
			return false;
		}
	}
	while (*pattern == '*') {
		pattern++;
	}
	return *pattern == '\0';
}

bool select_matches_address(const char *pattern, const char *address)
{
	const char *at = pattern[0] == '@' ? strrchr(address, '@') : address;

	return at != NULL && select_matches(pattern, at);
}

/* ---- words ---- */

static const char *take_domain(struct selectors *s, char *value)
{
	size_t len = strlen(value);

	if (len > 1 && value[len - 1] == '.') {
		value[--len] = '\0';
	}
	s->domain = value;
	if (strchr(value, '*') == NULL && idna_needed(value, len)) {
		if (idna_to_ascii(value, len, s->ascii_domain) == 0) {
			return "is not a domain name";
		}
		s->domain = s->ascii_domain;
	}
	return len == 0 || len > 255 || strpbrk(value, "@ \t") != NULL ? "is not a domain name"
								       : NULL;
}

static const char *take_id(struct selectors *s, char *value)
{
	s->has_id = true;
	return message_id_parse(value, &s->id) != 0
		       ? "is not a message id, as in the second field of mainlog"
		       : NULL;
}

static const char *take_time(const char *value, uint64_t *ms)
{
	uint64_t ns;
	const char *wrong = word_time(value, &ns);

	*ms = wrong == NULL ? ns / NS_PER_MS : 0;
	return wrong != NULL ? wrong : *ms == 0 ? "is no time" : NULL;
}

static const char *take_older(struct selectors *s, char *value)
{
	return take_time(value, &s->older_ms);
}

static const char *take_newer(struct selectors *s, char *value)
{
	return take_time(value, &s->newer_ms);
}

static const char *take_larger(struct selectors *s, char *value)
{
	const char *wrong = word_size(value, &s->larger_bytes);

	return wrong != NULL ? wrong : s->larger_bytes == 0 ? "is no size" : NULL;
}

static const char *take_attempts(struct selectors *s, char *value)
{
	uint64_t number;
	const char *wrong = word_number(value, &number);

	if (wrong == NULL && (number < 1 || number > UINT16_MAX)) {
		wrong = "is no number of attempts, 1 to 65535";
	}
	s->attempts = wrong == NULL ? (uint32_t)number : 0;
	return wrong;
}

static const char *take_state(struct selectors *s, char *value)
{
	static const char *const names[] = {"active", "delayed", "held"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcasecmp(value, names[i]) == 0) {
			s->states = 1U << i;
			return NULL;
		}
	}
	return "is no state: active, delayed or held";
}

static const char *take_text(const char **to, char *value)
{
	*to = value;
	return value[0] == '\0' ? "says nothing" : NULL;
}

static const char *take_binding(struct selectors *s, char *value)
{
	return take_text(&s->binding, value);
}

static const char *take_sender(struct selectors *s, char *value)
{
	/* The null sender is written "<>", as in logs. */
	s->sender = strcmp(value, "<>") == 0 ? "" : value;
	return value[0] == '\0' ? "says nothing; the null sender is \"<>\"" : NULL;
}

static const char *take_recipient(struct selectors *s, char *value)
{
	return take_text(&s->recipient, value);
}

static const char *take_header(struct selectors *s, char *value)
{
	s->header = value;
	return word_field(value);
}

static const char *take_error(struct selectors *s, char *value)
{
	return take_text(&s->text, value);
}

READONLY
struct selector {
	const char *key;
	const char *(*take)(struct selectors *s, char *value);
};

static const struct selector table[] = {
	{"id", take_id},
	{"domain", take_domain},
	{"binding", take_binding},
	{"sender", take_sender},
	{"recipient", take_recipient},
	{"header", take_header},
	{"older", take_older},
	{"newer", take_newer},
	{"larger", take_larger},
	{"attempts", take_attempts},
	{"state", take_state},
	{"text", take_error},
};
#define KEYS (sizeof(table) / sizeof(table[0]))

/* The selector that a word begins, or NULL. */
static const struct selector *find(const char *word)
{
	size_t len = strcspn(word, "=");

	for (unsigned i = 0; i < KEYS; i++) {
		if (strlen(table[i].key) == len && strncasecmp(table[i].key, word, len) == 0) {
			return &table[i];
		}
	}
	return NULL;
}

bool select_begins(const char *word)
{
	return find(word) != NULL || strcasecmp(word, "dry_run") == 0;
}

/* Cuts a word at its "=": what follows that, or NULL. */
static char *cut_value(char *word)
{
	char *at = strchr(word, '=');

	if (at != NULL) {
		*at++ = '\0';
	}
	return at;
}

/* One selector, `words[0]` being its key. Returns how many words it takes, or -EINVAL. */
static int take_one(struct selectors *s, const struct selector *what, char **words, unsigned count,
		    char why[SELECT_WHY])
{
	char *value = cut_value(words[0]);
	unsigned taken = 1;
	const char *wrong;

	if (value == NULL && count > taken) {
		value = words[taken++];
	}
	if (value == NULL) {
		snprintf(why, SELECT_WHY, "\"%s\" needs a value", what->key);
		return -EINVAL;
	}
	wrong = what->take(s, value);
	if (wrong != NULL) {
		snprintf(why, SELECT_WHY, "%s: \"%.64s\" %s", what->key, value, wrong);
		return -EINVAL;
	}
	if (what->take == take_header) {
		if (count == taken) {
			snprintf(why, SELECT_WHY, "header %.64s: which value? \"*\" is any", value);
			return -EINVAL;
		}
		s->header_pattern = words[taken++];
	}
	return (int)taken;
}

int select_parse(struct selectors *s, char **words, unsigned count, char why[SELECT_WHY])
{
	uint32_t seen = 0;
	unsigned taken = 0;

	*s = (struct selectors){.count = 0};
	while (taken < count) {
		const struct selector *what = find(words[taken]);
		int rc;

		if (what == NULL && strcasecmp(words[taken], "all") == 0) {
			s->all = true;
			s->count++;
			taken++;
			continue;
		}
		if (what == NULL) {
			break;
		}
		if ((seen >> (what - table) & 1) != 0) {
			snprintf(why, SELECT_WHY, "\"%s\" is said twice", what->key);
			return -EINVAL;
		}
		seen |= 1U << (what - table);
		rc = take_one(s, what, words + taken, count - taken, why);
		if (rc < 0) {
			return rc;
		}
		taken += (unsigned)rc;
		s->count++;
	}
	if (s->all && s->count > 1) {
		snprintf(why, SELECT_WHY, "\"all\" and other selectors: which of them?");
		return -EINVAL;
	}
	return (int)taken;
}

/* ---- what is in memory ---- */

bool select_record(const struct selectors *s, const struct domain *d)
{
	return (s->domain == NULL || select_matches(s->domain, d->name)) &&
	       (s->binding == NULL || strcmp(s->binding, d->binding) == 0);
}

static unsigned state_of(const struct delivery *d)
{
	switch ((enum delivery_place)d->place) {
	case DELIVERY_DELAYED:
		return SELECT_DELAYED;
	case DELIVERY_HELD:
		return SELECT_HELD;
	case DELIVERY_ACTIVE:
	case DELIVERY_ATTEMPT:
	case DELIVERY_TRANSIT:
		break;
	}
	return SELECT_ACTIVE;
}

static bool age_is(const struct selectors *s, uint64_t received_ms, uint64_t wall_ms)
{
	uint64_t age_ms = wall_ms > received_ms ? wall_ms - received_ms : 0;

	return (s->older_ms == 0 || age_ms > s->older_ms) &&
	       (s->newer_ms == 0 || age_ms < s->newer_ms);
}

static bool id_is(const struct selectors *s, const struct message_id *id)
{
	return !s->has_id || (s->id.high == id->high && s->id.low == id->low);
}

bool select_delivery(const struct selectors *s, const struct delivery *d, uint64_t wall_ms)
{
	const struct message *m = d->message;

	/* What takes a look at the message comes last: that is another cache line. */
	return (s->states == 0 || (s->states & state_of(d)) != 0) && d->attempts >= s->attempts &&
	       (s->text == NULL ||
		(d->last_text != NULL && select_matches(s->text, d->last_text))) &&
	       ((s->older_ms | s->newer_ms) == 0 || age_is(s, m->received_ms, wall_ms)) &&
	       (s->larger_bytes == 0 || m->body_bytes > s->larger_bytes) && id_is(s, &m->id);
}

/* ---- what envelopes and headers say ---- */

static bool header_is(const struct selectors *s, const char *header, size_t len)
{
	char value[VALUE_MAX];

	return header_find_in(header, len, s->header, value, sizeof(value)) >= 0 &&
	       select_matches(s->header_pattern, value);
}

bool select_message(const struct selectors *s, const struct envelope *e, const char *header,
		    size_t len, uint64_t wall_ms)
{
	const char *sender = e->sender_offset != 0 ? envelope_sender(e) : "";

	return id_is(s, &e->id) && age_is(s, e->received_ms, wall_ms) &&
	       (s->larger_bytes == 0 || e->body_bytes > s->larger_bytes) &&
	       (s->sender == NULL || select_matches_address(s->sender, sender)) &&
	       (s->header == NULL || header_is(s, header, len));
}

struct recipient_set select_recipients(const struct selectors *s, const struct envelope *e,
				       uint32_t index)
{
	const struct envelope_delivery *d = envelope_delivery(e, index);
	struct recipient_set set = {{0, 0}};

	if (s->recipient == NULL) {
		return recipient_set_first(d->count);
	}
	for (unsigned i = 0; i < d->count; i++) {
		if (select_matches_address(s->recipient, envelope_address(e, d->first + i))) {
			recipient_set_add(&set, i);
		}
	}
	return set;
}
