/* Contexts and what they agree on: certificates by name, clients' certificates, DANE (RFC 7672),
 * what is refused, and the cache of sessions. Both ends are in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/x509.h>

#include "core/runtime/tls_sessions.h"
#include "tests/unit/tls_world.h"

/* Two ends, joined by memory. */
struct pair {
	SSL *client;
	SSL *server;
	bool client_done;
	bool server_done;
	char why[TLS_WHY];
};

static void join(SSL *a, SSL *b)
{
	BIO *there;
	BIO *back;

	assert_int_equal(BIO_new_bio_pair(&there, 65536, &back, 65536), 1);
	SSL_set_bio(a, there, there);
	SSL_set_bio(b, back, back);
}

static bool step(SSL *ssl, bool *done, char why[TLS_WHY])
{
	int n;

	if (*done) {
		return true;
	}
	ERR_clear_error();
	n = SSL_do_handshake(ssl);
	*done = n == 1;
	if (n != 1 && SSL_get_error(ssl, n) != SSL_ERROR_WANT_READ) {
		tls_explain(ssl, why);
		return false;
	}
	return true;
}

/* A handshake between what was prepared; pair.why is "" when it succeeded. */
static void shake(struct pair *p)
{
	join(p->client, p->server);
	p->why[0] = '\0';
	for (int i = 0; i < 10 && !(p->client_done && p->server_done); i++) {
		if (!step(p->client, &p->client_done, p->why) ||
		    !step(p->server, &p->server_done, p->why)) {
			return;
		}
	}
	assert_true(p->client_done && p->server_done);
}

static struct pair meet(const struct tls_wish *wish, const struct tls_context *server)
{
	const struct tls_wish answer = {.context = server};
	struct pair p = {0};

	p.client = tls_open(wish, p.why);
	if (p.client == NULL) {
		return p;
	}
	p.server = tls_open(&answer, p.why);
	assert_non_null(p.server);
	shake(&p);
	return p;
}

static void part(struct pair *p)
{
	SSL_free(p->client);
	SSL_free(p->server);
}

static void common_name(const SSL *ssl, char text[64])
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);

	assert_non_null(certificate);
	X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text, 64);
}

/* ---- servers ---- */

