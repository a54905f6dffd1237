/*
 * DKIM: a message signed by either kind of key. References: SHA-256 of as many bytes, and a bare
 * signature of a digest.
 */
#include <err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <string.h>

#include "core/mail/dkim.h"
#include "core/mail/message.h"
#include "perf/micro/body.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define BODY_100K (100 << 10)
#define TIME_S UINT64_C(1751371200)

enum { KIND_RSA, KIND_ED25519, KINDS };

static const char *const fields[] = {"from",       "to",           "subject",
				     "message-id", "mime-version", "content-type"};

static struct {
	struct mail_pools pools;
	struct dkim_signer *signer;
	EVP_PKEY *pkeys[KINDS];
	EVP_MD_CTX *contexts[KINDS];
	const struct dkim_key *keys[KINDS];
	EVP_MD *sha256;
	unsigned char bytes[BODY_100K];
} world;

/* A message to be signed, and how. */
struct job {
	size_t len;
	int kind;
	enum dkim_canon canon;
};

static const struct job jobs[] = {
	{BODY_2K, KIND_RSA, DKIM_RELAXED},       {BODY_2K, KIND_ED25519, DKIM_RELAXED},
	{BODY_100K, KIND_ED25519, DKIM_RELAXED}, {BODY_100K, KIND_ED25519, DKIM_SIMPLE},
	{BODY_100K, KIND_RSA, DKIM_RELAXED},
};

static void make_key(int kind)
{
	EVP_PKEY *pkey =
		kind == KIND_RSA ? EVP_RSA_gen(2048) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	BIO *bio = BIO_new(BIO_s_mem());
	const char *problem = "";
	char *pem;
	long len;

	if (pkey == NULL ||
	    PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) != 1) {
		errx(2, "OpenSSL makes no key");
	}
	len = BIO_get_mem_data(bio, &pem);
	world.keys[kind] = dkim_key_parse(pem, (size_t)len, &problem);
	if (world.keys[kind] == NULL) {
		errx(2, "the key %s", problem);
	}
	BIO_free(bio);
	world.pkeys[kind] = pkey;
	world.contexts[kind] = EVP_MD_CTX_new();
}

static void begin(void)
{
	mail_pools_init(&world.pools);
	world.signer = dkim_signer_create();
	world.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	for (int kind = 0; kind < KINDS; kind++) {
		make_key(kind);
	}
	body_fill(world.bytes, sizeof(world.bytes));
}

static void end(void)
{
	for (int kind = 0; kind < KINDS; kind++) {
		EVP_MD_CTX_free(world.contexts[kind]);
		EVP_PKEY_free(world.pkeys[kind]);
		dkim_key_free((struct dkim_key *)world.keys[kind]);
	}
	EVP_MD_free(world.sha256);
	dkim_signer_destroy(world.signer);
	mail_pools_close(&world.pools);
}

static uint64_t sign(const void *own)
{
	const struct job *job = own;
	const struct dkim_signature g = {
		.domain = "sender.example",
		.selector = "s1",
		.key = (uint32_t)job->kind,
		.header = DKIM_RELAXED,
		.body = job->canon,
		.fields = fields,
		.field_count = sizeof(fields) / sizeof(fields[0]),
	};
	const struct dkim_keys keys = {world.keys};
	struct chain message = CHAIN_EMPTY;
	struct chain made = CHAIN_EMPTY;
	char author[DKIM_DOMAIN_MAX];

	chain_append(&message, &world.pools.buffers, world.bytes, job->len);
	if (dkim_read(world.signer, &message, author) != 0 ||
	    dkim_sign(world.signer, &(struct dkim_policy){&g, 1, &keys}, TIME_S, &made,
		      &world.pools.buffers) != 1) {
		errx(2, "the message was not signed");
	}
	chain_release(&message, &world.pools.buffers);
	chain_release(&made, &world.pools.buffers);
	return 1;
}

static uint64_t hash(const void *own)
{
	const struct job *job = own;
	unsigned char digest[DKIM_DIGEST_BYTES];

	if (EVP_Digest(world.bytes, job->len, digest, NULL, world.sha256, NULL) != 1) {
		errx(2, "OpenSSL failed");
	}
	measure_use(digest[0]);
	return 1;
}

static uint64_t sign_bare(const void *own)
{
	const struct job *job = own;
	EVP_MD_CTX *context = world.contexts[job->kind];
	unsigned char signature[DKIM_SIGNATURE_MAX];
	size_t len = sizeof(signature);

	if (EVP_DigestSignInit(context, NULL, job->kind == KIND_RSA ? world.sha256 : NULL, NULL,
			       world.pkeys[job->kind]) != 1 ||
	    EVP_DigestSign(context, signature, &len, world.bytes, DKIM_DIGEST_BYTES) != 1) {
		errx(2, "OpenSSL failed");
	}
	return 1;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = sign,
	 .own = &jobs[0],
	 .rows = {{"dkim.rsa-2k", "ns", "dkim.rsa-bare"}}},
	{.run = measure_case_ns,
	 .step = sign,
	 .own = &jobs[4],
	 .rows = {{"dkim.rsa-100k", "ns", "dkim.rsa-bare"}}},
	{.run = measure_case_ns,
	 .step = sign_bare,
	 .own = &jobs[0],
	 .rows = {{"dkim.rsa-bare", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = sign,
	 .own = &jobs[1],
	 .rows = {{"dkim.ed25519-2k", "ns", "dkim.ed25519-bare"}}},
	{.run = measure_case_ns,
	 .step = sign_bare,
	 .own = &jobs[1],
	 .rows = {{"dkim.ed25519-bare", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = sign,
	 .own = &jobs[2],
	 .rows = {{"dkim.ed25519-100k", "ns", "dkim.sha256-100k"}}},
	{.run = measure_case_ns,
	 .step = sign,
	 .own = &jobs[3],
	 .rows = {{"dkim.ed25519-100k-simple", "ns", "dkim.sha256-100k"}}},
	{.run = measure_case_ns,
	 .step = hash,
	 .own = &jobs[2],
	 .rows = {{"dkim.sha256-100k", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = hash,
	 .own = &jobs[0],
	 .rows = {{"dkim.sha256-2k", "ns", NULL}}},
};

const struct micro_group micro_dkim = {
	.name = "dkim",
	.label = "DKIM signatures of messages",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
