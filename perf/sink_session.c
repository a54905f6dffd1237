#include "perf/sink_session.h"

#include <assert.h>
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf/moment.h"

#define LINE_MAX_BYTES 4096
#define ADDRESS_MAX 512
/* Lines that are sent at once, and how often that is done before others have their turn. */
#define FLOOD_BATCH 256
#define FLOOD_TURN 16

static void session_log(const struct sink_session *s, char direction, const char *line, size_t len)
{
	while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r')) {
		len--;
	}
	fprintf(s->sink->options.log, "%lu %c %.*s\n", s->number, direction, (int)len, line);
}

static void put(struct sink_session *s, const char *reply)
{
	size_t len = strlen(reply);

	if (s->sink->options.log != NULL) {
		session_log(s, '>', reply, len);
	}
	text_append(&s->out, reply, len);
}

static void put_fault(struct sink_session *s, unsigned code)
{
	char line[64];

	snprintf(line, sizeof(line), "%u %u.3.0 Fault on request\r\n", code, code / 100);
	put(s, line);
}

static void protocol_error(struct sink_session *s, const char *reply)
{
	s->sink->ledger.protocol_errors++;
	put(s, reply);
}

/* Sends what waits. A peer that is gone makes the session end. */
static void flush(struct sink_session *s)
{
	while (s->out.len > 0 && !s->dropped && !s->shaking) {
		struct iovec part = {s->out.data, s->out.len};
		ssize_t n = link_send(s->fd, s->tls, &part, 1);
		if (n >= 0) {
			text_consume(&s->out, (size_t)n);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR) {
			s->dropped = true;
		}
	}
}

/* Neither reads nor answers until `resume_ns`; what was answered before goes out first. */
static void pause_until(struct sink_session *s, uint64_t resume_ns)
{
	struct sink *sink = s->sink;

	s->paused = true;
	if (s->resume_ns < resume_ns) {
		s->resume_ns = resume_ns;
	}
	if (resume_ns == MOMENT_NEVER) {
		return;
	}
	if (!s->listed_paused) {
		s->listed_paused = true;
		s->next_paused = sink->paused;
		sink->paused = s;
	}
	if (resume_ns < sink->resume_ns) {
		sink->resume_ns = resume_ns;
	}
}

/*
 * Tops up a flood; what follows it comes when it is over. A peer that reads as fast as this writes
 * must not keep the others waiting, so after some batches the loop has its turn.
 */
static void flood(struct sink_session *s)
{
	static const char line[] = "250-the flood goes on\r\n";
	unsigned batches = 0;

	while (s->flood_lines > 0 && s->out.len == 0 && !s->dropped && !s->paused) {
		for (unsigned i = 0; i < FLOOD_BATCH && s->flood_lines > 0; i++) {
			text_append(&s->out, line, sizeof(line) - 1);
			s->flood_lines -= s->flood_lines != UINT64_MAX;
		}
		if (s->flood_lines == 0) {
			text_append(&s->out, s->flood_end.data, s->flood_end.len);
		}
		flush(s);
		if (++batches == FLOOD_TURN) {
			pause_until(s, s->sink->now_ns);
		}
	}
}

static void start_flood(struct sink_session *s, uint32_t lines, const char *reply)
{
	s->flood_lines = lines > 0 ? lines : UINT64_MAX;
	s->flood_end.len = 0;
	text_append_string(&s->flood_end, reply);
	flush(s);
	flood(s);
}

/*
 * Does what the fault `f` says in place of answering `reply`.
 * Returns true when `reply` is still given, if late.
 */
static bool apply_fault(struct sink_session *s, const struct fault *f, const char *reply)
{
	switch (f->action) {
	case FAULT_TEMPFAIL:
	case FAULT_PERMFAIL:
		put_fault(s, f->value);
		return false;
	case FAULT_SHUTDOWN:
		put_fault(s, 421);
		s->closing = true;
		return false;
	case FAULT_DELAY:
		flush(s);
		put(s, reply);
		pause_until(s, s->sink->now_ns + f->value * NS_PER_MS);
		return true;
	case FAULT_DROP:
		flush(s);
		s->dropped = true;
		return false;
	case FAULT_GARBAGE:
		put(s, "\x01\xfe*?! this is no SMTP reply\r\n");
		return false;
	case FAULT_FLOOD:
		start_flood(s, f->value, reply);
		return f->value > 0;
	case FAULT_SILENCE:
		flush(s);
		pause_until(s, MOMENT_NEVER);
		return false;
	}
	return false;
}

