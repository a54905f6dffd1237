/*
 * An outbound world with one server and one domain, and short words for what became of a message.
 * For tests of what is sent only, each of which has its own copy.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/outbound_world.h"

#define DOMAIN "example.net"

static struct outbound_world *w;
static struct peer *peer;
static struct domain_options *options;

static inline int start(enum mux_backend backend)
{
	w = outbound_new(backend);
	peer = outbound_peer(w);
	options = outbound_domain(w, DOMAIN, peer);
	return 0;
}

static inline int set_up(void **state)
{
	(void)state;
	return start(MUX_POLL);
}

static inline int set_up_epoll(void **state)
{
	(void)state;
	return start(MUX_EPOLL);
}

static inline int set_up_auto(void **state)
{
	(void)state;
	return start(MUX_AUTO);
}

static inline int tear_down(void **state)
{
	(void)state;
	outbound_free(w);
	return 0;
}

static inline const struct attempt *attempt_of(uint32_t number)
{
	return outbound_attempt(w, number);
}

static inline void assert_verdict(uint32_t number, unsigned delivered, unsigned failed,
				  unsigned deferred)
{
	outbound_assert_verdict(w, number, (struct outbound_verdict){delivered, failed, deferred});
}

static inline void assert_said(uint32_t number, enum smtp_stage stage, unsigned code,
			       const char *text)
{
	const struct attempt *a = attempt_of(number);

	assert_int_equal(a->stage, stage);
	assert_int_equal(a->code, code);
	assert_string_equal(a->text, text);
}

/* One message after the other. */
static inline void queue_many(const char *domain, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		outbound_queue(w, domain, "a");
	}
}

/* Sends one message and waits for its end. */
static inline uint32_t send_one(const char *locals)
{
	uint32_t number = outbound_queue(w, DOMAIN, locals);

	outbound_until(w, w->outcome_count + 1);
	return number;
}
