/*
 * Certificates for tests, made by the openssl command in a folder of their own: a root (ca.pem),
 * and signed by it mx.pem (mx.test), other.pem (other.test) and expired.pem (mx.test, until
 * yesterday); self.pem is mx.test signed by itself. One key, key.pem, is everybody's. Each test
 * program has its own copy of this.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/runtime/tls.h"

static char tls_folder[64];

/* The path of one of the files. */
static inline const char *tls_file(const char *name)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof paths[0], "%s/%s", tls_folder, name);
	return path;
}

static inline int tls_make_files(void **state)
{
	static const char script[] =
		"cd %s && exec >log 2>&1 && set -e\n"
		"openssl ecparam -name prime256v1 -genkey -noout -out key.pem\n"
		"openssl req -x509 -key key.pem -out ca.pem -days 30 -subj /CN=root.test\n"
		"sign() {\n"
		"    openssl req -new -key key.pem -subj /CN=$2 -addext subjectAltName=DNS:$2 |\n"
		"        openssl x509 -req -CA ca.pem -CAkey key.pem -copy_extensions copyall "
		"-days $3 -out $1.pem\n"
		"}\n"
		"sign mx mx.test 30; sign other other.test 30; sign expired mx.test -1\n"
		"openssl req -x509 -key key.pem -out self.pem -days 30 -subj /CN=mx.test "
		"-addext subjectAltName=DNS:mx.test\n"
		"cat mx.pem key.pem >both.pem; echo rubbish >rubbish.pem\n"
		"openssl ec -aes128 -passout pass:x -in key.pem -out locked.pem\n";
	char command[sizeof script + sizeof tls_folder];

	(void)state;
	snprintf(tls_folder, sizeof tls_folder, "/tmp/flywheel-tls-XXXXXX");
	if (mkdtemp(tls_folder) == NULL) {
		return -1;
	}
	snprintf(command, sizeof command, script, tls_folder);
	return system(command);
}

static inline int tls_remove_files(void **state)
{
	char command[sizeof tls_folder + 16];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", tls_folder);
	return system(command);
}

/* A server of mx.test. */
static inline struct tls_context *tls_test_server(const char *certificate)
{
	const struct tls_server_options options = {
		.pair = {.certificate = tls_file(certificate), .key = tls_file("key.pem")}};
	char why[TLS_WHY];
	struct tls_context *context = tls_server_create(&options, why);

	if (context == NULL) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	return context;
}

static inline struct tls_context *tls_test_client(void)
{
	char why[TLS_WHY];
	struct tls_context *context = tls_client_create(tls_file("ca.pem"), why);

	if (context == NULL) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	return context;
}
