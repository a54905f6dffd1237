/*
 * Every option of the schema, in every scope it may stand in: it changes the answer, to what was
 * written. Then defaults, derived values, agents and groups, listeners and peers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/config.h"
#include "config/generation.h"
#include "config/schema.h"
#include "core/queue/throttle.h"
#include "tests/unit/config_samples.h"
#include "tests/unit/config_world.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/tls_world.h"

enum { TEXT_MAX = 4096 };

/* What stands around an option of each kind of scope. */
static const char *contexts[SCOPES] = {
	[SCOPE_GLOBAL] = "%s esmtp_listener { listen 127.0.0.1:25 { } }",
	[SCOPE_SPOOL] = "spool { %s }",
	[SCOPE_LOG] = "log { %s }",
	[SCOPE_CUSTOM_LOGGER] = "custom_logger c { mainlog = \"file:c\" delivery_format = x %s }",
	[SCOPE_JOURNAL] = "log { main = \"jlog:j\" } journal j { size_limit = 2G %s }",
	[SCOPE_RESOLVER] = "resolver { %s }",
	[SCOPE_STS] = "mta_sts { %s }",
	[SCOPE_SCRIPTLET] = "scriptlet scriptlet { %s }",
	[SCOPE_INBOUND_AUDIT] = "inbound_audit { %s }",
	[SCOPE_DATASOURCE] = "datasource data { uri = \"sqlite:/x\" %s }",
	[SCOPE_GROUP] = "group crew { %s } agent wheel { group = crew }",
	[SCOPE_AGENT] = "agent scheduler { %s } group crew { }",
	[SCOPE_SERVICE_AGENT] = "agent wheel { %s } group crew { }",
	[SCOPE_LOG_AGENT] = "agent log { %s } group crew { }",
	[SCOPE_POOL_AGENT] = "agent pool { count = 1 %s } group crew { }",
	[SCOPE_ESMTP_LISTENER] = "esmtp_listener { %s listen 127.0.0.1:25 { } }",
	[SCOPE_ESMTP_LISTEN] = "esmtp_listener { listen 127.0.0.1:25 { %s } }",
	[SCOPE_ESMTP_PEER] = "esmtp_listener { listen 127.0.0.1:25 { peer 127.0.0.0/8 { %s } } }",
	[SCOPE_CONTROL_LISTENER] = "control_listener { %s listen \"/run/x\" { } }",
	[SCOPE_CONTROL_LISTEN] = "control_listener { listen \"/run/x\" { %s } }",
	[SCOPE_HTTP_LISTENER] = "http_listener { %s listen 127.0.0.1:8025 { } }",
	[SCOPE_HTTP_LISTEN] = "http_listener { listen 127.0.0.1:8025 { %s } }",
	[SCOPE_GRAPHITE] = "graphite { server = \"192.0.2.1:2003\" %s }",
	[SCOPE_DKIM] = "dkim example.com { selector = s1 key = rsa.pem %s }",
	[SCOPE_DKIM_SIGNATURE] =
		"dkim a.b { signature s { key = rsa.pem } signature t { key = rsa.pem %s } }",
	[SCOPE_BINDING_GROUP] = "binding_group g { %s binding b { } }",
	[SCOPE_BINDING] = "binding b { %s }",
	[SCOPE_PROVIDER] = "provider p { mx_suffix = .p.example %s }",
	[SCOPE_DOMAIN] = "domain example.com { %s }",
};

static struct in6_addr address(const char *text)
{
	struct in6_addr in6;
	assert_int_equal(inet_pton(AF_INET6, text, &in6), 1);
	return in6;
}

static uint64_t integer_at(const void *field, size_t size)
{
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	switch (size) {
	case 1:
		memcpy(&u8, field, sizeof(u8));
		return u8;
	case 2:
		memcpy(&u16, field, sizeof(u16));
		return u16;
	case 4:
		memcpy(&u32, field, sizeof(u32));
		return u32;
	default:
		assert_int_equal(size, sizeof(u64));
		memcpy(&u64, field, sizeof(u64));
		return u64;
	}
}