static void expect_failure(const struct tls_server_options *o, const char *text)
{
	char why[TLS_WHY];

	assert_null(tls_server_create(o, why));
	if (strstr(why, text) == NULL) {
		fail_msg("expected \"%s\", got \"%s\"", text, why);
	}
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_server_when_files_are_wrong(void **state)
{
	struct tls_server_options o = {.pair = {.certificate = "/nowhere.pem"}};

	(void)state;
	expect_failure(&o, "certificate \"/nowhere.pem\": No such file");
	o.pair.certificate = tls_file("rubbish.pem");
	expect_failure(&o, "rubbish.pem\": no start line");
	o.pair = (struct tls_pair){NULL, tls_file("mx.pem"), tls_file("rubbish.pem")};
	expect_failure(&o, "key \"");
	o.pair.key = tls_file("locked.pem");
	expect_failure(&o, "key \"");
	o.pair.key = NULL;
	expect_failure(&o, "mx.pem\"");
	o.pair.certificate = tls_file("both.pem");
	o.ciphers = "NO-SUCH-CIPHER";
	expect_failure(&o, "ciphers \"NO-SUCH-CIPHER\": no cipher match");
	o.ciphers = NULL;
	o.protocols = "SSLv3";
	expect_failure(&o, "protocols \"SSLv3\": only TLSv1.2 and TLSv1.3 are known");
	o.protocols = NULL;
	o.client_ca = "/nowhere.pem";
	expect_failure(&o, "roots of clients \"/nowhere.pem\"");
}

static void test_server_with_key_in_its_file(void **state)
{
	const struct tls_server_options o = {.pair = {.certificate = tls_file("both.pem")}};
	char why[TLS_WHY];
	struct tls_context *server = tls_server_create(&o, why);

	(void)state;
	assert_non_null(server);
	tls_context_free(server);
	tls_context_free(NULL);
}

static void test_server_protocols_and_ciphers(void **state)
{
	static const struct {
		const char *protocols;
		const char *ciphers;
		const char *version;
		const char *cipher;
	} cases[] = {
		{NULL, NULL, "TLSv1.3", "TLS_AES_256_GCM_SHA384"},
		{"TLSv1.2:TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3",
		 "TLS_CHACHA20_POLY1305_SHA256"},
		{"TLSv1.2", NULL, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"},
		{"TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256", "TLSv1.2",
		 "ECDHE-ECDSA-AES128-GCM-SHA256"},
		{"TLSv1.3", NULL, "TLSv1.3", "TLS_AES_256_GCM_SHA384"},
	};
	struct tls_context *client = tls_test_client();
	const struct tls_wish wish = {.context = client};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct tls_server_options o = {
			.pair = {.certificate = tls_file("both.pem")},
			.protocols = cases[i].protocols,
			.ciphers = cases[i].ciphers,
		};
		char why[TLS_WHY];
		struct tls_context *server = tls_server_create(&o, why);
		struct pair p;

		assert_non_null(server);
		p = meet(&wish, server);
		assert_string_equal(p.why, "");
		assert_string_equal(tls_agreed(p.client).version, cases[i].version);
		assert_string_equal(tls_agreed(p.server).cipher, cases[i].cipher);
		part(&p);
		tls_context_free(server);
	}
	tls_context_free(client);
}

static void test_server_chooses_by_name(void **state)
{
	static const struct {
		const char *asked;
		const char *given;
	} cases[] = {
		{NULL, "mx.test"},
		{"nobody.test", "mx.test"},
		{"other.test", "other.test"},
		{"OTHER.test", "other.test"},
		{"a.wild.test", "root.test"},
		{"wild.test", "mx.test"},
		{"a.b.wild.test", "mx.test"},
		{"127.0.0.1", "mx.test"},
	};
	const struct tls_pair named[] = {
		{"other.test", tls_file("other.pem"), tls_file("key.pem")},
		{"*.wild.test", tls_file("ca.pem"), tls_file("key.pem")},
	};
	const struct tls_server_options o = {
		.pair = {.certificate = tls_file("both.pem")}, .named = named, .named_count = 2};
	char why[TLS_WHY];
	struct tls_context *server = tls_server_create(&o, why);
	struct tls_context *client = tls_test_client();

	(void)state;
	assert_non_null(server);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct tls_wish wish = {.context = client, .name = cases[i].asked};
		struct pair p = meet(&wish, server);
		char name[64];

		assert_string_equal(p.why, "");
		common_name(p.client, name);
		assert_string_equal(name, cases[i].given);
		part(&p);
	}
	tls_context_free(server);
	tls_context_free(client);
}

/* ---- certificates of clients ---- */

static void give_certificate(SSL *ssl, const char *certificate)
{
	assert_int_equal(SSL_use_certificate_file(ssl, tls_file(certificate), SSL_FILETYPE_PEM), 1);
	assert_int_equal(SSL_use_PrivateKey_file(ssl, tls_file("key.pem"), SSL_FILETYPE_PEM), 1);
}

static void show(enum tls_client_certificate mode, const char *certificate,
		 const char *verification, bool works)
{
	const struct tls_server_options o = {.pair = {.certificate = tls_file("both.pem")},
					     .client_ca = tls_file("ca.pem"),
					     .client_certificate = mode};
	char why[TLS_WHY];
	struct tls_context *server = tls_server_create(&o, why);
	struct tls_context *client = tls_test_client();
	const struct tls_wish wish = {.context = client};
	const struct tls_wish answer = {.context = server};
	struct pair p = {.client = tls_open(&wish, why), .server = tls_open(&answer, why)};

	if (certificate != NULL) {
		give_certificate(p.client, certificate);
	}
	shake(&p);
	assert_int_equal(p.why[0] == '\0', works);
	if (works) {
		assert_string_equal(tls_agreed(p.server).verification, verification);
		assert_int_equal(tls_agreed(p.server).verified, strcmp(verification, "pkix") == 0);
	}
	part(&p);
	tls_context_free(server);
	tls_context_free(client);
}

