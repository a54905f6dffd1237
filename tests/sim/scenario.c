/*
 * Draws a scenario: first what kind of run it is, then the configuration, then faults. The text is
 * written last, from what was drawn.
 */
#include "tests/sim/scenario.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/actors.h"
#include "tests/sim/disk.h"
#include "tests/sim/net.h"
#include "tests/sim/world.h"

#define CONFIG_MAX 16384
#define US UINT64_C(1000)
#define MS NS_PER_MS
#define S NS_PER_S
#define KIB 1024U
#define MIB (UINT64_C(1) << 20)
#define LISTEN_PORT 2500
#define RECEIVER_PORT 3000

/* ---- what kind of run ---- */

static uint64_t between(uint64_t low, uint64_t high)
{
	return world_between(low, high);
}

/* Spread over orders of magnitude: each doubling is as likely. */
static uint64_t spread(uint64_t low, uint64_t high)
{
	unsigned doublings = 0;

	while (low << doublings < high) {
		doublings++;
	}
	low <<= doublings > 0 ? world_below(doublings) : 0;
	return between(low, 2 * low < high ? 2 * low : high);
}

static void draw_kind(struct scenario *s)
{
	s->life_ns = spread(50 * MS, 20 * S);
	s->clean = world_chance(250);
	if (s->clean) {
		return;
	}
	s->disk_faults = world_chance(300);
	s->net_faults = world_chance(400);
	s->tempers = world_chance(600);
	s->operators = world_chance(400);
	s->small_disk = s->disk_faults && world_chance(300);
	s->kills = world_chance(400);
	s->cuts = world_chance(400);
	s->stops = world_chance(300);
	if (s->kills || s->cuts || s->stops) {
		s->lives = (uint32_t)between(1, world_chance(200) ? 8 : 3);
	}
	s->orders = s->operators ? (uint32_t)between(5, 60) : 0;
	s->rebinds = s->operators && world_chance(300);
}

/* So much at a time that small rings have no room for it. */
static bool has_many_messages(const struct scenario *s)
{
	return s->messages > 60;
}

/* So many lives at least; unless nothing may go wrong. */
static void die_at_least(struct scenario *s, uint32_t lives)
{
	if (!s->clean) {
		s->kills = true;
		s->lives = s->lives < lives ? lives : s->lives;
	}
}

static void draw_mail(struct scenario *s)
{
	unsigned kind = (unsigned)world_below(100);

	s->messages = (uint32_t)between(20, 60);
	s->body_max = (uint32_t)spread(1 * KIB, 30 * KIB);
	if (kind < 10) {
		/* Segments are sealed and compacted. */
		s->messages = (uint32_t)between(20, 50);
		s->body_max = (uint32_t)between(100 * KIB, 300 * KIB);
		s->life_ns = between(1, 8) * S;
		s->tempers |= !s->clean;
		die_at_least(s, 4);
	} else if (kind < 18) {
		/* Rings are full: much comes at once, goes slowly, and waits for the next life. */
		s->messages = (uint32_t)between(80, 250);
		s->body_max = 1 * KIB;
		s->life_ns = between(2, 8) * S;
		die_at_least(s, 1);
	}
	s->senders = (uint32_t)(has_many_messages(s) ? 6 : between(1, 6));
	for (unsigned i = 0; i < 3; i++) {
		s->ports[i] = (uint16_t)(LISTEN_PORT + i);
	}
}

/* Enough to fill segments. */
static bool has_large_mail(const struct scenario *s)
{
	return s->body_max >= 100 * KIB;
}

/* ---- domains ---- */

static void draw_temper(struct scenario_domain *d)
{
	unsigned *const all[] = {&d->defer, &d->fail, &d->drop, &d->garbage, &d->silence, &d->slow};
	unsigned most = (unsigned)(world_chance(200) ? 400 : 60);

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		*all[i] = world_chance(400) ? (unsigned)world_below(most) : 0;
	}
}

static void draw_limits(struct scenario_domain *d)
{
	d->max_connections = (uint32_t)(world_chance(700) ? between(1, 4) : 32);
	d->max_deliveries_per_connection = (uint32_t)(world_chance(300) ? between(1, 5) : 0);
	d->max_recipients = (uint32_t)(world_chance(400) ? between(1, 5) : 100);
	if (world_chance(250)) {
		d->throttle_messages = (uint32_t)spread(1, 60);
		d->throttle_ns = between(1, 10) * S;
		/* At least one in three seconds, or the run takes too long. */
		while (d->throttle_ns > 3 * S * d->throttle_messages) {
			d->throttle_messages *= 2;
		}
	}
}

