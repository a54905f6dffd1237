/*
 * People at the console: sessions of some commands each, at random times, and signals. Every
 * command of a whole session is answered by one line of JSON; an end or silence instead is a
 * failure, unless the program turns out to have been stopping.
 */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "tests/sim/actors.h"
#include "tests/sim/books.h"
#include "tests/sim/kernel.h"
#include "tests/sim/net.h"
#include "tests/sim/pace_wrap.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

#define COMMANDS_MAX 16384
#define ANSWER_FIRST 4096
/* What a walk looks at in one step, at most. */
#define STEP_MAX 10
/* Walks that look on while the number of schedulers changes. */
#define WALKS 12
#define SILENCE_NS (90 * NS_PER_S)
/* A stop is over by then. */
#define VERDICT_NS (90 * NS_PER_S)
#define LOOK_NS (1 * NS_PER_S)
/* What was recovered, or was under way, when all was released: so many looks later it is released,
 * too. */
#define LOOKS_RELEASE 10

struct operators {
	struct scenario *scenario;
	/* Commands and signals that may still be given. */
	uint32_t orders;
	uint32_t sessions;
	uint32_t life_calmed;
	/* Looks since then. */
	uint32_t looks;
	char complaint[256];
};

struct session {
	struct operators *all;
	struct net_end *end;
	uint32_t life;
	/* Answers that must come; the rest is nonsense, or is left in the middle of it. */
	uint32_t expected;
	bool careless;
	char text[COMMANDS_MAX];
	size_t text_len;
	size_t sent;
	/* The answer that is being read. */
	char *answer;
	size_t answer_len;
	size_t answer_room;
};

/* ---- the pace of their walks through queues ---- */

/* Drawn, as the world has no CPU time. What there is to look at is little, and so is a step. */
int __wrap_pace_begin(struct pace *p, uint64_t mono_ns, uint64_t cpu_ns)
{
	(void)mono_ns;
	(void)cpu_ns;
	p->rests = world_chance(700);
	return (int)world_between(1, STEP_MAX);
}

/* ---- commands ---- */

