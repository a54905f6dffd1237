/*
 * An SMTP client's side of a session: a byte of options, then a script (fuzz_input.h) whose actions
 * are in act(). The session is the real one on a scheduler of this target's; the spool answers at
 * once, or later, or with an error.
 *
 * Replies are well-formed, and one for each command, chunks with theirs, and each end of data. A
 * message is stored only if a slow reference finds the end of its data, it is what was sent, and it
 * is acknowledged once, after the spool has it. What was not stored had a reason to be refused.
 */
#include <errno.h>

#include "agents/password_file.h"
#include "agents/wheel.h"
#include "core/log/event_text.h"
#include "core/runtime/runtime.h"
#include "listeners/smtp/listener.h"
#include "listeners/smtp/session.h"
#include "tests/fuzz/chunk_reference.h"
#include "tests/fuzz/net.h"
#include "tests/unit/smtp_given.h"

#define SAID_MAX (1 << 20)
#define MESSAGES_MAX 4096
#define SETTLE_MAX 100000

struct store {
	struct message *message;
	stored_fn on_stored;
	void *owner;
};

/* What lasts from one input to the next. */
static struct world {
	struct runtime runtime;
	struct program program;
	struct scheduler scheduler;
	struct wheel_agent *wheel;
	struct smtp_listener *listener;
	struct net net;
	struct smtp_options options;
	uint64_t now_ns;
} w;

/* One conversation. */
static struct talk {
	/* All that was said, and how much of it before the data of the message under way. */
	unsigned char *said;
	size_t said_len;
	bool in_data;
	/* BDAT brings them; the client went away within one, which is not answered. */
	bool chunked;
	bool chunk_cut;
	size_t data_start;
	unsigned ends;
	/* The spool. */
	struct store store;
	bool store_holds;
	/* The thread pool. */
	struct job *job;
	bool job_holds;
	int refuses;
	int64_t receiving;
	int transactions;
	uint64_t ids;
	/* Low halves of the ids of messages that the spool took, in order. */
	uint64_t stored[MESSAGES_MAX];
	unsigned stored_count;
	/* What was replied. */
	char *replies;
	size_t replies_len;
	/* The client stalled, went away, or was turned away for reasons of ours. */
	bool stalled;
	bool broken;
	bool pressed;
	/* Since it last said something. */
	uint64_t silent_ms;
	uint64_t commands;
} * talk;

/* ---- the messages that are stored ---- */

static unsigned char *flatten(const struct chain *c, size_t *len)
{
	unsigned char *flat = malloc((size_t)c->len + 1);

	FUZZ_CHECK(flat != NULL);
	*len = (size_t)c->len;
	chain_copy_out(c, 0, flat, *len);
	flat[*len] = '\0';
	return flat;
}

/* Length of the field that was put in front: to the date behind the id, as mail that begins with a
 * blank looks like more of it. */
static size_t received_length(const struct envelope *e, const unsigned char *body, size_t len)
{
	static const char zone[] = " +0000\r\n";
	char id[MESSAGE_ID_TEXT];
	const unsigned char *at;

	FUZZ_CHECK(len > 9 && memcmp(body, "Received:", 9) == 0);
	message_id_format(&e->id, id);
	at = memmem(body, len, id, sizeof(id) - 1);
	FUZZ_CHECK(at != NULL);
	at = memmem(at, len - (size_t)(at - body), zone, sizeof(zone) - 1);
	FUZZ_CHECK(at != NULL);
	return (size_t)(at - body) + sizeof(zone) - 1;
}

static struct dot_reference reference(const unsigned char *data, size_t len)
{
	return dot_reference_scan(data, len, w.options.max_line_bytes - 2,
				  w.options.bare_lf == CONFIG_BARE_LF_ACCEPT);
}

/* The message as DATA would have brought it, with what followed; malloc. */
static unsigned char *sent_message(struct dot_reference *r)
{
	size_t len = w.net.received - talk->data_start;
	unsigned char *copy;

	if (talk->chunked) {
		struct chunk_reference c =
			chunk_reference(talk->said, talk->data_start, w.net.received);

		*r = reference(c.wire, c.len);
		FUZZ_CHECK(!r->ended && r->len == c.len);
		r->ended = c.ended;
		return c.wire;
	}
	copy = malloc(len + 1);
	FUZZ_CHECK(copy != NULL);
	memcpy(copy, talk->said + talk->data_start, len);
	*r = reference(copy, len);
	return copy;
}

