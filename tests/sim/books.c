#include "tests/sim/books.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/books_parts.h"
#include "tests/sim/world.h"

#define NULL_SENDERS 80

static uint64_t bit(uint32_t n)
{
	return UINT64_C(1) << n;
}

struct books *books_create(void)
{
	struct books *b = world_alloc(sizeof(*b));

	books_text_create(b);
	b->mainlog.path = "/sim/log/mainlog";
	b->rejectlog.path = "/sim/log/rejectlog";
	b->bouncelog.path = "/sim/log/bouncelog";
	return b;
}

/* ---- entries ---- */

const char *books_name(const struct book_entry *e)
{
	char *text = world_alloc(96);
	char id[MESSAGE_ID_TEXT] = "not known";

	if (e->known) {
		message_id_format(&e->id, id);
	}
	if (e->about != NULL) {
		snprintf(text, 96, "the notification %s about message %u", id, e->about->m.number);
	} else {
		snprintf(text, 96, "message %u (%s)", e->m.number, id);
	}
	return text;
}

struct book_entry *books_entry(const struct books *b, uint32_t number)
{
	return number >= 1 && number <= b->count ? b->entries[number - 1] : NULL;
}

static uint32_t id_bucket(const struct message_id *id)
{
	return (uint32_t)(books_hash(id, sizeof(*id), 0) % BOOKS_HASH);
}

struct book_entry *books_find(const struct books *b, const struct message_id *id)
{
	struct book_entry *e = b->by_id[id_bucket(id)];

	while (e != NULL && (e->id.high != id->high || e->id.low != id->low)) {
		e = e->hash_next;
	}
	return e;
}

void books_know(struct books *b, struct book_entry *e, const struct message_id *id)
{
	uint32_t bucket = id_bucket(id);
	const struct book_entry *other = books_find(b, id);

	if (other != NULL) {
		world_fail("%s and %s have the same id", books_name(other), books_name(e));
	}
	if (e->known) {
		world_fail("%s was received a second time, by one transaction", books_name(e));
	}
	e->known = true;
	e->known_ns = world->now_ns;
	e->life_made = world->life;
	e->id = *id;
	e->hash_next = b->by_id[bucket];
	b->by_id[bucket] = e;
}

static const char *domain_of(const char *address)
{
	const char *at = strrchr(address, '@');

	return at != NULL ? at + 1 : address;
}

struct book_group *books_group(struct book_entry *e, const char *domain)
{
	for (uint32_t i = 0; i < e->group_count; i++) {
		if (strcasecmp(e->groups[i].domain, domain) == 0) {
			return &e->groups[i];
		}
	}
	return NULL;
}

/* As the envelope will have them: one group for each domain. The program's own order of groups and
 * recipients is learnt when its envelope is seen. */
static void make_groups(struct book_entry *e)
{
	for (uint32_t i = 0; i < e->m.recipient_count; i++) {
		const char *domain = domain_of(e->m.recipients[i].address);
		struct book_group *g = books_group(e, domain);

		if (g == NULL) {
			g = &e->groups[e->group_count++];
			g->domain = domain;
		}
		g->recipients |= bit(i);
		g->count++;
		e->all |= bit(i);
	}
}

/* A quoted local part stays one. */
static void set_address(struct book_entry *e, uint32_t i, const char *address)
{
	struct book_recipient *r = &e->m.recipients[i];
	const char *quote = address[0] == '"' ? "\"" : "";
	int n = snprintf(r->address, sizeof(r->address), "%s%u.%u.%s", quote, e->m.number, i,
			 address + strlen(quote));

	if (n < 0 || (size_t)n >= sizeof(r->address)) {
		world_fail("the books have no room for the address %s", address);
	}
}

static void *grown(void *old, uint32_t count, uint32_t *room)
{
	uint32_t more = *room == 0 ? 256 : *room * 2;
	void **all;

	if (count < *room) {
		return old;
	}
	all = world_alloc(more * sizeof(*all));
	if (old != NULL) {
		memcpy(all, old, *room * sizeof(*all));
	}
	world_free(old, *room * sizeof(*all));
	*room = more;
	return all;
}

