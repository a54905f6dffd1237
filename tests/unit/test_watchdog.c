/*
 * The watchdog: a thread that stands still is told with its stack, one that rests or goes on is
 * not, and the program is aborted when it is to be.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/clock.h"
#include "core/runtime/runtime.h"
#include "core/runtime/watchdog.h"

/* An agent that can be told to stand still in a duty cycle. */
struct sloth {
	struct agent base;
	_Atomic bool still;
	/* It does. */
	_Atomic bool stands;
	_Atomic uint64_t cycles;
};

#define SLOTH_STALLS "thread sloth.0 has been in one duty cycle"
#define I_STALL "thread me has been in one duty cycle"

/* What the program writes to stderr meanwhile. */
struct heard {
	int saved;
	char path[32];
};

static struct sloth sloth;
/* The test's own thread, which has no duty cycles. */
static struct watched me;
static const struct counter no_cycles;

static void sleep_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

/* Known by its name to whoever reads a stack: the linker keeps it for that (-rdynamic is for
 * programs), so tests look for the place alone. */
__attribute__((noinline)) static void stand_still(struct sloth *s)
{
	while (atomic_load(&s->still)) {
		atomic_store(&s->stands, true);
	}
}

static int sloth_do_work(struct agent *self)
{
	struct sloth *s = CONTAINER_OF(self, struct sloth, base);

	stand_still(s);
	atomic_fetch_add(&s->cycles, 1);
	return 0;
}

static const struct agent_ops sloth_ops = {.kind = "sloth", .do_work = sloth_do_work};

static void listen_in(struct heard *h)
{
	int fd;

	snprintf(h->path, sizeof h->path, "/tmp/watchdogXXXXXX");
	fd = mkstemp(h->path);
	assert_true(fd >= 0);
	fflush(stderr);
	h->saved = dup(STDERR_FILENO);
	assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	close(fd);
}

static void stop_listening(struct heard *h)
{
	dup2(h->saved, STDERR_FILENO);
	close(h->saved);
	unlink(h->path);
}

/* So far, until the next call. */
static const char *heard(const struct heard *h)
{
	static char text[16384];
	int fd = open(h->path, O_RDONLY);
	ssize_t len = read(fd, text, sizeof text - 1);

	close(fd);
	text[len > 0 ? len : 0] = '\0';
	return text;
}

static void wait_for(const struct heard *h, const char *words)
{
	while (strstr(heard(h), words) == NULL) {
		sleep_ms(5);
	}
}

static void wait_for_both(const struct heard *h, const char *words, const char *then)
{
	wait_for(h, words);
	while (strstr(strstr(heard(h), words) + 1, then) == NULL) {
		sleep_ms(5);
	}
}

static void *run(void *rt)
{
	runtime_run(rt);
	return NULL;
}

/* A program of one thread that parks, under a watchdog. */
struct zoo {
	struct runtime rt;
	pthread_t thread;
};

static void open_zoo(struct zoo *z, const struct watchdog_options *options, bool may_block)
{
	struct idle idle = {.kind = IDLE_PARK};
	struct group *g;

	memset(&sloth, 0, sizeof sloth);
	runtime_init(&z->rt, &clock_system);
	g = runtime_group(&z->rt, "sloth.0", -1, &idle);
	g->may_block = may_block;
	agent_init(&sloth.base, &sloth_ops, "sloth.0", 0);
	runtime_add(&z->rt, g, &sloth.base);
	assert_int_equal(runtime_prepare(&z->rt), 0);
	z->rt.watchdog = watchdog_create(options);
	assert_int_equal(pthread_create(&z->thread, NULL, run, &z->rt), 0);
	while (atomic_load(&sloth.cycles) == 0) {
		sleep_ms(1);
	}
}

static void make_it_stand(void)
{
	atomic_store(&sloth.still, true);
	while (!atomic_load(&sloth.stands)) {
		sleep_ms(1);
	}
}

static void close_zoo(struct zoo *z)
{
	runtime_stop(&z->rt);
	pthread_join(z->thread, NULL);
	watchdog_destroy(z->rt.watchdog);
	runtime_close(&z->rt);
	agent_close(&sloth.base);
}

static void test_tells_the_stack_of_a_thread_that_stands_still(void **state)
{
	const struct watchdog_options options = {.stall_ns = 400 * NS_PER_MS};
	struct zoo z;
	struct heard h;

	(void)state;
	listen_in(&h);
	open_zoo(&z, &options, false);
	make_it_stand();
	wait_for(&h, "watchdog: thread sloth.0 has been in one duty cycle for 0.");
	/* At least stand_still(), do_work, agent_duty(), group_cycle() and group_run(). */
	wait_for(&h, "\nflywheeld: watchdog:   #4 ");
	assert_non_null(strstr(heard(&h), "test_watchdog+0x"));
	assert_int_equal(counter_total("watchdog_stalled"), 1);
	/* Once more when it has taken twice as long. */
	wait_for_both(&h, SLOTH_STALLS, SLOTH_STALLS);
	atomic_store(&sloth.still, false);
	wait_for(&h, "watchdog: thread sloth.0 goes on, after ");
	/* A busy machine may have kept it waiting at other times. */
	assert_true(counter_total("watchdog_stalls") >= 1);
	assert_int_equal(counter_total("watchdog_stalled"), 0);
	close_zoo(&z);
	stop_listening(&h);
}

