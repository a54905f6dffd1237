#include "core/queue/site.h"

#include <stdlib.h>
#include <string.h>

#include "core/queue/answers.h"
#include "core/runtime/check.h"
#include "core/runtime/tls.h"

#define BUCKETS_MIN 64

const char *site_key_after(const char *key, const char *kind)
{
	size_t len = strlen(kind);

	return strncmp(key, kind, len) == 0 ? key + len : NULL;
}

void site_table_init(struct site_table *t)
{
	*t = (struct site_table){.bucket_count = BUCKETS_MIN};
	t->buckets = check_memory(calloc(t->bucket_count, sizeof(struct site *)), "sites");
}

static struct site **bucket_of(const struct site_table *t, uint64_t hash)
{
	/* As in domain.c: the low bits chose the home. */
	return &t->buckets[(hash >> 24) & (t->bucket_count - 1)];
}

struct site *site_find(const struct site_table *t, const char *binding, const char *key)
{
	uint64_t hash = domain_hash(binding, key, strlen(key));

	for (struct site *s = *bucket_of(t, hash); s != NULL; s = s->hash_next) {
		if (s->hash == hash && strcmp(s->key, key) == 0 &&
		    strcmp(s->binding, binding) == 0) {
			return s;
		}
	}
	return NULL;
}

static void table_grow(struct site_table *t)
{
	struct site **old = t->buckets;
	uint32_t old_count = t->bucket_count;

	t->bucket_count *= 2;
	t->buckets = calloc(t->bucket_count, sizeof(struct site *));
	if (t->buckets == NULL) {
		fatal("out of memory for %u sites", t->bucket_count);
	}
	for (uint32_t i = 0; i < old_count; i++) {
		struct site *next;

		for (struct site *s = old[i]; s != NULL; s = next) {
			struct site **bucket = bucket_of(t, s->hash);

			next = s->hash_next;
			s->hash_next = *bucket;
			*bucket = s;
		}
	}
	free(old);
}

struct site *site_create(struct site_table *t, const char *binding, const char *key,
			 const struct domain_options *options)
{
	size_t len = strlen(key);
	struct site *s = calloc(1, sizeof *s + len + 1);
	struct site **bucket;

	if (s == NULL) {
		fatal("out of memory for the site %s", key);
	}
	if (t->count >= t->bucket_count) {
		table_grow(t);
	}
	s->magic = SITE_MAGIC;
	s->hash = domain_hash(binding, key, len);
	s->binding = binding;
	s->key = memcpy(s + 1, key, len + 1);
	s->options = options;
	OWNER_CLAIM(s);
	bucket = bucket_of(t, s->hash);
	s->hash_next = *bucket;
	*bucket = s;
	t->count++;
	return s;
}

void site_destroy(struct site_table *t, struct site *s)
{
	struct site **at = bucket_of(t, s->hash);

	ASSERT(s->lanes == NULL && s->connections == NULL && s->domain_count == 0);
	while (*at != s) {
		at = &(*at)->hash_next;
	}
	*at = s->hash_next;
	t->count--;
	s->magic = 0;
	answers_free(s->answers);
	free(s);
}

void site_each(const struct site_table *t, void (*each)(void *context, struct site *s),
	       void *context)
{
	for (uint32_t i = 0; i < t->bucket_count; i++) {
		for (struct site *s = t->buckets[i]; s != NULL; s = s->hash_next) {
			each(context, s);
		}
	}
}

void site_table_close(struct site_table *t)
{
	for (uint32_t i = 0; i < t->bucket_count; i++) {
		while (t->buckets[i] != NULL) {
			while (t->buckets[i]->lanes != NULL) {
				lane_destroy(t->buckets[i]->lanes);
			}
			site_destroy(t, t->buckets[i]);
		}
	}
	free(t->buckets);
	t->buckets = NULL;
}

/* ---- lanes ---- */

bool lane_options_agree(const struct domain_options *a, const struct domain_options *b)
{
	return a == b ||
	       (domain_options_same_bind(a, b) && a->remote_smtp_port == b->remote_smtp_port &&
		a->address_family == b->address_family && a->tls == b->tls &&
		tls_client_same_roots(a->tls_client, b->tls_client) &&
		a->tls_failure_retry_ms == b->tls_failure_retry_ms &&
		strcmp(a->ehlo_hostname, b->ehlo_hostname) == 0 &&
		a->max_deliveries_per_connection == b->max_deliveries_per_connection &&
		a->connect_timeout_ms == b->connect_timeout_ms &&
		a->ehlo_timeout_ms == b->ehlo_timeout_ms &&
		a->rset_timeout_ms == b->rset_timeout_ms &&
		a->idle_timeout_ms == b->idle_timeout_ms &&
		a->host_failure_retry_ms == b->host_failure_retry_ms);
}