/* Half of the domains are known to the name service only. */
static void draw_name_service(struct scenario *s, struct scenario_domain *d)
{
	d->by_mx = world_chance(500);
	if (!d->by_mx || s->clean) {
		return;
	}
	d->dns_fail = world_chance(500) ? (unsigned)world_below(300) : 0;
	d->dns_refuse = world_chance(300) ? (unsigned)world_below(300) : 0;
	d->dns_silence = world_chance(300) ? (unsigned)world_below(100) : 0;
}

static void draw_domain(struct scenario *s, uint32_t index)
{
	struct scenario_domain *d = &s->domains[index];

	snprintf(d->name, sizeof(d->name), index % 3 == 2 ? "sub.d%u.test" : "d%u.test", index);
	d->port = (uint16_t)(RECEIVER_PORT + index);
	d->bounces = true;
	d->max_connections = 32;
	d->max_recipients = 100;
	d->expiration_ns = 86400 * S;
	if (has_many_messages(s)) {
		draw_limits(d);
		d->max_connections = (uint32_t)between(1, 2);
	} else if (world_chance(700)) {
		draw_limits(d);
	} else if (index > 0 && s->domains[0].max_connections == 32 &&
		   s->domains[0].max_deliveries_per_connection == 0 &&
		   s->domains[0].throttle_messages == 0 && s->domains[0].max_recipients == 100) {
		d->port = s->domains[0].port;
	}
	draw_name_service(s, d);
	if (s->clean) {
		return;
	}
	d->bounces = world_chance(900);
	if (world_chance(150)) {
		d->expiration_ns = between(5, 60) * S;
	}
	if (s->tempers && world_chance(800)) {
		draw_temper(d);
	}
	if (has_large_mail(s) && index == 0) {
		/* Some mail stays when what was beside it has gone. */
		d->defer = (unsigned)between(300, 700);
	}
}

/* Some of those that the name service knows share their exchangers. */
static void draw_family(struct scenario *s)
{
	const struct scenario_domain *first = NULL;

	s->family_sets = (unsigned)between(1, 3);
	s->family_moves = world_chance(700) ? (unsigned)spread(10, 500) : 0;
	s->family_connections = (uint32_t)(world_chance(800) ? between(1, 4) : 32);
	s->family_provider = world_chance(300);
	for (uint32_t i = 0; i < s->domain_count; i++) {
		struct scenario_domain *d = &s->domains[i];

		d->rollup = world_chance(900);
		d->in_family = d->by_mx && i + 1 < s->domain_count && world_chance(800);
		d->set = (unsigned)world_below(s->family_sets);
		if (d->in_family) {
			first = first != NULL ? first : d;
			d->port = first->port;
		}
	}
}

/* Most mail goes by the gateway of the global scope; some domains have one of their own. */
static void draw_gateway(struct scenario *s)
{
	s->gateway_connections = (uint32_t)(world_chance(800) ? between(1, 4) : 32);
	for (uint32_t i = 0; i < s->domain_count; i++) {
		struct scenario_domain *d = &s->domains[i];

		d->by_mx = false;
		d->rollup = world_chance(900);
		d->behind_gateway = world_chance(800);
		if (d->behind_gateway) {
			s->gateway_port = s->gateway_port != 0 ? s->gateway_port : d->port;
			d->port = s->gateway_port;
		}
	}
}

static void draw_domains(struct scenario *s)
{
	bool many = world_chance(100) || has_many_messages(s);
	uint32_t count = (uint32_t)(many ? 11 : between(1, 6));
	struct scenario_domain *bounces;

	for (uint32_t i = 0; i < count; i++) {
		draw_domain(s, i);
	}
	bounces = &s->domains[count];
	draw_domain(s, count);
	/* What becomes of failed mail must be seen. */
	*bounces = (struct scenario_domain){
		.port = (uint16_t)(RECEIVER_PORT + count),
		.max_connections = bounces->max_connections,
		.max_recipients = bounces->max_recipients,
		.expiration_ns = 86400 * S,
		.bounces = true,
	};
	snprintf(bounces->name, sizeof(bounces->name), "%s", SCENARIO_BOUNCES);
	s->domain_count = count + 1;
	if (world_chance(600)) {
		draw_family(s);
	} else if (world_chance(500)) {
		draw_gateway(s);
	}
}

