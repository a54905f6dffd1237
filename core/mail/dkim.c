#include "core/mail/dkim.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

/* Of a line, without its CR LF; and what a tab counts for. */
#define COLUMNS 78
#define TAB_COLUMNS 8
/* Of a digest, and of the longest signature, in base64 with its NUL. */
#define DIGEST_TEXT 45
#define SIGNATURE_TEXT ((DKIM_SIGNATURE_MAX + 2) / 3 * 4 + 1)

/* A place in a chain. */
struct place {
	const struct chain_buffer *buffer;
	uint32_t at;
};

/* A header field as it stands in the message, with its last CR LF. */
struct field {
	struct place place;
	uint64_t len;
	/* In lower case, NUL-terminated. */
	uint8_t name_len;
	char name[DKIM_NAME_MAX];
};

SINGLE
struct dkim_signer {
	struct dkim_keyring *ring;
	EVP_MD *sha256;
	EVP_MD_CTX *contexts[DKIM_CANONS];
	struct dkim_sink sinks[DKIM_CANONS];
	/* The message that was read last. */
	struct place body;
	uint32_t field_count;
	/* And one more, to see that there are too many. */
	struct field fields[DKIM_FIELDS_MAX + 1];
};

static void take_for_digest(void *context, const void *data, size_t len)
{
	if (EVP_DigestUpdate(context, data, len) != 1) {
		fatal("OpenSSL failed to make a digest");
	}
}

struct dkim_signer *dkim_signer_create(void)
{
	struct dkim_signer *s = check_memory(calloc(1, sizeof(*s)), "DKIM");

	s->ring = dkim_keyring_create();
	s->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	for (unsigned i = 0; i < DKIM_CANONS; i++) {
		s->contexts[i] = EVP_MD_CTX_new();
		if (s->sha256 == NULL || s->contexts[i] == NULL) {
			fatal("OpenSSL has no SHA-256");
		}
		dkim_sink_init(&s->sinks[i], take_for_digest, s->contexts[i]);
	}
	return s;
}

void dkim_signer_destroy(struct dkim_signer *s)
{
	for (unsigned i = 0; i < DKIM_CANONS; i++) {
		EVP_MD_CTX_free(s->contexts[i]);
	}
	EVP_MD_free(s->sha256);
	dkim_keyring_destroy(s->ring);
	free(s);
}

void dkim_signer_forget(struct dkim_signer *s)
{
	dkim_keyring_clear(s->ring);
}

static void digest_begin(struct dkim_signer *s, unsigned which)
{
	if (EVP_DigestInit_ex2(s->contexts[which], s->sha256, NULL) != 1) {
		fatal("OpenSSL failed to make a digest");
	}
}

static void digest_end(struct dkim_signer *s, unsigned which,
		       unsigned char digest[DKIM_DIGEST_BYTES])
{
	unsigned len = 0;

	dkim_sink_flush(&s->sinks[which]);
	if (EVP_DigestFinal_ex(s->contexts[which], digest, &len) != 1 || len != DKIM_DIGEST_BYTES) {
		fatal("OpenSSL failed to make a digest");
	}
}

/* ---- reading the header ---- */

/* The byte at `p`, which moves to the next buffer where one ends; -1 at the end of the message. */
static int peek(struct place *p)
{
	while (p->buffer != NULL && p->at == p->buffer->len) {
		*p = (struct place){.buffer = p->buffer->next};
	}
	return p->buffer != NULL ? p->buffer->data[p->at] : -1;
}

static bool is_blank(int c)
{
	return c == ' ' || c == '\t';
}

/* To behind the next CR LF, or the end; returns the bytes passed. */
static uint64_t skip_line(struct place *p)
{
	uint64_t passed = 0;
	bool after_cr = false;

	while (peek(p) >= 0) {
		const unsigned char *from = p->buffer->data + p->at;
		size_t left = p->buffer->len - p->at;
		const unsigned char *lf = memchr(from, '\n', left);
		size_t n = lf != NULL ? (size_t)(lf - from) + 1 : left;
		bool ends = lf != NULL && (n > 1 ? lf[-1] == '\r' : after_cr);

		after_cr = from[n - 1] == '\r';
		p->at += (uint32_t)n;
		passed += n;
		if (ends) {
			break;
		}
	}
	return passed;
}

