#include "core/outbound/tls_report.h"

#include <stdlib.h>
#include <string.h>

#include "core/queue/domain.h"
#include "core/runtime/check.h"

#define DAY_MS UINT64_C(86400000)

static struct tls_report **slot_of(const struct tls_reports *r, const char *domain)
{
	uint64_t hash = domain_hash("", domain, strlen(domain));
	struct tls_report **at = &r->buckets[hash & (TLS_REPORT_BUCKETS - 1)];

	while (*at != NULL && strcmp((*at)->domain, domain) != 0) {
		at = &(*at)->hash_next;
	}
	return at;
}

static void list_remove(struct tls_reports *r, struct tls_report *t)
{
	*(t->prev != NULL ? &t->prev->next : &r->first) = t->next;
	*(t->next != NULL ? &t->next->prev : &r->last) = t->prev;
}

static void list_put_first(struct tls_reports *r, struct tls_report *t)
{
	t->prev = NULL;
	t->next = r->first;
	*(r->first != NULL ? &r->first->prev : &r->last) = t;
	r->first = t;
}

static void drop(struct tls_reports *r, struct tls_report *t)
{
	struct tls_report **at = slot_of(r, t->domain);

	ASSERT(*at == t);
	*at = t->hash_next;
	list_remove(r, t);
	r->count--;
	free(t);
}

static struct tls_report *find_or_make(struct tls_reports *r, const char *domain)
{
	size_t size = strlen(domain) + 1;
	struct tls_report **at = slot_of(r, domain);
	struct tls_report *t = *at;

	if (t != NULL) {
		list_remove(r, t);
		list_put_first(r, t);
		return t;
	}
	t = check_memory(calloc(1, sizeof *t + size), "counts of TLS sessions");
	memcpy(t->domain, domain, size);
	*at = t;
	list_put_first(r, t);
	if (++r->count > TLS_REPORT_DOMAINS_MAX) {
		drop(r, r->last);
	}
	return t;
}

/* The counts of a day; a new one takes the place of the oldest. */
static struct tls_report_day *day_of(struct tls_report *t, uint32_t day)
{
	struct tls_report_day *oldest = &t->days[0];

	for (int i = 0; i < TLS_REPORT_DAYS; i++) {
		if (t->days[i].day == day) {
			return &t->days[i];
		}
		if (t->days[i].day < oldest->day) {
			oldest = &t->days[i];
		}
	}
	*oldest = (struct tls_report_day){.day = day};
	return oldest;
}

void tls_report_count(struct tls_reports *r, const char *domain, enum tls_report_policy policy,
		      enum tls_report_result result, uint64_t wall_ms)
{
	struct tls_report_day *d;

	if (r->buckets == NULL) {
		r->buckets = check_memory(calloc(TLS_REPORT_BUCKETS, sizeof(struct tls_report *)),
					  "counts of TLS sessions");
	}
	d = day_of(find_or_make(r, domain), (uint32_t)(wall_ms / DAY_MS));
	d->counts[policy][result]++;
}

const struct tls_report *tls_report_find(const struct tls_reports *r, const char *domain)
{
	return r->buckets != NULL ? *slot_of(r, domain) : NULL;
}

const char *tls_report_policy_name(enum tls_report_policy policy)
{
	static const char *const names[TLS_REPORT_POLICIES] = {
		[TLS_REPORT_TLSA] = "tlsa",
		[TLS_REPORT_STS] = "sts",
		[TLS_REPORT_NO_POLICY] = "no-policy-found",
	};

	return names[policy];
}

const char *tls_report_result_name(enum tls_report_result result)
{
	static const char *const names[TLS_REPORT_RESULTS] = {
		[TLS_REPORT_STARTTLS_NOT_SUPPORTED] = "starttls-not-supported",
		[TLS_REPORT_HOST_MISMATCH] = "certificate-host-mismatch",
		[TLS_REPORT_EXPIRED] = "certificate-expired",
		[TLS_REPORT_NOT_TRUSTED] = "certificate-not-trusted",
		[TLS_REPORT_VALIDATION_FAILURE] = "validation-failure",
		[TLS_REPORT_TLSA_INVALID] = "tlsa-invalid",
		[TLS_REPORT_DNSSEC_INVALID] = "dnssec-invalid",
		[TLS_REPORT_DANE_REQUIRED] = "dane-required",
		[TLS_REPORT_STS_FETCH_ERROR] = "sts-policy-fetch-error",
		[TLS_REPORT_STS_INVALID] = "sts-policy-invalid",
		[TLS_REPORT_STS_WEBPKI] = "sts-webpki-invalid",
	};

	return names[result];
}

void tls_reports_close(struct tls_reports *r)
{
	while (r->first != NULL) {
		drop(r, r->first);
	}
	free(r->buckets);
	r->buckets = NULL;
}
