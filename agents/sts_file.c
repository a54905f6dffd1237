#include "agents/sts_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mail/dns.h"
#include "core/runtime/check.h"

#define FIRST_LINE "flywheel mta-sts 1\n"

/* ---- reading ---- */

/* The policy in the words that it came in, so that one parser is enough. */
static struct sts_policy *parse_policy(const char *mode, const char *max_age, char *patterns)
{
	char why[STS_WHY];
	struct sts_policy *policy = NULL;
	char *text = NULL;
	char *place = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL) {
		return NULL;
	}
	fprintf(out, "version: STSv1\nmode: %s\nmax_age: %s", mode, max_age);
	for (char *mx = strtok_r(patterns, " \n", &place); mx != NULL;
	     mx = strtok_r(NULL, " \n", &place)) {
		fprintf(out, "\nmx: %s", mx);
	}
	if (fclose(out) == 0) {
		policy = sts_policy_parse(text, len, why);
	}
	free(text);
	return policy;
}

static void read_line(char *line, sts_file_read_fn on_policy, void *context)
{
	char domain[DNS_NAME_TEXT];
	char id[STS_ID_MAX + 1];
	char mode[16];
	char max_age[16];
	uint64_t until_ms;
	int used = 0;
	struct sts_policy *policy;

	if (sscanf(line, "%1023s %32s %" SCNu64 " %15s %15s%n", domain, id, &until_ms, mode,
		   max_age, &used) != 5) {
		return;
	}
	policy = parse_policy(mode, max_age, line + used);
	if (policy != NULL) {
		on_policy(context, domain, id, until_ms, policy);
	}
}

void sts_file_read(const char *path, sts_file_read_fn on_policy, void *context)
{
	FILE *in = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (in == NULL) {
		return;
	}
	if (getline(&line, &size, in) > 0 && strcmp(line, FIRST_LINE) == 0) {
		while (getline(&line, &size, in) > 0) {
			read_line(line, on_policy, context);
		}
	}
	free(line);
	fclose(in);
}

/* ---- writing ---- */

FILE *sts_file_begin(struct sts_file_write *w, const char *path)
{
	FILE *out;

	*w = (struct sts_file_write){.path = path};
	out = open_memstream(&w->text, &w->len);
	if (out != NULL) {
		fputs(FIRST_LINE, out);
	}
	return out;
}

void sts_file_put(FILE *out, const char *domain, const char *id, uint64_t until_ms,
		  const struct sts_policy *policy)
{
	fprintf(out, "%s %s %" PRIu64 " %s %u", domain, id, until_ms, sts_mode_name(policy->mode),
		policy->max_age_s);
	for (uint32_t i = 0; i < policy->mx_count; i++) {
		fprintf(out, " %s", policy->mx[i]);
	}
	fputc('\n', out);
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0) {
			return -errno;
		}
		text += n;
		len -= (size_t)n;
	}
	return fdatasync(fd) == 0 ? 0 : -errno;
}

static void write_work(struct job *job)
{
	struct sts_file_write *w = CONTAINER_OF(job, struct sts_file_write, job);
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof path, "%s.new", w->path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0) {
		w->result = -errno;
		return;
	}
	w->result = write_all(fd, w->text, w->len);
	close(fd);
	if (w->result == 0 && rename(path, w->path) != 0) {
		w->result = -errno;
	}
}

int sts_file_end(struct sts_file_write *w, FILE *out)
{
	w->job.work = write_work;
	if (ferror(out) != 0 || fclose(out) != 0) {
		free(w->text);
		return -ENOMEM;
	}
	return 0;
}

int sts_file_done(struct sts_file_write *w, int result)
{
	free(w->text);
	w->text = NULL;
	return result != 0 ? result : w->result;
}
