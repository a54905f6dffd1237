/*
 * Suspensions: until when, and which there are. Orders to suspend are with those to a domain and to
 * a binding.
 */
#include "listeners/control/command.h"

#include <string.h>
#include <strings.h>
#include <time.h>

#include "config/word.h"

/* ---- until when ---- */

/* Wall clock, ms; 0: it is none. */
static uint64_t moment_of(const char *word)
{
	static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ"};

	for (unsigned i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(word, forms[i], &tm);
		time_t seconds = end != NULL && *end == '\0' ? timegm(&tm) : 0;

		if (seconds > 0) {
			return (uint64_t)seconds * 1000;
		}
	}
	return 0;
}

static bool take_for(struct order *o, const char *word, uint64_t now_ms)
{
	uint64_t ns;
	const char *wrong = word_time(word, &ns);

	if (wrong != NULL || ns < NS_PER_MS) {
		order_fail_usage(o, "for: \"%.64s\" is no time such as 90s, 30m, 2h or 1d", word);
		return false;
	}
	o->until_ms = now_ms + ns / NS_PER_MS;
	return true;
}

static bool take_until(struct order *o, const char *word, uint64_t now_ms)
{
	o->until_ms = moment_of(word);
	if (o->until_ms == 0) {
		order_fail_usage(o, "until: \"%.64s\" is no moment such as 2027-01-31T15:00Z (UTC)",
				 word);
		return false;
	}
	if (o->until_ms <= now_ms) {
		order_fail_usage(o, "until: %.64s is over", word);
		return false;
	}
	return true;
}

bool command_until(struct order *o, unsigned max)
{
	uint64_t now_ms = agent_wall_ms(&o->scheduler->base);
	const char *kind = o->argument_count > 2 ? o->arguments[o->argument_count - 2] : "";
	const char *word = o->arguments[o->argument_count - 1];
	bool is_for = strcasecmp(kind, "for") == 0;

	if (is_for || strcasecmp(kind, "until") == 0) {
		if (!(is_for ? take_for : take_until)(o, word, now_ms)) {
			return false;
		}
		o->argument_count -= 2;
	}
	if (o->argument_count > max) {
		command_fail_usage(o);
		return false;
	}
	return true;
}

struct suspension *command_suspension(const struct order *o, struct agent *self)
{
	return o->flag ? suspension_new(o->who, agent_wall_ms(self), o->until_ms) : NULL;
}

/* ---- which there are ---- */

static json_t *row_of(const char *domain, const char *binding, const struct suspension *order)
{
	json_t *row = value_object();

	value_set_text(row, "domain", domain);
	value_set_text(row, "binding", binding);
	value_set_text(row, "by", order->by);
	value_set_time(row, "since_at", order->since_ms);
	value_set_time(row, "until_at", order->until_ms);
	return row;
}

static void list_one(struct part *p, struct scheduler *s, struct domain *d)
{
	(void)s;
	if (d->suspension != NULL) {
		part_row(p, row_of(d->name, d->binding, d->suspension));
	}
}

/* Every scheduler knows of a binding's: the console's tells. */
static void list_bindings(struct part *p, const struct scheduler *s)
{
	for (uint32_t i = 0; i < s->dispatcher.bindings.count; i++) {
		const struct binding_record *b = s->dispatcher.bindings.records[i];

		if (b->suspension != NULL && s == p->order->scheduler) {
			part_row(p, row_of("", b->name, b->suspension));
		}
	}
}

static bool list_step(struct part *p, struct agent *self)
{
	bool over = part_walk(p, self, ORDER_RECORDS_PER_STEP, list_one);

	if (over) {
		list_bindings(p, order_scheduler_of(self));
	}
	return over;
}

static void merge_list(struct order *o)
{
	order_answer_rows(o, "suspensions", NULL, NULL);
}

void command_suspensions(struct order *o)
{
	order_on_schedulers(o, list_step, merge_list);
}
