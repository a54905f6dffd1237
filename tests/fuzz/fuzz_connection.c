/*
 * A server's side of an outbound connection: two bytes of options and one that sizes the messages,
 * then a script (fuzz_input.h) whose actions are in act(). The connection is the real one, the
 * dispatcher this target's: it hands over one delivery after the other.
 *
 * What goes out is read as a server would: whole commands, bodies as they are, one dot at the end
 * of each. Each delivery comes back once; a recipient counts as delivered only if the server said
 * 2xx to it, 354 to DATA, and 2xx after it had all of the body.
 */
#include <errno.h>

#include "agents/wheel.h"
#include "core/outbound/connection.h"
#include "core/runtime/runtime.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/net.h"

#define DELIVERIES_MAX 4
#define ITEMS_MAX 4096
#define REPLIES_MAX 65536
#define SETTLE_MAX 100000

/* What lasts from one input to the next. */
static struct world {
	struct runtime runtime;
	struct agent agent;
	struct wheel_agent *wheel;
	struct net net;
	struct mail_pools pools;
	struct dispatcher dispatcher;
	struct outbound_limits limits;
	uint64_t now_ns;
	bool begun;
} w;

/* One thing that the server is asked, and how many replies it had given by then. */
struct item {
	char verb[5];
	unsigned delivery;
	uint32_t replies_before;
};

/* One connection. */
static struct talk {
	struct domain domain;
	struct site site;
	struct lane lane;
	struct domain_options options;
	struct connection *connection;
	struct delivery *deliveries[DELIVERIES_MAX];
	unsigned count;
	/* The one on the connection, and the next one. */
	unsigned current;
	unsigned next;
	bool loading;
	unsigned tries;
	unsigned setup_failed;
	bool closed;
	/* Replies by their code. */
	uint16_t replies[REPLIES_MAX];
	uint32_t reply_count;
	char line[4];
	size_t line_len;
	/* What the server was asked; the banner is reply 0, so item i is answered by i + 1. */
	struct item items[ITEMS_MAX];
	uint32_t item_count;
	/* What it reads now. */
	char command[2048];
	size_t command_len;
	bool in_body;
	uint64_t body_len;
	/* The last bytes of the body. */
	char tail[5];
} * talk;

/* ---- the server's ears ---- */

static uint16_t reply_to(uint32_t item)
{
	return item + 1 < talk->reply_count ? talk->replies[item + 1] : 0;
}

static void item_add(const char *verb)
{
	struct item *i = &talk->items[talk->item_count++];

	FUZZ_CHECK(talk->item_count <= ITEMS_MAX);
	memcpy(i->verb, verb, 4);
	i->verb[4] = '\0';
	i->delivery = talk->current;
	i->replies_before = talk->reply_count;
}

static void hear_command(void)
{
	static const char *const verbs[] = {"EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"};
	bool known = false;

	for (unsigned i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		known |= memcmp(talk->command, verbs[i], 4) == 0;
	}
	FUZZ_CHECK(known && talk->command_len >= 4);
	item_add(talk->command);
}

static const struct message *message_of(unsigned delivery)
{
	return talk->deliveries[delivery]->message;
}

/* A line of `a`s and CR LF, over and over: the body is never empty but for its line ends. */
static void hear_body(char c)
{
	bool ended;

	memmove(talk->tail, talk->tail + 1, 4);
	talk->tail[4] = c;
	talk->body_len++;
	ended = (talk->body_len == 3 && memcmp(talk->tail + 2, ".\r\n", 3) == 0) ||
		(talk->body_len > 3 && memcmp(talk->tail, "\r\n.\r\n", 5) == 0);
	FUZZ_CHECK(strchr("a\r\n.", c) != NULL && (c != '.' || talk->tail[3] != 'a'));
	if (ended) {
		talk->in_body = false;
		item_add(talk->body_len > 3 ? "dot " : "nil ");
		FUZZ_CHECK(talk->body_len == 3 ||
			   talk->body_len - 3 ==
				   message_envelope(message_of(talk->current))->body_bytes);
	}
}

static bool body_follows(void)
{
	uint32_t count = talk->item_count;

	return count > 0 && strcmp(talk->items[count - 1].verb, "DATA") == 0 &&
	       reply_to(count - 1) == 354;
}

static void hear(char c)
{
	if (!talk->in_body && talk->command_len == 0 && body_follows()) {
		talk->in_body = true;
		talk->body_len = 0;
		memset(talk->tail, 0, sizeof(talk->tail));
	}
	if (talk->in_body) {
		hear_body(c);
		return;
	}
	FUZZ_CHECK(talk->command_len < sizeof(talk->command) && (unsigned char)c != '\0');
	if (c != '\n') {
		talk->command[talk->command_len++] = c;
		return;
	}
	FUZZ_CHECK(talk->command_len > 0 && talk->command[talk->command_len - 1] == '\r');
	hear_command();
	talk->command_len = 0;
}