/*
 * Answers at `stage` with `reply`, or with what the options put in its place, or does what a fault
 * says. Returns true when the client was told yes.
 */
static bool answer(struct sink_session *s, enum sink_stage stage, const char *reply)
{
	const struct fault *f = fault_draw(&s->sink->faults, stage);
	bool given = true;

	if (s->sink->options.replies[stage] != NULL) {
		reply = s->sink->options.replies[stage];
	}
	if (f != NULL) {
		given = apply_fault(s, f, reply);
	} else {
		put(s, reply);
	}
	if (strncmp(reply, "421", 3) == 0 && given) {
		s->closing = true;
	}
	return given && reply[0] < '4';
}

static void reset_transaction(struct sink_session *s)
{
	s->body_started = false;
	s->has_sender = false;
	s->recipient_count = 0;
}

static void on_ehlo(struct sink_session *s, bool extended)
{
	const struct sink_options *o = &s->sink->options;
	char reply[512];

	if (extended && o->no_ehlo) {
		put(s, "502 5.5.1 Command not implemented\r\n");
		return;
	}
	if (extended) {
		snprintf(reply, sizeof(reply),
			 "250-%s\r\n%s%s%s250-8BITMIME\r\n250-SIZE %lu\r\n"
			 "250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n",
			 o->hostname, o->no_pipelining ? "" : "250-PIPELINING\r\n",
			 o->chunking ? "250-CHUNKING\r\n" : "",
			 o->tls != NULL && s->tls == NULL ? "250-STARTTLS\r\n" : "", o->size_max);
	} else {
		snprintf(reply, sizeof(reply), "250 %s\r\n", o->hostname);
	}
	reset_transaction(s);
	if (answer(s, STAGE_EHLO, reply)) {
		s->greeted = true;
		s->pipelining = extended && !o->no_pipelining;
	}
}

/*
 * Finds the address between < and > in `line`, whose first `skip` bytes are the verb.
 * Returns what follows the >, or NULL when there is no such address.
 */
static const char *find_address(const char *line, const char *end, size_t skip,
				const char **address, size_t *len)
{
	const char *p = line + skip;
	bool quoted = false;

	if (p >= end || *p != '<') {
		return NULL;
	}
	*address = ++p;
	for (; p < end; p++) {
		if (*p == '\\' && quoted && p + 1 < end) {
			p++;
		} else if (*p == '"') {
			quoted = !quoted;
		} else if (*p == '>' && !quoted) {
			*len = (size_t)(p - *address);
			return *len < ADDRESS_MAX ? p + 1 : NULL;
		}
	}
	return NULL;
}

/* The SIZE parameter of MAIL (RFC 1870), or 0. */
static uint64_t find_size(const char *p, const char *end)
{
	uint64_t size = 0;

	for (; end - p > 6; p++) {
		if (strncasecmp(p, " SIZE=", 6) != 0) {
			continue;
		}
		for (p += 6; p < end && isdigit((unsigned char)*p) && size < 1UL << 60; p++) {
			size = size * 10 + (uint64_t)(*p - '0');
		}
		break;
	}
	return size;
}

/* True when this connection has had its messages, and has been told so. */
static bool end_of_allowance(struct sink_session *s)
{
	uint64_t max = s->sink->options.messages_per_connection_max;

	if (max == 0 || s->messages < max) {
		return false;
	}
	put(s, "421 4.7.0 Too many messages on this connection\r\n");
	s->closing = true;
	return true;
}

