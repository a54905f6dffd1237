#include "core/mail/dkim_key.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"

#define DKIM_KEY_MAGIC 0x646b6579U
#define FILE_BYTES_MAX 65536
#define ED25519_BYTES 32
/* Keys that a keyring keeps ready; a power of two. */
#define KEYRING_SLOTS 64

READONLY
struct dkim_key {
	uint32_t magic;
	enum dkim_algorithm algorithm;
	unsigned bits;
	bool exposed;
	/* Digest of the text that it was read from: tells files apart without a copy of what they
	 * have. */
	unsigned char file[DKIM_DIGEST_BYTES];
	EVP_PKEY *pkey;
};

/* ---- loading ---- */

/* Nobody is asked for a passphrase. */
static int no_passphrase(char *buffer, int size, int writing, void *encrypted)
{
	(void)buffer;
	(void)size;
	(void)writing;
	*(bool *)encrypted = true;
	return -1;
}

/* What kind of key it is, into `key`; NULL, or why it is of no use. */
static const char *judge(struct dkim_key *key)
{
	key->bits = (unsigned)EVP_PKEY_get_bits(key->pkey);
	if (EVP_PKEY_is_a(key->pkey, "ED25519")) {
		key->algorithm = DKIM_ED25519_SHA256;
		return NULL;
	}
	if (!EVP_PKEY_is_a(key->pkey, "RSA")) {
		return "has neither an RSA nor an Ed25519 key";
	}
	key->algorithm = DKIM_RSA_SHA256;
	if (key->bits < DKIM_RSA_BITS_MIN) {
		return "has an RSA key of less than 1024 bits";
	}
	if (key->bits > DKIM_RSA_BITS_MAX) {
		return "has an RSA key of more than 4096 bits";
	}
	return NULL;
}

struct dkim_key *dkim_key_parse(const char *pem, size_t len, const char **problem)
{
	struct dkim_key *key = calloc(1, sizeof(*key));
	BIO *bio = BIO_new_mem_buf(pem, (int)len);
	bool encrypted = false;

	if (key == NULL || bio == NULL) {
		fatal("out of memory for a DKIM key");
	}
	key->magic = DKIM_KEY_MAGIC;
	key->pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted);
	BIO_free(bio);
	if (EVP_Digest(pem, len, key->file, NULL, EVP_sha256(), NULL) != 1) {
		fatal("OpenSSL failed to make a digest");
	}
	ERR_clear_error();
	if (key->pkey != NULL) {
		*problem = judge(key);
	} else {
		*problem = encrypted ? "has a key with a passphrase" : "has no private key in PEM";
	}
	if (*problem != NULL) {
		dkim_key_free(key);
		return NULL;
	}
	return key;
}

/* Returns the length, or a negative errno. */
static ssize_t read_file(int fd, char *text, size_t size, bool *exposed)
{
	struct stat status;
	size_t len = 0;
	ssize_t got;

	if (fstat(fd, &status) != 0) {
		return -errno;
	}
	if (!S_ISREG(status.st_mode)) {
		return S_ISDIR(status.st_mode) ? -EISDIR : -ENODEV;
	}
	*exposed = (status.st_mode & S_IROTH) != 0;
	do {
		got = read(fd, text + len, size - len);
		len += got > 0 ? (size_t)got : 0;
	} while ((got > 0 && len < size) || (got < 0 && errno == EINTR));
	if (got < 0) {
		return -errno;
	}
	return len < size ? (ssize_t)len : -EFBIG;
}

