/*
 * fwhostile: many clients at once that behave badly in one way, and stay. Says what became of
 * them. One thread, one edge-triggered epoll; see perf/README.md. Start reading at on_ready().
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "perf/endpoint.h"
#include "perf/moment.h"
#include "perf/number.h"
#include "perf/text.h"

static const char help[] =
	"Usage: fwhostile [OPTION]...\n"
	"Open many connections to an SMTP server on a loopback address, be a bad client on each, and\n"
	"stay until the server ends them or SIGTERM comes.\n"
	"\n"
	"  --to HOST:PORT         the server (default 127.0.0.1:2525); an IPv4 address\n"
	"  --connections N        how many (default 1000)\n"
	"  --sources N            from so many addresses, 127.1.0.1 and on, in turn (default 1)\n"
	"  --kind KIND            what is bad about them (default idle):\n"
	"      idle               say nothing after the greeting\n"
	"      slow-commands      a command line, one byte at a time, without end\n"
	"      slow-data          a message, one byte at a time, without end\n"
	"      stop-in-data       a message of which --size bytes are sent, and no more\n"
	"      stop-in-envelope   --size recipients, and no more\n"
	"      deaf               commands as fast as they are taken; replies are never read\n"
	"  --size N               see there (default 1000; k and m stand for 1024 and 1024 * 1024)\n"
	"  --interval MS          between two bytes of a slow connection (default 200)\n"
	"  --stats-file FILE      write the counts as JSON, ten times a second while they change\n"
	"  --help                 this text\n"
	"\n"
	"Counts: opened, failed (no connection), open, settled (said all that it will, or with slow and\n"
	"deaf kinds: has begun), closed (by the server), replies by code, sent_bytes.\n"
	"\n"
	"Exit status: 0; 2 for wrong use or a failure.\n";

enum kind { IDLE, SLOW_COMMANDS, SLOW_DATA, STOP_IN_DATA, STOP_IN_ENVELOPE, DEAF, KINDS };

static const char *const kind_names[KINDS] = {"idle",         "slow-commands",    "slow-data",
					      "stop-in-data", "stop-in-envelope", "deaf"};

/* What is said first, each line when the one before was answered; then the kind's own. */
static const char *const openings[KINDS][5] = {
	[SLOW_DATA] = {"EHLO bad.test\r\n", "MAIL FROM:<bad@bad.test>\r\n",
		       "RCPT TO:<to@good.test>\r\n", "DATA\r\n"},
	[STOP_IN_DATA] = {"EHLO bad.test\r\n", "MAIL FROM:<bad@bad.test>\r\n",
			  "RCPT TO:<to@good.test>\r\n", "DATA\r\n"},
	[STOP_IN_ENVELOPE] = {"EHLO bad.test\r\n", "MAIL FROM:<bad@bad.test>\r\n"},
	[DEAF] = {"EHLO bad.test\r\n"},
};

struct client {
	int fd;
	/* Openings said. */
	unsigned step;
	/* Code of the reply line being read, and its bytes so far. */
	unsigned code;
	unsigned column;
	bool more;
	/* The opening is over; all was said, or this will never be. */
	bool begun;
	bool settled;
	/* What the kind sends: bytes, or recipients, so far. */
	uint64_t said;
	struct text output;
};

static struct {
	struct endpoint to;
	enum kind kind;
	unsigned connections;
	unsigned sources;
	uint64_t size;
	uint64_t interval_ns;
	const char *stats_file;
	struct client *clients;
	int epoll;
	unsigned started;
	unsigned opened;
	unsigned failed;
	unsigned open;
	unsigned settled;
	unsigned closed;
	uint64_t sent;
	uint64_t replies[1000];
	bool changed;
} run = {.connections = 1000, .sources = 1, .size = 1000, .interval_ns = 200 * NS_PER_MS};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

/* ---- counts ---- */

static void write_stats(void)
{
	struct text t = {0};
	const char *comma = "";

	if (run.stats_file == NULL || !run.changed) {
		return;
	}
	run.changed = false;
	text_printf(&t,
		    "{\"opened\": %u, \"failed\": %u, \"open\": %u, \"settled\": %u, "
		    "\"closed\": %u, \"sent_bytes\": %llu, \"replies\": {",
		    run.opened, run.failed, run.open, run.settled, run.closed,
		    (unsigned long long)run.sent);
	for (unsigned code = 0; code < 1000; code++) {
		if (run.replies[code] != 0) {
			text_printf(&t, "%s\"%u\": %llu", comma, code,
				    (unsigned long long)run.replies[code]);
			comma = ", ";
		}
	}
	text_printf(&t, "}}\n");
	text_write_file(&t, run.stats_file);
	text_free(&t);
}

