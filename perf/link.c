#include "perf/link.h"

#include <err.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>

#include <openssl/err.h>

static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());

	return text != NULL ? text : "of no use";
}

SSL_CTX *link_context(const char *certificate, const char *key)
{
	bool server = certificate != NULL;
	SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (context == NULL) {
		errx(2, "TLS: %s", reason());
	}
	/* OpenSSL writes to the socket itself, and has no way to say MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
	if (server && (SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
		       SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)) {
		errx(2, "%s, %s: %s", certificate, key, reason());
	}
	return context;
}

SSL *link_secure(SSL_CTX *context, int fd)
{
	SSL *tls = SSL_new(context);

	if (tls == NULL || SSL_set_fd(tls, fd) != 1) {
		errx(2, "TLS: %s", reason());
	}
	if (SSL_is_server(tls)) {
		SSL_set_accept_state(tls);
	} else {
		SSL_set_connect_state(tls);
	}
	return tls;
}

/* errno after a call that moved nothing: EAGAIN, or something that ends the connection; 0 at its
 * regular end. */
static int trouble(const SSL *tls, int returned)
{
	switch (SSL_get_error(tls, returned)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return ECONNRESET;
	}
}

int link_shake(SSL *tls)
{
	int n;

	ERR_clear_error();
	n = SSL_do_handshake(tls);
	if (n == 1) {
		return 1;
	}
	return trouble(tls, n) == EAGAIN ? 0 : -1;
}

ssize_t link_tls_recv(SSL *tls, void *data, size_t len)
{
	size_t done = 0;
	int n = 1;

	ERR_clear_error();
	while (done < len && n > 0) {
		size_t left = len - done;

		n = SSL_read(tls, (char *)data + done, left < INT_MAX ? (int)left : INT_MAX);
		done += n > 0 ? (size_t)n : 0;
	}
	if (done > 0) {
		return (ssize_t)done;
	}
	errno = trouble(tls, n);
	return errno == 0 ? 0 : -1;
}

ssize_t link_tls_send(SSL *tls, const struct iovec *parts, size_t count)
{
	size_t done = 0;
	int n;

	ERR_clear_error();
	for (size_t i = 0; i < count; i++) {
		for (size_t at = 0; at < parts[i].iov_len; at += (size_t)n) {
			size_t left = parts[i].iov_len - at;

			n = SSL_write(tls, (const char *)parts[i].iov_base + at,
				      left < INT_MAX ? (int)left : INT_MAX);
			if (n <= 0 && done > 0) {
				return (ssize_t)done;
			}
			if (n <= 0) {
				errno = trouble(tls, n);
				errno = errno == 0 ? ECONNRESET : errno;
				return -1;
			}
			done += (size_t)n;
		}
	}
	return (ssize_t)done;
}

void link_forget(SSL *tls)
{
	if (tls != NULL) {
		ERR_clear_error();
		SSL_shutdown(tls);
		SSL_free(tls);
	}
}