static bool may_be_stored(const struct dot_reference *r)
{
	return r->ended &&
	       (w.options.max_message_bytes == 0 || r->len <= w.options.max_message_bytes) &&
	       (r->flags & (DOT_NUL | DOT_LONG_LINE)) == 0 && r->received <= DOT_HOPS_MAX &&
	       (dot_safe_as_is(r->flags) || w.options.bare_lf == CONFIG_BARE_LF_ACCEPT);
}

/* With bare line ends made whole, else exactly what was sent. */
static void check_body(const unsigned char *body, size_t len, const unsigned char *sent,
		       const struct dot_reference *r)
{
	struct dot_reference stored = dot_reference_scan(body, len, 998, false);
	unsigned char *a = malloc(2 * len + 1);
	unsigned char *b = malloc(2 * r->len + 1);
	size_t a_len;

	FUZZ_CHECK(a != NULL && b != NULL);
	FUZZ_CHECK(stored.len == len && dot_after_crlf(body, len) && dot_safe_as_is(stored.flags));
	a_len = dot_reference_plain(body, len, a);
	FUZZ_CHECK(a_len == dot_reference_plain(sent, r->len, b) && memcmp(a, b, a_len) == 0);
	if (dot_safe_as_is(r->flags)) {
		FUZZ_CHECK(len == r->len && memcmp(body, sent, len) == 0);
	}
	free(b);
	free(a);
}

static void check_message(const struct message *m)
{
	const struct envelope *e = message_envelope(m);
	struct dot_reference r;
	unsigned char *sent = sent_message(&r);
	size_t len;
	unsigned char *body = flatten(message_body(m), &len);
	size_t received = received_length(e, body, len);

	FUZZ_CHECK(may_be_stored(&r));
	FUZZ_CHECK(envelope_check(e, e->size) == 0 && e->body_bytes == len);
	FUZZ_CHECK(e->recipient_count > 0 && e->id.low == talk->ids);
	FUZZ_CHECK((r.flags & DOT_8BIT) == 0 || (e->flags & ENVELOPE_8BITMIME) != 0);
	check_body(body + received, len - received, sent, &r);
	/* What goes out in chunks is not searched for dots when the envelope says that there are
	 * none. */
	r = dot_reference_scan(body, len, 998, false);
	FUZZ_CHECK((r.flags & DOT_STUFFED) == 0 || (e->flags & ENVELOPE_UNSTUFFED) == 0);
	free(body);
	free(sent);
}

/* The data that began last, if they have ended and were not stored, were refused. */
static void check_refused(void)
{
	struct dot_reference r;

	if (!talk->in_data) {
		return;
	}
	talk->in_data = false;
	if (talk->chunked) {
		/* Another command may have ended it. */
		return;
	}
	r = reference(talk->said + talk->data_start, w.net.received - talk->data_start);
	if (!talk->stalled && !talk->broken && !talk->pressed) {
		FUZZ_CHECK(!may_be_stored(&r));
	}
	talk->ends += r.ended;
}

/* ---- the scheduler that the listener is given ---- */

/* Mail data begin: DATA is the last that was said until now, or BDAT was looked at. */
struct message_id scheduler_new_id(struct scheduler *s)
{
	const struct smtp_session *ss = smtp_session_of_all(w.listener->sessions.next);
	struct smtp_command c;

	(void)s;
	check_refused();
	talk->in_data = true;
	talk->data_start = w.net.received - ss->unread;
	talk->chunked = chunk_reference_begins(talk->said, talk->data_start, &c);
	FUZZ_CHECK(talk->chunked || ss->unread == 0);
	return (struct message_id){.high = 0x123456789abc0001, .low = ++talk->ids};
}

int scheduler_refuses(const struct scheduler *s)
{
	(void)s;
	return talk->refuses;
}

void scheduler_receiving(struct scheduler *s, int64_t bytes, int transactions)
{
	(void)s;
	talk->receiving += bytes;
	talk->transactions += transactions;
	FUZZ_CHECK(talk->receiving >= 0 && talk->transactions >= 0);
}

