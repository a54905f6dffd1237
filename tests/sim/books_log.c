/*
 * The books and the log. What the program is about to log comes by here (the linker's --wrap), so
 * each line can be held against what has happened at that moment; at the end of a run the files
 * have the lines that were made, each once, and no others.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/books_parts.h"
#include "tests/sim/books_wrap.h"
#include "tests/sim/disk.h"
#include "tests/sim/world.h"

/* ---- lines ---- */

static struct book_line *find_line(const struct book_log *log, uint64_t hash)
{
	struct book_line *l = log->lines[hash % BOOKS_HASH];

	while (l != NULL && l->hash != hash) {
		l = l->next;
	}
	return l;
}

static size_t made(struct book_log *log, const char *line, size_t len)
{
	uint64_t hash = books_hash(line, len, 0);
	struct book_line *l = find_line(log, hash);

	if (l == NULL) {
		l = world_alloc(sizeof(*l));
		l->hash = hash;
		l->next = log->lines[hash % BOOKS_HASH];
		log->lines[hash % BOOKS_HASH] = l;
	}
	l->count++;
	log->written++;
	return len;
}

/* ---- what lines say ---- */

static struct book_entry *entry_of(const struct mainlog_prefix *prefix, const char *type)
{
	struct book_entry *e = prefix->id != NULL ? books_find(world->books, prefix->id) : NULL;

	if (e == NULL) {
		world_fail("a line %s is about a message that nobody received", type);
	}
	return e;
}

static struct book_group *group_of(struct book_entry *e, const struct mainlog_attempt *a,
				   const char *type)
{
	struct book_group *g = books_group(e, a->domain);

	if (g == NULL) {
		world_fail("%s: a line %s is about %s", books_name(e), type, a->domain);
	}
	books_binding_check(world->books, e, a->binding_group, a->binding, type);
	return g;
}

size_t __wrap_mainlog_reception(char *line, const struct mainlog_reception *r)
{
	struct books *b = world->books;
	struct book_entry *e = entry_of(&r->prefix, "R");
	uint32_t i = 0;

	if (e->about == NULL &&
	    books_find_address(b, r->recipient, strlen(r->recipient), &i) != e) {
		world_fail("%s: a line R is about %s", books_name(e), r->recipient);
	}
	if (strcmp(r->recipient, e->m.recipients[i].address) != 0 ||
	    strcmp(r->sender, e->m.sender) != 0) {
		world_fail("%s: a line R says from %s to %s", books_name(e), r->sender,
			   r->recipient);
	}
	if ((e->logged >> i & 1) != 0) {
		world_fail("%s: two lines R for %s", books_name(e), r->recipient);
	}
	books_binding_check(b, e, r->binding_group, r->binding, "R");
	e->logged |= UINT64_C(1) << i;
	return made(&b->mainlog, line, __real_mainlog_reception(line, r));
}

size_t __wrap_mainlog_delivery(char *line, const struct mainlog_attempt *a)
{
	struct book_entry *e = entry_of(&a->prefix, "D");
	struct book_group *g = group_of(e, a, "D");

	if (++g->logged_deliveries > g->taken) {
		world_fail("%s: a line D says delivered to %s, where nobody took it", books_name(e),
			   a->domain);
	}
	return made(&world->books->mainlog, line, __real_mainlog_delivery(line, a));
}

/* The program may stop waiting just when the 250 comes: what it read then, it did not look at. */
static bool gave_up_waiting(const struct mainlog_attempt *a)
{
	return (a->stage == SMTP_STAGE_BODY || a->stage == SMTP_STAGE_CONFIRMATION) &&
	       (strstr(a->text, "[internal] timed out") != NULL ||
		strstr(a->text, "[internal] the program stops") != NULL);
}

size_t __wrap_mainlog_transient(char *line, const struct mainlog_attempt *a)
{
	struct book_entry *e = entry_of(&a->prefix, "T");
	struct book_group *g = group_of(e, a, "T");

	if (gave_up_waiting(a)) {
		books_excuse_last(e, g);
	}
	if (world->scenario != NULL && world->scenario->clean) {
		world_fail("%s was deferred, and nothing had gone wrong: %s", books_name(e),
			   a->text);
	}
	return made(&world->books->mainlog, line, __real_mainlog_transient(line, a));
}

static bool was_ordered(const struct books *b, const struct book_entry *e,
			const struct scenario_domain *d)
{
	return e->fail_ordered || b->domains[d - world->scenario->domains].ordered;
}

static bool has_expired(const struct book_entry *e, const struct scenario_domain *d)
{
	return (WORLD_EPOCH_NS + world->now_ns) / NS_PER_MS >=
	       e->received_ms + d->expiration_ns / NS_PER_MS;
}

/* On a connection that domains share, MAIL is answered in the temper of the one before. */
static bool receiver_refuses(const struct scenario_domain *d)
{
	const struct scenario *s = world->scenario;

	for (uint32_t i = 0; i < s->domain_count; i++) {
		if (s->domains[i].port == d->port &&
		    (s->domains[i].fail != 0 || s->domains[i].garbage != 0)) {
			return true;
		}
	}
	return false;
}

