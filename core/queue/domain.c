#include "core/queue/domain.h"

#include <stdlib.h>
#include <string.h>

#include "core/queue/site.h"
#include "core/runtime/check.h"

#define BUCKETS_MIN 256

uint64_t domain_hash(const char *binding, const char *name, size_t name_len)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const char *c = binding; *c != '\0'; c++) {
		h = (h ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	}
	h *= UINT64_C(0x100000001b3);
	for (size_t i = 0; i < name_len; i++) {
		h = (h ^ (unsigned char)name[i]) * UINT64_C(0x100000001b3);
	}
	/* FNV's low bits are weak, and they choose homes and buckets. */
	h ^= h >> 32;
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 29;
}

void domain_table_init(struct domain_table *t)
{
	*t = (struct domain_table){.bucket_count = BUCKETS_MIN};
	t->buckets = calloc(t->bucket_count, sizeof(struct domain *));
	if (t->buckets == NULL) {
		fatal("out of memory for domain records");
	}
}

static struct domain **bucket_of(const struct domain_table *t, uint64_t hash)
{
	/* The low bits chose the home; take others. */
	return &t->buckets[(hash >> 24) & (t->bucket_count - 1)];
}

struct domain *domain_find(const struct domain_table *t, const char *binding, const char *name)
{
	uint64_t hash = domain_hash(binding, name, strlen(name));

	for (struct domain *d = *bucket_of(t, hash); d != NULL; d = d->hash_next) {
		if (d->hash == hash && strcmp(d->name, name) == 0 &&
		    strcmp(d->binding, binding) == 0) {
			return d;
		}
	}
	return NULL;
}

static void table_grow(struct domain_table *t)
{
	struct domain **old = t->buckets;
	uint32_t old_count = t->bucket_count;

	t->bucket_count *= 2;
	t->buckets = calloc(t->bucket_count, sizeof(struct domain *));
	if (t->buckets == NULL) {
		fatal("out of memory for %u domain records", t->bucket_count);
	}
	for (uint32_t i = 0; i < old_count; i++) {
		struct domain *next;

		for (struct domain *d = old[i]; d != NULL; d = next) {
			struct domain **bucket = bucket_of(t, d->hash);

			next = d->hash_next;
			d->hash_next = *bucket;
			*bucket = d;
		}
	}
	free(old);
}

struct domain *domain_create(struct domain_table *t, const char *binding, const char *name,
			     const struct domain_options *options)
{
	size_t len = strlen(name);
	struct domain *d = calloc(1, sizeof *d + len + 1);

	if (d == NULL) {
		fatal("out of memory for the domain record of %s", name);
	}
	d->magic = DOMAIN_MAGIC;
	d->hash = domain_hash(binding, name, len);
	d->binding = binding;
	d->name = memcpy(d + 1, name, len + 1);
	d->options = options;
	d->suspended = options->suspend_delivery;
	domain_put(t, d);
	return d;
}

#ifdef FLYWHEEL_DEBUG
/* Deliveries change hands with their record. */
static void hand_over(struct domain *d, bool claim)
{
	for (struct delivery *x = d->active_head; x != NULL; x = x->next) {
		if (claim) {
			OWNER_CLAIM(x);
		} else {
			OWNER_RELEASE(x);
		}
	}
	for (uint32_t i = 0; i < d->delayed_count; i++) {
		if (claim) {
			OWNER_CLAIM(d->delayed[i]);
		} else {
			OWNER_RELEASE(d->delayed[i]);
		}
	}
}
#else
static void hand_over(const struct domain *d, bool claim)
{
	(void)d;
	(void)claim;
}
#endif

void domain_put(struct domain_table *t, struct domain *d)
{
	struct domain **bucket;

	CHECK_MAGIC(d, DOMAIN_MAGIC);
	if (t->count >= t->bucket_count) {
		table_grow(t);
	}
	OWNER_CLAIM(d);
	hand_over(d, true);
	bucket = bucket_of(t, d->hash);
	d->hash_next = *bucket;
	*bucket = d;
	t->count++;
	t->active += d->active_count;
	t->delayed += d->delayed_count;
}

