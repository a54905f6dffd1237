#include "listeners/http/gather.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

/* A gathering takes a tenth of the time at most. */
#define PAUSE_FACTOR 10

/* Where a domain's name is among the rows. */
struct follow_slot {
	uint64_t hash;
	/* Row and 1; 0: empty. */
	uint32_t row;
};

/* What one scheduler found: with room for its candidates and its bindings behind it. */
SINGLE
struct found {
	uint64_t totals[GATHER_SUMS];
	struct gather_refusal refusals[REPLY_TOP_ENTRIES];
	uint32_t refusal_count;
	/* By row of the last snapshot. */
	uint64_t (*followed)[GATHER_SUMS];
	/* Records of other domains: a heap, the least volume first. */
	struct gather_row *candidates;
	uint32_t candidate_count;
	/* By index of the binding. */
	struct gather_row *bindings;
	uint32_t binding_count;
	uint32_t binding_room;
};

static void *make(size_t count, size_t size)
{
	return check_memory(calloc(count != 0 ? count : 1, size), "metrics");
}

static struct gatherer *gatherer_of(const struct order *o)
{
	return o->context;
}

static uint64_t name_hash(const char *name)
{
	return domain_hash("", name, strlen(name));
}

static uint64_t volume_of(const uint64_t *sums)
{
	return sums[GATHER_ACTIVE] + sums[GATHER_DELAYED] + sums[GATHER_IN_DELIVERY] +
	       sums[GATHER_DELIVERED] + sums[GATHER_DEFERRED] + sums[GATHER_FAILED];
}

static void add_sums(uint64_t *to, const uint64_t *from)
{
	for (unsigned i = 0; i < GATHER_SUMS; i++) {
		to[i] += from[i];
	}
}

/* What remains; two looks at different moments make nothing negative. */
static void take_sums(uint64_t *from, const uint64_t *sums)
{
	for (unsigned i = 0; i < GATHER_SUMS; i++) {
		from[i] -= sums[i] < from[i] ? sums[i] : from[i];
	}
}

/* ---- on each scheduler ---- */

static void sums_of(const struct domain *d, uint64_t *sums)
{
	sums[GATHER_ACTIVE] = d->active_count;
	sums[GATHER_DELAYED] = d->delayed_count;
	sums[GATHER_IN_DELIVERY] = (uint64_t)d->attempt_count + d->settling_count;
	sums[GATHER_CONNECTIONS] = d->connection_count;
	sums[GATHER_DELIVERED] = d->delivered;
	sums[GATHER_DEFERRED] = d->transient;
	sums[GATHER_FAILED] = d->failed;
}

static void sift_down(struct gather_row *heap, uint32_t count, uint32_t at)
{
	for (;;) {
		uint32_t least = at;

		for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
			if (volume_of(heap[child].sums) < volume_of(heap[least].sums)) {
				least = child;
			}
		}
		if (least == at) {
			return;
		}
		struct gather_row swapped = heap[at];

		heap[at] = heap[least];
		heap[least] = swapped;
		at = least;
	}
}

static void add_candidate(struct found *f, uint32_t top, const struct domain *d,
			  const uint64_t *sums)
{
	struct gather_row *row;

	if (volume_of(sums) == 0) {
		return;
	}
	if (f->candidate_count < top) {
		row = &f->candidates[f->candidate_count++];
	} else if (volume_of(sums) > volume_of(f->candidates[0].sums)) {
		row = &f->candidates[0];
	} else {
		return;
	}
	snprintf(row->name, sizeof(row->name), "%s", d->name);
	memcpy(row->sums, sums, sizeof(row->sums));
	if (f->candidate_count < top) {
		return;
	}
	/* It has just become full, or its least one is another now. */
	for (uint32_t i = row == f->candidates ? 1 : top / 2 + 1; i-- > 0;) {
		sift_down(f->candidates, top, i);
	}
}

/* The row of the last snapshot; false: it has none. */
static bool find_row(const struct gatherer *g, const char *name, uint32_t *row)
{
	uint64_t hash = name_hash(name);

	for (uint32_t i = (uint32_t)hash & g->slot_mask; g->slots[i].row != 0;
	     i = (i + 1) & g->slot_mask) {
		if (g->slots[i].hash == hash &&
		    strcmp(g->latest.domains[g->slots[i].row - 1].name, name) == 0) {
			*row = g->slots[i].row - 1;
			return true;
		}
	}
	return false;
}

