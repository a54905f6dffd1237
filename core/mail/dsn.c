#include "core/mail/dsn.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/mail/dsn_parameter.h"
#include "core/mail/header.h"
#include "core/mail/utf8.h"
#include "core/runtime/check.h"

/* RFC 5321 section 4.5.3.1.6, RFC 2045 section 6.7; where prose is folded at the next blank, and
 * where it is folded although there was none. */
#define LINE_MAX_BYTES 998
#define QP_COLUMNS 76
#define FOLD_COLUMNS 72
#define FOLD_HARD_COLUMNS 900
/* Of an embedded character. */
#define EMBEDDED_BYTES 10
#define BOUNDARY_MAX 64

/* The notification as it is written: one part after the other, each plain or quoted-printable. */
struct writer {
	struct chain *out;
	struct pool *buffers;
	/* Bytes on the current line of the output. */
	size_t column;
	bool quoted_printable;
	/* Quoted-printable: a blank that must be encoded if its line ends here; 0: none. */
	char blank;
};

static void put_raw(struct writer *w, const char *text, size_t len)
{
	if (w->column == 0 && len > 0 && text[0] == '.') {
		chain_append(w->out, w->buffers, ".", 1);
	}
	chain_append(w->out, w->buffers, text, len);
	w->column += len;
}

static void put_newline(struct writer *w)
{
	chain_append(w->out, w->buffers, "\r\n", 2);
	w->column = 0;
}

/* One or three bytes of quoted-printable, after a soft line break if the line is full. */
static void put_qp(struct writer *w, const char *text, size_t len)
{
	if (w->column + len > QP_COLUMNS - 1) {
		put_raw(w, "=", 1);
		put_newline(w);
	}
	put_raw(w, text, len);
}

static void put_qp_encoded(struct writer *w, char c)
{
	char text[4];

	snprintf(text, sizeof(text), "=%02X", (unsigned char)c);
	put_qp(w, text, 3);
}

static void flush_blank(struct writer *w, bool line_end)
{
	char blank = w->blank;

	w->blank = 0;
	if (blank == 0) {
		return;
	}
	if (line_end) {
		put_qp_encoded(w, blank);
	} else {
		put_qp(w, &blank, 1);
	}
}

/* One byte of a part's content that is no line end. */
static void put_byte(struct writer *w, char c)
{
	if (!w->quoted_printable) {
		put_raw(w, &c, 1);
		return;
	}
	flush_blank(w, false);
	if (c == ' ' || c == '\t') {
		w->blank = c;
	} else if (c > ' ' && c < 127 && c != '=') {
		put_qp(w, &c, 1);
	} else {
		put_qp_encoded(w, c);
	}
}

static void put_bytes(struct writer *w, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		put_byte(w, text[i]);
	}
}

static void put_line_end(struct writer *w)
{
	flush_blank(w, true);
	put_newline(w);
}

static void put_text(struct writer *w, const char *text)
{
	put_bytes(w, text, strlen(text));
}

static void put_line(struct writer *w, const char *text)
{
	put_text(w, text);
	put_line_end(w);
}

/* Writes one character of text that someone else chose: control characters as blanks, what is not
 * UTF-8 as "?". Returns how many bytes it took. */
static size_t put_foreign_character(struct writer *w, const char *text, size_t len)
{
	size_t n = utf8_sequence(text, len);

	if (n == 0) {
		put_byte(w, '?');
		return 1;
	}
	if ((unsigned char)text[0] < ' ' || text[0] == 127) {
		put_byte(w, ' ');
	} else {
		put_bytes(w, text, n);
	}
	return n;
}

static void put_foreign(struct writer *w, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len;) {
		i += put_foreign_character(w, text + i, len - i);
	}
}

/* RFC 6533 section 3, EmbeddedUnicodeChar; for all but what a field may hold as it is. */
static size_t put_embedded(struct writer *w, const char *text, size_t len, const char *also)
{
	unsigned code_point = '?';
	size_t n = utf8_decode(text, len, &code_point);
	char escaped[16];

	if (n <= 1 && (text[0] == '\0' || strchr(also, text[0]) == NULL)) {
		return put_foreign_character(w, text, len);
	}
	snprintf(escaped, sizeof(escaped), "\\x{%02X}", code_point);
	put_text(w, escaped);
	return n;
}

