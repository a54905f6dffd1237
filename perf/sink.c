#include "perf/sink.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf/moment.h"
#include "perf/sink_session.h"

#define EVENTS_MAX 256
/* A reader of the record waits this long at most; statistics and progress come each second. */
#define FLUSH_NS (200 * NS_PER_MS)

static int watch(struct sink *sink, int fd, void *marker)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = marker};

	return epoll_ctl(sink->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* The markers are the addresses of the descriptors: no session has them. */
static int sink_open(struct sink *sink)
{
	sigset_t signals;
	int rc;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	sink->epoll = epoll_create1(EPOLL_CLOEXEC);
	sink->signals = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	sink->buffer = malloc(SINK_BUFFER_SIZE);
	if (sink->epoll < 0 || sink->signals < 0 || sink->buffer == NULL) {
		return -errno;
	}
	rc = watch(sink, sink->listener, &sink->listener);
	return rc != 0 ? rc : watch(sink, sink->signals, &sink->signals);
}

static void accept_all(struct sink *sink)
{
	int fd;

	while ((fd = accept4(sink->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		sink_session_open(sink, fd);
	}
}

static void flush_files(struct sink *sink)
{
	if (sink->ledger.record != NULL) {
		fflush(sink->ledger.record);
	}
	if (sink->options.log != NULL) {
		fflush(sink->options.log);
	}
}

static void report(struct sink *sink)
{
	struct text t = {0};

	sink_ledger_append_summary(&sink->ledger, &t);
	fwrite(t.data, 1, t.len, stderr);
	text_free(&t);
}

static void on_signal(struct sink *sink)
{
	struct signalfd_siginfo signal;

	while (read(sink->signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
		if (signal.ssi_signo == SIGUSR1) {
			flush_files(sink);
			report(sink);
		} else {
			sink->stopping = true;
		}
	}
}

static void dispatch(struct sink *sink, const struct epoll_event *event)
{
	if (event->data.ptr == &sink->listener) {
		accept_all(sink);
	} else if (event->data.ptr == &sink->signals) {
		on_signal(sink);
	} else {
		sink_session_on_event(event->data.ptr, event->events);
	}
}

/* Goes through the paused sessions: those that are due go on, the others say when they are. */
static void resume_due(struct sink *sink)
{
	struct sink_session *s = sink->paused;

	sink->paused = NULL;
	sink->resume_ns = MOMENT_NEVER;
	while (s != NULL) {
		struct sink_session *next = s->next_paused;
		s->listed_paused = s->resume_ns > sink->now_ns;
		if (!s->listed_paused) {
			sink_session_resume(s);
		} else {
			s->next_paused = sink->paused;
			sink->paused = s;
			if (s->resume_ns < sink->resume_ns) {
				sink->resume_ns = s->resume_ns;
			}
		}
		s = next;
	}
}

int sink_write_stats(struct sink *sink, bool final)
{
	const struct sink_ledger *l = &sink->ledger;
	uint64_t state = l->messages + l->connections + l->connections_open + l->refused +
			 l->protocol_errors + 1;
	struct text t = {0};
	int rc;

	if (sink->options.stats_file == NULL || (state == sink->stats_written && !final)) {
		return 0;
	}
	sink_ledger_append_json(l, &t, final || l->domains.count <= 1000);
	rc = text_write_file(&t, sink->options.stats_file);
	text_free(&t);
	sink->stats_written = state;
	return rc;
}

static int on_tick(struct sink *sink)
{
	static unsigned ticks;

	sink->tick_ns = sink->now_ns + FLUSH_NS;
	flush_files(sink);
	if (++ticks % 5 != 0) {
		return 0;
	}
	if (sink->options.progress && sink->messages_reported != sink->ledger.messages) {
		report(sink);
		sink->messages_reported = sink->ledger.messages;
	}
	return sink_write_stats(sink, false);
}

static bool has_expected(const struct sink *sink)
{
	const struct sink_options *o = &sink->options;

	return (o->expect_messages > 0 || o->expect_deliveries > 0) &&
	       sink->ledger.distinct >= o->expect_messages &&
	       sink->ledger.deliveries >= o->expect_deliveries;
}

/* After the last message, connections get some time to say QUIT. */
static void check_expected(struct sink *sink)
{
	if (!has_expected(sink)) {
		return;
	}
	if (sink->stop_ns == MOMENT_NEVER) {
		sink->stop_ns = sink->now_ns + sink->options.linger_ns;
	}
	if (sink->ledger.connections_open == 0 || sink->now_ns >= sink->stop_ns) {
		sink->stopping = true;
	}
}

static uint64_t earliest(const struct sink *sink)
{
	uint64_t due = sink->tick_ns;

	due = sink->resume_ns < due ? sink->resume_ns : due;
	return sink->stop_ns < due ? sink->stop_ns : due;
}

static int serve(struct sink *sink)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec timeout;
	int rc = 0;
	int n;

	while (!sink->stopping && rc == 0) {
		n = epoll_pwait2(sink->epoll, events, EVENTS_MAX,
				 moment_until(&timeout, sink->now_ns, earliest(sink)), NULL);
		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		sink->now_ns = moment_ns();
		for (int i = 0; i < n; i++) {
			dispatch(sink, &events[i]);
		}
		if (sink->now_ns >= sink->resume_ns) {
			resume_due(sink);
		}
		if (sink->now_ns >= sink->tick_ns) {
			rc = on_tick(sink);
		}
		check_expected(sink);
	}
	return rc;
}

int sink_run(struct sink *sink)
{
	int rc = sink_open(sink);

	sink->now_ns = moment_ns();
	sink->tick_ns = sink->now_ns + FLUSH_NS;
	sink->resume_ns = MOMENT_NEVER;
	sink->stop_ns = MOMENT_NEVER;
	if (rc == 0) {
		rc = sink_write_stats(sink, false);
	}
	if (rc == 0) {
		rc = serve(sink);
	}
	while (sink->sessions != NULL) {
		sink_session_close(sink->sessions);
	}
	free(sink->buffer);
	close(sink->signals);
	close(sink->epoll);
	return rc;
}