static void on_mail(struct sink_session *s, const char *line, const char *end)
{
	const char *address;
	size_t len;
	const char *rest = find_address(line, end, strlen("MAIL FROM:"), &address, &len);

	if (end_of_allowance(s)) {
		return;
	}
	if (!s->greeted || s->has_sender) {
		protocol_error(s, "503 5.5.1 Not now\r\n");
	} else if (rest == NULL) {
		protocol_error(s, "501 5.5.4 No sender address\r\n");
	} else if (find_size(rest, end) > s->sink->options.size_max) {
		put(s, "552 5.3.4 Message too big\r\n");
	} else if (answer(s, STAGE_MAIL, "250 2.1.0 Sender ok\r\n")) {
		s->has_sender = true;
	} else {
		s->sink->ledger.refused++;
	}
}

static bool matches(const char **patterns, const char *address)
{
	for (; patterns != NULL && *patterns != NULL; patterns++) {
		if (fnmatch(*patterns, address, FNM_CASEFOLD) == 0) {
			return true;
		}
	}
	return false;
}

static struct sink_recipient *new_recipient(struct sink_session *s)
{
	if (s->recipient_count == s->recipient_capacity) {
		s->recipient_capacity = s->recipient_capacity > 0 ? 2 * s->recipient_capacity : 4;
		s->recipients =
			realloc(s->recipients, s->recipient_capacity * sizeof(*s->recipients));
		if (s->recipients == NULL) {
			err(2, "recipients");
		}
	}
	return &s->recipients[s->recipient_count++];
}

/* `address` ends with a zero. Its domain counts in lower case, its local part as it is. */
static void add_recipient(struct sink_session *s, char *address, size_t len)
{
	struct domain_tally *tally = &s->sink->ledger.domains;
	struct sink_recipient *r = new_recipient(s);
	char *at = strrchr(address, '@');
	char *domain = at != NULL ? at + 1 : address + len;

	for (char *p = domain; *p != '\0'; p++) {
		*p = (char)tolower((unsigned char)*p);
	}
	r->fingerprint = fingerprint(address, len);
	r->domain = domain_tally_number(tally, domain, strlen(domain));
	domain_tally_move(tally, s->domain, r->domain);
	s->domain = r->domain;
	if (s->recipient_count == 1) {
		s->first_recipient.len = 0;
		text_append(&s->first_recipient, address, len + 1);
	}
}

static void on_rcpt(struct sink_session *s, const char *line, const char *end)
{
	const struct sink_options *o = &s->sink->options;
	const char *found;
	char address[ADDRESS_MAX];
	size_t len;
	const char *rest = find_address(line, end, strlen("RCPT TO:"), &found, &len);

	if (!s->has_sender) {
		/* Follows a refused MAIL when the client pipelines: no error of its own. */
		put(s, "503 5.5.1 Need MAIL\r\n");
		return;
	}
	if (rest == NULL || len == 0) {
		protocol_error(s, "501 5.5.4 No recipient address\r\n");
		return;
	}
	memcpy(address, found, len);
	address[len] = '\0';
	if (matches(o->reject_recipients, address)) {
		put(s, "550 5.1.1 No such recipient\r\n");
	} else if (matches(o->defer_recipients, address)) {
		put(s, "450 4.2.1 Recipient deferred\r\n");
	} else if (answer(s, STAGE_RCPT, "250 2.1.5 Recipient ok\r\n")) {
		add_recipient(s, address, len);
	}
}

static void on_data(struct sink_session *s)
{
	if (s->recipient_count == 0) {
		put(s, s->has_sender ? "554 5.5.1 No valid recipients\r\n"
				     : "503 5.5.1 Need MAIL\r\n");
		return;
	}
	if (answer(s, STAGE_DATA, "354 Go ahead\r\n")) {
		s->state = SESSION_BODY;
		message_reader_start(&s->reader);
	} else {
		s->sink->ledger.refused++;
	}
}

static void on_chunk(struct sink_session *s);

