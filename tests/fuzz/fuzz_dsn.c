/*
 * core/mail/dsn.c: numbers, then sender, recipients and what servers said of them, one on a line,
 * then the original message. A notification is mail that may go anywhere: lines of 998 bytes, no
 * octet above 127 unless it says so, nothing that could end it early, exactly its parts; and the
 * header that it returns, decoded, is the original's.
 */
#include "core/mail/address.h"
#include "core/mail/dsn.h"
#include "core/mail/dsn_parameter.h"
#include "tests/fuzz/dot_reference.h"

#define RECIPIENTS_MAX 4
#define TEXTS 5

struct world {
	struct pool buffers;
	struct envelope *envelope;
	struct chain original;
	struct dsn_recipient recipients[RECIPIENTS_MAX];
	/* Of the recipients: address, status, diagnostic, server, ORCPT. */
	char *texts[RECIPIENTS_MAX * TEXTS];
	struct dsn dsn;
};

/* Only addresses that reception lets in; others are one that it does. */
static char *take_address(struct fuzz_input *in)
{
	char *text = fuzz_string(in);
	struct smtp_refusal refusal;
	struct address a;
	char path[512];
	int len = snprintf(path, sizeof(path), "<%s>", text);
	bool good = len < (int)sizeof(path) &&
		    address_parse(&a, path, (size_t)len, ADDRESS_SENDER, true, &refusal) == 0;

	free(text);
	return strdup(good && a.len > 0 ? a.text : "someone@example.net");
}

static void take_envelope(struct world *w, struct fuzz_input *in)
{
	unsigned options = fuzz_byte(in);
	char *sender = take_address(in);
	char *envid = fuzz_string(in);
	struct envelope_builder b;

	envelope_builder_init(&b);
	envelope_set_sender(&b, sender, strlen(sender));
	b.flags = (uint16_t)(options & (ENVELOPE_RET_FULL | ENVELOPE_8BITMIME));
	if (dsn_xtext_valid(envid, strlen(envid)) && strlen(envid) <= DSN_ENVID_MAX) {
		envelope_set_envid(&b, envid, strlen(envid));
	}
	envelope_add_recipient(&b, "to@example.org", 14);
	w->envelope = malloc(envelope_size(&b));
	FUZZ_CHECK(w->envelope != NULL);
	envelope_build(&b, w->envelope);
	w->envelope->received_ms = UINT64_C(1750000000000);
	envelope_builder_close(&b);
	free(sender);
	free(envid);
}

static void take_recipients(struct world *w, struct fuzz_input *in, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char **texts = &w->texts[(size_t)TEXTS * i];
		uint16_t code = (uint16_t)(fuzz_word(in) % 1000);

		texts[0] = take_address(in);
		for (unsigned j = 1; j < TEXTS; j++) {
			texts[j] = fuzz_string(in);
		}
		w->recipients[i] = (struct dsn_recipient){
			.address = texts[0],
			.original = dsn_orcpt_valid(texts[4], strlen(texts[4])) ? texts[4] : NULL,
			.action = code % 2 == 0 ? DSN_FAILED : DSN_RELAYED,
			.code = code,
			.status = texts[1][0] != '-' ? texts[1] : NULL,
			.diagnostic = texts[2][0] != '-' ? texts[2] : NULL,
			/* Names of hosts are no longer than that. */
			.remote_mta =
				texts[3][0] != '-' && strlen(texts[3]) < 256 ? texts[3] : NULL,
		};
	}
}

/* The message as a session stores it: in wire form, whole. */
static void take_original(struct world *w, struct fuzz_input *in)
{
	struct dot_converter c;
	size_t len = dot_reference_scan(in->at, in->left, 998, false).len;

	dot_converter_init(&c);
	dot_convert(&c, in->at, len, &w->original, &w->buffers);
	if (len > 0) {
		dot_convert(&c, (const unsigned char *)"\r\n", 2, &w->original, &w->buffers);
	}
}

static unsigned char *flatten(const struct chain *c)
{
	unsigned char *flat = malloc((size_t)c->len + 1);

	FUZZ_CHECK(flat != NULL);
	chain_copy_out(c, 0, flat, (size_t)c->len);
	flat[c->len] = '\0';
	return flat;
}

/* ---- the returned header ---- */

static int hex(unsigned char c)
{
	const char *digits = "0123456789ABCDEF";
	const char *p = c != 0 ? strchr(digits, c) : NULL;

	return p != NULL ? (int)(p - digits) : -1;
}

/* RFC 2045 section 6.7. In place; returns the length. */
static size_t decode_qp(unsigned char *text, size_t len)
{
	size_t n = 0;
	size_t line = 0;

	for (size_t i = 0; i < len; i++) {
		line = text[i] == '\n' ? 0 : line + 1;
		FUZZ_CHECK(line <= 77);
		if (text[i] != '=') {
			FUZZ_CHECK(text[i] != ' ' || text[i + 1] != '\r');
			text[n++] = text[i];
		} else if (text[i + 1] == '\r') {
			i += 2;
			line = 0;
		} else {
			FUZZ_CHECK(i + 2 < len && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0);
			text[n++] = (unsigned char)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
			i += 2;
			line += 2;
		}
	}
	return n;
}

/* Its bytes up to the first empty line. */
static size_t header_length(const unsigned char *text, size_t len)
{
	size_t at = 0;

	while (at < len && (text[at] != '\r' || text[at + 1] != '\n')) {
		const unsigned char *lf = memchr(text + at, '\n', len - at);

		FUZZ_CHECK(lf != NULL);
		at = (size_t)(lf - text) + 1;
	}
	return at;
}