const struct scenario_domain *scenario_domain(const struct scenario *s, const char *name)
{
	size_t len = strlen(name);

	len -= len > 0 && name[len - 1] == '.';
	for (uint32_t i = 0; i < s->domain_count; i++) {
		if (strlen(s->domains[i].name) == len &&
		    strncasecmp(s->domains[i].name, name, len) == 0) {
			return &s->domains[i];
		}
	}
	return NULL;
}

/* ---- bindings ---- */

#define BINDING_ADDRESS 0x7f00000aU

static void draw_bindings(struct scenario *s)
{
	static const char *const names[SCENARIO_BINDINGS_MAX] = {"default", "a", "b", "c"};
	const char *const given[] = {NULL, NULL, "a", "c", SCENARIO_GROUP, SCENARIO_GROUP};

	s->binding_count = (uint32_t)(world_chance(400) ? between(2, SCENARIO_BINDINGS_MAX) : 1);
	for (uint32_t i = 0; i < s->binding_count; i++) {
		s->bindings[i] = (struct scenario_binding){
			.name = names[i],
			.grouped = i == 1 || i == 2,
			.weight = (uint32_t)between(1, 5),
			/* Somebody must resume it. */
			.suspended = i > 0 && s->operators && world_chance(150),
		};
	}
	for (unsigned i = 0; s->binding_count == SCENARIO_BINDINGS_MAX && i < 3; i++) {
		s->listen_bindings[i] = given[world_below(sizeof(given) / sizeof(given[0]))];
	}
}

uint32_t scenario_binding_at(uint32_t address)
{
	uint32_t i = address - BINDING_ADDRESS;

	return world->scenario != NULL && i < world->scenario->binding_count ? i : 0;
}

/* ---- the text ---- */

static void text(struct scenario *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void text(struct scenario *s, const char *format, ...)
{
	size_t room = CONFIG_MAX - s->config_len;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(s->config + s->config_len, room, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= room) {
		world_fail("scenario: the configuration is too long");
	}
	s->config_len += (size_t)n;
}

static void text_idle(struct scenario *s)
{
	if (world_chance(500)) {
		text(s, " idle = \"park\" spin = \"%lluus\"",
		     (unsigned long long)(world_chance(500) ? 0 : between(1, 100)));
	} else {
		text(s, " idle = \"backoff\" max_park = \"%lluus\"",
		     (unsigned long long)between(100, 50000));
	}
}

/* How agents share threads. */
enum grouping { GROUP_OWN, GROUP_SERVICE, GROUP_RANDOM, GROUP_ONE, GROUPINGS };

static const char *group_of(enum grouping how, unsigned agent)
{
	static const char *const names[] = {"g0", "g1", "g2"};

	switch (how) {
	case GROUP_SERVICE:
		return agent < 3 ? NULL : names[0];
	case GROUP_RANDOM:
		return world_chance(300) ? NULL : names[world_below(3)];
	case GROUP_ONE:
		return names[0];
	case GROUP_OWN:
	case GROUPINGS:
		break;
	}
	return NULL;
}

/* Each group once. */
static void text_groups(struct scenario *s, const char *const *groups, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		bool first = groups[i] != NULL;

		for (unsigned j = 0; j < i; j++) {
			first = first && groups[j] != groups[i];
		}
		if (first) {
			text(s, "group %s {", groups[i]);
			text_idle(s);
			text(s, " }\n");
		}
	}
}

static void text_agents(struct scenario *s)
{
	static const char *const kinds[] = {"master", "scheduler", "spool",   "wheel",
					    "log",    "pool",      "resolver"};
	const unsigned count = sizeof(kinds) / sizeof(kinds[0]);
	enum grouping how = (enum grouping)world_below(GROUPINGS);
	const char *groups[sizeof(kinds) / sizeof(kinds[0])];

	for (unsigned i = 0; i < count; i++) {
		groups[i] = group_of(how, i);
	}
	text_groups(s, groups, count);
	for (unsigned i = 0; i < count; i++) {
		text(s, "agent %s {", kinds[i]);
		if (i == 1 || i == 2) {
			text(s, " count = %u", i == 1 ? s->schedulers : s->spool_writers);
		} else if (i == 5) {
			text(s, " count = %u", (unsigned)between(1, 2));
		}
		if (groups[i] != NULL) {
			text(s, " group = \"%s\"", groups[i]);
		} else {
			text_idle(s);
		}
		text(s, " }\n");
	}
}

