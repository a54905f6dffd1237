/*
 * The signer: whole DKIM-Signature fields, which other verifiers were seen to accept; whose domain
 * a message is of; what is signed, how often and in what order; and that neither buffers nor dots
 * make a difference.
 */
#include "core/mail/dkim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/dkim_keys.h"

#define TEXT_MAX 40000
#define TIME_S 1528637909

enum { RSA, ED25519, KINDS };

static struct {
	struct pool buffers;
	struct dkim_signer *signer;
	const struct dkim_key *list[KINDS];
	struct dkim_keys keys;
} world;

static int set_up(void **state)
{
	const char *problem;

	(void)state;
	pool_init(&world.buffers, "buffers", CHAIN_BUFFER_SIZE, 16);
	world.signer = dkim_signer_create();
	world.list[RSA] = dkim_key_parse(dkim_rsa_8463, strlen(dkim_rsa_8463), &problem);
	world.list[ED25519] =
		dkim_key_parse(dkim_ed25519_8463, strlen(dkim_ed25519_8463), &problem);
	world.keys.list = world.list;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	dkim_key_free((struct dkim_key *)world.list[RSA]);
	dkim_key_free((struct dkim_key *)world.list[ED25519]);
	dkim_signer_destroy(world.signer);
	pool_close(&world.buffers);
	return 0;
}

static const char *const names[] = {"from", "to", "subject", "date", "x-one"};
static const char *const closed[] = {"from", "subject", "x-two"};

static struct dkim_signature signature(uint32_t key)
{
	return (struct dkim_signature){
		.domain = "football.example.com",
		.selector = key == RSA ? "test" : "brisbane",
		.key = key,
		.header = DKIM_RELAXED,
		.body = DKIM_RELAXED,
		.fields = names,
		.field_count = 5,
	};
}

/* A chain with a new buffer at each of the places, in order. */
static struct chain chain_of(const char *text, size_t len, const size_t *places, unsigned count)
{
	struct chain c = CHAIN_EMPTY;
	size_t at = 0;

	for (unsigned i = 0; i <= count; i++) {
		struct chain piece = CHAIN_EMPTY;
		size_t end = i < count ? places[i] : len;

		chain_append(&piece, &world.buffers, text + at, end - at);
		chain_prepend_chain(&piece, &c);
		c = piece;
		at = end;
	}
	return c;
}

/* The fields that the policy makes for the chain; nothing when it has no author. */
static int sign_chain(struct chain *message, const struct dkim_policy *policy, char *text)
{
	char author[DKIM_DOMAIN_MAX];
	struct chain fields = CHAIN_EMPTY;
	int rc = dkim_read(world.signer, message, author);

	if (rc == 0) {
		rc = (int)dkim_sign(world.signer, policy, TIME_S, &fields, &world.buffers);
	}
	assert_true(fields.len < TEXT_MAX);
	chain_copy_out(&fields, 0, text, (size_t)fields.len);
	text[fields.len] = '\0';
	chain_release(&fields, &world.buffers);
	return rc;
}

static int sign_text(const char *message, const struct dkim_signature *g, char *text)
{
	struct chain c = chain_of(message, strlen(message), NULL, 0);
	int rc = sign_chain(&c, &(struct dkim_policy){g, 1, &world.keys}, text);

	chain_release(&c, &world.buffers);
	return rc;
}

/* The value of a tag without its folding. */
static void tag_of(const char *field, const char *tag, char *value)
{
	const char *at = field;
	size_t len = strlen(tag);

	do {
		at = strpbrk(at + 1, " \t");
		assert_non_null(at);
	} while (strncmp(at + 1, tag, len) != 0 || at[1 + len] != '=');
	for (at += len + 2; *at != ';' && *at != '\0'; at++) {
		if (strchr(" \t\r\n", *at) == NULL) {
			*value++ = *at;
		}
	}
	*value = '\0';
}

static void check_tag(const char *message, const struct dkim_signature *g, const char *tag,
		      const char *wanted)
{
	char *text = malloc(TEXT_MAX);
	char *value = malloc(TEXT_MAX);

	assert_int_equal(sign_text(message, g, text), 1);
	tag_of(text, tag, value);
	assert_string_equal(value, wanted);
	free(value);
	free(text);
}

