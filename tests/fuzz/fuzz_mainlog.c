/*
 * core/mail/mainlog.c: a byte for the kind of line, then numbers, then strings, one on a line. A
 * line has one line feed, its last byte, and the separators of its layout; each field unescapes to
 * the beginning of what was given, and to all of it if there is room.
 */
#include "core/mail/mainlog.h"
#include "core/mail/utf8.h"
#include "tests/fuzz/fuzz_input.h"

#define STRINGS 8

struct fields {
	struct message_id id;
	char *strings[STRINGS];
	struct mainlog_prefix prefix;
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
	rc = mainlog_unescape(field, field_len, plain);
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
	const char *field = mainlog_field(line, len, e->index, &field_len);

	FUZZ_CHECK(field != NULL);
	check_escaped(field, field_len, e->text, e->len, e->max);
}

/* One LF, at the end, and `separators` "@" that no backslash escapes. */
static void check_line(const char *line, size_t len, unsigned separators)
{
	unsigned found = 0;
	size_t ignored;

	FUZZ_CHECK(len > 0 && len <= MAINLOG_LINE_MAX);
	FUZZ_CHECK(memchr(line, '\n', len) == line + len - 1);
	for (size_t i = 0; i < len; i++) {
		if (line[i] == '\\') {
			i++;
		} else if (line[i] == '@') {
			found++;
		}
	}
	FUZZ_CHECK(found == separators);
	FUZZ_CHECK(mainlog_field(line, len, separators, &ignored) != NULL);
	FUZZ_CHECK(mainlog_field(line, len, separators + 1, &ignored) == NULL);
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

static void reception(const struct fields *f, char line[MAINLOG_LINE_MAX])
{
	struct mainlog_reception r = {
		.prefix = f->prefix,
		.recipient = f->strings[0],
		.sender = f->strings[1],
		.peer_ip = f->strings[2],
		.size = f->number,
		.protocol = f->strings[3],
		.binding_group = f->strings[4],
		.binding = f->strings[5],
	};
	size_t len = mainlog_reception(line, &r);

	check_line(line, len, 13);
	check_address(line, len, 5, r.recipient);
	check_address(line, len, 7, r.sender);
	check_string(line, len, 9, r.peer_ip, 128);
	check_string(line, len, 11, r.protocol, 128);
	check_string(line, len, 12, r.binding_group, 128);
	check_string(line, len, 13, r.binding, 128);
}

static void attempt(const struct fields *f, char line[MAINLOG_LINE_MAX], unsigned kind)
{
	struct mainlog_attempt a = {
		.prefix = f->prefix,
		.domain = f->strings[0],
		.size = f->number,
		.binding_group = f->strings[1],
		.binding = f->strings[2],
		.stage = (enum smtp_stage)(f->number % (SMTP_STAGE_UNKNOWN + 1)),
		.retries = (uint32_t)f->number,
		.queued_s = f->number,
		.remote_ip = f->strings[3],
		.text = f->strings[4],
	};
	size_t len = kind == 1   ? mainlog_delivery(line, &a)
		     : kind == 2 ? mainlog_transient(line, &a)
				 : mainlog_permanent(line, &a);

	check_line(line, len, kind == 1 ? 11 : 13);
	check_string(line, len, 5, a.domain, 1020);
	check_string(line, len, 7, a.binding_group, 128);
	check_string(line, len, 8, a.binding, 128);
	check_string(line, len, kind == 1 ? 11 : 12, a.remote_ip, 128);
	if (kind != 1) {
		check_string(line, len, 13, a.text, MAINLOG_TEXT_MAX);
	}
}

static void rejection(const struct fields *f, char line[MAINLOG_LINE_MAX])
{
	struct mainlog_rejection r = {
		.prefix = f->prefix,
		.peer_ip = f->strings[0],
		.code = (unsigned)f->number,
		.sender = f->strings[1],
		.recipient = f->strings[2],
		.text = f->strings[3],
	};
	size_t len = mainlog_rejection(line, &r);

	check_line(line, len, 12);
	check_string(line, len, 5, r.peer_ip, 128);
	check_address(line, len, 8, r.sender);
	check_address(line, len, 10, r.recipient);
	check_string(line, len, 12, r.text, MAINLOG_TEXT_MAX);
}

static void bounce(const struct fields *f, char line[MAINLOG_LINE_MAX])
{
	struct mainlog_bounce b = {
		.prefix = f->prefix,
		.permanent = (f->number & 1) != 0,
		.recipient = f->strings[0],
		.sender = f->strings[1],
		.binding_group = f->strings[2],
		.binding = f->strings[3],
		.bounce_class = (unsigned)f->number,
		.size = f->number,
		.remote_ip = f->strings[2],
		.text = f->strings[3],
	};
	size_t len = mainlog_bounce(line, &b);

	check_line(line, len, 15);
	check_address(line, len, 5, b.recipient);
	check_address(line, len, 7, b.sender);
	check_string(line, len, 9, b.binding_group, 128);
	check_string(line, len, 10, b.binding, 128);
	check_string(line, len, 14, b.remote_ip, 128);
	check_string(line, len, 15, b.text, MAINLOG_TEXT_MAX);
}

static void feedback(const struct fields *f, char line[MAINLOG_LINE_MAX])
{
	struct mainlog_feedback b = {
		.prefix = f->prefix,
		.recipient = f->strings[0],
		.binding_group = f->strings[1],
		.binding = f->strings[2],
		.feedback_type = f->strings[3],
		.domain = f->strings[1],
		.user_string = f->strings[2],
	};
	size_t len = mainlog_feedback(line, &b);

	check_line(line, len, 9);
	check_address(line, len, 3, b.recipient);
	check_string(line, len, 5, b.binding, 128);
	check_string(line, len, 6, b.binding_group, 128);
	check_string(line, len, 7, b.feedback_type, 128);
	check_string(line, len, 8, b.domain, 1020);
	check_string(line, len, 9, b.user_string, MAINLOG_TEXT_MAX);
}

/* Any bytes and any room, into memory that is watched. */
static void escape_bytes(struct fuzz_input in)
{
	size_t max = fuzz_word(&in) % 300;
	unsigned char *text = fuzz_copy(in.at, in.left);
	char *field = malloc(max + 1);
	size_t n;

	FUZZ_CHECK(field != NULL);
	n = mainlog_escape((char *)text, in.left, field, max);
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

	FUZZ_CHECK(mainlog_unescape((char *)text, in.left, (char *)plain) <= (int)in.left);
	for (unsigned i = 0; i < 20; i++) {
		const char *field = mainlog_field((char *)text, in.left, i, &len);

		FUZZ_CHECK(field == NULL || field + len <= (char *)text + in.left);
	}
	free(plain);
	free(text);
}

static void take_fields(struct fields *f, struct fuzz_input *in)
{
	f->id = (struct message_id){fuzz_word(in), fuzz_word(in)};
	f->number = (uint64_t)fuzz_word(in) << (fuzz_byte(in) & 63);
	f->prefix = (struct mainlog_prefix){
		.time_s = f->number,
		.id = (f->id.low & 1) != 0 ? &f->id : NULL,
		.batch = f->id.high,
		.connection = f->number,
	};
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
	char *line = malloc(MAINLOG_LINE_MAX);
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
