/*
 * A console's side of a control session: a script (fuzz_input.h) of command lines, with the actions
 * in act(). The program is that of the unit tests: two schedulers with some mail, stepped by hand.
 *
 * Each line gets one answer, which is one line of JSON and says whether it is an error; what
 * follows an answer is not looked at before it was given.
 */
#include <errno.h>

#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/net.h"
#include "tests/unit/control_world.h"

#define SETTLE_STEPS 24

/* One conversation. */
static struct talk {
	struct net net;
	/* Bytes of an answer that is not complete. */
	char *answer;
	size_t answer_len;
	unsigned answers;
	unsigned lines;
	bool broken;
} talk;

static void check_answer(const char *line, size_t len)
{
	json_error_t error;
	json_t *answer = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	const json_t *ok = json_object_get(answer, "ok");

	if (answer == NULL) {
		fprintf(stderr, "%s in: %.*s\n", error.text, (int)len, line);
	}
	FUZZ_CHECK(answer != NULL && json_is_boolean(ok));
	FUZZ_CHECK(json_object_size(answer) == 2);
	if (json_is_true(ok)) {
		FUZZ_CHECK(json_object_get(answer, "result") != NULL);
	} else {
		FUZZ_CHECK(json_is_string(json_object_get(answer, "error")));
	}
	json_decref(answer);
	talk.answers++;
}

static void on_sent(void *context, const unsigned char *data, size_t len)
{
	const char *lf;
	char *line;

	(void)context;
	talk.answer = realloc(talk.answer, talk.answer_len + len + 1);
	FUZZ_CHECK(talk.answer != NULL);
	memcpy(talk.answer + talk.answer_len, data, len);
	talk.answer_len += len;
	for (line = talk.answer;
	     (lf = memchr(line, '\n', talk.answer_len - (size_t)(line - talk.answer))) != NULL;
	     line = talk.answer + (lf - talk.answer) + 1) {
		check_answer(line, (size_t)(lf - line));
	}
	talk.answer_len -= (size_t)(line - talk.answer);
	memmove(talk.answer, line, talk.answer_len);
}

static void say(const unsigned char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		talk.lines += data[i] == '\n';
	}
	net_say(&talk.net, data, len);
}

/* Any other letter only ends a piece. */
static void act(unsigned action)
{
	switch (action) {
	case 'w':
		talk.net.out_stalled = !talk.net.out_stalled;
		break;
	case 't':
		talk.broken = true;
		pass_s(61);
		break;
	case 'c':
		talk.net.in_end = true;
		talk.broken = true;
		break;
	case 'r':
		talk.net.in_error = -ECONNRESET;
		talk.broken = true;
		break;
	case 's':
		talk.net.out_error = -EPIPE;
		talk.broken = true;
		break;
	case 'q':
		control_listener.stop(&world->schedulers[0], world->control, false);
		talk.broken = true;
		break;
	default:
		break;
	}
	step(SETTLE_STEPS);
}

static void begin(void)
{
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	set_up(NULL);
	queue_mail("example.net", 3, 0);
	queue_mail("example.net", 1, 3600);
	queue_mail("example.org", 2, 60);
	/* The connection that the world came with is not needed. */
	close(world->client);
	step(SETTLE_STEPS);
	memset(&talk, 0, sizeof(talk));
	talk.net.on_sent = on_sent;
	talk.net.close_fds = true;
	net_install(&talk.net, world->program.runtime.groups[0]);
	world->client = connect_client();
	step(2);
}

/* All lines are answered, if the session was left in peace and no line was too long. */
static void finish(void)
{
	talk.net.out_stalled = false;
	for (unsigned i = 0; i < 200 && talk.answers < talk.lines && talk.net.closed == 0; i++) {
		step(SETTLE_STEPS);
	}
	FUZZ_CHECK(talk.answers <= talk.lines + 1);
	FUZZ_CHECK(talk.broken || talk.net.closed != 0 || talk.answers == talk.lines);
	FUZZ_CHECK(talk.broken || talk.answer_len == 0);
	talk.net.in_end = true;
	step(SETTLE_STEPS);
	talk.net.in_len = 0;
	FUZZ_CHECK(talk.net.closed == 1);
	tear_down(NULL);
	free(talk.answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct fuzz_step s;

	begin();
	while (fuzz_step(&in, &s)) {
		if (s.len > 0) {
			say(s.data, s.len);
		} else {
			act(s.action);
		}
	}
	step(SETTLE_STEPS);
	finish();
	return 0;
}
