#include "tools/console_top_view.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/console_render.h"

#define LINE_MAX_BYTES 1024
#define ROWS_SORTED_MAX 10000
#define HEADER_LINES 6

static const char *const sort_words[] = {"rate", "queue", "connections"};

static const char *const help_lines[] = {
	"Keys",
	"  r  sort by rate: deliveries done in a second, over the last minute",
	"  l  sort by length of the queue",
	"  c  sort by connections",
	"  d  show domains         b  show bindings",
	"  p  pause                space  look now",
	"  h, ?  these lines       q  leave",
};

const char *top_sort_word(enum top_sort sort)
{
	return sort_words[sort];
}

void top_sample_free(struct top_sample *s)
{
	json_decref(s->summary);
	json_decref(s->memory);
	json_decref(s->threads);
	json_decref(s->version);
	json_decref(s->rows);
	memset(s, 0, sizeof(*s));
}

/* ---- lines ---- */

SINGLE
struct view {
	const struct top_sample *now;
	const struct top_sample *before;
	const struct top_screen *screen;
	FILE *out;
	unsigned lines;
};

static bool has_room(const struct view *v)
{
	return v->screen->height == 0 || v->lines < v->screen->height;
}

/* Bytes of the first `width` characters. */
static size_t cut(const char *text, unsigned width)
{
	size_t i = 0;

	for (; text[i] != '\0'; i++) {
		if (((unsigned char)text[i] & 0xc0) != 0x80 && width-- == 0) {
			break;
		}
	}
	return i;
}

/* One line, cut at the screen's edge, without blanks at its end. */
static void put_text(struct view *v, const char *text, bool heading)
{
	size_t len = cut(text, v->screen->width);

	if (!has_room(v)) {
		return;
	}
	while (len > 0 && text[len - 1] == ' ') {
		len--;
	}
	if (heading) {
		putc(TOP_HEADING, v->out);
	}
	fwrite(text, 1, len, v->out);
	putc('\n', v->out);
	v->lines++;
}

static void put(struct view *v, bool heading, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void put(struct view *v, bool heading, const char *format, ...)
{
	char text[LINE_MAX_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put_text(v, text, heading);
}

/* ---- values ---- */

static double number_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "";
}

/* As the console shows it, in a place that holds it until the line is put. */
struct shown {
	char text[64];
};

static struct shown show(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	struct shown s = {"-"};
	char *text;

	if (value != NULL) {
		text = console_value_text(key, value);
		snprintf(s.text, sizeof(s.text), "%s", text);
		free(text);
	}
	return s;
}

/* What a server's name is shown as: `width` characters, no control characters. */
static void put_name(char *to, size_t size, const json_t *row, const char *key, unsigned width)
{
	const json_t *value = json_object_get(row, key);
	char *text = json_is_string(value) ? console_value_text(key, value) : strdup("");
	size_t len = text != NULL ? cut(text, width) : 0;
	unsigned shown = 0;

	len = len + width < size ? len : 0;
	for (size_t i = 0; i < len; i++) {
		shown += ((unsigned char)text[i] & 0xc0) != 0x80;
		to[i] = text[i];
	}
	for (; shown < width; shown++) {
		to[len++] = ' ';
	}
	to[len] = '\0';
	free(text);
}

static double seconds_between(const struct view *v)
{
	double s = v->before != NULL ? v->now->at_s - v->before->at_s
				     : number_of(v->now->summary, "uptime_s");

	return s > 0.001 ? s : 0.001;
}

/* Of a count that only grows, in a second; a program that was started anew began at 0. */
static double rate(const struct view *v, const json_t *now, const json_t *before, const char *key)
{
	double count = number_of(now, key);
	double was = number_of(before, key);

	return (count >= was ? count - was : count) / seconds_between(v);
}

static double summary_rate(const struct view *v, const char *key)
{
	return rate(v, v->now->summary, v->before != NULL ? v->before->summary : NULL, key);
}

/* ---- the header ---- */

static void put_title(struct view *v)
{
	const struct top_screen *screen = v->screen;
	char clock[16];
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	if (screen->trouble != NULL) {
		put(v, false, "flywheel  %s  %s", clock, screen->trouble);
		return;
	}
	put(v, false, "flywheel %s  up %s  %s  every %.3g s%s",
	    show(v->now->version, "hostname").text, show(v->now->summary, "uptime_s").text, clock,
	    screen->interval_s, screen->paused ? "  PAUSED" : "");
}

static void put_header(struct view *v)
{
	const json_t *s = v->now->summary;

	put(v, false, "In %.1f/s  out %.1f/s  deferred %.1f/s  bounced %.1f/s  refused %.1f/s",
	    summary_rate(v, "received_messages"),
	    summary_rate(v, "successfully_delivered_messages"),
	    summary_rate(v, "transient_failures"), summary_rate(v, "failed_messages"),
	    summary_rate(v, "rejected_messages"));
	put(v, false, "Queued %s  active %s  delayed %s  in delivery %s  domains %s",
	    show(s, "total_queue_size").text, show(s, "active_queue_size").text,
	    show(s, "delayed_queue_size").text, show(s, "in_delivery").text,
	    show(s, "domains").text);
	put(v, false, "Connections in %s  out %s  memory %s  bodies %s of %s",
	    show(s, "inbound_concurrency").text, show(s, "outbound_concurrency").text,
	    show(v->now->memory, "resident_bytes").text, show(s, "resident_body_bytes").text,
	    show(s, "memory_budget_bytes").text);
	put(v, false, "Spool p50 %s  p99 %s  messages %s  %s", show(s, "store_time_p50_s").text,
	    show(s, "store_time_p99_s").text, show(s, "spool_messages").text,
	    show(s, "spool_bytes").text);
}

/* ---- agents ---- */

/* The row of `rows` whose `key` is that of `like`; NULL: none. */
static const json_t *same_row(const json_t *rows, const json_t *like, const char *key)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (strcmp(text_of(row, key), text_of(like, key)) == 0) {
			return row;
		}
	}
	return NULL;
}

