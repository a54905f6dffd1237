/*
 * Shapes of mail routing, each with the outcome that the RFCs ask for: a zone, a domain, and the
 * hosts in order or the reply that a sender gets.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/outbound/dane.h"
#include "core/outbound/route.h"

#define RECORDS_MAX 256
#define QUESTIONS_MAX 256
#define TEXT_MAX 8192
#define TTL 300
#define SHAPES_MAX 128

/* ---- a name service ---- */

/* Lines of a zone: "OWNER TYPE DATA". DATA may be !SERVFAIL, !BOGUS, !TIMEOUT. A line "OWNER
 * SECURE" says that DNSSEC proves what is said of the name. */
struct line {
	char owner[300];
	char type[16];
	char data[1100];
};

static struct line zone[RECORDS_MAX];
static unsigned lines;
static unsigned asked;
static uint32_t ttl;

static void load_zone(const char *text)
{
	lines = 0;
	while (*text != '\0') {
		size_t len = strcspn(text, "\n");
		char line[1500];

		assert_true(len < sizeof line && lines < RECORDS_MAX);
		memcpy(line, text, len);
		line[len] = '\0';
		memset(&zone[lines], 0, sizeof zone[lines]);
		if (sscanf(line, "%299s %15s %1099[^\n]", zone[lines].owner, zone[lines].type,
			   zone[lines].data) >= 2) {
			lines++;
		}
		text += len + (text[len] == '\n');
	}
}

static size_t wire_name(const char *name, unsigned char *out)
{
	size_t at = 0;

	while (*name != '\0' && strcmp(name, ".") != 0) {
		size_t len = strcspn(name, ".");

		out[at++] = (unsigned char)len;
		memcpy(out + at, name, len);
		at += len;
		name += len + (name[len] == '.');
	}
	out[at++] = 0;
	return at;
}

static size_t wire_record(enum dns_type type, const char *data, unsigned char *out)
{
	unsigned preference;
	char name[300];

	if (type == DNS_TLSA) {
		unsigned usage;
		unsigned selector;
		unsigned matching;

		/* The data is one byte, as often as a digest has it. */
		assert_int_equal(
			sscanf(data, "%u %u %u %u", &usage, &selector, &matching, &preference), 4);
		out[0] = (unsigned char)usage;
		out[1] = (unsigned char)selector;
		out[2] = (unsigned char)matching;
		memset(out + 3, (int)preference, matching == 1 ? 32 : 64);
		return matching == 1 ? 35 : 67;
	}
	if (type == DNS_A || type == DNS_AAAA) {
		assert_int_equal(inet_pton(type == DNS_A ? AF_INET : AF_INET6, data, out), 1);
		return type == DNS_A ? 4 : 16;
	}
	assert_int_equal(sscanf(data, "%u %299s", &preference, name), 2);
	out[0] = (unsigned char)(preference >> 8);
	out[1] = (unsigned char)preference;
	return 2 + wire_name(name, out + 2);
}

static const struct line *find_line(const char *owner, const char *type)
{
	for (unsigned i = 0; i < lines; i++) {
		if (strcasecmp(zone[i].owner, owner) == 0 &&
		    (type == NULL || strcmp(zone[i].type, type) == 0)) {
			return &zone[i];
		}
	}
	return NULL;
}

static bool is_fault(const char *data, struct dns_raw *raw)
{
	static const struct {
		const char *word;
		enum dns_status status;
		const char *why;
	} faults[] = {{"!SERVFAIL", DNS_SERVFAIL, NULL},
		      {"!BOGUS", DNS_BOGUS, "signature expired"},
		      {"!TIMEOUT", DNS_TIMEOUT, NULL},
		      {"!NXDOMAIN", DNS_NXDOMAIN, NULL},
		      {"!CANCELLED", DNS_CANCELLED, NULL}};

	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
		if (strcmp(data, faults[i].word) == 0) {
			raw->status = faults[i].status;
			raw->why = faults[i].why;
			return true;
		}
	}
	return false;
}

static struct dns_answer *resolve(const char *name, enum dns_type type)
{
	static unsigned char wire[RECORDS_MAX][300];
	const unsigned char *rdata[RECORDS_MAX];
	size_t len[RECORDS_MAX];
	const struct line *alias;
	const char *at = name;
	struct dns_raw raw = {.type = type, .ttl_s = ttl, .rdata = rdata, .rdata_len = len};