static void say(struct session *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A command that is answered. */
static void say(struct session *n, const char *format, ...)
{
	size_t room = sizeof(n->text) - n->text_len;
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(n->text + n->text_len, room, format, args);
	va_end(args);
	if (len < 0 || (size_t)len + 1 >= room) {
		world_fail("operator: a session says too much");
	}
	n->text_len += (size_t)len;
	n->text[n->text_len++] = '\n';
	n->expected++;
}

static const char *any_domain(const struct session *n)
{
	const struct scenario *s = n->all->scenario;

	if (world_chance(50)) {
		return world_chance(500) ? "D0.TEST." : "never.test";
	}
	return s->domains[world_below(s->domain_count)].name;
}

/* Not `memory` itself: it tells the sizes of structs, in which builds differ, and runs must not. */
static void say_look(struct session *n)
{
	static const char *const looks[] = {
		"summary",
		"domains",
		"domain all",
		"active 0",
		"delayed 1",
		"mailq",
		"mailq 3",
		"threads",
		"counters",
		"counters scheduler.*",
		"errors",
		"memory much",
		"version",
		"help",
		"help flush domain",
		"",
		"nonsense",
		"flush",
		"\"x",
		"active many",
		"dig d0.test MX",
		"dig mx1.d1.test. A",
		"dig d0.test WHAT",
		"dns_cache stats",
		"dns_cache lookup d0.test mx",
		"dns_cache flush",
		"dns_cache flush",
	};

	say(n, "%s", looks[world_below(sizeof(looks) / sizeof(looks[0]))]);
}

static void say_message(struct session *n)
{
	char id[MESSAGE_ID_TEXT];
	bool quiet = world_chance(300);

	if (!books_pick_id(world->books, id)) {
		say(n, "message 00000000000000000000000000");
	} else if (world_chance(600)) {
		say(n, "message %s%s", id, world_chance(500) ? " full" : "");
	} else if (world_chance(700)) {
		say(n, "message retry %s", id);
	} else {
		books_fail_ordered(world->books, NULL, id, quiet);
		say(n, "message fail %s%s", id, quiet ? " quiet" : "");
	}
}

static void say_domain(struct session *n)
{
	const char *name = any_domain(n);
	bool quiet = world_chance(300);

	switch (world_below(10)) {
	case 0:
	case 1:
		say(n, "domain %s", name);
		break;
	case 2:
	case 3:
		say(n, "flush domain %s", world_chance(300) ? "all" : name);
		break;
	case 4:
	case 5:
		say(n, "suspend domain %s", name);
		break;
	case 6:
	case 7:
	case 8:
		say(n, "resume domain %s", name);
		break;
	default:
		if (world_chance(300)) {
			books_fail_ordered(world->books, name, NULL, quiet);
			say(n, "fail domain %s%s", name, quiet ? " quiet" : "");
		}
		break;
	}
}

static void say_binding(struct session *n)
{
	const struct scenario *s = n->all->scenario;
	uint32_t which = (uint32_t)world_below(s->binding_count);
	const char *name = s->bindings[which].name;
	const char *domain = any_domain(n);

	switch (world_below(10)) {
	case 0:
		say(n, "bindings%s", world_chance(300) ? " " SCENARIO_GROUP : "");
		break;
	case 1:
		say(n, "binding %s", name);
		break;
	case 2:
		say(n, "domain %s %s", domain, name);
		break;
	case 3:
		say(n, "flush binding %s", name);
		break;
	case 4:
		say(n, "%s domain %s %s", world_chance(500) ? "suspend" : "resume", domain, name);
		break;
	case 5:
		say(n, "mailq %s", name);
		break;
	case 6:
	case 7:
		books_binding_ordered(world->books, which);
		say(n, "suspend binding %s", name);
		break;
	default:
		books_binding_ordered(world->books, which);
		say(n, "resume binding %s", name);
		break;
	}
}

/* What mail is meant: by what is in memory, and by what the spool has to be read for. */
static const char *any_selector(void)
{
	static const char *const all[] = {
		"all",
		"state held",
		"state delayed",
		"older 2s",
		"newer 30s",
		"attempts 1",
		"larger 2K",
		"text *4*",
		"recipient *1*@*",
		"sender @*",
		"sender <>",
		"header X-Sim *1*",
		"binding default",
		"header X-Sim 7*",
		"domain d*.test",
	};

	return all[world_below(sizeof(all) / sizeof(all[0]))];
}

static const char *dry(void)
{
	return world_chance(200) ? " dry_run" : "";
}

/* The orders that can fail or move mail name a domain, for the books. */
static void say_selection(struct session *n)
{
	const struct scenario *s = n->all->scenario;
	const char *name = any_domain(n);
	const char *binding = s->bindings[world_below(s->binding_count)].name;
	bool quiet = world_chance(300);

	switch (world_below(12)) {
	case 0:
	case 1:
		say(n, "find %s%s", any_selector(), world_chance(500) ? " limit 3" : "");
		break;
	case 2:
		say(n, "mailq 5 %s", any_selector());
		break;
	case 3:
		say(n, "hold domain %s newer 10s%s", name, dry());
		break;
	case 4:
	case 5:
		say(n, "hold %s%s", any_selector(), dry());
		break;
	case 6:
		say(n, "release domain %s%s", name, dry());
		break;
	case 7:
	case 8:
		say(n, "release %s%s", any_selector(), dry());
		break;
	case 9:
		if (world_chance(300)) {
			books_fail_ordered(world->books, name, NULL, quiet);
			say(n, "fail domain %s recipient *%u*%s", name, (unsigned)world_below(10),
			    quiet ? " quiet" : "");
		}
		break;
	default:
		if (s->rebinds) {
			books_rebind_ordered(world->books, name);
			say(n, "rebind domain %s attempts %u to %s%s", name,
			    (unsigned)world_between(1, 2), binding, dry());
			say(n, "rebind domain %s newer 1d to %s%s", name, binding, dry());
		}
		break;
	}
}

/* Limits become narrower, queues are suspended, or the file is wrong: what the books know holds,
 * and say_calm() puts an end to it. */
static void say_reload(struct session *n)
{
	char more[SCENARIO_MORE_MAX] = "";
	size_t len = 0;
	uint32_t count = (uint32_t)world_between(1, 3);
	const struct scenario *s = n->all->scenario;

	for (uint32_t i = 0; i < count; i++) {
		len += (size_t)snprintf(more + len, sizeof(more) - len,
					"\ndomain \"%s\" { max_outbound_connections = 1 "
					"retry_interval = %us suspend_delivery = %s }\n",
					s->domains[world_below(s->domain_count)].name,
					(unsigned)world_between(1, 3),
					world_chance(300) ? "true" : "false");
	}
	if (world_chance(300)) {
		snprintf(more + len, sizeof(more) - len, "nonsense = 1\n");
	}
	scenario_write_config(n->all->scenario, world_chance(300) ? "" : more);
	say(n, "config reload");
	say(n, "config status");
}

/* Only in a life that is followed by another one. */
static bool may_shut_down(const struct scenario *s)
{
	return s->stops && s->begun <= s->lives && world_chance(10);
}

static void say_any(struct session *n)
{
	switch (world_below(6)) {
	case 0:
		say_message(n);
		break;
	case 5:
		say_selection(n);
		break;
	case 4:
		say_binding(n);
		break;
	case 1:
	case 2:
		say_domain(n);
		break;
	default:
		if (world_chance(150)) {
			say_reload(n);
		} else if (world_chance(50)) {
			say(n, "reopen logs");
		} else if (may_shut_down(n->all->scenario)) {
			say(n, "shutdown");
			n->careless = true;
		} else {
			say_look(n);
		}
		break;
	}
}

/* What is no command, and a line without an end. */
static void say_nonsense(struct session *n)
{
	size_t len = (size_t)world_below(world_chance(200) ? 9000 : 60);

	n->careless = true;
	for (size_t i = 0; i < len && n->text_len < sizeof(n->text); i++) {
		n->text[n->text_len++] = (char)world_below(256);
	}
}

/* Resumes and flushes everything. */
static void say_calm(struct session *n)
{
	const struct scenario *s = n->all->scenario;

	scenario_write_config(s, "");
	say(n, "config reload");
	for (uint32_t i = 0; i < s->domain_count; i++) {
		say(n, "resume domain %s", s->domains[i].name);
	}
	for (uint32_t i = 0; i < s->binding_count; i++) {
		books_binding_ordered(world->books, i);
		say(n, "resume binding %s", s->bindings[i].name);
	}
	say(n, "release all");
	say(n, "flush domain all");
}

/* ---- a session ---- */

static void on_verdict(void *object, uint64_t life)
{
	const struct operators *all = object;

	if (world->life == life) {
		world_fail("the console %s", all->complaint);
	}
}

/* It is a failure if the program lives on. */
static void complain(struct session *n, const char *what)
{
	struct operators *all = n->all;

	if (n->careless || n->expected == 0 || n->life != world->life) {
		return;
	}
	snprintf(all->complaint, sizeof(all->complaint), "%s with %u answers to come, at %.3f s",
		 what, n->expected, (double)world->now_ns / 1e9);
	world_at(VERDICT_NS, on_verdict, all, n->life);
}

static void session_end(struct session *n)
{
	net_close(n->end);
	n->all->sessions--;
	world_forget(n);
	world_free(n->answer, n->answer_room);
	world_free(n, sizeof(*n));
}

static void on_silence(void *object, uint64_t value)
{
	struct session *n = object;

	(void)value;
	complain(n, "is silent");
	session_end(n);
}

static void check_answer(struct session *n)
{
	json_error_t error;
	json_t *v = json_loadb(n->answer, n->answer_len, 0, &error);

	if (v == NULL || !json_is_boolean(json_object_get(v, "ok")) ||
	    json_object_get(v, json_is_true(json_object_get(v, "ok")) ? "result" : "error") ==
		    NULL) {
		world_fail("the console answers: %.*s",
			   (int)(n->answer_len < 500 ? n->answer_len : 500), n->answer);
	}
	json_decref(v);
	n->answer_len = 0;
	if (n->expected > 0) {
		n->expected--;
	} else if (!n->careless) {
		world_fail("the console answers more than it was asked");
	}
}

static void add_answer(struct session *n, char c)
{
	if (n->answer_len == n->answer_room) {
		size_t room = n->answer_room == 0 ? ANSWER_FIRST : n->answer_room * 2;
		char *all = world_alloc(room);

		memcpy(all, n->answer != NULL ? n->answer : "", n->answer_len);
		world_free(n->answer, n->answer_room);
		n->answer = all;
		n->answer_room = room;
	}
	n->answer[n->answer_len++] = c;
}

/* False when there will be no more. */
static bool session_read(struct session *n)
{
	char data[4096];
	ssize_t len;

	while ((len = net_read(n->end, data, sizeof(data))) > 0) {
		for (ssize_t i = 0; i < len; i++) {
			if (data[i] == '\n') {
				check_answer(n);
			} else {
				add_answer(n, data[i]);
			}
		}
	}
	return len == -EAGAIN;
}

static void session_send(struct session *n)
{
	while (n->sent < n->text_len) {
		ssize_t len = net_send(n->end, n->text + n->sent, n->text_len - n->sent);

		if (len <= 0) {
			return;
		}
		n->sent += (size_t)len;
	}
}

static void on_event(struct net_end *end, int events, void *context)
{
	struct session *n = context;

	(void)end;
	if ((events & (NET_CONNECTED | NET_WRITABLE)) != 0) {
		session_send(n);
	}
	if ((events & NET_BROKEN) != 0 || ((events & NET_READABLE) != 0 && !session_read(n))) {
		complain(n, "hangs up");
		session_end(n);
	} else if (n->expected == 0 && n->sent == n->text_len &&
		   (!n->careless || world_chance(500))) {
		session_end(n);
	} else if (n->careless && world_chance(200)) {
		session_end(n);
	}
}

static struct session *session_new(struct operators *all)
{
	struct session *n = world_alloc(sizeof(*n));

	n->all = all;
	n->life = world->life;
	return n;
}

static void session_begin(struct session *n)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = SCENARIO_CONTROL};

	n->all->sessions++;
	world_trace("operator", n->expected, n->text_len);
	world_say("operator: %.*s", (int)(n->careless ? 0 : n->text_len), n->text);
	n->end = net_connect(world->net, NET_ACTOR, (const struct sockaddr *)&to, sizeof(to), NULL,
			     on_event, n);
	world_at(SILENCE_NS, on_silence, n, 0);
}

