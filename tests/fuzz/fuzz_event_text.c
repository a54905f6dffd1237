/*
 * core/log/event_text.c: a byte for the kind of line, then numbers, then strings, one on a line. A
 * line has no line feed, and the separators of its layout; each field unescapes to
 * the beginning of what was given, and to all of it if there is room.
 */
#include "core/log/event_text.h"
#include "core/mail/utf8.h"
#include "tests/fuzz/fuzz_input.h"

#define STRINGS 8

struct fields {
	struct message_id id;
	char *strings[STRINGS];
	/* Time, id and numbers; of no kind yet. */
	struct event event;
	uint64_t number;
};

struct expected_field {
	unsigned index;
	const char *text;
	size_t len;
	size_t max;
};

/* Bytes that the character at `text` takes in a log. */
static size_t escaped_length(const char *text, size_t len, size_t *taken)
{
	unsigned char c = (unsigned char)text[0];
	size_t n = utf8_sequence(text, len);

	*taken = 1;
	if (c == '@' || c == '\\' || c == '\n' || c == '\r' || c == '\t') {
		return 2;
	}
	if (c < ' ' || c == 127) {
		return 4;
	}
	*taken = n > 0 ? n : 1;
	return *taken;
}

/* The field is what of `text` has room in `max` bytes, and no less. */
static void check_escaped(const char *field, size_t field_len, const char *text, size_t len,
			  size_t max)
{
	char *plain = malloc(field_len + 1);
	size_t plain_len;
	size_t taken;
	int rc;

	FUZZ_CHECK(plain != NULL && field_len <= max);
	rc = event_text_unescape(field, field_len, plain);
	FUZZ_CHECK(rc >= 0);
	plain_len = (size_t)rc;
	FUZZ_CHECK(plain_len <= len && memcmp(plain, text, plain_len) == 0);
	if (plain_len < len) {
		size_t next = escaped_length(text + plain_len, len - plain_len, &taken);

		FUZZ_CHECK(field_len + next > max);
	}
	for (size_t i = 0; i < field_len; i++) {
		FUZZ_CHECK((unsigned char)field[i] >= ' ' && field[i] != 127);
		FUZZ_CHECK(field[i] != '@' || (i > 0 && field[i - 1] == '\\'));
	}
	free(plain);
}

static void check_field(const char *line, size_t len, const struct expected_field *e)
{
	size_t field_len = 0;
	const char *field = event_text_field(line, len, e->index, &field_len);

	FUZZ_CHECK(field != NULL);
	check_escaped(field, field_len, e->text, e->len, e->max);
}

/* No LF, and `separators` "@" that no backslash escapes. */
static void check_line(const char *line, size_t len, unsigned separators)
{
	unsigned found = 0;
	size_t ignored;

	FUZZ_CHECK(len > 0 && len <= EVENT_TEXT_LINE_MAX);
	FUZZ_CHECK(memchr(line, '\n', len) == NULL);
	for (size_t i = 0; i < len; i++) {
		if (line[i] == '\\') {
			i++;
		} else if (line[i] == '@') {
			found++;
		}
	}
	FUZZ_CHECK(found == separators);
	FUZZ_CHECK(event_text_field(line, len, separators, &ignored) != NULL);
	FUZZ_CHECK(event_text_field(line, len, separators + 1, &ignored) == NULL);
}

static void check_string(const char *line, size_t len, unsigned index, const char *text, size_t max)
{
	check_field(line, len, &(struct expected_field){index, text, strlen(text), max});
}

/* Local part at `index`, domain after it. */
static void check_address(const char *line, size_t len, unsigned index, const char *address)
{
	const char *at = strrchr(address, '@');
	size_t local = at != NULL ? (size_t)(at - address) : strlen(address);

	check_field(line, len, &(struct expected_field){index, address, local, 256});
	check_string(line, len, index + 1, at != NULL ? at + 1 : "", 1020);
}