struct lane *lane_open(struct site *s, const struct domain_options *options, const char *mx,
		       bool mx_secure, bool *made)
{
	size_t len = strlen(mx);
	struct lane *l = s->lanes;

	CHECK_MAGIC(s, SITE_MAGIC);
	*made = false;
	while (l != NULL && !(!l->retired && l->mx_secure == mx_secure && strcmp(l->mx, mx) == 0 &&
			      lane_options_agree(l->options, options))) {
		l = l->next;
	}
	if (l != NULL) {
		return l;
	}
	l = calloc(1, sizeof *l + len + 1);
	if (l == NULL) {
		fatal("out of memory for the site %s", s->key);
	}
	l->site = s;
	l->options = options;
	l->mx_secure = mx_secure;
	l->hunger = LANE_SATED;
	l->mx = memcpy(l + 1, mx, len + 1);
	l->next = s->lanes;
	s->lanes = l;
	s->lane_count++;
	*made = true;
	return l;
}

void lane_destroy(struct lane *l)
{
	struct lane **at = &l->site->lanes;

	ASSERT(l->domain_count == 0 && l->connection_count == 0 && l->ready == NULL);
	lane_set_hunger(l, LANE_SATED);
	while (*at != l) {
		at = &(*at)->next;
	}
	*at = l->next;
	l->site->lane_count--;
	lane_free_hosts(l);
	free(l->trouble);
	free(l);
}

void lane_free_hosts(struct lane *l)
{
	for (uint32_t i = 0; i < l->host_count; i++) {
		free(l->hosts[i].trouble);
	}
	free(l->hosts);
	l->hosts = NULL;
	l->host_count = 0;
}

void lane_set_trouble(struct lane *l, const char *text)
{
	free(l->trouble);
	l->trouble = text != NULL && text[0] != '\0' ? strdup(text) : NULL;
}

void lane_enter(struct lane *l, struct domain *d)
{
	ASSERT(d->lane == NULL && !lane_is_ready(d));
	d->lane = l;
	l->domain_count++;
	l->site->domain_count++;
}

void lane_leave(struct domain *d)
{
	struct lane *l = d->lane;

	if (l != NULL) {
		lane_remove_ready(d);
		d->lane = NULL;
		l->domain_count--;
		l->site->domain_count--;
	}
}

void lane_push_ready(struct domain *d)
{
	struct lane *l = d->lane;

	if (lane_is_ready(d)) {
		return;
	}
	if (l->ready == NULL) {
		d->ready_next = d;
		d->ready_prev = d;
		l->ready = d;
	} else {
		d->ready_next = l->ready;
		d->ready_prev = l->ready->ready_prev;
		d->ready_prev->ready_next = d;
		d->ready_next->ready_prev = d;
	}
	l->waiting += d->active_count;
}

void lane_remove_ready(struct domain *d)
{
	struct lane *l = d->lane;

	if (!lane_is_ready(d)) {
		return;
	}
	if (l->ready == d) {
		l->ready = d->ready_next != d ? d->ready_next : NULL;
	}
	d->ready_prev->ready_next = d->ready_next;
	d->ready_next->ready_prev = d->ready_prev;
	d->ready_next = NULL;
	d->ready_prev = NULL;
	l->waiting -= d->active_count;
}

void lane_turn(struct lane *l)
{
	if (l->ready != NULL) {
		l->ready = l->ready->ready_next;
	}
}

static void leave_ring(struct lane *l)
{
	struct lane **first = &l->site->hungry[l->hunger];

	if (*first == l) {
		*first = l->hungry_next != l ? l->hungry_next : NULL;
	}
	l->hungry_prev->hungry_next = l->hungry_next;
	l->hungry_next->hungry_prev = l->hungry_prev;
	l->hungry_next = NULL;
	l->hungry_prev = NULL;
}

static void enter_ring(struct lane *l)
{
	struct lane **first = &l->site->hungry[l->hunger];

	if (*first == NULL) {
		l->hungry_next = l;
		l->hungry_prev = l;
		*first = l;
	} else {
		l->hungry_next = *first;
		l->hungry_prev = (*first)->hungry_prev;
		l->hungry_prev->hungry_next = l;
		l->hungry_next->hungry_prev = l;
	}
}

void lane_set_hunger(struct lane *l, enum lane_hunger hunger)
{
	if (l->hunger == hunger) {
		return;
	}
	if (l->hunger != LANE_SATED) {
		leave_ring(l);
	}
	l->hunger = (uint8_t)hunger;
	if (hunger != LANE_SATED) {
		enter_ring(l);
	}
}

void site_turn(struct site *s, const struct lane *l)
{
	if (l->hunger != LANE_SATED && s->hungry[l->hunger] == l) {
		s->hungry[l->hunger] = l->hungry_next;
	}
}

static bool lane_validate(const struct lane *l)
{
	const struct domain *d = l->ready;
	uint64_t waiting = 0;

	while (d != NULL) {
		if (d->lane != l || d->ready_next->ready_prev != d) {
			return false;
		}
		waiting += d->active_count;
		d = d->ready_next != l->ready ? d->ready_next : NULL;
	}
	return waiting == l->waiting && l->connecting_count + l->idle_count <= l->connection_count;
}

bool site_validate(const struct site *s)
{
	uint32_t domains = 0;
	uint32_t connections = 0;
	uint32_t lanes = 0;

	for (const struct lane *l = s->lanes; l != NULL; l = l->next) {
		if (!lane_validate(l)) {
			return false;
		}
		domains += l->domain_count;
		connections += l->connection_count;
		lanes++;
	}
	return domains == s->domain_count && connections == s->connection_count &&
	       lanes == s->lane_count;
}
