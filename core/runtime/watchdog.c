#include "core/runtime/watchdog.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <inttypes.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/affinity.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

/* Asks a thread for its stack. */
#define WATCHDOG_SIGNAL (SIGRTMIN + 4)
#define FRAMES_MAX 64
/* Of the handler itself, and of the kernel's way into it. */
#define FRAMES_SKIPPED 2
/* Looks in the time of one stall, and the longest time between two. */
#define LOOKS 8
#define LOOK_MAX_NS NS_PER_S
/* How long a thread has to tell its stack: one that the kernel holds cannot. */
#define STACK_PATIENCE_MS 1000

SINGLE
struct watchdog {
	struct watchdog_options options;
	uint64_t look_ns;
	pthread_t thread;
	struct counter_set *counters;
	struct counter *stalls;
	struct counter *stalled;

	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool end;
	struct watched *first;
};

/* What the handler leaves for the watchdog: `count` is last. */
static struct {
	/* Who is asked; 0: nobody. */
	_Atomic pid_t asked;
	void *frames[FRAMES_MAX];
	_Atomic int count;
} stack;

/* On the thread that stands still; maybe long after it was asked, when nobody wants to know. */
static void on_signal(int number)
{
	int saved = errno;
	pid_t self = gettid();

	(void)number;
	if (atomic_compare_exchange_strong(&stack.asked, &self, 0)) {
		atomic_store_explicit(&stack.count, backtrace(stack.frames, FRAMES_MAX),
				      memory_order_release);
	}
	errno = saved;
}

/* backtrace() loads what it needs at its first call, which is none for a signal handler. */
static void prepare_stacks(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	backtrace(stack.frames, FRAMES_MAX);
	sigaction(WATCHDOG_SIGNAL, &action, NULL);
}

/* One line, at once: whoever holds the lock of stderr may be what stands still. */
static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	char line[512];
	va_list arguments;
	int len = snprintf(line, sizeof line, "flywheeld: watchdog: ");

	va_start(arguments, format);
	vsnprintf(line + len, sizeof line - (size_t)len - 1, format, arguments);
	va_end(arguments);
	strcat(line, "\n");
	if (write(STDERR_FILENO, line, strlen(line)) < 0) {
		/* Nobody listens. */
		return;
	}
}

/* A line of the kernel's about a thread, without its newline; empty when there is none. */
static void read_about(pid_t thread, const char *what, char *text, int size)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)thread, what);
	file = fopen(path, "re");
	text[0] = '\0';
	if (file == NULL) {
		return;
	}
	if (fgets(text, size, file) == NULL) {
		text[0] = '\0';
	}
	text[strcspn(text, "\n")] = '\0';
	fclose(file);
}

/* In which state the kernel has it (proc(5)), and in which of its functions it waits. */
static void describe(pid_t thread, char *text, size_t size)
{
	char status[256];
	char where[128];
	const char *after;

	read_about(thread, "stat", status, sizeof status);
	read_about(thread, "wchan", where, sizeof where);
	after = strrchr(status, ')');
	snprintf(text, size, "state %c%s%s", after != NULL && strlen(after) > 2 ? after[2] : '?',
		 where[0] != '\0' && strcmp(where, "0") != 0 ? ", in the kernel's " : "",
		 strcmp(where, "0") != 0 ? where : "");
}

/* A function's name where its symbol is known, and the place in its file, which addr2line(1)
 * understands. */
static void say_frame(int number, void *address)
{
	/* A return address: the call is before it. */
	char *call = (char *)address - 1;
	Dl_info info;
	const ElfW(Sym) *symbol = NULL;
	const char *file;
	char name[128] = "";

	if (dladdr1(call, &info, (void **)&symbol, RTLD_DL_SYMENT) == 0) {
		say("  #%d %p", number, (void *)call);
		return;
	}
	if (symbol != NULL && info.dli_sname != NULL &&
	    (size_t)(call - (char *)info.dli_saddr) < symbol->st_size) {
		snprintf(name, sizeof name, "%s() ", info.dli_sname);
	}
	file = strrchr(info.dli_fname, '/');
	say("  #%d %s%s+0x%tx", number, name, file != NULL ? file + 1 : info.dli_fname,
	    call - (char *)info.dli_fbase);
}

/* Asks the thread for its stack, and says it. */
static void say_stack(const struct watched *t)
{
	struct timespec pause = {.tv_nsec = (long)NS_PER_MS};
	int count = 0;

	atomic_store_explicit(&stack.count, 0, memory_order_relaxed);
	atomic_store(&stack.asked, t->thread);
	if (syscall(SYS_tgkill, getpid(), t->thread, WATCHDOG_SIGNAL) != 0) {
		return;
	}
	for (int i = 0; i < STACK_PATIENCE_MS && count == 0; i++) {
		nanosleep(&pause, NULL);
		count = atomic_load_explicit(&stack.count, memory_order_acquire);
	}
	if (count == 0 && atomic_exchange(&stack.asked, 0) != 0) {
		say("  it does not tell its stack: the kernel holds it");
	}
	for (int i = FRAMES_SKIPPED; i < count; i++) {
		say_frame(i - FRAMES_SKIPPED, stack.frames[i]);
	}
}