	asked++;
	while ((alias = find_line(at, "CNAME")) != NULL) {
		at = alias->data;
		raw.canonical = at;
	}
	raw.secure = find_line(at, "SECURE") != NULL;
	raw.status = find_line(at, NULL) != NULL ? DNS_NODATA : DNS_NXDOMAIN;
	for (unsigned i = 0; i < lines; i++) {
		if (strcasecmp(zone[i].owner, at) != 0 ||
		    strcmp(zone[i].type, dns_type_name(type)) != 0) {
			continue;
		}
		if (!is_fault(zone[i].data, &raw)) {
			raw.status = DNS_FOUND;
			rdata[raw.count] = wire[raw.count];
			len[raw.count] = wire_record(type, zone[i].data, wire[raw.count]);
			raw.count++;
		}
	}
	return dns_answer_create(&raw);
}

/* ---- a route ---- */

static const struct route_listen our_listens[] = {
	{{.s6_addr = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 99}}, 25},
	{{.s6_addr = {0x20, 0x01, 0x0d, 0xb8, [15] = 0x99}}, 25},
};
static const struct route_self self = {"mta.self.test", our_listens, 2};
static struct domain_options options;

/* Answers come in any order: of those that wait, the one that the seed says. */
static struct route_verdict find_route(const char *domain, uint64_t seed)
{
	struct {
		uint32_t id;
		const char *name;
		enum dns_type type;
	} waiting[QUESTIONS_MAX];
	struct route *r = route_create(&options, domain, &self, seed);
	struct route_verdict v;
	unsigned count = 0;

	do {
		while (route_next_question(r, &waiting[count].id, &waiting[count].name,
					   &waiting[count].type)) {
			assert_true(++count < QUESTIONS_MAX);
			assert_false(route_done(r));
		}
		if (count > 0) {
			unsigned i = (unsigned)(seed++ * 7 % count);
			struct dns_answer *a = resolve(waiting[i].name, waiting[i].type);

			/* As the resolver does. */
			bool failed = a->status > DNS_NODATA;

			route_answer(r, waiting[i].id, a, failed ? 0 : a->ttl_s);
			dns_answer_release(a);
			waiting[i] = waiting[--count];
		}
	} while (!route_done(r));
	assert_int_equal(count, 0);
	route_finish(r, &v);
	route_destroy(r);
	return v;
}

static size_t describe_host(const struct host *h, char *text, size_t size)
{
	char ip[INET6_ADDRSTRLEN];
	uint16_t port;

	if (h->address.any.sa_family == AF_INET) {
		assert_int_equal(h->address_len, sizeof(struct sockaddr_in));
		inet_ntop(AF_INET, &h->address.v4.sin_addr, ip, sizeof ip);
		port = ntohs(h->address.v4.sin_port);
	} else {
		assert_int_equal(h->address_len, sizeof(struct sockaddr_in6));
		inet_ntop(AF_INET6, &h->address.v6.sin6_addr, ip, sizeof ip);
		port = ntohs(h->address.v6.sin6_port);
	}
	if (port != 25) {
		return (size_t)snprintf(text, size, "%u %s %s#%u\n", h->preference, h->name, ip,
					port);
	}
	return (size_t)snprintf(text, size, "%u %s %s\n", h->preference, h->name, ip);
}

/* Hosts, one a line; or "CODE ENHANCED text". */
static const char *describe(struct route_verdict *v)
{
	static char text[TEXT_MAX];
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < v->count; i++) {
		used += describe_host(&v->hosts[i], text + used, sizeof text - used);
	}
	if (v->result == ROUTE_CANCELLED) {
		snprintf(text, sizeof text, "cancelled");
	} else if (v->result != ROUTE_HOSTS) {
		assert_int_equal(v->count, 0);
		assert_null(v->hosts);
		snprintf(text, sizeof text, "%u %s %s", route_code(v->result),
			 route_enhanced(v->result), v->text);
	}
	route_verdict_free(v);
	return text;
}

/* ---- the shapes ---- */

#define SHAPES_FILE "tests/unit/route_shapes.txt"

static struct shape {
	char what[200];
	char domain[300];
	char zone[4096];
	/* All of it; or, of a failure, its beginning. */
	char expected[1024];
} shapes[SHAPES_MAX];
static unsigned shape_count;

