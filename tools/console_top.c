#include "tools/console_top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "tools/console_top_view.h"

#define INTERVAL_S 2.0
#define INTERVAL_MAX_S 3600.0
#define COUNT_MAX 1000000000
#define ROWS 20
#define ROWS_MAX 200
#define BATCH_WIDTH 132
#define SCREEN_WIDTH 80
#define SCREEN_HEIGHT 24
#define SCREEN_MAX 512

/* A screen of its own, without a cursor; and back. */
#define ENTER_SCREEN "\033[?1049h\033[?25l\033[H\033[2J"
#define LEAVE_SCREEN "\033[?25h\033[?1049l"
#define REVERSE "\033[7m"
#define PLAIN "\033[0m"

struct top {
	struct console *console;
	bool batch;
	/* 0: until somebody leaves. */
	unsigned long count;
	struct top_screen screen;
	struct top_sample now;
	struct top_sample before;
	char trouble[128];
	struct termios saved;
	/* While keys are waited for; else a change of the window's size waits. */
	sigset_t waiting;
};

/* Set by signals. */
static volatile sig_atomic_t leave;
static volatile sig_atomic_t resized;

/* ---- asking ---- */

static double clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* NULL: t->trouble says why. */
static json_t *ask(struct top *t, const char *command)
{
	json_t *answer = console_ask(t->console, command);
	json_t *result;

	result = json_incref(json_object_get(answer, "result"));
	if (answer == NULL) {
		snprintf(t->trouble, sizeof(t->trouble), "flywheeld does not answer: %s",
			 strerror(errno));
	} else if (result == NULL) {
		snprintf(t->trouble, sizeof(t->trouble), "%.*s: %s", 20, command,
			 json_string_value(json_object_get(answer, "error")));
	}
	json_decref(answer);
	return result;
}

static json_t *ask_rows(struct top *t)
{
	char command[64];
	unsigned rows = t->screen.height == 0 ? ROWS : t->screen.height;

	if (t->screen.kind == TOP_BINDINGS) {
		json_t *answer = ask(t, "bindings");
		json_t *list = json_incref(json_object_get(answer, "bindings"));

		json_decref(answer);
		return list;
	}
	snprintf(command, sizeof(command), "busiest %u %s", rows < ROWS_MAX ? rows : ROWS_MAX,
		 top_sort_word(t->screen.sort));
	return ask(t, command);
}

/* False when something could not be had: what was there before stays. */
static bool take_sample(struct top *t)
{
	struct top_sample fresh = {.kind = t->screen.kind};

	t->trouble[0] = '\0';
	if ((fresh.summary = ask(t, "summary")) != NULL &&
	    (fresh.memory = ask(t, "memory")) != NULL &&
	    (fresh.threads = ask(t, "threads")) != NULL &&
	    (fresh.version = ask(t, "version")) != NULL && (fresh.rows = ask_rows(t)) != NULL) {
		fresh.at_s = clock_s();
		top_sample_free(&t->before);
		t->before = t->now;
		t->now = fresh;
		return true;
	}
	top_sample_free(&fresh);
	return false;
}

/* ---- drawing ---- */

static void view(struct top *t, FILE *out)
{
	t->screen.trouble = t->trouble[0] != '\0' ? t->trouble : NULL;
	top_view(&t->now, t->before.summary != NULL ? &t->before : NULL, &t->screen, out);
}

static void put_line(const char *line, size_t len, bool plain)
{
	bool heading = len > 0 && line[0] == TOP_HEADING;

	if (heading) {
		line++;
		len--;
	}
	if (plain) {
		fwrite(line, 1, len, stdout);
		putchar('\n');
		return;
	}
	printf("%s%.*s%s\033[K", heading ? REVERSE : "", (int)len, line, heading ? PLAIN : "");
}

static void put_view(struct top *t)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	bool first = true;

	if (out == NULL) {
		return;
	}
	view(t, out);
	fclose(out);
	if (!t->batch) {
		fputs("\033[H", stdout);
	}
	for (const char *at = text; at < text + size;) {
		const char *lf = memchr(at, '\n', (size_t)(text + size - at));

		/* Behind the last line nothing, lest the screen scrolls. */
		if (!t->batch && !first) {
			fputs("\r\n", stdout);
		}
		put_line(at, (size_t)(lf - at), t->batch);
		first = false;
		at = lf + 1;
	}
	fputs(t->batch ? "\n" : "\033[J", stdout);
	fflush(stdout);
	free(text);
}

/* ---- the terminal ---- */

static void on_signal(int number)
{
	if (number == SIGWINCH) {
		resized = 1;
	} else {
		leave = 1;
	}
}

static void measure(struct top_screen *screen)
{
	struct winsize size;

	resized = 0;
	screen->width = SCREEN_WIDTH;
	screen->height = SCREEN_HEIGHT;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
		screen->width = size.ws_col < SCREEN_MAX ? size.ws_col : SCREEN_MAX;
		screen->height = size.ws_row < SCREEN_MAX ? size.ws_row : SCREEN_MAX;
	}
}

/* Keys come one by one and are not shown; ^C is a signal, ^Z is none. */
static bool enter(struct top *t)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &t->saved) != 0) {
		return false;
	}
	raw = t->saved;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	raw.c_cc[VSUSP] = _POSIX_VDISABLE;
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) != 0) {
		return false;
	}
	fputs(ENTER_SCREEN, stdout);
	return true;
}

