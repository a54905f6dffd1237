/*
 * The header of the PROXY protocol, versions 1 and 2, with which a proxy begins a connection to say
 * whose it is (HAProxy's specification, "The PROXY protocol", sections 2.1 and 2.2).
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Longest header that is taken; the specification wants 107 bytes of version 1, and says that what
 * is of use fits into 536 of version 2. */
#define PROXY_HEADER_MAX 1024

SINGLE
struct proxy_header {
	/* False: the proxy speaks for itself, or does not know. */
	bool has_client;
	/* IPv4 as v4-mapped. */
	struct in6_addr client;
	uint16_t client_port;
};

/*
 * Looks at the first `len` bytes of a connection. Returns the length of the header when it is
 * complete; 0 when more is needed; -EPROTO when it is none: wrong in any byte, too long, or not
 * about TCP.
 */
CONCURRENT
int proxy_header_parse(const unsigned char *data, size_t len, struct proxy_header *h);
