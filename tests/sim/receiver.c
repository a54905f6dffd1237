#include "tests/sim/receiver.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"
#include "tests/sim/actors.h"
#include "tests/sim/books.h"
#include "tests/sim/net.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

#define BODY_FIRST 4096U
/* A receiver that reads slowly takes so many bytes at a time. */
#define SLOW_BYTES 3000U
#define SLOW_NS_MAX (100 * NS_PER_MS)

struct receivers {
	struct receiver *all[SCENARIO_DOMAINS_MAX];
	uint32_t count;
};

static void work(struct receiver_session *ss);

/* ---- the end of a session ---- */

static void on_read(void *context, uint64_t key, bool read)
{
	(void)context;
	books_confirm(world->books, key, read);
}

static void free_session(struct receiver_session *ss)
{
	if (ss->marked) {
		books_confirm(world->books, ss->mark_key, false);
	}
	if (ss->ending == RECEIVER_RESET) {
		net_reset(ss->end);
	} else {
		net_close(ss->end);
	}
	ss->receiver->sessions--;
	world_forget(ss);
	world_free(ss->recipients, RECEIVER_RECIPIENTS_MAX * sizeof *ss->recipients);
	world_free(ss->body, ss->body_room);
	world_free(ss->output, ss->output_room);
	world_free(ss, sizeof *ss);
}

/* ---- sending ---- */

static void note_mark(struct receiver_session *ss)
{
	if (ss->marked && ss->output_sent == ss->mark_at) {
		ss->marked = false;
		net_mark(ss->end, on_read, NULL, ss->mark_key);
	}
}

/* Sends what was said; true when all of it is out. */
static bool flush(struct receiver_session *ss)
{
	while (ss->output_sent < ss->output_len) {
		size_t until = ss->marked ? ss->mark_at : ss->output_len;
		ssize_t n =
			net_send(ss->end, ss->output + ss->output_sent, until - ss->output_sent);

		if (n < 0) {
			ss->gone = ss->gone || n != -EAGAIN;
			return false;
		}
		ss->output_sent += (size_t)n;
		note_mark(ss);
	}
	ss->output_sent = 0;
	ss->output_len = 0;
	return true;
}

static void on_thought(void *object, uint64_t value)
{
	struct receiver_session *ss = object;

	(void)value;
	ss->thinking = false;
	receiver_think_over(ss);
	work(ss);
}

void receiver_think(struct receiver_session *ss, uint64_t delay_ns)
{
	ss->thinking = true;
	world_at(delay_ns, on_thought, ss, 0);
}

/* ---- a transaction ---- */

static void forget_transaction(struct receiver_session *ss)
{
	ss->has_mail = false;
	ss->rcpt_count = 0;
	ss->recipient_count = 0;
}

/* The program knows that this transaction was begun: what it says shows that it has read the reply
 * to its MAIL. A dead program's words count for no limit, nor does what follows nonsense: whoever
 * was told 354 for a refusal takes the transaction to be over. */
static void count_transaction(struct receiver_session *ss)
{
	if (ss->rcpt_count > 0 && !ss->lied && ss->life == world->life) {
		books_transaction(world->books, ss->domain->name, ss->rcpt_count);
	}
}

uint64_t receiver_take(struct receiver_session *ss)
{
	const char *recipients[RECEIVER_RECIPIENTS_MAX];

	for (uint32_t i = 0; i < ss->recipient_count; i++) {
		recipients[i] = ss->recipients[i];
	}
	world_trace("take", ss->recipient_count, ss->body_len);
	return books_delivered(world->books, ss->domain->name, recipients, ss->recipient_count,
			       ss->body, ss->body_len);
}

/* A domain of this port; the program must not bring it others. */
static const struct scenario_domain *domain_of(const struct receiver_session *ss,
					       const char *address)
{
	const char *at = strrchr(address, '@');

	for (uint32_t i = 0; at != NULL && i < ss->receiver->domain_count; i++) {
		if (strcasecmp(at + 1, ss->receiver->domains[i]->name) == 0) {
			return ss->receiver->domains[i];
		}
	}
	world_fail("mail for <%s> came to port %u", address, ss->receiver->port);
}

