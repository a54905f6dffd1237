#include "tests/sim/sender.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"
#include "tests/sim/actors.h"
#include "tests/sim/books.h"
#include "tests/sim/net.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

/* The mean pause before a message. */
#define PAUSE_NS_MIN (5 * NS_PER_MS)
#define PAUSE_NS_MAX (5 * NS_PER_S)
/* Before what failed is tried again. */
#define RETRY_NS_MIN (20 * NS_PER_MS)
/* Longer than the program listens to silence. */
#define SILENCE_NS_MAX (400 * NS_PER_S)
#define PIECE_MAX 8192U

static void work(struct sender *s);
static void start(void *object, uint64_t value);

static const char dot[] = {'.', '\r', '\n'};

/* ---- the end of a connection ---- */

static uint64_t pause_ns(const struct sender *s)
{
	return world_chance(300) ? 0 : world_below(2 * s->all->pause_ns + 1);
}

static void leave(struct sender *s, bool reset)
{
	if (reset) {
		net_reset(s->end);
	} else {
		net_close(s->end);
	}
	s->end = NULL;
	s->message = NULL;
	world_forget(s);
	world_at(s->claims ? RETRY_NS_MIN + world_below(4 * s->all->pause_ns + 1) : pause_ns(s),
		 start, s, 0);
}

/* Pauses, for everything: replies wait to be read. */
static void on_rested(void *object, uint64_t value)
{
	struct sender *s = object;

	(void)value;
	s->resting = false;
	work(s);
}

static void rest(struct sender *s, uint64_t ns)
{
	s->resting = true;
	world_at(ns, on_rested, s, 0);
}

/* ---- sending ---- */

/* True when all of what was said is out, or nobody will ever hear it. */
static bool flush(struct sender *s)
{
	while (s->output_sent < s->output_len) {
		size_t len = s->output_len - s->output_sent;
		ssize_t n;

		if (s->bitty && len > 1) {
			len = world_between(1, len);
		}
		n = net_send(s->end, s->output + s->output_sent, len);
		if (n == -EAGAIN) {
			return false;
		}
		if (n < 0) {
			break;
		}
		s->output_sent += (uint32_t)n;
		if (s->bitty && s->output_sent < s->output_len) {
			rest(s, world_below(5 * NS_PER_MS));
			return false;
		}
	}
	s->output_sent = 0;
	s->output_len = 0;
	return true;
}

/* A body that nobody takes: for now, or for good, of which hear() will tell. False. */
static bool lost(struct sender *s, ssize_t error)
{
	s->in_body = error == -EAGAIN;
	return false;
}

/* The final dot, last byte last; from then on the program may keep the message. */
static bool send_dot(struct sender *s)
{
	size_t len = sizeof dot - s->dot_sent;
	ssize_t n;

	if (s->bitty) {
		len = world_between(1, len);
	}
	n = net_send(s->end, dot + s->dot_sent, len);
	if (n < 0) {
		return lost(s, n);
	}
	s->dot_sent += (uint32_t)n;
	if (s->dot_sent < sizeof dot) {
		return true;
	}
	s->in_body = false;
	s->message->dotted = true;
	s->message->life_dotted = world->life;
	s->awaited[s->awaited_count++] = (struct sender_step){SENDER_DOT, 0};
	world_trace("dot", s->message->number, world->life);
	return true;
}

/* A piece of the body, in the end the dot; false when the network takes no more for now, or a pause
 * is due. */
static bool send_body(struct sender *s)
{
	char data[PIECE_MAX];
	size_t room = s->bitty ? world_between(1, PIECE_MAX / 8) : PIECE_MAX;
	size_t len = books_body(s->message, s->body_sent, data, room);
	ssize_t n;

	if (s->bitty && world_chance(200)) {
		rest(s, world_below(20 * NS_PER_MS));
		return false;
	}
	if (len == 0) {
		return send_dot(s);
	}
	n = net_send(s->end, data, len);
	if (n < 0) {
		return lost(s, n);
	}
	s->body_sent += (uint32_t)n;
	return true;
}

/* ---- mischief ---- */

/* No more will be said; what is answered is heard all the same. */
static void shut(struct sender *s)
{
	s->shut = true;
	s->in_body = false;
	net_shutdown(s->end);
}