static void say_stall(const struct watched *t)
{
	char state[256];

	describe(t->thread, state, sizeof state);
	say("thread %s has been in one duty cycle for %" PRIu64 ".%" PRIu64 " s (%s); its stack:",
	    t->name, t->still_ns / NS_PER_S, t->still_ns % NS_PER_S / (100 * NS_PER_MS), state);
	say_stack(t);
}

static void end_stall(struct watchdog *w, struct watched *t)
{
	say("thread %s goes on, after %" PRIu64 ".%" PRIu64 " s", t->name, t->still_ns / NS_PER_S,
	    t->still_ns % NS_PER_S / (100 * NS_PER_MS));
	counter_sub(w->stalled, 1);
}

/* `passed_ns` since the last look. True when it goes on, or rests. */
static bool look_at(struct watchdog *w, struct watched *t, uint64_t passed_ns)
{
	uint64_t cycles = counter_get(t->cycles);

	if (cycles != t->seen || atomic_load_explicit(&t->resting, memory_order_relaxed)) {
		if (t->told_ns != 0) {
			end_stall(w, t);
		}
		t->seen = cycles;
		t->still_ns = 0;
		t->told_ns = 0;
		return true;
	}
	t->still_ns += passed_ns;
	if (w->options.stall_ns == 0 || t->still_ns < w->options.stall_ns) {
		return true;
	}
	if (t->told_ns == 0) {
		counter_inc(w->stalls);
		counter_add(w->stalled, 1);
	}
	/* Then after twice that time, and so on. */
	if (t->still_ns >= 2 * t->told_ns) {
		t->told_ns = t->still_ns;
		say_stall(t);
	}
	if (w->options.abort_ns != 0 && t->still_ns >= w->options.abort_ns) {
		say("aborts the program");
		abort();
	}
	return false;
}

static uint64_t now_ns(void)
{
	return clock_read(&clock_system).mono_ns;
}

/* Until the next look, or the end. Under the lock. */
static void wait_for_look(struct watchdog *w)
{
	uint64_t until = now_ns() + w->look_ns;
	struct timespec t = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};

	while (!w->end && pthread_cond_timedwait(&w->ended, &w->lock, &t) != ETIMEDOUT) {
	}
}

static void *watchdog_main(void *argument)
{
	struct watchdog *w = argument;
	uint64_t before = now_ns();

	affinity_name_thread("watchdog");
	pthread_mutex_lock(&w->lock);
	while (!w->end) {
		uint64_t now = now_ns();
		uint64_t passed = now - before < 2 * w->look_ns ? now - before : w->look_ns;
		bool well = true;

		before = now;
		for (struct watched *t = w->first; t != NULL; t = t->next) {
			well = look_at(w, t, passed) && well;
		}
		if (well) {
			sd_notify(0, "WATCHDOG=1");
		}
		wait_for_look(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Often enough for a stall to be seen in time, and for the service manager to hear of us. */
static uint64_t look_ns(const struct watchdog_options *options)
{
	uint64_t ns = options->stall_ns != 0 ? options->stall_ns / LOOKS : LOOK_MAX_NS;
	uint64_t manager_us = 0;

	if (sd_watchdog_enabled(0, &manager_us) > 0 && manager_us * NS_PER_US / 4 < ns) {
		ns = manager_us * NS_PER_US / 4;
	}
	return ns < LOOK_MAX_NS ? ns : LOOK_MAX_NS;
}

struct watchdog *watchdog_create(const struct watchdog_options *options)
{
	struct watchdog *w = calloc(1, sizeof *w);
	pthread_condattr_t attributes;
	int rc;

	if (w == NULL) {
		fatal("out of memory at start");
	}
	w->options = *options;
	w->look_ns = look_ns(options);
	w->counters = counter_set_create("watchdog");
	w->stalls = counter_create(w->counters, "watchdog_stalls", COUNTER_SUM,
				   "Threads found in one duty cycle for too long");
	w->stalled = counter_create(w->counters, "watchdog_stalled", COUNTER_GAUGE,
				    "Threads that are so now");
	prepare_stacks();
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&w->ended, &attributes);
	pthread_condattr_destroy(&attributes);
	rc = pthread_create(&w->thread, NULL, watchdog_main, w);
	if (rc != 0) {
		fatal("cannot make a thread for the watchdog: %s", strerror(rc));
	}
	return w;
}

void watchdog_destroy(struct watchdog *w)
{
	pthread_mutex_lock(&w->lock);
	w->end = true;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	signal(WATCHDOG_SIGNAL, SIG_IGN);
	pthread_cond_destroy(&w->ended);
	pthread_mutex_destroy(&w->lock);
	counter_set_destroy(w->counters);
	free(w);
}

void watchdog_enter(struct watchdog *w, struct watched *thread, const char *name,
		    const struct counter *cycles)
{
	*thread = (struct watched){.name = name, .cycles = cycles, .thread = gettid()};
	pthread_mutex_lock(&w->lock);
	thread->next = w->first;
	w->first = thread;
	pthread_mutex_unlock(&w->lock);
}

void watchdog_leave(struct watchdog *w, struct watched *thread)
{
	struct watched **at = &w->first;

	pthread_mutex_lock(&w->lock);
	while (*at != thread) {
		at = &(*at)->next;
	}
	*at = thread->next;
	if (thread->told_ns != 0) {
		counter_sub(w->stalled, 1);
	}
	pthread_mutex_unlock(&w->lock);
}
