#include "core/runtime/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include "core/runtime/check.h"
#include "core/runtime/tls_sessions.h"

#define TLS_CONTEXT_MAGIC 0x746c7343U
#define CIPHERS_MAX 2048
#define NAME_BYTES 256
/* Of TLSA records, RFC 7218. */
#define USAGE_DANE_TA 2
#define USAGE_DANE_EE 3
#define SELECTOR_CERTIFICATE 0
#define SELECTOR_KEY 1
#define MATCHING_FULL 0
#define MATCHING_SHA256 1
#define MATCHING_SHA512 2
/* Forward secrecy and authenticated encryption. */
#define SERVER_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"
/* Whatever encrypts is better than the plain text that would follow (RFC 7435). */
#define CLIENT_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:HIGH:!aNULL:!eNULL:!3DES:!PSK:!SRP"

struct named_context {
	char *name;
	SSL_CTX *ssl;
};

/* Certificates by name. Hang on the SSL_CTX that they are chosen from, as handshakes with that may
 * be under way when it is no longer the context's. */
READONLY
struct named_contexts {
	uint32_t count;
	struct named_context list[];
};

CONCURRENT
struct tls_context {
	uint32_t magic;
	/* Changed by tls_context_exchange() alone. */
	_Atomic(SSL_CTX *) ssl;
	/* Of a client: a digest of the files with its roots. */
	uint64_t roots;
};

/* Where a connection's sessions go; hangs on its SSL. */
struct keep {
	struct tls_sessions *sessions;
	char key[];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int keep_index = -1;
static int named_index = -1;

/* ---- errors ---- */

static const char *reason_of(unsigned long error)
{
	const char *reason = ERR_reason_error_string(error);

	if (ERR_SYSTEM_ERROR(error)) {
		return strerror(ERR_GET_REASON(error));
	}
	return reason != NULL ? reason : "unknown error";
}

/* The oldest error in the queue is the cause of the others. */
void tls_explain(const SSL *ssl, char why[TLS_WHY])
{
	unsigned long error = ERR_peek_error();
	long verified = ssl != NULL ? SSL_get_verify_result(ssl) : X509_V_OK;
	const char *data = NULL;
	int flags = 0;

	ERR_peek_error_data(&data, &flags);
	if (error == 0) {
		snprintf(why, TLS_WHY, "%s", "the peer closed the connection");
	} else if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED &&
		   verified != X509_V_OK) {
		snprintf(why, TLS_WHY, "certificate verify failed: %s",
			 X509_verify_cert_error_string(verified));
	} else if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
		   ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET) {
		snprintf(why, TLS_WHY, "the peer's alert: %s", reason_of(error));
	} else {
		snprintf(why, TLS_WHY, "%s", reason_of(error));
	}
	ERR_clear_error();
}

/* What was being done, and why it failed. */
static void complain(char why[TLS_WHY], const char *what, const char *object)
{
	char reason[TLS_WHY];

	tls_explain(NULL, reason);
	snprintf(why, TLS_WHY, "%s \"%.160s\": %.100s", what, object, reason);
}

/* ---- sessions ---- */

static void keep_free(void *parent, void *object, CRYPTO_EX_DATA *data, int index, long argl,
		      void *argp)
{
	(void)parent;
	(void)data;
	(void)index;
	(void)argl;
	(void)argp;
	free(object);
}

static void named_free(void *parent, void *object, CRYPTO_EX_DATA *data, int index, long argl,
		       void *argp)
{
	struct named_contexts *named = object;

	(void)parent;
	(void)data;
	(void)index;
	(void)argl;
	(void)argp;
	for (uint32_t i = 0; named != NULL && i < named->count; i++) {
		free(named->list[i].name);
		SSL_CTX_free(named->list[i].ssl);
	}
	free(named);
}

static void init_once(void)
{
	keep_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, keep_free);
	named_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, named_free);
}

/* Runs on the thread of the connection, which is that of its cache. */
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
	struct keep *keep = SSL_get_ex_data(ssl, keep_index);

	if (keep == NULL || !SSL_SESSION_is_resumable(session)) {
		return 0;
	}
	agent_role_assert();
	tls_sessions_keep(keep->sessions, keep->key, session);
	return 1;
}

/* ---- contexts ---- */

/* Keys with a pass phrase are refused: nobody is there to be asked. */
static int on_pass_phrase(char *buffer, int size, int writes, void *context)
{
	(void)buffer;
	(void)size;
	(void)writes;
	(void)context;
	return -1;
}