static void count_record(struct part *p, struct scheduler *s, struct domain *d)
{
	const struct gatherer *g = gatherer_of(p->order);
	struct found *f = p->found;
	uint64_t sums[GATHER_SUMS];
	uint32_t row;

	(void)s;
	sums_of(d, sums);
	add_sums(f->totals, sums);
	/* Others may have been made since the walk began: their queues count in the totals. */
	if (d->binding_record->index < f->binding_room) {
		add_sums(f->bindings[d->binding_record->index].sums, sums);
	}
	if (g->top == 0) {
		return;
	}
	if (find_row(g, d->name, &row)) {
		add_sums(f->followed[row], sums);
	} else {
		add_candidate(f, g->top, d, sums);
	}
}

static size_t aligned(size_t size)
{
	return (size + 15) & ~(size_t)15;
}

/* All of it in one piece, which the part owns. */
static struct found *found_make(const struct gatherer *g, uint32_t bindings)
{
	size_t followed = aligned(sizeof(struct found));
	size_t candidates = followed + aligned(g->latest.domain_count *
					       sizeof(((struct found *)NULL)->followed[0]));
	size_t rows = candidates + aligned(g->top * sizeof(struct gather_row));
	char *memory = make(1, rows + bindings * sizeof(struct gather_row));
	struct found *f = (struct found *)(void *)memory;

	f->followed = (uint64_t(*)[GATHER_SUMS])(void *)(memory + followed);
	f->candidates = (struct gather_row *)(void *)(memory + candidates);
	f->bindings = (struct gather_row *)(void *)(memory + rows);
	f->binding_room = bindings;
	return f;
}

static void copy_bindings(struct found *f, const struct binding_table *t)
{
	f->binding_count = f->binding_room;
	for (uint32_t i = 0; i < f->binding_count; i++) {
		const struct binding_record *b = t->records[i];

		snprintf(f->bindings[i].name, sizeof(f->bindings[i].name), "%s", b->name);
		f->bindings[i].sums[GATHER_DELIVERED] = b->delivered;
		f->bindings[i].sums[GATHER_DEFERRED] = b->transient;
		f->bindings[i].sums[GATHER_FAILED] = b->failed;
	}
}

static void copy_refusals(struct found *f, struct reply_top *t, uint64_t now_ms)
{
	reply_top_age(t, now_ms);
	f->refusal_count = t->used;
	for (uint32_t i = 0; i < t->used; i++) {
		memcpy(f->refusals[i].text, t->entries[i].text, REPLY_TOP_TEXT);
		f->refusals[i].count = t->entries[i].count;
	}
}

static bool gather_step(struct part *p, struct agent *self)
{
	struct scheduler *s = order_scheduler_of(self);
	const struct binding_table *t = &s->dispatcher.bindings;

	if (p->bucket_count != s->dispatcher.domains.bucket_count) {
		/* The walk starts, or does so anew. */
		free(p->found);
		p->found = found_make(gatherer_of(p->order), t->count);
	}
	if (!part_walk(p, self, ORDER_RECORDS_PER_STEP, count_record)) {
		return false;
	}
	copy_bindings(p->found, t);
	copy_refusals(p->found, &s->refusals, agent_now_ms(self));
	p->totals[0] = s->dispatcher.domains.count;
	return true;
}

/* ---- the snapshot ---- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct gather_row *)a)->name, ((const struct gather_row *)b)->name);
}

static int compare_volumes(const void *a, const void *b)
{
	uint64_t x = volume_of(((const struct gather_row *)a)->sums);
	uint64_t y = volume_of(((const struct gather_row *)b)->sums);

	return x != y ? (x < y) - (x > y) : compare_names(a, b);
}

/* One row for each name, the largest first. Returns how many there are. */
static uint32_t merge_rows(struct gather_row *rows, uint32_t count)
{
	uint32_t kept = 0;

	qsort(rows, count, sizeof(*rows), compare_names);
	for (uint32_t i = 0; i < count; i++) {
		if (kept != 0 && strcmp(rows[kept - 1].name, rows[i].name) == 0) {
			add_sums(rows[kept - 1].sums, rows[i].sums);
		} else if (kept++ != i) {
			rows[kept - 1] = rows[i];
		}
	}
	qsort(rows, kept, sizeof(*rows), compare_volumes);
	return kept;
}

