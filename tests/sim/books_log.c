/*
 * The books and the log. What agents tell the logs comes by here (the linker's --wrap), so each
 * event can be held against what has happened at that moment; at the end of a run the files have
 * the lines of those events, each once, and no others.
 */
#include <stdio.h>
#include <string.h>

#include "core/log/event_text.h"
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

static void expect_line(struct book_log *log, const char *line, size_t len)
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
}

/* The line that the event is to be in a log, if it belongs there. */
static void expect_event(struct book_log *log, enum log_file file, const struct event *e)
{
	char line[EVENT_TEXT_LINE_MAX + 1];
	size_t len = event_text(line, file, e);

	if (len > 0) {
		line[len] = '\n';
		expect_line(log, line, len + 1);
	}
}

/* ---- what events say ---- */

static struct book_entry *entry_of(const struct event *event)
{
	struct book_entry *e = event_has_id(event) ? books_find(world->books, &event->id) : NULL;

	if (e == NULL) {
		world_fail("a %s is about a message that nobody received",
			   event_kind_name(event->kind));
	}
	return e;
}

static struct book_group *group_of(struct book_entry *e, const struct event *event)
{
	const char *domain = event_field(event, EVENT_DOMAIN);
	struct book_group *g = books_group(e, domain);

	if (g == NULL) {
		world_fail("%s: a %s is about %s", books_name(e), event_kind_name(event->kind),
			   domain);
	}
	books_binding_check(world->books, e, event_field(event, EVENT_BINDING_GROUP),
			    event_field(event, EVENT_BINDING), event->kind);
	return g;
}

static void check_reception(const struct event *event)
{
	const char *recipient = event_field(event, EVENT_RECIPIENT);
	const char *sender = event_field(event, EVENT_SENDER);
	struct books *b = world->books;
	struct book_entry *e = entry_of(event);
	uint32_t i = 0;

	if (e->about == NULL && books_find_address(b, recipient, strlen(recipient), &i) != e) {
		world_fail("%s: a reception is about %s", books_name(e), recipient);
	}
	if (strcmp(recipient, e->m.recipients[i].address) != 0 ||
	    strcmp(sender, e->m.sender) != 0) {
		world_fail("%s: a reception says from %s to %s", books_name(e), sender, recipient);
	}
	if ((e->logged >> i & 1) != 0) {
		world_fail("%s: two receptions for %s", books_name(e), recipient);
	}
	books_binding_check(b, e, event_field(event, EVENT_BINDING_GROUP),
			    event_field(event, EVENT_BINDING), event->kind);
	e->logged |= UINT64_C(1) << i;
}

static void check_delivery(const struct event *event)
{
	struct book_entry *e = entry_of(event);
	struct book_group *g = group_of(e, event);

	if (++g->logged_deliveries > g->taken) {
		world_fail("%s: a delivery says delivered to %s, where nobody took it",
			   books_name(e), event_field(event, EVENT_DOMAIN));
	}
}

/* The program may stop waiting just when the 250 comes: what it read then, it did not look at. */
static bool gave_up_waiting(const struct event *event)
{
	const char *text = event_field(event, EVENT_REPLY);

	return (event->stage == SMTP_STAGE_BODY || event->stage == SMTP_STAGE_CONFIRMATION) &&
	       (strstr(text, "[internal] timed out") != NULL ||
		strstr(text, "[internal] the program stops") != NULL);
}

static void check_transient(const struct event *event)
{
	struct book_entry *e = entry_of(event);
	struct book_group *g = group_of(e, event);

	if (gave_up_waiting(event)) {
		books_excuse_last(e, g);
	}
	if (world->scenario != NULL && world->scenario->clean) {
		world_fail("%s was deferred, and nothing had gone wrong: %s", books_name(e),
			   event_field(event, EVENT_REPLY));
	}
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
static bool has_reason(const struct books *b, const struct book_entry *e, const struct event *event)
{
	const char *text = event_field(event, EVENT_REPLY);
	const struct scenario_domain *d =
		world->scenario != NULL
			? scenario_domain(world->scenario, event_field(event, EVENT_DOMAIN))
			: NULL;

	if (d == NULL) {
		return true;
	}
	if (event->kind == EVENT_EXPIRATION) {
		return strstr(text, "[internal] exceeded max time") != NULL && has_expired(e, d);
	}
	if (event->kind == EVENT_ADMIN_FAILURE) {
		return (strncmp(text, "554 manually failed.", 20) == 0 ||
			strncmp(text, "554 Message manually purged.", 28) == 0) &&
		       was_ordered(b, e, d);
	}
	if (strstr(text, "[internal] domain ") != NULL) {
		return (strncmp(text, "550 5.1.2 ", 10) == 0 && d->said_nxdomain) ||
		       (strncmp(text, "556 5.1.10 ", 11) == 0 && d->said_null_mx);
	}
	return text[0] == '5' && receiver_refuses(d);
}

static void check_failure(const struct event *event)
{
	struct book_entry *e = entry_of(event);
	struct book_group *g = group_of(e, event);

	g->failures++;
	if (!has_reason(world->books, e, event)) {
		world_fail("%s failed for good (%s) at %s without a reason: %s", books_name(e),
			   event_kind_name(event->kind), event_field(event, EVENT_DOMAIN),
			   event_field(event, EVENT_REPLY));
	}
}

void books_note(const struct event *event)
{
	switch (event->kind) {
	case EVENT_RECEPTION:
		check_reception(event);
		break;
	case EVENT_DELIVERY:
		check_delivery(event);
		break;
	case EVENT_TRANSIENT:
		check_transient(event);
		break;
	case EVENT_BOUNCE:
	case EVENT_EXPIRATION:
	case EVENT_ADMIN_FAILURE:
		check_failure(event);
		break;
	default:
		break;
	}
	expect_event(&world->books->mainlog, LOG_MAIN, event);
	expect_event(&world->books->rejectlog, LOG_REJECT, event);
	expect_event(&world->books->bouncelog, LOG_BOUNCE, event);
}

void __wrap_log_event(struct log_client *c, const struct event *e)
{
	books_note(e);
	__real_log_event(c, e);
}

void __wrap_log_event_again(struct log_client *c, const struct event *e, uint32_t changed)
{
	books_note(e);
	__real_log_event_again(c, e, changed);
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
		check_log(b, &b->bouncelog);
	}
}