/* The name of the field that the line at `p` begins, in lower case; false when it begins none, or
 * one whose name is too long to be signed. */
static bool read_name(struct place p, struct field *f)
{
	uint8_t len = 0;
	int c;

	for (c = peek(&p); c > ' ' && c < 127 && c != ':'; c = peek(&p)) {
		if (len == DKIM_NAME_MAX - 1) {
			return false;
		}
		f->name[len++] = (char)(c >= 'A' && c <= 'Z' ? c | 32 : c);
		p.at++;
	}
	for (; is_blank(c); c = peek(&p)) {
		p.at++;
	}
	f->name[len] = '\0';
	f->name_len = len;
	return c == ':' && len > 0;
}

static bool is_empty_line(struct place p)
{
	if (peek(&p) != '\r') {
		return false;
	}
	p.at++;
	return peek(&p) == '\n';
}

/* One line of the header at `p`, which moves behind it; `*open` is the field that it may continue,
 * and then the one that the next line may. False at the header's end. */
static bool read_line(struct dkim_signer *s, struct place *p, struct field **open)
{
	struct field *f = &s->fields[s->field_count];
	struct place start = *p;

	if (peek(&start) == '.') {
		start.at++;
	}
	if (peek(&start) < 0) {
		*p = start;
		return false;
	}
	if (is_empty_line(start)) {
		skip_line(p);
		return false;
	}
	if (is_blank(peek(&start))) {
		uint64_t len = skip_line(p);

		if (*open != NULL) {
			(*open)->len += len;
		}
		return true;
	}
	*open = NULL;
	if (read_name(start, f)) {
		*open = f;
		f->place = *p;
		f->len = 0;
		s->field_count++;
	}
	f->len = skip_line(p);
	return true;
}

/* The canonical form of a field, to a sink. */
static void canonicalize(const struct field *f, enum dkim_canon canon, struct dkim_sink *sink)
{
	struct dkim_header h;
	struct place p = f->place;
	uint64_t left = f->len;

	dkim_header_init(&h, canon, sink);
	while (left > 0 && peek(&p) >= 0) {
		uint64_t n = p.buffer->len - p.at;

		n = n < left ? n : left;
		dkim_header_add(&h, p.buffer->data + p.at, (size_t)n);
		p.at += (uint32_t)n;
		left -= n;
	}
	dkim_header_end(&h);
}

static bool has_name(const struct field *f, const char *name, size_t len)
{
	return f->name_len == len && memcmp(f->name, name, len) == 0;
}

static int find_author(const struct dkim_signer *s, char author[DKIM_DOMAIN_MAX])
{
	struct dkim_author reader;
	struct dkim_sink sink;
	unsigned count = 0;

	dkim_author_init(&reader, author);
	for (uint32_t i = 0; i < s->field_count; i++) {
		if (has_name(&s->fields[i], "from", 4)) {
			dkim_sink_init(&sink, dkim_author_take, &reader);
			canonicalize(&s->fields[i], DKIM_RELAXED, &sink);
			dkim_sink_flush(&sink);
			count++;
		}
	}
	return dkim_author_end(&reader) && count == 1 ? 0 : -ENOENT;
}

int dkim_read(struct dkim_signer *s, const struct chain *message, char author[DKIM_DOMAIN_MAX])
{
	struct place p = {.buffer = message->head};
	struct field *open = NULL;

	s->field_count = 0;
	peek(&p);
	while (read_line(s, &p, &open)) {
		if (s->field_count > DKIM_FIELDS_MAX) {
			return -E2BIG;
		}
		peek(&p);
	}
	s->body = p;
	return find_author(s, author);
}

/* ---- the body ---- */