static void unlink_record(struct domain_table *t, struct domain *d)
{
	struct domain **at = bucket_of(t, d->hash);

	while (*at != d) {
		at = &(*at)->hash_next;
	}
	*at = d->hash_next;
	d->hash_next = NULL;
	t->count--;
}

void domain_take(struct domain_table *t, struct domain *d)
{
	OWNER_CHECK(d);
	unlink_record(t, d);
	t->active -= d->active_count;
	t->delayed -= d->delayed_count;
	hand_over(d, false);
	OWNER_RELEASE(d);
}

void domain_set_trouble(struct domain *d, const char *text)
{
	free(d->trouble);
	d->trouble = text != NULL && text[0] != '\0' ? strdup(text) : NULL;
}

void domain_each(const struct domain_table *t, void (*each)(void *context, struct domain *d),
		 void *context)
{
	for (uint32_t i = 0; i < t->bucket_count; i++) {
		for (struct domain *d = t->buckets[i]; d != NULL; d = d->hash_next) {
			each(context, d);
		}
	}
}

/* Checks who calls, and that the delivery may enter a queue. */
static void check_entry(struct domain *d, const struct delivery *delivery)
{
	CHECK_MAGIC(d, DOMAIN_MAGIC);
	CHECK_MAGIC(delivery, DELIVERY_MAGIC);
	OWNER_CHECK(d);
	ASSERT(delivery->place == DELIVERY_TRANSIT);
	ASSERT(delivery->connection == NULL && delivery->loaded == NULL);
}

static void leave_queue(struct delivery *delivery)
{
	delivery->place = DELIVERY_TRANSIT;
	delivery->connection = NULL;
	delivery->loaded = NULL;
}

/* The record's, the table's, and the lane's, which counts what its ring has to send. */
static void count_active(struct domain_table *t, struct domain *d, int change)
{
	d->active_count += (uint32_t)change;
	t->active += (uint64_t)change;
	if (lane_is_ready(d)) {
		d->lane->waiting += (uint64_t)change;
	}
}

void domain_push_active(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	check_entry(d, delivery);
	delivery->domain = d;
	delivery->place = DELIVERY_ACTIVE;
	delivery->next = NULL;
	delivery->prev = d->active_tail;
	if (d->active_tail != NULL) {
		d->active_tail->next = delivery;
	} else {
		d->active_head = delivery;
	}
	d->active_tail = delivery;
	count_active(t, d, 1);
}

void domain_push_active_front(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	check_entry(d, delivery);
	delivery->domain = d;
	delivery->place = DELIVERY_ACTIVE;
	delivery->prev = NULL;
	delivery->next = d->active_head;
	if (d->active_head != NULL) {
		d->active_head->prev = delivery;
	} else {
		d->active_tail = delivery;
	}
	d->active_head = delivery;
	count_active(t, d, 1);
}

static void active_unlink(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	*(delivery->prev != NULL ? &delivery->prev->next : &d->active_head) = delivery->next;
	*(delivery->next != NULL ? &delivery->next->prev : &d->active_tail) = delivery->prev;
	count_active(t, d, -1);
}

struct delivery *domain_pop_active(struct domain_table *t, struct domain *d)
{
	struct delivery *delivery = d->active_head;

	OWNER_CHECK(d);
	if (delivery != NULL) {
		active_unlink(t, d, delivery);
		leave_queue(delivery);
	}
	return delivery;
}

static void heap_set(struct domain *d, uint32_t i, struct delivery *delivery)
{
	d->delayed[i] = delivery;
	delivery->heap_index = i;
}