static void test_clients_certificates(void **state)
{
	(void)state;
	show(TLS_CLIENT_OPTIONAL, NULL, "none", true);
	show(TLS_CLIENT_OPTIONAL, "mx.pem", "pkix", true);
	show(TLS_CLIENT_OPTIONAL, "self.pem", "untrusted", true);
	show(TLS_CLIENT_OPTIONAL, "expired.pem", "untrusted", true);
	show(TLS_CLIENT_NONE, "mx.pem", "none", true);
	show(TLS_CLIENT_REQUIRED, "mx.pem", "pkix", true);
	show(TLS_CLIENT_REQUIRED, NULL, NULL, false);
	show(TLS_CLIENT_REQUIRED, "self.pem", NULL, false);
	show(TLS_CLIENT_REQUIRED, "expired.pem", NULL, false);
}

/* ---- DANE ---- */

/* The data of a TLSA record for a certificate: its whole or its key, as it is or hashed. */
static uint16_t tlsa_data(const char *certificate, uint8_t selector, uint8_t matching,
			  unsigned char *data, size_t size)
{
	const EVP_MD *hash = matching == 1 ? EVP_sha256() : matching == 2 ? EVP_sha512() : NULL;
	BIO *file = BIO_new_file(tls_file(certificate), "r");
	X509 *x = PEM_read_bio_X509(file, NULL, NULL, NULL);
	unsigned char *der = NULL;
	unsigned int hashed = 0;
	int len;

	assert_non_null(x);
	len = selector == 0 ? i2d_X509(x, &der) : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
	assert_true(len > 0 && (size_t)len <= size);
	memcpy(data, der, (size_t)len);
	if (hash != NULL) {
		assert_int_equal(EVP_Digest(der, (size_t)len, data, &hashed, hash, NULL), 1);
	}
	OPENSSL_free(der);
	X509_free(x);
	BIO_free(file);
	return hash != NULL ? (uint16_t)hashed : (uint16_t)len;
}

struct dane_case {
	const char *server;
	/* What the records say, and of which certificate. */
	uint8_t usage;
	uint8_t selector;
	uint8_t matching;
	const char *certificate;
	const char *name;
	/* NULL: it works. */
	const char *why;
};

static const struct dane_case dane_cases[] = {
	/* The server's own certificate or key: no name, no date, no root counts. */
	{"mx.pem", 3, 1, 1, "mx.pem", "mx.test", NULL},
	{"mx.pem", 3, 0, 1, "mx.pem", "mx.test", NULL},
	{"mx.pem", 3, 1, 2, "mx.pem", "mx.test", NULL},
	{"mx.pem", 3, 0, 0, "mx.pem", "mx.test", NULL},
	{"self.pem", 3, 1, 1, "self.pem", "mx.test", NULL},
	{"expired.pem", 3, 1, 1, "expired.pem", "mx.test", NULL},
	{"other.pem", 3, 1, 1, "other.pem", "mx.test", NULL},
	{"mx.pem", 3, 0, 1, "other.pem", "mx.test", "certificate verify failed"},
	{"self.pem", 3, 0, 1, "mx.pem", "mx.test", "certificate verify failed"},
	/* Who signed it: then name and dates count. The chain has the root. */
	{"chain.pem", 2, 0, 1, "ca.pem", "mx.test", NULL},
	{"chain.pem", 2, 1, 2, "ca.pem", "mx.test", NULL},
	{"chain.pem", 2, 0, 1, "ca.pem", "else.test", "hostname mismatch"},
	{"oldchain.pem", 2, 0, 1, "ca.pem", "mx.test", "certificate has expired"},
	{"chain.pem", 2, 0, 1, "self.pem", "mx.test", "certificate verify failed"},
	/* The client's own roots do not count. */
	{"mx.pem", 2, 0, 1, "other.pem", "mx.test", "certificate verify failed"},
	/* Of no use for mail, or of no use at all. */
	{"mx.pem", 0, 0, 1, "ca.pem", "mx.test", "no TLSA record is usable"},
	{"mx.pem", 1, 1, 1, "mx.pem", "mx.test", "no TLSA record is usable"},
	{"mx.pem", 3, 1, 9, "mx.pem", "mx.test", "no TLSA record is usable"},
	{"mx.pem", 3, 7, 1, "mx.pem", "mx.test", "no TLSA record is usable"},
};