static bool is_ascii(const char *text, size_t len)
{
	unsigned char all = 0;

	for (size_t i = 0; i < len; i++) {
		all |= (unsigned char)text[i];
	}
	return all < 0x80;
}

static bool string_is_ascii(const char *text)
{
	return text == NULL || is_ascii(text, strlen(text));
}

/* One character of a text that is folded; `column` counts as it is written, but for an encoding. */
static size_t put_folded_character(struct writer *w, const char *text, size_t len, bool field,
				   size_t *column)
{
	size_t n = field ? put_embedded(w, text, len, "") : put_foreign_character(w, text, len);

	*column += field && n > 1 ? EMBEDDED_BYTES : n;
	return n;
}

/* Text of any length, folded at blanks with `indent`; in a field, ASCII only. */
static void put_folded(struct writer *w, const char *text, const char *indent, bool field)
{
	size_t len = strlen(text);
	size_t column = 0;

	for (size_t i = 0; i < len;) {
		bool blank = text[i] == ' ';

		if ((blank && column >= FOLD_COLUMNS) || column >= FOLD_HARD_COLUMNS) {
			put_line_end(w);
			put_text(w, indent);
			column = 0;
			i += blank ? 1 : 0;
		} else {
			i += put_folded_character(w, text + i, len - i, field, &column);
		}
	}
	put_line_end(w);
}

static bool has_action(const struct dsn *d, enum dsn_action action)
{
	for (uint32_t i = 0; i < d->recipient_count; i++) {
		if (d->recipients[i].action == action) {
			return true;
		}
	}
	return false;
}

/* RFC 3461 section 4.3: only with news of a failure. */
static bool returns_full(const struct dsn *d)
{
	/* It goes back without such a demand (RFC 8689 section 5). */
	return (d->original->flags & ENVELOPE_RET_FULL) != 0 &&
	       (d->original->flags & ENVELOPE_REQUIRETLS) == 0 &&
	       (d->original->flags & ENVELOPE_SMTPUTF8) == 0 && has_action(d, DSN_FAILED) &&
	       d->original_body != NULL && d->original_body->len <= DSN_FULL_MAX;
}

static bool original_is_8bit(const struct dsn *d)
{
	return (d->original->flags & ENVELOPE_8BITMIME) != 0;
}

/* The report's own header fields. Names were configured, the sender was checked on reception. */
static void write_header(struct writer *w, const struct dsn *d, const char *boundary)
{
	char date[HEADER_DATE_MAX];
	char id[MESSAGE_ID_TEXT];

	header_date_format(d->time_s, date);
	message_id_format(&d->id, id);
	put_text(w, "Date: ");
	put_line(w, date);
	put_text(w, "From: Mail Delivery System <");
	put_foreign(w, d->mailerdaemon);
	put_line(w, ">");
	put_text(w, "To: <");
	put_foreign(w, envelope_sender(d->original));
	put_line(w, ">");
	put_line(w, has_action(d, DSN_FAILED)
			    ? "Subject: Undelivered mail: your message could not be delivered"
		    : has_action(d, DSN_DELAYED) ? "Subject: Delayed mail: your message waits"
						 : "Subject: Your message was handed on");
	put_text(w, "Message-ID: <");
	put_text(w, id);
	put_text(w, "@");
	put_foreign(w, d->reporting_mta);
	put_line(w, ">");
	put_line(w, "Auto-Submitted: auto-replied");
	put_line(w, "MIME-Version: 1.0");
	put_line(w, "Content-Type: multipart/report; report-type=delivery-status;");
	put_text(w, "\tboundary=\"");
	put_text(w, boundary);
	put_line(w, "\"");
	if (returns_full(d) && original_is_8bit(d)) {
		put_line(w, "Content-Transfer-Encoding: 8bit");
	}
	put_line(w, "");
	put_line(w, "This is a delivery status notification in MIME format.");
}

/* Starts a part; its encoding holds until the next one. */
static void write_part_start(struct writer *w, const char *boundary, const char *type,
			     const char *description, bool quoted_printable)
{
	w->quoted_printable = false;
	put_line(w, "");
	put_text(w, "--");
	put_line(w, boundary);
	put_text(w, "Content-Description: ");
	put_line(w, description);
	put_text(w, "Content-Type: ");
	put_line(w, type);
	if (quoted_printable) {
		put_line(w, "Content-Transfer-Encoding: quoted-printable");
	}
	put_line(w, "");
	w->quoted_printable = quoted_printable;
}