static void describe_list(const struct schema_option *option, const void *items, uint32_t count,
			  FILE *out)
{
	char text[INET6_ADDRSTRLEN];
	fprintf(out, "%u", count);
	for (uint32_t i = 0; i < count; i++) {
		if (option->type == TYPE_NETWORKS) {
			const struct cidr *c = (const struct cidr *)items + i;
			inet_ntop(AF_INET6, &c->address, text, sizeof(text));
			fprintf(out, " %s/%u", text, c->prefix);
		} else if (option->type == TYPE_BIND_ADDRESSES) {
			inet_ntop(AF_INET6, (const struct in6_addr *)items + i, text, sizeof(text));
			fprintf(out, " %s", text);
		} else if (option->type == TYPE_DOMAINS || option->type == TYPE_FIELDS ||
			   option->type == TYPE_NAME_SERVERS || option->type == TYPE_DESTINATIONS ||
			   option->type == TYPE_SUBSCRIBERS) {
			fprintf(out, " %s", ((const char *const *)items)[i]);
		} else if (option->type == TYPE_MONITORS) {
			const struct inbound_monitor *m = (const struct inbound_monitor *)items + i;
			fprintf(out, " %u,%u", m->interval_s, m->windows);
		} else if (option->type == TYPE_GATEWAYS) {
			const struct gateway *g = (const struct gateway *)items + i;
			fprintf(out, " %s %u %u", g->host, g->port, g->preference);
		} else {
			fprintf(out, " %d", ((const int *)items)[i]);
		}
	}
}

static void describe_field(const struct schema_option *option, const void *base, FILE *out)
{
	const char *field = (const char *)base + option->offset;
	const void *pointer;
	struct rate rate;
	uint32_t count;
	switch (option->type) {
	case TYPE_TEXT:
	case TYPE_HOSTNAME:
	case TYPE_ADDRESS:
	case TYPE_FIELD:
		memcpy(&pointer, field, sizeof(pointer));
		fputs(pointer != NULL ? pointer : "unset", out);
		break;
	case TYPE_TLS_CA:
		memcpy(&pointer, field, sizeof(pointer));
		fputs(pointer != NULL ? "a client's context" : "unset", out);
		break;
	case TYPE_THROTTLE:
		memcpy(&pointer, field, sizeof(pointer));
		if (pointer == NULL) {
			fputs("none", out);
		} else {
			const struct throttle *t = pointer;
			fprintf(out, "%" PRIu64 "/%" PRIu64, t->count, t->period_s);
		}
		break;
	case TYPE_RATE:
		memcpy(&rate, field, sizeof(rate));
		fprintf(out, "%u/%u", rate.count, rate.period_s);
		break;
	case TYPE_CORES:
	case TYPE_NETWORKS:
	case TYPE_DOMAINS:
	case TYPE_NAME_SERVERS:
	case TYPE_GATEWAYS:
	case TYPE_FIELDS:
	case TYPE_BIND_ADDRESSES:
	case TYPE_DESTINATIONS:
	case TYPE_SUBSCRIBERS:
	case TYPE_MONITORS:
		memcpy(&pointer, field, sizeof(pointer));
		memcpy(&count, (const char *)base + option->count_offset, sizeof(count));
		describe_list(option, pointer, count, out);
		break;
	default:
		fprintf(out, "%" PRIu64, integer_at(field, option->size));
	}
}

static enum config_agent agent_of(enum schema_scope scope)
{
	return scope == SCOPE_POOL_AGENT      ? CONFIG_AGENT_POOL
	       : scope == SCOPE_SERVICE_AGENT ? CONFIG_AGENT_WHEEL
	       : scope == SCOPE_LOG_AGENT     ? CONFIG_AGENT_LOG
					      : CONFIG_AGENT_SCHEDULER;
}

/* Agents are put together from two structs; this puts them back. */
static void describe_agent(const struct schema_option *option, const struct agent_options *agent,
			   FILE *out)
{
	const struct agent_settings settings = {
		.count = agent->count,
		.core = agent->cores[0],
		.cores = agent->cores,
		.core_count = agent->count,
		.group = agent->group,
	};
	describe_field(option, &settings, out);
}

static void describe_listen(const struct config *config, const struct schema_option *option,
			    enum schema_scope scope, FILE *out)
{
	struct listen_settings settings = {.enable = true};
	bool control = scope == SCOPE_CONTROL_LISTENER || scope == SCOPE_CONTROL_LISTEN;
	bool http = scope == SCOPE_HTTP_LISTENER || scope == SCOPE_HTTP_LISTEN;
	uint32_t count = control ? config_control_listen_count(config)
			 : http  ? config_http_listen_count(config)
				 : config_smtp_listen_count(config);
	if (count == 0) {
		fputs("no listen", out);
		return;
	}
	settings.options = control ? *config_control_listen(config, 0)
			   : http  ? *config_http_listen(config, 0)
				   : *config_smtp_listen(config, 0);
	describe_field(option, &settings, out);
}

