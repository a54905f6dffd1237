/*
 * Homes that change while mail flows. A layout is a number of homes; hash(binding, domain) modulo
 * that chooses a record's first home, and the same for a site. With a new layout many records have
 * another first home than before, and many sites another one.
 *
 * All dispatchers hear of the layout first. From then on mail and orders go to the new first home.
 * What that one has no record and no entry of may still be at the home of the layout before: it
 * sends on to there, as if it had an entry for it. The old home has it, or an entry that says
 * where it is; or it knows of nothing: then it says so, with what it sends back (`yours`), leaves
 * an entry that it does not look after this name any more, and the new home makes the record.
 *
 * Then each dispatcher goes through all that it has, piece by piece, again and again until nothing
 * is out of place:
 *   - a record that belongs elsewhere goes to its new first home as it would go back to it from
 *     the home of a site (move.c), and from there, when its next hops have been looked up, to
 *     where its site is now; what it leaves is an entry;
 *   - a site that belongs elsewhere ends: what its connections do is waited for, domains or not;
 *   - an entry for a record that is away is handed to the new first home, while the record stays,
 *     if its site stays; for one that was at its first home, and stays with its site, one is made.
 * A site may have connections at its old home when its domains have begun to come to the new one:
 * that one opens none before the old one has said that all are closed, so that limits hold.
 *
 * When nobody has found anything any more, twice in a row, all is settled: what was left behind is
 * dropped, and nobody asks the old homes any more.
 */
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/runtime/check.h"

/* Records and entries looked at in one step, and those that may begin to leave in it. */
#define STEP_LOOKS 512
#define STEP_MOVES 32
/* How long a pass waits that only waits for others: twice as long after each like it. */
#define PASS_MS 5
#define PASS_MS_MAX 1000

/* A name that travels alone: an entry that is handed over, or a site that is asked for. */
SINGLE
struct named {
	/* Of those who wait for one site. */
	struct named *next;
	struct dispatcher *from;
	/* Of `from` when it asked. */
	uint32_t layout;
	uint32_t home;
	/* Of an entry. */
	uint64_t trip;
	char *binding;
	char *name;
};

uint32_t dispatch_home(const struct dispatcher *x, uint64_t hash)
{
	return (uint32_t)(hash % x->peer_count);
}

/* Under the layout before, while records settle. */
static uint32_t home_before(const struct dispatcher *x, uint64_t hash)
{
	return (uint32_t)(hash %
			  (x->peer_count_before != 0 ? x->peer_count_before : x->peer_count));
}

static struct named *name(struct dispatcher *x, const char *binding, const char *text)
{
	struct named *n = check_memory(calloc(1, sizeof *n), "a new layout");

	n->from = x;
	n->layout = x->layout;
	n->binding = check_memory(strdup(binding), "a new layout");
	n->name = check_memory(strdup(text), "a new layout");
	return n;
}

static void name_free(struct named *n)
{
	free(n->binding);
	free(n->name);
	free(n);
}

/* ---- where mail goes ---- */

struct dispatcher *dispatch_away(const struct dispatcher *x, const char *binding,
				 const char *domain)
{
	const struct forward *f;

	if (x->forwards.count == 0) {
		return NULL;
	}
	f = forward_find(&x->forwards, binding, domain,
			 domain_hash(binding, domain, strlen(domain)));
	return f != NULL ? x->peers[f->home] : NULL;
}

bool dispatch_is_home(const struct dispatcher *x, const char *binding, const char *domain)
{
	return dispatch_home(x, domain_hash(binding, domain, strlen(domain))) == x->index;
}

struct dispatcher *dispatch_before(const struct dispatcher *x, const char *binding,
				   const char *domain)
{
	uint32_t before = home_before(x, domain_hash(binding, domain, strlen(domain)));

	return before != x->index ? x->peers[before] : NULL;
}

struct dispatcher *dispatch_elsewhere(struct dispatcher *x, const char *binding, const char *domain,
				      uint64_t *yours)
{
	uint64_t hash = domain_hash(binding, domain, strlen(domain));
	const struct forward *f = forward_find(&x->forwards, binding, domain, hash);
	uint32_t home = dispatch_home(x, hash);
	uint32_t before = home_before(x, hash);
	uint64_t mine = *yours;

	*yours = 0;
	dispatch_heard(x, mine);
	if (f != NULL) {
		/* At its new first home it may have been freed since, or never been made. */
		if (before == x->index && f->home == home) {
			*yours = ++x->trip;
		}
		return x->peers[f->home];
	}
	if (mine != 0) {
		return NULL;
	}
	if (home == x->index) {
		return before == home ? NULL : x->peers[before];
	}
	if (x->peer_count_before != 0 && before == x->index) {
		*yours = ++x->trip;
		forward_add(&x->forwards, binding_open(&x->bindings, binding)->name, domain, hash,
			    (uint8_t)home, *yours);
	}
	return x->peers[home];
}

