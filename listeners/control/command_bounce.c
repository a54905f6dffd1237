/*
 * Commands about bounces: what kinds of failures there were.
 */
#include "listeners/control/command.h"

static uint64_t total_of(const struct program *p, enum bounce_way way, unsigned bounce_class)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		sum += counter_get(&p->schedulers[i]->bounce_classes[way][bounce_class]);
	}
	return sum;
}

void command_bounce_stats(struct order *o)
{
	json_t *rows = value_array();

	for (unsigned i = 1; i <= BOUNCE_CLASS_MAX; i++) {
		const char *name = bounce_class_name(o->program->bounce_rules, i);
		json_t *row;

		if (name == NULL) {
			continue;
		}
		row = value_object();
		value_set_number(row, "class", i);
		value_set_text(row, "name", name);
		value_set_number(row, "in_band", total_of(o->program, BOUNCE_IN_BAND, i));
		value_set_number(row, "deferred", total_of(o->program, BOUNCE_DEFERRED, i));
		value_set_number(row, "out_of_band", total_of(o->program, BOUNCE_OUT_OF_BAND, i));
		value_append(rows, row);
	}
	order_answer(o, rows);
}