static void try_dane(const struct dane_case *c, bool with_useless)
{
	unsigned char data[4096];
	uint16_t len = tlsa_data(c->certificate, c->selector & 1, c->matching > 2 ? 0 : c->matching,
				 data, sizeof data);
	const struct tls_tlsa records[] = {
		{c->usage, c->selector, c->matching, data, len},
		{1, 1, 1, data, 32},
		/* The length says that it is no SHA-256. */
		{3, 1, 1, data, 5},
	};
	struct tls_context *server = tls_test_server(c->server);
	struct tls_context *client = tls_test_client();
	const struct tls_wish wish = {.context = client,
				      .name = c->name,
				      .verify = TLS_VERIFY_DANE,
				      .tlsa = records,
				      .tlsa_count = with_useless ? 3 : 1};
	struct pair p = meet(&wish, server);

	if (c->why == NULL) {
		assert_string_equal(p.why, "");
		assert_string_equal(tls_agreed(p.client).verification, "dane");
		assert_true(tls_agreed(p.client).verified);
	} else if (strstr(p.why, c->why) == NULL) {
		fail_msg("%s %u: expected \"%s\", got \"%s\"", c->server, c->usage, c->why, p.why);
	}
	part(&p);
	tls_context_free(server);
	tls_context_free(client);
}

static void test_dane(void **state)
{
	char command[sizeof tls_folder + 200];

	(void)state;
	snprintf(command, sizeof command,
		 "cd %s && cat mx.pem ca.pem >chain.pem && cat expired.pem ca.pem >oldchain.pem",
		 tls_folder);
	assert_int_equal(system(command), 0);
	for (size_t i = 0; i < sizeof dane_cases / sizeof dane_cases[0]; i++) {
		try_dane(&dane_cases[i], false);
		try_dane(&dane_cases[i], true);
	}
}

/* A further name will do as well (RFC 7672 section 3.2.2). */
static void test_dane_with_other_names(void **state)
{
	static const char *const names[] = {"next.test", "mx.test"};
	unsigned char data[4096];
	const struct tls_tlsa record = {2, 0, 1, data,
					tlsa_data("ca.pem", 0, 1, data, sizeof data)};
	struct tls_context *server = tls_test_server("chain.pem");
	struct tls_context *client = tls_test_client();

	(void)state;
	for (uint32_t count = 1; count <= 2; count++) {
		const struct tls_wish wish = {.context = client,
					      .name = "else.test",
					      .verify = TLS_VERIFY_DANE,
					      .tlsa = &record,
					      .tlsa_count = 1,
					      .other_names = names,
					      .other_name_count = count};
		struct pair p = meet(&wish, server);

		assert_int_equal(p.why[0] == '\0', count == 2);
		part(&p);
	}
	tls_context_free(server);
	tls_context_free(client);
}