static void reception(const struct fields *f, char line[EVENT_TEXT_LINE_MAX])
{
	struct event e = f->event;
	size_t len;

	e.kind = EVENT_RECEPTION;
	e.text[EVENT_RECIPIENT] = f->strings[0];
	e.text[EVENT_SENDER] = f->strings[1];
	e.text[EVENT_REMOTE_IP] = f->strings[2];
	e.text[EVENT_PROTOCOL] = f->strings[3];
	e.text[EVENT_BINDING_GROUP] = f->strings[4];
	e.text[EVENT_BINDING] = f->strings[5];
	len = event_text(line, LOG_MAIN, &e);
	check_line(line, len, 13);
	check_address(line, len, 5, f->strings[0]);
	check_address(line, len, 7, f->strings[1]);
	for (unsigned i = 2; i < 6; i++) {
		/* The size is between the address and the protocol. */
		check_string(line, len, i == 2 ? 9 : 8 + i, f->strings[i], 128);
	}
}

static void attempt(const struct fields *f, char line[EVENT_TEXT_LINE_MAX], unsigned kind)
{
	struct event e = f->event;
	size_t len;

	e.kind = kind == 1 ? EVENT_DELIVERY : kind == 2 ? EVENT_TRANSIENT : EVENT_EXPIRATION;
	e.text[EVENT_DOMAIN] = f->strings[0];
	e.text[EVENT_BINDING_GROUP] = f->strings[1];
	e.text[EVENT_BINDING] = f->strings[2];
	e.text[EVENT_REMOTE_IP] = f->strings[3];
	e.text[EVENT_REPLY] = f->strings[4];
	len = event_text(line, LOG_MAIN, &e);
	check_line(line, len, kind == 1 ? 11 : 13);
	check_string(line, len, 5, f->strings[0], 1020);
	check_string(line, len, 7, f->strings[1], 128);
	check_string(line, len, 8, f->strings[2], 128);
	check_string(line, len, kind == 1 ? 11 : 12, f->strings[3], 128);
	if (kind != 1) {
		check_string(line, len, 13, f->strings[4], EVENT_TEXT_MAX);
	}
}

static void rejection(const struct fields *f, char line[EVENT_TEXT_LINE_MAX])
{
	struct event e = f->event;
	size_t len;

	e.kind = EVENT_REJECTION;
	e.text[EVENT_REMOTE_IP] = f->strings[0];
	e.text[EVENT_SENDER] = f->strings[1];
	e.text[EVENT_RECIPIENT] = f->strings[2];
	e.text[EVENT_REPLY] = f->strings[3];
	len = event_text(line, LOG_REJECT, &e);
	check_line(line, len, 12);
	check_string(line, len, 5, f->strings[0], 128);
	check_address(line, len, 8, f->strings[1]);
	check_address(line, len, 10, f->strings[2]);
	check_string(line, len, 12, f->strings[3], EVENT_TEXT_MAX);
}

static void bounce(const struct fields *f, char line[EVENT_TEXT_LINE_MAX])
{
	struct event e = f->event;
	size_t len;

	e.kind = (f->number & 2) != 0 ? EVENT_BOUNCE : EVENT_OUT_OF_BAND;
	e.permanent = (f->number & 1) != 0;
	e.text[EVENT_RECIPIENT] = f->strings[0];
	e.text[EVENT_SENDER] = f->strings[1];
	e.text[EVENT_BINDING_GROUP] = f->strings[2];
	e.text[EVENT_BINDING] = f->strings[3];
	e.text[EVENT_REMOTE_IP] = f->strings[2];
	e.text[EVENT_REPLY] = f->strings[3];
	len = event_text(line, LOG_BOUNCE, &e);
	check_line(line, len, 15);
	check_address(line, len, 5, f->strings[0]);
	check_address(line, len, 7, f->strings[1]);
	check_string(line, len, 9, f->strings[2], 128);
	check_string(line, len, 10, f->strings[3], 128);
	check_string(line, len, 14, f->strings[2], 128);
	check_string(line, len, 15, f->strings[3], EVENT_TEXT_MAX);
}