struct book_message *books_message(struct books *b, enum envelope_durability durability,
				   const char *const *recipients, uint32_t count, uint32_t len)
{
	struct book_entry *e = world_alloc(sizeof(*e));

	if (count == 0 || count > BOOKS_RECIPIENTS_MAX) {
		world_fail("the books take no message with %u recipients", count);
	}
	b->entries = grown(b->entries, b->count, &b->room);
	b->entries[b->count++] = e;
	e->m.number = b->count;
	e->m.durability = durability;
	e->m.recipient_count = count;
	e->m.recipients = world_alloc(count * sizeof(*e->m.recipients));
	if (!world_chance(NULL_SENDERS)) {
		snprintf(e->m.sender, sizeof(e->m.sender), "from.%u@%s", e->m.number,
			 SCENARIO_BOUNCES);
	}
	for (uint32_t i = 0; i < count; i++) {
		set_address(e, i, recipients[i]);
	}
	make_groups(e);
	books_body_draw(b, e, len);
	e->open_next = b->open;
	b->open = e;
	if (b->count > 1) {
		b->entries[b->count - 2]->m.next = &e->m;
	}
	return &e->m;
}

struct book_entry *books_find_address(const struct books *b, const char *address, size_t len,
				      uint32_t *recipient)
{
	const char *text = len > 0 && address[0] == '"' ? address + 1 : address;
	char *end;
	unsigned long number = strtoul(text, &end, 10);
	unsigned long index = *end == '.' ? strtoul(end + 1, NULL, 10) : ULONG_MAX;
	struct book_entry *e = books_entry(b, number <= UINT32_MAX ? (uint32_t)number : 0);

	if (e == NULL || index >= e->m.recipient_count ||
	    strlen(e->m.recipients[index].address) != len ||
	    memcmp(e->m.recipients[index].address, address, len) != 0) {
		return NULL;
	}
	*recipient = (uint32_t)index;
	return e;
}

/* ---- notifications ---- */

struct book_entry *books_new_notice(struct books *b, const char *recipient)
{
	struct book_entry *e = world_alloc(sizeof(*e));

	e->m.recipient_count = 1;
	e->m.recipients = world_alloc(sizeof(*e->m.recipients));
	snprintf(e->m.recipients[0].address, sizeof(e->m.recipients[0].address), "%s", recipient);
	e->m.recipients[0].accepted = true;
	make_groups(e);
	e->m.next = b->all_notices != NULL ? &b->all_notices->m : NULL;
	b->all_notices = e;
	return e;
}

void books_keep_notice(struct book_entry *n)
{
	n->kept = true;
	n->life_kept = world->life;
	n->notice_next = n->about->notices;
	n->about->notices = n;
	books_judge(n->about);
	n->open_next = world->books->open;
	world->books->open = n;
}

bool books_tells(const struct books *b, const struct book_entry *e, const char *domain)
{
	const struct scenario_domain *d =
		world->scenario != NULL ? scenario_domain(world->scenario, domain) : NULL;

	if (e->about != NULL || e->m.sender[0] == '\0' || e->fail_quiet) {
		return false;
	}
	return d == NULL || (d->bounces && !b->domains[d - world->scenario->domains].quiet);
}

/* ---- two ends, or none ---- */

static _Noreturn void fail_twice(const struct book_entry *e, uint64_t who, const char *what)
{
	world_fail("%s: %s %s", books_name(e), e->m.recipients[__builtin_ctzll(who)].address, what);
}