/* What is between the brackets of "RCPT TO:<...>". */
static bool path_of(const char *line, char *out, size_t room)
{
	const char *from = strchr(line, '<');
	const char *to = strrchr(line, '>');

	if (from == NULL || to == NULL || to < from || (size_t)(to - from) > room) {
		return false;
	}
	memcpy(out, from + 1, (size_t)(to - from) - 1);
	out[to - from - 1] = '\0';
	return true;
}

static void on_rcpt(struct receiver_session *ss, const char *line)
{
	char address[RECEIVER_ADDRESS_MAX];
	const struct scenario_domain *d;
	unsigned code;

	if (!path_of(line, address, sizeof address)) {
		world_fail("the program said \"%.200s\"", line);
	}
	if (!ss->has_mail) {
		receiver_reply(ss, RECEIVER_WRONG, 503);
		return;
	}
	d = domain_of(ss, address);
	if (ss->rcpt_count++ > 0 && d != ss->domain) {
		world_fail("a transaction has recipients of %s and %s", ss->domain->name, d->name);
	}
	ss->domain = d;
	if (ss->rcpt_count > RECEIVER_RECIPIENTS_MAX) {
		world_fail("a transaction has more than %d recipients", RECEIVER_RECIPIENTS_MAX);
	}
	code = receiver_refusal(ss, RECEIVER_RCPT);
	if (code == 0) {
		memcpy(ss->recipients[ss->recipient_count++], address, sizeof address);
	}
	receiver_reply(ss, RECEIVER_RCPT, code != 0 ? code : 250);
}

static void on_mail(struct receiver_session *ss)
{
	unsigned code = receiver_refusal(ss, RECEIVER_MAIL);

	if (ss->has_mail) {
		receiver_reply(ss, RECEIVER_WRONG, 503);
		return;
	}
	forget_transaction(ss);
	ss->has_mail = code == 0;
	receiver_reply(ss, RECEIVER_MAIL, code != 0 ? code : 250);
}

/* Nobody is left to send it to: some servers ask for the data all the same. */
static void on_data(struct receiver_session *ss)
{
	unsigned code = receiver_refusal(ss, RECEIVER_DATA);

	if (!ss->has_mail || (ss->recipient_count == 0 && world_chance(700))) {
		code = world_chance(500) ? 503 : 554;
	}
	ss->in_body = code == 0;
	ss->body_len = 0;
	receiver_reply(ss, RECEIVER_DATA, code != 0 ? code : 354);
}

static void on_dot(struct receiver_session *ss)
{
	unsigned code = receiver_refusal(ss, RECEIVER_DOT);

	ss->in_body = false;
	if (ss->in_chunk) {
		ss->uncounted = true;
	} else {
		count_transaction(ss);
		ss->rcpt_count = 0;
	}
	ss->in_chunk = false;
	/* Recipients and body are there until the next MAIL: the reply may take its time. */
	ss->has_mail = false;
	if (ss->recipient_count == 0) {
		code = 554;
	}
	receiver_reply(ss, RECEIVER_DOT, code != 0 ? code : 250);
}

/* The octets come whatever becomes of them. */
static void on_bdat(struct receiver_session *ss, const char *line)
{
	unsigned long long octets;
	char last[8];

	if (sscanf(line, "BDAT %llu %7s", &octets, last) != 2 || strcmp(last, "LAST") != 0) {
		world_fail("the program said \"%.200s\"", line);
	}
	ss->in_body = true;
	ss->in_chunk = true;
	ss->chunk_left = octets;
	ss->body_len = 0;
}

static void on_rset(struct receiver_session *ss)
{
	unsigned code = receiver_refusal(ss, RECEIVER_RSET);

	count_transaction(ss);
	forget_transaction(ss);
	receiver_reply(ss, RECEIVER_RSET, code != 0 ? code : 250);
}

/* ---- input ---- */