void dispatch_heard(struct dispatcher *x, uint64_t trip)
{
	x->trip = trip > x->trip ? trip : x->trip;
}

/* ---- sites ---- */

/* It is at one scheduler, for all its domains; others are where the domain is. */
static bool has_home(const char *key)
{
	return site_key_after(key, SITE_OF_DOMAIN) == NULL &&
	       site_key_after(key, SITE_OF_GATEWAYS) == NULL;
}

/* On the new home. */
static void on_site_clear(struct agent *self, void *object, uint64_t unused)
{
	struct named *n = object;
	struct site *s = site_find(&n->from->sites, n->binding, n->name);

	(void)unused;
	ASSERT(n->from->self == self);
	if (s != NULL && s->awaited) {
		s->awaited = false;
		if (!n->from->stopping) {
			dispatch_site_go(s);
		}
	}
	name_free(n);
}

/* On the old home. */
static void on_site_asked(struct agent *self, void *object, uint64_t index)
{
	struct named *n = object;
	struct dispatcher *x = n->from->peers[index];
	struct site *s = site_find(&x->sites, n->binding, n->name);

	if (x->layout < n->layout) {
		/* It will hear of the layout at once, and may connect for as long. */
		agent_send(self, self, on_site_asked, n, index);
		return;
	}
	if (s == NULL) {
		agent_send(self, n->from->self, on_site_clear, n, 0);
		return;
	}
	n->next = s->awaiting;
	s->awaiting = n;
}

void relocate_await_site(struct dispatcher *x, struct site *s)
{
	uint32_t before = home_before(x, s->hash);

	if (!has_home(s->key) || before == x->index) {
		return;
	}
	s->awaited = true;
	agent_send(x->self, x->peers[before]->self, on_site_asked, name(x, s->binding, s->key),
		   before);
}

/* It ends, or has to. */
static bool is_out_of_place(const struct dispatcher *x, const struct site *s)
{
	return has_home(s->key) && dispatch_home(x, s->hash) != x->index;
}

/* One more pass, soon. */
static void look_again(struct dispatcher *x)
{
	struct relocation *r = &x->relocation;

	r->pause_ms = PASS_MS;
	if (timer_armed(&r->timer)) {
		timer_arm(&r->timer, dispatch_now_ms(x) + PASS_MS);
	}
}

/* The next pass need not wait any longer when nothing is left that the last one waits for. */
static void note_end(struct dispatcher *x)
{
	struct relocation *r = &x->relocation;

	if (r->awaited > 0 && --r->awaited == 0) {
		look_again(x);
	}
}

void relocate_site_gone(struct dispatcher *x, struct site *s)
{
	struct named *n;

	if (is_out_of_place(x, s)) {
		note_end(x);
	}
	while ((n = s->awaiting) != NULL) {
		s->awaiting = n->next;
		agent_send(x->self, n->from->self, on_site_clear, n, 0);
	}
}

/* ---- entries ---- */

static void on_entry_taken(struct agent *self, void *object, uint64_t unused)
{
	struct named *n = object;

	(void)unused;
	ASSERT(n->from->self == self && n->from->relocation.entries > 0);
	n->from->relocation.entries--;
	name_free(n);
}

/* On the new first home of a record that is away. It may have come and gone again since; and what
 * is known of that may be older than what the other one knows. */
static void take_entry(struct dispatcher *x, const struct named *n)
{
	uint64_t hash = domain_hash(n->binding, n->name, strlen(n->name));
	struct forward *f = forward_find(&x->forwards, n->binding, n->name, hash);

	dispatch_heard(x, n->trip);
	if (n->home == x->index || domain_find(&x->domains, n->binding, n->name) != NULL) {
		return;
	}
	if (f == NULL) {
		forward_add(&x->forwards, binding_open(&x->bindings, n->binding)->name, n->name,
			    hash, (uint8_t)n->home, n->trip);
	} else if (n->trip > f->trip) {
		f->home = (uint8_t)n->home;
		f->trip = n->trip;
	}
}

static void on_entry(struct agent *self, void *object, uint64_t index)
{
	struct named *n = object;

	take_entry(n->from->peers[index], n);
	agent_send(self, n->from->self, on_entry_taken, n, 0);
}