void books_judge(const struct book_entry *e)
{
	uint64_t once = 0;
	uint64_t told = 0;

	for (const struct book_take *t = e->takes; t != NULL; t = t->next) {
		uint64_t counts = t->read ? t->recipients & ~t->excused : 0;

		if ((once & counts) != 0) {
			fail_twice(e, once & counts, "got it twice");
		}
		once |= counts;
	}
	for (const struct book_entry *n = e->notices; n != NULL; n = n->notice_next) {
		uint64_t counts = n->names & ~n->names_excused;

		if ((told & counts) != 0) {
			fail_twice(e, told & counts, "has failed twice: two notifications");
		}
		told |= counts;
	}
	if ((once & told) != 0) {
		fail_twice(e, once & told, "got it, and a notification says that it did not");
	}
}

bool books_promised(const struct book_entry *e)
{
	return e->about != NULL ? e->kept : e->m.accepted;
}

uint64_t books_wanted(const struct book_entry *e)
{
	uint64_t set = 0;

	for (uint32_t i = 0; i < e->m.recipient_count; i++) {
		set |= e->m.recipients[i].accepted ? bit(i) : 0;
	}
	return set;
}

bool books_all_accounted(const struct books *b, const struct book_entry *e)
{
	return e->may_be_lost || (books_wanted(e) & ~books_accounted(b, e)) == 0;
}

uint64_t books_accounted(const struct books *b, const struct book_entry *e)
{
	uint64_t set = e->taken;

	for (const struct book_entry *n = e->notices; n != NULL; n = n->notice_next) {
		set |= books_all_accounted(b, n) ? n->names : 0;
	}
	for (uint32_t i = 0; i < e->group_count; i++) {
		const struct book_group *g = &e->groups[i];
		uint64_t missing = g->recipients & ~set;

		if (missing == 0 || books_tells(b, e, g->domain)) {
			continue;
		}
		/* What is in memory only has no record but its line. */
		set |= missing & e->written_off;
		missing &= ~e->written_off;
		if (!e->stored && (uint32_t)__builtin_popcountll(missing) <= g->failures) {
			set |= missing;
		}
	}
	return set;
}

/* ---- receivers ---- */

/* A refused message may come back only if the program had no time to write that down. */
static void check_sent(const struct books *b, const struct book_entry *e)
{
	uint32_t life = e->m.life_dotted;
	bool written = life < BOOKS_LIVES_MAX && b->ends[life] == LIFE_STOPPED && !b->gave_up[life];

	if (!e->m.dotted) {
		world_fail("%s was delivered before it was sent", books_name(e));
	}
	if (e->m.refused && (life == world->life || written)) {
		world_fail("%s was refused, and then delivered", books_name(e));
	}
}

static struct book_take *new_take(struct books *b, struct book_entry *e)
{
	struct book_take *t = world_alloc(sizeof(*t));

	b->takes = grown(b->takes, b->take_count, &b->take_room);
	b->takes[b->take_count++] = t;
	t->entry = e;
	t->life = world->life;
	if (e != NULL) {
		t->next = e->takes;
		e->takes = t;
	}
	return t;
}

static void take_recipient(struct book_take *t, uint32_t i)
{
	struct book_recipient *r = &t->entry->m.recipients[i];

	if (!r->accepted) {
		world_fail("%s went to %s, which was refused", books_name(t->entry), r->address);
	}
	if ((t->recipients & bit(i)) != 0) {
		world_fail("%s names %s twice in a transaction", books_name(t->entry), r->address);
	}
	t->recipients |= bit(i);
	t->entry->taken |= bit(i);
	r->delivered++;
}

static struct book_take *take_message(struct books *b, const char *const *recipients,
				      uint32_t count)
{
	uint32_t index;
	struct book_entry *e = books_find_address(b, recipients[0], strlen(recipients[0]), &index);
	struct book_take *t;

	if (e == NULL) {
		world_fail("mail was delivered to %s, whom nobody wrote to", recipients[0]);
	}
	check_sent(b, e);
	t = new_take(b, e);
	for (uint32_t i = 0; i < count; i++) {
		if (books_find_address(b, recipients[i], strlen(recipients[i]), &index) != e) {
			world_fail("%s was delivered to %s", books_name(e), recipients[i]);
		}
		take_recipient(t, index);
		if (strcasecmp(domain_of(recipients[i]), domain_of(recipients[0])) != 0) {
			world_fail("%s went to %s and %s in one transaction", books_name(e),
				   recipients[0], recipients[i]);
		}
	}
	return t;
}

