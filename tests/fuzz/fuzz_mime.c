/*
 * core/mail/mime.c, dsn_parse.c, bounce_text.c: a byte of options, then a message in wire form, or
 * a bounce address. Whatever came back, what is found in it is whole: strings end, are of one line,
 * and fit; addresses have both halves; however it is split into buffers, it is the same.
 */
#include "core/mail/dsn_parse.h"
#include "core/mail/mime.h"
#include "tests/fuzz/fuzz_input.h"

static void check_line(const char *text, size_t size)
{
	size_t len = strnlen(text, size);

	FUZZ_CHECK(len < size);
	for (size_t i = 0; i < len; i++) {
		FUZZ_CHECK((unsigned char)text[i] >= ' ' && text[i] != 127);
	}
}

static void check_address(const char *address)
{
	const char *at = strrchr(address, '@');

	check_line(address, ADDRESS_MAX + 1);
	FUZZ_CHECK(address[0] == '\0' || (at != NULL && at > address && at[1] != '\0'));
}

static void check_recipient(const struct report_recipient *x)
{
	check_address(x->address);
	check_line(x->status, sizeof(x->status));
	check_line(x->text, sizeof(x->text));
	check_line(x->remote_mta, sizeof(x->remote_mta));
	FUZZ_CHECK(x->code == 0 || (x->code >= 400 && x->code < 600));
	FUZZ_CHECK(x->action <= REPORT_DONE);
}

static void check_report(const struct report *r)
{
	FUZZ_CHECK(r->kind <= REPORT_FEEDBACK && r->recipient_count <= REPORT_RECIPIENTS_MAX);
	FUZZ_CHECK(r->kind != REPORT_BOUNCE || r->recipient_count > 0);
	check_address(r->from);
	check_line(r->text, sizeof(r->text));
	check_line(r->feedback_type, sizeof(r->feedback_type));
	check_line(r->user_agent, sizeof(r->user_agent));
	for (unsigned i = 0; i < r->recipient_count; i++) {
		check_recipient(&r->recipients[i]);
	}
}

static void same_recipient(const struct report_recipient *a, const struct report_recipient *b)
{
	FUZZ_CHECK(strcmp(a->address, b->address) == 0 && strcmp(a->text, b->text) == 0);
	FUZZ_CHECK(a->action == b->action && a->code == b->code);
	FUZZ_CHECK(strcmp(a->status, b->status) == 0);
}

/* A chain of the input, in pieces that `seed` gives. */
static struct report *parse(const struct fuzz_input *in, uint32_t seed)
{
	struct chain body = CHAIN_EMPTY;
	struct pool buffers;
	struct report *r = malloc(sizeof(*r));
	size_t n;

	FUZZ_CHECK(r != NULL);
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	for (size_t at = 0; at < in->left; at += n) {
		n = seed != 0 ? fuzz_split(&seed, in->left - at) : in->left;
		chain_append(&body, &buffers, in->at + at, n);
	}
	dsn_parse(&body, r);
	chain_release(&body, &buffers);
	pool_close(&buffers);
	return r;
}

static void message(const struct fuzz_input *in, uint32_t seed)
{
	struct report *whole = parse(in, 0);
	struct report *split = parse(in, seed | 1);

	check_report(whole);
	FUZZ_CHECK(whole->kind == split->kind && whole->recipient_count == split->recipient_count);
	FUZZ_CHECK(strcmp(whole->text, split->text) == 0);
	for (unsigned i = 0; i < whole->recipient_count; i++) {
		same_recipient(&whole->recipients[i], &split->recipients[i]);
	}
	free(split);
	free(whole);
}

/* What is decoded fits into memory that is watched. */
static bool on_part(void *context, const struct mime_part *part)
{
	size_t size = *(const size_t *)context;
	char *to = malloc(size);
	size_t len;

	FUZZ_CHECK(to != NULL);
	len = mime_decode(part, to, size);
	FUZZ_CHECK(len < size && to[len] == '\0' && len <= part->body_len);
	FUZZ_CHECK(part->depth <= MIME_DEPTH_MAX && strlen(part->type) < MIME_TYPE_MAX);
	free(to);
	return true;
}

static void walk(const struct fuzz_input *in, size_t size)
{
	char *text = (char *)fuzz_copy(in->at, in->left);

	mime_walk(text, in->left, on_part, &size);
	free(text);
}

static void verp(struct fuzz_input *in)
{
	char *address = fuzz_string(in);
	char *recipient = malloc(ADDRESS_MAX + 1);

	FUZZ_CHECK(recipient != NULL);
	if (dsn_verp(address, recipient)) {
		FUZZ_CHECK(strlen(recipient) < strlen(address) && strchr(recipient, '@') != NULL);
		FUZZ_CHECK(recipient[0] != '\0' && strrchr(recipient, '@')[1] != '\0');
	} else {
		FUZZ_CHECK(recipient[0] == '\0');
	}
	free(recipient);
	free(address);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	unsigned options = fuzz_byte(&in);

	switch (options & 3) {
	case 0:
	case 1:
		message(&in, options);
		break;
	case 2:
		walk(&in, 1 + options);
		break;
	default:
		verp(&in);
	}
	return 0;
}