static void text_globals(struct scenario *s)
{
	unsigned compact_below;

	/* OpenSSL has randomness of its own. */
	text(s, "tls = no\n");
	text(s, "hostname = \"sim.test\"\nnode_id = %u\n", (unsigned)world_below(65536));
	text(s, "memory_budget = \"%s\"\n", world_chance(500) ? "1M" : "64M");
	if (!s->clean && world_chance(200)) {
		text(s, "reception_budget = \"%uK\"\n", s->body_max / 1024 * 2 + 128);
	}
	text(s, "ring_slots = %u\n", world_chance(400) || has_many_messages(s) ? 64 : 1024);
	text(s, "stop_timeout = \"%us\"\n", (unsigned)between(1, 20));
	if (!s->clean && world_chance(100)) {
		text(s, "server_max_outbound_connections = %u\n", (unsigned)between(2, 10));
	}
	compact_below = (unsigned)(world_chance(200) ? 0 : between(10, 90));
	text(s,
	     "spool { path = \"/sim/spool\" segment_size = \"1M\" min_free = \"0\" "
	     "compact_below = %u spare_segments = %u }\n",
	     compact_below, (unsigned)world_below(4));
	text(s, "log { path = \"/sim/log\" heartbeat = \"%us\" }\n", (unsigned)spread(1, 60));
	text(s, "control_listener { listen \"%s\" { } }\n", SCENARIO_CONTROL);
}

static void text_resolver(struct scenario *s)
{
	text(s, "resolver { timeout = \"%us\" max_pending = %u cache_entries = %u ",
	     (unsigned)between(1, 10), (unsigned)spread(1, 1024),
	     (unsigned)(world_chance(300) ? 0 : spread(1, 100)));
	text(s, "min_ttl = \"%us\" max_ttl = \"%us\" }\n", (unsigned)between(0, 5),
	     (unsigned)between(5, 60));
}

static void text_listens(struct scenario *s)
{
	static const char *const names[] = {
		[ENVELOPE_SYNCED] = "synced",
		[ENVELOPE_CACHED] = "cached",
		[ENVELOPE_MEMORY] = "memory",
	};

	text(s, "esmtp_listener {\n");
	for (unsigned i = 0; i < 3; i++) {
		text(s, "\tlisten \"127.0.0.1:%u\" { durability = \"%s\"", s->ports[i], names[i]);
		if (s->listen_bindings[i] != NULL) {
			text(s, " binding = \"%s\"", s->listen_bindings[i]);
		}
		if (world_chance(200)) {
			text(s, " max_receptions_per_connection = %u", (unsigned)between(1, 10));
		}
		if (!s->clean && world_chance(100)) {
			text(s, " listener_sessions = %u", (unsigned)between(1, 4));
		}
		text(s, " idle_time = \"%us\" }\n", (unsigned)between(20, 300));
	}
	text(s, "}\nbare_lf = \"%s\"\n", world_chance(850) ? "reject" : "accept_as_data");
}

static void text_timeouts(struct scenario *s)
{
	static const char *const names[] = {"connect", "ehlo", "mailfrom",
					    "rcptto",  "body", "rset"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		text(s, "%s_timeout = \"%us\"\n", names[i], (unsigned)between(8, 30));
	}
	text(s, "idle_timeout = \"%ums\"\n", (unsigned)between(0, 5000));
	text(s, "host_failure_retry = \"%ums\"\n", (unsigned)spread(200, 5000));
	text(s, "retry_interval = \"%ums\"\n", (unsigned)spread(200, 10000));
	text(s, "max_retry_interval = \"%us\"\n", (unsigned)between(10, 30));
}

