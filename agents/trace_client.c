#include "agents/trace_client.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/trace_file.h"
#include "core/mail/smtp_trace.h"
#include "core/runtime/check.h"

#define SESSION_MAGIC 0x74736573U
#define ID_MAX 24
#define PREFIX_MAX 64
#define LINE_MAX_BYTES (PREFIX_MAX + SMTP_TRACE_TEXT + 1)
_Static_assert(LINE_MAX_BYTES < TRACE_KEPT_MAX && LINE_MAX_BYTES < TRACE_BLOCK_SIZE,
	       "a line fits into whatever keeps it");

/* A connection that is listened to. Bits of `wanted` and `perhaps` are slots of traces. */
BOUND
struct trace_session {
	uint32_t magic;
	struct stream_tap tap;
	struct trace_client *client;
	struct stream *stream;
	struct trace_session *next;
	struct trace_session *prev;
	/* Traces that have it, and those that will when a recipient's domain is theirs. */
	uint32_t wanted;
	uint32_t perhaps;
	bool inbound;
	/* NULL: it is seen from its beginning, or from a command on. */
	trace_begins_fn begins;
	char id[ID_MAX];
	/* While some trace may want it: its last lines, and how many were before them; malloc. */
	char *kept;
	size_t kept_len;
	uint32_t not_kept;
	struct smtp_trace dialogue;
};

static struct trace_session *session_of(struct stream_tap *tap)
{
	struct trace_session *n = CONTAINER_OF(tap, struct trace_session, tap);

	CHECK_MAGIC(n, SESSION_MAGIC);
	return n;
}

/* ---- blocks ---- */

static void hand_over(struct trace_client *c, unsigned slot)
{
	struct trace_block *b = c->open[slot];

	if (b != NULL) {
		c->open[slot] = NULL;
		c->away[slot]++;
		agent_send(c->self, c->log, trace_file_on_block, b, 0);
	}
}

/* NULL: the log agent does not keep up. */
static struct trace_block *block_for(struct trace_client *c, struct trace *t, size_t len)
{
	struct trace_block *b = c->open[t->slot];

	if (b != NULL && b->len + len <= TRACE_BLOCK_SIZE) {
		return b;
	}
	hand_over(c, t->slot);
	if (c->blocks_in_use >= TRACE_BLOCKS_MAX) {
		return NULL;
	}
	c->blocks_in_use++;
	b = pool_get(&c->blocks);
	b->client = c;
	b->trace = t;
	b->slot = t->slot;
	b->lines = 0;
	b->len = 0;
	c->open[t->slot] = b;
	return b;
}

static void write_line(struct trace_client *c, struct trace *t, const char *line, size_t len)
{
	struct trace_block *b = block_for(c, t, len);

	if (b == NULL) {
		trace_drop(t);
	} else if (trace_take(t, len, agent_wall_ms(c->self))) {
		memcpy(b->data + b->len, line, len);
		b->len += (uint32_t)len;
		b->lines++;
	}
}

void trace_client_flush(struct trace_client *c)
{
	for (unsigned i = 0; c->count > 0 && i < TRACES_MAX; i++) {
		if (c->away[i] == 0) {
			hand_over(c, i);
		}
	}
}

void trace_client_on_written(struct agent *self, void *object, uint64_t unused)
{
	struct trace_block *b = object;
	struct trace_client *c = b->client;

	(void)unused;
	ASSERT(c->self == self && c->blocks_in_use > 0 && c->away[b->slot] > 0);
	c->away[b->slot]--;
	c->blocks_in_use--;
	pool_put(&c->blocks, b);
}

/* ---- lines ---- */

static size_t format_line(const struct trace_session *n, char *line, const char *text, size_t len)
{
	uint64_t now_ms = agent_wall_ms(n->client->self);
	size_t used = (size_t)snprintf(
		line, PREFIX_MAX, "%llu.%03u %s %s ", (unsigned long long)(now_ms / 1000),
		(unsigned)(now_ms % 1000), n->inbound ? "in " : "out", n->id);

	memcpy(line + used, text, len);
	line[used + len] = '\n';
	return used + len + 1;
}