/* BDAT (RFC 3030): what it announces comes whatever becomes of it. */
static void on_bdat(struct sink_session *s, const char *line, const char *end)
{
	char words[32];
	char last[8] = "";
	unsigned long octets;
	size_t len = (size_t)(end - line);

	if (!s->sink->options.chunking || len >= sizeof(words)) {
		protocol_error(s, "500 5.5.2 Not offered\r\n");
		s->closing = true;
		return;
	}
	memcpy(words, line, len);
	words[len] = '\0';
	if (sscanf(words + strlen("BDAT"), "%lu %7s", &octets, last) < 1) {
		protocol_error(s, "501 5.5.4 No size\r\n");
		s->closing = true;
		return;
	}
	if (!s->body_started) {
		message_reader_start(&s->reader);
	}
	s->state = SESSION_CHUNK;
	s->chunk_left = octets;
	s->chunk_last = strcasecmp(last, "LAST") == 0;
	s->chunk_dropped = s->recipient_count == 0;
	if (octets == 0) {
		on_chunk(s);
	}
}

static void on_quit(struct sink_session *s)
{
	answer(s, STAGE_QUIT, "221 2.0.0 Bye\r\n");
	s->closing = true;
}

static void on_other(struct sink_session *s, const char *line, size_t len)
{
	if (len >= 4 && strncasecmp(line, "NOOP", 4) == 0) {
		put(s, "250 2.0.0 Ok\r\n");
	} else if (len >= 4 && strncasecmp(line, "VRFY", 4) == 0) {
		put(s, "252 2.1.5 Try it\r\n");
	} else {
		protocol_error(s, "500 5.5.2 Unknown command\r\n");
	}
}

static void begin_tls(struct sink_session *s)
{
	s->tls = link_secure(s->sink->options.tls, s->fd);
	s->shaking = true;
	s->greeted = false;
	reset_transaction(s);
}

/* The reply is short and the first since the client's last command: it goes out at once. */
static void on_starttls(struct sink_session *s)
{
	if (s->sink->options.tls == NULL || s->tls != NULL) {
		protocol_error(s, "502 5.5.1 Not offered\r\n");
		return;
	}
	put(s, "220 2.0.0 Go ahead\r\n");
	flush(s);
	if (s->out.len > 0) {
		s->dropped = true;
	} else {
		begin_tls(s);
	}
}

/* True when `line` starts with the verb `verb`, in any case. */
static bool is_verb(const char *line, size_t len, const char *verb)
{
	size_t verb_len = strlen(verb);

	return len >= verb_len && strncasecmp(line, verb, verb_len) == 0;
}

static void on_command(struct sink_session *s, const char *line, size_t len)
{
	const char *end = line + len;

	if (s->state == SESSION_REFUSED && !is_verb(line, len, "QUIT")) {
		put(s, "503 5.5.1 Only QUIT now\r\n");
	} else if (is_verb(line, len, "RCPT TO:")) {
		on_rcpt(s, line, end);
	} else if (is_verb(line, len, "MAIL FROM:")) {
		on_mail(s, line, end);
	} else if (is_verb(line, len, "DATA")) {
		on_data(s);
	} else if (is_verb(line, len, "BDAT ")) {
		on_bdat(s, line, end);
	} else if (is_verb(line, len, "EHLO")) {
		on_ehlo(s, true);
	} else if (is_verb(line, len, "HELO")) {
		on_ehlo(s, false);
	} else if (is_verb(line, len, "STARTTLS")) {
		on_starttls(s);
	} else if (is_verb(line, len, "RSET")) {
		reset_transaction(s);
		answer(s, STAGE_RSET, "250 2.0.0 Reset\r\n");
	} else if (is_verb(line, len, "QUIT")) {
		on_quit(s);
	} else {
		on_other(s, line, len);
	}
}

/* Only these may have more commands right behind them, and only where we said so; and a chunk its
 * octets. */
static bool may_pipeline(const struct sink_session *s, const char *line, size_t len)
{
	return is_verb(line, len, "BDAT ") ||
	       (s->pipelining && (is_verb(line, len, "MAIL") || is_verb(line, len, "RCPT") ||
				  is_verb(line, len, "RSET")));
}