/* The signature that the scope stands for, put back into the words that made it. */
static void describe_dkim(const struct config *config, const struct schema_option *option,
			  enum schema_scope scope, FILE *out)
{
	const struct dkim_policy *policy = config_dkim_at(config, 0);
	assert_int_equal(policy->count, scope == SCOPE_DKIM ? 1 : 2);
	const struct dkim_signature *g = &policy->signatures[policy->count - 1];
	const struct dkim_key *key = dkim_keys_now(policy->keys)[g->key];
	const struct dkim_settings settings = {
		.selector = g->selector,
		.key = dkim_key_algorithm(key) == DKIM_RSA_SHA256 ? "0" : "1",
		.canonicalization = (g->header == DKIM_SIMPLE ? 2U : 0U) + (g->body == DKIM_SIMPLE),
		.fields = g->fields,
		.field_count = g->field_count,
		.oversigned = g->oversigned,
		.oversigned_count = g->oversigned_count,
		.expiration_ms = g->expiration_s * 1000,
	};
	describe_field(option, &settings, out);
}

/* What a custom logger writes. */
static void describe_custom(const struct config *config, FILE *out)
{
	uint32_t count;
	const struct custom_logger *logger = config_custom_loggers(config, &count);
	struct event e = {.text = {[EVENT_SENDER] = "a;b@c", [EVENT_RECIPIENT] = "d@e"}};
	char line[EVENT_MACRO_LINE_MAX];
	assert_int_equal(count, 1);
	for (unsigned i = 0; i < CUSTOM_STAGES; i++) {
		if (logger->macros[i] != NULL) {
			size_t len = event_macro_format(logger->macros[i], &logger->sanitizer, &e,
							NULL, line, sizeof(line));
			fprintf(out, "%u %s %.*s;", i, logger->destinations[i], (int)len, line);
		}
	}
}

/* What the generation answers where `option` of `scope` counts. */
static void describe(const struct config *config, const struct schema_option *option,
		     enum schema_scope scope, char *shown, size_t size)
{
	const struct in6_addr loopback = address("::ffff:127.0.0.1");
	const struct group_options *group = config_group(config, "crew");
	uint32_t count;
	FILE *out = fmemopen(shown, size, "w");
	assert_non_null(out);
	switch (option->target) {
	case TARGET_GLOBAL:
		describe_field(option, config_global(config), out);
		break;
	case TARGET_SMTP:
		describe_field(option, config_smtp(config, 0, &loopback), out);
		break;
	case TARGET_LISTEN:
		describe_listen(config, option, scope, out);
		break;
	case TARGET_DOMAIN:
		describe_field(option, config_outbound(config, "b", "p", "example.com", 11), out);
		break;
	case TARGET_AGENT:
		describe_agent(option, config_agent(config, agent_of(scope)), out);
		break;
	case TARGET_TLS_PAIR:
		if (config->tls_pair_count != 0) {
			describe_field(option, &config->tls_pairs[0], out);
		}
		break;
	case TARGET_BINDING:
		if (config_binding_count(config) != 0) {
			describe_field(option, config_binding(config, 0), out);
		}
		break;
	case TARGET_HTTP:
		describe_field(option, config_http(config, 0), out);
		break;
	case TARGET_GROUP:
		describe_field(option, group, out);
		break;
	case TARGET_CUSTOM:
		describe_custom(config, out);
		break;
	case TARGET_SOURCE:
		describe_field(option, config_source(config, "data"), out);
		break;
	case TARGET_SCRIPT:
		fputs(strrchr(config_scripts(config)->list[0].path, '/') + 1, out);
		break;
	case TARGET_JOURNAL:
		describe_field(option, config_journals(config, &count), out);
		assert_int_equal(count, 1);
		break;
	case TARGET_DKIM:
		describe_dkim(config, option, scope, out);
		break;
	default:
		assert_int_equal(option->target, TARGET_IDLE);
		describe_field(option,
			       scope == SCOPE_GROUP ? &group->idle
						    : &config_agent(config, agent_of(scope))->idle,
			       out);
	}
	fclose(out);
}

static const char *plain_name(const struct sample *sample)
{
	const char *space = strchr(sample->name, ' ');
	return space != NULL ? space + 1 : sample->name;
}

static const struct sample *sample_of(const struct schema_option *option)
{
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		bool dkim = strncmp(samples[i].name, "dkim ", 5) == 0;
		if (strcmp(plain_name(&samples[i]), option->name) == 0 &&
		    (dkim == (option->target == TARGET_DKIM) ||
		     plain_name(&samples[i]) == samples[i].name)) {
			return &samples[i];
		}
	}
	fail_msg("option \"%s\" has no sample in this test", option->name);
	return NULL;
}