/* Memory is no matter here. */
uint64_t scheduler_reception_share(const struct scheduler *s, bool stalls)
{
	(void)s;
	(void)stalls;
	return UINT64_MAX;
}

const struct dkim_policy *scheduler_sign(struct scheduler *s, struct chain *message)
{
	(void)s;
	(void)message;
	return NULL;
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	mux_close(s->base.mux, a->fd);
	free(a);
}

/* It stays. */
void scheduler_hand_on(struct scheduler *s, struct accept *a)
{
	(void)s;
	(void)a;
	FUZZ_CHECK(false);
}

void scheduler_store(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner)
{
	FUZZ_CHECK(talk->in_data && talk->store.message == NULL);
	check_message(m);
	talk->in_data = false;
	talk->ends += !talk->chunked;
	message_set_resident(m, &s->pools);
	talk->store = (struct store){m, on_stored, owner};
}

void scheduler_understand(struct scheduler *s, struct message *m, uint64_t batch,
			  uint64_t connection, const char *peer_ip, stored_fn on_taken, void *owner)
{
	(void)batch;
	(void)connection;
	(void)peer_ip;
	scheduler_store(s, m, on_taken, owner);
}

static void check_log(const char *line, size_t len, unsigned fields, char type)
{
	size_t n;
	const char *field = event_text_field(line, len, 4, &n);

	FUZZ_CHECK(memchr(line, '\n', len) == NULL);
	FUZZ_CHECK(field != NULL && n == 1 && field[0] == type);
	FUZZ_CHECK(event_text_field(line, len, fields - 1, &n) != NULL);
	FUZZ_CHECK(event_text_field(line, len, fields, &n) == NULL);
}

void log_event(struct log_client *c, const struct event *e)
{
	enum log_file file = event_log(e->kind);
	char line[EVENT_TEXT_LINE_MAX];
	size_t len = event_text(line, file, e);

	(void)c;
	FUZZ_CHECK(len > 0);
	if (file == LOG_MAIN) {
		check_log(line, len, 14, 'R');
	} else if (file == LOG_ACCT) {
		FUZZ_CHECK(line[len - 1] == '0' || line[len - 1] == '1');
	} else {
		check_log(line, len, 13, 'J');
	}
}

void log_event_again(struct log_client *c, const struct event *e, uint32_t changed)
{
	FUZZ_CHECK(changed == EVENT_BIT(EVENT_RECIPIENT));
	log_event(c, e);
}

/* A field that inputs have, and metadata. */
const char *const *config_captured(const struct config *config, uint32_t *count)
{
	static const char *const keys[] = {"subject:", "to"};

	(void)config;
	*count = 2;
	return keys;
}

const struct smtp_options *config_smtp(const struct config *config, uint32_t index,
				       const struct in6_addr *peer)
{
	(void)config;
	(void)index;
	(void)peer;
	return &w.options;
}

bool config_smtp_listen_find(const struct config *config, const struct listen_options *like,
			     uint32_t *index)
{
	(void)config;
	(void)like;
	(void)index;
	return false;
}

void thread_pool_run(struct thread_pool *p, struct agent *self, struct job *job)
{
	(void)p;
	FUZZ_CHECK(talk->job == NULL && job->from == self);
	talk->job = job;
}

/* Without the time that a hash takes. */
int password_file_check(const char *path, const char *user, const char *password,
			char binding[ENVELOPE_BINDING_MAX + 1])
{
	strcpy(binding, user[0] == 'y' ? "b" : "");
	FUZZ_CHECK(strcmp(path, "users") == 0);
	FUZZ_CHECK(strlen(user) > 0 && strlen(user) < 256 && strlen(password) < 256);
	return user[0] == 'x' ? -EIO : strcmp(password, "open") == 0 ? 0 : -EACCES;
}

static int run_job(void)
{
	struct job *job = talk->job;

	if (job == NULL) {
		return 0;
	}
	talk->job = NULL;
	job->work(job);
	job->on_done(job->from, job, 0);
	return 1;
}

