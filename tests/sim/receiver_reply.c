#include "tests/sim/receiver.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"
#include "tests/sim/books.h"
#include "tests/sim/net.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

/* What smtp_reply_feed() takes at most: SMTP_REPLY_LINE_LIMIT, SMTP_REPLY_LINES_MAX. */
#define LINE_TOO_LONG 70000U
#define LINES_TOO_MANY 300U
#define TEXT_MAX 512

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

bool receiver_chance(unsigned permille)
{
	return !world->calm && world_chance(permille);
}

/* ---- saying ---- */

static void append(struct receiver_session *ss, const char *data, size_t len)
{
	if (ss->output_len + len > ss->output_room) {
		size_t room = ss->output_room != 0 ? ss->output_room * 2 : 1024;
		char *grown;

		while (room < ss->output_len + len) {
			room *= 2;
		}
		grown = world_alloc(room);
		if (ss->output_len > 0) {
			memcpy(grown, ss->output, ss->output_len);
		}
		world_free(ss->output, ss->output_room);
		ss->output = grown;
		ss->output_room = room;
	}
	memcpy(ss->output + ss->output_len, data, len);
	ss->output_len += len;
}

void receiver_say(struct receiver_session *ss, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	ASSERT(len >= 0 && (size_t)len < sizeof text);
	append(ss, text, (size_t)len);
}

static void say_many(struct receiver_session *ss, char c, size_t count)
{
	char piece[256];

	memset(piece, c, sizeof piece);
	while (count > 0) {
		size_t n = count < sizeof piece ? count : sizeof piece;

		append(ss, piece, n);
		count -= n;
	}
}

static const char *text_of(unsigned code)
{
	static const char *const good[] = {"2.0.0 OK", "OK", "2.1.5 Fine, thanks", ""};
	static const char *const later[] = {"4.2.2 Mailbox full", "4.7.1 Greylisted, come again",
					    "4.3.0 Try later", "busy"};
	static const char *const never[] = {"5.1.1 No such user", "5.7.1 Denied", "no",
					    "5.2.2 \"Quota\" of <user> exceeded"};

	switch (code / 100) {
	case 2:
		return good[world_below(LENGTH(good))];
	case 4:
		return later[world_below(LENGTH(later))];
	case 5:
		return never[world_below(LENGTH(never))];
	default:
		return "Go on";
	}
}

/* A good reply in one line or more; sizes that a client has to take. */
static void say_reply(struct receiver_session *ss, unsigned code)
{
	unsigned lines = world_chance(900) ? 0 : (unsigned)world_between(1, 20);

	while (lines-- > 0) {
		receiver_say(ss, "%u-%s", code, text_of(code));
		say_many(ss, 'x', world_chance(100) ? world_below(3000) : world_below(40));
		receiver_say(ss, "\r\n");
	}
	receiver_say(ss, "%u %s\r\n", code, text_of(code));
}

static bool is_truthful(const struct receiver *r)
{
	for (uint32_t i = 0; i < r->domain_count; i++) {
		if (r->domains[i]->garbage != 0) {
			return false;
		}
	}
	return true;
}

static void say_ehlo(struct receiver_session *ss)
{
	receiver_say(ss, "250-%s\r\n", ss->domain->name);
	if (world_chance(700)) {
		receiver_say(ss, "250-PIPELINING\r\n");
	}
	if (world_chance(800)) {
		receiver_say(ss, "250-8BITMIME\r\n");
	}
	/* A reply too many to a recipient would be a lie about the body that came along. */
	if (is_truthful(ss->receiver) && world_chance(500)) {
		receiver_say(ss, "250-CHUNKING\r\n");
	}
	if (world_chance(100)) {
		receiver_say(ss, "250-X-NONSENSE 1 2 3\r\n250-size\r\n");
	} else if (world_chance(600)) {
		receiver_say(ss, "250-SIZE %u\r\n",
			     receiver_chance(ss->domain->fail / 8)
				     ? (unsigned)world_between(500, 5000)
				     : 100000000U);
	}
	receiver_say(ss, "250 HELP\r\n");
}

static void say_right(struct receiver_session *ss)
{
	if (ss->stage == RECEIVER_EHLO && ss->code == 250) {
		say_ehlo(ss);
	} else {
		say_reply(ss, ss->code);
	}
}

/* ---- the message that has come ---- */

/* Its 250 is on its way: the books hear whether it is read. */
static void take_answered(struct receiver_session *ss)
{
	uint64_t key = receiver_take(ss);

	ASSERT(!ss->marked);
	ss->marked = true;
	ss->mark_at = ss->output_len;
	ss->mark_key = key;
	books_delivery_of_connection(world->books, ss->domain->name, ++ss->taken);
}

/* It is kept, although the program will never hear so. */
static void take_quietly(struct receiver_session *ss)
{
	if (ss->stage == RECEIVER_DOT && ss->code == 250 && world_chance(500)) {
		books_confirm(world->books, receiver_take(ss), false);
	}
}

static void say_right_and_take(struct receiver_session *ss)
{
	bool takes = ss->stage == RECEIVER_DOT && ss->code == 250;

	say_right(ss);
	if (takes) {
		take_answered(ss);
	}
}

/* ---- what goes wrong ---- */

static void end(struct receiver_session *ss)
{
	ss->ending = world_chance(500) ? RECEIVER_CLOSE : RECEIVER_RESET;
}