static bool recipients_are_ascii(const struct dsn *d)
{
	for (uint32_t i = 0; i < d->recipient_count; i++) {
		const struct dsn_recipient *r = &d->recipients[i];

		if (!string_is_ascii(r->address) || !string_is_ascii(r->diagnostic) ||
		    !string_is_ascii(r->remote_mta)) {
			return false;
		}
	}
	return true;
}

static bool has_text(const char *text)
{
	return text != NULL && text[0] != '\0';
}

static void write_human_recipient(struct writer *w, const struct dsn_recipient *r)
{
	put_line(w, "");
	put_text(w, "  <");
	put_foreign(w, r->address);
	put_line(w, ">");
	if (r->code != 0 && has_text(r->remote_mta) && has_text(r->diagnostic)) {
		put_text(w, "    ");
		put_foreign(w, r->remote_mta);
		put_line(w, " said:");
	}
	if (r->action == DSN_RELAYED && !has_text(r->diagnostic)) {
		return;
	}
	put_text(w, "    ");
	put_folded(w, has_text(r->diagnostic) ? r->diagnostic : "No reason was given.", "    ",
		   false);
}

static void write_human_recipients(struct writer *w, const struct dsn *d, enum dsn_action action)
{
	for (uint32_t i = 0; i < d->recipient_count; i++) {
		if (d->recipients[i].action == action) {
			write_human_recipient(w, &d->recipients[i]);
		}
	}
}

static void write_human_delay(struct writer *w, const struct dsn *d)
{
	char date[HEADER_DATE_MAX];

	if (!has_action(d, DSN_DELAYED)) {
		return;
	}
	if (has_action(d, DSN_FAILED) || has_action(d, DSN_RELAYED)) {
		put_line(w, "");
	}
	header_date_format(d->retry_until_s, date);
	put_line(w,
		 "could not be delivered to the recipients below yet. You need not send it again:");
	put_text(w, "it is tried until ");
	put_text(w, date);
	put_line(w, ".");
	write_human_recipients(w, d, DSN_DELAYED);
}

