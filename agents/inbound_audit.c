#include "agents/inbound_audit.h"

#include <stdlib.h>
#include <string.h>

#include "agents/network_counts.h"
#include "core/runtime/check.h"

/* Of networks with the same hash: 128 KB of pointers. */
#define CHAINS 16384

struct inbound_audit {
	struct network_counts *sessions;
	/* NULL: there are no monitors. */
	struct network_counts *events;
	struct inbound_monitor *monitors;
	uint32_t monitor_count;
	/* Numbers of a network. */
	uint32_t width;
};

/* A monitor has the windows of before, and the one that goes on. */
static uint32_t slots(const struct inbound_monitor *m)
{
	return m->windows + 1;
}

/* In a network's row: the number of the newest window, then each event's counts, by number of the
 * window modulo how many there are. */
static uint32_t width_of(const struct inbound_monitor *m)
{
	return 1 + POLICY_EVENTS * slots(m);
}

static uint32_t networks_max(uint32_t width)
{
	uint64_t count = INBOUND_BYTES_MAX / (width * sizeof(uint64_t));

	return (uint32_t)(count < INBOUND_NETWORKS_MAX ? count : INBOUND_NETWORKS_MAX);
}

struct inbound_audit *inbound_audit_create(const struct inbound_monitor *monitors, uint32_t count)
{
	struct inbound_audit *a = check_memory(calloc(1, sizeof(*a)), "the inbound audit");

	a->sessions = network_counts_create(INBOUND_SERVICES, UINT32_MAX, CHAINS);
	if (count == 0) {
		return a;
	}
	ASSERT(count <= INBOUND_MONITORS_MAX);
	a->monitors = check_memory(calloc(1, count * sizeof(*monitors)), "the inbound audit");
	memcpy(a->monitors, monitors, count * sizeof(*monitors));
	a->monitor_count = count;
	for (uint32_t i = 0; i < count; i++) {
		a->width += width_of(&monitors[i]);
	}
	a->events = network_counts_create(a->width, networks_max(a->width), CHAINS);
	return a;
}

void inbound_audit_destroy(struct inbound_audit *a)
{
	if (a == NULL) {
		return;
	}
	network_counts_destroy(a->sessions);
	if (a->events != NULL) {
		network_counts_destroy(a->events);
	}
	free(a->monitors);
	free(a);
}

/* ---- sessions ---- */

void inbound_audit_begin(struct inbound_audit *a, uint32_t service, const struct in6_addr *client)
{
	const unsigned *list = policy_networks(client);

	ASSERT(service < INBOUND_SERVICES);
	for (int i = 0; i < POLICY_NETWORKS; i++) {
		_Atomic uint64_t *row = network_counts_row(a->sessions, client, list[i]);

		network_counts_set(&row[service], network_counts_get(&row[service]) + 1);
	}
}

static bool is_empty(const _Atomic uint64_t *row)
{
	for (int i = 0; i < INBOUND_SERVICES; i++) {
		if (network_counts_get(&row[i]) != 0) {
			return false;
		}
	}
	return true;
}

void inbound_audit_end(struct inbound_audit *a, uint32_t service, const struct in6_addr *client)
{
	const unsigned *list = policy_networks(client);

	ASSERT(service < INBOUND_SERVICES);
	for (int i = 0; i < POLICY_NETWORKS; i++) {
		_Atomic uint64_t *row = network_counts_row(a->sessions, client, list[i]);
		uint64_t now = network_counts_get(&row[service]);

		ASSERT(now > 0);
		network_counts_set(&row[service], now - 1);
		if (is_empty(row)) {
			network_counts_drop(a->sessions, client, list[i]);
		}
	}
}

uint64_t inbound_audit_sessions(const struct inbound_audit *a, uint32_t service,
				const struct in6_addr *address, unsigned prefix)
{
	uint64_t row[INBOUND_SERVICES];

	ASSERT(service < INBOUND_SERVICES);
	return network_counts_read(a->sessions, address, prefix, row) ? row[service] : 0;
}

/* ---- events ---- */

/* Adds one to the window that is now. Those in between had nothing; a clock that goes back adds to
 * the newest. */
static void add(const struct inbound_monitor *m, _Atomic uint64_t *row, enum policy_event event,
		uint64_t now_s)
{
	uint64_t now = now_s / m->interval_s;
	uint64_t newest = network_counts_get(&row[0]);
	uint32_t n = slots(m);
	_Atomic uint64_t *count;

	for (uint32_t i = 0; i < n && newest < now; i++) {
		newest++;
		for (uint32_t e = 0; e < POLICY_EVENTS; e++) {
			network_counts_set(&row[1 + e * n + newest % n], 0);
		}
	}
	newest = now > newest ? now : newest;
	/* Counts before their number: who reads this one finds what is of before gone. */
	network_counts_set(&row[0], newest);
	count = &row[1 + (uint32_t)event * n + newest % n];
	network_counts_set(count, network_counts_get(count) + 1);
}

void inbound_audit_note(struct inbound_audit *a, const struct in6_addr *client,
			enum policy_event event, uint64_t now_s)
{
	const unsigned *list = policy_networks(client);

	if (a->events == NULL) {
		return;
	}
	for (int i = 0; i < POLICY_NETWORKS; i++) {
		_Atomic uint64_t *row = network_counts_row(a->events, client, list[i]);

		for (uint32_t k = 0; k < a->monitor_count; k++) {
			add(&a->monitors[k], row, event, now_s);
			row += width_of(&a->monitors[k]);
		}
	}
}

int inbound_audit_monitor(const struct inbound_audit *a, uint32_t interval_s, uint32_t windows)
{
	for (uint32_t i = 0; i < a->monitor_count; i++) {
		if (a->monitors[i].interval_s == interval_s && a->monitors[i].windows == windows) {
			return (int)i;
		}
	}
	return -1;
}

uint64_t inbound_audit_sum(const struct inbound_audit *a, int monitor,
			   const struct policy_events *asked, uint64_t now_s)
{
	const struct inbound_monitor *m = &a->monitors[monitor];
	uint64_t all[INBOUND_MONITORS_MAX * (1 + POLICY_EVENTS * (INBOUND_WINDOWS_MAX + 1))];
	const uint64_t *row = all;
	uint64_t now = now_s / m->interval_s;
	uint64_t sum = 0;

	ASSERT(a->width <= sizeof(all) / sizeof(all[0]));
	ASSERT(asked->first <= asked->last && asked->last <= m->windows);
	if (!network_counts_read(a->events, &asked->address, asked->prefix, all)) {
		return 0;
	}
	for (int i = 0; i < monitor; i++) {
		row += width_of(&a->monitors[i]);
	}
	for (uint32_t back = asked->first; back <= asked->last; back++) {
		uint64_t window = now > back ? now - back : 0;

		if (window <= row[0] && row[0] - window < slots(m)) {
			sum += row[1 + (uint32_t)asked->event * slots(m) + window % slots(m)];
		}
	}
	return sum;
}
