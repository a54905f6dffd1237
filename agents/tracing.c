/*
 * A scheduler and its traces: which connections it has to offer them.
 */
#include <netinet/in.h>
#include <string.h>

#include "agents/scheduler.h"
#include "agents/scheduler_request.h"
#include "core/outbound/connection.h"

/* What is sent now begins with commands; a body that goes on is sent without. */
static bool begins_command(const struct stream *s)
{
	return CONTAINER_OF(s, const struct connection, stream)->sending.len != 0;
}

static struct in6_addr address_of(const struct connection *c, uint16_t *port)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&c->address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&c->address;
	struct in6_addr mapped = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

	if (c->address.ss_family == AF_INET6) {
		*port = ntohs(v6->sin6_port);
		return v6->sin6_addr;
	}
	*port = ntohs(v4->sin_port);
	memcpy(&mapped.s6_addr[12], &v4->sin_addr, sizeof(v4->sin_addr));
	return mapped;
}

static void offer(struct scheduler *s, struct connection *c, trace_begins_fn begins)
{
	struct trace_facts facts = {
		.inbound = false,
		.binding = c->lane->site->binding,
		.domain = c->domain != NULL ? c->domain->name : NULL,
	};

	facts.peer = address_of(c, &facts.port);
	trace_client_offer(&s->trace, &c->stream, &facts, 0, begins);
}

void scheduler_offer_connection(struct dispatcher *x, struct connection *c)
{
	offer(CONTAINER_OF(x, struct scheduler, dispatcher), c, NULL);
}

static void offer_site(void *context, struct site *site)
{
	for (struct connection *c = site->connections; c != NULL; c = c->site_next) {
		if (c->state != CONNECTION_CLOSING) {
			offer(context, c,
			      c->state == CONNECTION_CONNECTING ? NULL : begins_command);
		}
	}
}

static void offer_listeners(struct scheduler *s)
{
	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		const struct listener_ops *l = s->program->listeners[i];

		if (s->listener_state[i] != NULL && l->trace != NULL) {
			l->trace(s, s->listener_state[i]);
		}
	}
}

void scheduler_trace(struct scheduler *s, struct trace *t)
{
	trace_client_add(&s->trace, t);
	s->dispatcher.tracing = true;
	offer_listeners(s);
	site_each(&s->dispatcher.sites, offer_site, s);
}

void scheduler_trace_no_more(struct scheduler *s, struct trace *t)
{
	trace_client_remove(&s->trace, t);
	s->dispatcher.tracing = !trace_client_idle(&s->trace);
}

void scheduler_trace_leave(struct scheduler *s)
{
	for (unsigned i = 0; i < TRACES_MAX; i++) {
		if (s->trace.traces[i] != NULL) {
			scheduler_trace_no_more(s, s->trace.traces[i]);
		}
	}
}