static SSL_CTX *make_ssl(const SSL_METHOD *method)
{
	SSL_CTX *ssl = SSL_CTX_new(method);

	if (ssl == NULL) {
		return NULL;
	}
	SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_PRIORITIZE_CHACHA);
	/* An idle connection holds no record buffers. */
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_default_passwd_cb(ssl, on_pass_phrase);
	if (SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) != 1) {
		SSL_CTX_free(ssl);
		return NULL;
	}
	return ssl;
}

static int use_pair(SSL_CTX *ssl, const struct tls_pair *pair, char why[TLS_WHY])
{
	const char *key = pair->key != NULL ? pair->key : pair->certificate;

	if (SSL_CTX_use_certificate_chain_file(ssl, pair->certificate) != 1) {
		complain(why, "certificate", pair->certificate);
		return -EINVAL;
	}
	if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1) {
		complain(why, "key", key);
		return -EINVAL;
	}
	return 0;
}

static int use_protocols(SSL_CTX *ssl, const char *protocols, char why[TLS_WHY])
{
	bool two = protocols == NULL || strcasecmp(protocols, "TLSv1.2:TLSv1.3") == 0;

	if (two || strcasecmp(protocols, "TLSv1.3:TLSv1.2") == 0) {
		return 0;
	}
	if (strcasecmp(protocols, "TLSv1.2") == 0) {
		return SSL_CTX_set_max_proto_version(ssl, TLS1_2_VERSION) == 1 ? 0 : -EINVAL;
	}
	if (strcasecmp(protocols, "TLSv1.3") == 0) {
		return SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 ? 0 : -EINVAL;
	}
	snprintf(why, TLS_WHY, "protocols \"%.80s\": only TLSv1.2 and TLSv1.3 are known",
		 protocols);
	return -EINVAL;
}

static void add_word(char *list, const char *word, size_t len)
{
	size_t used = strlen(list);

	/* The parts of a text are no longer than the text. */
	ASSERT(used + len + 2 <= CIPHERS_MAX);
	snprintf(list + used, CIPHERS_MAX - used, "%s%.*s", used != 0 ? ":" : "", (int)len, word);
}

/* OpenSSL has the suites of TLS 1.3 in a list of their own. */
static int use_ciphers(SSL_CTX *ssl, const char *ciphers, char why[TLS_WHY])
{
	char list[CIPHERS_MAX] = "";
	char suites[CIPHERS_MAX] = "";

	if (strlen(ciphers) + 2 > CIPHERS_MAX) {
		snprintf(why, TLS_WHY, "ciphers: the list is too long");
		return -EINVAL;
	}
	for (const char *word = ciphers; *word != '\0';) {
		size_t len = strcspn(word, ":, ");

		if (len > 0) {
			add_word(strncmp(word, "TLS_", 4) == 0 ? suites : list, word, len);
		}
		word += len + (word[len] != '\0');
	}
	if ((list[0] != '\0' && SSL_CTX_set_cipher_list(ssl, list) != 1) ||
	    (suites[0] != '\0' && SSL_CTX_set_ciphersuites(ssl, suites) != 1)) {
		complain(why, "ciphers", ciphers);
		return -EINVAL;
	}
	return 0;
}

/* Whatever the certificate proves, the session goes on. */
static int on_verify_optional(int good, X509_STORE_CTX *store)
{
	(void)good;
	(void)store;
	return 1;
}

static int use_client_ca(SSL_CTX *ssl, const struct tls_server_options *o, char why[TLS_WHY])
{
	bool required = o->client_certificate == TLS_CLIENT_REQUIRED;
	STACK_OF(X509_NAME) * names;

	if (o->client_ca == NULL || o->client_certificate == TLS_CLIENT_NONE) {
		return 0;
	}
	names = SSL_load_client_CA_file(o->client_ca);
	if (names == NULL || SSL_CTX_load_verify_file(ssl, o->client_ca) != 1) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		complain(why, "roots of clients", o->client_ca);
		return -EINVAL;
	}
	SSL_CTX_set_client_CA_list(ssl, names);
	SSL_CTX_set_verify(
		ssl, required ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER,
		required ? NULL : on_verify_optional);
	return 0;
}

static SSL_CTX *named_find(const struct named_contexts *named, const char *name)
{
	for (uint32_t i = 0; i < named->count; i++) {
		if (strcasecmp(named->list[i].name, name) == 0) {
			return named->list[i].ssl;
		}
	}
	return NULL;
}