static void send_entry(struct dispatcher *x, const char *binding, const char *text, uint32_t home,
		       uint64_t trip, uint32_t to)
{
	struct named *n = name(x, binding, text);

	n->home = home;
	n->trip = trip;
	x->relocation.entries++;
	x->relocation.activity++;
	agent_send(x->self, x->peers[to]->self, on_entry, n, to);
}

/* Where it is to be: at its site, if it has one. */
static uint32_t place_of(const struct dispatcher *x, const struct domain *d)
{
	const struct site *s = d->lane != NULL ? d->lane->site : NULL;

	return dispatch_home(x, s != NULL && has_home(s->key) ? s->hash : d->hash);
}

void relocate_note_arrival(struct dispatcher *x, const struct domain *d)
{
	struct forward *f = forward_find(&x->forwards, d->binding, d->name, d->hash);

	/* Left behind when it was here before. */
	if (f != NULL) {
		forward_remove(&x->forwards, f);
	}
}

void relocate_note_place(struct dispatcher *x, const struct domain *d)
{
	struct relocation *r = &x->relocation;

	if (x->peer_count_before == 0 || d->travel != DOMAIN_AT_HOME ||
	    place_of(x, d) == x->index) {
		return;
	}
	if (!r->running) {
		relocate_begin(x);
	}
	r->found++;
	look_again(x);
}

/* A pass can do nothing about it. */
static bool is_awaited(const struct dispatcher *x, const struct domain *d)
{
	if (d->travel == DOMAIN_AT_HOME) {
		return d->resolving && place_of(x, d) != x->index;
	}
	/* On its way under an earlier layout, or out of here. */
	return dispatch_home(x, d->hash) != x->index || d->move == NULL ||
	       d->move->layout != x->layout;
}

void relocate_note_progress(struct dispatcher *x, const struct domain *d)
{
	if (x->relocation.awaited > 0 && is_awaited(x, d)) {
		note_end(x);
	}
}

void relocate_note_departure(struct dispatcher *x, const struct move *m)
{
	const struct domain *d = m->domain;

	if (x->peer_count_before != 0 &&
	    forward_find(&x->forwards, d->binding, d->name, d->hash) == NULL) {
		forward_add(&x->forwards, binding_open(&x->bindings, d->binding)->name, d->name,
			    d->hash, (uint8_t)m->first, m->trip);
	}
}

/* ---- going through all ---- */

/* A record that is out of its place. True when it begins to leave. */
static bool look_at_record(struct dispatcher *x, struct domain *d)
{
	struct relocation *r = &x->relocation;
	bool at_first_home = dispatch_home(x, d->hash) == x->index;

	if (d->travel != DOMAIN_AT_HOME && !r->dropping) {
		r->found += is_awaited(x, d);
		return false;
	}
	if (r->dropping) {
		d->first_told = false;
		return false;
	}
	if (place_of(x, d) == x->index) {
		/* It stays with its site, and had its first home here: there is no entry yet. */
		if (!at_first_home && !d->first_told && home_before(x, d->hash) == x->index) {
			d->first_told = true;
			send_entry(x, d->binding, d->name, x->index, ++x->trip,
				   dispatch_home(x, d->hash));
		}
		return false;
	}
	r->found++;
	if (d->resolving) {
		return false;
	}
	r->began++;
	r->activity++;
	if (at_first_home) {
		/* The look-up says where its site is. */
		dispatch_detach(x, d);
		dispatch_domain(x, d);
		return false;
	}
	move_home(x, d, false);
	return true;
}

static void look_at_entry(struct dispatcher *x, struct forward *f)
{
	uint64_t hash = domain_hash(f->binding, f->name, strlen(f->name));
	uint32_t home = dispatch_home(x, hash);

	if (home == x->index) {
		return;
	}
	if (x->relocation.dropping) {
		forward_remove(&x->forwards, f);
	} else if (f->home != home) {
		x->relocation.found++;
		x->relocation.began++;
		send_entry(x, f->binding, f->name, f->home, f->trip, home);
		f->home = (uint8_t)home;
	}
}

/* Its domains may have left already, and a transaction may go on. */
static void look_at_site(struct dispatcher *x, struct site *s)
{
	struct connection *next;

	if (x->relocation.dropping || !is_out_of_place(x, s)) {
		return;
	}
	x->relocation.found++;
	s->busy = true;
	for (struct connection *c = s->connections; c != NULL; c = next) {
		next = c->site_next;
		dispatch_give_up(c);
	}
	s->busy = false;
	dispatch_clean_site(x, s);
}

static uint32_t buckets_of(const struct dispatcher *x, enum relocation_part in)
{
	return in == RELOCATION_RECORDS   ? x->domains.bucket_count
	       : in == RELOCATION_ENTRIES ? x->forwards.bucket_count
					  : x->sites.bucket_count;
}

