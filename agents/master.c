#include "agents/master.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agents/crew.h"
#include "agents/generation.h"
#include "agents/listen_socket.h"
#include "core/runtime/fnv.h"

/* Those that the configuration has no more stay while they have connections, each of which has a
 * generation. */
#define PLACES_MAX (LISTENS_MAX * GENERATIONS_MAX)
#define PEER_BUCKETS 4096
#define ACCEPT_AGAIN_MS 100
/* What the kernel keeps of replies that a client does not read, bytes: by itself it would keep
 * megabytes. */
#define SEND_BUFFER 32768

/* How many connections a peer has on one listen. */
BOUND
struct peer {
	struct peer *next;
	struct in6_addr address;
	uint32_t listen;
	uint32_t count;
};

/* One socket that listens. */
BOUND
struct listen {
	struct master *master;
	/* In the master's table. */
	uint32_t slot;
	const struct listener_ops *ops;
	uint32_t listener;
	uint32_t index;
	const struct listen_options *options;
	int fd;
	struct mux_op op;
	/* After a shortage of files or memory, accepting goes on a little later. */
	struct timer again;
	uint32_t connections;
	/* The configuration has it no more: closed as soon as it accepts nothing, and its place is
	 * free when its last connection has come back. */
	bool leaving;
	/* Whose options it has then, held until it is closed. */
	struct config *config;
};

struct master {
	struct agent base;
	struct program *program;
	/* The generation that counts here, held; and what is being taken: NULL: nothing. */
	struct config *config;
	struct generation_change *taking;
	struct listen *listens[PLACES_MAX];
	uint32_t listen_count;
	/* Connections that each scheduler has. */
	uint32_t load[SCHEDULERS_MAX];
	uint32_t turn;
	uint64_t number;
	int signal_fd;
	struct mux_op signal_op;
	struct pool accepts;
	struct pool peers;
	struct peer *buckets[PEER_BUCKETS];
	struct counter *accepted;
	struct counter *refused_max;
	struct counter *refused_service;
	struct counter *refused_peer;
	struct counter *refused_files;
	struct counter *accept_errors;
	uint32_t open;
	/* Half of the process's file descriptors: the others are for sending, spool and logs. */
	uint64_t open_max;
	bool stopping;
};

static struct master *master_of(struct agent *self)
{
	return CONTAINER_OF(self, struct master, base);
}

struct agent *master_agent(struct master *m)
{
	return &m->base;
}

/* ---- peers ---- */

static struct peer **peer_bucket(struct master *m, const struct in6_addr *address, uint32_t listen)
{
	uint64_t h = fnv_bytes(FNV_START ^ listen, address->s6_addr, sizeof(address->s6_addr));

	return &m->buckets[(h >> 20) & (PEER_BUCKETS - 1)];
}

static struct peer *peer_get(struct master *m, const struct in6_addr *address, uint32_t listen)
{
	struct peer **bucket = peer_bucket(m, address, listen);
	struct peer *p = *bucket;

	while (p != NULL &&
	       (p->listen != listen || memcmp(&p->address, address, sizeof *address) != 0)) {
		p = p->next;
	}
	if (p == NULL) {
		p = pool_get(&m->peers);
		*p = (struct peer){.next = *bucket, .address = *address, .listen = listen};
		*bucket = p;
	}
	return p;
}

static void peer_put(struct master *m, const struct in6_addr *address, uint32_t listen)
{
	struct peer **at = peer_bucket(m, address, listen);

	while (*at != NULL && ((*at)->listen != listen ||
			       memcmp(&(*at)->address, address, sizeof *address) != 0)) {
		at = &(*at)->next;
	}
	ASSERT(*at != NULL && (*at)->count > 0);
	if (--(*at)->count == 0) {
		struct peer *gone = *at;

		*at = gone->next;
		pool_put(&m->peers, gone);
	}
}

/* ---- accepting ---- */

