/*
 * core/mail/header.c: a byte of options; then either a Received field's words, one on a line, or a
 * field's name, numbers and a message. A Received field is one folded field, whatever a client
 * called itself; a field that is looked for or taken out is what a slow reference finds.
 */
#include <errno.h>
#include <strings.h>

#include "core/mail/header.h"
#include "tests/fuzz/fuzz_input.h"

/* ---- Received ---- */

/* Printable, CR LF only before a tab or at the end. */
static void check_field(const char *text, size_t len)
{
	size_t line = 0;

	FUZZ_CHECK(len < HEADER_RECEIVED_MAX && strlen(text) == len);
	FUZZ_CHECK(len > 2 && strcmp(text + len - 2, "\r\n") == 0);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		line++;
		if (c == '\r') {
			FUZZ_CHECK(text[i + 1] == '\n');
			FUZZ_CHECK(i + 2 == len || text[i + 2] == '\t');
		} else if (c == '\n') {
			FUZZ_CHECK(text[i - 1] == '\r');
			line = 0;
		} else {
			FUZZ_CHECK((c >= ' ' && c < 127) || (c == '\t' && text[i - 1] == '\n'));
		}
		FUZZ_CHECK(line <= 998);
	}
}

static const char *protocol_of(const struct header_received *r)
{
	static const char *const names[4] = {"ESMTP", "ESMTPS", "UTF8SMTP", "UTF8SMTPS"};

	return r->protocol == ENVELOPE_SMTP ? "SMTP" : names[2 * r->smtputf8 + r->tls];
}

/* Each clause where it belongs: what a client says is one word, and none of ours. */
static void check_clauses(char *text, const struct header_received *r)
{
	char id[MESSAGE_ID_TEXT];
	char *words[20];
	unsigned count = 0;
	unsigned by = r->peer_ip != NULL ? 4 : 3;

	for (char *word = strtok(text, " \t\r\n"); word != NULL; word = strtok(NULL, " \t\r\n")) {
		FUZZ_CHECK(count < 20);
		words[count++] = word;
	}
	message_id_format(r->id, id);
	FUZZ_CHECK(count == by + 12);
	FUZZ_CHECK(strcmp(words[0], "Received:") == 0 && strcmp(words[1], "from") == 0);
	FUZZ_CHECK(by == 3 || strncmp(words[3], "([", 2) == 0);
	FUZZ_CHECK(strcmp(words[by], "by") == 0 && strcmp(words[by + 2], "with") == 0);
	FUZZ_CHECK(strcmp(words[by + 3], protocol_of(r)) == 0 && strcmp(words[by + 4], "id") == 0);
	FUZZ_CHECK(strncmp(words[by + 5], id, strlen(id)) == 0);
	FUZZ_CHECK(strcmp(words[by + 5] + strlen(id), ";") == 0);
	FUZZ_CHECK(strpbrk(words[2], "();\"\\<>,") == NULL);
}

static void received(struct fuzz_input *in)
{
	unsigned options = fuzz_byte(in);
	uint8_t ip[16] = {[10] = 0xff, [11] = 0xff, [15] = 1};
	struct message_id id = {fuzz_word(in), fuzz_word(in)};
	struct header_received r = {
		.peer_ip = (options & 1) != 0 ? ip : NULL,
		.id = &id,
		.time_s = (uint64_t)fuzz_word(in) << (options >> 5 << 1),
		.protocol = (options & 2) != 0 ? ENVELOPE_SMTP : ENVELOPE_ESMTP,
		.smtputf8 = (options & 4) != 0,
		.tls = (options & 8) != 0,
	};
	char *helo;
	char *hostname;
	char *text = malloc(HEADER_RECEIVED_MAX);

	FUZZ_CHECK(text != NULL);
	for (unsigned i = 0; (options & 16) != 0 && i < 16; i++) {
		ip[i] = (uint8_t)fuzz_byte(in);
	}
	helo = fuzz_string(in);
	hostname = fuzz_string(in);
	r.helo = helo;
	r.hostname = hostname;
	check_field(text, header_received_format(&r, text));
	check_clauses(text, &r);
	free(hostname);
	free(helo);
	free(text);
}

/* ---- a field that is looked for ---- */

/* Length of the line at `text` with its LF. */
static size_t line_length(const char *text, size_t len)
{
	const char *lf = memchr(text, '\n', len);

	return lf != NULL ? (size_t)(lf - text) + 1 : len;
}

/* Where the value starts if the line has the name, blanks, and a colon; else 0. */
static size_t reference_value(const char *line, size_t len, const char *name)
{
	size_t at = strlen(name);

	if (at >= len || strncasecmp(line, name, at) != 0) {
		return 0;
	}
	while (at < len && (line[at] == ' ' || line[at] == '\t')) {
		at++;
	}
	return at < len && line[at] == ':' ? at + 1 : 0;
}

static int reference_clean(const char *from, size_t len, char *to, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < size - 1; i++) {
		unsigned char c = (unsigned char)from[i];

		if (c != '\r' && c != '\n') {
			c = c < ' ' || c == 127 ? ' ' : c;
			if (n > 0 || c != ' ') {
				to[n++] = (char)c;
			}
		}
	}
	for (; n > 0 && to[n - 1] == ' '; n--) {
	}
	to[n] = '\0';
	return (int)n;
}