/* Returns how many bytes were a command; 0 when the line is not complete. */
static size_t take_line(struct sink_session *s, const char *p, size_t len)
{
	const char *lf = memchr(p, '\n', len);
	size_t line_len;

	if (lf == NULL) {
		if (len > LINE_MAX_BYTES) {
			protocol_error(s, "500 5.5.2 Line too long\r\n");
			s->closing = true;
		}
		return 0;
	}
	line_len = (size_t)(lf - p);
	if (line_len + 1 < len && !may_pipeline(s, p, line_len)) {
		s->sink->ledger.protocol_errors++;
	}
	if (line_len > 0 && p[line_len - 1] == '\r') {
		line_len--;
	} else {
		s->sink->ledger.protocol_errors++;
	}
	if (s->sink->options.log != NULL) {
		session_log(s, '<', p, line_len);
	}
	on_command(s, p, line_len);
	return (size_t)(lf + 1 - p);
}

static void enter_message(struct sink_session *s)
{
	struct sink_ledger *ledger = &s->sink->ledger;
	struct sink_arrival arrival = {
		.message = &s->reader,
		.recipients = s->recipients,
		.count = s->recipient_count,
		.first_recipient = s->first_recipient.data,
		.now_ns = s->sink->now_ns,
	};

	sink_ledger_accept(ledger, &arrival);
	if (++s->messages > ledger->messages_per_connection_max) {
		ledger->messages_per_connection_max = s->messages;
	}
}

/* The message is here, up to its final dot or last chunk. */
static void on_message(struct sink_session *s)
{
	s->state = SESSION_COMMAND;
	if (s->sink->options.log != NULL) {
		session_log(s, '<', ".", 1);
	}
	if (s->reader.size > s->sink->options.size_max) {
		put(s, "552 5.3.4 Message too big\r\n");
		s->sink->ledger.refused++;
	} else if (answer(s, STAGE_DOT, "250 2.0.0 Taken\r\n")) {
		enter_message(s);
	} else {
		s->sink->ledger.refused++;
	}
	reset_transaction(s);
}

/* The first bytes of a body are here: the place for faults in the middle of one. */
static bool body_may_go_on(struct sink_session *s)
{
	const struct fault *f = fault_draw(&s->sink->faults, STAGE_BODY);

	s->body_started = true;
	if (f == NULL) {
		return true;
	}
	if (f->action == FAULT_DELAY) {
		pause_until(s, s->sink->now_ns + f->value * NS_PER_MS);
		return false;
	}
	apply_fault(s, f, "");
	/* A reply before the end of the body leaves nothing to agree on. */
	s->closing = f->action == FAULT_TEMPFAIL || f->action == FAULT_PERMFAIL || s->closing;
	return !s->closing && !s->dropped && !s->paused;
}

static size_t take_body(struct sink_session *s, const char *p, size_t len)
{
	bool done;
	size_t taken;

	if (!s->body_started && !body_may_go_on(s)) {
		return 0;
	}
	taken = message_reader_feed(&s->reader, p, len, &done);
	if (done) {
		on_message(s);
	}
	return taken;
}

static void on_chunk(struct sink_session *s)
{
	s->state = SESSION_COMMAND;
	if (s->chunk_dropped) {
		put(s, s->has_sender ? "554 5.5.1 No valid recipients\r\n"
				     : "503 5.5.1 Need MAIL\r\n");
	} else if (s->chunk_last) {
		on_message(s);
	} else {
		put(s, "250 2.0.0 Go on\r\n");
	}
}

static size_t take_chunk(struct sink_session *s, const char *p, size_t len)
{
	size_t taken = len < s->chunk_left ? len : s->chunk_left;

	if (!s->chunk_dropped) {
		if (!s->body_started && !body_may_go_on(s)) {
			return 0;
		}
		message_reader_feed_chunk(&s->reader, p, taken);
	}
	s->chunk_left -= taken;
	if (s->chunk_left == 0) {
		on_chunk(s);
	}
	return taken;
}

