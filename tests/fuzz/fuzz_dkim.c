/*
 * core/mail/dkim.c: a byte of options, a number, and a message in SMTP wire form, which is put into
 * buffers of odd sizes. A twin that has the whole text at once, without its stuffed dots, finds the
 * same fields, makes the same canonical forms, and verifies the signatures.
 */
#include <errno.h>
#include <openssl/evp.h>

#include "core/mail/dkim.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/unit/dkim_keys.h"

#define NAMES 4

/* Of all inputs. */
static struct dkim_signer *signer;
static const struct dkim_key *key;

/* Bytes that grow. */
struct bytes {
	unsigned char *data;
	size_t len;
	size_t size;
};

static void add(struct bytes *b, const void *data, size_t len)
{
	if (b->data == NULL || b->len + len >= b->size) {
		b->size = (b->len + len + 32) * 2;
		b->data = realloc(b->data, b->size);
		FUZZ_CHECK(b->data != NULL);
	}
	if (len > 0) {
		memcpy(b->data + b->len, data, len);
	}
	b->len += len;
}

static void take(void *context, const void *data, size_t len)
{
	FUZZ_CHECK(len > 0);
	add(context, data, len);
}

static bool is_blank(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* ---- the twin ---- */

/* Length of the line at `at`, with its CR LF. */
static size_t line_length(const struct bytes *text, size_t at)
{
	size_t end = at;

	while (end < text->len &&
	       !(end > at && text->data[end - 1] == '\r' && text->data[end] == '\n')) {
		end++;
	}
	return end < text->len ? end + 1 - at : text->len - at;
}

static struct bytes unstuff(const unsigned char *data, size_t len)
{
	struct bytes wire = {(unsigned char *)(uintptr_t)data, len, 0};
	struct bytes text = {NULL, 0, 0};
	size_t n;

	for (size_t at = 0; at < len; at += n) {
		n = line_length(&wire, at);
		add(&text, data + at + (data[at] == '.'), n - (data[at] == '.'));
	}
	return text;
}

struct twin_field {
	size_t at;
	size_t len;
	char name[DKIM_NAME_MAX];
};

struct twin {
	struct bytes text;
	size_t body;
	unsigned count;
	/* NULL at first; grows. */
	struct twin_field *fields;
};

/* Whether the line begins a field, and its name in lower case. */
static bool twin_name(const unsigned char *line, size_t len, char name[DKIM_NAME_MAX])
{
	size_t n = 0;
	size_t at;

	while (n < len && line[n] > ' ' && line[n] < 127 && line[n] != ':') {
		n++;
	}
	for (at = n; at < len && is_blank(line[at]); at++) {
	}
	if (n == 0 || n >= DKIM_NAME_MAX || at == len || line[at] != ':') {
		return false;
	}
	for (at = 0; at < n; at++) {
		name[at] = (char)(line[at] >= 'A' && line[at] <= 'Z' ? line[at] + 32 : line[at]);
	}
	name[n] = '\0';
	return true;
}

static void twin_read(struct twin *t)
{
	bool open = false;
	size_t len;

	for (t->body = 0; t->body < t->text.len; t->body += len) {
		const unsigned char *line = t->text.data + t->body;

		len = line_length(&t->text, t->body);
		if (len == 2 && memcmp(line, "\r\n", 2) == 0) {
			t->body += 2;
			return;
		}
		if (is_blank(line[0])) {
			t->fields[open ? t->count - 1 : 0].len += open ? len : 0;
			continue;
		}
		t->fields = realloc(t->fields, (t->count + 2) * sizeof(*t->fields));
		FUZZ_CHECK(t->fields != NULL);
		t->fields[t->count] = (struct twin_field){.at = t->body, .len = len};
		open = twin_name(line, len, t->fields[t->count].name);
		t->count += open;
	}
}

/* Runs of blanks become one space; none at the start and the end. */
static void squeeze(struct bytes *to, const unsigned char *text, size_t len, bool keep_first)
{
	bool any = keep_first;

	for (size_t i = 0; i < len; i++) {
		if (!is_blank(text[i])) {
			if (any && i > 0 && is_blank(text[i - 1])) {
				add(to, " ", 1);
			}
			add(to, text + i, 1);
			any = true;
		}
	}
}

static void twin_header(const unsigned char *text, size_t len, enum dkim_canon canon,
			struct bytes *to)
{
	struct bytes unfolded = {NULL, 0, 0};
	const unsigned char *colon;

	if (canon == DKIM_SIMPLE) {
		add(to, text, len);
		return;
	}
	for (size_t i = 0; i < len; i++) {
		bool end = i + 1 < len && text[i] == '\r' && text[i + 1] == '\n';

		add(&unfolded, text + i, end ? 0 : 1);
		i += end;
	}
	colon = memchr(unfolded.data, ':', unfolded.len);
	FUZZ_CHECK(colon != NULL);
	for (const unsigned char *c = unfolded.data; c < colon && !is_blank(*c); c++) {
		unsigned char low = *c >= 'A' && *c <= 'Z' ? (unsigned char)(*c + 32) : *c;

		add(to, &low, 1);
	}
	add(to, ":", 1);
	squeeze(to, colon + 1, (size_t)(unfolded.data + unfolded.len - colon - 1), false);
	free(unfolded.data);
}

static struct bytes twin_body(const struct twin *t, enum dkim_canon canon)
{
	struct bytes out = {NULL, 0, 0};
	size_t n;

	add(&out, "", 0);
	for (size_t at = t->body; at < t->text.len; at += n) {
		size_t text;

		n = line_length(&t->text, at);
		text = n >= 2 && memcmp(t->text.data + at + n - 2, "\r\n", 2) == 0 ? n - 2 : n;
		if (canon == DKIM_SIMPLE) {
			add(&out, t->text.data + at, text);
		} else {
			squeeze(&out, t->text.data + at, text, true);
		}
		add(&out, "\r\n", 2);
	}
	while (out.len >= 2 && memcmp(out.data + out.len - 2, "\r\n", 2) == 0) {
		out.len -= 2;
	}
	if (out.len > 0 || canon == DKIM_SIMPLE) {
		/* The last one of those that were taken away is the line's own. */
		add(&out, "\r\n", 2);
	}
	return out;
}

/* ---- what is compared ---- */

static void check_body(const struct twin *t, enum dkim_canon canon)
{
	struct bytes wanted = twin_body(t, canon);
	struct bytes found = {NULL, 0, 0};
	struct bytes whole = {NULL, 0, 0};
	struct dkim_sink sink;
	struct dkim_body b;

	/* The body alone, dots stuffed again, byte by byte. */
	for (size_t at = t->body; at < t->text.len; at++) {
		bool start = at == t->body || (at >= t->body + 2 && t->text.data[at - 1] == '\n' &&
					       t->text.data[at - 2] == '\r');

		add(&whole, ".", start && t->text.data[at] == '.');
		add(&whole, t->text.data + at, 1);
	}
	dkim_sink_init(&sink, take, &found);
	dkim_body_init(&b, canon, &sink);
	for (size_t at = 0; at < whole.len; at += 3) {
		dkim_body_add(&b, whole.data + at, whole.len - at < 3 ? whole.len - at : 3);
	}
	dkim_body_end(&b);
	FUZZ_CHECK(found.len == wanted.len);
	FUZZ_CHECK(found.len == 0 || memcmp(found.data, wanted.data, found.len) == 0);
	free(whole.data);
	free(found.data);
	free(wanted.data);
}

static const char *const names[NAMES] = {"from", "subject", "x", "to"};
static const char *const oversigned[] = {"x", "b"};

/* What h= has to be, and the fields that it stands for. */
static void twin_select(const struct twin *t, enum dkim_canon canon, struct bytes *list,
			struct bytes *signed_bytes)
{
	for (unsigned n = 0; n < NAMES + 1; n++) {
		const char *name = n < NAMES ? names[n] : "b";
		unsigned times = 0;

		for (unsigned i = t->count; i-- > 0;) {
			const struct twin_field *f = &t->fields[i];

			if (strcmp(f->name, name) == 0) {
				twin_header(t->text.data + f->at, f->len, canon, signed_bytes);
				add(signed_bytes, "\r\n", canon == DKIM_RELAXED ? 2 : 0);
				times++;
			}
		}
		times += strcmp(name, "x") == 0 || strcmp(name, "b") == 0;
		for (; times > 0; times--) {
			add(list, ":", list->len > 0);
			add(list, name, strlen(name));
		}
	}
	add(list, "", 1);
}

/* The value of a tag of the field, without white space, as a string. */
static struct bytes tag_of(const char *field, const char *tag)
{
	struct bytes value = {NULL, 0, 0};
	const char *at = field;

	while ((at = strpbrk(at + 1, " \t")) != NULL && strncmp(at + 1, tag, strlen(tag)) != 0) {
	}
	FUZZ_CHECK(at != NULL);
	for (at += 1 + strlen(tag); *at != ';' && *at != '\0'; at++) {
		add(&value, at, strchr(" \t\r\n", *at) == NULL);
	}
	add(&value, "", 1);
	return value;
}

static void sha256_text(const struct bytes *bytes, char text[64])
{
	unsigned char digest[32];

	FUZZ_CHECK(EVP_Digest(bytes->data, bytes->len, digest, NULL, EVP_sha256(), NULL) == 1);
	EVP_EncodeBlock((unsigned char *)text, digest, sizeof(digest));
}

static void verify(const struct bytes *signed_bytes, const char *signature)
{
	static const unsigned char raw_key[32] = {0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7,
						  0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
						  0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25,
						  0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a};
	EVP_PKEY *public_key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw_key, 32);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	unsigned char digest[32];
	unsigned char raw[100];

	FUZZ_CHECK(strlen(signature) == 88);
	FUZZ_CHECK(EVP_DecodeBlock(raw, (const unsigned char *)signature, 88) == 66);
	EVP_Digest(signed_bytes->data, signed_bytes->len, digest, NULL, EVP_sha256(), NULL);
	FUZZ_CHECK(EVP_DigestVerifyInit(context, NULL, NULL, NULL, public_key) == 1);
	FUZZ_CHECK(EVP_DigestVerify(context, raw, 64, digest, 32) == 1);
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(public_key);
}

