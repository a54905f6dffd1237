/*
 * Who may send mail through this host, and where to: relay_hosts and relay_domains; and who is
 * believed for whom it does: xclient_hosts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "core/runtime/thread_class.h"

/* Whether `peer` (IPv4 as v4-mapped) is in one of relay_hosts: then it may send to any domain. */
READONLY
bool relay_host_allowed(const struct smtp_options *options, const struct in6_addr *peer);

/* Whether what comes for `domain`, in lower case, is a bounce: bounce_domains has it, in the same
 * ways as relay_domains below. */
READONLY
bool relay_domain_bounces(const struct smtp_options *options, const char *domain, size_t len);

/* Whether `peer` is in one of xclient_hosts: then it may say whose a connection is. */
READONLY
bool relay_xclient_allowed(const struct smtp_options *options, const struct in6_addr *peer);

/* Whether anybody may send to `domain`, which is in lower case: relay_domains has it, or one above
 * it as ".example.com" (not example.com itself), or "*". */
READONLY
bool relay_domain_allowed(const struct smtp_options *options, const char *domain, size_t len);