#define EXAMPLE                                                                                    \
	"From: Joe SixPack <joe@football.example.com>\r\n"                                         \
	"To: Suzie Q <suzie@shopping.example.net>\r\n"                                             \
	"X-One: first\r\n"                                                                         \
	"Subject: Is dinner ready?\r\n"                                                            \
	"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"                                          \
	"X-One:  second\r\n"                                                                       \
	"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"                         \
	"\r\n"                                                                                     \
	"Hi.\r\n"                                                                                  \
	"\r\n"                                                                                     \
	"We lost the game. Are you hungry yet?\r\n"                                                \
	"\r\n"                                                                                     \
	"Joe.\r\n"

/* dkimpy found both to be good. */
static const char golden[] =
	"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
	"\td=football.example.com; s=brisbane; t=1528637909;\r\n"
	"\th=from:to:subject:date:x-one:x-one;\r\n"
	"\tbh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
	"\tb=g/a2IpuFs7htlT6lIUWPZUHFxsKltyuthjOtKH005SDjJnDx9GkhAiRi1RZTyW+J+sRj\r\n"
	"\tptQi/gRBoHSnPtmXDA==\r\n"
	"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=football.example.com;\r\n"
	"\ts=test; t=1528637909; x=1528724309;\r\n"
	"\th=from:from:to:subject:subject:date:x-one:x-one:x-two;\r\n"
	"\tbh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
	"\tb=mz7EPXZBAmCZdyIGQQFOZ/7Bi/wR+wqSRnhr9fqHrkV1/fTec8Mh5aI/AMO1qdKWqEPC\r\n"
	"\t3BNGvMowl3M24VH8voKgTVrAusErabpI1cZf/CNxWsL63UETH28kWNde6XfU8xALrlQ6Hk\r\n"
	"\tTu3pKJMLMT1W5vGuqiovRMRcK2z3BLNQ4=\r\n";

static void test_whole_fields(void **state)
{
	struct dkim_signature both[2] = {signature(ED25519), signature(RSA)};
	struct dkim_policy policy = {both, 2, &world.keys};
	struct chain c = chain_of(EXAMPLE, strlen(EXAMPLE), NULL, 0);
	char *text = malloc(TEXT_MAX);

	(void)state;
	both[1].header = DKIM_SIMPLE;
	both[1].body = DKIM_SIMPLE;
	both[1].oversigned = closed;
	both[1].oversigned_count = 3;
	both[1].expiration_s = 86400;
	assert_int_equal(sign_chain(&c, &policy, text), 2);
	assert_string_equal(text, golden);
	chain_release(&c, &world.buffers);
	free(text);
}

/* ---- the author ---- */

static const struct {
	const char *from;
	const char *domain;
} authors[] = {
	{"From: a@b.example\r\n", "b.example"},
	{"fROM : <a@B.Example>\r\n", "b.example"},
	{"From: a@b.example, c@d.example\r\n", "b.example"},
	{"From: Joe <joe@x.example>, c@d.example\r\n", "x.example"},
	{"From: \"a@wrong.example\" <joe@x.example>\r\n", "x.example"},
	{"From: \"a \\\" <b@wrong.example>\" <joe@x.example>\r\n", "x.example"},
	{"From: (b@wrong.example (and) \\) <c@wrong.example>) joe@x.example (Joe)\r\n",
	 "x.example"},
	{"From: joe@wrong.example <joe@x.example>\r\n", "x.example"},
	{"From: Doe, Joe <joe@x.example>\r\n", "x.example"},
	{"From: \"joe@home\"@x.example\r\n", "x.example"},
	{"From: =?utf-8?q?=40wrong?=\r\n\t<joe@\r\n x.example>\r\n", "x.example"},
	{"From: Friends: joe@x.example, jim@y.example;\r\n", "x.example"},
	{"From: <@one.example,@two.example:joe@x.example>\r\n", "x.example"},
	{"From: joe@x.example.\r\n", "x.example"},
	{"From: joe@[192.0.2.1]\r\n", "[192.0.2.1]"},
	{".From: joe@x.example\r\n", "x.example"},
	/* None. */
	{"From: joe\r\n", NULL},
	{"From: <>\r\n", NULL},
	{"From: joe@\r\n", NULL},
	{"From: \"joe@x.example\"\r\n", NULL},
	{"From: joe@x.\001example\r\n", NULL},
	{"From: joe@\177example\r\n", NULL},
	{"From: Friends:;\r\n", NULL},
	{"From:\r\n", NULL},
	{"From joe@x.example Mon 10:00\r\n", NULL},
	{"Fromage: joe@x.example\r\n", NULL},
	{"X-From: joe@x.example\r\n", NULL},
	{" From: joe@x.example\r\n", NULL},
	{"\r\nFrom: joe@x.example\r\n", NULL},
	{".\r\nFrom: joe@x.example\r\n", NULL},
	{"", NULL},
	/* Which one would be shown? */
	{"From: joe@x.example\r\nFrom: joe@x.example\r\n", NULL},
};