/* What all signatures of a message have in common. */
struct common {
	uint64_t time_s;
	/* A signature's algorithm and its bytes are of the same key, whatever is published
	 * meanwhile. */
	const struct dkim_key *const *keys;
	bool wanted[DKIM_CANONS];
	char digests[DKIM_CANONS][DIGEST_TEXT];
};

static void digest_body(struct dkim_signer *s, struct common *common)
{
	unsigned char digest[DKIM_DIGEST_BYTES];
	struct dkim_body forms[DKIM_CANONS];
	struct place p = s->body;

	for (unsigned i = 0; i < DKIM_CANONS; i++) {
		if (common->wanted[i]) {
			digest_begin(s, i);
			dkim_body_init(&forms[i], (enum dkim_canon)i, &s->sinks[i]);
		}
	}
	while (peek(&p) >= 0) {
		for (unsigned i = 0; i < DKIM_CANONS; i++) {
			if (common->wanted[i]) {
				dkim_body_add(&forms[i], p.buffer->data + p.at,
					      p.buffer->len - p.at);
			}
		}
		p.at = p.buffer->len;
	}
	for (unsigned i = 0; i < DKIM_CANONS; i++) {
		if (common->wanted[i]) {
			dkim_body_end(&forms[i]);
			digest_end(s, i, digest);
			EVP_EncodeBlock((unsigned char *)common->digests[i], digest,
					DKIM_DIGEST_BYTES);
		}
	}
}

/* ---- the field ---- */

/* A DKIM-Signature field in the making. */
struct text {
	size_t len;
	size_t column;
	bool overflow;
	char bytes[DKIM_FIELD_MAX];
};

static void text_put(struct text *t, const char *bytes, size_t len)
{
	if (len > sizeof(t->bytes) - t->len) {
		t->overflow = true;
		return;
	}
	memcpy(t->bytes + t->len, bytes, len);
	t->len += len;
	t->column += len;
}

static void text_fold(struct text *t)
{
	text_put(t, "\r\n\t", 3);
	t->column = TAB_COLUMNS;
}

/* A tag, on this line or the next. */
static void text_tag(struct text *t, const char *name, const char *value)
{
	size_t name_len = strlen(name);
	size_t value_len = strlen(value);

	if (t->column + 1 + name_len + value_len + 1 > COLUMNS) {
		text_fold(t);
	} else {
		text_put(t, " ", 1);
	}
	text_put(t, name, name_len);
	text_put(t, value, value_len);
	text_put(t, ";", 1);
}

/* The next name of the list in h=, behind a colon if it is not the first; lines are folded behind
 * colons. */
static void text_name(struct text *t, bool first, const char *name, size_t len)
{
	if (first) {
		text_fold(t);
		text_put(t, "h=", 2);
	} else {
		text_put(t, ":", 1);
		/* And a colon or semicolon behind it. */
		if (t->column + len + 1 > COLUMNS) {
			text_fold(t);
		}
	}
	text_put(t, name, len);
}

/* A long value, folded anywhere. */
static void text_value(struct text *t, const char *value, size_t len)
{
	while (len > 0) {
		size_t n = COLUMNS - t->column;

		n = n < len ? n : len;
		text_put(t, value, n);
		value += n;
		len -= n;
		if (len > 0) {
			text_fold(t);
		}
	}
}

static void text_number(struct text *t, const char *name, uint64_t number)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);
	text_tag(t, name, digits);
}

static void begin_field(struct text *t, const struct dkim_signature *g,
			enum dkim_algorithm algorithm, uint64_t time_s)
{
	static const char *const algorithms[] = {
		[DKIM_RSA_SHA256] = "rsa-sha256", [DKIM_ED25519_SHA256] = "ed25519-sha256"};
	static const char *const canons[DKIM_CANONS] = {"simple", "relaxed"};
	char pair[sizeof("relaxed/relaxed")];