static void on_sent(void *context, const unsigned char *data, size_t len)
{
	(void)context;
	for (size_t i = 0; i < len; i++) {
		hear((char)data[i]);
	}
}

/* ---- the server's mouth: which replies the client has seen ---- */

static void count_reply_byte(unsigned char c)
{
	if (c != '\n') {
		if (talk->line_len < 4) {
			talk->line[talk->line_len] = (char)c;
		}
		talk->line_len++;
		return;
	}
	if (talk->line_len < 4 || talk->line[3] != '-') {
		FUZZ_CHECK(talk->reply_count < REPLIES_MAX);
		talk->replies[talk->reply_count++] =
			(uint16_t)((talk->line[0] - '0') * 100 + (talk->line[1] - '0') * 10 +
				   (talk->line[2] - '0'));
	}
	talk->line_len = 0;
}

/* ---- the dispatcher ---- */

static bool has(const struct recipient_set *s, unsigned place)
{
	return recipient_set_has(s, place);
}

/* The items of the transaction that ends now: from its MAIL. */
static uint32_t transaction_start(void)
{
	uint32_t at = talk->item_count;

	while (at > 0 && strcmp(talk->items[at - 1].verb, "MAIL") != 0) {
		at--;
	}
	return at;
}

/* What the server must have said for anyone to be delivered to. */
static void check_delivered(const struct connection *c)
{
	uint32_t mail = transaction_start();
	uint32_t rcpt = mail;
	uint32_t data = mail + c->batch_count;
	const struct item *dot;

	FUZZ_CHECK(mail > 0 && data + 1 < talk->item_count);
	FUZZ_CHECK(talk->items[mail - 1].delivery == talk->current);
	FUZZ_CHECK(reply_to(mail - 1) / 100 == 2 && reply_to(data) == 354);
	dot = &talk->items[data + 1];
	FUZZ_CHECK(strcmp(dot->verb, "dot ") == 0 && reply_to(data + 1) / 100 == 2);
	FUZZ_CHECK(dot->replies_before <= data + 2);
	for (unsigned place = 0; place < ENVELOPE_DELIVERY_RECIPIENTS; place++) {
		if (has(&c->batch, place)) {
			FUZZ_CHECK(strcmp(talk->items[rcpt].verb, "RCPT") == 0);
			FUZZ_CHECK(!has(&c->attempt.delivered, place) || reply_to(rcpt) / 100 == 2);
			rcpt++;
		}
	}
}

static void check_attempt(const struct connection *c, const struct delivery *delivery)
{
	const struct attempt *a = &c->attempt;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t all = a->delivered.bits[i] | a->failed.bits[i] | a->deferred.bits[i];

		FUZZ_CHECK((a->delivered.bits[i] & a->failed.bits[i]) == 0);
		FUZZ_CHECK((a->delivered.bits[i] & a->deferred.bits[i]) == 0);
		FUZZ_CHECK((a->failed.bits[i] & a->deferred.bits[i]) == 0);
		FUZZ_CHECK((all & ~delivery->pending.bits[i]) == 0);
		FUZZ_CHECK((c->batch.bits[i] & ~all) == 0);
	}
	FUZZ_CHECK(memchr(a->text, '\0', sizeof(a->text)) != NULL);
	for (unsigned i = 0; a->replies != NULL && i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
		FUZZ_CHECK(a->replies[i].text == NULL || has(&delivery->pending, i));
	}
	if (!recipient_set_empty(&a->delivered)) {
		FUZZ_CHECK(!a->not_tried);
		check_delivered(c);
	}
}

void dispatch_on_ready(struct connection *c)
{
	FUZZ_CHECK(!talk->closed && (c->state == CONNECTION_IDLE || c->state == CONNECTION_QUIT));
	while (c->state == CONNECTION_IDLE && talk->next < talk->count) {
		talk->current = talk->next++;
		talk->deliveries[talk->current]->place = DELIVERY_ATTEMPT;
		connection_assign(c, talk->deliveries[talk->current], talk->loading);
	}
}

void dispatch_on_attempt(struct connection *c, struct delivery *delivery)
{
	FUZZ_CHECK(delivery == talk->deliveries[talk->current]);
	FUZZ_CHECK(delivery->place == DELIVERY_ATTEMPT && c->delivery == NULL);
	check_attempt(c, delivery);
	delivery->place = DELIVERY_TRANSIT;
	delivery->connection = NULL;
	/* Whoever still sends it sends nonsense from here on. */
	for (struct chain_buffer *b = message_body(delivery->message)->head; b != NULL;
	     b = b->next) {
		memset(b->data, 'X', b->len);
	}
	talk->tries++;
}