static bool is_stopped(const struct sink_session *s)
{
	return s->paused || s->closing || s->dropped || s->flood_lines > 0 || s->shaking;
}

/* Takes what it can of `len` bytes, and keeps the rest for later. */
static void take_input(struct sink_session *s, const char *p, size_t len)
{
	const char *end = p + len;

	while (p < end && !is_stopped(s)) {
		size_t left = (size_t)(end - p);
		size_t taken = s->state == SESSION_BODY    ? take_body(s, p, left)
			       : s->state == SESSION_CHUNK ? take_chunk(s, p, left)
							   : take_line(s, p, left);
		p += taken;
		if (taken == 0) {
			break;
		}
	}
	if (!s->closing && !s->dropped) {
		text_append(&s->in, p, (size_t)(end - p));
	}
}

/* How much to read at once: all there is, or a tenth of a second's worth when reading slowly. */
static size_t read_limit(const struct sink_session *s)
{
	uint64_t rate = s->sink->options.slow_read_bytes_s;

	if (rate == 0 || rate / 10 >= SINK_READ_MAX) {
		return SINK_READ_MAX;
	}
	return rate >= 10 ? (size_t)(rate / 10) : 1;
}

/* After reading `len` bytes slowly: does nothing for as long as they take. */
static void wait_for_allowance(struct sink_session *s, uint64_t len)
{
	if (!s->paused) {
		flush(s);
	}
	pause_until(s, s->sink->now_ns + len * NS_PER_S / s->sink->options.slow_read_bytes_s);
}

/* Moves what was kept to the shared buffer, where what comes next can follow it. */
static size_t reload(struct sink_session *s)
{
	size_t len = s->in.len;

	assert(len <= SINK_READ_MAX + LINE_MAX_BYTES);
	if (len > 0) {
		memcpy(s->sink->buffer, s->in.data, len);
		s->in.len = 0;
	}
	return len;
}

/* Takes what was kept when something stopped the session. */
static void take_kept(struct sink_session *s)
{
	size_t len = reload(s);

	take_input(s, s->sink->buffer, len);
}

/*
 * Reads and answers until there is no more or something stops it. A read that does not fill its
 * space has emptied the socket; epoll tells when more comes. After a hang-up it reads to the end.
 */
static void read_input(struct sink_session *s, bool hang_up)
{
	uint64_t rate = s->sink->options.slow_read_bytes_s;
	size_t limit = read_limit(s);
	ssize_t n = (ssize_t)limit;

	while (!is_stopped(s) && (hang_up || n == (ssize_t)limit)) {
		size_t kept = reload(s);
		n = link_recv(s->fd, s->tls, s->sink->buffer + kept, limit);
		if (n > 0) {
			take_input(s, s->sink->buffer, kept + (size_t)n);
			if (rate > 0) {
				wait_for_allowance(s, (uint64_t)n);
			}
			continue;
		}
		text_append(&s->in, s->sink->buffer, kept);
		if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			s->dropped = true;
		}
		if (n < 0 && errno == EAGAIN) {
			return;
		}
	}
}

/* Sends what the session has to say, and ends it when it is over. */
static void settle(struct sink_session *s)
{
	/* A delayed reply stays until the delay is over; what stood before it is sent already. */
	if (!s->paused) {
		flush(s);
	}
	if (s->dropped || (s->closing && !s->paused && s->out.len == 0 && s->flood_lines == 0)) {
		sink_session_close(s);
	}
}

/* There is room again for replies, and for more of a flood. */
static void go_on_sending(struct sink_session *s)
{
	bool flooding = s->flood_lines > 0;

	flush(s);
	flood(s);
	if (flooding && s->flood_lines == 0) {
		take_kept(s);
	}
}

static void greet(struct sink_session *s);

/* False while the handshake is not done. */
static bool shake(struct sink_session *s)
{
	int rc = link_shake(s->tls);

	s->shaking = rc == 0;
	if (rc < 0) {
		s->dropped = true;
	} else if (rc > 0) {
		s->sink->ledger.tls_handshakes++;
		s->sink->ledger.tls_resumed += SSL_session_reused(s->tls) == 1;
		if (s->sink->options.tls_first) {
			greet(s);
		}
	}
	return rc > 0;
}