static void heap_up(struct domain *d, uint32_t i, struct delivery *delivery)
{
	while (i > 0 && d->delayed[(i - 1) / 2]->due_ms > delivery->due_ms) {
		heap_set(d, i, d->delayed[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(d, i, delivery);
}

static void heap_down(struct domain *d, uint32_t i, struct delivery *delivery)
{
	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= d->delayed_count) {
			break;
		}
		if (child + 1 < d->delayed_count &&
		    d->delayed[child + 1]->due_ms < d->delayed[child]->due_ms) {
			child++;
		}
		if (d->delayed[child]->due_ms >= delivery->due_ms) {
			break;
		}
		heap_set(d, i, d->delayed[child]);
		i = child;
	}
	heap_set(d, i, delivery);
}

void domain_push_delayed(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	check_entry(d, delivery);
	if (d->delayed_count == d->delayed_slots) {
		uint32_t slots = d->delayed_slots == 0 ? 2 : d->delayed_slots * 2;
		struct delivery **grown = realloc(d->delayed, slots * sizeof(struct delivery *));

		if (grown == NULL) {
			fatal("out of memory for %u delayed deliveries of %s", slots, d->name);
		}
		d->delayed = grown;
		d->delayed_slots = slots;
	}
	delivery->domain = d;
	delivery->place = DELIVERY_DELAYED;
	d->delayed_count++;
	heap_up(d, d->delayed_count - 1, delivery);
	t->delayed++;
}

struct delivery *domain_peek_delayed(const struct domain *d)
{
	return d->delayed_count != 0 ? d->delayed[0] : NULL;
}

static void delayed_remove(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	uint32_t i = delivery->heap_index;
	struct delivery *last;

	ASSERT(i < d->delayed_count && d->delayed[i] == delivery);
	last = d->delayed[--d->delayed_count];
	t->delayed--;
	if (last == delivery) {
		return;
	}
	if (i > 0 && d->delayed[(i - 1) / 2]->due_ms > last->due_ms) {
		heap_up(d, i, last);
	} else {
		heap_down(d, i, last);
	}
}

/* Of the part of the heap below and including `i`, which is as deep as a word has bits. */
static uint32_t count_due(const struct domain *d, uint64_t i, uint64_t until_ms, uint32_t max)
{
	uint32_t count = 1;

	if (max == 0 || i >= d->delayed_count || d->delayed[i]->due_ms > until_ms) {
		return 0;
	}
	count += count_due(d, 2 * i + 1, until_ms, max - count);
	return count + count_due(d, 2 * i + 2, until_ms, max - count);
}

uint32_t domain_count_due(const struct domain *d, uint64_t until_ms, uint32_t max)
{
	return count_due(d, 0, until_ms, max);
}

void domain_remove(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	CHECK_MAGIC(delivery, DELIVERY_MAGIC);
	OWNER_CHECK(d);
	ASSERT(delivery->domain == d);
	if (delivery->place == DELIVERY_ACTIVE) {
		active_unlink(t, d, delivery);
	} else {
		ASSERT(delivery->place == DELIVERY_DELAYED);
		delayed_remove(t, d, delivery);
	}
	leave_queue(delivery);
}

void domain_destroy(struct domain_table *t, struct domain *d)
{
	ASSERT(d->active_count == 0 && d->delayed_count == 0 && d->lane == NULL);
	unlink_record(t, d);
	d->magic = 0;
	free(d->delayed);
	free(d->trouble);
	free(d->suspension);
	free(d);
}

void domain_table_close(struct domain_table *t)
{
	for (uint32_t i = 0; i < t->bucket_count; i++) {
		while (t->buckets[i] != NULL) {
			domain_destroy(t, t->buckets[i]);
		}
	}
	free(t->buckets);
	t->buckets = NULL;
}

const char *domain_hold_text(enum domain_hold hold)
{
	switch (hold) {
	case DOMAIN_FREE:
		return "nothing";
	case DOMAIN_SUSPENDED:
		return "suspended";
	case DOMAIN_BINDING_SUSPENDED:
		return "the binding is suspended";
	case DOMAIN_RESOLVING:
		return "next hops are being looked up";
	case DOMAIN_UNRESOLVED:
		return "the name service failed (host_failure_retry)";
	case DOMAIN_DNS_BOGUS:
		return "DNSSEC validation of the next hops failed (host_failure_retry)";
	case DOMAIN_DNS_TIMEOUT:
		return "no answer from the name service in time (host_failure_retry)";
	case DOMAIN_NO_ROUTE:
		return "the name service says that no mail can be delivered";
	case DOMAIN_TLS_POLICY:
		return "no next hop has what TLS demands (host_failure_retry)";
	case DOMAIN_HOSTS_DOWN:
		return "every next hop failed (host_failure_retry)";
	case DOMAIN_PEER_LIMIT:
		return "every next hop refuses further connections (host_failure_retry)";
	case DOMAIN_BIND_ADDRESS:
		return "bind_address (host_failure_retry)";
	case DOMAIN_CONNECTIONS:
		return "max_outbound_connections";
	case DOMAIN_SERVER_CONNECTIONS:
		return "server_max_outbound_connections";
	case DOMAIN_THROTTLE_MESSAGES:
		return "outbound_throttle_messages";
	case DOMAIN_THROTTLE_CONNECTIONS:
		return "outbound_throttle_connections";
	case DOMAIN_MEMORY:
		return "memory_budget";
	case DOMAIN_MOVING:
		return "the record goes to the scheduler of its site";
	case DOMAIN_STOPPING:
		return "the program stops";
	case DOMAIN_RETRY:
		return "the next try";
	case DOMAIN_OPENING:
		return "connections are being opened";
	case DOMAIN_READING_BACK:
		return "messages are being read back from the spool";
	case DOMAIN_SETTLING:
		return "the spool writes down what became of attempts";
	case DOMAIN_HOLDS:
		break;
	}
	return "unknown";
}

const char *domain_hold_key(enum domain_hold hold)
{
	static const char *const keys[DOMAIN_HOLDS] = {
		[DOMAIN_FREE] = "nothing",
		[DOMAIN_SUSPENDED] = "suspended",
		[DOMAIN_BINDING_SUSPENDED] = "binding_suspended",
		[DOMAIN_RESOLVING] = "resolving",
		[DOMAIN_UNRESOLVED] = "dns_failed",
		[DOMAIN_DNS_BOGUS] = "dns_bogus",
		[DOMAIN_DNS_TIMEOUT] = "dns_timeout",
		[DOMAIN_TLS_POLICY] = "tls_policy",
		[DOMAIN_NO_ROUTE] = "no_route",
		[DOMAIN_HOSTS_DOWN] = "hosts_failed",
		[DOMAIN_PEER_LIMIT] = "peer_limit",
		[DOMAIN_BIND_ADDRESS] = "bind_address",
		[DOMAIN_CONNECTIONS] = "max_outbound_connections",
		[DOMAIN_SERVER_CONNECTIONS] = "server_max_outbound_connections",
		[DOMAIN_THROTTLE_MESSAGES] = "outbound_throttle_messages",
		[DOMAIN_THROTTLE_CONNECTIONS] = "outbound_throttle_connections",
		[DOMAIN_MEMORY] = "memory_budget",
		[DOMAIN_MOVING] = "moving",
		[DOMAIN_STOPPING] = "stopping",
		[DOMAIN_RETRY] = "retry",
		[DOMAIN_OPENING] = "opening",
		[DOMAIN_READING_BACK] = "reading_back",
		[DOMAIN_SETTLING] = "settling",
	};

	return hold < DOMAIN_HOLDS ? keys[hold] : "unknown";
}

bool domain_validate(const struct domain *d)
{
	const struct delivery *prev = NULL;
	uint32_t count = 0;

	for (const struct delivery *x = d->active_head; x != NULL; x = x->next) {
		if (x->prev != prev || x->domain != d || x->place != DELIVERY_ACTIVE) {
			return false;
		}
		prev = x;
		count++;
	}
	if (count != d->active_count || d->active_tail != prev) {
		return false;
	}
	for (uint32_t i = 0; i < d->delayed_count; i++) {
		const struct delivery *x = d->delayed[i];

		if (x->heap_index != i || x->domain != d || x->place != DELIVERY_DELAYED ||
		    (i > 0 && d->delayed[(i - 1) / 2]->due_ms > x->due_ms)) {
			return false;
		}
	}
	return true;
}
