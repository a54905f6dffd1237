#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/runtime/affinity.h"

/* A cgroup tree of the test's own. */
struct tree {
	char root[64];
	char file[96];
};

static void tree_write(const struct tree *t, const char *path, const char *text)
{
	char full[256];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", t->root, path);
	for (char *p = full + strlen(t->root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
		*p = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void tree_make(struct tree *t, const char *cgroups)
{
	snprintf(t->root, sizeof(t->root), "/tmp/test_affinity.XXXXXX");
	assert_non_null(mkdtemp(t->root));
	snprintf(t->file, sizeof(t->file), "%s/self", t->root);
	tree_write(t, "self", cgroups);
}

static void tree_remove(const struct tree *t)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", t->root);
	assert_int_equal(system(command), 0);
}

static void test_parse_list_when_valid(void **state)
{
	(void)state;
	assert_int_equal(affinity_parse_list("0"), 1);
	assert_int_equal(affinity_parse_list("0-3,5"), 5);
	assert_int_equal(affinity_parse_list("0-3,5\n"), 5);
	assert_int_equal(affinity_parse_list("1,3,4,5-19"), 18);
	assert_int_equal(affinity_parse_list("7-7"), 1);
	assert_int_equal(affinity_parse_list("0-1023"), 1024);
	/* A core counts once. */
	assert_int_equal(affinity_parse_list("0-3,2-4,2"), 5);
}

static void test_parse_list_when_it_is_none(void **state)
{
	static const char *const wrong[] = {
		"",      "\n",      "a",    "1,",     ",1",   "1-",
		"-1",    "3-1",     "1 2",  "0-1024", "1024", "99999999999999999999",
		"1-2-3", "0-3:1/2", "1\n2", "1,,2",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(affinity_parse_list(wrong[i]), -EINVAL);
	}
}

static void test_quota_when_v2_limits_self_or_a_parent(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "0::/a/b\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "a/b/cpu.max", "max 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "a/b/cpu.max", "250000 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 3);
	tree_write(&t, "a/cpu.max", "150000 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 2);
	tree_write(&t, "cpu.max", "1000 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 1);
	tree_write(&t, "cpu.max", "400000 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 2);
	tree_remove(&t);
}

/* Inside a container the path of the host is named but only its root is mounted. */
static void test_quota_when_only_the_root_is_mounted(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "0::/system.slice/docker-1234.scope\n");
	tree_write(&t, "cpu.max", "50000 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 1);
	tree_remove(&t);
}

static void test_quota_when_v1(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "12:cpuset:/x\n4:cpu,cpuacct:/x/y\n1:name=systemd:/z\n0::/\n");
	tree_write(&t, "cpu,cpuacct/x/y/cpu.cfs_period_us", "100000\n");
	tree_write(&t, "cpu,cpuacct/x/y/cpu.cfs_quota_us", "-1\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "cpu,cpuacct/x/cpu.cfs_quota_us", "600000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 6);
	tree_write(&t, "cpu,cpuacct/x/y/cpu.cfs_quota_us", "100001\n");
	assert_int_equal(affinity_quota(t.file, t.root), 2);
	tree_remove(&t);
}

/* cpuset or cpuacct alone are other controllers. */
static void test_quota_when_hybrid_or_other_controllers(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "3:cpuset:/\n2:cpuacct:/\n0::/s\n");
	tree_write(&t, "cpuset/cpu.cfs_quota_us", "100000\n");
	tree_write(&t, "cpuset/cpu.cfs_period_us", "100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "unified/s/cpu.max", "300000 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 3);
	tree_remove(&t);
}

static void test_quota_when_files_make_no_sense(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "nonsense\n0\n0:\n\n0::/\n");
	tree_write(&t, "cpu.max", "");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "cpu.max", "100000 0\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "cpu.max", "-5 100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	tree_write(&t, "cpu.max", "100000\n");
	assert_int_equal(affinity_quota(t.file, t.root), 0);
	assert_int_equal(affinity_quota("/nonexistent", t.root), 0);
	tree_remove(&t);
}

static void test_usable_when_on_this_machine(void **state)
{
	struct usable_cores u = affinity_usable();

	(void)state;
	assert_true(u.cores >= 1);
	assert_true(u.usable >= 1 && u.usable <= u.cores);
	assert_int_equal(u.usable, u.quota < u.cores ? u.quota : u.cores);
	assert_int_equal(u.limited, u.quota < u.cores);
}

static int first_core(void)
{
	cpu_set_t set;

	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	for (int core = 0; core < CPU_SETSIZE; core++) {
		if (CPU_ISSET((size_t)core, &set)) {
			return core;
		}
	}
	return -1;
}

/* What a thread found; the assertions are for the test's own thread. */
struct pinned {
	int core;
	int result;
	cpu_set_t set;
	unsigned usable;
};

static void *pin_thread(void *context)
{
	struct pinned *p = context;

	p->result = affinity_pin(p->core);
	CPU_ZERO(&p->set);
	(void)sched_getaffinity(0, sizeof(p->set), &p->set);
	p->usable = affinity_usable().cores;
	return NULL;
}

static void test_pin_when_core_is_usable(void **state)
{
	struct pinned p = {.core = first_core()};
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, pin_thread, &p), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(p.result, 0);
	assert_int_equal(CPU_COUNT(&p.set), 1);
	assert_true(CPU_ISSET((size_t)p.core, &p.set));
	assert_int_equal(p.usable, 1);
}

static void test_pin_when_core_is_not_usable(void **state)
{
	(void)state;
	assert_int_equal(affinity_pin(-1), -EINVAL);
	assert_int_equal(affinity_pin(CPU_SETSIZE), -EINVAL);
	assert_int_equal(affinity_pin(CPU_SETSIZE - 1), -EINVAL);
}

struct named {
	char name[16];
	int slack_ns;
};

static void *name_thread(void *context)
{
	struct named *n = context;

	affinity_name_thread("a-name-that-is-too-long");
	(void)pthread_getname_np(pthread_self(), n->name, sizeof(n->name));
	n->slack_ns = prctl(PR_GET_TIMERSLACK);
	return NULL;
}

static void test_name_thread_when_name_is_long(void **state)
{
	struct named n = {.slack_ns = -1};
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, name_thread, &n), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(n.name, "a-name-that-is-");
	assert_int_equal(n.slack_ns, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_list_when_valid),
		cmocka_unit_test(test_parse_list_when_it_is_none),
		cmocka_unit_test(test_quota_when_v2_limits_self_or_a_parent),
		cmocka_unit_test(test_quota_when_only_the_root_is_mounted),
		cmocka_unit_test(test_quota_when_v1),
		cmocka_unit_test(test_quota_when_hybrid_or_other_controllers),
		cmocka_unit_test(test_quota_when_files_make_no_sense),
		cmocka_unit_test(test_usable_when_on_this_machine),
		cmocka_unit_test(test_pin_when_core_is_usable),
		cmocka_unit_test(test_pin_when_core_is_not_usable),
		cmocka_unit_test(test_name_thread_when_name_is_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
