#include "perf/load.h"

#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "perf/load_session.h"
#include "perf/moment.h"

#define EVENTS_MAX 256

/* When message `number` is to be sent, in the open loop. */
static uint64_t due_ns(const struct load *load, uint64_t number)
{
	return load->start_ns + (uint64_t)((double)number / load->options.rate * (double)NS_PER_S);
}

bool load_is_drained(const struct load *load)
{
	return load->stopping || load->next_message == load->options.messages;
}

bool load_others_are_first(const struct load *load)
{
	return load->options.turns && load->idle != NULL && !load_is_drained(load);
}

bool load_take_message(struct load *load, struct load_session *s)
{
	uint64_t start_ns = moment_ns();

	if (load->gathering || load_is_drained(load)) {
		return false;
	}
	if (load->options.rate > 0) {
		uint64_t due = due_ns(load, load->next_message);
		if (due > start_ns) {
			return false;
		}
		start_ns = due;
	}
	s->number = load->next_message++;
	s->start_ns = start_ns;
	return true;
}

void load_add_idle(struct load *load, struct load_session *s)
{
	if (load->options.turns && load->idle != NULL) {
		s->next_idle = NULL;
		load->idle_last->next_idle = s;
		load->idle_last = s;
	} else {
		s->next_idle = load->idle;
		load->idle = s;
		load->idle_last = s->next_idle == NULL ? s : load->idle_last;
	}
	load->idle_count++;
}

void load_remove_idle(struct load *load, struct load_session *s)
{
	struct load_session **at = &load->idle;
	struct load_session *before = NULL;

	while (*at != s) {
		before = *at;
		at = &before->next_idle;
	}
	*at = s->next_idle;
	if (load->idle_last == s) {
		load->idle_last = before;
	}
	load->idle_count--;
}

void load_note_trouble(struct load *load, const char *what, const char *detail, size_t len)
{
	if (load->first_trouble.len == 0) {
		text_printf(&load->first_trouble, "%s: %.*s", what, (int)len, detail);
		text_append(&load->first_trouble, "", 1);
	}
}

bool load_succeeded(const struct load *load)
{
	return load->counts.accepted == load->options.messages;
}

static void write_date(struct load *load)
{
	time_t now = time(NULL);
	struct tm utc;

	gmtime_r(&now, &utc);
	strftime(load->date, sizeof(load->date), "%a, %d %b %Y %H:%M:%S +0000", &utc);
}

static uint64_t cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int load_open(struct load *load)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &load->signals};
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* The default slack of 50 us would show in the open loop. */
	prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	load->signals = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (load->epoll < 0 || load->signals < 0 ||
	    epoll_ctl(load->epoll, EPOLL_CTL_ADD, load->signals, &event) != 0) {
		return -errno;
	}
	return 0;
}

static void start_sessions(struct load *load)
{
	load->buffer = malloc(2 * LOAD_READ_MAX);
	load->sessions = calloc(load->options.sessions, sizeof(*load->sessions));
	if (load->buffer == NULL || load->sessions == NULL) {
		err(2, "%u sessions", load->options.sessions);
	}
	load->sessions_alive = load->options.sessions;
	for (unsigned i = 0; i < load->options.sessions; i++) {
		load_session_init(&load->sessions[i], load);
		load_session_connect(&load->sessions[i]);
	}
}

static void end_sessions(struct load *load)
{
	for (unsigned i = 0; i < load->options.sessions; i++) {
		load_session_end(&load->sessions[i]);
	}
}