static void check_signature(const struct twin *t, const struct dkim_signature *g, const char *field)
{
	struct bytes list = {NULL, 0, 0};
	struct bytes signed_bytes = {NULL, 0, 0};
	struct bytes body = twin_body(t, g->body);
	struct bytes found = tag_of(field, "h=");
	struct bytes digest = tag_of(field, "bh=");
	struct bytes signature = tag_of(field, "b=");
	char text[64];

	twin_select(t, g->header, &list, &signed_bytes);
	FUZZ_CHECK(strcmp((char *)found.data, (char *)list.data) == 0);
	sha256_text(&body, text);
	FUZZ_CHECK(strcmp((char *)digest.data, text) == 0);
	twin_header((const unsigned char *)field, (size_t)(strstr(field, "\tb=") + 3 - field),
		    g->header, &signed_bytes);
	verify(&signed_bytes, (char *)signature.data);
	free(signature.data);
	free(digest.data);
	free(found.data);
	free(body.data);
	free(signed_bytes.data);
	free(list.data);
}

/* The header was read as the twin reads it; false: it is not to be signed. */
static bool check_read(const struct twin *t, int rc, const char *author)
{
	unsigned from = 0;

	for (unsigned i = 0; i < t->count; i++) {
		from += strcmp(t->fields[i].name, "from") == 0;
	}
	if (t->count > DKIM_FIELDS_MAX) {
		FUZZ_CHECK(rc == -E2BIG);
		return false;
	}
	FUZZ_CHECK(rc == 0 || rc == -ENOENT);
	FUZZ_CHECK(from == 1 || rc == -ENOENT);
	if (rc == 0) {
		FUZZ_CHECK(strlen(author) > 0 && strlen(author) < DKIM_DOMAIN_MAX);
		FUZZ_CHECK(strpbrk(author, " \t\r\nABCDEFGHIJKLMNOPQRSTUVWXYZ@<>") == NULL);
	}
	return rc == 0;
}