/* Where the names of the rows are found by the next gathering. */
static void follow(struct gatherer *g)
{
	uint32_t slots = 2;

	while (slots < 2 * g->latest.domain_count + 2) {
		slots *= 2;
	}
	free(g->slots);
	g->slots = make(slots, sizeof(*g->slots));
	g->slot_mask = slots - 1;
	for (uint32_t row = 0; row < g->latest.domain_count; row++) {
		uint64_t hash = name_hash(g->latest.domains[row].name);
		uint32_t i = (uint32_t)hash & g->slot_mask;

		while (g->slots[i].row != 0) {
			i = (i + 1) & g->slot_mask;
		}
		g->slots[i] = (struct follow_slot){hash, row + 1};
	}
}

static void merge_domains(struct gatherer *g, const struct order *o)
{
	struct snapshot *s = &g->latest;
	uint32_t count = s->domain_count;
	struct gather_row *rows = make(count + (size_t)o->part_count * g->top, sizeof(*rows));

	for (uint32_t row = 0; row < count; row++) {
		snprintf(rows[row].name, sizeof(rows[row].name), "%s", s->domains[row].name);
	}
	for (uint32_t n = 0; n < o->part_count; n++) {
		const struct found *f = o->parts[n].found;

		for (uint32_t row = 0; row < s->domain_count; row++) {
			add_sums(rows[row].sums, f->followed[row]);
		}
		memcpy(rows + count, f->candidates, f->candidate_count * sizeof(*rows));
		count += f->candidate_count;
	}
	count = merge_rows(rows, count);
	/* Domains that have been forgotten. */
	while (count != 0 && volume_of(rows[count - 1].sums) == 0) {
		count--;
	}
	free(s->domains);
	s->domains = rows;
	s->domain_count = count < g->top ? count : g->top;
	memcpy(s->other_domains, s->totals, sizeof(s->totals));
	for (uint32_t i = 0; i < s->domain_count; i++) {
		take_sums(s->other_domains, rows[i].sums);
	}
	follow(g);
}

static void merge_bindings(struct snapshot *s, const struct order *o)
{
	struct gather_row *rows;
	uint32_t count = 0;

	for (uint32_t n = 0; n < o->part_count; n++) {
		count += ((const struct found *)o->parts[n].found)->binding_count;
	}
	rows = make(count, sizeof(*rows));
	count = 0;
	for (uint32_t n = 0; n < o->part_count; n++) {
		const struct found *f = o->parts[n].found;

		memcpy(rows + count, f->bindings, f->binding_count * sizeof(*rows));
		count += f->binding_count;
	}
	count = merge_rows(rows, count);
	free(s->bindings);
	s->bindings = rows;
	s->more_bindings = count > GATHER_BINDINGS;
	s->binding_count = s->more_bindings ? GATHER_BINDINGS : count;
	memset(s->other_bindings, 0, sizeof(s->other_bindings));
	for (uint32_t i = s->binding_count; i < count; i++) {
		add_sums(s->other_bindings, rows[i].sums);
	}
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(((const struct gather_refusal *)a)->text,
		      ((const struct gather_refusal *)b)->text);
}

static int compare_counts(const void *a, const void *b)
{
	const struct gather_refusal *x = a;
	const struct gather_refusal *y = b;

	return x->count != y->count ? (x->count < y->count) - (x->count > y->count)
				    : compare_texts(a, b);
}

static void merge_refusals(struct snapshot *s, const struct order *o)
{
	struct gather_refusal *all = make((size_t)o->part_count * REPLY_TOP_ENTRIES, sizeof(*all));
	uint32_t count = 0;
	uint32_t kept = 0;

	for (uint32_t n = 0; n < o->part_count; n++) {
		const struct found *f = o->parts[n].found;

		memcpy(all + count, f->refusals, f->refusal_count * sizeof(*all));
		count += f->refusal_count;
	}
	qsort(all, count, sizeof(*all), compare_texts);
	for (uint32_t i = 0; i < count; i++) {
		if (kept != 0 && strcmp(all[kept - 1].text, all[i].text) == 0) {
			all[kept - 1].count += all[i].count;
		} else {
			all[kept++] = all[i];
		}
	}
	qsort(all, kept, sizeof(*all), compare_counts);
	s->refusal_count = kept < GATHER_REFUSALS ? kept : GATHER_REFUSALS;
	memcpy(s->refusals, all, s->refusal_count * sizeof(*all));
	free(all);
}

