/*
 * DKIM stanzas of the configuration: which domain is signed with which keys, and what is wrong with
 * them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "tests/unit/config_world.h"
#include "tests/unit/dkim_keys.h"

static int make_keys(void **state)
{
	enter_folder(state);
	write_key("rsa.pem", dkim_rsa_8463);
	write_key("ed25519.pem", dkim_ed25519_8463);
	return 0;
}

static const char *selector_for(const struct config *config, const char *domain)
{
	const struct dkim_policy *policy = config_dkim(config, domain);
	return policy == NULL ? "none" : policy->signatures[0].selector;
}

static const struct dkim_key *key_of(const struct config *config, const char *domain)
{
	const struct dkim_policy *policy = config_dkim(config, domain);
	return dkim_keys_now(policy->keys)[policy->signatures[0].key];
}

static void test_dkim_when_domains_are_nested(void **state)
{
	(void)state;
	struct config *config =
		load_valid("dkim Example.com { selector = a key = rsa.pem }\n"
			   "dkim b.example.com { signature b { key = rsa.pem } signature c { key = "
			   "ed25519.pem } }\n"
			   "domain example.org { }\n");
	assert_int_equal(config_dkim_count(config), 2);
	assert_string_equal(selector_for(config, "example.com"), "a");
	assert_string_equal(selector_for(config, "a.example.com"), "a");
	assert_string_equal(selector_for(config, "z.y.x.example.com"), "a");
	assert_string_equal(selector_for(config, "b.example.com"), "b");
	assert_string_equal(selector_for(config, "x.b.example.com"), "b");
	assert_string_equal(selector_for(config, "xb.example.com"), "a");
	assert_string_equal(selector_for(config, "xexample.com"), "none");
	assert_string_equal(selector_for(config, "example.org"), "none");
	assert_string_equal(selector_for(config, "com"), "none");
	assert_string_equal(selector_for(config, ""), "none");
	assert_string_equal(selector_for(config, "..."), "none");
	const struct dkim_policy *policy = config_dkim(config, "b.example.com");
	assert_int_equal(policy->count, 2);
	assert_string_equal(policy->signatures[1].domain, "b.example.com");
	/* A file is read once. */
	assert_int_equal(policy->signatures[0].key,
			 config_dkim(config, "example.com")->signatures[0].key);
	config_release(config);
	config = load_valid("");
	assert_int_equal(config_dkim_count(config), 0);
	assert_null(config_dkim(config, "example.com"));
	config_release(config);
}

static void check_wrong(const char *text, const char *wanted)
{
	char *errors;
	assert_null(load(text, &errors));
	assert_string_equal(errors, wanted);
	free(errors);
}

static void test_dkim_when_signatures_are_wrong(void **state)
{
	(void)state;
	check_wrong("dkim a.example { selector = s key = ed25519.pem\nsignature t { } }\n",
		    "test.conf:2: scope signature \"t\": no key; expected key = \"/PATH\"\n");
	check_wrong("dkim a.example { selector = s key = ed25519.pem\n"
		    "signature t { key = ed25519.pem }\n"
		    "signature u { key = ed25519.pem selector = t } }\n",
		    "test.conf:3: selector \"t\": comes twice in dkim \"a.example\"; expected one "
		    "for each signature\n");
	check_wrong(
		"dkim a.example { key = ed25519.pem\nselector = \"[1.2.3.4]\" }\n",
		"test.conf:2: option \"selector\": \"[1.2.3.4]\" is an address; expected a name "
		"such as \"s1\"\n");
	check_wrong("dkim a.example { key = ed25519.pem selector = s oversign = ( )\n"
		    "headers = ( to )\nsignature t { key = ed25519.pem } }\n",
		    "test.conf:2: option \"headers\": without \"from\"; expected it there or in "
		    "oversign\n");
	check_wrong("dkim a.example {\nsignature t { key = ed25519.pem oversign = to\n"
		    "headers = ( to ) } }\n",
		    "test.conf:3: option \"headers\": without \"from\"; expected it there or in "
		    "oversign\n");
	check_wrong(
		"dkim a.example { headers = ( \"a:b\" \"\" from ) selector = s key = ed25519.pem }\n",
		"test.conf:1: option \"headers\": \"a:b\" is not the name of a header field; "
		"expected a list of header field names such as ( from subject )\n"
		"test.conf:1: option \"headers\": \"\" is empty or too long; expected a list of "
		"header field names such as ( from subject )\n");
}

/* More files than the first table has room for. */
static void test_dkim_when_keys_are_many(void **state)
{
	enum { KEYS = 100 };
	char *text = calloc(KEYS, 100);
	char name[32];
	size_t len = 0;
	(void)state;
	for (int i = 0; i < KEYS; i++) {
		snprintf(name, sizeof(name), "%d.pem", i);
		write_key(name, dkim_ed25519_8463);
		len += (size_t)sprintf(text + len, "dkim d%d.example { selector = s key = %s }\n",
				       i, name);
	}
	struct config *config = load_valid(text);
	for (int i = 0; i < KEYS; i++) {
		snprintf(name, sizeof(name), "d%d.example", i);
		assert_string_equal(config_dkim(config, name)->signatures[0].domain, name);
		snprintf(name, sizeof(name), "%d.pem", i);
		assert_int_equal(unlink(name), 0);
	}
	assert_ptr_not_equal(key_of(config, "d0.example"), key_of(config, "d1.example"));
	config_release(config);
	free(text);
}

/* ---- renewal ---- */

