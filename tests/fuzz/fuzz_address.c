/*
 * core/mail/address.c: a byte for role and SMTPUTF8, then a path. What is accepted is in canonical
 * form: it parses again to itself, and holds nothing that could leave a line. Plain addresses are
 * compared with the grammar, word by word.
 */
#include <errno.h>

#include "core/mail/address.h"
#include "tests/fuzz/fuzz_input.h"

static void check_text(const struct address *a)
{
	FUZZ_CHECK(a->len <= ADDRESS_MAX && strlen(a->text) == a->len);
	FUZZ_CHECK(a->local_len <= ADDRESS_LOCAL_MAX);
	FUZZ_CHECK(a->domain_len <= ADDRESS_DOMAIN_MAX);
	for (size_t i = 0; i < a->len; i++) {
		unsigned char c = (unsigned char)a->text[i];

		FUZZ_CHECK(c >= ' ' && c != 127);
		FUZZ_CHECK(c < 128 || a->utf8);
		FUZZ_CHECK(i < a->local_len || c != ' ');
	}
}

static void check_domain(const struct address *a)
{
	const char *domain = address_domain(a);
	unsigned char ip[16];

	if (a->domain_len == 0) {
		FUZZ_CHECK(a->len == 0 || strcmp(a->text, "postmaster") == 0);
		return;
	}
	FUZZ_CHECK(a->len == a->local_len + 1 + a->domain_len);
	FUZZ_CHECK(a->local_len > 0 && a->text[a->local_len] == '@');
	FUZZ_CHECK(a->domain_offset == a->local_len + 1);
	FUZZ_CHECK(a->literal == (domain[0] == '['));
	if (a->literal) {
		FUZZ_CHECK(address_literal_parse(domain, a->domain_len, ip) == 0);
	} else {
		FUZZ_CHECK(address_domain_valid(domain, a->domain_len, true));
	}
	for (size_t i = 0; i < a->domain_len; i++) {
		FUZZ_CHECK(domain[i] < 'A' || domain[i] > 'Z');
	}
}

/* Its own form is a path that means the same. */
static void check_again(const struct address *a, enum address_role role)
{
	struct smtp_refusal refusal;
	struct address again;
	char path[ADDRESS_MAX + 3];
	int len = snprintf(path, sizeof(path), "<%s>", a->text);

	FUZZ_CHECK(address_parse(&again, path, (size_t)len, role, true, &refusal) == 0);
	FUZZ_CHECK(again.len == a->len && strcmp(again.text, a->text) == 0);
	FUZZ_CHECK(again.local_len == a->local_len && again.domain_offset == a->domain_offset);
	FUZZ_CHECK(again.literal == a->literal);
	/* What was not ASCII may have been in a source route, which is gone. */
	FUZZ_CHECK(!again.utf8 || a->utf8);
}

static void check_refusal(const struct smtp_refusal *r, int error)
{
	FUZZ_CHECK(error == -EINVAL || error == -ENAMETOOLONG || error == -EILSEQ);
	FUZZ_CHECK(r->code == 501 || r->code == 553);
	FUZZ_CHECK(r->status != NULL && strlen(r->status) == 5 && r->status[0] == '5');
	FUZZ_CHECK(r->text != NULL);
}

/* ---- the grammar of Dot-string "@" Domain, RFC 5321 section 4.1.2 ---- */

/* Words of `good` characters with single dots between them, none longer than `max`. */
static bool is_dotted(const char *text, size_t len, const char *good, size_t max)
{
	size_t word = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '.' && word > 0) {
			word = 0;
		} else if (text[i] != '\0' && strchr(good, text[i]) != NULL && word < max) {
			word++;
		} else {
			return false;
		}
	}
	return word > 0;
}

static bool is_plain_mailbox(const char *text, size_t len)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-!#$%&'*+/=?^_`{|}~";
	const char *at = memchr(text, '@', len);
	char domain_letters[64] = "";
	size_t local = at != NULL ? (size_t)(at - text) : 0;
	size_t domain = at != NULL ? len - local - 1 : 0;

	memcpy(domain_letters, letters, 63);
	if (at == NULL || local > 64 || domain > 255 || !is_dotted(text, local, letters, 64) ||
	    !is_dotted(at + 1, domain, domain_letters, 63)) {
		return false;
	}
	for (size_t i = 0; i < domain; i++) {
		if (at[1 + i] == '-' &&
		    (i == 0 || i == domain - 1 || at[i] == '.' || at[2 + i] == '.')) {
			return false;
		}
	}
	return true;
}

/* Only what the grammar above is about. */
static bool is_plain(const char *path, size_t len)
{
	if (len < 4 || path[0] != '<' || path[len - 1] != '>' || path[1] == '@' ||
	    memchr(path, '"', len) != NULL || memchr(path, '@', len) == NULL ||
	    memchr(path, '[', len) != NULL) {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)path[i] >= 128) {
			return false;
		}
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	unsigned options = fuzz_byte(&in);
	enum address_role role = (options & 1) != 0 ? ADDRESS_SENDER : ADDRESS_RECIPIENT;
	char *path = (char *)fuzz_copy(in.at, in.left);
	struct smtp_refusal refusal = {0};
	struct address a;
	int rc = address_parse(&a, path, in.left, role, (options & 2) != 0, &refusal);

	if (rc == 0) {
		check_text(&a);
		check_domain(&a);
		check_again(&a, role);
		FUZZ_CHECK((options & 2) != 0 || !a.utf8);
	} else {
		check_refusal(&refusal, rc);
	}
	if (is_plain(path, in.left)) {
		FUZZ_CHECK((rc == 0) == is_plain_mailbox(path + 1, in.left - 2));
	}
	free(path);
	return 0;
}