static void sign(const struct twin *t, unsigned options, struct pool *buffers)
{
	const struct dkim_keys keys = {&key};
	struct dkim_signature g[2];
	struct chain fields = CHAIN_EMPTY;
	char *text;
	char *second;
	uint32_t made;

	for (unsigned i = 0; i < 2; i++, options >>= 2) {
		g[i] = (struct dkim_signature){
			.domain = "football.example.com",
			.selector = "brisbane",
			.header = (options & 1) != 0 ? DKIM_RELAXED : DKIM_SIMPLE,
			.body = (options & 2) != 0 ? DKIM_RELAXED : DKIM_SIMPLE,
			.fields = names,
			.field_count = NAMES,
			.oversigned = oversigned,
			.oversigned_count = 2,
			.expiration_s = i,
		};
	}
	made = dkim_sign(signer, &(struct dkim_policy){g, 2, &keys}, 1528637909, &fields, buffers);
	text = calloc(1, (size_t)fields.len + 1);
	FUZZ_CHECK(text != NULL && (made == 0) == (fields.len == 0));
	chain_copy_out(&fields, 0, text, (size_t)fields.len);
	if (made == 2) {
		second = strstr(text + 1, "DKIM-Signature:");
		check_signature(t, &g[1], second);
		*second = '\0';
		check_signature(t, &g[0], text);
	} else {
		/* Only a list of names can be too long. */
		FUZZ_CHECK(t->text.len > 2000);
	}
	free(text);
	chain_release(&fields, buffers);
}