/* ---- one client ---- */

static void client_close(struct client *c)
{
	close(c->fd);
	c->fd = -1;
	text_free(&c->output);
	run.open--;
	run.closed++;
	run.changed = true;
}

static void settle(struct client *c)
{
	if (!c->settled) {
		c->settled = true;
		run.settled++;
		run.changed = true;
	}
}

/* More of what the kind says, when all before has gone; false when that was all. */
static bool say_more(struct client *c)
{
	uint64_t n;

	switch (run.kind) {
	case STOP_IN_DATA:
		n = run.size - c->said < 65520 ? run.size - c->said : 65520;
		for (uint64_t i = 0; i < n; i++) {
			text_append(&c->output, &"0123456789abcde\r\n"[(c->said + i) % 17], 1);
		}
		c->said += n;
		return n > 0;
	case STOP_IN_ENVELOPE:
		for (n = 0; n < 100 && c->said < run.size; n++, c->said++) {
			text_printf(&c->output, "RCPT TO:<%060llu@%060d.%060d.%050d.good.test>\r\n",
				    (unsigned long long)c->said, 0, 0, 0);
		}
		return n > 0;
	case DEAF:
		for (n = 0; n < 1000; n++) {
			text_append_string(&c->output, "HELP\r\n");
		}
		return true;
	default:
		return false;
	}
}

/* False when the connection is over. */
static bool client_send(struct client *c)
{
	for (;;) {
		ssize_t n;

		if (c->output.len == 0 && !(c->begun && say_more(c))) {
			if (c->begun) {
				settle(c);
			}
			return true;
		}
		n = send(c->fd, c->output.data, c->output.len, MSG_NOSIGNAL);
		if (n < 0) {
			return errno == EAGAIN || errno == EINTR;
		}
		run.sent += (uint64_t)n;
		run.changed = true;
		text_consume(&c->output, (size_t)n);
	}
}

static void on_reply(struct client *c)
{
	const char *next = openings[run.kind][c->step];

	run.replies[c->code]++;
	run.changed = true;
	if (c->begun || c->code >= 400) {
		return;
	}
	if (next != NULL) {
		text_append_string(&c->output, next);
		c->step++;
	}
	/* What is never read needs no waiting for its reply. */
	if (next == NULL || run.kind == DEAF) {
		c->begun = true;
	}
	if (run.kind == DEAF) {
		settle(c);
	}
}

static void read_byte(struct client *c, char byte)
{
	if (c->column < 3 && byte >= '0' && byte <= '9') {
		c->code = c->code * 10 + (unsigned)(byte - '0');
	}
	if (c->column == 3) {
		c->more = byte == '-';
	}
	c->column++;
	if (byte == '\n') {
		if (!c->more) {
			on_reply(c);
		}
		c->column = 0;
		c->code = 0;
	}
}

static bool client_read(struct client *c)
{
	char data[4096];

	while (run.kind != DEAF || !c->begun) {
		ssize_t n = recv(c->fd, data, sizeof(data), 0);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			return false;
		}
		if (n < 0) {
			return true;
		}
		for (ssize_t i = 0; i < n; i++) {
			read_byte(c, data[i]);
		}
	}
	return true;
}

static void on_ready(struct client *c, uint32_t events)
{
	bool dead = (events & (EPOLLERR | EPOLLHUP)) != 0;

	if (!client_read(c) || !client_send(c) || dead) {
		client_close(c);
	}
}

static int client_socket(unsigned number)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	int small = 4096;
	int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		err(2, "socket");
	}
	from.sin_addr.s_addr = htonl(0x7f010001U + number % run.sources);
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (run.kind == DEAF) {
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	}
	if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) != 0) {
		err(2, "bind");
	}
	return fd;
}

static void client_open(unsigned number)
{
	struct client *c = &run.clients[number];
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.ptr = c};

	c->fd = client_socket(number);
	run.changed = true;
	if (connect(c->fd, (const struct sockaddr *)&run.to.address, run.to.len) != 0 &&
	    errno != EINPROGRESS) {
		close(c->fd);
		c->fd = -1;
		run.failed++;
		return;
	}
	run.opened++;
	run.open++;
	if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, c->fd, &e) != 0) {
		err(2, "epoll_ctl");
	}
}

/* ---- all of them ---- */

