#include "core/outbound/parameters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/mail/dsn_parameter.h"
#include "core/mail/smtp_reply.h"

#define ALL UINT32_MAX

static struct envelope *make(uint16_t flags, const char *envid, uint16_t notify, const char *orcpt)
{
	struct envelope_builder b;
	struct envelope *e;

	envelope_builder_init(&b);
	envelope_set_sender(&b, "me@a.example", 12);
	b.flags = flags;
	if (envid != NULL) {
		envelope_set_envid(&b, envid, strlen(envid));
	}
	envelope_add_recipient(&b, "to@b.example", 12);
	envelope_set_notify(&b, notify, orcpt, orcpt != NULL ? strlen(orcpt) : 0);
	e = malloc(envelope_size(&b));
	assert_non_null(e);
	envelope_build(&b, e);
	e->body_bytes = 1234;
	assert_int_equal(envelope_check(e, e->size), 0);
	envelope_builder_close(&b);
	return e;
}

static void expect(struct envelope *e, uint32_t extensions, const char *mail, const char *rcpt)
{
	char text[PARAMETERS_MAX];

	parameters_mail(e, extensions, text);
	assert_string_equal(text, mail);
	parameters_rcpt(e, 0, extensions, text);
	assert_string_equal(text, rcpt);
}

static void test_what_the_peer_offers(void **state)
{
	struct envelope *e = make(ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8 | ENVELOPE_RET_HDRS, "e+2B",
				  ENVELOPE_NOTIFY_SUCCESS, "rfc822;x@y");

	(void)state;
	expect(e, ALL, " SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2B",
	       " NOTIFY=SUCCESS ORCPT=rfc822;x@y");
	expect(e, 0, "", "");
	expect(e, SMTP_EXTENSION_SIZE, " SIZE=1234", "");
	expect(e, SMTP_EXTENSION_8BITMIME, " BODY=8BITMIME", "");
	expect(e, SMTP_EXTENSION_SMTPUTF8, " SMTPUTF8", "");
	expect(e, SMTP_EXTENSION_DSN, " RET=HDRS ENVID=e+2B", " NOTIFY=SUCCESS ORCPT=rfc822;x@y");
	expect(e, ALL & ~(uint32_t)SMTP_EXTENSION_DSN, " SIZE=1234 BODY=8BITMIME SMTPUTF8", "");
	free(e);
}

static void test_requiretls_is_handed_on(void **state)
{
	struct envelope *e = make(ENVELOPE_REQUIRETLS, NULL, 0, NULL);

	(void)state;
	expect(e, SMTP_EXTENSION_REQUIRETLS, " REQUIRETLS", "");
	expect(e, 0, "", "");
	free(e);
	e = make(0, NULL, 0, NULL);
	expect(e, SMTP_EXTENSION_REQUIRETLS, "", "");
	free(e);
}

static void test_what_the_message_has(void **state)
{
	struct envelope *e = make(0, NULL, 0, NULL);

	(void)state;
	expect(e, ALL, " SIZE=1234", "");
	free(e);
	e = make(ENVELOPE_RET_FULL, NULL, ENVELOPE_NOTIFY_NEVER, NULL);
	expect(e, ALL, " SIZE=1234 RET=FULL", " NOTIFY=NEVER");
	free(e);
	e = make(0, "x", ENVELOPE_NOTIFY & ~ENVELOPE_NOTIFY_NEVER, NULL);
	expect(e, ALL, " SIZE=1234 ENVID=x", " NOTIFY=SUCCESS,FAILURE,DELAY");
	free(e);
}

static void test_the_longest(void **state)
{
	char envid[DSN_ENVID_MAX + 1];
	char orcpt[DSN_ORCPT_MAX + 1];
	char text[PARAMETERS_MAX];
	struct envelope *e;

	(void)state;
	memset(envid, 'e', DSN_ENVID_MAX);
	envid[DSN_ENVID_MAX] = '\0';
	memset(orcpt, 'o', DSN_ORCPT_MAX);
	orcpt[DSN_ORCPT_MAX] = '\0';
	orcpt[6] = ';';
	e = make(ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8 | ENVELOPE_RET_FULL, envid,
		 ENVELOPE_NOTIFY & ~ENVELOPE_NOTIFY_NEVER, orcpt);
	e->body_bytes = UINT64_MAX;
	parameters_mail(e, ALL, text);
	assert_non_null(strstr(text, envid));
	parameters_rcpt(e, 0, ALL, text);
	assert_non_null(strstr(text, orcpt));
	free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_the_peer_offers),
		cmocka_unit_test(test_requiretls_is_handed_on),
		cmocka_unit_test(test_what_the_message_has),
		cmocka_unit_test(test_the_longest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
