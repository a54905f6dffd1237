#include "core/outbound/dane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"

/* "_65535._tcp." */
#define PREFIX_MAX 16

/* ---- the look-up ---- */

static bool is_transient(const struct dns_answer *a)
{
	return a->status != DNS_FOUND && a->status != DNS_NXDOMAIN && a->status != DNS_NODATA;
}

/* Nothing else needs to be asked after this answer. */
static bool decides(const struct dns_answer *a)
{
	return is_transient(a) || (a->status == DNS_FOUND && a->secure);
}

static bool is_alias(const char *name, const char *canonical)
{
	return canonical != NULL && strcasecmp(canonical, name) != 0;
}

static bool find_step(const struct dane_lookup *l, const char *name, const char *canonical,
		      enum dane_step *step)
{
	bool alias = is_alias(name, canonical);

	*step = alias && l->names[DANE_CANONICAL] == NULL ? DANE_CANONICAL : DANE_OWN;
	if (l->names[*step] != NULL) {
		return false;
	}
	return *step == DANE_CANONICAL || !alias ||
	       (l->answers[DANE_CANONICAL] != NULL && !decides(l->answers[DANE_CANONICAL]));
}

bool dane_has_question(const struct dane_lookup *l, const char *name, const char *canonical)
{
	enum dane_step step;

	return find_step(l, name, canonical, &step);
}

bool dane_next_question(struct dane_lookup *l, const char *name, const char *canonical,
			uint16_t port, enum dane_step *step, const char **question)
{
	const char *host;
	size_t size;

	if (!find_step(l, name, canonical, step)) {
		return false;
	}
	host = *step == DANE_CANONICAL ? canonical : name;
	size = strlen(host) + PREFIX_MAX;
	l->names[*step] = check_memory(malloc(size), "a look-up");
	snprintf(l->names[*step], size, "_%u._tcp.%s", port, host);
	*question = l->names[*step];
	return true;
}

void dane_answer(struct dane_lookup *l, enum dane_step step, struct dns_answer *answer)
{
	ASSERT(l->names[step] != NULL && l->answers[step] == NULL);
	l->answers[step] = dns_answer_hold(answer);
}

enum dane_state dane_state(const struct dane_lookup *l, const struct dns_answer **answer,
			   enum dane_step *step)
{
	for (*step = DANE_CANONICAL; *step < DANE_STEPS; ++*step) {
		*answer = l->answers[*step];
		if (*answer != NULL && decides(*answer)) {
			return is_transient(*answer) ? DANE_FAILED : DANE_PRESENT;
		}
	}
	*answer = NULL;
	return DANE_ABSENT;
}

void dane_lookup_close(struct dane_lookup *l)
{
	for (enum dane_step step = DANE_CANONICAL; step < DANE_STEPS; step++) {
		free(l->names[step]);
		dns_answer_release(l->answers[step]);
	}
}

/* ---- records ---- */

static struct tls_tlsa tlsa_of(const struct dns_record *r)
{
	return (struct tls_tlsa){
		.usage = r->tlsa.usage,
		.selector = r->tlsa.selector,
		.matching = r->tlsa.matching,
		.data = r->tlsa.data,
		.len = (uint16_t)r->tlsa.len,
	};
}

static size_t room_for(const struct dns_answer *a, const char *base, const char *const *names)
{
	size_t room = sizeof(struct dane) + strlen(base) + 1;

	for (uint32_t i = 0; i < a->count; i++) {
		room += sizeof(struct tls_tlsa) + a->records[i].tlsa.len;
	}
	for (int i = 0; i < DANE_NAMES_MAX; i++) {
		room += names[i] != NULL ? strlen(names[i]) + 1 : 0;
	}
	/* The next one behind it is aligned, too. */
	return (room + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
}

static void *keep(char **at, const void *data, size_t len)
{
	void *kept = memcpy(*at, data, len);

	*at += len;
	return kept;
}

struct dane *dane_create(const struct dns_answer *answer, const char *base,
			 const char *const *names)
{
	size_t size = room_for(answer, base, names);
	struct dane *d = check_memory(calloc(1, size), "TLSA records");
	char *at;

	ASSERT(answer->type == DNS_TLSA && size <= UINT32_MAX);
	d->size = (uint32_t)size;
	for (uint32_t i = 0; i < answer->count; i++) {
		struct tls_tlsa record = tlsa_of(&answer->records[i]);

		if (tls_tlsa_usable(&record)) {
			d->records[d->count++] = record;
		}
	}
	at = (char *)(d->records + d->count);
	for (uint32_t i = 0; i < d->count; i++) {
		d->records[i].data = keep(&at, d->records[i].data, d->records[i].len);
	}
	d->base = keep(&at, base, strlen(base) + 1);
	for (int i = 0; i < DANE_NAMES_MAX; i++) {
		if (names[i] != NULL) {
			d->names[d->name_count++] = keep(&at, names[i], strlen(names[i]) + 1);
		}
	}
	return d;
}

/* Where what is at `p` in `from` is in the copy. */
static const void *moved(const struct dane *from, const struct dane *to, const void *p)
{
	return (const char *)to + ((const char *)p - (const char *)from);
}

struct dane *dane_copy(const struct dane *d, void *at)
{
	struct dane *copy = memcpy(at, d, d->size);

	copy->base = moved(d, copy, d->base);
	for (uint16_t i = 0; i < d->name_count; i++) {
		copy->names[i] = moved(d, copy, d->names[i]);
	}
	for (uint16_t i = 0; i < d->count; i++) {
		copy->records[i].data = moved(d, copy, d->records[i].data);
	}
	return copy;
}