static void test_the_domain_is_that_of_the_first_author(void **state)
{
	char domain[DKIM_DOMAIN_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(authors) / sizeof(authors[0]); i++) {
		const char *from = authors[i].from;

		for (size_t split = 0; split <= strlen(from); split++) {
			struct chain c = chain_of(from, strlen(from), &split, 1);
			int rc = dkim_read(world.signer, &c, domain);

			if (rc != (authors[i].domain != NULL ? 0 : -ENOENT)) {
				fail_msg("%s: %d", from, rc);
			}
			if (rc == 0) {
				assert_string_equal(domain, authors[i].domain);
			}
			chain_release(&c, &world.buffers);
		}
	}
}

static void test_a_domain_is_not_too_long(void **state)
{
	char text[1000];
	char domain[DKIM_DOMAIN_MAX];

	(void)state;
	for (unsigned len = 254; len < 258; len++) {
		struct chain c;

		snprintf(text, sizeof(text), "From: a@%0*d\r\n", (int)len, 0);
		c = chain_of(text, strlen(text), NULL, 0);
		assert_int_equal(dkim_read(world.signer, &c, domain),
				 len < DKIM_DOMAIN_MAX ? 0 : -ENOENT);
		chain_release(&c, &world.buffers);
	}
}

/* ---- what is signed ---- */

static void test_names_each_field_as_often_as_it_is_there(void **state)
{
	struct dkim_signature g = signature(ED25519);

	(void)state;
	check_tag("From: a@b.example\r\n\r\n", &g, "h", "from");
	check_tag(
		"X-One: 1\r\nTo: x\r\nFrom: a@b.example\r\nX-One: 2\r\nx-ONE: 3\r\n\r\nX-One: no\r\n",
		&g, "h", "from:to:x-one:x-one:x-one");
	g.oversigned = closed;
	g.oversigned_count = 3;
	check_tag("From: a@b.example\r\n\r\n", &g, "h", "from:from:subject:x-two");
	check_tag("X-Two: 1\r\nSubject: x\r\nFrom: a@b.example\r\n\r\n", &g, "h",
		  "from:from:subject:subject:x-two:x-two");
}

static void signatures_differ(const char *a, const char *b, const struct dkim_signature *g,
			      bool differ)
{
	char *texts[2] = {malloc(TEXT_MAX), malloc(TEXT_MAX)};

	assert_int_equal(sign_text(a, g, texts[0]), 1);
	assert_int_equal(sign_text(b, g, texts[1]), 1);
	assert_int_equal(strcmp(texts[0], texts[1]) != 0, differ);
	free(texts[0]);
	free(texts[1]);
}

#define F "From: a@b.example\r\n"

static void test_signs_what_it_names_and_nothing_else(void **state)
{
	struct dkim_signature g = signature(ED25519);

	(void)state;
	signatures_differ(F "X-One: 1\r\n\r\nx", F "X-One: 2\r\n\r\nx", &g, true);
	signatures_differ(F "X-Two: 1\r\n\r\nx", F "X-Two: 2\r\n\r\nx", &g, false);
	signatures_differ(F "X-One: 1\r\n\r\nx", F "X-One:  1 \r\n\r\nx", &g, false);
	/* From the last one up. */
	signatures_differ(F "X-One: 1\r\nX-One: 2\r\n\r\nx", F "X-One: 2\r\nX-One: 1\r\n\r\nx", &g,
			  true);
	signatures_differ(F "X-One: 1\r\nTo: 2\r\n\r\nx", F "To: 2\r\nX-One: 1\r\n\r\nx", &g,
			  false);
	signatures_differ(F "\r\nx", F "\r\ny", &g, true);
	signatures_differ(F "\r\nx\r\n", F "\r\nx \r\n\r\n", &g, false);
	g.body = DKIM_SIMPLE;
	signatures_differ(F "\r\nx\r\n", F "\r\nx \r\n\r\n", &g, true);
	signatures_differ(F "\r\nx\r\n", F "\r\nx\r\n\r\n", &g, false);
	g.header = DKIM_SIMPLE;
	signatures_differ(F "X-One: 1\r\n\r\nx", F "X-One:  1 \r\n\r\nx", &g, true);
	/* No body and an empty one are the same. */
	signatures_differ(F, F "\r\n", &g, false);
	signatures_differ(F, F "\r\n\r\n\r\n", &g, false);
}

