#include "agents/trace.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/word.h"

enum trace_match trace_matches(const struct trace_spec *spec, const struct trace_facts *f)
{
	if (spec->direction == (f->inbound ? TRACE_OUT : TRACE_IN)) {
		return TRACE_NO;
	}
	if (spec->has_peer && !word_cidr_has(&spec->peer, &f->peer)) {
		return TRACE_NO;
	}
	if (spec->binding[0] != '\0' &&
	    (f->binding == NULL || strcmp(spec->binding, f->binding) != 0)) {
		return TRACE_NO;
	}
	if (spec->listener[0] != '\0' &&
	    (f->listener == NULL || strcmp(spec->listener, f->listener) != 0)) {
		return TRACE_NO;
	}
	if (spec->domain[0] == '\0' ||
	    (f->domain != NULL && strcmp(spec->domain, f->domain) == 0)) {
		return TRACE_YES;
	}
	/* A connection carries mail of more domains than that which it was opened for. */
	return TRACE_WHEN_DOMAIN_IS_KNOWN;
}

bool trace_admit(struct trace *t)
{
	uint64_t turn = atomic_fetch_add_explicit(&t->matched, 1, memory_order_relaxed);

	if (turn % t->spec.sample != 0) {
		return false;
	}
	if (atomic_fetch_add_explicit(&t->sessions, 1, memory_order_relaxed) >=
	    t->spec.sessions_max) {
		atomic_fetch_sub_explicit(&t->sessions, 1, memory_order_relaxed);
		return false;
	}
	return true;
}

void trace_drop(struct trace *t)
{
	atomic_fetch_add_explicit(&t->dropped, 1, memory_order_relaxed);
}

bool trace_take(struct trace *t, size_t bytes, uint64_t now_wall_ms)
{
	if (now_wall_ms >= t->until_wall_ms) {
		return false;
	}
	if (atomic_fetch_add_explicit(&t->bytes, bytes, memory_order_relaxed) + bytes >
	    t->spec.bytes_max) {
		atomic_fetch_sub_explicit(&t->bytes, bytes, memory_order_relaxed);
		atomic_store_explicit(&t->full, true, memory_order_relaxed);
		trace_drop(t);
		return false;
	}
	atomic_fetch_add_explicit(&t->lines, 1, memory_order_relaxed);
	return true;
}

const char *trace_name_wrong(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > TRACE_NAME_MAX) {
		return "has to be of 1 to 64 characters";
	}
	if (name[0] == '.') {
		return "begins with a dot";
	}
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)name[i]) && strchr("._-", name[i]) == NULL) {
			return "is no name of a file: letters, digits, dots, - and _";
		}
	}
	return NULL;
}

/* ---- words ---- */

SINGLE
struct words {
	char *text;
	size_t size;
	size_t len;
};

static void add(struct words *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct words *w, const char *format, ...)
{
	va_list args;
	int n;

	if (w->len + 1 >= w->size) {
		return;
	}
	if (w->len > 0) {
		w->text[w->len++] = ' ';
	}
	va_start(args, format);
	n = vsnprintf(w->text + w->len, w->size - w->len, format, args);
	va_end(args);
	w->len += n > 0 ? (size_t)n : 0;
	w->len = w->len < w->size ? w->len : w->size - 1;
}

static void add_peer(struct words *w, const struct cidr *c)
{
	char ip[INET6_ADDRSTRLEN];
	bool v4 = IN6_IS_ADDR_V4MAPPED(&c->address) && c->prefix >= 96;
	unsigned whole = v4 ? 32 : 128;
	unsigned prefix = v4 ? c->prefix - 96U : c->prefix;

	inet_ntop(v4 ? AF_INET : AF_INET6,
		  v4 ? (const void *)&c->address.s6_addr[12] : (const void *)&c->address, ip,
		  sizeof(ip));
	if (prefix == whole) {
		add(w, "peer %s", ip);
	} else {
		add(w, "peer %s/%u", ip, prefix);
	}
}

void trace_describe(const struct trace_spec *spec, char *text, size_t size)
{
	struct words w = {.text = text, .size = size};

	text[0] = '\0';
	if (spec->direction != TRACE_BOTH) {
		add(&w, "direction %s", spec->direction == TRACE_IN ? "in" : "out");
	}
	if (spec->domain[0] != '\0') {
		add(&w, "domain %s", spec->domain);
	}
	if (spec->has_peer) {
		add_peer(&w, &spec->peer);
	}
	if (spec->binding[0] != '\0') {
		add(&w, "binding %s", spec->binding);
	}
	if (spec->listener[0] != '\0') {
		add(&w, "listener %s", spec->listener);
	}
	if (spec->sample > 1) {
		add(&w, "sample 1/%llu", (unsigned long long)spec->sample);
	}
	if (spec->content) {
		add(&w, "content");
	}
}