/* Goes away, with or without a word, or only looks away. */
static void misbehave(struct sender *s)
{
	if (!sender_chance(s, s->mischief / 2)) {
		return;
	}
	switch (world_below(5)) {
	case 0:
		shut(s);
		break;
	case 1:
	case 2:
		rest(s, world_below(world_chance(50) ? SILENCE_NS_MAX : 4 * s->all->pause_ns + 1));
		break;
	default:
		leave(s, world_chance(500));
		break;
	}
}

/* ---- messages ---- */

static bool claim(struct sender *s)
{
	if (!s->claims && s->all->claimed < s->all->scenario->messages) {
		s->all->claimed++;
		s->claims = true;
	}
	return s->claims;
}

static void next_message(struct sender *s)
{
	s->message = NULL;
	s->step = 0;
	s->step_count = 0;
	if (s->claims || (world_chance(700) && claim(s))) {
		sender_script(s);
		rest(s, pause_ns(s));
	} else {
		sender_say(s, (struct sender_step){SENDER_QUIT, 0});
	}
}

/* It is not to be; maybe later, as another one. */
static void abandon(struct sender *s)
{
	s->message = NULL;
	s->step = 0;
	s->step_count = 0;
	s->in_body = false;
	sender_say(s, (struct sender_step){SENDER_RSET, 0});
}

static void on_answer(struct sender *s, unsigned code)
{
	struct book_message *m = s->message;

	world_trace("answer", m->number, code);
	if (code / 100 == 2) {
		m->accepted = true;
		m->life_accepted = world->life;
	} else {
		m->refused = true;
	}
	if (code / 100 != 4) {
		s->claims = false;
		s->all->done++;
	}
	next_message(s);
}

static void on_data(struct sender *s, unsigned code)
{
	if (code != 354) {
		abandon(s);
		return;
	}
	if (s->accepted == 0) {
		world_fail("the program takes data without a recipient");
	}
	s->in_body = !s->shut;
}

/* ---- replies ---- */

static void check_class(const struct sender *s, struct sender_step what, unsigned code)
{
	unsigned class = code / 100;

	if (class < 2 || class > 5 || (class == 3 && (code != 354 || what.kind != SENDER_DATA))) {
		world_fail("the program answers %u (to a command of kind %d of sender %u)", code,
			   (int)what.kind, s->number);
	}
	if (what.kind == SENDER_BAD_RCPT && class == 2) {
		world_fail("the program takes a bad recipient (number %u)", what.index);
	}
}

static void on_reply(struct sender *s, unsigned code)
{
	struct sender_step what;

	if (code == 421) {
		leave(s, false);
		return;
	}
	if (s->awaited_count == 0) {
		world_fail("the program answers %u to sender %u, who asked nothing", code,
			   s->number);
	}
	what = s->awaited[0];
	s->awaited_count--;
	memmove(s->awaited, s->awaited + 1, s->awaited_count * sizeof *s->awaited);
	check_class(s, what, code);
	switch (what.kind) {
	case SENDER_BANNER:
		if (code != 220) {
			leave(s, false);
			return;
		}
		if (s->awaited_count == 0) {
			sender_say(s, (struct sender_step){SENDER_HELLO, 0});
		}
		break;
	case SENDER_HELLO:
	case SENDER_RSET:
		next_message(s);
		break;
	case SENDER_RCPT:
		s->message->recipients[what.index].accepted = code == 250;
		s->accepted += code == 250;
		break;
	case SENDER_DATA:
		on_data(s, code);
		break;
	case SENDER_DOT:
		on_answer(s, code);
		break;
	case SENDER_QUIT:
		leave(s, false);
		return;
	case SENDER_MAIL:
		if (code != 250 && !s->pipelines) {
			abandon(s);
		}
		break;
	case SENDER_BAD_RCPT:
	case SENDER_JUNK:
		break;
	}
	misbehave(s);
}

static void on_line(struct sender *s)
{
	const char *line = s->line;
	unsigned code = 0;

	for (unsigned i = 0; i < 3 && i < s->line_len; i++) {
		code = code * 10 + (unsigned)(unsigned char)(line[i] - '0');
	}
	if (s->line_len < 4 || line[s->line_len - 1] != '\r' || code < 200 || code > 599 ||
	    (line[3] != ' ' && line[3] != '-') || (s->code != 0 && s->code != code)) {
		world_fail("the program answers \"%.*s\"", (int)s->line_len, line);
	}
	s->line_len = 0;
	s->code = line[3] == '-' ? code : 0;
	if (s->code == 0) {
		on_reply(s, code);
	}
}