/* Books that do not watch the program hear of it here first. */
static struct book_entry *find_notice(struct books *b, const char *recipient, const char *data,
				      size_t len)
{
	struct message_id id;
	struct book_entry *n;

	if (!books_notice_id(data, len, &id)) {
		world_fail("a notification to %s has no message id", recipient);
	}
	n = books_find(b, &id);
	if (n != NULL || b->watching) {
		return n;
	}
	n = books_new_notice(b, recipient);
	books_know(b, n, &id);
	books_notice_read(b, n, data, len);
	n->data_hash = books_hash(data, len, 0);
	books_keep_notice(n);
	return n;
}

/* Stored when its life ended, but the program had not heard of that: it may have made another. */
static void keep_survivor(const struct books *b, struct book_entry *n)
{
	if (n->life_made == world->life || b->ends[n->life_made] == LIFE_STOPPED) {
		world_fail("%s could not be stored, and was delivered", books_name(n));
	}
	n->names_excused = n->names;
	books_keep_notice(n);
}

static struct book_take *take_notice(struct books *b, const char *const *recipients, uint32_t count,
				     const char *data, size_t len)
{
	struct book_entry *n = find_notice(b, recipients[0], data, len);
	struct book_take *t;

	if (n == NULL || n->about == NULL) {
		world_fail("a notification came to %s that the program never made", recipients[0]);
	}
	if (count != 1 || strcmp(recipients[0], n->m.recipients[0].address) != 0) {
		world_fail("%s was delivered to %s", books_name(n), recipients[0]);
	}
	if (n->data_hash != books_hash(data, len, 0)) {
		world_fail("%s was changed", books_name(n));
	}
	if (!n->kept) {
		keep_survivor(b, n);
	}
	t = new_take(b, n);
	take_recipient(t, 0);
	return t;
}

/* Who was told nonsense at RCPT may take it that nobody is left, and end the data at once (RFC 2920
 * section 3.1): that is no message. */
static bool is_empty_end(const char *domain, size_t len)
{
	const struct scenario_domain *d =
		world->scenario != NULL ? scenario_domain(world->scenario, domain) : NULL;

	return len == 0 && d != NULL && d->garbage != 0;
}

uint64_t books_delivered(struct books *b, const char *domain, const char *const *recipients,
			 uint32_t count, const char *data, size_t len)
{
	struct book_take *t;

	if (count == 0) {
		world_fail("mail was delivered to nobody at %s", domain);
	}
	if (is_empty_end(domain, len)) {
		new_take(b, NULL);
		return b->take_count;
	}
	if (books_is_notice(data, len)) {
		t = take_notice(b, recipients, count, data, len);
	} else {
		t = take_message(b, recipients, count);
		books_body_check(b, t->entry, data, len);
	}
	books_group(t->entry, domain_of(recipients[0]))->taken += count;
	world_trace("delivered", t->entry->m.number, t->recipients);
	return b->take_count;
}

void books_confirm(struct books *b, uint64_t key, bool read)
{
	struct book_take *t;

	if (key == 0 || key > b->take_count || b->takes[key - 1]->answered) {
		world_fail("the books know no answer %llu", (unsigned long long)key);
	}
	t = b->takes[key - 1];
	t->answered = true;
	t->read = read;
	if (read && t->entry != NULL) {
		books_judge(t->entry);
	}
}

void books_excuse_last(struct book_entry *e, const struct book_group *g)
{
	for (struct book_take *t = e->takes; t != NULL; t = t->next) {
		if ((t->recipients & g->recipients) != 0) {
			if (t->life == world->life) {
				t->excused |= g->recipients;
			}
			return;
		}
	}
}