/* The account of bodies that were read back is the dispatcher's. */
void dispatch_on_unloaded(struct connection *c)
{
	FUZZ_CHECK(c == talk->connection);
}

void dispatch_on_setup_failed(struct connection *c)
{
	FUZZ_CHECK(c->delivery == NULL && c->attempt.text[0] != '\0');
	talk->setup_failed++;
}

void dispatch_on_closed(struct connection *c)
{
	FUZZ_CHECK(c == talk->connection && c->delivery == NULL && !talk->closed);
	talk->closed = true;
	talk->connection = NULL;
}

/* ---- the world ---- */

static int on_do_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops ops = {.kind = "scheduler", .do_work = on_do_work};

static uint64_t clock_now(void *context)
{
	(void)context;
	return w.now_ns;
}

/* As dispatcher_init() does, without what this target has itself. */
static void dispatcher_begin(void)
{
	struct dispatcher *x = &w.dispatcher;

	x->self = &w.agent;
	x->pools = &w.pools;
	x->limits = &w.limits;
	pool_init(&x->connections, "connections", sizeof(struct connection), 0);
	x->commands_pipelined =
		counter_create(w.agent.counters, "commands_pipelined", COUNTER_SUM, "Commands");
	x->reused = counter_create(w.agent.counters, "reused", COUNTER_SUM, "Transactions");
}

static void world_begin(void)
{
	const struct clock clock = {clock_now, clock_now, NULL};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct group *group;

	w.now_ns = UINT64_C(1750000000) * NS_PER_S;
	runtime_init(&w.runtime, &clock);
	w.runtime.backend = MUX_POLL;
	group = runtime_group(&w.runtime, "fuzz", -1, &idle);
	agent_init(&w.agent, &ops, "scheduler.0", 1);
	mail_pools_init(&w.pools);
	runtime_add(&w.runtime, group, &w.agent);
	w.wheel = wheel_agent_create("wheel");
	runtime_add(&w.runtime, group, wheel_agent_base(w.wheel));
	runtime_set_wheel(&w.runtime, wheel_agent_base(w.wheel), wheel_agent_on_arm);
	FUZZ_CHECK(runtime_prepare(&w.runtime) == 0);
	FUZZ_CHECK(runtime_invoke_start(&w.runtime) == 0);
	dispatcher_begin();
	w.net.on_sent = on_sent;
	w.net.close_fds = true;
	net_install(&w.net, group);
	w.begun = true;
}

static void settle(void)
{
	unsigned idle = 0;

	for (unsigned i = 0; idle < 3; i++) {
		FUZZ_CHECK(i < SETTLE_MAX);
		idle = runtime_step(&w.runtime) > 0 ? 0 : idle + 1;
	}
}

static void on_agent_begin(void)
{
	agent_current = &w.agent;
	w.agent.now = (struct instant){w.now_ns, w.now_ns};
}

static void on_agent_end(void)
{
	agent_flush(&w.agent);
	agent_current = NULL;
}

/* ---- the conversation ---- */

static struct delivery *make_delivery(unsigned number, unsigned recipients, size_t lines)
{
	struct envelope_builder b;
	struct message *m;
	struct envelope *e;
	struct delivery *d;
	char line[80];
	char address[32];

	envelope_builder_init(&b);
	envelope_set_sender(&b, "sender@here.test", 16);
	for (unsigned i = 0; i < recipients; i++) {
		int len = snprintf(address, sizeof(address), "r%03u@there.test", i);

		envelope_add_recipient(&b, address, (size_t)len);
	}
	m = message_create(&w.pools, envelope_size(&b));
	e = message_envelope(m);
	envelope_build(&b, e);
	envelope_builder_close(&b);
	e->id.low = number;
	memset(line, 'a', sizeof(line));
	memcpy(line + 78, "\r\n", 2);
	for (size_t i = 0; i < lines; i++) {
		chain_append(message_body(m), &w.pools.buffers, line, sizeof(line));
	}
	e->body_bytes = message_body(m)->len;
	message_set_resident(m, &w.pools);
	d = delivery_create(&w.pools, m, 0);
	message_use_content(m, 1);
	d->uses_content = true;
	return d;
}