static void append(char *text, size_t size, const char *line)
{
	size_t used = strlen(text);

	assert_true(used + strlen(line) < size);
	strcpy(text + used, line);
}

static void read_shapes(void)
{
	FILE *f = fopen(SHAPES_FILE, "r");
	struct shape *s = NULL;
	char line[1500];

	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL) {
		if (strncmp(line, "## ", 3) == 0) {
			assert_true(shape_count < SHAPES_MAX);
			s = &shapes[shape_count++];
			line[strcspn(line, "\n")] = '\0';
			append(s->what, sizeof s->what, line + 3);
		} else if (line[0] == '#' || line[0] == '\n') {
			continue;
		} else if (strncmp(line, "> ", 2) == 0) {
			line[strcspn(line, "\n")] = '\0';
			append(s->domain, sizeof s->domain, line + 2);
		} else if (strncmp(line, "= ", 2) == 0) {
			append(s->expected, sizeof s->expected, line + 2);
		} else {
			append(s->zone, sizeof s->zone, line);
		}
	}
	fclose(f);
	assert_true(shape_count >= 40);
}

static void expect_route(const struct shape *s, uint64_t seed)
{
	struct route_verdict v;
	const char *found;
	bool whole;

	load_zone(s->zone);
	v = find_route(s->domain, seed);
	assert_true(v.result != ROUTE_HOSTS || v.ttl_ms > 0);
	if (route_is_permanent(v.result)) {
		assert_int_equal(v.ttl_ms, TTL * 1000);
	}
	found = describe(&v);
	whole = v.result == ROUTE_HOSTS;
	if (whole ? strcmp(found, s->expected) != 0
		  : strncmp(found, s->expected, strcspn(s->expected, "\n")) != 0) {
		fail_msg("%s (seed %llu): found\n%s\nwanted\n%s", s->what, (unsigned long long)seed,
			 found, s->expected);
	}
}

/* In whichever order answers come, and whatever is drawn. */
static void test_shapes(void **state)
{
	(void)state;
	read_shapes();
	for (unsigned i = 0; i < shape_count; i++) {
		for (uint64_t seed = 0; seed < 20; seed++) {
			expect_route(&shapes[i], seed);
		}
	}
}

static const char equals_zone[] = "a.test MX 10 m.test\na.test MX 10 n.test\na.test MX 10 o.test\n"
				  "a.test MX 5 l.test\nl.test A 192.0.2.1\nm.test A 192.0.2.2\n"
				  "n.test A 192.0.2.3\no.test A 192.0.2.4";

/* Each of three equals comes first a third of the time, and all behind the one that is preferred.
 */
static void test_equals_are_drawn(void **state)
{
	unsigned first[3] = {0};

	(void)state;
	load_zone(equals_zone);
	for (uint64_t seed = 0; seed < 3000; seed++) {
		struct route_verdict v = find_route("a.test", seed * UINT64_C(0x123456789));

		assert_int_equal(v.count, 4);
		assert_string_equal(v.hosts[0].name, "l.test");
		first[v.hosts[1].name[0] - 'm']++;
		route_verdict_free(&v);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_in_range(first[i], 900, 1100);
	}
}

static void test_the_same_seed_draws_the_same(void **state)
{
	char text[TEXT_MAX];

	(void)state;
	load_zone(equals_zone);
	for (uint64_t seed = 1; seed < 50; seed++) {
		struct route_verdict v = find_route("a.test", seed);

		strcpy(text, describe(&v));
		v = find_route("a.test", seed);
		assert_string_equal(describe(&v), text);
	}
}

static const char family_zone[] = "a.test MX 10 m.test\na.test MX 20 n.test\nm.test A 192.0.2.1\n"
				  "m.test AAAA 2001:db8::1\nn.test A 192.0.2.2";

static void test_address_family(void **state)
{
	struct route_verdict v;

	(void)state;
	load_zone(family_zone);
	options.address_family = ADDRESS_FAMILY_IPV4;
	asked = 0;
	v = find_route("a.test", 1);
	assert_string_equal(describe(&v), "10 m.test 192.0.2.1\n20 n.test 192.0.2.2\n");
	assert_int_equal(asked, 3);
	options.address_family = ADDRESS_FAMILY_IPV6;
	v = find_route("a.test", 1);
	assert_string_equal(describe(&v), "10 m.test 2001:db8::1\n");
	options.address_family = ADDRESS_FAMILY_ANY;
}

