/*
 * `tlsrpt`: what became of TLS sessions with mail exchangers of a domain, or of all, by day: in the
 * form of reports by SMTP TLS Reporting (RFC 8460 section 4.4).
 */
#include <stdio.h>
#include <string.h>

#include "listeners/control/command.h"

#define BUCKETS_PER_STEP 64
#define DAY_MS UINT64_C(86400000)

static json_t *policy_row(const struct tls_report *t, const struct tls_report_day *d,
			  enum tls_report_policy policy)
{
	json_t *row = value_object();
	json_t *about = value_object();
	json_t *summary = value_object();
	json_t *details = value_array();
	uint64_t failures = 0;

	for (int i = TLS_REPORT_SUCCESS + 1; i < TLS_REPORT_RESULTS; i++) {
		uint32_t count = d->counts[policy][i];
		json_t *detail;

		if (count == 0) {
			continue;
		}
		detail = value_object();
		value_set_text(detail, "result-type",
			       tls_report_result_name((enum tls_report_result)i));
		value_set_number(detail, "failed-session-count", count);
		value_append(details, detail);
		failures += count;
	}
	value_set_text(about, "policy-type", tls_report_policy_name(policy));
	value_set_text(about, "policy-domain", t->domain);
	value_set_number(summary, "total-successful-session-count",
			 d->counts[policy][TLS_REPORT_SUCCESS]);
	value_set_number(summary, "total-failure-session-count", failures);
	value_set(row, "policy", about);
	value_set(row, "summary", summary);
	value_set(row, "failure-details", details);
	return row;
}

static bool is_used(const struct tls_report_day *d, int policy)
{
	static const uint32_t none[TLS_REPORT_RESULTS];

	return memcmp(d->counts[policy], none, sizeof(none)) != 0;
}

static json_t *report_of(const struct scheduler *s, const struct tls_report *t,
			 const struct tls_report_day *d)
{
	json_t *row = value_object();
	json_t *range = value_object();
	json_t *policies = value_array();
	uint64_t start_ms = d->day * DAY_MS;

	value_set_text(row, "organization-name", s->global->hostname);
	value_set_time(range, "start-datetime", start_ms);
	value_set_time(range, "end-datetime", start_ms + DAY_MS - 1);
	value_set(row, "date-range", range);
	for (int i = 0; i < TLS_REPORT_POLICIES; i++) {
		if (is_used(d, i)) {
			value_append(policies, policy_row(t, d, (enum tls_report_policy)i));
		}
	}
	value_set(row, "policies", policies);
	return row;
}

static void add_reports(struct part *p, const struct scheduler *s, const struct tls_report *t)
{
	for (int i = 0; i < TLS_REPORT_DAYS; i++) {
		if (t->days[i].day != 0) {
			part_row(p, report_of(s, t, &t->days[i]));
		}
	}
}

static bool step_one(struct part *p, struct agent *self)
{
	const struct scheduler *s = order_scheduler_of(self);
	const struct tls_report *t =
		tls_report_find(&s->dispatcher.tls_reports, p->order->arguments[0]);

	if (t != NULL) {
		add_reports(p, s, t);
	}
	return true;
}

static bool step_all(struct part *p, struct agent *self)
{
	const struct scheduler *s = order_scheduler_of(self);
	const struct tls_reports *r = &s->dispatcher.tls_reports;

	for (int i = 0; i < BUCKETS_PER_STEP && r->buckets != NULL; i++) {
		for (const struct tls_report *t = r->buckets[p->bucket]; t != NULL;
		     t = t->hash_next) {
			add_reports(p, s, t);
		}
		if (++p->bucket == TLS_REPORT_BUCKETS) {
			return true;
		}
	}
	return r->buckets == NULL;
}

static void merge(struct order *o)
{
	order_answer_rows(o, "reports", NULL, NULL);
}

void command_tlsrpt(struct order *o)
{
	order_on_schedulers(o, o->argument_count > 0 ? step_one : step_all, merge);
}