/* The session goes on, and what was found out is said. */
static void test_verification_that_is_only_tried(void **state)
{
	static const struct {
		const char *server;
		enum tls_fault fault;
	} cases[] = {
		{"mx.pem", TLS_FAULT_NONE},
		{"other.pem", TLS_FAULT_HOST_MISMATCH},
		{"expired.pem", TLS_FAULT_EXPIRED},
		{"self.pem", TLS_FAULT_NOT_TRUSTED},
	};
	struct tls_context *client = tls_test_client();

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct tls_wish wish = {
			.context = client, .name = "mx.test", .verify = TLS_VERIFY_TRY};
		struct tls_context *server = tls_test_server(cases[i].server);
		struct pair p = meet(&wish, server);

		assert_string_equal(p.why, "");
		assert_int_equal(tls_agreed(p.client).fault, cases[i].fault);
		assert_int_equal(tls_agreed(p.client).verified, cases[i].fault == TLS_FAULT_NONE);
		part(&p);
		tls_context_free(server);
	}
	tls_context_free(client);
}

/* ---- sessions ---- */

static SSL_SESSION *session_of(int version)
{
	SSL_SESSION *session = SSL_SESSION_new();

	SSL_SESSION_set_protocol_version(session, version);
	return session;
}

static void test_sessions_by_key(void **state)
{
	struct tls_sessions s;
	SSL_SESSION *old = session_of(TLS1_2_VERSION);
	SSL_SESSION *new = session_of(TLS1_3_VERSION);
	SSL_SESSION *got;

	(void)state;
	tls_sessions_init(&s);
	assert_null(tls_sessions_take(&s, "a"));
	tls_sessions_keep(&s, "a", old);
	tls_sessions_keep(&s, "b", new);
	assert_null(tls_sessions_take(&s, "c"));
	/* TLS 1.2: again and again; TLS 1.3: once. */
	for (int i = 0; i < 2; i++) {
		got = tls_sessions_take(&s, "a");
		assert_ptr_equal(got, old);
		SSL_SESSION_free(got);
		got = tls_sessions_take(&s, "b");
		assert_ptr_equal(got, i == 0 ? new : NULL);
		SSL_SESSION_free(got);
	}
	/* One that is over. */
	SSL_SESSION_set_time(old, 1000);
	assert_null(tls_sessions_take(&s, "a"));
	assert_int_equal(s.count, 0);
	tls_sessions_close(&s);
}

static void test_sessions_when_full(void **state)
{
	struct tls_sessions s;
	char key[32];

	(void)state;
	tls_sessions_init(&s);
	for (int i = 0; i < 10 * TLS_SESSIONS_MAX; i++) {
		snprintf(key, sizeof key, "host %d", i);
		tls_sessions_keep(&s, key, session_of(TLS1_3_VERSION));
		assert_in_range(s.count, 1, TLS_SESSIONS_MAX);
	}
	assert_true(s.count > TLS_SESSIONS_MAX / 2);
	/* The newest is there. */
	SSL_SESSION_free(tls_sessions_take(&s, key));
	assert_null(tls_sessions_take(&s, key));
	assert_null(tls_sessions_take(&s, "host 0"));
	/* The same key, for many connections: the newest first. */
	for (int i = 0; i < 100; i++) {
		tls_sessions_keep(&s, "busy", session_of(TLS1_3_VERSION));
	}
	for (int i = 0; i < 8; i++) {
		SSL_SESSION *got = tls_sessions_take(&s, "busy");

		assert_non_null(got);
		SSL_SESSION_free(got);
	}
	assert_null(tls_sessions_take(&s, "busy"));
	tls_sessions_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_server_when_files_are_wrong),
		cmocka_unit_test(test_server_with_key_in_its_file),
		cmocka_unit_test(test_server_protocols_and_ciphers),
		cmocka_unit_test(test_server_chooses_by_name),
		cmocka_unit_test(test_clients_certificates),
		cmocka_unit_test(test_dane),
		cmocka_unit_test(test_dane_with_other_names),
		cmocka_unit_test(test_verification_that_is_only_tried),
		cmocka_unit_test(test_sessions_by_key),
		cmocka_unit_test(test_sessions_when_full),
	};

	return cmocka_run_group_tests(tests, tls_make_files, tls_remove_files);
}