/* Options that name files, or need them. */
static const char *const file_samples[][2] = {
	{"source", "\"%/policy.lua\""},
	{"tls_certificate", "\"%/both.pem\""},
	{"tls_key", "\"%/key.pem\""},
	{"tls_client_ca", "\"%/ca.pem\""},
	{"use_ssl", "true tls_certificate = \"%/both.pem\""},
	{"certificate", "\"%/both.pem\""},
	{"tls_certificate key", "\"%/both.pem\""},
	{"tls_ca", "\"%/ca.pem\""},
};

/* `format` with the folder for each %. */
static void write_path(char *text, size_t size, const char *format)
{
	FILE *out = fmemopen(text, size, "w");
	assert_non_null(out);
	for (; *format != '\0'; format++) {
		if (*format == '%') {
			fputs(tls_folder, out);
		} else {
			fputc(*format, out);
		}
	}
	fclose(out);
}

static void write_script(const char *format)
{
	char path[256];
	FILE *out;
	write_path(path, sizeof(path), format);
	out = fopen(path, "w");
	assert_non_null(out);
	fputs("local x = 1\n", out);
	fclose(out);
}

/* Their paths are known only now. */
static int name_files(void **state)
{
	static char texts[sizeof(file_samples) / sizeof(file_samples[0])][256];
	static char stanza[256];
	static char script[256];
	int rc = tls_make_files(state);
	write_script("%/policy.lua");
	write_script("%/other.lua");
	write_path(script, sizeof(script),
		   "scriptlet scriptlet { script s { source = \"%/other.lua\" $s } }");
	*strchr(script, '$') = '%';
	contexts[SCOPE_SCRIPT] = script;
	write_path(stanza, sizeof(stanza),
		   "tls_certificate mx.example.com { certificate = \"%/mx.pem\" "
		   "key = \"%/key.pem\" $s }");
	*strchr(stanza, '$') = '%';
	contexts[SCOPE_TLS_CERTIFICATE] = stanza;
	for (size_t f = 0; rc == 0 && f < sizeof(file_samples) / sizeof(file_samples[0]); f++) {
		for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
			if (strcmp(samples[i].name, file_samples[f][0]) == 0) {
				write_path(texts[f], sizeof(texts[f]), file_samples[f][1]);
				samples[i].written = texts[f];
			}
		}
	}
	return rc;
}

static struct config *load_in(enum schema_scope scope, const char *statement)
{
	char text[TEXT_MAX];
	const char *context = contexts[scope];
	const char *hole = strstr(context, "%s");
	assert_non_null(hole);
	snprintf(text, sizeof(text), "%.*s%s%s\n", (int)(hole - context), context, statement,
		 hole + 2);
	return load_valid(text);
}

static void check_option_in(const struct schema_option *option, enum schema_scope scope)
{
	const struct sample *sample = sample_of(option);
	char statement[TEXT_MAX];
	char without[TEXT_MAX];
	char with[TEXT_MAX];

	struct config *config = load_in(scope, "");
	describe(config, option, scope, without, sizeof(without));
	config_release(config);

	snprintf(statement, sizeof(statement), "%s = %s", option->name, sample->written);
	config = load_in(scope, statement);
	describe(config, option, scope, with, sizeof(with));
	config_release(config);

	/* Of a path, its end. */
	size_t shown = strlen(sample->shown);
	char *end = with[0] == '/' && strlen(with) > shown && sample->shown[0] != '/'
			    ? with + strlen(with) - shown
			    : with;
	memmove(with, end, strlen(end) + 1);
	if (strcmp(with, sample->shown) != 0 || strcmp(with, without) == 0) {
		print_error("%s in scope %d: \"%s\" without, \"%s\" with\n", statement, (int)scope,
			    without, with);
	}
	assert_string_equal(with, sample->shown);
	assert_string_not_equal(with, without);
}

static void test_every_option_changes_the_answer_in_every_scope(void **state)
{
	unsigned checked = 0;
	(void)state;
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		const struct schema_option *option = &schema_options[i];
		assert_int_not_equal(option->scopes, 0);
		for (enum schema_scope scope = 0; scope < SCOPES; scope++) {
			bool allowed = (option->scopes >> scope & 1) != 0;
			/* There is one wheel and one log agent, whoever counts. */
			bool fixed = (scope == SCOPE_SERVICE_AGENT || scope == SCOPE_LOG_AGENT) &&
				     strcmp(option->name, "count") == 0;
			if (allowed && !fixed) {
				check_option_in(option, scope);
				checked++;
			}
		}
	}
	assert_true(checked > schema_option_count());
}

static void test_every_sample_has_an_option(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		bool found = false;
		for (enum schema_scope scope = 0; scope < SCOPES; scope++) {
			found |= schema_option_find(plain_name(&samples[i]), scope) != NULL;
		}
		assert_true(found);
	}
}