static void leave_screen(struct top *t)
{
	fputs(LEAVE_SCREEN, stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &t->saved);
}

/* Without SA_RESTART: a signal ends what waits. */
static void catch (const int *numbers, unsigned count, struct sigaction *saved)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigemptyset(&action.sa_mask);
	for (unsigned i = 0; i < count; i++) {
		sigaction(numbers[i], &action, &saved[i]);
	}
}

/* ---- keys ---- */

/* True: what is shown is to be asked for anew. */
static bool on_key(struct top *t, char key)
{
	struct top_screen *screen = &t->screen;

	screen->help = (key == 'h' || key == '?') && !screen->help;
	switch (key) {
	case 'q':
		leave = 1;
		return false;
	case 'r':
		screen->sort = TOP_BY_RATE;
		return true;
	case 'l':
		screen->sort = TOP_BY_QUEUE;
		return true;
	case 'c':
		screen->sort = TOP_BY_CONNECTIONS;
		return true;
	case 'd':
		screen->kind = TOP_DOMAINS;
		return true;
	case 'b':
		screen->kind = TOP_BINDINGS;
		return true;
	case 'p':
		screen->paused = !screen->paused;
		return !screen->paused;
	case ' ':
		return true;
	default:
		return false;
	}
}

/* Until a key, a signal, or for so long. */
static bool wait_for_key(const struct top *t, double left_s)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	struct timespec left = {.tv_sec = (time_t)left_s};

	left.tv_nsec = (long)((left_s - (double)left.tv_sec) * 1e9);
	return ppoll(&in, 1, t->screen.paused ? NULL : &left, &t->waiting) > 0;
}

/* Keys until it is time for the next sample; each is obeyed, and seen, at once. */
static void wait_for_keys(struct top *t, double until_s)
{
	while (!leave) {
		double left_s = until_s - clock_s();
		char key;
		bool typed;

		if (left_s <= 0 && !t->screen.paused) {
			return;
		}
		typed = wait_for_key(t, left_s);
		if (resized) {
			measure(&t->screen);
			fputs("\033[2J", stdout);
			put_view(t);
		}
		if (!typed) {
			continue;
		}
		if (read(STDIN_FILENO, &key, 1) != 1) {
			leave = 1;
		} else if (on_key(t, key)) {
			return;
		} else {
			put_view(t);
		}
	}
}

/* ---- running ---- */

static int run_live(struct top *t)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
	struct sigaction saved[4];
	sigset_t window;

	leave = 0;
	if (!enter(t)) {
		perror("flywheel: top");
		return 2;
	}
	sigemptyset(&window);
	sigaddset(&window, SIGWINCH);
	sigprocmask(SIG_BLOCK, &window, &t->waiting);
	catch (numbers, 4, saved);
	measure(&t->screen);
	for (unsigned long n = 0; !leave && (t->count == 0 || n < t->count); n++) {
		take_sample(t);
		if (!leave) {
			put_view(t);
			wait_for_keys(t, clock_s() + t->screen.interval_s);
		}
	}
	leave_screen(t);
	for (unsigned i = 0; i < 4; i++) {
		sigaction(numbers[i], &saved[i], NULL);
	}
	sigprocmask(SIG_SETMASK, &t->waiting, NULL);
	return 0;
}

static int run_batch(struct top *t)
{
	double wait_s = t->screen.interval_s;
	struct timespec pause = {.tv_sec = (time_t)wait_s};

	pause.tv_nsec = (long)((wait_s - (double)pause.tv_sec) * 1e9);
	t->batch = true;
	t->screen.width = BATCH_WIDTH;
	for (unsigned long n = 0; n < t->count; n++) {
		if (n > 0) {
			nanosleep(&pause, NULL);
		}
		if (!take_sample(t)) {
			fprintf(stderr, "flywheel: %s\n", t->trouble);
			return 2;
		}
		put_view(t);
	}
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "flywheel: usage: top [-b] [-n COUNT] [-d SECONDS]\n");
	return 2;
}

/* A number above 0, at most `max`. */
static bool parse_number(const char *word, double max, double *number)
{
	char *end;

	if (word == NULL) {
		return false;
	}
	*number = strtod(word, &end);
	return end != word && *end == '\0' && *number > 0 && *number <= max;
}

int console_top(struct console *c, char **words, int count)
{
	struct top t = {.console = c, .screen.interval_s = INTERVAL_S};
	double number = 0;
	int rc;

	for (int i = 0; i < count; i++) {
		const char *value = i + 1 < count ? words[i + 1] : NULL;

		if (strcmp(words[i], "-b") == 0) {
			t.batch = true;
		} else if (strcmp(words[i], "-n") == 0 && parse_number(value, COUNT_MAX, &number)) {
			t.count = (unsigned long)number;
			i++;
		} else if (strcmp(words[i], "-d") == 0 &&
			   parse_number(value, INTERVAL_MAX_S, &t.screen.interval_s)) {
			i++;
		} else {
			return usage();
		}
	}
	if (t.batch || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO)) {
		t.count = t.count == 0 ? 1 : t.count;
		rc = run_batch(&t);
	} else {
		rc = run_live(&t);
	}
	top_sample_free(&t.now);
	top_sample_free(&t.before);
	return rc;
}