static int reference_find(const char *text, size_t len, const char *name, char *to, size_t size)
{
	size_t line;

	for (size_t at = 0; at < len && text[at] != '\r' && text[at] != '\n'; at += line) {
		size_t value;
		size_t end;

		line = line_length(text + at, len - at);
		value = reference_value(text + at, line, name);
		if (value == 0) {
			continue;
		}
		end = at + line;
		while (end < len && (text[end] == ' ' || text[end] == '\t')) {
			end += line_length(text + end, len - end);
		}
		return reference_clean(text + at + value, end - at - value, to, size);
	}
	to[0] = '\0';
	return -ENOENT;
}

static void find(struct fuzz_input *in)
{
	static const char *const names[4] = {"Subject", "X-", "Message-ID", "a"};
	const char *name = names[fuzz_byte(in) & 3];
	size_t size = 1 + fuzz_word(in) % 400;
	uint32_t seed = fuzz_word(in);
	struct chain body = CHAIN_EMPTY;
	struct pool buffers;
	char *value = malloc(size);
	char *expected = malloc(size);
	size_t n;
	int rc;

	FUZZ_CHECK(value != NULL && expected != NULL);
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	for (size_t at = 0; at < in->left; at += n) {
		n = fuzz_split(&seed, in->left - at);
		chain_append(&body, &buffers, in->at + at, n);
	}
	rc = header_find(&body, name, value, size);
	FUZZ_CHECK(rc == reference_find((const char *)in->at,
					in->left < HEADER_SEARCH_MAX ? in->left : HEADER_SEARCH_MAX,
					name, expected, size));
	FUZZ_CHECK(strcmp(value, expected) == 0 || rc > 0);
	FUZZ_CHECK(rc < 0 || memcmp(value, expected, (size_t)rc + 1) == 0);
	chain_release(&body, &buffers);
	pool_close(&buffers);
	free(expected);
	free(value);
}

/* ---- fields that are taken out ---- */

/* What header_take() looks at of a field. */
#define LOOK_MAX 1024
#define TAKEN_MAX 66

/* Copies all but the fields to `out`; returns how many there were. */
static unsigned reference_take(const char *text, size_t len, const char *name, char *to, char *out,
			       size_t *out_len)
{
	unsigned count = 0;
	size_t at = 0;
	size_t end;

	to[0] = '\0';
	*out_len = 0;
	for (; at < len && text[at] != '\r' && text[at] != '\n'; at = end) {
		size_t line = line_length(text + at, len - at);
		size_t look;
		size_t value;

		end = at + line;
		while (end < len && (text[end] == ' ' || text[end] == '\t')) {
			end += line_length(text + end, len - end);
		}
		look = end - at < LOOK_MAX ? end - at : LOOK_MAX;
		value = reference_value(text + at, line < look ? line : look, name);
		if (value == 0) {
			memcpy(out + *out_len, text + at, end - at);
			*out_len += end - at;
		} else if (count++ == 0) {
			reference_clean(text + at + value, look - value, to, TAKEN_MAX);
		}
	}
	memcpy(out + *out_len, text + at, len - at);
	*out_len += len - at;
	return count;
}

static void take(struct fuzz_input *in)
{
	static const char *const names[4] = {"X-Binding", "X-", "Subject", "a"};
	const char *name = names[fuzz_byte(in) & 3];
	uint32_t seed = fuzz_word(in);
	struct chain body = CHAIN_EMPTY;
	struct pool buffers;
	char value[TAKEN_MAX];
	char expected[TAKEN_MAX];
	char *rest = malloc(in->left + 1);
	char *found = malloc(in->left + 1);
	size_t rest_len;
	size_t n;

	FUZZ_CHECK(rest != NULL && found != NULL);
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	/* A buffer of its own for each piece. */
	for (size_t at = 0; at < in->left; at += n) {
		struct chain piece = CHAIN_EMPTY;

		n = fuzz_split(&seed, in->left - at);
		chain_append(&piece, &buffers, in->at + at, n);
		chain_prepend_chain(&piece, &body);
		body = piece;
	}
	FUZZ_CHECK(header_take(&body, &buffers, name, value, sizeof(value)) ==
		   reference_take((const char *)in->at, in->left, name, expected, rest, &rest_len));
	FUZZ_CHECK(strcmp(value, expected) == 0);
	FUZZ_CHECK(body.len == rest_len);
	chain_copy_out(&body, 0, found, rest_len);
	FUZZ_CHECK(memcmp(found, rest, rest_len) == 0);
	chain_release(&body, &buffers);
	FUZZ_CHECK(buffers.live == 0);
	pool_close(&buffers);
	free(found);
	free(rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);

	unsigned which = fuzz_byte(&in);

	if ((which & 1) != 0) {
		received(&in);
	} else if ((which & 2) != 0) {
		take(&in);
	} else {
		find(&in);
	}
	return 0;
}