static void begin(unsigned options, unsigned more, unsigned size)
{
	static const unsigned recipients[4] = {1, 2, 5, 100};
	static const unsigned lines[4] = {1, 2, 60, 3400};
	struct host host = {.address_len = sizeof(struct sockaddr_in)};
	int error;

	talk->count = 1 + (options & 3);
	talk->loading = (options & 4) != 0;
	talk->domain.options = &talk->options;
	talk->lane.options = &talk->options;
	talk->lane.site = &talk->site;
	talk->options = (struct domain_options){
		.max_recipients_per_batch = (options & 8) != 0 ? 2 : 1000,
		.max_deliveries_per_connection = (options & 16) != 0 ? 2 : 0,
		.connect_timeout_ms = 30000,
		.ehlo_timeout_ms = 31000,
		.mailfrom_timeout_ms = 32000,
		.rcptto_timeout_ms = 33000,
		.body_timeout_ms = 34000,
		.rset_timeout_ms = 35000,
		.idle_timeout_ms = 5000,
		.ehlo_hostname = "mta.test",
	};
	for (unsigned i = 0; i < talk->count; i++) {
		talk->deliveries[i] =
			make_delivery(i, recipients[(size >> (2 * i)) & 3], lines[more & 3]);
		more >>= 2;
		if ((options & 32) != 0) {
			message_envelope(talk->deliveries[i]->message)->flags = ENVELOPE_SMTPUTF8;
		}
	}
	host.address.any.sa_family = AF_INET;
	host.name = "mx.test";
	on_agent_begin();
	talk->connection = connection_open(&w.dispatcher, &talk->lane, &host, &error);
	talk->connection->domain = &talk->domain;
	on_agent_end();
	FUZZ_CHECK(talk->connection != NULL);
}

static void say(const unsigned char *data, size_t len)
{
	net_say(&w.net, data, len);
	/* All of a piece was said before the client acts on any of it. */
	for (size_t i = 0; i < len; i++) {
		count_reply_byte(data[i]);
	}
	settle();
}

static void loaded(void)
{
	struct connection *c = talk->connection;

	if (c != NULL && c->state == CONNECTION_LOADING) {
		on_agent_begin();
		connection_begin(c);
		/* As the dispatcher does, when a message was refused here. */
		if (c->state == CONNECTION_IDLE) {
			dispatch_on_ready(c);
		}
		on_agent_end();
	}
}

static void end_connection(bool abort_it)
{
	struct connection *c = talk->connection;

	if (c == NULL) {
		return;
	}
	on_agent_begin();
	if (abort_it) {
		connection_abort(c, "451 4.3.2 [internal] stopping");
	} else if (c->state == CONNECTION_IDLE) {
		connection_quit(c);
	}
	on_agent_end();
}

/* Any other letter only ends a piece. */
static void act(unsigned action)
{
	switch (action) {
	case 'l':
		loaded();
		break;
	case 'w':
		w.net.out_stalled = !w.net.out_stalled;
		break;
	case 't':
		w.now_ns += 6000 * NS_PER_MS;
		break;
	case 'T':
		w.now_ns += 40000 * NS_PER_MS;
		break;
	case 'c':
		w.net.in_end = true;
		break;
	case 'r':
		w.net.in_error = -ECONNRESET;
		break;
	case 's':
		w.net.out_error = -EPIPE;
		break;
	case 'q':
	case 'Q':
		end_connection(action == 'Q');
		break;
	default:
		break;
	}
	settle();
}

static void finish(void)
{
	w.net.out_stalled = false;
	w.net.in_end = true;
	settle();
	loaded();
	settle();
	for (unsigned i = 0; i < 8 && !talk->closed; i++) {
		w.now_ns += 40000 * NS_PER_MS;
		settle();
	}
	FUZZ_CHECK(talk->closed && w.net.closed == 1);
	/* Each that was handed over came back, once. */
	FUZZ_CHECK(talk->tries == talk->next);
	FUZZ_CHECK(talk->setup_failed <= 1);
	FUZZ_CHECK(talk->lane.connecting_count == 0 && talk->lane.idle_count == 0);
	for (unsigned i = 0; i < talk->count; i++) {
		delivery_destroy(talk->deliveries[i], &w.pools);
	}
	FUZZ_CHECK(w.pools.buffers.live == 0 && w.agent.timers.armed == 0);
	FUZZ_CHECK(w.dispatcher.connections.live == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct fuzz_step step;
	unsigned options = fuzz_byte(&in);
	unsigned more = fuzz_byte(&in);

	/* Each item may be answered once; more than that is not counted. */
	if (size > 32768) {
		return -1;
	}
	if (!w.begun) {
		world_begin();
	}
	talk = calloc(1, sizeof(*talk));
	FUZZ_CHECK(talk != NULL);
	net_reset(&w.net);
	begin(options, more, fuzz_byte(&in));
	settle();
	while (fuzz_step(&in, &step)) {
		if (step.len > 0) {
			say(step.data, step.len);
		} else {
			act(step.action);
		}
	}
	finish();
	free(talk);
	talk = NULL;
	return 0;
}