static struct config *load_two(void)
{
	write_key("one.pem", dkim_rsa_8463);
	write_key("two.pem", dkim_rsa_6376);
	return load_valid("dkim one.example { selector = s key = one.pem }\n"
			  "dkim two.example { selector = s key = two.pem }\n"
			  "dkim three.example { selector = s key = one.pem }\n");
}

static void leave_two(struct config *config)
{
	config_release(config);
	unlink("one.pem");
	unlink("two.pem");
}

static struct dkim_renewal *renew(const struct config *config, uint32_t changed, uint32_t unchanged)
{
	char why[DKIM_WHY];
	struct dkim_renewal *renewal = config_dkim_renew(config, why);
	assert_non_null(renewal);
	assert_int_equal(config_dkim_renewal_changed(renewal), changed);
	assert_int_equal(config_dkim_renewal_unchanged(renewal), unchanged);
	return renewal;
}

static void test_renewal_takes_up_what_has_changed(void **state)
{
	struct config *config = load_two();
	const struct dkim_key *one = key_of(config, "one.example");
	const struct dkim_key *two = key_of(config, "two.example");
	(void)state;
	/* Written anew, with the same key. */
	write_key("one.pem", dkim_rsa_8463);
	config_dkim_renewal_free(renew(config, 0, 2));
	assert_ptr_equal(key_of(config, "one.example"), one);
	write_key("one.pem", dkim_ed25519_8463);
	struct dkim_renewal *renewal = renew(config, 1, 1);
	assert_ptr_equal(key_of(config, "one.example"), one);
	config_dkim_publish(renewal);
	assert_ptr_not_equal(key_of(config, "one.example"), one);
	assert_ptr_equal(key_of(config, "three.example"), key_of(config, "one.example"));
	assert_ptr_equal(key_of(config, "two.example"), two);
	assert_int_equal(dkim_key_algorithm(key_of(config, "one.example")), DKIM_ED25519_SHA256);
	/* Still there. */
	assert_int_equal(dkim_key_bits(one), 1024);
	config_dkim_renewal_free(renewal);
	assert_int_equal(dkim_key_bits(two), 1024);
	/* And back. */
	write_key("one.pem", dkim_rsa_8463);
	renewal = renew(config, 1, 1);
	config_dkim_publish(renewal);
	config_dkim_renewal_free(renewal);
	assert_int_equal(dkim_key_algorithm(key_of(config, "three.example")), DKIM_RSA_SHA256);
	leave_two(config);
}

static void check_no_renewal(const struct config *config, const char *wanted)
{
	char why[DKIM_WHY];
	const struct dkim_key *one = key_of(config, "one.example");
	const struct dkim_key *two = key_of(config, "two.example");
	assert_null(config_dkim_renew(config, why));
	assert_string_equal(why, wanted);
	assert_ptr_equal(key_of(config, "one.example"), one);
	assert_ptr_equal(key_of(config, "two.example"), two);
}

static void test_renewal_changes_nothing_when_a_file_is_broken(void **state)
{
	struct config *config = load_two();
	(void)state;
	write_key("one.pem", dkim_ed25519_8463);
	write_key("two.pem", "rubbish\n");
	check_no_renewal(config, "\"two.pem\": has no private key in PEM");
	assert_int_equal(unlink("two.pem"), 0);
	check_no_renewal(config, "\"two.pem\": No such file or directory");
	assert_int_equal(unlink("one.pem"), 0);
	check_no_renewal(config, "\"one.pem\": No such file or directory (and 1 more)");
	/* And then again. */
	write_key("one.pem", dkim_rsa_8463);
	write_key("two.pem", dkim_ed25519_8463);
	config_dkim_renewal_free(renew(config, 1, 1));
	leave_two(config);
}

/* Two at a time would free each other's keys. */
static void test_renewal_is_alone(void **state)
{
	struct config *config = load_two();
	struct dkim_renewal *renewal = renew(config, 0, 2);
	(void)state;
	check_no_renewal(config, "keys are being read already");
	config_dkim_renewal_free(renewal);
	config_dkim_renewal_free(renew(config, 0, 2));
	leave_two(config);
	config = load_valid("");
	config_dkim_renewal_free(renew(config, 0, 0));
	config_release(config);
}

static void test_warnings_when_keys_are_poor(void **state)
{
	char *errors;
	(void)state;
	assert_int_equal(chmod("ed25519.pem", 0644), 0);
	struct config *config = load("esmtp_listener { listen 127.0.0.1:25 { } }\n"
				     "dkim a.example { selector = s key = rsa.pem }\n"
				     "dkim b.example { selector = s\n key = ed25519.pem }\n",
				     &errors);
	assert_int_equal(chmod("ed25519.pem", 0640), 0);
	assert_non_null(config);
	assert_string_equal(errors,
			    "test.conf:2: warning: option \"key\": \"rsa.pem\" has an RSA key of "
			    "1024 bits; expected 2048 or more\n"
			    "test.conf:4: warning: option \"key\": \"ed25519.pem\" can be read by "
			    "anybody on this machine; expected a mode such as 0640\n");
	config_release(config);
	free(errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dkim_when_domains_are_nested),
		cmocka_unit_test(test_dkim_when_signatures_are_wrong),
		cmocka_unit_test(test_dkim_when_keys_are_many),
		cmocka_unit_test(test_renewal_takes_up_what_has_changed),
		cmocka_unit_test(test_renewal_changes_nothing_when_a_file_is_broken),
		cmocka_unit_test(test_renewal_is_alone),
		cmocka_unit_test(test_warnings_when_keys_are_poor),
	};
	return cmocka_run_group_tests(tests, make_keys, leave_folder);
}
