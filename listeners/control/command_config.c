/*
 * `config status`: which generations there are; and what is told of one that is to come.
 */
#include <stdlib.h>
#include <string.h>

#include "agents/generation.h"
#include "listeners/control/command.h"

static json_t *kept_rows(const struct config_kept *kept)
{
	json_t *rows = value_array();

	for (; kept != NULL; kept = kept->next) {
		json_t *row = value_object();

		value_set_text(row, "option", kept->option);
		value_set_text(row, "scope", kept->scope);
		value_set_text(row, "set_at", kept->place);
		value_set_text(row, "running", kept->running);
		value_set_text(row, "in_the_files", kept->wanted);
		value_append(rows, row);
	}
	return rows;
}

static json_t *line_rows(const char *lines)
{
	json_t *rows = value_array();

	while (lines != NULL && *lines != '\0') {
		size_t len = strcspn(lines, "\n");
		char line[PATH_MAX + 1024];

		snprintf(line, sizeof(line), "%.*s", (int)len, lines);
		value_append(rows, value_text(line));
		lines += len + strspn(lines + len, "\n");
	}
	return rows;
}

void command_fail_change(struct order *o, const struct generation_change *g, const json_t *wrote)
{
	char *text;
	size_t size;
	FILE *out = check_memory(open_memstream(&text, &size), "an answer");

	fprintf(out, "%s has changed:\n%s",
		json_array_size(wrote) > 0 ? "nothing that runs" : "nothing", g->messages);
	for (size_t i = 0; i < json_array_size(wrote); i++) {
		fprintf(out, "%s: was written\n", json_string_value(json_array_get(wrote, i)));
	}
	fclose(out);
	/* The last line ends with the answer. */
	text[size - 1] = '\0';
	order_fail_lines(o, text);
	free(text);
}

json_t *command_change_value(const struct generation_change *g)
{
	json_t *v = value_object();

	value_set_number(v, "generation", g->number);
	value_set_bool(v, "restart_needed", g->kept != NULL);
	if (g->kept != NULL) {
		value_set(v, "not_applied", kept_rows(g->kept));
	}
	if (g->messages != NULL && g->messages[0] != '\0') {
		value_set(v, "warnings", line_rows(g->messages));
	}
	return v;
}

void command_config_status(struct order *o)
{
	struct generation_fact list[GENERATIONS_MAX];
	uint32_t count = generations_list(o->program, list);
	json_t *v = value_object();
	json_t *rows = value_array();

	value_set_number(v, "generation", list[0].number);
	value_set_number(v, "alive", count);
	value_set_bool(v, "changing", generations_busy(o->program));
	value_set_text(v, "file", config_path(order_config(o)));
	for (uint32_t i = 0; i < count; i++) {
		json_t *row = value_object();

		value_set_number(row, "number", list[i].number);
		value_set_time(row, "loaded", list[i].since_ms);
		value_set_number(row, "readers", list[i].readers);
		value_append(rows, row);
	}
	value_set_number(v, "patterns_given_up", config_pattern_failures(order_config(o)));
	value_set(v, "generations", rows);
	order_answer(o, v);
}