/* IPv4 as v4-mapped; the unspecified address for a Unix socket. */
static void peer_of(int fd, struct accept *a)
{
	struct sockaddr_storage s = {0};
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&s;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&s;
	socklen_t len = sizeof s;

	memset(&a->peer, 0, sizeof a->peer);
	a->peer_port = 0;
	snprintf(a->peer_text, sizeof a->peer_text, "local");
	if (getpeername(fd, (struct sockaddr *)&s, &len) != 0) {
		return;
	}
	if (s.ss_family == AF_INET) {
		a->peer.s6_addr[10] = 0xff;
		a->peer.s6_addr[11] = 0xff;
		memcpy(&a->peer.s6_addr[12], &v4->sin_addr, 4);
		a->peer_port = ntohs(v4->sin_port);
		inet_ntop(AF_INET, &v4->sin_addr, a->peer_text, sizeof a->peer_text);
	} else if (s.ss_family == AF_INET6) {
		a->peer = v6->sin6_addr;
		a->peer_port = ntohs(v6->sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(&a->peer)) {
			inet_ntop(AF_INET, &a->peer.s6_addr[12], a->peer_text, sizeof a->peer_text);
		} else {
			inet_ntop(AF_INET6, &a->peer, a->peer_text, sizeof a->peer_text);
		}
	}
}

/* Tells a client in one piece that it cannot be served now; a full socket buffer is its own. */
static void refuse(struct listen *l, int fd, const char *why)
{
	char text[128];
	int len;

	if (!l->ops->on_master) {
		len = snprintf(text, sizeof text, "421 4.7.0 %s, try again later\r\n", why);
		(void)!send(fd, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	close(fd);
}

/* On all listens of the same kind of service. */
static uint32_t service_connections(const struct listen *l)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < l->master->listen_count; i++) {
		const struct listen *other = l->master->listens[i];

		sum += other->listener == l->listener ? other->connections : 0;
	}
	return sum;
}

static bool allowed(struct listen *l, struct accept *a, uint32_t slot)
{
	struct master *m = l->master;
	struct peer *p;

	if (m->open >= m->open_max && !l->ops->on_master) {
		counter_inc(m->refused_files);
		refuse(l, a->fd, "too many connections");
		return false;
	}
	if (l->options->max_connections != 0 && l->connections >= l->options->max_connections) {
		counter_inc(m->refused_max);
		refuse(l, a->fd, "too many connections");
		return false;
	}
	if (l->options->max_service_connections != 0 &&
	    service_connections(l) >= l->options->max_service_connections) {
		counter_inc(m->refused_service);
		refuse(l, a->fd, "too many connections");
		return false;
	}
	p = peer_get(m, &a->peer, slot);
	if (l->options->max_connections_per_peer != 0 &&
	    p->count >= l->options->max_connections_per_peer) {
		counter_inc(m->refused_peer);
		refuse(l, a->fd, "too many connections from your address");
		return false;
	}
	p->count++;
	return true;
}

/* The one with the fewest connections; among equals, in turn. */
static uint32_t choose_scheduler(struct master *m)
{
	uint32_t count = m->program->home_count;
	uint32_t best = m->turn++ % count;

	for (uint32_t i = 1; i < count; i++) {
		uint32_t candidate = (m->turn - 1 + i) % count;

		if (m->load[candidate] < m->load[best]) {
			best = candidate;
		}
	}
	return best;
}

static void take_connection(struct listen *l, int fd)
{
	struct master *m = l->master;
	uint32_t slot = l->slot;
	struct accept *a = pool_get(&m->accepts);

	memset(a, 0, sizeof *a);
	a->magic = ACCEPT_MAGIC;
	a->fd = fd;
	a->listener = l->listener;
	a->listen = l->index;
	a->config = config_hold(m->config);
	a->slot = slot;
	peer_of(fd, a);
	if (!allowed(l, a, slot)) {
		config_release(a->config);
		pool_put(&m->accepts, a);
		return;
	}
	a->number = ++m->number;
	a->scheduler = l->ops->on_master ? 0 : choose_scheduler(m);
	m->load[a->scheduler]++;
	m->open++;
	l->connections++;
	counter_inc(m->accepted);
	agent_send(&m->base, &m->program->schedulers[a->scheduler]->base, scheduler_on_accept, a,
		   0);
}

