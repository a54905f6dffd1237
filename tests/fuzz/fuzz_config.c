/*
 * The configuration's language: a text is loaded from memory. If it is valid, its dump is too, and
 * dumps as itself; if not, there is an error, and every line of errors tells a place. Nothing
 * outside of the text is read: inputs that name files are passed over.
 */
#include <strings.h>

#include "config/config.h"
#include "tests/fuzz/fuzz_input.h"

#define FOLDER "/nonexistent/"
#define PATH FOLDER "fuzz.conf"

static struct config *load(const char *text, size_t len, char **errors)
{
	size_t errors_len = 0;
	FILE *out = open_memstream(errors, &errors_len);
	struct config *config;

	FUZZ_CHECK(out != NULL);
	config = config_load_text(PATH, text, len, out);
	fclose(out);
	FUZZ_CHECK(strlen(*errors) == errors_len);
	return config;
}

typedef void (*dump_fn)(const struct config *config, FILE *out);

static char *dump(const struct config *config, dump_fn print)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	FUZZ_CHECK(out != NULL);
	print(config, out);
	fclose(out);
	FUZZ_CHECK(strlen(text) == len);
	return text;
}

/* A text's end of a line that tells where an option was set. */
static char *origin(char *line, const char *end)
{
	char *found = NULL;

	for (char *p = line; p + 3 < end; p++) {
		if (memcmp(p, "\t# ", 3) == 0) {
			found = p;
		}
	}
	return found;
}

/* Origins are not the same after a dump: takes them out. */
static void drop_origins(char *text)
{
	char *to = text;

	for (char *line = text; *line != '\0';) {
		char *lf = strchr(line, '\n');
		char *end = lf != NULL ? lf : line + strlen(line);
		char *stop = origin(line, end);
		size_t len = (size_t)((stop != NULL ? stop : end) - line);

		memmove(to, line, len);
		to += len;
		*to++ = '\n';
		line = lf != NULL ? lf + 1 : end;
	}
	*to = '\0';
}

/* PATH:LINE: before each; the last line may count those that are too many. */
static void check_errors(const char *errors)
{
	for (const char *p = errors; *p != '\0'; p = strchr(p, '\n') + 1) {
		const char *lf = strchr(p, '\n');

		FUZZ_CHECK(lf != NULL);
		FUZZ_CHECK(strncmp(p, FOLDER, strlen(FOLDER)) == 0 ||
			   (strncmp(p, "and ", 4) == 0 && lf[1] == '\0'));
	}
}

/* What schedulers and listeners ask of a valid one. */
static void use(const struct config *config)
{
	struct in6_addr peer = {.s6_addr = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}};

	FUZZ_CHECK(config_global(config)->hostname != NULL);
	for (unsigned i = 0; i < CONFIG_AGENTS; i++) {
		FUZZ_CHECK(config_agent(config, (enum config_agent)i) != NULL);
	}
	for (uint32_t i = 0; i < config_smtp_listen_count(config); i++) {
		FUZZ_CHECK(config_smtp(config, i, &peer) != NULL);
	}
	FUZZ_CHECK(config_domain(config, "default", "example.net", 11) != NULL);
}

/* A line of an option is a comment when there is a secret in it: the rest may not stand without. */
static bool hides_secrets(const char *text)
{
	bool hides = false;

	for (const char *p = text; p != NULL && !hides; p = strchr(p, '\n')) {
		p += strspn(p, "\n\t");
		hides = *p == '#';
	}
	return hides;
}

static void check_round_trip(const struct config *config)
{
	char *first = dump(config, config_dump);
	dump_fn print = hides_secrets(first) ? config_dump_values : config_dump;
	char *errors = NULL;
	struct config *again;
	char *second;

	if (print != config_dump) {
		free(first);
		first = dump(config, print);
	}
	again = load(first, strlen(first), &errors);
	if (again == NULL) {
		fprintf(stderr, "the dump is not valid:\n%s%s", errors, first);
	}
	FUZZ_CHECK(again != NULL);
	second = dump(again, print);
	drop_origins(first);
	drop_origins(second);
	if (strcmp(first, second) != 0) {
		fprintf(stderr, "first:\n%s\nsecond:\n%s", first, second);
	}
	FUZZ_CHECK(strcmp(first, second) == 0);
	config_release(again);
	free(second);
	free(errors);
	free(first);
}

/* A path in an include could lead anywhere. */
static bool names_files(const char *text, size_t len)
{
	for (size_t i = 0; i + 7 <= len; i++) {
		if (strncasecmp(text + i, "include", 7) == 0) {
			return memchr(text, '/', len) != NULL;
		}
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;
	char *errors = NULL;
	struct config *config;

	if (names_files((const char *)data, size)) {
		return -1;
	}
	text = (char *)fuzz_copy(data, size);
	config = load(text, size, &errors);
	free(text);
	check_errors(errors);
	if (config != NULL) {
		use(config);
		check_round_trip(config);
		config_release(config);
	} else {
		FUZZ_CHECK(errors[0] != '\0');
	}
	free(errors);
	return 0;
}