static void on_hello(struct receiver_session *ss, enum receiver_stage stage)
{
	unsigned code = receiver_refusal(ss, stage);

	/* An old server: it knows HELO only. */
	if (code == 0 && stage == RECEIVER_EHLO && world_chance(50)) {
		code = world_chance(500) ? 500 : 502;
	}
	receiver_reply(ss, stage, code != 0 ? code : 250);
}

/* Who was told nonsense may send a body where commands are awaited. */
static void on_unknown(struct receiver_session *ss, const char *line)
{
	if (!ss->lied) {
		world_fail("the program said \"%.200s\" to %s", line, ss->domain->name);
	}
	receiver_reply(ss, RECEIVER_WRONG, 500);
}

static void on_line(struct receiver_session *ss, const char *line)
{
	world_say("to %s on %llu: %s", ss->domain->name, (unsigned long long)ss->end->number, line);
	if (ss->uncounted) {
		ss->uncounted = false;
		count_transaction(ss);
		ss->rcpt_count = 0;
	}
	if (strncasecmp(line, "EHLO ", 5) == 0) {
		on_hello(ss, RECEIVER_EHLO);
	} else if (strncasecmp(line, "HELO ", 5) == 0) {
		on_hello(ss, RECEIVER_HELO);
	} else if (strncasecmp(line, "MAIL FROM:<", 11) == 0) {
		on_mail(ss);
	} else if (strncasecmp(line, "RCPT TO:<", 9) == 0) {
		on_rcpt(ss, line);
	} else if (strcasecmp(line, "DATA") == 0) {
		on_data(ss);
	} else if (strncasecmp(line, "BDAT ", 5) == 0) {
		on_bdat(ss, line);
	} else if (strcasecmp(line, "RSET") == 0) {
		on_rset(ss);
	} else if (strcasecmp(line, "QUIT") == 0) {
		receiver_reply(ss, RECEIVER_QUIT, 221);
	} else {
		on_unknown(ss, line);
	}
}

static void use_input(struct receiver_session *ss, size_t len)
{
	ss->input_len -= len;
	memmove(ss->input, ss->input + len, ss->input_len);
}

/* Looks at one line; false when there is none yet. */
static bool take_line(struct receiver_session *ss)
{
	char *lf = memchr(ss->input, '\n', ss->input_len);
	char line[RECEIVER_INPUT_MAX];
	size_t len;

	if (lf == NULL) {
		if (ss->input_len == sizeof ss->input) {
			world_fail("the program sent a line without an end");
		}
		return false;
	}
	len = (size_t)(lf - ss->input);
	if (len == 0 || lf[-1] != '\r') {
		world_fail("the program sent a line that ends in a bare LF");
	}
	memcpy(line, ss->input, len - 1);
	line[len - 1] = '\0';
	use_input(ss, len + 1);
	on_line(ss, line);
	return true;
}

static void keep_body(struct receiver_session *ss, const char *data, size_t len)
{
	if (ss->body_len + len > ss->body_room) {
		size_t room = ss->body_room != 0 ? ss->body_room * 2 : BODY_FIRST;
		char *grown;

		while (room < ss->body_len + len) {
			room *= 2;
		}
		grown = world_alloc(room);
		if (ss->body_len > 0) {
			memcpy(grown, ss->body, ss->body_len);
		}
		world_free(ss->body, ss->body_room);
		ss->body = grown;
		ss->body_room = room;
	}
	memcpy(ss->body + ss->body_len, data, len);
	ss->body_len += len;
}

/* In the midst of a body: the peer goes, says no already, or looks away for a while. */
static void disturb_body(struct receiver_session *ss)
{
	const struct scenario_domain *d = ss->domain;

	if (receiver_chance(d->drop / 8)) {
		receiver_drop(ss);
	} else if (receiver_chance(d->fail / 16)) {
		receiver_say(ss, "552 5.3.4 That is too much already\r\n");
		ss->ending = RECEIVER_CLOSE;
	}
}

