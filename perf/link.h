/*
 * A tool's end of a connection: a non-blocking socket, with or without TLS on it. What reads and
 * writes here behaves as the system's calls do with an edge-triggered epoll: a short count, or -1
 * with errno EAGAIN, means that the socket is empty or full.
 */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <openssl/ssl.h>

/* A context that presents `certificate` with its `key` (PEM files), or without them one for
 * clients, who verify nobody. Ends the program with a message when a file is of no use. */
SSL_CTX *link_context(const char *certificate, const char *key);

/* Begins TLS on `fd`, as the end that the context is for. Never NULL. */
SSL *link_secure(SSL_CTX *context, int fd);

/* Goes on with the handshake: 1 when it is done, 0 when it waits for the peer, -1 when it failed.
 */
int link_shake(SSL *tls);

/* As read and sendmsg with TLS; `count` parts, of which some may be empty. */
ssize_t link_tls_recv(SSL *tls, void *data, size_t len);
ssize_t link_tls_send(SSL *tls, const struct iovec *parts, size_t count);

/* Says goodbye when that can go at once. NULL is ignored. */
void link_forget(SSL *tls);

static inline ssize_t link_recv(int fd, SSL *tls, void *data, size_t len)
{
	return tls == NULL ? recv(fd, data, len, 0) : link_tls_recv(tls, data, len);
}

static inline ssize_t link_send(int fd, SSL *tls, struct iovec *parts, size_t count)
{
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};

	return tls == NULL ? sendmsg(fd, &message, MSG_NOSIGNAL) : link_tls_send(tls, parts, count);
}
