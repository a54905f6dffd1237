/*
 * The ownership checks of debug builds: who touches what belongs to another agent ends the program,
 * with both names. Release builds have none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/runtime/agent.h"

struct thing {
	OWNER_FIELD
	int value;
};

static struct agent first = {.id = 0, .name = "first"};
static struct agent second = {.id = 1, .name = "second"};
static struct agent *const agents[] = {&first, &second};

static void touch(struct thing *t)
{
	OWNER_CHECK(t);
	t->value++;
}

/* What a child that runs `body` printed on stderr; true when it came to its end. */
static bool survives(void (*body)(void), char *text, size_t size)
{
	int pipes[2];
	int status = 0;
	size_t len = 0;
	ssize_t n;
	pid_t child;

	assert_int_equal(pipe(pipes), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		dup2(pipes[1], STDERR_FILENO);
		body();
		_exit(0);
	}
	close(pipes[1]);
	while (len < size - 1 && (n = read(pipes[0], text + len, size - 1 - len)) > 0) {
		len += (size_t)n;
	}
	text[len] = '\0';
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void owner_touches(void)
{
	struct thing t = {.value = 0};

	first.runtime_agents = agents;
	agent_current = &first;
	OWNER_CLAIM(&t);
	touch(&t);
}

static void stranger_touches(void)
{
	struct thing t = {.value = 0};

	second.runtime_agents = agents;
	agent_current = &first;
	OWNER_CLAIM(&t);
	agent_current = &second;
	touch(&t);
}

static void handed_over_properly(void)
{
	struct thing t = {.value = 0};

	agent_current = &first;
	OWNER_CLAIM(&t);
	OWNER_RELEASE(&t);
	agent_current = &second;
	OWNER_CLAIM(&t);
	touch(&t);
}

static void test_owner_may_touch(void **state)
{
	char text[1024];

	(void)state;
	assert_true(survives(owner_touches, text, sizeof text));
	assert_true(survives(handed_over_properly, text, sizeof text));
}

static void test_stranger_ends_the_program_in_debug_builds(void **state)
{
	char text[1024];
	bool survived = survives(stranger_touches, text, sizeof text);

	(void)state;
#ifdef FLYWHEEL_DEBUG
	assert_false(survived);
	assert_non_null(strstr(text, "belongs to agent first, touched by second"));
#else
	assert_true(survived);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owner_may_touch),
		cmocka_unit_test(test_stranger_ends_the_program_in_debug_builds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