/* Chooses a certificate by the name that the client asks for: that name, else a wildcard for its
 * first label, else the one for all others. */
static int on_server_name(SSL *ssl, int *alert, void *argument)
{
	const struct named_contexts *named = argument;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const char *dot = name != NULL ? strchr(name, '.') : NULL;
	char wildcard[NAME_BYTES + 2];
	SSL_CTX *found = name != NULL ? named_find(named, name) : NULL;

	(void)alert;
	if (found == NULL && dot != NULL) {
		snprintf(wildcard, sizeof wildcard, "*%s", dot);
		found = named_find(named, wildcard);
	}
	if (found != NULL && SSL_set_SSL_CTX(ssl, found) == NULL) {
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	}
	return found != NULL ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static struct tls_context *context_new(const SSL_METHOD *method, char why[TLS_WHY])
{
	struct tls_context *context = calloc(1, sizeof *context);
	SSL_CTX *ssl = NULL;

	pthread_once(&once, init_once);
	ERR_clear_error();
	if (context != NULL && keep_index >= 0 && named_index >= 0) {
		ssl = make_ssl(method);
	}
	if (ssl == NULL) {
		complain(why, "context", "TLS");
		free(context);
		return NULL;
	}
	context->magic = TLS_CONTEXT_MAGIC;
	atomic_init(&context->ssl, ssl);
	return context;
}

static int add_named(struct named_contexts *all, const struct tls_pair *pair, char why[TLS_WHY])
{
	struct named_context *named = &all->list[all->count];

	named->name = strdup(pair->name);
	named->ssl = make_ssl(TLS_server_method());
	all->count++;
	if (named->name == NULL || named->ssl == NULL) {
		complain(why, "certificate", pair->certificate);
		return -ENOMEM;
	}
	return use_pair(named->ssl, pair, why);
}

static int server_fill(struct tls_context *context, const struct tls_server_options *o,
		       char why[TLS_WHY])
{
	static const unsigned char id[] = "flywheel";
	SSL_CTX *ssl = context->ssl;
	struct named_contexts *named;

	/* Clients that shall resume keep tickets; nothing of them is kept here. */
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_session_id_context(ssl, id, sizeof id - 1) != 1) {
		complain(why, "certificate", o->pair.certificate);
		return -ENOMEM;
	}
	if (use_pair(ssl, &o->pair, why) != 0 || use_protocols(ssl, o->protocols, why) != 0 ||
	    use_ciphers(ssl, SERVER_CIPHERS, why) != 0 || use_client_ca(ssl, o, why) != 0 ||
	    (o->ciphers != NULL && use_ciphers(ssl, o->ciphers, why) != 0)) {
		return -EINVAL;
	}
	if (o->named_count == 0) {
		return 0;
	}
	named = calloc(1, sizeof *named + o->named_count * sizeof named->list[0]);
	if (named == NULL || SSL_CTX_set_ex_data(ssl, named_index, named) != 1) {
		free(named);
		snprintf(why, TLS_WHY, "out of memory");
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < o->named_count; i++) {
		if (add_named(named, &o->named[i], why) != 0) {
			return -EINVAL;
		}
	}
	SSL_CTX_set_tlsext_servername_callback(ssl, on_server_name);
	SSL_CTX_set_tlsext_servername_arg(ssl, named);
	return 0;
}

struct tls_context *tls_server_create(const struct tls_server_options *options, char why[TLS_WHY])
{
	struct tls_context *context = context_new(TLS_server_method(), why);

	if (context != NULL && server_fill(context, options, why) != 0) {
		tls_context_free(context);
		context = NULL;
	}
	return context;
}

/* Of what is in the file, so that a file that was written anew is told from the one before. */
static uint64_t digest_of(const char *path)
{
	unsigned char block[4096];
	unsigned char md[EVP_MAX_MD_SIZE] = {0};
	EVP_MD_CTX *digest = EVP_MD_CTX_new();
	FILE *file = fopen(path, "re");
	uint64_t first = 0;
	size_t n;

	if (file != NULL && digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1) {
		while ((n = fread(block, 1, sizeof(block), file)) > 0) {
			EVP_DigestUpdate(digest, block, n);
		}
		EVP_DigestFinal_ex(digest, md, NULL);
		memcpy(&first, md, sizeof(first));
	}
	if (file != NULL) {
		fclose(file);
	}
	EVP_MD_CTX_free(digest);
	return first;
}