static int answer_store(int result)
{
	struct scheduler *s = &w.scheduler;
	struct store x = talk->store;

	if (x.message == NULL) {
		return 0;
	}
	talk->store.message = NULL;
	if (result == 0) {
		FUZZ_CHECK(talk->stored_count < MESSAGES_MAX);
		talk->stored[talk->stored_count++] = message_envelope(x.message)->id.low;
	}
	x.on_stored(s, x.owner, result);
	message_release(x.message, &s->pools);
	return 1;
}

/* ---- the world ---- */

static int on_start(struct agent *self)
{
	void *state;
	int rc = smtp_listener.open(&w.scheduler, &state);

	(void)self;
	w.listener = state;
	return rc;
}

static int on_do_work(struct agent *self)
{
	int work = talk != NULL && !talk->store_holds ? answer_store(0) : 0;

	(void)self;
	work += talk != NULL && !talk->job_holds ? run_job() : 0;
	return work + smtp_listener.do_work(&w.scheduler, w.listener);
}

static const struct agent_ops ops = {
	.kind = "scheduler",
	.start = on_start,
	.do_work = on_do_work,
};

static uint64_t clock_now(void *context)
{
	(void)context;
	return w.now_ns;
}

static void on_sent(void *context, const unsigned char *data, size_t len)
{
	char *grown = realloc(talk->replies, talk->replies_len + len + 1);

	(void)context;
	FUZZ_CHECK(grown != NULL);
	memcpy(grown + talk->replies_len, data, len);
	talk->replies = grown;
	talk->replies_len += len;
	grown[talk->replies_len] = '\0';
}

static void world_begin(void)
{
	const struct clock clock = {clock_now, clock_now, NULL};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct scheduler *s = &w.scheduler;
	struct group *group;

	w.now_ns = UINT64_C(1750000000) * NS_PER_S;
	runtime_init(&w.runtime, &clock);
	w.runtime.backend = MUX_POLL;
	group = runtime_group(&w.runtime, "fuzz", -1, &idle);
	agent_init(&s->base, &ops, "scheduler.0", 1);
	s->program = &w.program;
	mail_pools_init(&s->pools);
	binding_table_init(&s->dispatcher.bindings);
	s->rejected = counter_create(s->base.counters, "rejected", COUNTER_SUM, "Refused");
	s->captures_cut = counter_create(s->base.counters, "captures_cut", COUNTER_SUM, "Cut");
	s->rejected_busy = counter_create(s->base.counters, "rejected_busy", COUNTER_SUM, "Busy");
	runtime_add(&w.runtime, group, &s->base);
	w.wheel = wheel_agent_create("wheel");
	runtime_add(&w.runtime, group, wheel_agent_base(w.wheel));
	runtime_set_wheel(&w.runtime, wheel_agent_base(w.wheel), wheel_agent_on_arm);
	FUZZ_CHECK(runtime_prepare(&w.runtime) == 0);
	FUZZ_CHECK(runtime_invoke_start(&w.runtime) == 0);
	w.net.on_sent = on_sent;
	net_install(&w.net, group);
}

static void settle(void)
{
	unsigned idle = 0;

	for (unsigned i = 0; idle < 3; i++) {
		FUZZ_CHECK(i < SETTLE_MAX);
		idle = runtime_step(&w.runtime) > 0 ? 0 : idle + 1;
	}
}

static void pass_ms(uint64_t ms)
{
	w.now_ns += ms * NS_PER_MS;
	settle();
}

/* ---- the client ---- */

static void choose_options(unsigned options)
{
	static const char *const relay_domains[] = {"example.net", ".example.org"};
	static const struct cidr everyone = {.prefix = 0};
	bool tight = (options & 2) != 0;

	w.options = (struct smtp_options){
		.hostname = "mx.example.com",
		.banner = "ESMTP flywheel",
		.relay_domains = relay_domains,
		.relay_domain_count = 2,
		.relay_hosts = &everyone,
		.relay_host_count = (options & 4) != 0 ? 1 : 0,
		.max_message_bytes = tight ? 200 : 100000,
		.max_line_bytes = tight ? 80 : 1000,
		.max_recipients_per_message = tight ? 2 : 100,
		.max_idle_commands = tight ? 5 : 100,
		.max_receptions_per_connection = tight ? 2 : 0,
		.idle_timeout_ms = 60000,
		.session_timeout_ms = 600000,
		.bare_lf = (options & 1) != 0 ? CONFIG_BARE_LF_ACCEPT : CONFIG_BARE_LF_REJECT,
		.auth_file = (options & 16) != 0 ? "users" : NULL,
		.allow_plain_auth = true,
		.max_auth_failures = {tight ? 2 : 0, 60},
		.xclient_hosts = &everyone,
		.xclient_host_count = (options & 32) != 0 ? 1 : 0,
		.proxy_protocol = (options & 64) != 0,
	};
}