/* The first signal lets what is under way finish, the second does not. */
static void on_signal(struct load *load)
{
	struct signalfd_siginfo signal;

	while (read(load->signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
		if (load->stopping) {
			end_sessions(load);
		}
		load->stopping = true;
	}
	for (unsigned i = 0; i < load->options.sessions; i++) {
		struct load_session *s = &load->sessions[i];
		if (s->state == LOAD_PAUSED || s->state == LOAD_CONNECTING) {
			load_session_end(s);
		}
	}
}

/* From here on messages are due, and time is counted. */
static void start_clock(struct load *load)
{
	load->cpu_us = cpu_us();
	load->start_ns = moment_ns();
	load->now_ns = load->start_ns;
	load->tick_ns = load->start_ns + NS_PER_S;
}

/* The gathering ends with every session that could be connected. */
static void check_gathering(struct load *load)
{
	if (load->gathering && load->idle_count == load->sessions_alive) {
		load->gathering = false;
		fputs("connected\n", stderr);
		start_clock(load);
	}
}

/* When a message is due for an idle session: at once in the closed loop. */
static bool is_due(const struct load *load)
{
	return load->options.rate == 0 || due_ns(load, load->next_message) <= load->now_ns;
}

/*
 * Gives messages that are due to sessions that are idle; tells those that no more will come. In
 * the closed loop only those are idle that have waited for the others to connect.
 */
static void feed_idle(struct load *load)
{
	while (load->idle != NULL &&
	       (load_is_drained(load) || (!load->gathering && is_due(load)))) {
		struct load_session *s = load->idle;
		load_remove_idle(load, s);
		load_session_start(s);
	}
}

/* How often deadlines are looked at: often enough for the time-out that was asked for. */
static uint64_t scan_interval_ns(const struct load *load)
{
	uint64_t quarter_ns = load->options.timeout_ns / 4;

	return quarter_ns < NS_PER_S ? quarter_ns + NS_PER_MS : NS_PER_S;
}

/* Goes through all sessions for those whose time has come. */
static void scan(struct load *load)
{
	load->wake_ns = load->now_ns + scan_interval_ns(load);
	for (unsigned i = 0; i < load->options.sessions; i++) {
		struct load_session *s = &load->sessions[i];
		if (s->state == LOAD_PAUSED && s->wake_ns > load->now_ns) {
			load->wake_ns = s->wake_ns < load->wake_ns ? s->wake_ns : load->wake_ns;
		} else if (s->state == LOAD_PAUSED) {
			load_session_on_time(s);
		} else if (s->state > LOAD_PAUSED && s->state != LOAD_IDLE &&
			   s->deadline_ns <= load->now_ns) {
			load_session_on_time(s);
		}
	}
}

static void on_tick(struct load *load)
{
	const struct load_counts *c = &load->counts;
	double seconds = (double)(load->now_ns - load->start_ns) / (double)NS_PER_S;

	load->tick_ns += NS_PER_S;
	write_date(load);
	if (load->options.progress) {
		fprintf(stderr,
			"%.0f s  accepted %lu (%lu/s)  4xx %lu  5xx %lu  errors %lu  retries %lu\n",
			seconds, c->accepted, c->accepted - load->accepted_reported, c->tempfailed,
			c->permfailed, c->errors, c->retries);
		load->accepted_reported = c->accepted;
	}
}

static uint64_t earliest(const struct load *load)
{
	uint64_t due = load->tick_ns < load->wake_ns ? load->tick_ns : load->wake_ns;

	if (load->idle != NULL && !load->gathering && !load_is_drained(load)) {
		uint64_t next = due_ns(load, load->next_message);
		due = next < due ? next : due;
	}
	return due;
}

static int serve(struct load *load)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec timeout;
	int n;

	while (load->sessions_alive > 0) {
		n = epoll_pwait2(load->epoll, events, EVENTS_MAX,
				 moment_until(&timeout, moment_ns(), earliest(load)), NULL);
		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		load->now_ns = moment_ns();
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == &load->signals) {
				on_signal(load);
			} else {
				load_session_on_event(events[i].data.ptr, events[i].events);
			}
		}
		if (load->now_ns >= load->wake_ns) {
			scan(load);
		}
		if (load->now_ns >= load->tick_ns) {
			on_tick(load);
		}
		check_gathering(load);
		feed_idle(load);
	}
	return 0;
}

static void load_close(struct load *load)
{
	for (unsigned i = 0; i < load->options.sessions; i++) {
		load_session_free(&load->sessions[i]);
	}
	free(load->sessions);
	free(load->buffer);
	message_pool_free(&load->pool);
	close(load->signals);
	close(load->epoll);
}

int load_run(struct load *load)
{
	int rc = load_open(load);

	if (rc != 0) {
		return rc;
	}
	load->header_len = load_header_len(&load->options);
	message_pool_init(&load->pool, load->options.size - load->header_len, load->options.seed);
	write_date(load);
	load->gathering = load->options.gather;
	start_clock(load);
	load->wake_ns = load->now_ns;
	start_sessions(load);
	rc = serve(load);
	load->end_ns = moment_ns();
	load->cpu_us = cpu_us() - load->cpu_us;
	load_close(load);
	return rc;
}