/* Where the body ends in what is kept, its last CRLF included; SIZE_MAX: not yet. */
static size_t body_end(const struct receiver_session *ss, size_t looked_at)
{
	size_t from = looked_at > 4 ? looked_at - 4 : 0;
	const char *found;

	if (ss->body_len >= 3 && memcmp(ss->body, ".\r\n", 3) == 0) {
		return 0;
	}
	found = memmem(ss->body + from, ss->body_len - from, "\r\n.\r\n", 5);
	return found != NULL ? (size_t)(found - ss->body) + 2 : SIZE_MAX;
}

/* The body as the books know it: in wire form. */
static void stuff_body(struct receiver_session *ss)
{
	size_t len = ss->body_len;
	char *plain = world_alloc(len + 1);
	bool line_starts = true;

	memcpy(plain, ss->body, len);
	ss->body_len = 0;
	for (size_t i = 0; i < len; i++) {
		if (line_starts && plain[i] == '.') {
			keep_body(ss, ".", 1);
		}
		keep_body(ss, plain + i, 1);
		line_starts = plain[i] == '\n';
	}
	world_free(plain, len + 1);
}

/* The octets of a chunk, and no more. */
static bool take_chunk(struct receiver_session *ss)
{
	size_t used = ss->input_len < ss->chunk_left ? ss->input_len : ss->chunk_left;

	if (used == 0 && ss->chunk_left > 0) {
		return false;
	}
	keep_body(ss, ss->input, used);
	use_input(ss, used);
	ss->chunk_left -= used;
	if (ss->chunk_left > 0) {
		disturb_body(ss);
		return ss->ending == RECEIVER_OPEN;
	}
	stuff_body(ss);
	on_dot(ss);
	return true;
}

static bool take_body(struct receiver_session *ss)
{
	size_t before = ss->body_len;
	size_t end;
	size_t used;

	if (ss->in_chunk) {
		return take_chunk(ss);
	}
	if (ss->input_len == 0) {
		return false;
	}
	keep_body(ss, ss->input, ss->input_len);
	end = body_end(ss, before);
	if (end == SIZE_MAX) {
		ss->input_len = 0;
		disturb_body(ss);
		return ss->ending == RECEIVER_OPEN;
	}
	used = end + 3 - before;
	ss->body_len = end;
	use_input(ss, used);
	on_dot(ss);
	return true;
}

/* Reads more; false when there is nothing now, or nothing any more. */
static bool read_more(struct receiver_session *ss)
{
	size_t room = sizeof ss->input - ss->input_len;
	ssize_t n;

	if (ss->slow && !world->calm && room > SLOW_BYTES) {
		room = world_between(1, SLOW_BYTES);
	}
	n = net_read(ss->end, ss->input + ss->input_len, room);
	if (n <= 0) {
		ss->gone = n != -EAGAIN;
		return false;
	}
	ss->input_len += (size_t)n;
	return true;
}

static void on_rested(void *object, uint64_t value)
{
	struct receiver_session *ss = object;

	(void)value;
	ss->thinking = false;
	work(ss);
}

/* After some bytes a slow reader rests. */
static void rest(struct receiver_session *ss)
{
	if (ss->slow && !world->calm) {
		ss->thinking = true;
		world_at(world_below(SLOW_NS_MAX), on_rested, ss, 0);
	}
}

/* Everything that happens to a session ends here. */
static void work(struct receiver_session *ss)
{
	bool more = true;

	while (more && flush(ss) && ss->ending == RECEIVER_OPEN && !ss->thinking && !ss->gone) {
		more = ss->in_body ? take_body(ss) : take_line(ss);
		if (!more && ss->ending == RECEIVER_OPEN) {
			more = read_more(ss);
			if (more) {
				rest(ss);
			}
		}
	}
	if (ss->gone || (ss->ending != RECEIVER_OPEN && ss->output_len == 0)) {
		free_session(ss);
	}
}

static void on_event(struct net_end *end, int events, void *context)
{
	struct receiver_session *ss = context;

	(void)end;
	if ((events & NET_BROKEN) != 0) {
		ss->gone = true;
	}
	work(ss);
}