static void connect_client(void)
{
	struct accept *a = calloc(1, sizeof(*a));

	FUZZ_CHECK(a != NULL);
	a->magic = ACCEPT_MAGIC;
	a->fd = 1 << 20;
	a->number = 0x42;
	strcpy(a->peer_text, "192.0.2.1");
	a->peer = (struct in6_addr){.s6_addr = {[10] = 0xff, 0xff, 192, 0, 2, 1}};
	agent_current = &w.scheduler.base;
	w.scheduler.base.now = (struct instant){w.now_ns, w.now_ns};
	smtp_listener.serve(&w.scheduler, w.listener, a);
	agent_current = NULL;
}

static void say(const unsigned char *data, size_t len)
{
	unsigned char *grown = realloc(talk->said, talk->said_len + len);

	FUZZ_CHECK(grown != NULL);
	memcpy(grown + talk->said_len, data, len);
	talk->said = grown;
	talk->said_len += len;
	talk->silent_ms = 0;
	net_say(&w.net, data, len);
}

static void on_agent(void (*what)(int), int value)
{
	agent_current = &w.scheduler.base;
	what(value);
	agent_current = NULL;
}

static void answer(int result)
{
	answer_store(result);
}

static void stop(int hurry)
{
	smtp_listener.stop(&w.scheduler, w.listener, hurry != 0);
}

static void refuse_next(void)
{
	static const int reasons[] = {0, -ENOMEM, -ENOSPC, -EBUSY, -ESHUTDOWN};
	unsigned i = 0;

	while (reasons[i] != talk->refuses) {
		i++;
	}
	talk->refuses = reasons[(i + 1) % 5];
	talk->pressed = true;
}

static void end_input(void)
{
	if (w.listener->session_count > 0) {
		talk->chunk_cut =
			smtp_session_of_all(w.listener->sessions.next)->state == SMTP_SESSION_CHUNK;
	}
	w.net.in_end = true;
}

/* Any other letter only ends a piece. */
static void act(unsigned action)
{
	switch (action) {
	case 'h':
		talk->store_holds = !talk->store_holds;
		break;
	case 'j':
		talk->job_holds = !talk->job_holds;
		break;
	case 'd':
		/* A delayed answer comes. */
		pass_ms(1000);
		break;
	case 'a':
		on_agent(answer, 0);
		break;
	case 'n':
		on_agent(answer, -ENOSPC);
		break;
	case 'e':
		on_agent(answer, -EIO);
		break;
	case 'w':
		w.net.out_stalled = !w.net.out_stalled;
		talk->stalled = true;
		break;
	case 't':
		/* Twice, and the client is turned away. */
		talk->silent_ms += 30001;
		talk->broken = talk->broken || talk->silent_ms > w.options.idle_timeout_ms;
		pass_ms(30001);
		break;
	case 'T':
		talk->broken = true;
		pass_ms(600001);
		break;
	case 'f':
		refuse_next();
		break;
	case 'x':
		w.scheduler.base.pressure = !w.scheduler.base.pressure;
		talk->stalled = true;
		break;
	case 'c':
		end_input();
		break;
	case 'r':
		w.net.in_error = -ECONNRESET;
		talk->broken = true;
		break;
	case 's':
		w.net.out_error = -EPIPE;
		talk->broken = true;
		break;
	case 'q':
	case 'Q':
		talk->broken = talk->broken || action == 'Q';
		on_agent(stop, action == 'Q');
		break;
	default:
		break;
	}
	settle();
}

/* ---- what must hold in the end ---- */