struct tls_context *tls_client_create(const char *ca, char why[TLS_WHY])
{
	struct tls_context *context = context_new(TLS_client_method(), why);

	if (context == NULL) {
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(context->ssl,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(context->ssl, on_new_session);
	if (use_ciphers(context->ssl, CLIENT_CIPHERS, why) != 0) {
		tls_context_free(context);
		return NULL;
	}
	if (SSL_CTX_dane_enable(context->ssl) != 1) {
		complain(why, "context", "DANE");
		tls_context_free(context);
		return NULL;
	}
	if (ca != NULL && SSL_CTX_load_verify_file(context->ssl, ca) != 1) {
		complain(why, "roots", ca);
		tls_context_free(context);
		return NULL;
	}
	context->roots = ca != NULL ? digest_of(ca) : 0;
	return context;
}

uint64_t tls_client_roots(const struct tls_context *context)
{
	return context->roots;
}

bool tls_client_same_roots(const struct tls_context *a, const struct tls_context *b)
{
	return a == b || (a != NULL && b != NULL && a->roots == b->roots);
}

/* The file is read now: nothing is to be looked up on disk during a handshake. */
int tls_client_trust_system(struct tls_context *context, char why[TLS_WHY])
{
	static const char *const files[] = {"/etc/ssl/certs/ca-certificates.crt",
					    "/etc/pki/tls/certs/ca-bundle.crt",
					    "/etc/ssl/cert.pem"};

	CHECK_MAGIC(context, TLS_CONTEXT_MAGIC);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		if (SSL_CTX_load_verify_file(context->ssl, files[i]) == 1) {
			context->roots = digest_of(files[i]);
			return 0;
		}
		ERR_clear_error();
	}
	snprintf(why, TLS_WHY, "the system has no file of trusted roots");
	return -ENOENT;
}

void tls_context_exchange(struct tls_context *used, struct tls_context *other)
{
	CHECK_MAGIC(used, TLS_CONTEXT_MAGIC);
	CHECK_MAGIC(other, TLS_CONTEXT_MAGIC);
	other->ssl = atomic_exchange_explicit(&used->ssl, other->ssl, memory_order_acq_rel);
}

void tls_context_free(struct tls_context *context)
{
	if (context == NULL) {
		return;
	}
	SSL_CTX_free(context->ssl);
	context->magic = 0;
	free(context);
}

/* ---- connections ---- */

static bool is_address(const char *name)
{
	struct in6_addr address;

	return inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
}

static int expect_name(SSL *ssl, const char *name)
{
	if (is_address(name)) {
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
	}
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name);
}

/* Usages 0 and 1 rely on roots that nobody agreed on for mail: they count as not there. */
static int expect_tlsa(SSL *ssl, const struct tls_wish *wish, char why[TLS_WHY])
{
	int usable = 0;

	if (SSL_dane_enable(ssl, wish->name) != 1) {
		return 0;
	}
	SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
	for (uint32_t i = 0; i < wish->other_name_count; i++) {
		if (SSL_add1_host(ssl, wish->other_names[i]) != 1) {
			return 0;
		}
	}
	for (uint32_t i = 0; i < wish->tlsa_count; i++) {
		const struct tls_tlsa *r = &wish->tlsa[i];
		bool known = r->usage == USAGE_DANE_TA || r->usage == USAGE_DANE_EE;
		int rc = known ? SSL_dane_tlsa_add(ssl, r->usage, r->selector, r->matching, r->data,
						   r->len)
			       : 0;

		if (rc < 0) {
			return 0;
		}
		usable += rc;
	}
	if (usable == 0) {
		snprintf(why, TLS_WHY, "no TLSA record is usable");
	}
	return usable > 0;
}

/* All of it is a certificate, or the key of one. */
static bool is_whole(const struct tls_tlsa *record)
{
	const unsigned char *end = record->data;
	bool parsed;

	if (record->selector == SELECTOR_CERTIFICATE) {
		X509 *certificate = d2i_X509(NULL, &end, record->len);

		parsed = certificate != NULL;
		X509_free(certificate);
	} else {
		X509_PUBKEY *key = d2i_X509_PUBKEY(NULL, &end, record->len);

		parsed = key != NULL && X509_PUBKEY_get0(key) != NULL;
		X509_PUBKEY_free(key);
	}
	ERR_clear_error();
	return parsed && end == record->data + record->len;
}

