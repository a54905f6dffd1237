#include "core/policy/mail.h"

#include <string.h>

#include "core/runtime/check.h"

static const struct policy_text nothing = {.data = ""};

void policy_mail_init(struct policy_mail *m)
{
	*m = (struct policy_mail){.durability = -1, .priority = -1};
}

/* Bytes up to the empty line; all of them when there is none. */
static uint64_t header_bytes(const struct chain *c)
{
	/* Bytes before the buffer, and where the line began that goes on in it. */
	uint64_t before = 0;
	uint64_t line = 0;
	bool cr = false;

	for (const struct chain_buffer *b = c->head; b != NULL; before += b->len, b = b->next) {
		const unsigned char *at = b->data;
		const unsigned char *end = b->data + b->len;

		while (at < end) {
			const unsigned char *lf = memchr(at, '\n', (size_t)(end - at));
			const unsigned char *stop = lf != NULL ? lf : end;
			uint64_t len = before + (uint64_t)(stop - b->data) - line;

			/* All of the line so far is a CR, or nothing. */
			cr = len == 0 || (len == 1 && (stop > at ? stop[-1] == '\r' : cr));
			if (lf == NULL) {
				break;
			}
			if (cr) {
				return line;
			}
			at = lf + 1;
			line = before + (uint64_t)(at - b->data);
		}
	}
	return c->len;
}

static bool exists(const struct policy_mail *m)
{
	return m->body != NULL && m->body->len > 0;
}

const struct policy_text *policy_mail_header(struct policy_mail *m)
{
	if (m->has_header) {
		return &m->header;
	}
	if (!exists(m)) {
		return &nothing;
	}
	m->header_wire = header_bytes(m->body);
	m->header.len = 0;
	policy_text_load(&m->header, m->body, 0, m->header_wire);
	m->has_header = true;
	return &m->header;
}

/* Behind the header and the empty line. */
static uint64_t text_at(const struct policy_mail *m)
{
	return m->header_wire + 2 <= m->body->len ? m->header_wire + 2 : m->body->len;
}

const struct policy_text *policy_mail_text(struct policy_mail *m)
{
	if (!exists(m)) {
		return &nothing;
	}
	policy_mail_header(m);
	if (!m->has_text) {
		m->text.len = 0;
		policy_text_load(&m->text, m->body, text_at(m), m->body->len - text_at(m));
		m->has_text = true;
	}
	return &m->text;
}

void policy_mail_raw(struct policy_mail *m, struct policy_text *to)
{
	const struct policy_text *header = policy_mail_header(m);
	const struct policy_text *text = policy_mail_text(m);

	policy_text_append(to, header->data, header->len);
	policy_text_append(to, "\r\n", 2);
	policy_text_append(to, text->data, text->len);
}

void policy_mail_set_field(struct policy_mail *m, const char *name, const char *value, size_t len,
			   enum policy_field_mode mode)
{
	ASSERT(exists(m));
	policy_mail_header(m);
	policy_field_set(&m->header, name, value, len, mode);
	m->header_changed = true;
	m->changes++;
}

static void assign(struct policy_text *t, const char *data, size_t len)
{
	t->len = 0;
	policy_text_append(t, data, len);
}

void policy_mail_set_text(struct policy_mail *m, const char *text, size_t len)
{
	ASSERT(exists(m));
	policy_mail_header(m);
	assign(&m->text, text, len);
	m->has_text = true;
	m->text_changed = true;
	m->changes++;
}

void policy_mail_set_raw(struct policy_mail *m, const char *raw, size_t len)
{
	const char *end = raw;
	const char *behind = raw + len;

	ASSERT(exists(m));
	policy_mail_header(m);
	/* Lines up to the empty one are the header. */
	while (end < raw + len && *end != '\n' && *end != '\r') {
		const char *lf = memchr(end, '\n', (size_t)(raw + len - end));

		end = lf != NULL ? lf + 1 : raw + len;
	}
	if (end < raw + len) {
		behind = end + (end[0] == '\r' && end + 1 < raw + len && end[1] == '\n' ? 2 : 1);
	}
	assign(&m->header, raw, (size_t)(end - raw));
	policy_mail_set_text(m, behind, (size_t)(raw + len - behind));
	m->header_changed = true;
}

static void forget(struct policy_mail *m)
{
	m->has_header = false;
	m->has_text = false;
	m->header_changed = false;
	m->text_changed = false;
	/* One large message must not keep a session large. */
	policy_text_close(&m->header);
	policy_text_close(&m->text);
}

/* The whole text into `fresh`. */
static void write_all(struct policy_mail *m, struct chain *fresh)
{
	m->high |= policy_text_store(m->header.data, m->header.len, true, fresh, m->buffers);
	chain_append(fresh, m->buffers, "\r\n", 2);
	m->high |= policy_text_store(m->text.data, m->text.len, true, fresh, m->buffers);
}

/* The header in the place of the one before. */
static void write_header(struct policy_mail *m)
{
	struct chain fresh = CHAIN_EMPTY;

	m->high |= policy_text_store(m->header.data, m->header.len, true, &fresh, m->buffers);
	if (m->header_wire == m->body->len) {
		chain_append(m->body, m->buffers, "\r\n", 2);
	}
	chain_remove(m->body, m->buffers, 0, m->header_wire);
	chain_prepend_chain(m->body, &fresh);
}

void policy_mail_settle(struct policy_mail *m)
{
	struct chain fresh = CHAIN_EMPTY;

	if (m->shared && (m->header_changed || m->text_changed)) {
		policy_mail_text(m);
		write_all(m, &fresh);
		m->own = fresh;
		m->body = &m->own;
		m->shared = false;
		m->changed = true;
	} else if (m->text_changed) {
		write_all(m, &fresh);
		chain_release(m->body, m->buffers);
		*m->body = fresh;
		m->changed = true;
	} else if (m->header_changed) {
		write_header(m);
		m->changed = true;
	}
	forget(m);
}

void policy_mail_close(struct policy_mail *m)
{
	forget(m);
	if (m->own.head != NULL) {
		chain_release(&m->own, m->buffers);
	}
	policy_pairs_clear(&m->context);
}