/* ---- connections ---- */

/* The peer has had enough of a connection that may be idle, or just in use again. */
static void on_tired(void *object, uint64_t value)
{
	struct receiver_session *ss = object;

	(void)value;
	if (!world->calm && !ss->thinking && ss->ending == RECEIVER_OPEN) {
		receiver_drop(ss);
		work(ss);
	}
}

static bool too_many(const struct receiver *r)
{
	for (uint32_t i = 0; i < r->domain_count; i++) {
		uint32_t limit = r->domains[i]->sudden_limit;

		if (limit != 0 && r->sessions > limit && !world->calm) {
			return true;
		}
	}
	return false;
}

static void on_greet(void *object, uint64_t value)
{
	struct receiver_session *ss = object;
	unsigned code;

	(void)value;
	ss->thinking = false;
	if (too_many(ss->receiver)) {
		receiver_say(ss, "421 4.7.0 Too many connections\r\n");
		ss->ending = RECEIVER_CLOSE;
	} else {
		code = receiver_refusal(ss, RECEIVER_BANNER);
		receiver_reply(ss, RECEIVER_BANNER, code != 0 ? code : 220);
	}
	work(ss);
}

/* Until a recipient tells, it is anybody's connection: nobody must hear a 5xx who has a receiver
 * that says none. */
static const struct scenario_domain *draw_domain(const struct receiver *r)
{
	for (uint32_t i = 0; i < r->domain_count; i++) {
		if (r->domains[i]->fail == 0 && r->domains[i]->garbage == 0) {
			return r->domains[i];
		}
	}
	return r->domains[world_below(r->domain_count)];
}

static bool on_accept(struct net_end *end, void *context)
{
	struct receiver *r = context;
	struct receiver_session *ss;

	if (too_many(r) && world_chance(300)) {
		return false;
	}
	ss = world_alloc(sizeof *ss);
	ss->receiver = r;
	ss->end = end;
	ss->domain = draw_domain(r);
	ss->life = world->life;
	ss->slow = receiver_chance(ss->domain->slow);
	ss->recipients = world_alloc(RECEIVER_RECIPIENTS_MAX * sizeof *ss->recipients);
	r->sessions++;
	end->on_event = on_event;
	end->context = ss;
	ss->thinking = true;
	world_at(0, on_greet, ss, 0);
	if (receiver_chance(ss->domain->drop)) {
		world_at(world_between(10 * NS_PER_MS, 10 * NS_PER_S), on_tired, ss, 0);
	}
	return true;
}

/* ---- all of them ---- */

static struct receiver *find(uint16_t port)
{
	const struct receivers *all = world->receivers;

	for (uint32_t i = 0; i < all->count; i++) {
		if (all->all[i]->port == port) {
			return all->all[i];
		}
	}
	return NULL;
}

static void on_watch(void *context, const struct sockaddr_storage *from,
		     const struct sockaddr_storage *to, int change)
{
	const struct sockaddr_in *source = (const struct sockaddr_in *)(const void *)from;
	struct receiver *r = find(ntohs(((const struct sockaddr_in *)(const void *)to)->sin_port));

	(void)context;
	if (r != NULL) {
		books_connection(world->books, r->domains[0]->name,
				 scenario_binding_at(ntohl(source->sin_addr.s_addr)), change);
	}
}

static struct receiver *make(uint16_t port)
{
	struct receivers *all = world->receivers;
	struct receiver *r = world_alloc(sizeof *r);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

	r->port = port;
	all->all[all->count++] = r;
	net_listen(world->net, (struct sockaddr *)&address, sizeof address, on_accept, r);
	return r;
}

void receivers_create(struct scenario *s)
{
	world->receivers = world_alloc(sizeof(struct receivers));
	for (uint32_t i = 0; i < s->domain_count; i++) {
		struct receiver *r = find(s->domains[i].port);

		if (r == NULL) {
			r = make(s->domains[i].port);
		}
		r->domains[r->domain_count++] = &s->domains[i];
	}
	net_watch(world->net, on_watch, NULL);
}