/* A reply's line ends at `lf`; returns whether it is the last one of its reply. */
static bool check_reply_line(const char *line, const char *lf, char code[4], bool first)
{
	FUZZ_CHECK(lf - line >= 4 && lf - line < 512 && lf[-1] == '\r');
	FUZZ_CHECK(line[0] >= '2' && line[0] <= '5' && line[1] >= '0' && line[1] <= '9');
	FUZZ_CHECK(line[2] >= '0' && line[2] <= '9' && (line[3] == ' ' || line[3] == '-'));
	FUZZ_CHECK(first || memcmp(code, line, 3) == 0);
	memcpy(code, line, 3);
	for (const char *p = line; p < lf - 1; p++) {
		FUZZ_CHECK(*p >= ' ' && *p < 127);
	}
	return line[3] == ' ';
}

/* Messages are acknowledged in the order in which they were stored, each once. */
static void check_acknowledgement(const char *line, const char *lf, unsigned *acknowledged)
{
	static const char words[] = "250 2.0.0 OK: queued as ";
	size_t n = sizeof(words) - 1;
	struct message_id id;
	char text[MESSAGE_ID_TEXT];

	if ((size_t)(lf - line) <= n || memcmp(line, words, n) != 0) {
		return;
	}
	FUZZ_CHECK((size_t)(lf - 1 - line) == n + MESSAGE_ID_TEXT - 1);
	memcpy(text, line + n, MESSAGE_ID_TEXT - 1);
	text[MESSAGE_ID_TEXT - 1] = '\0';
	FUZZ_CHECK(message_id_parse(text, &id) == 0);
	FUZZ_CHECK(*acknowledged < talk->stored_count);
	FUZZ_CHECK(id.low == talk->stored[(*acknowledged)++]);
}

static void check_replies(void)
{
	const char *line = talk->replies != NULL ? talk->replies : "";
	const char *lf;
	unsigned replies = 0;
	unsigned acknowledged = 0;
	bool first = true;
	char code[4] = "";

	for (; (lf = strchr(line, '\n')) != NULL; line = lf + 1) {
		bool last = check_reply_line(line, lf, code, first);

		check_acknowledgement(line, lf, &acknowledged);
		replies += last;
		first = last;
	}
	FUZZ_CHECK(*line == '\0' || talk->broken);
	if (talk->broken || talk->stalled) {
		return;
	}
	/* Before the first command there may be a banner, after the last one a farewell. */
	FUZZ_CHECK(first && acknowledged == talk->stored_count);
	FUZZ_CHECK(replies + talk->chunk_cut >= talk->commands + talk->ends);
	FUZZ_CHECK(replies <= talk->commands + talk->ends + 2);
}

static uint64_t commands(void)
{
	return counter_get(w.listener->counts.of[SMTP_COUNT_COMMANDS]);
}

static void hang_up(void)
{
	struct scheduler *s = &w.scheduler;

	w.net.out_stalled = false;
	s->base.pressure = false;
	talk->store_holds = false;
	talk->job_holds = false;
	settle();
	pass_ms(1000);
	end_input();
	settle();
	for (unsigned i = 0; i < 10 && w.listener->session_count > 0; i++) {
		pass_ms(200000);
	}
	FUZZ_CHECK(w.listener->session_count == 0 && w.net.closed == 1);
	FUZZ_CHECK(talk->receiving == 0);
	FUZZ_CHECK(s->pools.buffers.live == 0 && s->base.timers.armed == 0);
	FUZZ_CHECK(mail_pools_live(&s->pools) == 0);
	w.listener->stopping = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct fuzz_step step;
	unsigned options = fuzz_byte(&in);

	if (w.listener == NULL) {
		world_begin();
	}
	talk = calloc(1, sizeof(*talk));
	FUZZ_CHECK(talk != NULL);
	net_reset(&w.net);
	choose_options(options);
	talk->commands = commands();
	connect_client();
	if ((options & 8) == 0) {
		settle();
	}
	while (fuzz_step(&in, &step)) {
		if (step.len > 0) {
			say(step.data, step.len);
		} else {
			act(step.action);
		}
	}
	hang_up();
	check_refused();
	talk->commands = commands() - talk->commands;
	check_replies();
	free(talk->replies);
	free(talk->said);
	free(talk);
	talk = NULL;
	return 0;
}
