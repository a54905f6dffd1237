/* Keys of DKIM are read anew, while schedulers sign with them. */
#define CONTROL_WORLD_CONFIG

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/config_world.h"
#include "tests/unit/control_world.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/seed_watch.h"

static int set_up_keys(void **state)
{
	set_up(state);
	write_key("one.pem", dkim_rsa_8463);
	write_key("two.pem", dkim_rsa_6376);
	world->program.config = load_valid("dkim one.example { selector = a key = one.pem\n"
					   "signature b { key = two.pem } }\n");
	world->program.generations = generations_create(&world->program);
	generations_open(&world->program, 0);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		struct scheduler *s = &world->schedulers[i];

		s->config = world->program.config;
		signing_init(&s->signing, s->base.counters);
	}
	return 0;
}

static int tear_down_keys(void **state)
{
	struct generations *generations = world->program.generations;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		signing_close(&world->schedulers[i].signing);
	}
	tear_down(state);
	generations_destroy(generations);
	return 0;
}

/* The algorithms by which a scheduler signs: one letter for each signature. */
static const char *sign(uint32_t index)
{
	static const char text[] = "From: joe@one.example\r\n\r\nhello\r\n.\r\n";
	static char letters[3];
	struct scheduler *s = &world->schedulers[index];
	struct chain message = CHAIN_EMPTY;
	char fields[4096] = "";
	const char *tag = fields;
	unsigned count = 0;

	agent_current = &s->base;
	chain_append(&message, &s->pools.buffers, text, strlen(text));
	scheduler_sign(s, &message);
	assert_true(message.len < sizeof(fields));
	chain_copy_out(&message, 0, fields, (size_t)message.len);
	chain_release(&message, &s->pools.buffers);
	agent_current = NULL;
	while ((tag = strstr(tag, " a=")) != NULL && count < 2) {
		tag += 3;
		letters[count++] = tag[0];
	}
	letters[count] = '\0';
	return letters;
}

static const struct dkim_policy *policy(void)
{
	return config_dkim_at(world->program.config, 0);
}

static void assert_reload(long long reloaded, long long unchanged)
{
	json_t *v = result_of("dkim reload");

	assert_int_equal(number_at(v, "keys_reloaded"), reloaded);
	assert_int_equal(number_at(v, "keys_unchanged"), unchanged);
	json_decref(v);
}

static void assert_key(unsigned index, const char *kind, long long bits)
{
	json_t *v = result_of("signing_stats");
	char path[32];

	snprintf(path, sizeof(path), "keys.%u.key", index);
	assert_string_equal(text_at(v, path), kind);
	snprintf(path, sizeof(path), "keys.%u.key_bits", index);
	assert_int_equal(number_at(v, path), bits);
	json_decref(v);
}

static void test_reload_takes_up_what_has_changed(void **state)
{
	(void)state;
	assert_string_equal(sign(0), "rr");
	assert_string_equal(sign(1), "rr");
	assert_reload(0, 2);
	write_key("two.pem", dkim_ed25519_8463);
	assert_string_equal(sign(0), "rr");
	assert_reload(1, 1);
	assert_string_equal(sign(0), "re");
	assert_string_equal(sign(1), "re");
	assert_key(0, "rsa", 1024);
	assert_key(1, "ed25519", 256);
	write_key("one.pem", dkim_ed25519_8463);
	write_key("two.pem", dkim_rsa_8463);
	assert_reload(2, 0);
	assert_string_equal(sign(1), "er");
	assert_reload(0, 2);
}

static void test_reload_changes_nothing_when_a_file_is_broken(void **state)
{
	(void)state;
	write_key("one.pem", dkim_ed25519_8463);
	write_key("two.pem", "");
	assert_error("dkim reload", "nothing has changed: \"two.pem\": has no private key in PEM");
	assert_string_equal(sign(0), "rr");
	assert_key(0, "rsa", 1024);
	assert_int_equal(unlink("two.pem"), 0);
	assert_error("dkim reload", "nothing has changed: \"two.pem\": No such file");
	assert_string_equal(sign(1), "rr");
	write_key("two.pem", dkim_rsa_6376);
	assert_reload(1, 1);
	assert_string_equal(sign(1), "er");
}