static const json_t *part_of(const struct top_sample *s, const char *key)
{
	return s != NULL ? json_object_get(s->threads, key) : NULL;
}

static void put_agent(struct view *v, const json_t *agent)
{
	const json_t *before = same_row(part_of(v->before, "agents"), agent, "agent");
	const json_t *thread = same_row(part_of(v->now, "threads"), agent, "thread");
	const json_t *thread_before = same_row(part_of(v->before, "threads"), agent, "thread");
	double work = rate(v, agent, before, "cycles_work");
	double idle = rate(v, agent, before, "cycles_idle");
	char name[128];
	char group[128];

	put_name(name, sizeof(name), agent, "agent", 18);
	put_name(group, sizeof(group), agent, "thread", 18);
	put(v, false, "%s %s %5.1f %5.1f %7.0f %7.0f", name, group,
	    rate(v, thread, thread_before, "cpu_ns") / 1e7,
	    work + idle > 0 ? 100 * work / (work + idle) : 0, number_of(agent, "ring_in"),
	    number_of(agent, "stalls"));
}

/* No more than a third of the screen. */
static void put_agents(struct view *v)
{
	const json_t *agents = part_of(v->now, "agents");
	size_t count = json_array_size(agents);
	unsigned height = v->screen->height;
	size_t room = height == 0 ? count : height > 12 ? (height - HEADER_LINES) / 3 : 0;

	if (room == 0) {
		return;
	}
	put_text(v, "", false);
	put(v, true, "%-18s %-18s %5s %5s %7s %7s", "Agent", "Thread", "CPU%", "Work%", "Ring in",
	    "Stalls");
	for (size_t i = 0; i < count && i < room; i++) {
		put_agent(v, json_array_get(agents, i));
	}
}

/* ---- domains, bindings ---- */

static void put_domain(struct view *v, const json_t *row)
{
	unsigned width = v->screen->width > 80 ? v->screen->width - 56 : 24;
	char name[512];
	char binding[128];
	char held[512];

	put_name(name, sizeof(name), row, "domain", width < 100 ? width : 100);
	put_name(binding, sizeof(binding), row, "binding", 10);
	put_name(held, sizeof(held), row, "held_by", 100);
	put(v, false, "%s %s %7.1f %7.0f %7.0f %5.0f %s", name, binding,
	    number_of(row, "rate_per_s"), number_of(row, "active"), number_of(row, "delayed"),
	    number_of(row, "connections"), held);
}

