/*
 * Keys: what files are refused, what is published, and the signatures of RFC 6376 appendix A and
 * RFC 8463 appendix A.
 */
#include "core/mail/dkim_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mail/dkim_canon.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/seed_watch.h"

static struct dkim_key *parse(const char *pem)
{
	const char *problem = NULL;
	struct dkim_key *key = dkim_key_parse(pem, strlen(pem), &problem);

	assert_null(problem);
	assert_non_null(key);
	return key;
}

static const char example[] = "Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n";

/* The header of both examples, in the order of RFC 6376's; that one has a Received field more. */
static const char *const fields[] = {
	"Received: from client1.football.example.com  [192.0.2.1]\r\n"
	"      by submitserver.example.com with SUBMISSION;\r\n"
	"      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n",
	"From: Joe SixPack <joe@football.example.com>\r\n",
	"To: Suzie Q <suzie@shopping.example.net>\r\n",
	"Subject: Is dinner ready?\r\n",
	"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n",
	"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n",
};

static void take(void *context, const void *data, size_t len)
{
	assert_int_equal(EVP_DigestUpdate(context, data, len), 1);
}

struct digest {
	EVP_MD_CTX *context;
	struct dkim_sink sink;
};

static void begin(struct digest *d)
{
	d->context = EVP_MD_CTX_new();
	assert_int_equal(EVP_DigestInit_ex(d->context, EVP_sha256(), NULL), 1);
	dkim_sink_init(&d->sink, take, d->context);
}

static void end(struct digest *d, unsigned char digest[DKIM_DIGEST_BYTES])
{
	dkim_sink_flush(&d->sink);
	assert_int_equal(EVP_DigestFinal_ex(d->context, digest, NULL), 1);
	EVP_MD_CTX_free(d->context);
}

static void add(struct digest *d, enum dkim_canon canon, const char *field, bool bare)
{
	struct dkim_header h;

	dkim_header_init(&h, canon, &d->sink);
	dkim_header_add(&h, field, strlen(field));
	if (bare) {
		dkim_header_end_bare(&h);
	} else {
		dkim_header_end(&h);
	}
}

static void check_signature(struct dkim_keyring *ring, const char *pem, struct digest *d,
			    const char *wanted)
{
	struct dkim_key *key = parse(pem);
	unsigned char digest[DKIM_DIGEST_BYTES];
	unsigned char signature[DKIM_SIGNATURE_MAX];
	char text[DKIM_SIGNATURE_MAX * 2];

	end(d, digest);
	/* And once more, with what is ready now. */
	for (unsigned i = 0; i < 3; i++) {
		int len = dkim_keyring_sign(ring, key, digest, signature);

		assert_true(len > 0);
		EVP_EncodeBlock((unsigned char *)text, signature, len);
		assert_string_equal(text, wanted);
	}
	dkim_key_free(key);
}

static void test_body_hash_of_the_examples(void **state)
{
	unsigned char digest[DKIM_DIGEST_BYTES];
	char text[64];

	(void)state;
	for (int canon = 0; canon < DKIM_CANONS; canon++) {
		struct digest d;
		struct dkim_body b;

		begin(&d);
		dkim_body_init(&b, (enum dkim_canon)canon, &d.sink);
		dkim_body_add(&b, example, sizeof(example) - 1);
		dkim_body_end(&b);
		end(&d, digest);
		EVP_EncodeBlock((unsigned char *)text, digest, sizeof(digest));
		assert_string_equal(text, "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");
	}
}

/* Appendix A.2. */
static void test_signature_of_rfc_6376(void **state)
{
	struct dkim_keyring *ring = dkim_keyring_create();
	struct digest d;

	(void)state;
	begin(&d);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		add(&d, DKIM_SIMPLE, fields[i], false);
	}
	add(&d, DKIM_SIMPLE,
	    "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n"
	    "      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n"
	    "      h=Received : From : To : Subject : Date : Message-ID;\r\n"
	    "      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
	    "      b=;",
	    true);
	check_signature(ring, dkim_rsa_6376, &d,
			"AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB4nujc7YopdG5"
			"dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHutKVdkLLkpVaVVQPzeRDI009SO"
			"2Il5Lu7rDNH6mZckBdrIx0orEtZV4bmp/YzhwvcubU4=");
	dkim_keyring_destroy(ring);
}