void sink_session_on_event(struct sink_session *s, uint32_t events)
{
	bool hang_up = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;

	if (s->shaking && !shake(s)) {
		settle(s);
		return;
	}
	if (hang_up && is_stopped(s)) {
		s->dropped = true;
	}
	if ((events & EPOLLOUT) != 0 && !s->paused) {
		go_on_sending(s);
	}
	read_input(s, hang_up);
	settle(s);
}

void sink_session_resume(struct sink_session *s)
{
	s->paused = false;
	s->resume_ns = 0;
	flush(s);
	flood(s);
	take_kept(s);
	read_input(s, false);
	settle(s);
}

static void on_header(struct message_reader *r, void *owner)
{
	const struct sink_session *s = owner;

	r->keep_body = s->sink->ledger.save_dir != NULL && sink_ledger_is_foreign(r);
}

static void link_session(struct sink_session *s)
{
	struct sink *sink = s->sink;
	struct sink_ledger *ledger = &sink->ledger;

	s->next = sink->sessions;
	if (s->next != NULL) {
		s->next->prev = s;
	}
	sink->sessions = s;
	s->number = ++ledger->connections;
	if (++ledger->connections_open > ledger->connections_peak) {
		ledger->connections_peak = ledger->connections_open;
	}
}

static void greet(struct sink_session *s)
{
	const struct fault *f = fault_draw(&s->sink->faults, STAGE_CONNECT);
	char banner[256];

	snprintf(banner, sizeof(banner), "220 %s ESMTP fwsink\r\n", s->sink->options.hostname);
	if (f != NULL && f->action == FAULT_DELAY) {
		pause_until(s, s->sink->now_ns + f->value * NS_PER_MS);
	} else if (f != NULL) {
		bool given = apply_fault(s, f, banner);
		s->closing = s->closing || (!given && !s->paused && s->flood_lines == 0);
		return;
	}
	if (!answer(s, STAGE_BANNER, banner)) {
		s->state = SESSION_REFUSED;
	}
}

static bool watch(struct sink_session *s)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
		.data.ptr = s,
	};

	return epoll_ctl(s->sink->epoll, EPOLL_CTL_ADD, s->fd, &event) == 0;
}

void sink_session_open(struct sink *sink, int fd)
{
	struct sink_session *s = calloc(1, sizeof(*s));
	uint64_t max = sink->options.connections_max;

	if (s == NULL) {
		err(2, "session");
	}
	s->sink = sink;
	s->fd = fd;
	s->domain = UINT32_MAX;
	s->reader.on_header = on_header;
	s->reader.owner = s;
	link_session(s);
	s->dropped = !watch(s);
	if (max > 0 && sink->ledger.connections_open > max) {
		sink->ledger.connections_refused++;
		put(s, "421 4.7.0 Too many connections\r\n");
		s->closing = true;
	} else if (sink->options.tls_first) {
		begin_tls(s);
	} else {
		greet(s);
	}
	settle(s);
}

static void unlist_paused(struct sink_session *s)
{
	struct sink_session **at = &s->sink->paused;

	while (*at != s) {
		at = &(*at)->next_paused;
	}
	*at = s->next_paused;
}

void sink_session_close(struct sink_session *s)
{
	struct sink *sink = s->sink;

	if (s->listed_paused) {
		unlist_paused(s);
	}
	if (s->next != NULL) {
		s->next->prev = s->prev;
	}
	if (s->prev != NULL) {
		s->prev->next = s->next;
	} else {
		sink->sessions = s->next;
	}
	domain_tally_move(&sink->ledger.domains, s->domain, UINT32_MAX);
	sink->ledger.connections_open--;
	link_forget(s->tls);
	close(s->fd);
	message_reader_free(&s->reader);
	text_free(&s->in);
	text_free(&s->out);
	text_free(&s->flood_end);
	text_free(&s->first_recipient);
	free(s->recipients);
	free(s);
}
