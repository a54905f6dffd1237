/* What the load generator prints at the end. */
#include "perf/load.h"
#include "perf/moment.h"

static double seconds_of(const struct load *load)
{
	return (double)(load->end_ns - load->start_ns) / (double)NS_PER_S;
}

static double per(double value, double count)
{
	return count > 0 ? value / count : 0;
}

static uint64_t unsent(const struct load *load)
{
	return load->options.messages - load->next_message;
}

static double us_at(const struct load *load, double fraction)
{
	return (double)latency_at(&load->latency, fraction) / 1e3;
}

void load_append_summary(const struct load *load, struct text *t)
{
	const struct load_counts *c = &load->counts;
	double seconds = seconds_of(load);

	text_printf(t, "accepted %lu of %lu in %.3f s: %.0f messages/s, %.1f MB/s\n", c->accepted,
		    load->options.messages, seconds, per((double)c->accepted, seconds),
		    per((double)c->bytes / 1e6, seconds));
	text_printf(t, "4xx %lu  5xx %lu  errors %lu  unsent %lu  retries %lu\n", c->tempfailed,
		    c->permfailed, c->errors, unsent(load), c->retries);
	text_printf(t, "connections %lu  failed %lu  lost %lu  timeouts %lu  protocol errors %lu\n",
		    c->connections, c->connect_failures, c->connections_lost, c->timeouts,
		    c->protocol_errors);
	text_printf(t, "latency us: p50 %.0f  p99 %.0f  p99.9 %.0f  max %.0f\n", us_at(load, 0.5),
		    us_at(load, 0.99), us_at(load, 0.999), (double)load->latency.max_ns / 1e3);
	text_printf(t, "CPU: %.2f us per message\n",
		    per((double)load->cpu_us, (double)c->accepted));
	if (load->first_trouble.len > 0) {
		text_printf(t, "first trouble: %s\n", load->first_trouble.data);
	}
}

static void append_count(struct text *t, const char *name, uint64_t value)
{
	text_printf(t, "  \"%s\": %lu,\n", name, value);
}

static void append_real(struct text *t, const char *name, double value)
{
	text_printf(t, "  \"%s\": %.6g,\n", name, value);
}

void load_append_json(const struct load *load, struct text *t)
{
	const struct load_counts *c = &load->counts;
	double seconds = seconds_of(load);

	text_append_string(t, "{\n");
	append_count(t, "messages", load->options.messages);
	append_count(t, "sessions", load->options.sessions);
	append_count(t, "size", load->options.size);
	append_count(t, "recipients_per_message", load->options.recipients);
	append_count(t, "domains", load->options.domains);
	append_count(t, "accepted", c->accepted);
	append_count(t, "temporary_failures", c->tempfailed);
	append_count(t, "permanent_failures", c->permfailed);
	append_count(t, "errors", c->errors);
	append_count(t, "unsent", unsent(load));
	append_count(t, "retries", c->retries);
	append_count(t, "recipients_accepted", c->recipients_accepted);
	append_count(t, "recipients_refused", c->recipients_refused);
	append_count(t, "connections", c->connections);
	append_count(t, "connect_failures", c->connect_failures);
	append_count(t, "tls_handshakes", c->tls_handshakes);
	append_count(t, "connections_lost", c->connections_lost);
	append_count(t, "timeouts", c->timeouts);
	append_count(t, "protocol_errors", c->protocol_errors);
	append_count(t, "started_ns", load->start_ns);
	append_real(t, "seconds", seconds);
	append_real(t, "messages_per_second", per((double)c->accepted, seconds));
	append_real(t, "megabytes_per_second", per((double)c->bytes / 1e6, seconds));
	append_real(t, "cpu_us_per_message", per((double)load->cpu_us, (double)c->accepted));
	text_append_string(t, "  \"latency_us\": ");
	latency_append_json(&load->latency, t);
	text_append_string(t, ",\n  \"first_trouble\": ");
	text_append_json(t, load->first_trouble.len > 0 ? load->first_trouble.data : "");
	text_append_string(t, "\n}\n");
}