static void test_gateways(void **state)
{
	const struct gateway gateways[] = {
		{"g.test", 2525, 10}, {"192.0.2.9", 26, 20}, {"mta.self.test", 2525, 30}};
	struct route_verdict v;

	(void)state;
	load_zone("g.test MX 1 never.test\ng.test A 192.0.2.1\ng.test AAAA 2001:db8::1\n"
		  "mta.self.test A 192.0.2.99");
	options.gateways = gateways;
	options.gateway_count = 3;
	v = find_route("a.test", 1);
	/* What an operator says is not looked at for loops. */
	assert_string_equal(describe(&v), "10 g.test 2001:db8::1#2525\n10 g.test 192.0.2.1#2525\n"
					  "20 192.0.2.9 192.0.2.9#26\n"
					  "30 mta.self.test 192.0.2.99#2525\n");
	load_zone("a.test A 192.0.2.1");
	options.gateway_count = 1;
	v = find_route("a.test", 1);
	assert_string_equal(describe(&v),
			    "550 5.4.4 no gateway of a.test has an address: g.test (NXDOMAIN)");
	options.gateway_count = 0;
}

/* At another port another program takes mail. */
static void test_our_address_at_another_port_is_not_us(void **state)
{
	struct route_verdict v;

	(void)state;
	load_zone("a.test MX 10 m.test\nm.test A 192.0.2.99");
	options.remote_smtp_port = 2526;
	v = find_route("a.test", 1);
	assert_string_equal(describe(&v), "10 m.test 192.0.2.99#2526\n");
	options.remote_smtp_port = 25;
}

static void test_more_than_is_kept(void **state)
{
	static char text[TEXT_MAX * 4];
	size_t used = 0;
	struct route_verdict v;

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		used += (size_t)snprintf(text + used, sizeof text - used,
					 "a.test MX %u m%u.test\nm%u.test A 192.0.2.1\n", 100 - i,
					 i, i);
	}
	load_zone(text);
	v = find_route("a.test", 1);
	assert_int_equal(v.count, NEXT_HOP_MAX);
	assert_int_equal(v.hosts[0].preference, 1);
	assert_int_equal(v.hosts[NEXT_HOP_MAX - 1].preference, NEXT_HOP_MAX);
	route_verdict_free(&v);
	used = (size_t)snprintf(text, sizeof text, "a.test MX 1 m.test\n");
	for (unsigned i = 0; i < 100; i++) {
		used += (size_t)snprintf(text + used, sizeof text - used, "m.test A 192.0.2.%u\n",
					 i + 100);
	}
	load_zone(text);
	v = find_route("a.test", 1);
	assert_int_equal(v.count, NEXT_HOP_MAX);
	route_verdict_free(&v);
}

static void test_counts_what_is_odd(void **state)
{
	struct route_verdict v;

	(void)state;
	load_zone("a.test MX 10 m.test\na.test MX 10 192.0.2.1\na.test MX 10 gone.test\n"
		  "a.test MX 20 n.test\nm.test CNAME o.test\no.test A 192.0.2.2\n"
		  "n.test A 192.0.2.3");
	v = find_route("a.test", 1);
	assert_int_equal(v.alias_count, 1);
	assert_int_equal(v.literal_count, 1);
	assert_int_equal(v.dead_count, 1);
	route_verdict_free(&v);
}

static void test_says_what_dnssec_has_proven(void **state)
{
	struct route_verdict v;

	(void)state;
	load_zone("a.test SECURE\na.test MX 10 m.test\na.test MX 20 n.test\nm.test SECURE\n"
		  "m.test A 192.0.2.1\nn.test A 192.0.2.2");
	v = find_route("a.test", 1);
	assert_true(v.mx_secure);
	assert_true(v.hosts[0].secure);
	assert_false(v.hosts[1].secure);
	route_verdict_free(&v);
	load_zone("a.test MX 10 m.test\nm.test SECURE\nm.test A 192.0.2.1");
	v = find_route("a.test", 1);
	assert_false(v.mx_secure);
	assert_true(v.hosts[0].secure);
	route_verdict_free(&v);
}

