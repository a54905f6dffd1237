/*
 * From one word of the configuration to what it means. Each function returns NULL when it
 * understood the word, else what is wrong with it, as the rest of a sentence that begins with the
 * word: "is not a number". Nothing here knows options, files or lines.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "config/config.h"
#include "core/queue/options.h"
#include "core/runtime/thread_class.h"

/* on off, true false, yes no, enabled disabled, 1 0. */
READONLY
const char *word_boolean(const char *word, bool *value);

/* Decimal digits. */
READONLY
const char *word_number(const char *word, uint64_t *value);

/* Octal digits. */
READONLY
const char *word_mode(const char *word, uint64_t *value);

/* 0 to 100, with or without a % sign. */
READONLY
const char *word_percent(const char *word, uint64_t *value);

/* Bytes, or with K, M, G, T (powers of 1024; KB and KiB are the same). */
READONLY
const char *word_size(const char *word, uint64_t *bytes);

/* Seconds, or with a unit: ns us ms s m h d, or their English names. */
READONLY
const char *word_time(const char *word, uint64_t *ns);

/* The index in `choices` (NULL at the end); case, - and _ make no difference. */
READONLY
const char *word_choice(const char *word, const char *const *choices, uint64_t *value);

/* A core's number, or -1. */
READONLY
const char *word_core(const char *word, int *core);

/* Letters, digits, - _ and dots, each label at most 63 long; or an address literal in brackets. */
READONLY
const char *word_hostname(const char *word);

/* A domain as in `domain "x" { }`; one that was not ASCII is A-labels by now (tree_text_domain()).
 */
READONLY
const char *word_domain(const char *word);

/* A domain for relaying: with a leading dot all below it, "*" all. */
READONLY
const char *word_domain_pattern(const char *word);

/* The name of a header field: letters, digits, - and _, at most 63 of them. */
READONLY
const char *word_field(const char *word);

/* LOCAL@DOMAIN, not in brackets. */
READONLY
const char *word_address(const char *word);

/* A network or an address. */
READONLY
const char *word_cidr(const char *word, struct cidr *network);

/* An address of a machine, IPv4 (kept as v4-mapped) or IPv6, in brackets or not. */
READONLY
const char *word_ip(const char *word, struct in6_addr *address);

/* An address of word_ip() as sockets have it, without a port. Returns its length. */
READONLY
socklen_t word_socket_address(const struct in6_addr *ip, struct sockaddr_storage *address);

/* The name of a journal's subscriber: a word that a shell's user can write. */
READONLY
const char *word_subscriber(const char *word);

/* An address, with "@PORT" or without. */
READONLY
const char *word_name_server(const char *word);

/* Whether `address` (IPv4 as v4-mapped) is in the network. */
READONLY
bool word_cidr_has(const struct cidr *network, const struct in6_addr *address);

/* "host", "host:port", "[IPv6]:port", each with "?pref=N". The host goes to `host`, which has room
 * for `host_size` bytes; gateway->host is not set. Port 0 is none named, the preference 10 is. */
READONLY
const char *word_gateway(const char *word, struct gateway *gateway, char *host, size_t host_size);

/* "N", "N/sec", "N/min", "N/hour", "N/day", "N/SECONDS"; "none" is a count of 0. */
READONLY
const char *word_throttle(const char *word, uint64_t *count, uint64_t *period_s);

/* Where to listen: "192.0.2.1:25", "[::1]:25", "*:25" or ":25" (any address of both families), or a
 * path with a slash in it. */
READONLY
const char *word_listen(const char *word, struct sockaddr_storage *address, socklen_t *len);

/* The shortest way to write a size, or a time. Returns `text`. */
READONLY
const char *word_format_size(uint64_t bytes, char *text, size_t size);
READONLY
const char *word_format_time(uint64_t ns, char *text, size_t size);

/* True for the same text. Names in a table mostly differ in their first letter: no call then. */
READONLY
static inline bool word_same(const char *a, const char *b)
{
	return a[0] == b[0] && strcmp(a, b) == 0;
}