static void restart(struct dispatcher *x, enum relocation_part in)
{
	struct relocation *r = &x->relocation;

	r->bucket = 0;
	r->in = in;
	r->bucket_count = buckets_of(x, in);
}

static void records_step(struct dispatcher *x)
{
	struct relocation *r = &x->relocation;
	struct domain *next;
	int left = 0;

	for (int looks = 0; looks < STEP_LOOKS && left < STEP_MOVES && r->bucket < r->bucket_count;
	     looks++) {
		for (struct domain *d = x->domains.buckets[r->bucket]; d != NULL; d = next) {
			next = d->hash_next;
			left += look_at_record(x, d);
			looks++;
		}
		r->bucket++;
	}
	if (r->bucket == r->bucket_count) {
		restart(x, RELOCATION_ENTRIES);
	}
}

static void entries_step(struct dispatcher *x)
{
	struct relocation *r = &x->relocation;
	struct forward *next;

	for (int looks = 0; looks < STEP_LOOKS && r->bucket < r->bucket_count; looks++) {
		for (struct forward *f = x->forwards.buckets[r->bucket]; f != NULL; f = next) {
			next = f->next;
			look_at_entry(x, f);
			looks++;
		}
		r->bucket++;
	}
	if (r->bucket == r->bucket_count) {
		restart(x, RELOCATION_SITES);
	}
}

static void sites_step(struct dispatcher *x)
{
	struct relocation *r = &x->relocation;
	struct site *next;

	for (int looks = 0; looks < STEP_LOOKS && r->bucket < r->bucket_count; looks++) {
		for (struct site *s = x->sites.buckets[r->bucket]; s != NULL; s = next) {
			next = s->hash_next;
			look_at_site(x, s);
			looks++;
		}
		r->bucket++;
	}
	if (r->bucket < r->bucket_count) {
		return;
	}
	/* The pass is over. What is only waited for is looked at again a little later. */
	r->running = r->found != 0;
	if (r->began != 0) {
		r->pause_ms = PASS_MS;
	} else if (r->running) {
		timer_arm(&r->timer, dispatch_now_ms(x) + r->pause_ms);
		r->pause_ms = r->pause_ms * 2 < PASS_MS_MAX ? r->pause_ms * 2 : PASS_MS_MAX;
	}
	r->dropping = false;
	r->awaited = r->found;
	r->found = 0;
	r->began = 0;
	restart(x, RELOCATION_RECORDS);
}

/* To wake up for the next pass is all. */
static void on_pass(struct timer *t)
{
	(void)t;
}

void relocate_adopt(struct dispatcher *x, uint32_t count, uint32_t layout)
{
	ASSERT(x->peer_count_before == 0 && !x->relocation.running);
	x->layout = layout;
	x->moves_before = x->moves;
	x->peer_count_before = x->peer_count;
	x->peer_count = count;
	timer_init(&x->relocation.timer, x->self, on_pass);
}

void relocate_begin(struct dispatcher *x)
{
	x->relocation.running = true;
	x->relocation.pause_ms = PASS_MS;
	x->relocation.found = 0;
	x->relocation.began = 0;
	x->relocation.awaited = 0;
	restart(x, RELOCATION_RECORDS);
}

int relocate_step(struct dispatcher *x)
{
	struct relocation *r = &x->relocation;

	if (!r->running || timer_armed(&r->timer)) {
		return 0;
	}
	if (x->stopping) {
		r->running = false;
		return 0;
	}
	if (buckets_of(x, r->in) != r->bucket_count) {
		/* The table has grown. */
		restart(x, r->in);
	}
	switch (r->in) {
	case RELOCATION_RECORDS:
		records_step(x);
		break;
	case RELOCATION_ENTRIES:
		entries_step(x);
		break;
	case RELOCATION_SITES:
		sites_step(x);
		break;
	}
	return 1;
}

bool relocate_complete(const struct dispatcher *x)
{
	const struct relocation *r = &x->relocation;

	return x->stopping || (!r->running && r->entries == 0 && x->moves_before == 0);
}

void relocate_end(struct dispatcher *x)
{
	x->peer_count_before = 0;
	x->relocation.dropping = true;
	relocate_begin(x);
}

static void forget_awaiting(void *context, struct site *s)
{
	struct named *n;

	(void)context;
	while ((n = s->awaiting) != NULL) {
		s->awaiting = n->next;
		name_free(n);
	}
}

void relocate_close(struct dispatcher *x)
{
	site_each(&x->sites, forget_awaiting, NULL);
}