static void text_domain(struct scenario *s, const struct scenario_domain *d)
{
	text(s, "domain \"%s\" {\n", d->name);
	if (!d->behind_gateway) {
		text(s, d->by_mx ? "\tremote_smtp_port = %u\n" : "\tgateway = \"127.0.0.1:%u\"\n",
		     d->port);
	}
	text(s, "\tmax_outbound_connections = %u\n", d->max_connections);
	text(s, "\tmax_deliveries_per_connection = %u\n", d->max_deliveries_per_connection);
	text(s, "\tmax_recipients_per_batch = %u\n", d->max_recipients);
	text(s, "\tmessage_expiration = \"%llus\"\n", (unsigned long long)(d->expiration_ns / S));
	if (d->throttle_messages != 0) {
		text(s, "\toutbound_throttle_messages = \"%u/%llu\"\n", d->throttle_messages,
		     (unsigned long long)(d->throttle_ns / S));
	}
	if (!s->clean && world_chance(100)) {
		unsigned connections = (unsigned)between(1, 5);

		text(s, "\toutbound_throttle_connections = \"%u/%u\"\n", connections,
		     (unsigned)between(1, 3));
	}
	if (!d->bounces) {
		text(s, "\tgenerate_bounces = false\n");
	}
	if ((d->in_family || d->behind_gateway) && !d->rollup) {
		text(s, "\tmx_rollup = false\n");
	}
	text(s, "}\n");
}

/* What holds for a site of several domains: of the provider, or of the global scope, which may have
 * a gateway. */
static void text_family(struct scenario *s)
{
	if (s->family_sets != 0 && s->family_provider) {
		text(s, "provider \"family\" { mx_suffix = \".%s\" ", SCENARIO_FAMILY);
	}
	if (s->family_sets != 0) {
		text(s, "max_outbound_connections = %u", s->family_connections);
		text(s, s->family_provider ? " }\n" : "\n");
	}
	if (s->gateway_port != 0) {
		text(s, "gateway = \"127.0.0.1:%u\"\nmax_outbound_connections = %u\n",
		     s->gateway_port, s->gateway_connections);
	}
}

static void text_bindings(struct scenario *s)
{
	for (uint32_t i = 1; i < s->binding_count; i++) {
		const struct scenario_binding *x = &s->bindings[i];

		if (x->grouped) {
			text(s, "binding_group \"%s\" { ", SCENARIO_GROUP);
		}
		text(s, "binding \"%s\" { weight = %u bind_address = \"127.0.0.%u\"", x->name,
		     x->weight, (BINDING_ADDRESS & 255) + i);
		text(s, "%s }%s\n", x->suspended ? " suspend_delivery = true" : "",
		     x->grouped ? " }" : "");
	}
}

static void text_script(struct scenario *s)
{
	s->scripted = world_chance(150);
	if (s->scripted) {
		text(s, "scriptlet \"scriptlet\" { script \"sim\" { source = \"%s\" } }\n",
		     SCENARIO_SCRIPT);
	}
}

struct scenario *scenario_draw(void)
{
	struct scenario *s = world_alloc(sizeof(*s));

	s->config = world_alloc(CONFIG_MAX);
	draw_kind(s);
	draw_mail(s);
	draw_domains(s);
	draw_bindings(s);
	s->schedulers = has_many_messages(s) ? 1 : (uint32_t)between(1, SCENARIO_SCHEDULERS_MAX);
	s->crew_changes = world_chance(400);
	s->spool_writers = has_large_mail(s) || has_many_messages(s) ? 1 : (uint32_t)between(1, 3);
	text_globals(s);
	text_agents(s);
	text_resolver(s);
	text_listens(s);
	text_bindings(s);
	text_timeouts(s);
	text_family(s);
	text_script(s);
	for (uint32_t i = 0; i < s->domain_count; i++) {
		text_domain(s, &s->domains[i]);
	}
	return s;
}

/* ---- faults ---- */

static unsigned some(unsigned permille_of_runs, unsigned most)
{
	return world_chance(permille_of_runs) ? (unsigned)between(1, most) : 0;
}

static void set_disk_faults(const struct scenario *s, struct disk_faults *f)
{
	*f = (struct disk_faults){
		.latency_min_ns = between(1, 100) * US,
		/* On a slow disk most moments are within a sync, and most power cuts. */
		.latency_max_ns =
			spread(200 * US,
			       world_chance(has_many_messages(s) ? 600 : 250) ? 300 * MS : 10 * MS),
		.capacity = 1024 * MIB,
	};
	f->stall = some(300, 5);
	f->stall_ns = spread(10 * MS, 2 * S);
	if (!s->disk_faults) {
		return;
	}
	f->write_error = some(400, 20);
	f->write_short = some(400, 50);
	f->sync_error = some(400, 20);
	f->read_error = some(300, world_chance(300) ? 60 : 20);
	f->create_error = some(300, 50);
	if (s->small_disk) {
		f->capacity = between(2 + s->spool_writers, 8) * MIB;
	}
}