/* One name has one meaning in one scope. */
static void test_schema_has_no_name_twice_in_a_scope(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		for (uint32_t j = 0; j < i; j++) {
			if (strcmp(schema_options[i].name, schema_options[j].name) == 0) {
				assert_int_equal(
					schema_options[i].scopes & schema_options[j].scopes, 0);
			}
		}
	}
}

static void test_defaults_when_empty(void **state)
{
	char *captured;
	(void)state;
	struct config *config = load("", &captured);
	assert_non_null(config);
	assert_string_equal(captured, "test.conf: warning: no mail is received; expected "
				      "esmtp_listener { listen \"127.0.0.1:25\" { } }\n");
	free(captured);

	const struct global_options *global = config_global(config);
	assert_string_equal(global->spool_path, "/var/spool/flywheel");
	assert_string_equal(global->log_path, "/var/log/flywheel");
	assert_int_equal(global->spool_segment_bytes, 256 << 20);
	assert_int_equal(global->memory_budget_bytes, 256 << 20);
	assert_int_equal(global->durability, CONFIG_SYNCED);
	assert_int_equal(global->stop_timeout_ms, 8000);
	assert_int_equal(global->stall_ns, 100000000);
	assert_int_equal(global->server_max_outbound_connections, 20000);
	assert_non_null(global->hostname);

	const struct domain_options *domain = config_domain(config, NULL, "example.com", 11);
	assert_int_equal(domain->gateway_count, 0);
	assert_int_equal(domain->remote_smtp_port, 25);
	assert_int_equal(domain->max_outbound_connections, 32);
	assert_int_equal(domain->max_recipients_per_batch, 100);
	assert_int_equal(domain->retry_interval_ms, 1200000);
	assert_int_equal(domain->max_retry_interval_ms, 43200000);
	assert_int_equal(domain->message_expiration_ms, 86400000);
	assert_int_equal(domain->connect_timeout_ms, 300000);
	assert_int_equal(domain->body_timeout_ms, 600000);
	assert_int_equal(domain->idle_timeout_ms, 5000);
	assert_true(domain->generate_bounces);
	assert_false(domain->suspend_delivery);
	assert_null(domain->throttle_messages);
	assert_null(domain->throttle_connections);
	assert_string_equal(domain->ehlo_hostname, global->hostname);

	assert_int_equal(config_smtp_listen_count(config), 0);
	assert_int_equal(config_control_listen_count(config), 0);
	assert_int_equal(config_group_count(config), 0);
	config_release(config);
}

/* An idle server must not cost a core: nothing spins for longer than it takes to park. */
static void test_defaults_when_idle(void **state)
{
	(void)state;
	struct config *config = load_valid("");
	for (enum config_agent kind = 0; kind < CONFIG_AGENTS; kind++) {
		const struct agent_options *agent = config_agent(config, kind);
		assert_int_equal(agent->idle.strategy, CONFIG_IDLE_PARK);
		assert_true(agent->idle.spin_ns <= 50000);
		assert_int_equal(agent->count, kind == CONFIG_AGENT_POOL ? 4 : 1);
		assert_int_equal(agent->cores[0], -1);
		assert_null(agent->group);
	}
	assert_int_equal(config_agent(config, CONFIG_AGENT_SCHEDULER)->idle.spin_ns, 50000);
	assert_int_equal(config_agent(config, CONFIG_AGENT_WHEEL)->idle.spin_ns, 0);
	config_release(config);
}

static void test_defaults_when_derived(void **state)
{
	const struct in6_addr peer = address("::1");
	(void)state;
	struct config *config =
		load_valid("hostname = mta.example.org spool { durability = memory "
			   "segment_size = 16M } esmtp_listener { listen \"[::1]:25\" { } }");
	const struct smtp_options *smtp = config_smtp(config, 0, &peer);
	const struct domain_options *domain = config_domain(config, NULL, "a.example", 9);
	assert_string_equal(smtp->hostname, "mta.example.org");
	assert_string_equal(domain->ehlo_hostname, "mta.example.org");
	assert_string_equal(domain->mailerdaemon, "mailer-daemon@mta.example.org");
	assert_int_equal(smtp->durability, CONFIG_MEMORY);
	/* Half of a segment, because 32M do not fit. */
	assert_int_equal(smtp->max_message_bytes, 8 << 20);
	assert_int_equal(smtp->relay_host_count, 2);
	assert_int_equal(smtp->relay_domain_count, 0);
	config_release(config);
}