/* The oldest go first, all at once: what matters is what was said last. */
static void keep(struct trace_session *n, const char *line, size_t len)
{
	if (n->kept == NULL) {
		n->kept = malloc(TRACE_KEPT_MAX);
		if (n->kept == NULL) {
			n->not_kept++;
			return;
		}
	}
	if (n->kept_len + len > TRACE_KEPT_MAX) {
		for (size_t i = 0; i < n->kept_len; i++) {
			n->not_kept += n->kept[i] == '\n';
		}
		n->kept_len = 0;
	}
	memcpy(n->kept + n->kept_len, line, len);
	n->kept_len += len;
}

static void put(struct trace_session *n, enum smtp_trace_kind kind, const char *text, size_t len)
{
	struct trace_client *c = n->client;
	char line[LINE_MAX_BYTES];
	size_t line_len = format_line(n, line, text, len);

	for (uint32_t bits = n->wanted; bits != 0; bits &= bits - 1) {
		struct trace *t = c->traces[__builtin_ctz(bits)];

		if (kind == SMTP_TRACE_LINE || t->spec.content) {
			write_line(c, t, line, line_len);
		}
	}
	if (n->perhaps != 0 && kind == SMTP_TRACE_LINE) {
		keep(n, line, line_len);
	}
}

static void put_note(struct trace_session *n, const char *text)
{
	char line[SMTP_TRACE_TEXT];
	size_t len = strnlen(text, SMTP_TRACE_KEPT);

	memcpy(line, "* ", 2);
	put(n, SMTP_TRACE_LINE, line, 2 + smtp_trace_escape(text, len, line + 2));
}

/* ---- who wants it ---- */

static void forget_kept(struct trace_session *n)
{
	free(n->kept);
	n->kept = NULL;
	n->kept_len = 0;
}

/* What was kept goes to a trace that has come to want the connection. */
static void write_kept(struct trace_session *n, struct trace *t)
{
	char text[64];
	char line[LINE_MAX_BYTES];
	const char *at = n->kept;
	const char *end = n->kept + n->kept_len;

	if (n->not_kept > 0) {
		int len = snprintf(text, sizeof(text), "* %u earlier lines were not kept",
				   n->not_kept);

		write_line(n->client, t, line, format_line(n, line, text, (size_t)len));
	}
	while (at < end) {
		const char *lf = memchr(at, '\n', (size_t)(end - at));

		write_line(n->client, t, at, (size_t)(lf - at) + 1);
		at = lf + 1;
	}
}

static void look_for_content(struct trace_session *n)
{
	n->dialogue.wants_content = false;
	for (uint32_t bits = n->wanted; bits != 0; bits &= bits - 1) {
		n->dialogue.wants_content |= n->client->traces[__builtin_ctz(bits)]->spec.content;
	}
}

/* The trace wants the connection: does it get it? */
static void want(struct trace_session *n, struct trace *t)
{
	if (!trace_admit(t)) {
		return;
	}
	atomic_fetch_add_explicit(&t->open, 1, memory_order_relaxed);
	write_kept(n, t);
	n->wanted |= UINT32_C(1) << t->slot;
	look_for_content(n);
}

/* The trace has it no longer. */
static void unwant(struct trace_session *n, struct trace *t)
{
	uint32_t bit = UINT32_C(1) << t->slot;

	if ((n->wanted & bit) != 0) {
		atomic_fetch_sub_explicit(&t->open, 1, memory_order_relaxed);
	}
	n->wanted &= ~bit;
	n->perhaps &= ~bit;
	look_for_content(n);
	if (n->perhaps == 0) {
		forget_kept(n);
	}
}

static void on_line(void *context, enum smtp_trace_kind kind, const char *text, size_t len)
{
	put(context, kind, text, len);
}

/* The domain decides for traces that wait for one. */
static void on_recipient(void *context, const char *domain)
{
	struct trace_session *n = context;

	for (uint32_t bits = n->perhaps; bits != 0; bits &= bits - 1) {
		struct trace *t = n->client->traces[__builtin_ctz(bits)];

		if (strcmp(t->spec.domain, domain) == 0) {
			n->perhaps &= ~(bits & -bits);
			want(n, t);
		}
	}
	if (n->perhaps == 0) {
		forget_kept(n);
	}
}

