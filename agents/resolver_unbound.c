/*
 * libunbound as a source of answers. One context is one cache and one thread, which does all the
 * asking and validating; questions and answers travel through its pipes.
 */
#include "agents/resolver_source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unbound.h>

#include "core/runtime/check.h"

#define CLASS_IN 1
#define LINE_MAX_LEN 4096
/* RFC 1035 section 4.1.1 */
#define RCODE_NOERROR 0
#define RCODE_SERVFAIL 2
#define RCODE_NXDOMAIN 3

SINGLE
struct resolver_source {
	struct ub_ctx *ctx;
};

/* ---- setting up ---- */

/* Where to say what is wrong. */
struct setup {
	struct ub_ctx *ctx;
	char *why;
	size_t why_size;
};

static int wrong(const struct setup *u, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int wrong(const struct setup *u, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(u->why, u->why_size, format, args);
	va_end(args);
	return error;
}

static int set_option(const struct setup *u, const char *name, const char *value)
{
	int rc = ub_ctx_set_option(u->ctx, name, value);

	return rc == 0 ? 0 : wrong(u, -EINVAL, "resolver: %s %s: %s", name, value, ub_strerror(rc));
}

static int set_basics(const struct setup *u)
{
	static const char *const basics[][2] = {
		/* Name servers on this machine are as good as others. */
		{"do-not-query-localhost:", "no"},
		/* No process of its own, no files but those that are named. */
		{"use-syslog:", "no"},
		{"directory:", ""},
		{"chroot:", ""},
		/* What is asked for often is fetched anew before it ends. */
		{"prefetch:", "yes"},
		/* RFC 9156: other servers learn no more than they need. */
		{"qname-minimisation:", "yes"},
		{"minimal-responses:", "yes"},
		/* Names that libunbound would answer itself: a site's own servers may know more. */
		{"unblock-lan-zones:", "yes"},
		{"insecure-lan-zones:", "yes"},
		{"local-zone:", "test. transparent"},
		{"local-zone:", "home.arpa. transparent"},
	};

	for (size_t i = 0; i < sizeof basics / sizeof basics[0]; i++) {
		int rc = set_option(u, basics[i][0], basics[i][1]);

		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

static int add_server(const struct setup *u, const char *address)
{
	int rc = ub_ctx_set_fwd(u->ctx, address);

	return rc == 0 ? 0
		       : wrong(u, -EINVAL, "resolver: name server %.80s: %s", address,
			       ub_strerror(rc));
}

/* Name servers of a resolv.conf(5). Like the C library, one of this machine when it names none:
 * libunbound would ask the root's servers then. */
static int add_system_servers(const struct setup *u, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[LINE_MAX_LEN];
	char address[256];
	unsigned count = 0;
	int rc = 0;

	if (f == NULL && errno != ENOENT) {
		return wrong(u, -errno, "resolver: cannot read %s: %s", path, strerror(errno));
	}
	while (rc == 0 && f != NULL && fgets(line, sizeof line, f) != NULL) {
		if (sscanf(line, " nameserver %255s", address) == 1) {
			rc = add_server(u, address);
			count++;
		}
	}
	if (f != NULL) {
		fclose(f);
	}
	return rc == 0 && count == 0 ? add_server(u, "127.0.0.1") : rc;
}

static int set_servers(const struct setup *u, const struct resolver_options *o)
{
	int rc = 0;

	if (o->mode == CONFIG_RESOLVER_RECURSIVE) {
		return o->root_hints != NULL ? set_option(u, "root-hints:", o->root_hints) : 0;
	}
	if (o->forwarder_count == 0) {
		return add_system_servers(u, o->resolv_conf);
	}
	for (uint32_t i = 0; rc == 0 && i < o->forwarder_count; i++) {
		rc = add_server(u, o->forwarders[i]);
	}
	return rc;
}

/* libunbound reads these when it is first asked, and then says only that it could not. */
static int check_readable(const struct setup *u, const char *path)
{
	FILE *f = path != NULL ? fopen(path, "re") : NULL;

	if (path == NULL) {
		return 0;
	}
	if (f == NULL) {
		return wrong(u, -errno, "resolver: cannot read %s: %s", path, strerror(errno));
	}
	fclose(f);
	return 0;
}

static int set_trust(const struct setup *u, const struct resolver_options *o)
{
	int rc = check_readable(u, o->trust_anchor_file);

	if (rc != 0) {
		return rc;
	}
	if (o->trust_anchor_file != NULL) {
		rc = ub_ctx_add_ta_file(u->ctx, o->trust_anchor_file);
	}
	if (rc == 0 && o->trust_anchor != NULL) {
		rc = ub_ctx_add_ta(u->ctx, o->trust_anchor);
	}
	return rc == 0 ? 0 : wrong(u, -EINVAL, "resolver: trust anchor: %s", ub_strerror(rc));
}

/* A zone whose SOA is in the file is answered from it alone; of other names, what it has. */
static int add_local_line(const struct setup *u, char *line, const char *path, unsigned number)
{
	char owner[DNS_NAME_TEXT];
	char zone[DNS_NAME_TEXT + 16];
	int rc;

	line[strcspn(line, ";\r\n")] = '\0';
	if (sscanf(line, " %1023s", owner) != 1) {
		return 0;
	}
	if (strcasestr(line, " SOA ") != NULL) {
		snprintf(zone, sizeof zone, "%s static", owner);
		rc = set_option(u, "local-zone:", zone);
		if (rc != 0) {
			return rc;
		}
	}
	rc = ub_ctx_set_option(u->ctx, "local-data:", line);
	return rc == 0 ? 0
		       : wrong(u, -EINVAL, "resolver: %s:%u: %s", path, number, ub_strerror(rc));
}

static int set_local(const struct setup *u, const struct resolver_options *o)
{
	const char *path = o->local_zone_file;
	FILE *f = path != NULL ? fopen(path, "re") : NULL;
	char line[LINE_MAX_LEN];
	unsigned number = 0;
	int rc;

	if (path != NULL && f == NULL) {
		return wrong(u, -errno, "resolver: cannot read %s: %s", path, strerror(errno));
	}
	for (rc = 0; rc == 0 && f != NULL && fgets(line, sizeof line, f) != NULL;) {
		rc = add_local_line(u, line, path, ++number);
	}
	if (f != NULL) {
		fclose(f);
	}
	if (rc != 0) {
		return rc;
	}
	rc = ub_ctx_hosts(u->ctx, o->hosts_file);
	/* A machine without the file is fine. */
	return rc == 0 || (rc == UB_READFILE && errno == ENOENT)
		       ? 0
		       : wrong(u, -EINVAL, "resolver: hosts_file %s: %s", o->hosts_file,
			       ub_strerror(rc));
}

static void ignore(void *context, int error, struct ub_result *result)
{
	(void)context;
	(void)error;
	ub_resolve_free(result);
}

/* The first question makes libunbound read its files and start its thread: not when mail waits. */
static int warm_up(const struct setup *u)
{
	int rc = ub_ctx_async(u->ctx, 1);
	sigset_t all, before;

	/* Signals are for threads of ours. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	if (rc == 0) {
		rc = ub_resolve_async(u->ctx, "localhost", DNS_A, CLASS_IN, NULL, ignore, NULL);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc == 0 ? 0 : wrong(u, -EINVAL, "resolver: cannot start: %s", ub_strerror(rc));
}

int resolver_source_open(struct resolver_source **out, const struct resolver_options *options,
			 char *why, size_t why_size)
{
	struct resolver_source *s = calloc(1, sizeof *s);
	struct setup u = {.ctx = ub_ctx_create(), .why = why, .why_size = why_size};
	int rc;

	if (s == NULL || u.ctx == NULL) {
		fatal("out of memory for the resolver");
	}
	s->ctx = u.ctx;
	rc = set_basics(&u);
	rc = rc == 0 ? set_servers(&u, options) : rc;
	rc = rc == 0 ? set_trust(&u, options) : rc;
	rc = rc == 0 ? set_local(&u, options) : rc;
	rc = rc == 0 ? check_readable(&u, options->root_hints) : rc;
	rc = rc == 0 ? warm_up(&u) : rc;
	if (rc != 0) {
		resolver_source_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void resolver_source_close(struct resolver_source *s)
{
	ub_ctx_delete(s->ctx);
	free(s);
}

/* ---- questions and answers ---- */

int resolver_source_fd(struct resolver_source *s)
{
	/* A number of our own, as the multiplexor remembers things by number until it closes it. */
	int fd = fcntl(ub_fd(s->ctx), F_DUPFD_CLOEXEC, 0);

	if (fd < 0) {
		fatal("cannot watch the resolver: %s", strerror(errno));
	}
	return fd;
}

static enum dns_status status_of(const struct ub_result *r)
{
	if (r->bogus) {
		return DNS_BOGUS;
	}
	if (r->rcode == RCODE_NXDOMAIN) {
		return DNS_NXDOMAIN;
	}
	if (r->rcode != RCODE_NOERROR) {
		return DNS_SERVFAIL;
	}
	return r->havedata ? DNS_FOUND : DNS_NODATA;
}

static struct dns_answer *answer_of(enum dns_type type, const struct ub_result *r)
{
	const unsigned char *rdata[DNS_RECORDS_MAX];
	size_t len[DNS_RECORDS_MAX];
	struct dns_raw raw = {
		.type = type,
		.status = status_of(r),
		.rcode = (uint8_t)r->rcode,
		.secure = r->secure != 0,
		.ttl_s = r->ttl > 0 ? (uint32_t)r->ttl : 0,
		.canonical = r->canonname,
		.why = r->bogus ? r->why_bogus : NULL,
		.rdata = rdata,
		.rdata_len = len,
	};

	while (raw.status == DNS_FOUND && raw.count < DNS_RECORDS_MAX &&
	       r->data[raw.count] != NULL) {
		rdata[raw.count] = (const unsigned char *)r->data[raw.count];
		len[raw.count] = (size_t)r->len[raw.count];
		raw.count++;
	}
	return dns_answer_create(&raw);
}

static void on_result(void *context, int error, struct ub_result *result)
{
	struct source_question *q = context;
	struct dns_raw failed = {.type = q->type,
				 .status = DNS_SERVFAIL,
				 .rcode = RCODE_SERVFAIL,
				 .why = ub_strerror(error)};

	q->on_answer(q, error == 0 ? answer_of(q->type, result) : dns_answer_create(&failed));
	ub_resolve_free(result);
}

int resolver_source_ask(struct resolver_source *s, struct source_question *q, const char *name)
{
	int rc = ub_resolve_async(s->ctx, name, (int)q->type, CLASS_IN, q, on_result, &q->id);

	return rc == 0 ? 0 : rc == UB_NOMEM ? -ENOMEM : rc == UB_SYNTAX ? -EINVAL : -EIO;
}

void resolver_source_cancel(struct resolver_source *s, struct source_question *q)
{
	/* One that is not there any more needs none. */
	(void)!ub_cancel(s->ctx, q->id);
}

void resolver_source_process(struct resolver_source *s)
{
	(void)!ub_process(s->ctx);
}
