/*
 * What is done in place by functions in the pool: that it leaves nothing behind when their memory
 * is full.
 */
#include <fcntl.h>

#include "tests/unit/policy_world.h"

#define FILE_BYTES (3 << 20)

static char path[64];

static int set_up_file(void **state)
{
	int fd;

	snprintf(path, sizeof(path), "/tmp/flywheel-test_lib_wait.%d", (int)getpid());
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
	close(fd);
	return set_up(state);
}

static int tear_down_file(void **state)
{
	remove(path);
	return tear_down(state);
}

/* A leak is for AddressSanitizer to tell. */
static void test_file_that_has_no_room_is_let_go(void **state)
{
	char code[512];

	(void)state;
	load("");
	/* Its text needs more of the memory than another text leaves. */
	snprintf(code, sizeof(code),
		 "good, why, n = msys.runInPool('IO', function() local full = ('x'):rep(%d) "
		 "local good, why = pcall(msys.readfile, '%s') "
		 "if good then return 'it has room' end return why, #full end) print(good, why, n)",
		 MEMORY_BYTES / 4, path);
	ask(code);
	work_all();
	assert_printed("true\tnot enough memory\t1048576;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_file_that_has_no_room_is_let_go, set_up_file,
						tear_down_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