/* What is no field is not signed, nor are the lines that seem to continue it; it ends no field. */
static void test_lines_that_are_no_fields(void **state)
{
	struct dkim_signature g = signature(ED25519);

	(void)state;
	check_tag("hello\r\n" F "what is this\r\n\tx-one: 2\r\nTo: x\r\n\r\n", &g, "h", "from:to");
	signatures_differ(F "hello\r\n there\r\nTo: x\r\n\r\n", F "To: x\r\n\r\n", &g, false);
	signatures_differ(F " more\r\nTo: x\r\n\r\n", F "To: x\r\n\r\n", &g, true);
	signatures_differ(" lead\r\n" F "To: x\r\n\r\n", F "To: x\r\n\r\n", &g, false);
	signatures_differ(": nothing\r\n" F "To: x\r\n\r\n", F "To: x\r\n\r\n", &g, false);
	check_tag("X One: 1\r\nX-One : 2\r\n" F "\r\n", &g, "h", "from:x-one");
}

/* ---- chains ---- */

static void test_buffers_make_no_difference(void **state)
{
	static const char text[] = "..dotted: x\r\n"
				   "X-One:\r\n"
				   "From: \"a\r\n b\" <a@b.example>\r\n"
				   "subject : folded\r\n\t and\r\n  folded\r\n"
				   "no field\r\n"
				   "X-ONE: one \r\n \t\r\n"
				   "\r\n"
				   "..\r\n...x  y \r\n\r\n \r\nz\r\n\r\n";
	const size_t len = sizeof(text) - 1;
	char *wanted = malloc(TEXT_MAX);
	char *found = malloc(TEXT_MAX);
	struct dkim_signature all[4];
	struct dkim_policy policy = {all, 4, &world.keys};
	struct chain c;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		all[i] = signature(ED25519);
		all[i].header = (i & 1) != 0 ? DKIM_RELAXED : DKIM_SIMPLE;
		all[i].body = (i & 2) != 0 ? DKIM_RELAXED : DKIM_SIMPLE;
	}
	c = chain_of(text, len, NULL, 0);
	assert_int_equal(sign_chain(&c, &policy, wanted), 4);
	chain_release(&c, &world.buffers);
	for (size_t first = 0; first <= len; first++) {
		for (size_t second = first; second <= len; second++) {
			size_t places[2] = {first, second};

			c = chain_of(text, len, places, 2);
			assert_int_equal(sign_chain(&c, &policy, found), 4);
			assert_string_equal(found, wanted);
			chain_release(&c, &world.buffers);
		}
	}
	free(found);
	free(wanted);
}

static void test_signs_the_text_without_its_stuffed_dots(void **state)
{
	struct dkim_signature g = signature(ED25519);

	(void)state;
	/* sha256 of ".\r\na\r\n" */
	check_tag(F "\r\n..\r\n.a\r\n", &g, "bh", "wjFBrRtcey1eiLLmVZT9v8keeZUgE0JQUC/keQdMlnQ=");
}

/* ---- the form of the field ---- */

/* No line is longer than 78 columns, with tabs of 8. */
static void check_lines(const char *text, bool words_fit)
{
	size_t column = 0;

	assert_int_equal(strncmp(text, "DKIM-Signature: v=1; a=", 23), 0);
	for (const char *c = text; *c != '\0'; c++) {
		column += *c == '\t' ? 8 : 1;
		if (*c == '\r') {
			assert_int_equal(c[1], '\n');
			assert_true(!words_fit || column - 1 <= 78);
			assert_true(column - 1 <= 998);
			assert_true(c[2] == '\t' || c[2] == '\0');
			column = 0;
			c++;
		}
	}
	assert_int_equal(column, 0);
}