static void set_net_faults(const struct scenario *s, struct net_faults *f)
{
	f->latency_min_ns = between(1, 200) * US;
	f->latency_max_ns = spread(500 * US, 50 * MS);
	f->window_min = (uint32_t)spread(1 * KIB, 16 * KIB);
	f->window_max = (uint32_t)spread(64 * KIB, 256 * KIB);
	f->dribble = some(200, 20);
	if (!s->net_faults) {
		return;
	}
	f->refuse = some(400, 100);
	f->hang = some(300, 50);
	f->reset = some(500, 100);
}

/* The spool's own folder is mostly there, made by whoever installed it. */
static void write_config(const struct scenario *s)
{
	struct disk *d = world->disk;
	struct disk_node *file;
	struct disk_node *folder;

	if (world_chance(900)) {
		disk_mkdir(d, "/sim/spool", 0755);
		disk_mkdir(d, "/sim/log", 0755);
	}
	if (disk_open(d, NULL, SCENARIO_CONFIG, O_CREAT | O_WRONLY, 0644, &file) != 0 ||
	    disk_write(d, file, s->config, s->config_len, 0) != (ssize_t)s->config_len ||
	    disk_sync(d, file) != 0 ||
	    disk_open(d, NULL, "/sim", O_RDONLY | O_DIRECTORY, 0, &folder) != 0 ||
	    disk_sync(d, folder) != 0) {
		world_fail("scenario: the configuration cannot be written");
	}
	disk_release(d, file);
	disk_release(d, folder);
}

void scenario_write_config(const struct scenario *s, const char *more)
{
	struct disk *d = world->disk;
	struct disk_node *file;
	char text[SCENARIO_MORE_MAX];

	/* Of one length, so that nothing has to be cut off. */
	memset(text, '\n', sizeof(text));
	memcpy(text, more, strlen(more));
	if (disk_open(d, NULL, SCENARIO_CONFIG, O_WRONLY, 0644, &file) != 0) {
		return;
	}
	(void)disk_write(d, file, text, sizeof(text), s->config_len);
	(void)disk_sync(d, file);
	disk_release(d, file);
}

/* A receiver that suddenly takes few connections, for a while. */
static void on_sudden(void *object, uint64_t limit)
{
	struct scenario_domain *d = object;

	d->sudden_limit = world->calm ? 0 : (uint32_t)limit;
	if (limit != 0) {
		world_at(spread(100 * MS, 20 * S), on_sudden, d, 0);
	} else if (!world->calm) {
		limit = between(1, 2);
		world_at(spread(1 * S, 60 * S), on_sudden, d, limit);
	}
}

static void begin_sudden_limits(struct scenario *s)
{
	for (uint32_t i = 0; s->tempers && i + 1 < s->domain_count; i++) {
		if (world_chance(200)) {
			world_at(spread(100 * MS, 10 * S), on_sudden, &s->domains[i],
				 between(1, 2));
		}
	}
}

static enum disk_direct draw_direct(void)
{
	uint64_t way = world_below(8);

	return way == 0 ? DISK_DIRECT_NOT_WRITTEN : way <= 2 ? DISK_DIRECT_NOT_OPENED : DISK_DIRECT;
}

struct scenario *scenario_create(void)
{
	struct scenario *s = scenario_draw();

	world->scenario = s;
	write_config(s);
	set_disk_faults(s, disk_faults(world->disk));
	disk_set_direct(world->disk, draw_direct());
	set_net_faults(s, net_faults(world->net));
	receivers_create(s);
	senders_create(s);
	operators_create(s);
	begin_sudden_limits(s);
	return s;
}

struct scenario_life scenario_next_life(struct scenario *s)
{
	const int ends[] = {LIFE_KILLED, LIFE_CUT, LIFE_STOPPED};
	const bool may[] = {s->kills, s->cuts, s->stops};
	unsigned which;

	if (s->begun++ >= s->lives) {
		return (struct scenario_life){LIFE_STOPPED, UINT64_MAX};
	}
	do {
		which = (unsigned)world_below(3);
	} while (!may[which]);
	/* Some end while they start. */
	return (struct scenario_life){ends[which],
				      world_chance(100) ? between(0, 20 * MS)
							: between(s->life_ns / 8, s->life_ns * 2)};
}