static void check_8463(struct dkim_keyring *ring, const char *pem, const char *field,
		       const char *wanted)
{
	struct digest d;

	begin(&d);
	add(&d, DKIM_RELAXED, fields[1], false);
	add(&d, DKIM_RELAXED, fields[2], false);
	add(&d, DKIM_RELAXED, fields[3], false);
	add(&d, DKIM_RELAXED, fields[4], false);
	add(&d, DKIM_RELAXED, fields[5], false);
	/* from, subject and date are named once more than they are there. */
	add(&d, DKIM_RELAXED, field, true);
	check_signature(ring, pem, &d, wanted);
}

/* Appendix A.3: two signatures of one message. */
static void test_signatures_of_rfc_8463(void **state)
{
	struct dkim_keyring *ring = dkim_keyring_create();

	(void)state;
	check_8463(ring, dkim_ed25519_8463,
		   "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
		   " d=football.example.com; i=@football.example.com;\r\n"
		   " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
		   " subject : date : message-id : from : subject : date;\r\n"
		   " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
		   " b=",
		   "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus"
		   "Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==");
	check_8463(ring, dkim_rsa_8463,
		   "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
		   " d=football.example.com; i=@football.example.com;\r\n"
		   " q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
		   " date : message-id : from : subject : date;\r\n"
		   " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
		   " b=",
		   "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3"
		   "DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz"
		   "dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=");
	dkim_keyring_destroy(ring);
}

static void test_records_are_those_of_the_examples(void **state)
{
	char text[DKIM_RECORD_MAX];
	struct dkim_key *key = parse(dkim_rsa_8463);
	size_t len = dkim_key_record(key, text);

	(void)state;
	assert_int_equal(dkim_key_algorithm(key), DKIM_RSA_SHA256);
	assert_int_equal(dkim_key_bits(key), 1024);
	assert_int_equal(len, strlen(text));
	assert_string_equal(text,
			    "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTz"
			    "WRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91"
			    "y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZy"
			    "VYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB");
	dkim_key_free(key);
	key = parse(dkim_ed25519_8463);
	assert_int_equal(dkim_key_algorithm(key), DKIM_ED25519_SHA256);
	len = dkim_key_record(key, text);
	assert_int_equal(len, strlen(text));
	assert_string_equal(text,
			    "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
	dkim_key_free(key);
}

/* A key of OpenSSL's as PEM, encrypted if there is a passphrase. */
static char *make_pem(EVP_PKEY *pkey, const char *passphrase)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;
	char *text;
	long len;

	assert_non_null(pkey);
	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(
				 bio, pkey, passphrase != NULL ? EVP_aes_128_cbc() : NULL,
				 passphrase, passphrase != NULL ? (int)strlen(passphrase) : 0, NULL,
				 NULL),
			 1);
	len = BIO_get_mem_data(bio, &data);
	text = strndup(data, (size_t)len);
	BIO_free(bio);
	EVP_PKEY_free(pkey);
	return text;
}

static void check_refused(char *pem, const char *wanted)
{
	const char *problem = NULL;

	assert_null(dkim_key_parse(pem, strlen(pem), &problem));
	assert_string_equal(problem, wanted);
	free(pem);
}

static void test_refuses_what_is_no_good_key(void **state)
{
	(void)state;
	check_refused(make_pem(EVP_RSA_gen(1016), NULL), "has an RSA key of less than 1024 bits");
	check_refused(make_pem(EVP_EC_gen("P-256"), NULL), "has neither an RSA nor an Ed25519 key");
	check_refused(make_pem(EVP_EC_gen("P-256"), "secret"), "has a key with a passphrase");
	check_refused(strdup("hello\n"), "has no private key in PEM");
	check_refused(strdup(""), "has no private key in PEM");
	check_refused(strdup("-----BEGIN PUBLIC KEY-----\n"
			     "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
			     "-----END PUBLIC KEY-----\n"),
		      "has no private key in PEM");
}

static void check_not_loaded(const char *path, const char *wanted)
{
	const char *problem = NULL;

	assert_null(dkim_key_load(path, &problem));
	assert_string_equal(problem, wanted);
}