	t->len = 0;
	t->column = 0;
	t->overflow = false;
	snprintf(pair, sizeof(pair), "%s/%s", canons[g->header], canons[g->body]);
	text_put(t, "DKIM-Signature:", 15);
	text_tag(t, "v=", "1");
	text_tag(t, "a=", algorithms[algorithm]);
	text_tag(t, "c=", pair);
	text_tag(t, "d=", g->domain);
	text_tag(t, "s=", g->selector);
	text_number(t, "t=", time_s);
	if (g->expiration_s != 0) {
		text_number(t, "x=", time_s + g->expiration_s);
	}
}

/* ---- signing ---- */

static bool is_listed(const char *const *names, uint32_t count, const char *name)
{
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(names[i], name) == 0) {
			return true;
		}
	}
	return false;
}

/* One of a kind: all fields of that name, from the last one up (RFC 6376 section 5.4.2), and once
 * more if it is oversigned. */
static void sign_name(struct dkim_signer *s, const struct dkim_signature *g, const char *name,
		      struct text *t, bool *first)
{
	size_t len = strlen(name);

	for (uint32_t i = s->field_count; i-- > 0 && !t->overflow;) {
		if (has_name(&s->fields[i], name, len)) {
			canonicalize(&s->fields[i], g->header, &s->sinks[0]);
			text_name(t, *first, name, len);
			*first = false;
		}
	}
	if (is_listed(g->oversigned, g->oversigned_count, name)) {
		text_name(t, *first, name, len);
		*first = false;
	}
}

static void sign_names(struct dkim_signer *s, const struct dkim_signature *g, struct text *t)
{
	bool first = true;

	for (uint32_t i = 0; i < g->field_count; i++) {
		sign_name(s, g, g->fields[i], t, &first);
	}
	for (uint32_t i = 0; i < g->oversigned_count; i++) {
		if (!is_listed(g->fields, g->field_count, g->oversigned[i])) {
			sign_name(s, g, g->oversigned[i], t, &first);
		}
	}
	text_put(t, ";", 1);
	ASSERT(!first);
}

/* The signature's own field, without the value of b= and its last CR LF, comes last. */
static void digest_field(struct dkim_signer *s, const struct dkim_signature *g,
			 const struct text *t, unsigned char digest[DKIM_DIGEST_BYTES])
{
	struct dkim_header h;

	dkim_header_init(&h, g->header, &s->sinks[0]);
	dkim_header_add(&h, t->bytes, t->len);
	dkim_header_end_bare(&h);
	digest_end(s, 0, digest);
}

static bool sign_one(struct dkim_signer *s, const struct dkim_signature *g,
		     const struct common *common, struct text *t)
{
	const struct dkim_key *key = common->keys[g->key];
	unsigned char digest[DKIM_DIGEST_BYTES];
	unsigned char signature[DKIM_SIGNATURE_MAX];
	char encoded[SIGNATURE_TEXT];
	int len;

	digest_begin(s, 0);
	begin_field(t, g, dkim_key_algorithm(key), common->time_s);
	sign_names(s, g, t);
	text_tag(t, "bh=", common->digests[g->body]);
	text_fold(t);
	text_put(t, "b=", 2);
	digest_field(s, g, t, digest);
	if (t->overflow) {
		return false;
	}
	len = dkim_keyring_sign(s->ring, key, digest, signature);
	if (len < 0) {
		return false;
	}
	len = EVP_EncodeBlock((unsigned char *)encoded, signature, len);
	text_value(t, encoded, (size_t)len);
	text_put(t, "\r\n", 2);
	return !t->overflow;
}

uint32_t dkim_sign(struct dkim_signer *s, const struct dkim_policy *policy, uint64_t time_s,
		   struct chain *to, struct pool *buffers)
{
	struct common common = {.time_s = time_s, .keys = dkim_keys_now(policy->keys)};
	struct text text;
	uint32_t made = 0;

	for (uint32_t i = 0; i < policy->count; i++) {
		common.wanted[policy->signatures[i].body] = true;
	}
	digest_body(s, &common);
	for (uint32_t i = 0; i < policy->count; i++) {
		if (sign_one(s, &policy->signatures[i], &common, &text)) {
			chain_append(to, buffers, text.bytes, text.len);
			made++;
		}
	}
	return made;
}