static void put_domains(struct view *v)
{
	unsigned width = v->screen->width > 80 ? v->screen->width - 56 : 24;
	const json_t *row;
	size_t i;

	put(v, true, "%-*s %-10s %7s %7s %7s %5s %s", (int)(width < 100 ? width : 100), "Domain",
	    "Binding", "Done/s", "Active", "Delayed", "Conn", "Held by");
	json_array_foreach(v->now->rows, i, row)
	{
		put_domain(v, row);
	}
}

struct binding_row {
	const json_t *row;
	double rate;
	double key;
};

static int compare_bindings(const void *a, const void *b)
{
	const struct binding_row *x = a;
	const struct binding_row *y = b;

	if (x->key != y->key) {
		return x->key < y->key ? 1 : -1;
	}
	return strcmp(text_of(x->row, "binding"), text_of(y->row, "binding"));
}

static double binding_key(enum top_sort sort, const struct binding_row *r)
{
	switch (sort) {
	case TOP_BY_QUEUE:
		return number_of(r->row, "active") + number_of(r->row, "delayed");
	case TOP_BY_CONNECTIONS:
		return number_of(r->row, "connections");
	default:
		return r->rate;
	}
}

/* Both answers list bindings in the order of the configuration: mostly it is the same place. */
static const json_t *binding_before(const struct view *v, const json_t *row, size_t place)
{
	const json_t *rows =
		v->before != NULL && v->before->kind == TOP_BINDINGS ? v->before->rows : NULL;
	const json_t *guess = json_array_get(rows, place);

	if (guess != NULL && strcmp(text_of(guess, "binding"), text_of(row, "binding")) == 0) {
		return guess;
	}
	return same_row(rows, row, "binding");
}

static void put_binding(struct view *v, const struct binding_row *r)
{
	char name[512];
	char group[128];

	put_name(name, sizeof(name), r->row, "binding", 24);
	put_name(group, sizeof(group), r->row, "group", 10);
	put(v, false, "%s %s %7.1f %7.0f %7.0f %5.0f %s", name, group, r->rate,
	    number_of(r->row, "active"), number_of(r->row, "delayed"),
	    number_of(r->row, "connections"), text_of(r->row, "state"));
}

static void put_bindings(struct view *v)
{
	size_t count = json_array_size(v->now->rows);
	bool known = v->before != NULL && v->before->kind == TOP_BINDINGS;
	struct binding_row *rows;

	count = count < ROWS_SORTED_MAX ? count : ROWS_SORTED_MAX;
	rows = calloc(count + 1, sizeof(*rows));
	put(v, true, "%-24s %-10s %7s %7s %7s %5s %s", "Binding", "Group", "Sent/s", "Active",
	    "Delayed", "Conn", "State");
	for (size_t i = 0; rows != NULL && i < count; i++) {
		struct binding_row *r = &rows[i];

		r->row = json_array_get(v->now->rows, i);
		r->rate = known ? rate(v, r->row, binding_before(v, r->row, i), "delivered") : 0;
		r->key = binding_key(v->screen->sort, r);
	}
	if (rows != NULL) {
		qsort(rows, count, sizeof(*rows), compare_bindings);
	}
	for (size_t i = 0; rows != NULL && i < count && has_room(v); i++) {
		put_binding(v, &rows[i]);
	}
	free(rows);
}

/* ---- all of it ---- */

static void put_help(struct view *v)
{
	for (size_t i = 0; i < sizeof(help_lines) / sizeof(help_lines[0]); i++) {
		put_text(v, help_lines[i], i == 0);
	}
}

void top_view(const struct top_sample *now, const struct top_sample *before,
	      const struct top_screen *screen, FILE *out)
{
	struct view v = {.now = now, .before = before, .screen = screen, .out = out};

	put_title(&v);
	if (now->summary != NULL) {
		put_header(&v);
	}
	if (screen->help) {
		put_text(&v, "", false);
		put_help(&v);
		return;
	}
	if (now->threads != NULL) {
		put_agents(&v);
	}
	if (now->rows != NULL) {
		put_text(&v, "", false);
		if (now->kind == TOP_BINDINGS) {
			put_bindings(&v);
		} else {
			put_domains(&v);
		}
	}
}