static void sum_totals(struct snapshot *s, const struct order *o)
{
	memset(s->totals, 0, sizeof(s->totals));
	for (uint32_t n = 0; n < o->part_count; n++) {
		add_sums(s->totals, ((const struct found *)o->parts[n].found)->totals);
	}
	for (unsigned i = GATHER_DELIVERED; i < GATHER_SUMS; i++) {
		s->totals[i] = gatherer_of(o)->counted[i];
	}
	s->domain_records = order_total(o, 0);
}

static void tell(struct gatherer *g)
{
	struct gather_wait *w;

	/* Who asks again from within waits for the next one. */
	g->told = g->waits;
	g->waits = NULL;
	while ((w = g->told) != NULL) {
		g->told = w->next;
		w->waiting = false;
		w->on_snapshot(w, &g->latest);
	}
}

static void merge(struct order *o)
{
	struct gatherer *g = gatherer_of(o);
	struct snapshot *s = &g->latest;

	s->at_ms = agent_now_ms(&g->scheduler->base);
	sum_totals(s, o);
	merge_domains(g, o);
	merge_bindings(s, o);
	merge_refusals(s, o);
	g->took_ms = s->at_ms - g->began_ms;
	g->has_snapshot = true;
	g->order = NULL;
	order_release(o);
	tell(g);
}

/* ---- who asks ---- */

/* Before the walks: what they find in records is all of it, and more, so that no row's share is
 * left for the others. */
static void count_schedulers(struct gatherer *g)
{
	const struct program *p = g->scheduler->program;

	memset(g->counted, 0, sizeof(g->counted));
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		g->counted[GATHER_DELIVERED] += counter_get(p->schedulers[i]->delivered);
		g->counted[GATHER_DEFERRED] += counter_get(p->schedulers[i]->transient);
		g->counted[GATHER_FAILED] += counter_get(p->schedulers[i]->failed);
	}
}

static void gather_begin(struct gatherer *g)
{
	g->began_ms = agent_now_ms(&g->scheduler->base);
	g->order = order_create(g->client, g->scheduler, "", 0);
	g->order->context = g;
	counter_inc(g->gatherings);
	count_schedulers(g);
	process_files_count(g->files, g->scheduler);
	order_on_schedulers(g->order, gather_step, merge);
}

void gatherer_init(struct gatherer *g, struct scheduler *s, struct order_client *client,
		   struct process_files *files)
{
	*g = (struct gatherer){
		.scheduler = s,
		.client = client,
		.files = files,
		.top = s->global->metrics_top_domains,
		.interval_ms = s->global->metrics_interval_ms,
	};
	g->gatherings = counter_create(s->base.counters, "http.gatherings", COUNTER_SUM,
				       "Walks over all domain records for metrics and events");
	follow(g);
}

const struct snapshot *gather_fresh(const struct gatherer *g)
{
	uint64_t age_ms = agent_now_ms(&g->scheduler->base) - g->latest.at_ms;
	uint64_t pause_ms = PAUSE_FACTOR * g->took_ms;

	if (pause_ms < g->interval_ms / 2) {
		pause_ms = g->interval_ms / 2;
	}
	return g->has_snapshot && age_ms < pause_ms ? &g->latest : NULL;
}

void gather_wait(struct gatherer *g, struct gather_wait *w)
{
	ASSERT(!w->waiting);
	w->waiting = true;
	w->next = g->waits;
	g->waits = w;
	if (g->order == NULL) {
		gather_begin(g);
	}
}

static bool unlink_wait(struct gather_wait **at, const struct gather_wait *w)
{
	while (*at != NULL && *at != w) {
		at = &(*at)->next;
	}
	if (*at == NULL) {
		return false;
	}
	*at = w->next;
	return true;
}

void gather_forget(struct gatherer *g, struct gather_wait *w)
{
	if (w->waiting) {
		bool found = unlink_wait(&g->waits, w) || unlink_wait(&g->told, w);

		ASSERT(found);
		w->waiting = false;
	}
}

void gatherer_close(struct gatherer *g)
{
	ASSERT(g->order == NULL && g->waits == NULL);
	free(g->latest.domains);
	free(g->latest.bindings);
	free(g->slots);
}
