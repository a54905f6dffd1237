/*
 * What ld's --wrap links the resolver agent's source of answers to: a simulated name service
 * (resolver.c) in place of libunbound.
 */
#pragma once

#include "agents/resolver_source.h"

int __wrap_resolver_source_open(struct resolver_source **out,
				const struct resolver_options *options, char *why, size_t why_size);
void __wrap_resolver_source_close(struct resolver_source *s);
int __wrap_resolver_source_fd(struct resolver_source *s);
int __wrap_resolver_source_ask(struct resolver_source *s, struct source_question *q,
			       const char *name);
void __wrap_resolver_source_cancel(struct resolver_source *s, struct source_question *q);
void __wrap_resolver_source_process(struct resolver_source *s);