/* ---- when ---- */

static void give_orders(struct operators *all)
{
	struct session *n = session_new(all);
	unsigned count = (unsigned)world_between(1, 6);

	for (unsigned i = 0; i < count && all->orders > 0; i++) {
		say_any(n);
		all->orders--;
	}
	if (world_chance(100)) {
		say_nonsense(n);
	}
	n->careless = n->careless || world_chance(100);
	session_begin(n);
}

/* They look at all mail, again and again. */
void operators_crew_changes(void)
{
	struct operators *all = world->operators;
	struct session *n;

	if (!all->scenario->operators || !world_chance(500)) {
		return;
	}
	n = session_new(all);
	for (unsigned i = 0; i < WALKS; i++) {
		say(n, "find all limit 1");
	}
	session_begin(n);
}

/* Once in each life; what was ordered before must have been carried out. */
static void calm_down(struct operators *all)
{
	struct session *n;

	if (all->sessions > 0) {
		return;
	}
	if (all->life_calmed == world->life) {
		all->looks++;
		if (all->looks % LOOKS_RELEASE != 0) {
			return;
		}
		n = session_new(all);
		say(n, "release all");
		session_begin(n);
		return;
	}
	all->life_calmed = world->life;
	n = session_new(all);
	say_calm(n);
	session_begin(n);
}

static void on_time(void *object, uint64_t life)
{
	struct operators *all = object;

	if (life != world->life) {
		return;
	}
	if (world->calm) {
		calm_down(all);
		world_at(LOOK_NS, on_time, all, life);
		return;
	}
	if (all->orders > 0 && world_chance(50)) {
		all->orders--;
		kernel_signal(world_chance(700) ? SIGHUP : SIGUSR1);
	} else if (all->orders > 0) {
		give_orders(all);
	}
	world_at(world_between(1, 1 + all->scenario->life_ns / 4), on_time, all, life);
}

void operators_create(struct scenario *s)
{
	struct operators *all = world_alloc(sizeof(*all));

	all->scenario = s;
	all->orders = s->orders;
	world->operators = all;
}

void operators_life_began(void)
{
	struct operators *all = world->operators;

	if (all->scenario->operators) {
		world_at(world_below(20 * NS_PER_MS), on_time, all, world->life);
	}
}