/* Nothing fails for good but for a reason of which the books know. */
static bool has_reason(const struct books *b, const struct book_entry *e,
		       const struct mainlog_attempt *a)
{
	const struct scenario_domain *d =
		world->scenario != NULL ? scenario_domain(world->scenario, a->domain) : NULL;

	if (d == NULL) {
		return true;
	}
	if (strstr(a->text, "[internal] exceeded max time") != NULL) {
		return has_expired(e, d);
	}
	if (strncmp(a->text, "554 manually failed.", 20) == 0 ||
	    strncmp(a->text, "554 Message manually purged.", 28) == 0) {
		return was_ordered(b, e, d);
	}
	if (strstr(a->text, "[internal] domain ") != NULL) {
		return (strncmp(a->text, "550 5.1.2 ", 10) == 0 && d->said_nxdomain) ||
		       (strncmp(a->text, "556 5.1.10 ", 11) == 0 && d->said_null_mx);
	}
	return a->text[0] == '5' && receiver_refuses(d);
}

size_t __wrap_mainlog_permanent(char *line, const struct mainlog_attempt *a)
{
	struct books *b = world->books;
	struct book_entry *e = entry_of(&a->prefix, "P");
	struct book_group *g = group_of(e, a, "P");

	g->failures++;
	if (!has_reason(b, e, a)) {
		world_fail("%s failed for good at %s without a reason: %s", books_name(e),
			   a->domain, a->text);
	}
	return made(&b->mainlog, line, __real_mainlog_permanent(line, a));
}

size_t __wrap_mainlog_rejection(char *line, const struct mainlog_rejection *r)
{
	return made(&world->books->rejectlog, line, __real_mainlog_rejection(line, r));
}

size_t __wrap_mainlog_heartbeat(char *line, uint64_t time_s)
{
	return made(&world->books->mainlog, line, __real_mainlog_heartbeat(line, time_s));
}

/* ---- what the files have ---- */

/* A write that fails may have written some of it, and all of it is written again: lines that look
 * like anything. */
static bool writes_fail(void)
{
	return disk_faults(world->disk)->write_error != 0;
}

static bool take_line(struct book_log *log, const char *line, size_t len)
{
	struct book_line *l = find_line(log, books_hash(line, len, 0));

	if (l == NULL || (l->found == l->count && !writes_fail())) {
		return false;
	}
	l->found++;
	return true;
}

/* A line that was cut short, and then a whole one. */
static bool take_torn(struct book_log *log, const char *line, size_t len)
{
	for (size_t i = 1; i < len; i++) {
		if (line[i] >= '0' && line[i] <= '9' && take_line(log, line + i, len - i)) {
			return true;
		}
	}
	return false;
}

/* A cut leaves zeros where a sector was not written, and lines without a beginning or an end. */
static bool cut_apart(const char *line, size_t len)
{
	return memchr(line, '\0', len) != NULL;
}

/* How many lines of the file are not as they were made. A start ends the line that a kill or a cut
 * before it left without its end: `cut_short` lines at most. */
static uint64_t read_lines(struct book_log *log, const char *text, size_t size, uint64_t cut_short,
			   uint64_t *found)
{
	uint64_t torn = 0;
	size_t at = 0;

	while (at < size) {
		const char *line = text + at;
		const char *lf = memchr(line, '\n', size - at);
		size_t len = lf != NULL ? (size_t)(lf - line) + 1 : size - at;

		at += len;
		if (take_line(log, line, len)) {
			++*found;
			continue;
		}
		torn++;
		if ((writes_fail() || cut_apart(line, len)) && take_torn(log, line, len)) {
			++*found;
		} else if (lf != NULL && !cut_apart(line, len) && !writes_fail() &&
			   cut_short-- == 0) {
			world_fail("%s has a line that nobody wrote: %.*s", log->path,
				   (int)(len < 500 ? len - 1 : 500), line);
		}
	}
	return torn;
}

static void check_log(struct books *b, struct book_log *log)
{
	const struct scenario *s = world->scenario;
	uint64_t found = 0;
	uint64_t torn;
	size_t size;
	char *text = disk_content(world->disk, log->path, &size);

	if (text == NULL) {
		world_fail("%s is not there", log->path);
	}
	torn = read_lines(log, text, size, b->harsh_ends ? b->lives : 0, &found);
	world_free(text, size);
	if (b->harsh_ends || (s != NULL && s->disk_faults)) {
		return;
	}
	if (torn != 0 || found != log->written) {
		world_fail("%s has %llu of %llu lines, %llu torn", log->path,
			   (unsigned long long)found, (unsigned long long)log->written,
			   (unsigned long long)torn);
	}
}

void books_log_check(struct books *b)
{
	if (b->watching) {
		check_log(b, &b->mainlog);
		check_log(b, &b->rejectlog);
	}
}