static bool is_path(const struct listen *l)
{
	return l->options->address.ss_family == AF_UNIX;
}

/* No more than once: who has a descriptor of -1 is closed. */
static void close_listen(struct listen *l)
{
	if (l->fd < 0) {
		return;
	}
	mux_close(l->master->base.mux, l->fd);
	l->fd = -1;
	if (is_path(l)) {
		unlink(l->options->name);
	}
	config_release(l->config);
	l->config = NULL;
}

/* Their addresses may be asked for again by the next generation. */
static void tell_when_closed(struct master *m)
{
	struct generation_change *g = m->taking;

	for (uint32_t i = 0; i < m->listen_count; i++) {
		if (m->listens[i]->leaving && m->listens[i]->fd >= 0) {
			return;
		}
	}
	m->taking = NULL;
	if (g != NULL) {
		generation_taken(g, &m->base);
	}
}

static void close_leaving(struct listen *l)
{
	if (l->leaving && !mux_op_busy(&l->op)) {
		close_listen(l);
		tell_when_closed(l->master);
	}
}

static void on_accepted(struct mux_op *op, int result)
{
	struct listen *l = CONTAINER_OF(op, struct listen, op);
	struct master *m = l->master;

	if (result >= 0) {
		if (m->stopping || l->leaving) {
			refuse(l, result, "shutting down");
			close_leaving(l);
			return;
		}
		take_connection(l, result);
	} else if (result != -ECANCELED) {
		counter_inc(m->accept_errors);
		agent_error(&m->base, result, "accept on %s: %s", l->options->name,
			    strerror(-result));
	}
	if (l->leaving) {
		close_leaving(l);
	} else if (!mux_op_busy(op) && !m->stopping) {
		timer_arm(&l->again, agent_now_ms(&m->base) + ACCEPT_AGAIN_MS);
	}
}

static void on_again(struct timer *t)
{
	struct listen *l = CONTAINER_OF(t, struct listen, again);

	mux_accept(l->master->base.mux, &l->op, l->fd);
}

static void accept_on(struct listen *l)
{
	mux_op_init(&l->op, &l->master->base, on_accepted);
	timer_init(&l->again, &l->master->base, on_again);
	mux_accept(l->master->base.mux, &l->op, l->fd);
}

void master_on_closed(struct agent *self, void *object, uint64_t value)
{
	struct master *m = master_of(self);
	struct accept *a = object;

	(void)value;
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	m->load[a->scheduler]--;
	m->open--;
	m->listens[a->slot]->connections--;
	peer_put(m, &a->peer, a->slot);
	accept_let_go(a);
	a->magic = 0;
	pool_put(&m->accepts, a);
}

/* The scheduler that had it leaves, and is not among those to choose from. */
void master_on_handed_on(struct agent *self, void *object, uint64_t value)
{
	struct master *m = master_of(self);
	struct accept *a = object;

	(void)value;
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	m->load[a->scheduler]--;
	a->scheduler = choose_scheduler(m);
	m->load[a->scheduler]++;
	agent_send(self, &m->program->schedulers[a->scheduler]->base, scheduler_on_accept, a, 0);
}

/* ---- signals ---- */

static void reopen_logs(struct master *m)
{
	if (m->program->log != NULL) {
		agent_send(&m->base, m->program->log, log_writer_on_reopen, NULL, 0);
	}
}

static void on_signal(struct mux_op *op, int result)
{
	struct master *m = CONTAINER_OF(op, struct master, signal_op);
	struct signalfd_siginfo info;

	if (result == -ECANCELED) {
		return;
	}
	while (read(m->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
			runtime_stop(&m->program->runtime);
		} else {
			reopen_logs(m);
		}
		if (info.ssi_signo == SIGHUP) {
			agent_send(&m->base, &m->program->schedulers[0]->base,
				   generations_on_hangup, m->program, 0);
		}
	}
	if (!m->stopping) {
		mux_poll_fd(m->base.mux, &m->signal_op, m->signal_fd, POLLIN);
	}
}

