#include "core/runtime/tls_peer.h"

#include <openssl/bio.h>
#include <openssl/x509.h>

#include "core/runtime/check.h"

unsigned tls_cipher_bits(const SSL *ssl, unsigned *algorithm)
{
	int of = 0;
	int used = SSL_CIPHER_get_bits(SSL_get_current_cipher(ssl), &of);

	*algorithm = (unsigned)of;
	return (unsigned)used;
}

static bool write_name(const X509_NAME *name, char *to, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int len;

	if (bio == NULL) {
		fatal("out of memory for the name in a certificate");
	}
	X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253);
	len = BIO_read(bio, to, (int)size - 1);
	BIO_free(bio);
	to[len > 0 ? len : 0] = '\0';
	return len > 0;
}

bool tls_peer_name(const SSL *ssl, enum tls_name which, bool common, char *to, size_t size)
{
	const X509 *certificate = SSL_get0_peer_certificate(ssl);
	const X509_NAME *name;

	if (certificate == NULL) {
		return false;
	}
	name = which == TLS_SUBJECT ? X509_get_subject_name(certificate)
				    : X509_get_issuer_name(certificate);
	if (common) {
		return X509_NAME_get_text_by_NID((X509_NAME *)(uintptr_t)name, NID_commonName, to,
						 (int)size) > 0;
	}
	return write_name(name, to, size);
}