/* For as long as another one stalls, in the kernel by its own will; then awake, without a cycle. */
static void test_a_thread_that_rests_is_no_stall(void **state)
{
	const struct watchdog_options options = {.stall_ns = 200 * NS_PER_MS};
	struct zoo z;
	struct heard h;

	(void)state;
	listen_in(&h);
	open_zoo(&z, &options, false);
	watchdog_enter(z.rt.watchdog, &me, "me", &no_cycles);
	watched_rest(&me, true);
	make_it_stand();
	wait_for_both(&h, SLOTH_STALLS, SLOTH_STALLS);
	/* Before that, a busy machine may have kept it from resting. */
	assert_null(strstr(strstr(heard(&h), SLOTH_STALLS), I_STALL));
	atomic_store(&sloth.still, false);
	wait_for(&h, "thread sloth.0 goes on, after ");
	watched_rest(&me, false);
	wait_for_both(&h, I_STALL, "#1 ");
	watchdog_leave(z.rt.watchdog, &me);
	close_zoo(&z);
	stop_listening(&h);
}

/* A worker of the thread pool takes as long as its job does; another thread's stall is told. */
static void test_who_may_block_is_not_watched(void **state)
{
	const struct watchdog_options options = {.stall_ns = 20 * NS_PER_MS};
	struct zoo z;
	struct heard h;

	(void)state;
	listen_in(&h);
	open_zoo(&z, &options, true);
	make_it_stand();
	watchdog_enter(z.rt.watchdog, &me, "me", &no_cycles);
	wait_for_both(&h, I_STALL, I_STALL);
	assert_null(strstr(heard(&h), "sloth"));
	watchdog_leave(z.rt.watchdog, &me);
	assert_int_equal(counter_total("watchdog_stalled"), 0);
	atomic_store(&sloth.still, false);
	close_zoo(&z);
	stop_listening(&h);
}

/* Nobody watches, but the service manager waits for word. */
static void test_tells_the_manager_when_nothing_is_a_stall(void **state)
{
	const struct watchdog_options options = {.abort_ns = NS_PER_MS};
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/tmp/notifyXXXXXX"};
	int file = mkstemp(address.sun_path);
	int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct timeval patience = {.tv_sec = 30};
	struct zoo z;
	struct heard h;
	char word[64];

	(void)state;
	close(file);
	unlink(address.sun_path);
	assert_int_equal(bind(manager, (struct sockaddr *)&address, sizeof address), 0);
	setsockopt(manager, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	setenv("WATCHDOG_USEC", "20000", 1);
	listen_in(&h);
	open_zoo(&z, &options, false);
	atomic_store(&sloth.still, true);
	while (!atomic_load(&sloth.stands)) {
		sleep_ms(1);
	}
	while (recv(manager, word, sizeof word, MSG_DONTWAIT) > 0) {
	}
	for (int i = 0; i < 20; i++) {
		assert_int_equal(recv(manager, word, sizeof word, 0), strlen("WATCHDOG=1"));
		assert_memory_equal(word, "WATCHDOG=1", strlen("WATCHDOG=1"));
	}
	atomic_store(&sloth.still, false);
	close_zoo(&z);
	assert_string_equal(heard(&h), "");
	stop_listening(&h);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	close(manager);
	unlink(address.sun_path);
}

static void test_aborts_when_it_is_to(void **state)
{
	const struct watchdog_options options = {
		.stall_ns = 50 * NS_PER_MS,
		.abort_ns = 100 * NS_PER_MS,
	};
	struct heard h;
	int status;
	pid_t child;

	(void)state;
	listen_in(&h);
	child = fork();
	if (child == 0) {
		const struct rlimit none = {0, 0};
		struct zoo z;

		signal(SIGABRT, SIG_DFL);
		setrlimit(RLIMIT_CORE, &none);
		open_zoo(&z, &options, false);
		atomic_store(&sloth.still, true);
		sleep_ms(60000);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_non_null(strstr(heard(&h), SLOTH_STALLS));
	assert_non_null(strstr(heard(&h), "watchdog: aborts the program\n"));
	stop_listening(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tells_the_stack_of_a_thread_that_stands_still),
		cmocka_unit_test(test_a_thread_that_rests_is_no_stall),
		cmocka_unit_test(test_who_may_block_is_not_watched),
		cmocka_unit_test(test_tells_the_manager_when_nothing_is_a_stall),
		cmocka_unit_test(test_aborts_when_it_is_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
