/*
 * What TLS does to bytes on their way: AES-256-GCM, in records of 16 KiB. Reference: a copy of as
 * many bytes.
 */
#include <err.h>
#include <openssl/evp.h>
#include <string.h>

#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define BYTES (100 << 10)
#define RECORD (16 << 10)
#define IV_BYTES 12
#define TAG_BYTES 16

static struct {
	EVP_CIPHER_CTX *context;
	unsigned char from[BYTES];
	unsigned char to[BYTES];
} world;

static void begin(void)
{
	static const unsigned char key[32] = {1};

	world.context = EVP_CIPHER_CTX_new();
	if (world.context == NULL ||
	    EVP_EncryptInit_ex(world.context, EVP_aes_256_gcm(), NULL, key, NULL) != 1) {
		errx(2, "OpenSSL has no AES-256-GCM");
	}
	memset(world.from, 'x', sizeof(world.from));
}

static void end(void)
{
	EVP_CIPHER_CTX_free(world.context);
}

static uint64_t seal(const void *own)
{
	static const unsigned char iv[IV_BYTES] = {2};
	unsigned char tag[TAG_BYTES];
	int n;

	(void)own;
	for (size_t at = 0; at < BYTES; at += RECORD) {
		int len = (int)(BYTES - at < RECORD ? BYTES - at : RECORD);

		if (EVP_EncryptInit_ex(world.context, NULL, NULL, NULL, iv) != 1 ||
		    EVP_EncryptUpdate(world.context, world.to + at, &n, world.from + at, len) !=
			    1 ||
		    EVP_EncryptFinal_ex(world.context, world.to + at + n, &n) != 1 ||
		    EVP_CIPHER_CTX_ctrl(world.context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) != 1) {
			errx(2, "OpenSSL failed");
		}
		measure_use(tag[0]);
	}
	return 1;
}

static uint64_t copy(const void *own)
{
	(void)own;
	memcpy(world.to, world.from, BYTES);
	measure_use(world.to[BYTES / 2]);
	return 1;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = seal,
	 .rows = {{"seal.aes-256-gcm-100k", "ns", "seal.copy-100k"}}},
	{.run = measure_case_ns, .step = copy, .rows = {{"seal.copy-100k", "ns", NULL}}},
};

const struct micro_group micro_seal = {
	.name = "seal",
	.label = "bytes encrypted as TLS does it",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