/* A verdict that leaves something out because of a failure is looked at again soon. */
static void test_holds_for_the_shortest_time(void **state)
{
	struct route_verdict v;

	(void)state;
	load_zone("a.test MX 10 m.test\nm.test A 192.0.2.1");
	v = find_route("a.test", 1);
	assert_int_equal(v.ttl_ms, TTL * 1000);
	route_verdict_free(&v);
	load_zone(
		"a.test MX 10 m.test\na.test MX 20 n.test\nm.test A 192.0.2.1\nn.test A !SERVFAIL");
	v = find_route("a.test", 1);
	assert_int_equal(v.ttl_ms, options.host_failure_retry_ms);
	route_verdict_free(&v);
	/* Long enough to be used once. */
	ttl = 0;
	v = find_route("a.test", 1);
	assert_true(v.ttl_ms >= 1000);
	route_verdict_free(&v);
}

static void test_literals(void **state)
{
	static const struct gateway gateways[] = {{"192.0.2.1", 25, 10}, {"2001:db8::7", 2526, 20}};
	static const struct gateway named[] = {{"192.0.2.1", 25, 10}, {"g.test", 25, 10}};
	static const char *const good[][2] = {
		{"[192.0.2.1]", "0 192.0.2.1 192.0.2.1\n"},
		{"[IPv6:2001:db8::1]", "0 2001:db8::1 2001:db8::1\n"},
		{"[ipv6:2001:db8::1]", "0 2001:db8::1 2001:db8::1\n"},
		{"[", "550 5.1.3 [ is no address"},
		{"[]", "550 5.1.3 [] is no address"},
		{"[192.0.2.1", "550 5.1.3 [192.0.2.1 is no address"},
		{"[192.0.2.1]x", "550 5.1.3 [192.0.2.1]x is no address"},
		{"[mx.test]", "550 5.1.3 [mx.test] is no address"},
	};
	struct route_verdict v;

	(void)state;
	assert_false(route_literal(&options, "a.test", &v));
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_true(route_literal(&options, good[i][0], &v));
		assert_string_equal(describe(&v), good[i][1]);
	}
	options.gateways = gateways;
	options.gateway_count = 2;
	assert_true(route_literal(&options, "a.test", &v));
	assert_string_equal(describe(&v),
			    "10 192.0.2.1 192.0.2.1\n20 2001:db8::7 2001:db8::7#2526\n");
	options.gateways = named;
	assert_false(route_literal(&options, "a.test", &v));
	options.gateway_count = 0;
}

static int set_up(void **state)
{
	(void)state;
	ttl = TTL;
	options = (struct domain_options){.remote_smtp_port = 25, .host_failure_retry_ms = 120000};
	return 0;
}

/* ---- TLSA records (RFC 7672) ---- */

/* As describe(), and of each host its base domain, further names, and what its usable records
 * begin with. */
static const char *describe_dane(const char *zone_text, const char *domain, uint64_t seed)
{
	static char text[TEXT_MAX];
	struct route_verdict v;
	size_t used = 0;

	load_zone(zone_text);
	v = find_route(domain, seed);
	for (uint32_t i = 0; i < v.count; i++) {
		const struct dane *d = v.hosts[i].dane;

		used += describe_host(&v.hosts[i], text + used, sizeof text - used) - 1;
		if (d != NULL) {
			used += (size_t)snprintf(text + used, sizeof text - used, " %s:", d->base);
		}
		for (uint16_t j = 0; d != NULL && j < d->name_count; j++) {
			used += (size_t)snprintf(text + used, sizeof text - used, " %s",
						 d->names[j]);
		}
		for (uint16_t j = 0; d != NULL && j < d->count; j++) {
			const struct tls_tlsa *t = &d->records[j];

			assert_int_equal(t->data[0], t->data[t->len - 1]);
			used += (size_t)snprintf(text + used, sizeof text - used, " (%u %u %u %u)",
						 t->usage, t->selector, t->matching, t->data[0]);
		}
		used += (size_t)snprintf(text + used, sizeof text - used, "\n");
	}
	if (v.count == 0) {
		return describe(&v);
	}
	route_verdict_free(&v);
	return text;
}