struct dkim_key *dkim_key_load(const char *path, const char **problem)
{
	/* Not to hang in a FIFO. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char text[FILE_BYTES_MAX];
	struct dkim_key *key = NULL;
	bool exposed = false;
	ssize_t len;

	if (fd < 0) {
		*problem = strerrordesc_np(errno);
		return NULL;
	}
	len = read_file(fd, text, sizeof(text), &exposed);
	close(fd);
	if (len < 0) {
		*problem = strerrordesc_np((int)-len);
	} else {
		key = dkim_key_parse(text, (size_t)len, problem);
	}
	OPENSSL_cleanse(text, sizeof(text));
	if (key != NULL) {
		key->exposed = exposed;
	}
	return key;
}

void dkim_key_free(struct dkim_key *key)
{
	if (key != NULL) {
		CHECK_MAGIC(key, DKIM_KEY_MAGIC);
		EVP_PKEY_free(key->pkey);
		key->magic = 0;
		free(key);
	}
}

enum dkim_algorithm dkim_key_algorithm(const struct dkim_key *key)
{
	return key->algorithm;
}

unsigned dkim_key_bits(const struct dkim_key *key)
{
	return key->bits;
}

bool dkim_key_same_file(const struct dkim_key *a, const struct dkim_key *b)
{
	return memcmp(a->file, b->file, sizeof(a->file)) == 0;
}

bool dkim_key_is_exposed(const struct dkim_key *key)
{
	return key->exposed;
}

size_t dkim_key_record(const struct dkim_key *key, char text[DKIM_RECORD_MAX])
{
	static const char *const names[] = {
		[DKIM_RSA_SHA256] = "rsa", [DKIM_ED25519_SHA256] = "ed25519"};
	size_t used =
		(size_t)snprintf(text, DKIM_RECORD_MAX, "v=DKIM1; k=%s; p=", names[key->algorithm]);
	unsigned char raw[ED25519_BYTES];
	unsigned char *der = raw;
	size_t raw_len = sizeof(raw);
	int len;

	if (key->algorithm == DKIM_ED25519_SHA256) {
		ASSERT(EVP_PKEY_get_raw_public_key(key->pkey, raw, &raw_len) == 1);
		len = (int)raw_len;
	} else {
		der = NULL;
		len = i2d_PUBKEY(key->pkey, &der);
	}
	ASSERT(len > 0 && used + ((size_t)len + 2) / 3 * 4 < DKIM_RECORD_MAX);
	used += (size_t)EVP_EncodeBlock((unsigned char *)text + used, der, len);
	if (der != raw) {
		OPENSSL_free(der);
	}
	return used;
}

/* ---- signing ---- */

/* What one agent has ready for one key. */
struct slot {
	/* The key as it was loaded, and a copy of it that no other thread uses. */
	EVP_PKEY *original;
	EVP_PKEY *own;
	/* RSA; Ed25519. */
	EVP_PKEY_CTX *rsa;
	EVP_MD_CTX *ed25519;
};

SINGLE
struct dkim_keyring {
	EVP_MD *sha256;
	struct slot slots[KEYRING_SLOTS];
};

struct dkim_keyring *dkim_keyring_create(void)
{
	struct dkim_keyring *ring = check_memory(calloc(1, sizeof(*ring)), "DKIM");

	ring->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (ring->sha256 == NULL) {
		fatal("OpenSSL has no SHA-256");
	}
	return ring;
}

static void slot_clear(struct slot *slot)
{
	EVP_PKEY_CTX_free(slot->rsa);
	EVP_MD_CTX_free(slot->ed25519);
	EVP_PKEY_free(slot->own);
	EVP_PKEY_free(slot->original);
	*slot = (struct slot){0};
}

void dkim_keyring_clear(struct dkim_keyring *ring)
{
	for (unsigned i = 0; i < KEYRING_SLOTS; i++) {
		slot_clear(&ring->slots[i]);
	}
}

void dkim_keyring_destroy(struct dkim_keyring *ring)
{
	dkim_keyring_clear(ring);
	EVP_MD_free(ring->sha256);
	free(ring);
}

static bool slot_fill(struct dkim_keyring *ring, struct slot *slot, const struct dkim_key *key)
{
	/* While it is held, no other key can have its address. */
	EVP_PKEY_up_ref(key->pkey);
	slot->original = key->pkey;
	slot->own = EVP_PKEY_dup(key->pkey);
	if (slot->own == NULL) {
		return false;
	}
	if (key->algorithm == DKIM_ED25519_SHA256) {
		slot->ed25519 = EVP_MD_CTX_new();
		return slot->ed25519 != NULL;
	}
	slot->rsa = EVP_PKEY_CTX_new_from_pkey(NULL, slot->own, NULL);
	return slot->rsa != NULL && EVP_PKEY_sign_init(slot->rsa) == 1 &&
	       EVP_PKEY_CTX_set_rsa_padding(slot->rsa, RSA_PKCS1_PADDING) == 1 &&
	       EVP_PKEY_CTX_set_signature_md(slot->rsa, ring->sha256) == 1;
}

static struct slot *slot_of(struct dkim_keyring *ring, const struct dkim_key *key)
{
	uint64_t hash = (uint64_t)(uintptr_t)key->pkey * UINT64_C(0x9e3779b97f4a7c15);
	struct slot *slot = &ring->slots[(hash >> 32) % KEYRING_SLOTS];

	if (slot->original != key->pkey) {
		slot_clear(slot);
		if (!slot_fill(ring, slot, key)) {
			slot_clear(slot);
			return NULL;
		}
	}
	return slot;
}

int dkim_keyring_sign(struct dkim_keyring *ring, const struct dkim_key *key,
		      const unsigned char digest[DKIM_DIGEST_BYTES],
		      unsigned char signature[DKIM_SIGNATURE_MAX])
{
	struct slot *slot;
	size_t len = DKIM_SIGNATURE_MAX;
	bool good;

	CHECK_MAGIC(key, DKIM_KEY_MAGIC);
	slot = slot_of(ring, key);
	if (slot == NULL) {
		good = false;
	} else if (slot->rsa != NULL) {
		good = EVP_PKEY_sign(slot->rsa, signature, &len, digest, DKIM_DIGEST_BYTES) == 1;
	} else {
		good = EVP_DigestSignInit(slot->ed25519, NULL, NULL, NULL, slot->own) == 1 &&
		       EVP_DigestSign(slot->ed25519, signature, &len, digest, DKIM_DIGEST_BYTES) ==
			       1;
	}
	if (!good) {
		ERR_clear_error();
		return -EIO;
	}
	return (int)len;
}