/* The whole message, as it was; a line end more comes with the boundary. */
static void check_full(const struct world *w, const unsigned char *part, size_t len)
{
	unsigned char *wire = flatten(&w->original);
	unsigned char *plain = malloc(2 * (size_t)w->original.len + 2);
	unsigned char *back = malloc(2 * len + 2);
	size_t plain_len;

	FUZZ_CHECK(plain != NULL && back != NULL);
	FUZZ_CHECK((w->envelope->flags & ENVELOPE_RET_FULL) != 0);
	plain_len = dot_reference_plain(wire, (size_t)w->original.len, plain);
	FUZZ_CHECK(dot_reference_plain(part, len, back) == plain_len);
	FUZZ_CHECK(memcmp(back, plain, plain_len) == 0);
	free(back);
	free(plain);
	free(wire);
}

/* `part`: the content of the part that returns the header, up to the CR LF before the boundary. */
static void check_header(const struct world *w, unsigned char *part, size_t len, bool qp)
{
	unsigned char *wire = flatten(&w->original);
	unsigned char *plain = malloc(2 * (size_t)w->original.len + 2);
	unsigned char *back = malloc(2 * len + 2);
	size_t plain_len;
	size_t back_len;

	FUZZ_CHECK(plain != NULL && back != NULL);
	plain_len = dot_reference_plain(wire, header_length(wire, (size_t)w->original.len), plain);
	back_len = dot_reference_plain(part, len, back);
	if (qp) {
		back_len = decode_qp(back, back_len);
	}
	FUZZ_CHECK(back_len == plain_len && memcmp(back, plain, back_len) == 0);
	free(back);
	free(plain);
	free(wire);
}

/* ---- the whole ---- */

static void check_wire(const struct world *w, const unsigned char *text, size_t len, uint16_t flags)
{
	struct dot_reference r = dot_reference_scan(text, len, 998, false);
	bool full = (w->envelope->flags & ENVELOPE_RET_FULL) != 0;
	uint16_t ours = (uint16_t)(flags & ~(full ? ENVELOPE_8BITMIME : 0));

	FUZZ_CHECK(r.len == len && dot_after_crlf(text, len));
	/* What comes back whole is as it is, but it has no octets above 127 where it said so. */
	r.flags &= ~(uint32_t)(full ? DOT_NUL | DOT_LONG_LINE | DOT_8BIT : 0);
	FUZZ_CHECK((r.flags & ~(uint32_t)(DOT_STUFFED | (flags != 0 ? DOT_8BIT : 0))) == 0);
	FUZZ_CHECK(ours == 0 || full || ours == (ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8));
}

/* Boundaries stand at the start of lines, as often as there are parts, and once at the end. */
static void check_parts(const struct world *w, unsigned char *text, size_t len)
{
	char boundary[64];
	char id[MESSAGE_ID_TEXT];
	unsigned char *parts[8] = {NULL};
	unsigned expected = w->dsn.original_body != NULL ? 4 : 3;
	unsigned count = 0;
	size_t n;

	message_id_format(&w->dsn.id, id);
	n = (size_t)snprintf(boundary, sizeof(boundary), "\r\n--=_%s", id);
	for (unsigned char *p = text; (p = memmem(p, len - (size_t)(p - text), boundary, n));
	     p += n) {
		FUZZ_CHECK(count < expected);
		parts[count++] = p;
	}
	FUZZ_CHECK(count == expected);
	FUZZ_CHECK(memcmp(parts[count - 1] + n, "--\r\n", 5) == 0);
	if (expected == 4) {
		unsigned char *content = (unsigned char *)strstr((char *)parts[2], "\r\n\r\n") + 4;
		bool qp = memmem(parts[2], (size_t)(content - parts[2]), "quoted-printable", 16);

		if (memmem(parts[2], (size_t)(content - parts[2]), "message/rfc822", 14) != NULL) {
			check_full(w, content, (size_t)(parts[3] - content));
		} else {
			check_header(w, content, (size_t)(parts[3] - content), qp);
		}
	}
}

/* What nobody can know who writes a message that may come back: the id of the notification. */
static bool has_boundary(const struct world *w)
{
	unsigned char *wire = flatten(&w->original);
	char id[MESSAGE_ID_TEXT];
	bool found;

	message_id_format(&w->dsn.id, id);
	found = memmem(wire, (size_t)w->original.len, id, strlen(id)) != NULL;
	free(wire);
	return found;
}

static void write_and_check(struct world *w)
{
	struct chain out = CHAIN_EMPTY;
	uint16_t flags;
	unsigned char *text;

	if (has_boundary(w)) {
		return;
	}
	flags = dsn_write(&w->dsn, &out, &w->buffers);
	text = flatten(&out);
	check_wire(w, text, (size_t)out.len, flags);
	check_parts(w, text, (size_t)out.len);
	chain_release(&out, &w->buffers);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	unsigned options = fuzz_byte(&in);
	unsigned count = 1 + (options >> 1) % RECIPIENTS_MAX;
	struct world w = {.original = CHAIN_EMPTY};

	pool_init(&w.buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	take_envelope(&w, &in);
	take_recipients(&w, &in, count);
	take_original(&w, &in);
	w.dsn = (struct dsn){
		.id = {0x123456789abc0001, options},
		.time_s = 1750000000,
		.reporting_mta = "mta1.example.com",
		.mailerdaemon = "mailer-daemon@mta1.example.com",
		.original = w.envelope,
		.original_body = (options & 1) != 0 ? &w.original : NULL,
		.recipients = w.recipients,
		.recipient_count = count,
	};
	write_and_check(&w);
	for (unsigned i = 0; i < TEXTS * count; i++) {
		free(w.texts[i]);
	}
	chain_release(&w.original, &w.buffers);
	pool_close(&w.buffers);
	free(w.envelope);
	return 0;
}