static void test_journals_when_their_limits_differ(void **state)
{
	static const char *const names[] = {"billing", "analytics"};
	uint32_t count;
	(void)state;
	struct config *config = load_valid(
		"log { main = ( \"file:mainlog\" \"jlog:a\" ) bounce = \"json:b.jlog\" }\n"
		"custom_logger c { delivery_logfile = \"jlog:c\" delivery_format = x }\n"
		"journal a { }\n"
		"journal b.jlog { size_limit = 1M sync = never }\n"
		"journal c { size_limit = 0 segment_size = 2G subscribers = ( billing analytics ) }\n");
	const struct log_journal_options *j = config_journals(config, &count);
	assert_int_equal(count, 3);
	/* Nothing is said: as journals without a scope. */
	assert_string_equal(j[0].name, "a");
	assert_int_equal(j[0].segment_bytes, JOURNAL_SEGMENT_BYTES);
	assert_int_equal(j[0].limit_bytes, JOURNAL_LIMIT_BYTES);
	assert_int_equal(j[0].safety, JLOG_ALMOST_SAFE);
	assert_int_equal(j[0].subscriber_count, 0);
	assert_string_equal(j[1].name, "b.jlog");
	assert_int_equal(j[1].segment_bytes, (1 << 20) / 10);
	assert_int_equal(j[1].safety, JLOG_UNSAFE);
	assert_string_equal(j[2].name, "c");
	assert_int_equal(j[2].segment_bytes, UINT32_C(2) << 30);
	assert_int_equal(j[2].limit_bytes, 0);
	assert_int_equal(j[2].subscriber_count, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_string_equal(j[2].subscribers[i], names[i]);
	}
	config_release(config);
}

static void test_node_id_when_hostnames_differ(void **state)
{
	(void)state;
	struct config *a = load_valid("hostname = mta1.example.org");
	struct config *b = load_valid("hostname = mta2.example.org");
	struct config *c = load_valid("hostname = mta1.example.org");
	assert_int_not_equal(config_global(a)->node_id, config_global(b)->node_id);
	assert_int_equal(config_global(a)->node_id, config_global(c)->node_id);
	config_release(a);
	config_release(b);
	config_release(c);
}

static void test_agents_when_pinned_and_grouped(void **state)
{
	(void)state;
	struct config *config = load_valid(
		"agent SCHEDULER { cores = ( 2 0 -1 ) }\n"
		"agent spool { core = 3 }\n"
		"agent wheel { group = service }\n"
		"agent log { group = \"service\" }\n"
		"group service { core = 1 idle = backoff max_spins = 5 min_park = 2us }\n");
	const struct agent_options *schedulers = config_agent(config, CONFIG_AGENT_SCHEDULER);
	assert_int_equal(schedulers->count, 3);
	assert_int_equal(schedulers->cores[0], 2);
	assert_int_equal(schedulers->cores[1], 0);
	assert_int_equal(schedulers->cores[2], -1);
	assert_int_equal(config_agent(config, CONFIG_AGENT_SPOOL)->cores[0], 3);
	assert_string_equal(config_agent(config, CONFIG_AGENT_WHEEL)->group, "service");
	assert_string_equal(config_agent(config, CONFIG_AGENT_LOG)->group, "service");
	const struct group_options *group = config_group(config, "service");
	assert_non_null(group);
	assert_ptr_equal(group, config_group_at(config, 0));
	assert_int_equal(group->core, 1);
	assert_int_equal(group->idle.strategy, CONFIG_IDLE_BACKOFF);
	assert_int_equal(group->idle.max_spins, 5);
	assert_int_equal(group->idle.max_yields, 20);
	assert_int_equal(group->idle.min_park_ns, 2000);
	assert_int_equal(group->idle.max_park_ns, 50000000);
	assert_null(config_group(config, "Service"));
	config_release(config);
}

static void check_listen(const struct listen_options *listen, int family, const char *host,
			 uint16_t port)
{
	char text[INET6_ADDRSTRLEN];
	assert_int_equal(listen->address.ss_family, family);
	if (family == AF_INET) {
		const struct sockaddr_in *in = (const void *)&listen->address;
		assert_int_equal(listen->address_len, sizeof(*in));
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		assert_int_equal(ntohs(in->sin_port), port);
	} else {
		const struct sockaddr_in6 *in6 = (const void *)&listen->address;
		assert_int_equal(listen->address_len, sizeof(*in6));
		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		assert_int_equal(ntohs(in6->sin6_port), port);
	}
	assert_string_equal(text, host);
}

