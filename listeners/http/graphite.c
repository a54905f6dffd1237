#include "listeners/http/graphite.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "listeners/http/http.h"

static struct agent *agent_of(const struct graphite *g)
{
	return &g->http->scheduler->base;
}

/* ---- lines ---- */

void graphite_put_name(struct text *t, const char *name)
{
	for (; *name != '\0'; name++) {
		bool good = isalnum((unsigned char)*name) || *name == '-' || *name == '_';

		text_add(t, good ? name : "_", 1);
	}
}

struct lines {
	struct text *text;
	const char *prefix;
	uint64_t wall_s;
};

static void put_value(const struct lines *l, uint64_t value)
{
	text_format(l->text, " %" PRIu64 " %" PRIu64 "\n", value, l->wall_s);
}

/* PREFIX.scheduler_0.outbound.open: points within a counter's name part it, too. */
static void put_counter(void *context, const struct counter_view *view)
{
	const struct lines *l = context;

	text_format(l->text, "%s.", l->prefix);
	graphite_put_name(l->text, view->prefix);
	text_format(l->text, ".%s", view->name);
	put_value(l, view->value);
}

/* In the order of enum gather_sum. */
static const char *const sums_names[GATHER_SUMS] = {
	"active", "delayed", "in_delivery", "connections", "delivered", "deferred", "failed"};

static void put_sums(const struct lines *l, const char *kind, const char *name,
		     const uint64_t *sums)
{
	for (unsigned i = 0; i < GATHER_SUMS; i++) {
		text_format(l->text, "%s.%s.", l->prefix, kind);
		graphite_put_name(l->text, name);
		text_format(l->text, ".%s", sums_names[i]);
		put_value(l, sums[i]);
	}
}

void graphite_write(struct text *t, const char *prefix, const struct http *http,
		    const struct snapshot *s, uint64_t wall_s)
{
	const struct runtime *rt = &http->scheduler->program->runtime;
	struct lines l = {t, prefix, wall_s};

	counter_each_view(put_counter, &l);
	for (uint32_t i = 0; i < rt->group_count; i++) {
		text_format(t, "%s.threads.", prefix);
		graphite_put_name(t, rt->groups[i]->name);
		text_put(t, ".cpu_ms");
		put_value(&l, group_cpu_ns(rt->groups[i]) / NS_PER_MS);
	}
	for (uint32_t i = 0; i < s->domain_count; i++) {
		put_sums(&l, "domains", s->domains[i].name, s->domains[i].sums);
	}
	put_sums(&l, "domains", "other", s->other_domains);
	for (uint32_t i = 0; i < s->binding_count; i++) {
		put_sums(&l, "bindings", s->bindings[i].name, s->bindings[i].sums);
	}
	put_sums(&l, "queues", "all", s->totals);
}

/* ---- sending ---- */

static void end(struct graphite *g)
{
	if (g->fd >= 0) {
		mux_close(agent_of(g)->mux, g->fd);
		g->fd = -1;
	}
	text_close(&g->lines);
	g->state = GRAPHITE_IDLE;
}

static void fail(struct graphite *g, int error)
{
	if (error != -ECANCELED) {
		counter_inc(g->failed);
		agent_error(agent_of(g), error, "graphite %s: %s", g->options->server,
			    strerror(-error));
	}
	end(g);
}

static void on_io(struct mux_op *op, int result)
{
	struct graphite *g = CONTAINER_OF(op, struct graphite, op);

	if (result < 0 || g->stopping) {
		fail(g, result < 0 ? result : -ECANCELED);
	} else if (g->state == GRAPHITE_CONNECTING) {
		g->state = GRAPHITE_SENDING;
		g->iov = (struct iovec){g->lines.data, g->lines.len};
		mux_send(agent_of(g)->mux, &g->op, g->fd, &g->iov, 1);
	} else {
		counter_inc(g->sent);
		end(g);
	}
}

static void on_snapshot(struct gather_wait *w, const struct snapshot *s)
{
	struct graphite *g = CONTAINER_OF(w, struct graphite, wait);
	struct agent *self = agent_of(g);

	g->state = GRAPHITE_CONNECTING;
	graphite_write(&g->lines, g->prefix, g->http, s, agent_wall_ms(self) / 1000);
	g->fd = socket(g->options->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		       0);
	if (g->fd < 0) {
		fail(g, -errno);
		return;
	}
	memcpy(&g->op.address, &g->options->address, sizeof(g->op.address));
	g->op.address_len = g->options->address_len;
	mux_connect(self->mux, &g->op, g->fd);
}

static void on_tick(struct timer *t)
{
	struct graphite *g = CONTAINER_OF(t, struct graphite, timer);

	timer_arm(&g->timer, agent_now_ms(agent_of(g)) + g->options->interval_ms);
	if (g->state == GRAPHITE_IDLE) {
		const struct snapshot *s = gather_fresh(&g->http->gatherer);

		g->state = GRAPHITE_GATHERING;
		if (s != NULL) {
			on_snapshot(&g->wait, s);
		} else {
			gather_wait(&g->http->gatherer, &g->wait);
		}
		return;
	}
	counter_inc(g->given_up);
	/* It is as slow as that: what is under way ends, and the next time brings newer numbers. */
	mux_cancel(agent_of(g)->mux, &g->op);
}

/* ---- life ---- */

static void make_prefix(struct graphite *g)
{
	if (g->options->prefix != NULL) {
		snprintf(g->prefix, sizeof(g->prefix), "%s", g->options->prefix);
		return;
	}
	snprintf(g->prefix, sizeof(g->prefix), "flywheel.%s", g->http->scheduler->global->hostname);
	for (char *c = g->prefix + strlen("flywheel."); *c != '\0'; c++) {
		*c = *c == '.' ? '_' : *c;
	}
}

void graphite_init(struct graphite *g, struct http *http)
{
	struct scheduler *s = http->scheduler;

	*g = (struct graphite){.http = http,
			       .options = &config_global(s->program->foundation)->graphite,
			       .fd = -1,
			       .wait.on_snapshot = on_snapshot};
	if (g->options->server == NULL) {
		return;
	}
	make_prefix(g);
	g->sent = counter_create(s->base.counters, "graphite.sent", COUNTER_SUM,
				 "Times metrics were sent to Graphite");
	g->failed = counter_create(s->base.counters, "graphite.failed", COUNTER_SUM,
				   "Times that failed");
	g->given_up = counter_create(s->base.counters, "graphite.given_up", COUNTER_SUM,
				     "Times the ones before were not sent yet");
	mux_op_init(&g->op, &s->base, on_io);
	timer_init(&g->timer, &s->base, on_tick);
	timer_arm(&g->timer, agent_now_ms(&s->base) + g->options->interval_ms);
}

void graphite_stop(struct graphite *g)
{
	if (g->options->server == NULL || g->stopping) {
		return;
	}
	g->stopping = true;
	timer_cancel(&g->timer);
	gather_forget(&g->http->gatherer, &g->wait);
	if (g->state == GRAPHITE_GATHERING) {
		end(g);
	}
	mux_cancel(agent_of(g)->mux, &g->op);
}

bool graphite_stopped(const struct graphite *g)
{
	return g->state == GRAPHITE_IDLE;
}