bool tls_tlsa_usable(const struct tls_tlsa *record)
{
	if ((record->usage != USAGE_DANE_TA && record->usage != USAGE_DANE_EE) ||
	    record->selector > SELECTOR_KEY) {
		return false;
	}
	switch (record->matching) {
	case MATCHING_FULL:
		return is_whole(record);
	case MATCHING_SHA256:
		return record->len == SHA256_DIGEST_LENGTH;
	case MATCHING_SHA512:
		return record->len == SHA512_DIGEST_LENGTH;
	default:
		return false;
	}
}

static int use_session(SSL *ssl, const struct tls_wish *wish)
{
	size_t len = strlen(wish->session_key) + 1;
	struct keep *keep = malloc(sizeof *keep + len);
	SSL_SESSION *session;

	if (keep == NULL || SSL_set_ex_data(ssl, keep_index, keep) != 1) {
		free(keep);
		return 0;
	}
	keep->sessions = wish->sessions;
	memcpy(keep->key, wish->session_key, len);
	agent_role_assert();
	session = tls_sessions_take(wish->sessions, wish->session_key);
	if (session != NULL) {
		/* Where it does not fit, a full handshake follows. */
		SSL_set_session(ssl, session);
		SSL_SESSION_free(session);
		ERR_clear_error();
	}
	return 1;
}

/* What is no server's business stays with the default: no verification. 1: done. */
static int client_fill(SSL *ssl, const struct tls_wish *wish, char why[TLS_WHY])
{
	SSL_set_connect_state(ssl);
	if (wish->name != NULL && !is_address(wish->name) &&
	    SSL_set_tlsext_host_name(ssl, wish->name) != 1) {
		return 0;
	}
	switch (wish->verify) {
	case TLS_VERIFY_NONE:
		/* Weak keys are better than none at all. */
		SSL_set_security_level(ssl, 1);
		SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
		break;
	case TLS_VERIFY_PKIX:
	case TLS_VERIFY_TRY:
		SSL_set_verify(ssl, SSL_VERIFY_PEER,
			       wish->verify == TLS_VERIFY_TRY ? on_verify_optional : NULL);
		if (wish->name == NULL || expect_name(ssl, wish->name) != 1) {
			return 0;
		}
		break;
	case TLS_VERIFY_DANE:
		SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
		if (expect_tlsa(ssl, wish, why) != 1) {
			return 0;
		}
		break;
	}
	return wish->sessions == NULL || use_session(ssl, wish);
}

SSL *tls_open(const struct tls_wish *wish, char why[TLS_WHY])
{
	SSL *ssl;

	CHECK_MAGIC(wish->context, TLS_CONTEXT_MAGIC);
	ERR_clear_error();
	why[0] = '\0';
	ssl = SSL_new(atomic_load_explicit(&wish->context->ssl, memory_order_acquire));
	if (ssl == NULL) {
		tls_explain(NULL, why);
		return NULL;
	}
	if (SSL_is_server(ssl)) {
		SSL_set_accept_state(ssl);
		return ssl;
	}
	if (client_fill(ssl, wish, why) == 1) {
		return ssl;
	}
	if (why[0] == '\0') {
		tls_explain(ssl, why);
	}
	ERR_clear_error();
	SSL_free(ssl);
	return NULL;
}

enum tls_fault tls_fault(const SSL *ssl)
{
	switch (SSL_get_verify_result(ssl)) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
		return TLS_FAULT_HOST_MISMATCH;
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return TLS_FAULT_EXPIRED;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_UNTRUSTED:
	case X509_V_ERR_INVALID_CA:
		return TLS_FAULT_NOT_TRUSTED;
	default:
		return TLS_FAULT_OTHER;
	}
}

static const char *verification_of(const SSL *ssl, bool *verified)
{
	bool asked = (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0;

	*verified = false;
	if (!asked || SSL_get0_peer_certificate(ssl) == NULL) {
		return "none";
	}
	if (SSL_get_verify_result(ssl) != X509_V_OK) {
		return "untrusted";
	}
	*verified = true;
	return SSL_get0_dane_authority((SSL *)(uintptr_t)ssl, NULL, NULL) >= 0 ? "dane" : "pkix";
}

struct tls_agreed tls_agreed(const SSL *ssl)
{
	struct tls_agreed agreed = {
		.version = SSL_get_version(ssl),
		.cipher = SSL_get_cipher_name(ssl),
		.resumed = SSL_session_reused(ssl) == 1,
	};

	agreed.verification = verification_of(ssl, &agreed.verified);
	agreed.fault = agreed.verified ? TLS_FAULT_NONE : tls_fault(ssl);
	return agreed;
}
