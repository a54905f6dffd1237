#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/books.h"
#include "tests/sim/scenario.h"
#include "tests/sim/sender.h"
#include "tests/sim/world.h"

#define DOMAINS_MAX 4
#define LONG_LINE 3000U

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Where something may be said out of place. */
enum place { ANYWHERE, BEFORE_MAIL, AFTER_MAIL };

static const struct junk {
	const char *text;
	/* 0: as long as the text. */
	size_t len;
	enum place place;
	/* What follows could be taken for data. */
	bool last;
} junk[] = {
	{"NOOP\r\n", 0, ANYWHERE, false},
	{"HELP\r\n", 0, ANYWHERE, false},
	{"VRFY somebody\r\n", 0, ANYWHERE, false},
	{"EXPN staff\r\n", 0, ANYWHERE, false},
	{"STARTTLS\r\n", 0, ANYWHERE, false},
	{"AUTH PLAIN AGEAYg==\r\n", 0, ANYWHERE, false},
	{"BLAH blah\r\n", 0, ANYWHERE, false},
	{"\r\n", 0, ANYWHERE, false},
	{"NOOP\n", 0, ANYWHERE, false},
	{"NO\0OP\r\n", 7, ANYWHERE, false},
	{"\xff\xfe\x80\r\n", 0, ANYWHERE, false},
	{"RCPT TO:\r\n", 0, ANYWHERE, false},
	{"MAIL FROM:<a b@c>\r\n", 0, ANYWHERE, false},
	{"DATA now\r\n", 0, ANYWHERE, true},
	{"", LONG_LINE, ANYWHERE, false},
	{"EHLO once.more.test\r\n", 0, BEFORE_MAIL, false},
	{"HELO once.more.test\r\n", 0, BEFORE_MAIL, false},
	{"RSET\r\n", 0, BEFORE_MAIL, false},
	{"RCPT TO:<nobody@d0.test>\r\n", 0, BEFORE_MAIL, false},
	{"DATA\r\n", 0, BEFORE_MAIL, true},
	{"BDAT 12 LAST\r\nMAIL FROM:\r\n", 0, BEFORE_MAIL, false},
	/* MAIL once more, of the same sender. */
	{NULL, 0, AFTER_MAIL, false},
};

static const char *const bad_recipients[] = {
	"nobody",        "@d0.test", "two@@d0.test", "blank space@d0.test",
	"user@-d0.test", "user@",    "a..b@d0.test", "",
};

bool sender_chance(const struct sender *s, unsigned permille)
{
	return s->mischief > 0 && !world->calm && world_chance(permille);
}

/* ---- the message ---- */

static uint32_t draw_count(void)
{
	unsigned kind = (unsigned)world_below(10);

	return (uint32_t)world_between(1, kind < 6 ? 3 : kind < 9 ? 10 : BOOKS_RECIPIENTS_MAX);
}

static uint32_t draw_length(const struct scenario *s)
{
	return (uint32_t)world_between(1, world_chance(600) ? s->body_max / 8 + 1 : s->body_max);
}

static void draw_message(struct sender *s)
{
	const struct scenario *scenario = s->all->scenario;
	const struct scenario_domain *domains[DOMAINS_MAX];
	uint32_t domain_count = (uint32_t)world_between(1, DOMAINS_MAX);
	char addresses[BOOKS_RECIPIENTS_MAX][80];
	const char *recipients[BOOKS_RECIPIENTS_MAX];
	uint32_t count = draw_count();

	for (uint32_t i = 0; i < domain_count; i++) {
		/* The last is for notifications. */
		domains[i] = &scenario->domains[world_below(scenario->domain_count - 1)];
	}
	for (uint32_t i = 0; i < count; i++) {
		snprintf(addresses[i], sizeof addresses[i], "user@%s",
			 domains[world_below(domain_count)]->name);
		recipients[i] = addresses[i];
	}
	s->message = books_message(world->books, (enum envelope_durability)s->durability,
				   recipients, count, draw_length(scenario));
	world_trace("submit", s->message->number, s->message->body_len);
}

/* ---- the steps ---- */