/* ---- what is heard ---- */

static void look_again(struct trace_session *n)
{
	if (n->begins != NULL && n->begins(n->stream)) {
		n->begins = NULL;
		smtp_trace_see(&n->dialogue);
	}
}

static void on_received(struct stream_tap *tap, const unsigned char *data, size_t len)
{
	struct trace_session *n = session_of(tap);

	if ((n->wanted | n->perhaps) == 0) {
		return;
	}
	if (n->inbound) {
		look_again(n);
		smtp_trace_client(&n->dialogue, data, len);
	} else {
		smtp_trace_server(&n->dialogue, data, len);
	}
}

static void on_sending(struct stream_tap *tap, const struct iovec *iov, unsigned count)
{
	struct trace_session *n = session_of(tap);

	if ((n->wanted | n->perhaps) == 0) {
		return;
	}
	if (!n->inbound) {
		look_again(n);
	}
	for (unsigned i = 0; i < count; i++) {
		if (n->inbound) {
			smtp_trace_server(&n->dialogue, iov[i].iov_base, iov[i].iov_len);
		} else {
			smtp_trace_client(&n->dialogue, iov[i].iov_base, iov[i].iov_len);
		}
	}
}

static void on_note(struct stream_tap *tap, const char *text)
{
	put_note(session_of(tap), text);
}

static void session_free(struct trace_session *n)
{
	struct trace_client *c = n->client;

	for (uint32_t bits = n->wanted; bits != 0; bits &= bits - 1) {
		atomic_fetch_sub_explicit(&c->traces[__builtin_ctz(bits)]->open, 1,
					  memory_order_relaxed);
	}
	*(n->prev != NULL ? &n->prev->next : &c->sessions) = n->next;
	if (n->next != NULL) {
		n->next->prev = n->prev;
	}
	c->session_count--;
	forget_kept(n);
	n->magic = 0;
	free(n);
}

static void on_closed(struct stream_tap *tap)
{
	struct trace_session *n = session_of(tap);

	smtp_trace_end(&n->dialogue);
	put_note(n, "closed");
	session_free(n);
}

static const struct stream_tap_ops tap_ops = {
	.received = on_received,
	.sending = on_sending,
	.note = on_note,
	.closed = on_closed,
};

/* ---- offers ---- */

static struct trace_session *session_open(struct trace_client *c, struct stream *s, bool inbound,
					  uint64_t number, trace_begins_fn begins)
{
	struct trace_session *n = calloc(1, sizeof(*n));

	if (n == NULL) {
		return NULL;
	}
	n->magic = SESSION_MAGIC;
	n->tap.ops = &tap_ops;
	n->client = c;
	n->stream = s;
	n->inbound = inbound;
	n->begins = begins != NULL && !begins(s) ? begins : NULL;
	if (inbound) {
		snprintf(n->id, sizeof(n->id), "%llx", (unsigned long long)number);
	} else {
		snprintf(n->id, sizeof(n->id), "%u.%llx", (unsigned)c->self->id,
			 (unsigned long long)++c->outbound);
	}
	smtp_trace_init(&n->dialogue, on_line, on_recipient, n, n->begins != NULL);
	n->next = c->sessions;
	if (n->next != NULL) {
		n->next->prev = n;
	}
	c->sessions = n;
	c->session_count++;
	stream_tap_on(s, &n->tap);
	return n;
}

static void describe_peer(const struct trace_facts *f, char *text, size_t size)
{
	bool v4 = IN6_IS_ADDR_V4MAPPED(&f->peer);
	char ip[INET6_ADDRSTRLEN];

	inet_ntop(v4 ? AF_INET : AF_INET6,
		  v4 ? (const void *)&f->peer.s6_addr[12] : (const void *)&f->peer, ip, sizeof(ip));
	snprintf(text, size, v4 ? "%s:%u" : "[%s]:%u", ip, f->port);
}