static void test_listens_when_written_in_each_way(void **state)
{
	(void)state;
	struct config *config = load_valid("esmtp_listener {\n"
					   "listen 192.0.2.1:25 { }\n"
					   "listen \"[2001:db8::1]:26\" { }\n"
					   "listen *:27 { }\n"
					   "listen :28 { }\n"
					   "listen \"[*]:29\" { }\n"
					   "listen 127.0.0.1:0 { }\n"
					   "listen 192.0.2.2:25 { enable = off }\n"
					   "}\n"
					   "esmtp_listener other { enable = false\n"
					   "listen 192.0.2.3:25 { enable = true }\n"
					   "}\n"
					   "control_listener { listen run/control { } }\n");
	assert_int_equal(config_smtp_listen_count(config), 6);
	check_listen(config_smtp_listen(config, 0), AF_INET, "192.0.2.1", 25);
	check_listen(config_smtp_listen(config, 1), AF_INET6, "2001:db8::1", 26);
	check_listen(config_smtp_listen(config, 2), AF_INET6, "::", 27);
	check_listen(config_smtp_listen(config, 3), AF_INET6, "::", 28);
	check_listen(config_smtp_listen(config, 4), AF_INET6, "::", 29);
	check_listen(config_smtp_listen(config, 5), AF_INET, "127.0.0.1", 0);
	assert_string_equal(config_smtp_listen(config, 2)->name, "*:27");

	assert_int_equal(config_control_listen_count(config), 1);
	const struct listen_options *control = config_control_listen(config, 0);
	const struct sockaddr_un *un = (const void *)&control->address;
	assert_int_equal(un->sun_family, AF_UNIX);
	assert_string_equal(un->sun_path, "run/control");
	assert_int_equal(control->address_len,
			 offsetof(struct sockaddr_un, sun_path) + strlen("run/control") + 1);
	assert_int_equal(control->file_mode, 0660);
	config_release(config);
}

static uint32_t recipients(const struct config *config, uint32_t listen, const char *peer)
{
	const struct in6_addr in6 = address(peer);
	return config_smtp(config, listen, &in6)->max_recipients_per_message;
}

static void test_smtp_when_peers_overlap(void **state)
{
	(void)state;
	struct config *config =
		load_valid("max_recipients_per_message = 1  max_idle_commands = 91\n"
			   "esmtp_listener {\n"
			   "	max_recipients_per_message = 2\n"
			   "	peer 10.0.0.0/8 { max_recipients_per_message = 3 }\n"
			   "	peer 10.1.0.0/16 { max_recipients_per_message = 4 }\n"
			   "	peer 2001:db8::/32 { max_recipients_per_message = 5 }\n"
			   "	listen 192.0.2.1:25 {\n"
			   "		max_recipients_per_message = 6  max_idle_commands = 92\n"
			   "		peer 10.2.0.0/16 { max_recipients_per_message = 7 }\n"
			   "		peer 10.2.3.4 { max_recipients_per_message = 8 }\n"
			   "		peer 10.128.0.0/9 { }\n"
			   "	}\n"
			   "	listen 192.0.2.1:26 { }\n"
			   "}\n"
			   "esmtp_listener second { listen 192.0.2.1:27 { } }\n");
	/* The listen itself, its peers by the longest prefix, then its listener's. */
	assert_int_equal(recipients(config, 0, "::ffff:192.0.2.9"), 6);
	assert_int_equal(recipients(config, 0, "::ffff:10.2.0.1"), 7);
	assert_int_equal(recipients(config, 0, "::ffff:10.2.3.4"), 8);
	assert_int_equal(recipients(config, 0, "::ffff:10.2.3.5"), 7);
	assert_int_equal(recipients(config, 0, "::ffff:10.1.9.9"), 4);
	assert_int_equal(recipients(config, 0, "::ffff:10.3.0.1"), 3);
	assert_int_equal(recipients(config, 0, "2001:db8:ffff::1"), 5);
	assert_int_equal(recipients(config, 0, "2001:db9::1"), 6);
	/* A peer that sets nothing is the listen. */
	assert_int_equal(recipients(config, 0, "::ffff:10.200.0.1"), 6);
	/* Another listen of the same listener, and another listener. */
	assert_int_equal(recipients(config, 1, "::ffff:192.0.2.9"), 2);
	assert_int_equal(recipients(config, 1, "::ffff:10.2.3.4"), 3);
	assert_int_equal(recipients(config, 2, "::ffff:10.2.3.4"), 1);
	/* What a peer does not set comes from the listen. */
	const struct in6_addr peer = address("::ffff:10.2.3.4");
	assert_int_equal(config_smtp(config, 0, &peer)->max_idle_commands, 92);
	assert_int_equal(config_smtp(config, 1, &peer)->max_idle_commands, 91);
	config_release(config);
}