static void add(struct sender *s, enum sender_kind kind, uint32_t index)
{
	ASSERT(s->step_count < SENDER_STEPS_MAX);
	s->steps[s->step_count++] = (struct sender_step){kind, index};
}

/* Room is kept for what a message needs. */
static void add_junk(struct sender *s, enum place place)
{
	uint32_t which = (uint32_t)world_below(LENGTH(junk));

	if (s->step_count < SENDER_STEPS_MAX - BOOKS_RECIPIENTS_MAX - 4 &&
	    sender_chance(s, s->mischief) &&
	    (junk[which].place == place || junk[which].place == ANYWHERE)) {
		add(s, SENDER_JUNK, which);
	}
}

void sender_script(struct sender *s)
{
	draw_message(s);
	s->step_count = 0;
	s->step = 0;
	s->accepted = 0;
	s->in_body = false;
	s->body_sent = 0;
	s->dot_sent = 0;
	for (unsigned i = 0; i < 3; i++) {
		add_junk(s, BEFORE_MAIL);
	}
	add(s, SENDER_MAIL, 0);
	for (uint32_t i = 0; i < s->message->recipient_count; i++) {
		if (s->step_count + s->message->recipient_count - i < SENDER_STEPS_MAX - 4) {
			if (sender_chance(s, s->mischief / 2)) {
				add(s, SENDER_BAD_RCPT,
				    (uint32_t)world_below(LENGTH(bad_recipients)));
			}
			add_junk(s, AFTER_MAIL);
		}
		add(s, SENDER_RCPT, i);
	}
	add(s, SENDER_DATA, 0);
}

bool sender_ends_group(const struct sender *s, struct sender_step step)
{
	return !s->pipelines || step.kind == SENDER_DATA || step.kind == SENDER_QUIT ||
	       (step.kind == SENDER_JUNK && junk[step.index].last);
}

/* ---- the text ---- */

static void put(struct sender *s, const char *data, size_t len)
{
	ASSERT(s->output_len + len <= sizeof s->output);
	memcpy(s->output + s->output_len, data, len);
	s->output_len += (uint32_t)len;
}

static void print(struct sender *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void print(struct sender *s, const char *format, ...)
{
	char text[512];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	ASSERT(len >= 0 && (size_t)len < sizeof text);
	put(s, text, (size_t)len);
}

static void say_mail(struct sender *s)
{
	print(s, "MAIL FROM:<%s>", s->message->sender);
	if (world_chance(300)) {
		print(s, " SIZE=%u", s->message->body_len);
	}
	if (world_chance(300)) {
		print(s, " BODY=8BITMIME");
	}
	print(s, "\r\n");
}

static void say_junk(struct sender *s, const struct junk *j)
{
	char line[LONG_LINE];

	if (j->text == NULL) {
		say_mail(s);
	} else if (j->len == LONG_LINE) {
		memset(line, 'L', sizeof line - 2);
		memcpy(line + sizeof line - 2, "\r\n", 2);
		put(s, line, sizeof line);
	} else {
		put(s, j->text, j->len != 0 ? j->len : strlen(j->text));
	}
}

void sender_say(struct sender *s, struct sender_step step)
{
	switch (step.kind) {
	case SENDER_HELLO:
		print(s, world_chance(900) ? "EHLO sender-%u.test\r\n" : "HELO sender-%u.test\r\n",
		      s->number);
		break;
	case SENDER_MAIL:
		say_mail(s);
		break;
	case SENDER_RCPT:
		print(s, "RCPT TO:<%s>\r\n", s->message->recipients[step.index].address);
		break;
	case SENDER_BAD_RCPT:
		print(s, "RCPT TO:<%s>\r\n", bad_recipients[step.index]);
		break;
	case SENDER_JUNK:
		say_junk(s, &junk[step.index]);
		break;
	case SENDER_DATA:
		print(s, "DATA\r\n");
		break;
	case SENDER_RSET:
		print(s, "RSET\r\n");
		break;
	case SENDER_QUIT:
		print(s, "QUIT\r\n");
		break;
	case SENDER_BANNER:
	case SENDER_DOT:
		break;
	}
	ASSERT(s->awaited_count < SENDER_STEPS_MAX);
	s->awaited[s->awaited_count++] = step;
}