static void feedback(const struct fields *f, char line[EVENT_TEXT_LINE_MAX])
{
	struct event e = f->event;
	size_t len;

	e.kind = EVENT_FEEDBACK;
	e.text[EVENT_RECIPIENT] = f->strings[0];
	e.text[EVENT_BINDING_GROUP] = f->strings[1];
	e.text[EVENT_BINDING] = f->strings[2];
	e.text[EVENT_FEEDBACK_TYPE] = f->strings[3];
	e.text[EVENT_REPORTER] = f->strings[1];
	e.text[EVENT_USER_STRING] = f->strings[2];
	len = event_text(line, LOG_FEEDBACK, &e);
	check_line(line, len, 9);
	check_address(line, len, 3, f->strings[0]);
	check_string(line, len, 5, f->strings[2], 128);
	check_string(line, len, 6, f->strings[1], 128);
	check_string(line, len, 7, f->strings[3], 128);
	check_string(line, len, 8, f->strings[1], 1020);
	check_string(line, len, 9, f->strings[2], EVENT_TEXT_MAX);
}

/* Any bytes and any room, into memory that is watched. */
static void escape_bytes(struct fuzz_input in)
{
	size_t max = fuzz_word(&in) % 300;
	unsigned char *text = fuzz_copy(in.at, in.left);
	char *field = malloc(max + 1);
	size_t n;

	FUZZ_CHECK(field != NULL);
	n = event_text_escape((char *)text, in.left, field, max);
	check_escaped(field, n, (char *)text, in.left, max);
	free(field);
	free(text);
}

/* Whatever a log may contain: what comes out is never longer. */
static void unescape_bytes(struct fuzz_input in)
{
	unsigned char *text = fuzz_copy(in.at, in.left);
	unsigned char *plain = fuzz_copy(in.at, in.left);
	size_t len;

	FUZZ_CHECK(event_text_unescape((char *)text, in.left, (char *)plain) <= (int)in.left);
	for (unsigned i = 0; i < 20; i++) {
		const char *field = event_text_field((char *)text, in.left, i, &len);

		FUZZ_CHECK(field == NULL || field + len <= (char *)text + in.left);
	}
	free(plain);
	free(text);
}

static void take_fields(struct fields *f, struct fuzz_input *in)
{
	f->id = (struct message_id){fuzz_word(in), fuzz_word(in)};
	f->number = (uint64_t)fuzz_word(in) << (fuzz_byte(in) & 63);
	f->event = (struct event){
		.stage = (enum smtp_stage)(f->number % (SMTP_STAGE_UNKNOWN + 1)),
		.code = (uint16_t)f->number,
		.bounce_class = (uint16_t)f->number,
		.retries = (uint32_t)f->number,
		.time_ms = f->number,
		.batch = f->id.high,
		.connection = f->number,
		.size = f->number,
		.queued_ms = f->number,
	};
	if ((f->id.low & 1) != 0) {
		f->event.id = f->id;
	}
	for (unsigned i = 0; i < STRINGS; i++) {
		f->strings[i] = fuzz_string(in);
		/* A line feed stands for the end of a string; here is how one gets into it. */
		for (char *p = f->strings[i]; *p != '\0'; p++) {
			*p = *p == '\f' ? '\n' : *p;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	unsigned kind = fuzz_byte(&in) % 9;
	char *line = malloc(EVENT_TEXT_LINE_MAX);
	struct fields f;

	FUZZ_CHECK(line != NULL);
	if (kind == 5) {
		escape_bytes(in);
	} else if (kind == 6) {
		unescape_bytes(in);
	} else {
		take_fields(&f, &in);
		if (kind == 0) {
			reception(&f, line);
		} else if (kind == 4) {
			rejection(&f, line);
		} else if (kind == 7) {
			bounce(&f, line);
		} else if (kind == 8) {
			feedback(&f, line);
		} else {
			attempt(&f, line, kind);
		}
		for (unsigned i = 0; i < STRINGS; i++) {
			free(f.strings[i]);
		}
	}
	free(line);
	return 0;
}