static void test_smtp_when_network_holds_everything(void **state)
{
	(void)state;
	struct config *config = load_valid("esmtp_listener { listen *:25 {\n"
					   "peer 0.0.0.0/0 { max_recipients_per_message = 4 }\n"
					   "peer ::/0 { max_recipients_per_message = 6 } } }\n");
	assert_int_equal(recipients(config, 0, "::ffff:255.255.255.255"), 4);
	assert_int_equal(recipients(config, 0, "::ffff:0.0.0.0"), 4);
	assert_int_equal(recipients(config, 0, "ffff::"), 6);
	config_release(config);
}

static void test_warnings_when_no_log_goes_to_a_journal(void **state)
{
	char *captured;
	(void)state;
	struct config *config = load("esmtp_listener { listen 127.0.0.1:25 { } }\n"
				     "log { main = ( \"file:a\" \"json:b\" \"json:c.jlog\" ) }\n"
				     "journal a { }\n"
				     "journal b { }\n"
				     "journal c.jlog { }\n",
				     &captured);
	assert_non_null(config);
	assert_string_equal(
		captured, "test.conf:3: warning: scope journal \"a\": no log goes there; expected "
			  "a destination \"jlog:a\", or \"json:NAME.jlog\"\n"
			  "test.conf:4: warning: scope journal \"b\": no log goes there; expected "
			  "a destination \"jlog:b\", or \"json:NAME.jlog\"\n");
	free(captured);
	config_release(config);
}

static void test_warnings_when_relay_is_open(void **state)
{
	char *errors;
	(void)state;
	struct config *config = load("relay_hosts = 0.0.0.0/0\nesmtp_listener {\nlisten :25 {\n"
				     "relay_domains = ( a.example * )\n} }\n",
				     &errors);
	assert_non_null(config);
	assert_string_equal(
		errors,
		"test.conf:1: warning: option \"relay_hosts\": anybody may send to any domain\n"
		"test.conf:4: warning: option \"relay_domains\": anybody may send to any domain\n");
	free(errors);
	config_release(config);
}

static void test_hold_when_released_by_others(void **state)
{
	(void)state;
	struct config *config = load_valid("hostname = held.example.org");
	assert_ptr_equal(config_hold(config), config);
	config_release(config);
	assert_string_equal(config_global(config)->hostname, "held.example.org");
	config_release(config);
}

static void test_reference_has_a_line_for_each_option(void **state)
{
	char *text;
	size_t size;
	char *line;
	uint32_t lines = 0;
	FILE *out = open_memstream(&text, &size);
	(void)state;
	config_reference(out);
	fclose(out);
	for (char *rest = text; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; lines++) {
		const char *name = schema_options[lines].name;
		int columns = 1;
		assert_int_equal(strncmp(line, name, strlen(name)), 0);
		for (const char *c = line; *c != '\0'; c++) {
			columns += *c == '\t';
		}
		assert_int_equal(columns, 8);
	}
	assert_int_equal(lines, schema_option_count());
	free(text);
}

/* Connections of the generation before may be about to begin TLS. */
static void test_client_contexts_are_there_when_nobody_sends_by_tls(void **state)
{
	struct config *config = load_valid("tls = no\nmta_sts = false\n");

	(void)state;
	assert_int_equal(config_tls_open(config, stderr), 0);
	assert_non_null(config_tls_client(config));
	assert_non_null(config_tls_roots(config));
	config_release(config);
}

static int make_files(void **state)
{
	enter_folder(state);
	write_key("rsa.pem", dkim_rsa_8463);
	write_key("ed25519.pem", dkim_ed25519_8463);
	write_key("token.txt", "open-sesame\n");
	return name_files(state);
}

static int remove_files(void **state)
{
	return leave_folder(state) != 0 ? -1 : tls_remove_files(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_option_changes_the_answer_in_every_scope),
		cmocka_unit_test(test_every_sample_has_an_option),
		cmocka_unit_test(test_schema_has_no_name_twice_in_a_scope),
		cmocka_unit_test(test_defaults_when_empty),
		cmocka_unit_test(test_defaults_when_idle),
		cmocka_unit_test(test_defaults_when_derived),
		cmocka_unit_test(test_journals_when_their_limits_differ),
		cmocka_unit_test(test_node_id_when_hostnames_differ),
		cmocka_unit_test(test_agents_when_pinned_and_grouped),
		cmocka_unit_test(test_listens_when_written_in_each_way),
		cmocka_unit_test(test_smtp_when_peers_overlap),
		cmocka_unit_test(test_smtp_when_network_holds_everything),
		cmocka_unit_test(test_warnings_when_no_log_goes_to_a_journal),
		cmocka_unit_test(test_warnings_when_relay_is_open),
		cmocka_unit_test(test_hold_when_released_by_others),
		cmocka_unit_test(test_reference_has_a_line_for_each_option),
		cmocka_unit_test(test_client_contexts_are_there_when_nobody_sends_by_tls),
	};
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