/* One byte on each slow connection; a line end now and then, but never "." alone on a line. */
static void drip(void)
{
	for (unsigned i = 0; i < run.started; i++) {
		struct client *c = &run.clients[i];

		if (c->fd < 0 || !c->begun) {
			continue;
		}
		text_append(&c->output,
			    run.kind == SLOW_DATA ? &"slowly\r\n"[c->said % 8]
						  : &"NOOP "[c->said < 5 ? c->said : 1],
			    1);
		c->said++;
		if (!client_send(c)) {
			client_close(c);
		}
	}
}

/* Not all at once: the server's queue of new connections is short. */
static void open_some(void)
{
	for (unsigned i = 0; i < 50 && run.started < run.connections; i++) {
		client_open(run.started++);
	}
}

static void loop(void)
{
	bool slow = run.kind == SLOW_COMMANDS || run.kind == SLOW_DATA;
	uint64_t drip_at = moment_ns() + run.interval_ns;
	uint64_t write_at = 0;

	while (!stop) {
		struct epoll_event events[256];
		int wait_ms = run.started < run.connections ? 1 : slow ? 5 : 100;
		int n = epoll_wait(run.epoll, events, 256, wait_ms);

		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;

			if (c->fd >= 0) {
				on_ready(c, events[i].events);
			}
		}
		open_some();
		if (slow && moment_ns() >= drip_at) {
			drip();
			drip_at = moment_ns() + run.interval_ns;
		}
		if (moment_ns() >= write_at) {
			write_stats();
			write_at = moment_ns() + 100 * NS_PER_MS;
		}
	}
}

/* ---- the command line ---- */

static uint64_t number(const char *option, const char *word, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (number_parse(word, min, max, &value) != 0) {
		errx(2, "--%s: \"%s\" is not a number from %llu to %llu", option, word,
		     (unsigned long long)min, (unsigned long long)max);
	}
	return value;
}

static void set_kind(const char *word)
{
	unsigned kind = 0;

	while (kind < KINDS && strcmp(kind_names[kind], word) != 0) {
		kind++;
	}
	if (kind == KINDS) {
		errx(2, "--kind: there is no \"%s\"", word);
	}
	run.kind = (enum kind)kind;
}

static void set_server(const char *word)
{
	if (endpoint_parse(&run.to, word) != 0 || run.to.address.ss_family != AF_INET) {
		errx(2, "--to: \"%s\" is no IPv4 loopback address with a port", word);
	}
}

static void parse_command_line(int argc, char **argv)
{
	static const struct option options[] = {
		{"to", required_argument, NULL, 't'},
		{"connections", required_argument, NULL, 'c'},
		{"sources", required_argument, NULL, 's'},
		{"kind", required_argument, NULL, 'k'},
		{"size", required_argument, NULL, 'z'},
		{"interval", required_argument, NULL, 'i'},
		{"stats-file", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int o;

	set_server("127.0.0.1:2525");
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 't':
			set_server(optarg);
			break;
		case 'c':
			run.connections = (unsigned)number("connections", optarg, 1, 1000000);
			break;
		case 's':
			run.sources = (unsigned)number("sources", optarg, 1, 60000);
			break;
		case 'k':
			set_kind(optarg);
			break;
		case 'z':
			run.size = number("size", optarg, 1, 1UL << 31);
			break;
		case 'i':
			run.interval_ns = number("interval", optarg, 1, 3600000) * NS_PER_MS;
			break;
		case 'f':
			run.stats_file = optarg;
			break;
		case 'h':
			fputs(help, stdout);
			exit(0);
		default:
			exit(2);
		}
	}
	if (optind < argc) {
		errx(2, "\"%s\" is not an option; --help tells", argv[optind]);
	}
}

static void prepare(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		if (limit.rlim_max < run.connections + 16UL) {
			errx(2, "--connections: only %lu descriptors are allowed",
			     (unsigned long)limit.rlim_max);
		}
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	run.epoll = epoll_create1(EPOLL_CLOEXEC);
	run.clients = calloc(run.connections, sizeof(*run.clients));
	if (run.epoll < 0 || run.clients == NULL) {
		err(2, "start");
	}
	for (unsigned i = 0; i < run.connections; i++) {
		run.clients[i].fd = -1;
	}
}

int main(int argc, char **argv)
{
	parse_command_line(argc, argv);
	prepare();
	loop();
	run.changed = true;
	write_stats();
	for (unsigned i = 0; i < run.connections; i++) {
		text_free(&run.clients[i].output);
	}
	free(run.clients);
	return 0;
}