void receiver_drop(struct receiver_session *ss)
{
	if (world_chance(500)) {
		receiver_say(ss, "421 4.3.2 Service not available, closing\r\n");
	}
	end(ss);
}

static void drop(struct receiver_session *ss)
{
	static const char piece[] = "250-par";
	unsigned how = (unsigned)world_below(4);

	world_trace("drop", ss->end->number, how);
	switch (how) {
	case 0:
		/* Not a word. */
		take_quietly(ss);
		break;
	case 1:
		receiver_say(ss, "421 4.3.2 Service not available, closing\r\n");
		break;
	case 2:
		take_quietly(ss);
		append(ss, piece, 1 + world_below(sizeof piece - 1));
		break;
	default:
		say_right_and_take(ss);
		break;
	}
	end(ss);
}

static void say_noise(struct receiver_session *ss)
{
	char noise[200];
	size_t len = world_between(1, sizeof noise);

	for (size_t i = 0; i < len; i++) {
		noise[i] = (char)world_random();
	}
	/* Nothing that may be taken for a yes. */
	noise[0] = '~';
	append(ss, noise, len);
	if (world_chance(700)) {
		receiver_say(ss, "\r\n");
	}
}

/* A reply too many. While a body is awaited it would be a lie about the message. */
static void say_unasked(struct receiver_session *ss)
{
	say_right_and_take(ss);
	if (ss->code != 354) {
		receiver_say(ss,
			     world_chance(500) ? "250 And another thing\r\n" : "500 Pardon?\r\n");
	}
}

/* What nobody said yes to is not agreed. */
static void take_back(struct receiver_session *ss)
{
	if (ss->stage == RECEIVER_MAIL) {
		ss->has_mail = false;
	} else if (ss->stage == RECEIVER_RCPT && ss->code == 250) {
		ss->recipient_count--;
	}
}

/* Once in a session, for two lies may make a truth. After the final dot, nothing of this is a 250
 * but the right one. */
static void talk_garbage(struct receiver_session *ss)
{
	static const char *const lines[] = {
		"Hello, who is there?\r\n",
		"250-one\r\n550 two\r\n",
		"999 what\r\n",
		"123 counting\r\n",
		"354 Go ahead\r\n",
		"\r\n",
		"2x0 OK\r\n",
		"25\r\n",
	};
	unsigned kind = (unsigned)world_below(6);

	ss->lied = true;
	world_trace("garbage", ss->end->number, kind);
	if (kind == 0) {
		say_unasked(ss);
		return;
	}
	take_quietly(ss);
	take_back(ss);
	switch (kind) {
	case 1:
		say_noise(ss);
		break;
	case 2:
		receiver_say(ss, "%u ", ss->code);
		say_many(ss, 'y', LINE_TOO_LONG);
		receiver_say(ss, "\r\n");
		break;
	case 3:
		for (unsigned i = 0; i < LINES_TOO_MANY; i++) {
			receiver_say(ss, "%u-line\r\n", ss->code);
		}
		receiver_say(ss, "%u the last\r\n", ss->code);
		break;
	default:
		receiver_say(ss, "%s", lines[world_below(LENGTH(lines))]);
		break;
	}
}

/* ---- replies ---- */

/* Setting up and other formalities go wrong less often than what is about mail. */
static unsigned share(enum receiver_stage stage, unsigned permille)
{
	return stage == RECEIVER_RCPT || stage == RECEIVER_DOT ? permille : permille / 6;
}

unsigned receiver_refusal(const struct receiver_session *ss, enum receiver_stage stage)
{
	static const unsigned later[] = {450, 451, 452, 432};
	static const unsigned never[] = {550, 554, 552, 501, 571};

	if (receiver_chance(share(stage, ss->domain->defer))) {
		return later[world_below(LENGTH(later))];
	}
	if (receiver_chance(share(stage, ss->domain->fail))) {
		return never[world_below(LENGTH(never))];
	}
	return 0;
}

void receiver_think_over(struct receiver_session *ss)
{
	const struct scenario_domain *d = ss->domain;

	world_say("from %s on %llu: %u", d->name, (unsigned long long)ss->end->number, ss->code);
	if (receiver_chance(share(ss->stage, d->drop) / 2)) {
		drop(ss);
	} else if (!ss->lied && receiver_chance(share(ss->stage, d->garbage) / 2)) {
		talk_garbage(ss);
	} else {
		say_right_and_take(ss);
	}
	if (ss->stage == RECEIVER_QUIT && ss->ending == RECEIVER_OPEN) {
		ss->ending = RECEIVER_CLOSE;
	}
}

static uint64_t thinking_time(const struct receiver_session *ss, enum receiver_stage stage)
{
	if (receiver_chance(share(stage, ss->domain->silence) / 2)) {
		return world_between(NS_PER_S, (world_chance(700) ? 40 : 400) * NS_PER_S);
	}
	if (receiver_chance(ss->domain->slow)) {
		return world_between(NS_PER_MS, 3 * NS_PER_S);
	}
	return world_chance(700) ? 0 : world_below(5 * NS_PER_MS);
}

void receiver_reply(struct receiver_session *ss, enum receiver_stage stage, unsigned code)
{
	uint64_t delay_ns;

	ss->stage = stage;
	ss->code = code;
	delay_ns = thinking_time(ss, stage);
	if (delay_ns == 0) {
		receiver_think_over(ss);
	} else {
		receiver_think(ss, delay_ns);
	}
}