#define DANE_HOST "m.test A 192.0.2.1\nm.test A 192.0.2.2\nm.test SECURE -\n"
#define DANE_MX "a.test MX 10 m.test\na.test SECURE -\n" DANE_HOST
#define DANE_RECORD "_25._tcp.m.test TLSA 3 1 1 5\n_25._tcp.m.test SECURE -\n"

static const struct {
	enum domain_tls tls;
	const char *zone;
	const char *expected;
} dane_shapes[] = {
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 DANE_MX DANE_RECORD "_25._tcp.m.test TLSA 1 1 1 6\n_25._tcp.m.test TLSA 2 0 2 7\n",
	 "10 m.test 192.0.2.1 m.test: a.test (3 1 1 5) (2 0 2 7)\n"
	 "10 m.test 192.0.2.2 m.test: a.test (3 1 1 5) (2 0 2 7)\n"},
	/* None is usable; they are there all the same. */
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 DANE_MX "_25._tcp.m.test TLSA 1 1 1 5\n_25._tcp.m.test SECURE -\n",
	 "10 m.test 192.0.2.1 m.test: a.test\n10 m.test 192.0.2.2 m.test: a.test\n"},
	{DOMAIN_TLS_DANE, DANE_MX "_25._tcp.m.test TLSA 1 1 1 5\n_25._tcp.m.test SECURE -\n",
	 "451 4.7.5 DANE is required, and m.test has no usable TLSA record"},
	{DOMAIN_TLS_DANE, DANE_MX,
	 "451 4.7.5 DANE is required, and m.test has no TLSA record that DNSSEC proves"},
	{DOMAIN_TLS_DANE, DANE_MX DANE_RECORD,
	 "10 m.test 192.0.2.1 m.test: a.test (3 1 1 5)\n"
	 "10 m.test 192.0.2.2 m.test: a.test (3 1 1 5)\n"},
	/* Nobody wants them. */
	{DOMAIN_TLS_OPPORTUNISTIC, DANE_MX DANE_RECORD,
	 "10 m.test 192.0.2.1\n10 m.test 192.0.2.2\n"},
	/* Not proven: the exchanger, the address, the records. */
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC, "a.test MX 10 m.test\n" DANE_HOST DANE_RECORD,
	 "10 m.test 192.0.2.1\n10 m.test 192.0.2.2\n"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 "a.test MX 10 m.test\na.test SECURE -\nm.test A 192.0.2.1\n" DANE_RECORD,
	 "10 m.test 192.0.2.1\n"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC, DANE_MX "_25._tcp.m.test TLSA 3 1 1 5\n",
	 "10 m.test 192.0.2.1\n10 m.test 192.0.2.2\n"},
	/* They cannot be had: another host may do. */
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC, DANE_MX "_25._tcp.m.test TLSA !SERVFAIL\n",
	 "451 4.7.5 cannot look up TLSA of _25._tcp.m.test: the name service failed"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC, DANE_MX "_25._tcp.m.test TLSA !TIMEOUT\n",
	 "451 4.7.5 cannot look up TLSA of _25._tcp.m.test: no answer"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 DANE_MX "a.test MX 20 n.test\nn.test A 192.0.2.9\n_25._tcp.m.test TLSA !BOGUS\n",
	 "20 n.test 192.0.2.9\n"},
	/* Aliases: of the exchanger, and of the domain. */
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 "a.test MX 10 alias.test\na.test SECURE -\nalias.test CNAME m.test\n" DANE_HOST DANE_RECORD
	 "_25._tcp.alias.test TLSA 3 1 1 6\n_25._tcp.alias.test SECURE -\n",
	 "10 alias.test 192.0.2.1 m.test: a.test (3 1 1 5)\n"
	 "10 alias.test 192.0.2.2 m.test: a.test (3 1 1 5)\n"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 "a.test MX 10 alias.test\na.test SECURE -\nalias.test CNAME m.test\n" DANE_HOST
	 "_25._tcp.alias.test TLSA 3 1 1 6\n_25._tcp.alias.test SECURE -\n",
	 "10 alias.test 192.0.2.1 alias.test: a.test (3 1 1 6)\n"
	 "10 alias.test 192.0.2.2 alias.test: a.test (3 1 1 6)\n"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 "a.test MX 10 alias.test\na.test SECURE -\nalias.test CNAME m.test\n" DANE_HOST
	 "_25._tcp.m.test TLSA !SERVFAIL\n"
	 "_25._tcp.alias.test TLSA 3 1 1 6\n_25._tcp.alias.test SECURE -\n",
	 "451 4.7.5 cannot look up TLSA of _25._tcp.m.test"},
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 "a.test CNAME b.test\nb.test MX 10 m.test\nb.test SECURE -\n" DANE_HOST DANE_RECORD,
	 "10 m.test 192.0.2.1 m.test: a.test b.test (3 1 1 5)\n"
	 "10 m.test 192.0.2.2 m.test: a.test b.test (3 1 1 5)\n"},
	/* No exchangers, which is proven. */
	{DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
	 "a.test A 192.0.2.1\na.test SECURE -\n_25._tcp.a.test TLSA 3 1 1 5\n"
	 "_25._tcp.a.test SECURE -\n",
	 "0 a.test 192.0.2.1 a.test: a.test (3 1 1 5)\n"},
};