static void test_lines_are_folded(void **state)
{
	char *text = malloc(TEXT_MAX);
	char *message = malloc(TEXT_MAX);
	char domain[254];

	(void)state;
	for (unsigned count = 0; count < 200; count++) {
		struct dkim_signature g = signature((count & 1) != 0 ? RSA : ED25519);
		size_t len = (size_t)snprintf(message, TEXT_MAX, F);

		g.expiration_s = (count & 2) != 0 ? 1 : 0;
		for (unsigned i = 0; i < count; i++) {
			len += (size_t)snprintf(message + len, TEXT_MAX - len, "%s: x\r\n",
						names[1 + i % 4]);
		}
		assert_int_equal(sign_text(message, &g, text), 1);
		check_lines(text, true);
	}
	for (size_t len = 1; len < sizeof(domain); len++) {
		struct dkim_signature g = signature(ED25519);

		memset(domain, 'd', len);
		domain[len] = '\0';
		g.domain = domain;
		assert_int_equal(sign_text(F, &g, text), 1);
		check_lines(text, len < 60);
		g.domain = "example.com";
		g.selector = domain;
		assert_int_equal(sign_text(F, &g, text), 1);
		check_lines(text, len < 60);
	}
	free(message);
	free(text);
}

static void test_too_much_is_not_signed(void **state)
{
	struct dkim_signature g = signature(ED25519);
	char *text = malloc(TEXT_MAX);
	char *message = malloc(TEXT_MAX);
	size_t len = (size_t)snprintf(message, TEXT_MAX, F);
	unsigned fields = 1;

	(void)state;
	for (; fields < DKIM_FIELDS_MAX; fields++) {
		len += (size_t)snprintf(message + len, TEXT_MAX - len, "X-Two: %u\r\n", fields);
	}
	assert_int_equal(sign_text(message, &g, text), 1);
	len += (size_t)snprintf(message + len, TEXT_MAX - len, "hello\r\n");
	assert_int_equal(sign_text(message, &g, text), 1);
	snprintf(message + len, TEXT_MAX - len, "X-Two: x\r\n");
	assert_int_equal(sign_text(message, &g, text), -E2BIG);
	/* The names alone are longer than the field may be. */
	len = (size_t)snprintf(message, TEXT_MAX, F);
	for (fields = 1; fields < DKIM_FIELDS_MAX; fields++) {
		len += (size_t)snprintf(message + len, TEXT_MAX - len, "Subject: %u\r\n", fields);
	}
	assert_int_equal(sign_text(message, &g, text), 0);
	assert_string_equal(text, "");
	assert_int_equal(sign_text(F, &g, text), 1);
	free(message);
	free(text);
}

static void test_names_that_are_too_long_are_not_signed(void **state)
{
	struct dkim_signature g = signature(ED25519);
	char name[DKIM_NAME_MAX + 1];
	char text[300];
	const char *const fields[2] = {"from", name};

	(void)state;
	g.fields = fields;
	g.field_count = 2;
	memset(name, 'n', sizeof(name));
	name[DKIM_NAME_MAX] = '\0';
	snprintf(text, sizeof(text), F "%s: x\r\n y\r\nTo: z\r\n", name);
	check_tag(text, &g, "h", "from");
	name[DKIM_NAME_MAX - 1] = '\0';
	snprintf(text, sizeof(text), F "%s: x\r\n y\r\nTo: z\r\n", name);
	check_tag(text, &g, "h",
		  "from:nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_fields),
		cmocka_unit_test(test_the_domain_is_that_of_the_first_author),
		cmocka_unit_test(test_a_domain_is_not_too_long),
		cmocka_unit_test(test_names_each_field_as_often_as_it_is_there),
		cmocka_unit_test(test_signs_what_it_names_and_nothing_else),
		cmocka_unit_test(test_lines_that_are_no_fields),
		cmocka_unit_test(test_buffers_make_no_difference),
		cmocka_unit_test(test_signs_the_text_without_its_stuffed_dots),
		cmocka_unit_test(test_lines_are_folded),
		cmocka_unit_test(test_too_much_is_not_signed),
		cmocka_unit_test(test_names_that_are_too_long_are_not_signed),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