/* The answer is one line, however the reason was written. */
static void test_reload_changes_nothing_when_the_program_stops(void **state)
{
	json_t *answer;

	(void)state;
	world->schedulers[0].stopping = true;
	answer = ask("dkim reload");
	assert_string_equal(text_at(answer, "error"), "nothing has changed: no thread pool runs, "
						      "or the program stops");
	json_decref(answer);
	world->schedulers[0].stopping = false;
}

/* Steps all but the second scheduler until other keys than `keys` are in use, and longer. */
static void step_past_publication(const struct dkim_key *const *keys)
{
	for (unsigned i = 0; i < 1000 && dkim_keys_now(policy()->keys) == keys; i++) {
		step_groups(2, 1);
	}
	assert_ptr_not_equal(dkim_keys_now(policy()->keys), keys);
	step_groups(2, 100);
}

/* The second scheduler is in the middle of a message: it has asked which keys there are. */
static void test_keys_last_until_every_scheduler_has_let_go(void **state)
{
	const struct dkim_key *const *keys = dkim_keys_now(policy()->keys);
	struct dkim_keyring *ring = dkim_keyring_create();
	unsigned char digest[DKIM_DIGEST_BYTES] = {1};
	unsigned char before[DKIM_SIGNATURE_MAX];
	unsigned char after[DKIM_SIGNATURE_MAX];
	json_t *answer;
	char byte;

	(void)state;
	assert_int_equal(dkim_keyring_sign(ring, keys[0], digest, before), 128);
	/* It has not got them ready: it needs the keys themselves. */
	dkim_keyring_clear(ring);
	write_key("one.pem", dkim_ed25519_8463);
	tell(world->client, "dkim reload\n");
	step_past_publication(keys);
	assert_int_equal(recv(world->client, &byte, 1, 0), -1);
	assert_string_equal(sign(0), "er");
	assert_int_equal(dkim_key_algorithm(keys[0]), DKIM_RSA_SHA256);
	assert_int_equal(dkim_keyring_sign(ring, keys[0], digest, after), 128);
	assert_memory_equal(before, after, 128);
	/* Another one has to wait. */
	close(world->client);
	world->client = connect_client();
	write_key("two.pem", dkim_ed25519_8463);
	tell(world->client, "dkim reload\n");
	step_groups(2, 100);
	assert_int_equal(recv(world->client, &byte, 1, 0), -1);
	assert_string_equal(sign(0), "er");
	step(100);
	answer = hear(world->client);
	assert_int_equal(number_at(answer, "result.keys_reloaded"), 1);
	json_decref(answer);
	assert_string_equal(sign(1), "ee");
	assert_reload(0, 2);
	dkim_keyring_destroy(ring);
}

/* Those of the generation and of each scheduler. */
static void test_old_keys_are_wiped(void **state)
{
	unsigned before = count_with_seed();

	(void)state;
	write_key("one.pem", dkim_ed25519_8463);
	assert_reload(1, 1);
	assert_string_equal(sign(0), "er");
	assert_string_equal(sign(1), "er");
	assert_int_equal(count_with_seed(), before + 3);
	write_key("one.pem", dkim_rsa_8463);
	freed_with_seed = 0;
	assert_reload(1, 1);
	assert_int_equal(count_with_seed(), before);
	assert_int_equal(freed_with_seed, 0);
}

static void test_reload_ends_when_nobody_waits_for_it(void **state)
{
	const struct dkim_key *const *keys = dkim_keys_now(policy()->keys);

	(void)state;
	assert_string_equal(sign(1), "rr");
	write_key("one.pem", dkim_ed25519_8463);
	tell(world->client, "dkim reload\n");
	step_past_publication(keys);
	close(world->client);
	world->client = connect_client();
	step(100);
	assert_string_equal(sign(1), "er");
	assert_reload(0, 2);
}

#define KEYS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_keys, tear_down_keys)

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEYS_TEST(test_reload_takes_up_what_has_changed),
		KEYS_TEST(test_reload_changes_nothing_when_a_file_is_broken),
		KEYS_TEST(test_reload_changes_nothing_when_the_program_stops),
		KEYS_TEST(test_keys_last_until_every_scheduler_has_let_go),
		KEYS_TEST(test_old_keys_are_wiped),
		KEYS_TEST(test_reload_ends_when_nobody_waits_for_it),
	};

	watch_seed();
	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