static void test_tlsa_records(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof dane_shapes / sizeof dane_shapes[0]; i++) {
		for (uint64_t seed = 0; seed < 20; seed++) {
			const char *found;

			options.tls = dane_shapes[i].tls;
			found = describe_dane(dane_shapes[i].zone, "a.test", seed);
			if (strncmp(found, dane_shapes[i].expected,
				    strlen(dane_shapes[i].expected)) != 0 ||
			    (found[0] != '4' && strcmp(found, dane_shapes[i].expected) != 0)) {
				fail_msg("shape %zu: found\n%s\nwanted\n%s", i, found,
					 dane_shapes[i].expected);
			}
		}
	}
	options.tls = DOMAIN_TLS_NO;
}

/* Names of an operator's own need no proof (RFC 7672 section 2.2.2); addresses are not asked for.
 */
static void test_tlsa_records_of_gateways(void **state)
{
	static const struct gateway gateways[] = {{"m.test", 2525, 0}, {"192.0.2.7", 25, 1}};

	(void)state;
	options.tls = DOMAIN_TLS_DANE_OR_OPPORTUNISTIC;
	options.gateways = gateways;
	options.gateway_count = 2;
	assert_string_equal(describe_dane(DANE_HOST "_2525._tcp.m.test TLSA 3 1 1 5\n"
						    "_2525._tcp.m.test SECURE -\n",
					  "a.test", 1),
			    "0 m.test 192.0.2.1#2525 m.test: (3 1 1 5)\n"
			    "0 m.test 192.0.2.2#2525 m.test: (3 1 1 5)\n1 192.0.2.7 192.0.2.7\n");
	options.gateway_count = 0;
	options.tls = DOMAIN_TLS_NO;
}

/* What is not signed costs no question more. */
static void test_unsigned_domains_are_not_asked_for_tlsa(void **state)
{
	(void)state;
	options.tls = DOMAIN_TLS_DANE_OR_OPPORTUNISTIC;
	asked = 0;
	describe_dane("a.test MX 10 m.test\nm.test A 192.0.2.1\n", "a.test", 1);
	assert_int_equal(asked, 3);
	asked = 0;
	describe_dane(DANE_MX DANE_RECORD, "a.test", 1);
	assert_int_equal(asked, 4);
	options.tls = DOMAIN_TLS_NO;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_shapes, set_up),
		cmocka_unit_test_setup(test_equals_are_drawn, set_up),
		cmocka_unit_test_setup(test_the_same_seed_draws_the_same, set_up),
		cmocka_unit_test_setup(test_address_family, set_up),
		cmocka_unit_test_setup(test_gateways, set_up),
		cmocka_unit_test_setup(test_our_address_at_another_port_is_not_us, set_up),
		cmocka_unit_test_setup(test_more_than_is_kept, set_up),
		cmocka_unit_test_setup(test_counts_what_is_odd, set_up),
		cmocka_unit_test_setup(test_says_what_dnssec_has_proven, set_up),
		cmocka_unit_test_setup(test_holds_for_the_shortest_time, set_up),
		cmocka_unit_test_setup(test_literals, set_up),
		cmocka_unit_test(test_tlsa_records),
		cmocka_unit_test(test_tlsa_records_of_gateways),
		cmocka_unit_test(test_unsigned_domains_are_not_asked_for_tlsa),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