/* Reads what there is, reply by reply, until there is no more or a pause is due. True when
 * something was heard. */
static bool hear(struct sender *s)
{
	bool heard = false;

	while (s->end != NULL && !s->resting) {
		char c;
		ssize_t n = net_read(s->end, &c, 1);

		if (n == -EAGAIN) {
			break;
		}
		if (n <= 0) {
			leave(s, n < 0);
		} else if (c == '\n') {
			heard = true;
			on_line(s);
		} else if (s->line_len == sizeof s->line) {
			world_fail("the program answers with a line of %u bytes", s->line_len);
		} else {
			s->line[s->line_len++] = c;
		}
	}
	return heard;
}

/* ---- steps ---- */

/* Says the next steps, as many as may go together. */
static void go_on(struct sender *s)
{
	bool more = s->message != NULL && s->step < s->step_count;

	while (more && s->output_len < SENDER_OUTPUT_MAX - SENDER_STEP_BYTES_MAX) {
		struct sender_step step = s->steps[s->step++];

		sender_say(s, step);
		more = s->step < s->step_count && !sender_ends_group(s, step) && !world_chance(50);
	}
}

/* Sends what may be sent now; true when something was. */
static bool talk(struct sender *s)
{
	if (s->shut || !s->connected || !flush(s)) {
		return false;
	}
	if (s->in_body) {
		if (!send_body(s)) {
			return false;
		}
		misbehave(s);
		return true;
	}
	if (s->awaited_count == 0) {
		go_on(s);
	}
	return s->output_len > 0;
}

/* Everything that happens to a connection ends here. */
static void work(struct sender *s)
{
	bool more = true;

	while (more && s->end != NULL && !s->resting) {
		more = talk(s);
		more = hear(s) || more;
	}
}

static void on_event(struct net_end *end, int events, void *context)
{
	struct sender *s = context;

	ASSERT(end == s->end);
	if ((events & NET_CONNECTED) != 0) {
		s->connected = true;
	}
	work(s);
}

/* ---- connections ---- */

static void start(void *object, uint64_t value)
{
	struct sender *s = object;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};

	(void)value;
	if (!claim(s)) {
		return;
	}
	s->durability = (unsigned)world_below(3);
	s->connected = false;
	s->pipelines = world_chance(600);
	s->bitty = world_chance(200);
	s->resting = false;
	s->shut = false;
	s->in_body = false;
	s->awaited_count = 0;
	s->output_len = 0;
	s->output_sent = 0;
	s->line_len = 0;
	s->code = 0;
	s->step = 0;
	s->step_count = 0;
	to.sin_port = htons(s->all->scenario->ports[s->durability]);
	s->end = net_connect(world->net, NET_ACTOR, (struct sockaddr *)&to, sizeof to, NULL,
			     on_event, s);
	s->awaited[s->awaited_count++] = (struct sender_step){SENDER_BANNER, 0};
	/* Some cannot wait for the greeting. */
	if (sender_chance(s, s->mischief / 4)) {
		sender_say(s, (struct sender_step){SENDER_HELLO, 0});
	}
}

void senders_create(struct scenario *s)
{
	struct senders *all = world_alloc(sizeof *all);
	uint64_t time_ns = s->life_ns * (s->lives + 1);

	world->senders = all;
	all->scenario = s;
	all->pause_ns = time_ns * s->senders / (s->messages + 1) / 3;
	all->pause_ns = all->pause_ns < PAUSE_NS_MIN   ? PAUSE_NS_MIN
			: all->pause_ns > PAUSE_NS_MAX ? PAUSE_NS_MAX
						       : all->pause_ns;
	for (uint32_t i = 0; i < s->senders; i++) {
		struct sender *sender = world_alloc(sizeof *sender);

		sender->all = all;
		sender->number = i;
		sender->mischief = s->clean ? 0 : (unsigned)world_below(100);
		world_at(world_below(all->pause_ns + 1), start, sender, 0);
	}
}

bool senders_done(void)
{
	const struct senders *all = world->senders;

	return all->done >= all->scenario->messages;
}
