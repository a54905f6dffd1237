/*
 * Commands about the logs' outputs: what is asked of the log agent.
 */
#include <errno.h>
#include <string.h>

#include "agents/log_writer.h"
#include "listeners/control/command.h"

/* What became of the rotation of one output. */
static const char *rotation_result(int result)
{
	switch (result) {
	case 0:
		return "rotated";
	case -ENODATA:
		return "is empty";
	case -EAGAIN:
		return "will be rotated when its last line is whole";
	case -ESTALE:
		return "had been moved away; opened anew";
	case -ENOTSUP:
		return "is not rotated";
	default:
		return strerror(-result);
	}
}

static void rotated_row(void *context, const struct log_output *output, int result)
{
	json_t *row = value_object();

	value_set_text(row, "log", output->path);
	value_set_text(row, "result", rotation_result(result));
	value_set_text(row, "rotated_to", result == 0 ? output->rotated : "");
	part_row(context, row);
}

/* On the log agent. */
static bool rotate_step(struct part *p, struct agent *self)
{
	log_writer_rotate(self, rotated_row, p);
	return true;
}

static void merge_rotated(struct order *o)
{
	order_answer_rows(o, "logs", NULL, NULL);
}

void command_log_rotate(struct order *o)
{
	if (o->program->log == NULL) {
		order_fail(o, "no log agent runs: logs go to stderr");
		return;
	}
	order_on_agent(o, o->program->log, rotate_step, merge_rotated);
}