/* A chain whose buffers hold odd numbers of bytes, some none. */
static struct chain chain_of(const unsigned char *data, size_t len, uint32_t seed,
			     struct pool *buffers)
{
	struct chain c = CHAIN_EMPTY;
	size_t n;

	for (size_t at = 0; at < len; at += n) {
		struct chain piece = CHAIN_EMPTY;

		n = fuzz_split(&seed, len - at);
		chain_append(&piece, buffers, data + at, n);
		chain_prepend_chain(&piece, &c);
		c = piece;
	}
	return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	unsigned options = fuzz_byte(&in);
	uint32_t seed = fuzz_word(&in);
	struct twin t = {.text = unstuff(in.at, in.left)};
	char author[DKIM_DOMAIN_MAX];
	struct chain message;
	struct pool buffers;

	if (signer == NULL) {
		const char *problem;

		signer = dkim_signer_create();
		key = dkim_key_parse(dkim_ed25519_8463, sizeof(dkim_ed25519_8463) - 1, &problem);
		FUZZ_CHECK(key != NULL);
	}
	t.fields = calloc(1, sizeof(*t.fields));
	FUZZ_CHECK(t.fields != NULL);
	twin_read(&t);
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	message = chain_of(in.at, in.left, seed, &buffers);
	if (check_read(&t, dkim_read(signer, &message, author), author)) {
		sign(&t, options, &buffers);
	}
	check_body(&t, DKIM_SIMPLE);
	check_body(&t, DKIM_RELAXED);
	chain_release(&message, &buffers);
	pool_close(&buffers);
	free(t.fields);
	free(t.text.data);
	return 0;
}
