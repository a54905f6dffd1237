#include "core/queue/domain.h"

#include <stdlib.h>
#include <string.h>

#include "core/queue/site.h"
#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

#define BUCKETS_MIN 256

uint64_t domain_hash(const char *binding, const char *name, size_t name_len)
{
	/* With the NUL between them. */
	uint64_t h = fnv_octet(fnv_text(FNV_START, binding), 0);

	h = fnv_bytes(h, name, name_len);
	/* FNV's low bits are weak, and they choose homes and buckets. */
	h ^= h >> 32;
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 29;
}

void domain_table_init(struct domain_table *t)
{
	*t = (struct domain_table){.bucket_count = BUCKETS_MIN};
	t->buckets =
		check_memory(calloc(t->bucket_count, sizeof(struct domain *)), "domain records");
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
static void hand_over_one(struct delivery *x, bool claim)
{
	if (claim) {
		OWNER_CLAIM(x);
	} else {
		OWNER_RELEASE(x);
	}
}

/* Deliveries change hands with their record. */
static void hand_over(struct domain *d, bool claim)
{
	for (struct delivery *x = d->active_head; x != NULL; x = x->next) {
		hand_over_one(x, claim);
	}
	for (uint32_t i = 0; i < d->delayed_count; i++) {
		hand_over_one(d->delayed[i], claim);
	}
	for (uint32_t i = 0; i < d->held_count; i++) {
		hand_over_one(d->held[i], claim);
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
	t->held += d->held_count;
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
	t->held -= d->held_count;
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
	d->changes++;
	t->active += (uint64_t)change;
	if (lane_is_ready(d)) {
		d->lane->waiting += (uint64_t)change;
	}
}

/* Behind `prev`; NULL: in front. Those that go before others stay in front of them. */
static void active_link(struct domain_table *t, struct domain *d, struct delivery *delivery,
			struct delivery *prev)
{
	check_entry(d, delivery);
	delivery->domain = d;
	delivery->place = DELIVERY_ACTIVE;
	delivery->prev = prev;
	delivery->next = prev != NULL ? prev->next : d->active_head;
	*(prev != NULL ? &prev->next : &d->active_head) = delivery;
	*(delivery->next != NULL ? &delivery->next->prev : &d->active_tail) = delivery;
	if (delivery->urgent && d->urgent_tail == prev) {
		d->urgent_tail = delivery;
	}
	count_active(t, d, 1);
}

void domain_push_active(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	active_link(t, d, delivery, delivery->urgent ? d->urgent_tail : d->active_tail);
}

void domain_push_active_front(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	active_link(t, d, delivery, delivery->urgent ? NULL : d->urgent_tail);
}

static void active_unlink(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	*(delivery->prev != NULL ? &delivery->prev->next : &d->active_head) = delivery->next;
	*(delivery->next != NULL ? &delivery->next->prev : &d->active_tail) = delivery->prev;
	if (delivery->urgent && d->urgent_tail == delivery) {
		d->urgent_tail = delivery->prev;
	}
	if (t->cursor == delivery) {
		t->cursor = delivery->next;
	}
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

struct delivery *domain_oldest_active(const struct domain *d)
{
	struct delivery *first = d->active_head;
	struct delivery *other = d->urgent_tail != NULL ? d->urgent_tail->next : NULL;

	return other != NULL && other->message->received_ms < first->message->received_ms ? other
											  : first;
}

/* What a heap is sorted by: due time; of what is held, time of reception. */
static uint64_t heap_key(const struct delivery *delivery)
{
	return delivery->place == DELIVERY_HELD ? delivery->message->received_ms : delivery->due_ms;
}

static void heap_set(struct delivery **heap, uint32_t i, struct delivery *delivery)
{
	heap[i] = delivery;
	delivery->heap_index = i;
}

static void heap_up(struct delivery **heap, uint32_t i, struct delivery *delivery)
{
	uint64_t key = heap_key(delivery);

	while (i > 0 && heap_key(heap[(i - 1) / 2]) > key) {
		heap_set(heap, i, heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(heap, i, delivery);
}

static void heap_down(struct delivery **heap, uint32_t count, uint32_t i, struct delivery *delivery)
{
	uint64_t key = heap_key(delivery);

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= count) {
			break;
		}
		if (child + 1 < count && heap_key(heap[child + 1]) < heap_key(heap[child])) {
			child++;
		}
		if (heap_key(heap[child]) >= key) {
			break;
		}
		heap_set(heap, i, heap[child]);
		i = child;
	}
	heap_set(heap, i, delivery);
}

/* Room for one more of `count`: it has slots for the next power of two. */
static void heap_grow(struct delivery ***heap, uint32_t count, const char *name)
{
	uint32_t wanted = count < 2 ? 2 : count * 2;
	struct delivery **grown;

	if ((count & (count - 1)) != 0) {
		return;
	}
	grown = realloc(*heap, wanted * sizeof(struct delivery *));
	if (grown == NULL) {
		fatal("out of memory for %u deliveries of %s that wait", wanted, name);
	}
	*heap = grown;
}

static void heap_remove(struct delivery **heap, uint32_t *count, const struct delivery *delivery)
{
	uint32_t i = delivery->heap_index;
	struct delivery *last;

	ASSERT(i < *count && heap[i] == delivery);
	last = heap[--*count];
	if (last == delivery) {
		return;
	}
	if (i > 0 && heap_key(heap[(i - 1) / 2]) > heap_key(last)) {
		heap_up(heap, i, last);
	} else {
		heap_down(heap, *count, i, last);
	}
}

void domain_push_delayed(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	check_entry(d, delivery);
	heap_grow(&d->delayed, d->delayed_count, d->name);
	delivery->domain = d;
	delivery->place = DELIVERY_DELAYED;
	d->delayed_count++;
	heap_up(d->delayed, d->delayed_count - 1, delivery);
	d->changes++;
	t->delayed++;
}

struct delivery *domain_peek_delayed(const struct domain *d)
{
	return d->delayed_count != 0 ? d->delayed[0] : NULL;
}

void domain_push_held(struct domain_table *t, struct domain *d, struct delivery *delivery)
{
	check_entry(d, delivery);
	heap_grow(&d->held, d->held_count, d->name);
	delivery->domain = d;
	delivery->place = DELIVERY_HELD;
	delivery->held = true;
	d->held_count++;
	heap_up(d->held, d->held_count - 1, delivery);
	d->changes++;
	t->held++;
}

struct delivery *domain_peek_held(const struct domain *d)
{
	return d->held_count != 0 ? d->held[0] : NULL;
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
	} else if (delivery->place == DELIVERY_HELD) {
		heap_remove(d->held, &d->held_count, delivery);
		t->held--;
	} else {
		ASSERT(delivery->place == DELIVERY_DELAYED);
		heap_remove(d->delayed, &d->delayed_count, delivery);
		t->delayed--;
	}
	d->changes++;
	leave_queue(delivery);
}

void domain_destroy(struct domain_table *t, struct domain *d)
{
	ASSERT(d->active_count == 0 && d->delayed_count == 0 && d->held_count == 0);
	ASSERT(d->lane == NULL);
	unlink_record(t, d);
	d->magic = 0;
	free(d->delayed);
	free(d->held);
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
	case DOMAIN_HELD_MAIL:
		return "an operator holds mail";
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
		[DOMAIN_HELD_MAIL] = "held_mail",
	};

	return hold < DOMAIN_HOLDS ? keys[hold] : "unknown";
}

static bool heap_valid(const struct domain *d, struct delivery *const *heap, uint32_t count,
		       enum delivery_place place)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct delivery *x = heap[i];

		if (x->heap_index != i || x->domain != d || x->place != place ||
		    (i > 0 && heap_key(heap[(i - 1) / 2]) > heap_key(x))) {
			return false;
		}
	}
	return true;
}

bool domain_validate(const struct domain *d)
{
	const struct delivery *prev = NULL;
	const struct delivery *urgent = NULL;
	uint32_t count = 0;

	for (const struct delivery *x = d->active_head; x != NULL; x = x->next) {
		if (x->prev != prev || x->domain != d || x->place != DELIVERY_ACTIVE) {
			return false;
		}
		if (x->urgent && urgent != prev) {
			return false;
		}
		urgent = x->urgent ? x : urgent;
		prev = x;
		count++;
	}
	if (count != d->active_count || d->active_tail != prev || d->urgent_tail != urgent) {
		return false;
	}
	return heap_valid(d, d->delayed, d->delayed_count, DELIVERY_DELAYED) &&
	       heap_valid(d, d->held, d->held_count, DELIVERY_HELD);
}