/* ---- life ---- */

static void on_start_complete(struct agent *self)
{
	struct master *m = master_of(self);

	for (uint32_t i = 0; i < m->listen_count; i++) {
		accept_on(m->listens[i]);
	}
	mux_op_init(&m->signal_op, self, on_signal);
	mux_poll_fd(self->mux, &m->signal_op, m->signal_fd, POLLIN);
}

static int on_do_work(struct agent *self)
{
	(void)self;
	return 0;
}

static void on_stop(struct agent *self)
{
	struct master *m = master_of(self);

	m->stopping = true;
	if (m->program->crew != NULL) {
		crew_stop(m->program->crew);
	}
	for (uint32_t i = 0; i < m->listen_count; i++) {
		mux_cancel(self->mux, &m->listens[i]->op);
		timer_cancel(&m->listens[i]->again);
	}
	mux_cancel(self->mux, &m->signal_op);
}

static bool on_drained(struct agent *self)
{
	struct master *m = master_of(self);

	for (uint32_t i = 0; i < m->listen_count; i++) {
		struct listen *l = m->listens[i];

		if (mux_op_busy(&l->op)) {
			return false;
		}
		close_listen(l);
	}
	tell_when_closed(m);
	return !mux_op_busy(&m->signal_op);
}

/* Every connection has come back: what is still counted would keep others out for ever. */
static void on_tear_down(struct agent *self)
{
	struct master *m = master_of(self);

	ASSERT(m->open == 0);
	for (uint32_t i = 0; i < m->listen_count; i++) {
		ASSERT(m->listens[i]->connections == 0);
	}
	for (uint32_t i = 0; i < m->program->scheduler_count; i++) {
		ASSERT(m->load[i] == 0);
	}
}

static const struct agent_ops master_ops = {
	.kind = "master",
	.start_complete = on_start_complete,
	.do_work = on_do_work,
	.stop = on_stop,
	.drained = on_drained,
	.tear_down = on_tear_down,
};

/* ---- opening sockets ---- */

/* Nobody uses the place. */
static bool is_free(const struct listen *l)
{
	return l->leaving && l->fd < 0 && l->connections == 0 && !mux_op_busy(&l->op);
}

static struct listen *add_listen(struct master *m, uint32_t listener, uint32_t index, int fd)
{
	const struct listener_ops *ops = m->program->listeners[listener];
	uint32_t slot = 0;
	struct listen *l;

	/* The place of one that has gone, if there is one. */
	while (slot < m->listen_count && !is_free(m->listens[slot])) {
		slot++;
	}
	ASSERT(slot < PLACES_MAX);
	if (m->listens[slot] == NULL) {
		m->listens[slot] =
			check_memory(calloc(1, sizeof(struct listen)), "a socket to listen on");
	}
	l = m->listens[slot];
	*l = (struct listen){
		.master = m,
		.slot = slot,
		.ops = ops,
		.listener = listener,
		.index = index,
		.options = ops->listen(m->config, index),
		.fd = fd,
	};
	if (!ops->on_master) {
		/* Accepted sockets inherit it. */
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){SEND_BUFFER}, sizeof(int));
	}
	m->listen_count += slot == m->listen_count;
	return l;
}

/* It is the master's from here on. */
static struct listen *take_socket(struct master *m, struct listen_sockets *sockets, uint32_t i)
{
	int fd = sockets->list[i].fd;

	sockets->list[i].fd = -1;
	return add_listen(m, sockets->list[i].listener, sockets->list[i].index, fd);
}

static bool open_sockets(struct master *m, FILE *errors)
{
	struct listen_sockets *sockets =
		listen_sockets_open(m->program, m->config, NULL, LISTEN_PATIENCE_MS, errors);
	bool good = sockets != NULL;

	for (uint32_t i = 0; good && i < sockets->count; i++) {
		take_socket(m, sockets, i);
	}
	listen_sockets_close(sockets);
	return good;
}

/* ---- another generation ---- */