static void test_loads_files(void **state)
{
	char folder[] = "/tmp/test_dkim_key-XXXXXX";
	char path[64];
	const char *problem = NULL;
	struct dkim_key *key;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/key", folder);
	check_not_loaded(path, "No such file or directory");
	check_not_loaded(folder, "Is a directory");
	check_not_loaded("/dev/zero", "No such device");
	assert_int_equal(mkfifo(path, 0600), 0);
	check_not_loaded(path, "No such device");
	assert_int_equal(unlink(path), 0);
	file = fopen(path, "w");
	fputs(dkim_ed25519_8463, file);
	fclose(file);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(chmod(path, i == 0 ? 0640 : 0644), 0);
		key = dkim_key_load(path, &problem);
		assert_non_null(key);
		assert_int_equal(dkim_key_is_exposed(key), i == 1);
		dkim_key_free(key);
	}
	assert_int_equal(truncate(path, 65535), 0);
	key = dkim_key_load(path, &problem);
	assert_non_null(key);
	dkim_key_free(key);
	assert_int_equal(truncate(path, 65536), 0);
	check_not_loaded(path, "File too large");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(folder), 0);
}

/* More than it has slots for, and freed before it is. */
static void test_a_keyring_knows_many_keys(void **state)
{
	enum { KEYS = 200 };
	struct dkim_keyring *ring = dkim_keyring_create();
	struct dkim_key *keys[KEYS];
	unsigned char digest[DKIM_DIGEST_BYTES] = {1};
	unsigned char signature[DKIM_SIGNATURE_MAX];
	unsigned char first[2][DKIM_SIGNATURE_MAX];

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < KEYS; i++) {
			keys[i] = parse(i % 2 == 0 ? dkim_ed25519_8463 : dkim_rsa_8463);
		}
		for (unsigned i = 0; i < KEYS; i++) {
			int len = dkim_keyring_sign(ring, keys[i], digest, signature);

			assert_int_equal(len, i % 2 == 0 ? 64 : 128);
			if (round == 0 && i < 2) {
				memcpy(first[i], signature, (size_t)len);
			}
			assert_memory_equal(signature, first[i % 2], (size_t)len);
		}
		for (unsigned i = 0; i < KEYS; i++) {
			dkim_key_free(keys[i]);
		}
	}
	dkim_keyring_destroy(ring);
}

static void test_files_are_told_apart(void **state)
{
	static const char *const texts[] = {dkim_rsa_8463, dkim_rsa_6376, dkim_ed25519_8463};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned j = 0; j < 3; j++) {
			struct dkim_key *one = parse(texts[i]);
			struct dkim_key *other = parse(texts[j]);

			assert_int_equal(dkim_key_same_file(one, other), i == j);
			dkim_key_free(one);
			dkim_key_free(other);
		}
	}
}

/* ---- what is left in memory ---- */

/* But for what OpenSSL 3.0 leaves behind when it reads a key. */
static void test_a_private_key_is_wiped_when_nobody_has_it(void **state)
{
	unsigned char digest[DKIM_DIGEST_BYTES] = {1};
	unsigned char signature[DKIM_SIGNATURE_MAX];
	struct dkim_keyring *ring = dkim_keyring_create();
	struct dkim_key *key = parse(dkim_ed25519_8463);

	(void)state;
	freed_with_seed = 0;
	assert_int_equal(count_with_seed(), 1);
	assert_int_equal(dkim_keyring_sign(ring, key, digest, signature), 64);
	dkim_key_free(key);
	assert_int_equal(count_with_seed(), 2);
	dkim_keyring_clear(ring);
	assert_int_equal(count_with_seed(), 0);
	assert_int_equal(freed_with_seed, 0);
	key = parse(dkim_ed25519_8463);
	assert_int_equal(dkim_keyring_sign(ring, key, digest, signature), 64);
	dkim_key_free(key);
	dkim_keyring_destroy(ring);
	assert_int_equal(count_with_seed(), 0);
}

int main(void)
{
	watch_seed();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_body_hash_of_the_examples),
		cmocka_unit_test(test_signature_of_rfc_6376),
		cmocka_unit_test(test_signatures_of_rfc_8463),
		cmocka_unit_test(test_records_are_those_of_the_examples),
		cmocka_unit_test(test_refuses_what_is_no_good_key),
		cmocka_unit_test(test_loads_files),
		cmocka_unit_test(test_a_keyring_knows_many_keys),
		cmocka_unit_test(test_a_private_key_is_wiped_when_nobody_has_it),
		cmocka_unit_test(test_files_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