static void write_human_part(struct writer *w, const struct dsn *d, const char *boundary)
{
	bool ascii = recipients_are_ascii(d) && string_is_ascii(d->reporting_mta);
	char date[HEADER_DATE_MAX];

	write_part_start(w, boundary,
			 ascii ? "text/plain; charset=us-ascii" : "text/plain; charset=utf-8",
			 "Notification", !ascii);
	header_date_format(d->original->received_ms / 1000, date);
	put_text(w, "This is the mail system at ");
	put_foreign(w, d->reporting_mta);
	put_line(w, ".");
	put_line(w, "");
	put_text(w, "Your message, received ");
	put_text(w, date);
	put_line(w, ",");
	if (has_action(d, DSN_FAILED)) {
		put_line(w,
			 "could not be delivered to the recipients below, and no further attempts "
			 "will");
		put_line(w, "be made. The header of your message follows, if it is still at hand.");
		write_human_recipients(w, d, DSN_FAILED);
	}
	if (has_action(d, DSN_RELAYED)) {
		if (has_action(d, DSN_FAILED)) {
			put_line(w, "");
		}
		put_line(w, "was taken by the mail systems of the recipients below, which will not "
			    "tell");
		put_line(w, "you when it is delivered.");
		write_human_recipients(w, d, DSN_RELAYED);
	}
	write_human_delay(w, d);
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* 1 to 3 digits; moves behind them. */
static bool skip_number(const char **p)
{
	unsigned n = 0;

	while (n < 3 && is_digit(**p)) {
		(*p)++;
		n++;
	}
	return n > 0;
}

/* RFC 3463 section 2. */
static bool status_valid(const char *status)
{
	if (status == NULL || strchr("245", status[0]) == NULL || status[0] == '\0' ||
	    status[1] != '.') {
		return false;
	}
	status += 2;
	if (!skip_number(&status) || *status != '.') {
		return false;
	}
	status++;
	return skip_number(&status) && *status == '\0';
}

/* RFC 3464 section 2.3.2; with octets above 127 RFC 6533 section 3, in its 7-bit form. That may be
 * longer than a line can be: an address that is folded can still be read, a line that is too long
 * makes the whole notification be refused. */
static void write_final_recipient(struct writer *w, const char *address)
{
	size_t len = strlen(address);

	if (string_is_ascii(address)) {
		put_text(w, "Final-Recipient: rfc822; ");
		put_foreign(w, address);
	} else {
		put_text(w, "Final-Recipient: utf-8; ");
		for (size_t i = 0; i < len;) {
			if (w->column >= FOLD_HARD_COLUMNS) {
				put_line_end(w);
				put_text(w, "    ");
			}
			i += put_embedded(w, address + i, len - i, " +=\\");
		}
	}
	put_line_end(w);
}

/* RFC 3464 section 2.3.6; what no server said has a type of its own. */
static void write_diagnostic(struct writer *w, const struct dsn_recipient *r)
{
	char code[8];

	if (!has_text(r->diagnostic)) {
		return;
	}
	snprintf(code, sizeof(code), "%03u", r->code % 1000U);
	put_text(w, r->code != 0 ? "Diagnostic-Code: smtp; " : "Diagnostic-Code: x-flywheel; ");
	if (r->code != 0 && strncmp(r->diagnostic, code, 3) != 0) {
		put_text(w, code);
		put_text(w, " ");
	}
	put_folded(w, r->diagnostic, "    ", true);
}

/* RFC 3464 section 2.3.1, RFC 3461 section 6.3: the type, and the address decoded. */
static void write_original_recipient(struct writer *w, const char *orcpt)
{
	const char *semicolon = strchr(orcpt, ';');
	char type[DSN_ORCPT_MAX + 1];
	char address[DSN_ORCPT_MAX + 1];

	ASSERT(dsn_orcpt_valid(orcpt, strlen(orcpt)));
	snprintf(type, sizeof(type), "%.*s", (int)(semicolon - orcpt), orcpt);
	dsn_xtext_decode(semicolon + 1, strlen(semicolon + 1), address);
	put_text(w, "Original-Recipient: ");
	put_text(w, type);
	put_text(w, "; ");
	put_line(w, address);
}

static const char *status_of(const struct dsn_recipient *r)
{
	if (r->action == DSN_DELAYED) {
		return status_valid(r->status) && r->status[0] == '4' ? r->status : "4.0.0";
	}
	if (status_valid(r->status) && (r->status[0] == '2') == (r->action == DSN_RELAYED)) {
		return r->status;
	}
	return r->action == DSN_RELAYED ? "2.0.0" : r->code / 100 == 4 ? "4.0.0" : "5.0.0";
}

static void write_recipient_fields(struct writer *w, const struct dsn *d,
				   const struct dsn_recipient *r)
{
	static const char *const actions[] = {[DSN_FAILED] = "Action: failed",
					      [DSN_RELAYED] = "Action: relayed",
					      [DSN_DELAYED] = "Action: delayed"};
	char date[HEADER_DATE_MAX];

	put_line(w, "");
	if (r->original != NULL) {
		write_original_recipient(w, r->original);
	}
	write_final_recipient(w, r->address);
	put_line(w, actions[r->action]);
	put_text(w, "Status: ");
	put_line(w, status_of(r));
	if (has_text(r->remote_mta)) {
		put_text(w, "Remote-MTA: dns; ");
		put_folded(w, r->remote_mta, "    ", true);
	}
	write_diagnostic(w, r);
	if (r->action == DSN_DELAYED) {
		header_date_format(d->retry_until_s, date);
		put_text(w, "Will-Retry-Until: ");
		put_line(w, date);
	}
}

static void write_status_part(struct writer *w, const struct dsn *d, const char *boundary)
{
	char date[HEADER_DATE_MAX];

	write_part_start(w, boundary, "message/delivery-status", "Delivery report", false);
	if (envelope_envid(d->original) != NULL) {
		const char *xtext = envelope_envid(d->original);
		char envid[DSN_ENVID_MAX + 1];

		dsn_xtext_decode(xtext, strlen(xtext), envid);
		put_text(w, "Original-Envelope-Id: ");
		put_line(w, envid);
	}
	put_text(w, "Reporting-MTA: dns; ");
	put_folded(w, d->reporting_mta, "    ", true);
	header_date_format(d->original->received_ms / 1000, date);
	put_text(w, "Arrival-Date: ");
	put_line(w, date);
	for (uint32_t i = 0; i < d->recipient_count; i++) {
		write_recipient_fields(w, d, &d->recipients[i]);
	}
}

/* What the original's header looks like: where it ends, and whether it goes as it is. */
struct original {
	uint64_t len;
	bool plain;
};

/* A walk through a chain, byte by byte. */
struct walk {
	const struct chain_buffer *buffer;
	uint32_t at;
};

static bool walk_next(struct walk *walk, char *c)
{
	while (walk->buffer != NULL && walk->at == walk->buffer->len) {
		walk->buffer = walk->buffer->next;
		walk->at = 0;
	}
	if (walk->buffer == NULL) {
		return false;
	}
	*c = (char)walk->buffer->data[walk->at++];
	return true;
}

/* The header with the CR LF of its last field, at most DSN_HEADER_MAX bytes of whole lines. */
static struct original original_look(const struct chain *body)
{
	struct original o = {.plain = true};
	struct walk walk = {.buffer = body->head};
	uint64_t line = 0;
	uint64_t at = 0;
	char c;

	while (at < DSN_HEADER_MAX && walk_next(&walk, &c)) {
		at++;
		line++;
		o.plain = o.plain && (unsigned char)c < 0x80 && c != '\0' && line <= LINE_MAX_BYTES;
		if (c == '\n') {
			if (line <= 2) {
				break;
			}
			o.len = at;
			line = 0;
		}
	}
	return o;
}

/* Takes the dots out, which the writer puts in again where they belong. */
static void write_original(struct writer *w, const struct chain *body, uint64_t len)
{
	struct walk walk = {.buffer = body->head};
	bool line_start = true;
	char c;

	for (; len > 0 && walk_next(&walk, &c); len--) {
		if (c == '\n') {
			put_line_end(w);
			line_start = true;
			continue;
		}
		if (c != '\r' && (c != '.' || !line_start)) {
			put_byte(w, c);
		}
		line_start = false;
	}
}

/* A message in a message goes as it is (RFC 2045 section 6.4). */
static void write_full_part(struct writer *w, const struct dsn *d, const char *boundary)
{
	write_part_start(w, boundary,
			 original_is_8bit(d) ? "message/rfc822\r\nContent-Transfer-Encoding: 8bit"
					     : "message/rfc822",
			 "Undelivered message", false);
	write_original(w, d->original_body, d->original_body->len);
}

/* RFC 6522 section 4 */
static void write_original_part(struct writer *w, const struct dsn *d, const char *boundary)
{
	struct original o = original_look(d->original_body);

	write_part_start(w, boundary,
			 o.plain ? "text/rfc822-headers" : "text/rfc822-headers; charset=utf-8",
			 "Header of the undelivered message", !o.plain);
	write_original(w, d->original_body, o.len);
}

static void write_end(struct writer *w, const char *boundary)
{
	w->quoted_printable = false;
	put_line(w, "");
	put_text(w, "--");
	put_text(w, boundary);
	put_line(w, "--");
}

uint16_t dsn_write(const struct dsn *d, struct chain *out, struct pool *buffers)
{
	struct writer w = {.out = out, .buffers = buffers};
	const char *sender = envelope_sender(d->original);
	char boundary[BOUNDARY_MAX];
	char id[MESSAGE_ID_TEXT];
	uint16_t flags = 0;

	ASSERT(sender[0] != '\0');
	/* "=_" occurs in no quoted-printable text. */
	message_id_format(&d->id, id);
	snprintf(boundary, sizeof(boundary), "=_%s", id);
	write_header(&w, d, boundary);
	write_human_part(&w, d, boundary);
	write_status_part(&w, d, boundary);
	if (returns_full(d)) {
		write_full_part(&w, d, boundary);
		flags |= d->original->flags & ENVELOPE_8BITMIME;
	} else if (d->original_body != NULL) {
		write_original_part(&w, d, boundary);
	}
	write_end(&w, boundary);
	if (!string_is_ascii(sender)) {
		flags |= ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8;
	}
	return flags;
}