/* What the kernel knows of a socket that stays open. */
static void renew_socket(const struct listen *l, const struct listen_options *before)
{
	if (l->options->backlog != before->backlog) {
		listen(l->fd, (int)l->options->backlog);
	}
	if (is_path(l) && l->options->file_mode != before->file_mode) {
		(void)!chmod(l->options->name, l->options->file_mode);
	}
}

/* One that is open: it goes on with the options that it has now, or leaves. */
static void renew_listen(struct listen *l, const struct config *config, struct config *old)
{
	const struct listen_options *before = l->options;
	int64_t index = l->leaving ? -1 : listen_find(l->ops, config, before);

	if (index >= 0) {
		l->index = (uint32_t)index;
		l->options = l->ops->listen(config, l->index);
		renew_socket(l, before);
		return;
	}
	if (l->leaving) {
		return;
	}
	l->leaving = true;
	l->config = config_hold(old);
	timer_cancel(&l->again);
	mux_cancel(l->master->base.mux, &l->op);
	close_leaving(l);
}

void master_on_generation(struct agent *self, void *object, uint64_t unused)
{
	struct master *m = master_of(self);
	struct generation_change *g = object;
	struct config *old = m->config;
	struct listen_sockets *sockets = g->sockets;

	(void)unused;
	if (!m->stopping) {
		m->config = config_hold(g->config);
		for (uint32_t i = 0; i < m->listen_count; i++) {
			renew_listen(m->listens[i], m->config, old);
		}
		for (uint32_t i = 0; i < sockets->count; i++) {
			accept_on(take_socket(m, sockets, i));
		}
		config_release(old);
	}
	m->taking = g;
	tell_when_closed(m);
}

/* ---- life ---- */

static uint64_t open_limit(void)
{
	struct rlimit files;

	return getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur / 2 : UINT64_MAX;
}

static void block_signals(struct master *m)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	m->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	ASSERT(m->signal_fd >= 0);
}

struct master *master_create(const char *name, struct program *program, FILE *errors)
{
	struct master *m = check_memory(
		aligned_alloc(CACHE_LINE, (sizeof *m + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1)),
		"the master");

	memset(m, 0, sizeof *m);
	agent_init(&m->base, &master_ops, name, 0);
	m->program = program;
	m->config = config_hold(program->config);
	pool_init(&m->accepts, "accept construct", sizeof(struct accept), 1024);
	pool_init(&m->peers, "peer", sizeof(struct peer), 1024);
	m->accepted = counter_create(m->base.counters, "accepted", COUNTER_SUM,
				     "Connections accepted and sharded");
	m->refused_max = counter_create(m->base.counters, "refused_connections", COUNTER_SUM,
					"Connections refused: the listener has its maximum");
	m->refused_service = counter_create(m->base.counters, "refused_service", COUNTER_SUM,
					    "Connections refused: service_sessions is reached");
	m->refused_peer = counter_create(m->base.counters, "refused_peer", COUNTER_SUM,
					 "Connections refused: the peer has its maximum");
	m->refused_files =
		counter_create(m->base.counters, "refused_files", COUNTER_SUM,
			       "Connections refused: clients have half of the file descriptors");
	m->accept_errors =
		counter_create(m->base.counters, "accept_errors", COUNTER_SUM, "Errors of accept");
	block_signals(m);
	m->open_max = open_limit();
	if (!open_sockets(m, errors)) {
		master_destroy(m);
		return NULL;
	}
	return m;
}

void master_describe(const struct master *m, FILE *out)
{
	for (uint32_t i = 0; i < m->listen_count; i++) {
		fprintf(out, "flywheeld: %s listening on %s\n", m->listens[i]->ops->name,
			m->listens[i]->options->name);
	}
}

void master_destroy(struct master *m)
{
	for (uint32_t i = 0; i < m->listen_count; i++) {
		if (m->listens[i]->fd >= 0) {
			close(m->listens[i]->fd);
		}
		config_release(m->listens[i]->config);
		free(m->listens[i]);
	}
	close(m->signal_fd);
	config_release(m->config);
	pool_close(&m->accepts);
	pool_close(&m->peers);
	agent_close(&m->base);
	free(m);
}