static void note_beginning(struct trace_session *n, const struct trace_facts *f, bool running)
{
	char peer[INET6_ADDRSTRLEN + 16];
	char text[512];

	describe_peer(f, peer, sizeof(peer));
	if (f->inbound) {
		snprintf(text, sizeof(text), "%s %s to %.*s", running ? "goes on: from" : "from",
			 peer, TRACE_LISTENER_MAX, f->listener != NULL ? f->listener : "");
	} else {
		snprintf(text, sizeof(text), "%s %s by binding %.*s for %.*s",
			 running ? "goes on: to" : "to", peer, ENVELOPE_BINDING_MAX,
			 f->binding != NULL ? f->binding : "", TRACE_DOMAIN_MAX,
			 f->domain != NULL ? f->domain : "");
	}
	put_note(n, text);
}

/* Traces that it has already, or may have, are not asked again. */
static uint32_t ask_traces(const struct trace_client *c, const struct trace_facts *f,
			   uint32_t known, uint32_t *perhaps)
{
	uint32_t yes = 0;

	for (unsigned i = 0; i < TRACES_MAX; i++) {
		uint32_t bit = UINT32_C(1) << i;

		if (c->traces[i] == NULL || (known & bit) != 0) {
			continue;
		}
		switch (trace_matches(&c->traces[i]->spec, f)) {
		case TRACE_NO:
			break;
		case TRACE_YES:
			yes |= bit;
			break;
		case TRACE_WHEN_DOMAIN_IS_KNOWN:
			*perhaps |= bit;
			break;
		}
	}
	return yes;
}

void trace_client_offer(struct trace_client *c, struct stream *s, const struct trace_facts *f,
			uint64_t number, trace_begins_fn begins)
{
	struct trace_session *n = s->tap != NULL ? session_of(s->tap) : NULL;
	uint32_t perhaps = 0;
	uint32_t yes = ask_traces(c, f, n != NULL ? n->wanted | n->perhaps : 0, &perhaps);
	bool first = n == NULL;

	if ((yes | perhaps) == 0) {
		return;
	}
	if (first && c->session_count < TRACE_LISTENED_MAX) {
		n = session_open(c, s, f->inbound, number, begins);
	}
	if (n == NULL) {
		return;
	}
	n->perhaps |= perhaps;
	for (uint32_t bits = yes; bits != 0; bits &= bits - 1) {
		want(n, c->traces[__builtin_ctz(bits)]);
	}
	if (first && (n->wanted | n->perhaps) == 0) {
		/* All that match are full, or it is not one of their sample. */
		stream_tap_off(s);
		session_free(n);
		return;
	}
	note_beginning(n, f, begins != NULL);
}

/* ---- traces come and go ---- */

void trace_client_add(struct trace_client *c, struct trace *t)
{
	CHECK_MAGIC(t, TRACE_MAGIC);
	ASSERT(t->slot < TRACES_MAX && c->traces[t->slot] == NULL);
	c->traces[t->slot] = t;
	c->count++;
}

void trace_client_remove(struct trace_client *c, struct trace *t)
{
	struct trace_session *next;

	ASSERT(c->traces[t->slot] == t && c->count > 0);
	for (struct trace_session *n = c->sessions; n != NULL; n = next) {
		next = n->next;
		unwant(n, t);
		if ((n->wanted | n->perhaps) == 0) {
			stream_tap_off(n->stream);
			session_free(n);
		}
	}
	hand_over(c, t->slot);
	c->traces[t->slot] = NULL;
	c->count--;
	agent_send(c->self, c->log, trace_file_on_leave, t, 0);
}

/* ---- life ---- */

void trace_client_init(struct trace_client *c, struct agent *self, struct agent *log)
{
	memset(c, 0, sizeof(*c));
	c->self = self;
	c->log = log;
	pool_init(&c->blocks, "trace blocks", sizeof(struct trace_block), TRACE_BLOCKS_MAX);
}

bool trace_client_drained(const struct trace_client *c)
{
	return c->blocks_in_use == 0;
}

void trace_client_close(struct trace_client *c)
{
	ASSERT(c->sessions == NULL && c->blocks_in_use == 0);
	pool_close(&c->blocks);
}
