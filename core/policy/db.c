#include "core/policy/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

const struct db_driver *db_driver_of(const char *uri, const char **target)
{
	static const struct db_driver *const drivers[] = {&db_sqlite, &db_redis};

	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
		size_t len = strlen(drivers[i]->name);

		if (strncmp(uri, drivers[i]->name, len) == 0 && uri[len] == ':' &&
		    uri[len + 1] != '\0') {
			*target = uri + len + 1;
			return drivers[i];
		}
	}
	return NULL;
}

const struct db_parameter *db_parameter_at(const struct db_query *q, int index)
{
	for (uint32_t i = 0; i < q->parameter_count; i++) {
		if (q->parameters[i].name == NULL && q->parameters[i].index == index) {
			return &q->parameters[i];
		}
	}
	return NULL;
}

const struct db_parameter *db_parameter_named(const struct db_query *q, const char *name)
{
	for (uint32_t i = 0; i < q->parameter_count; i++) {
		if (q->parameters[i].name != NULL && strcmp(q->parameters[i].name, name) == 0) {
			return &q->parameters[i];
		}
	}
	return NULL;
}

static bool add_cell(struct db_result *r, const struct db_cell *cell)
{
	if (r->cell_count * sizeof(*cell) + r->text.len + cell->len > DB_RESULT_BYTES) {
		snprintf(r->why, DB_WHY, "the answer is larger than %llu bytes",
			 (unsigned long long)DB_RESULT_BYTES);
		return false;
	}
	if (r->cell_count == r->cell_room) {
		r->cell_room = r->cell_room != 0 ? 2 * r->cell_room : 16;
		r->cells = check_memory(reallocarray(r->cells, r->cell_room, sizeof(*r->cells)),
					"the answer of a database");
	}
	r->cells[r->cell_count++] = *cell;
	return true;
}

bool db_add_null(struct db_result *r)
{
	return add_cell(r, &(struct db_cell){.type = DB_NULL});
}

bool db_add_number(struct db_result *r, double number)
{
	return add_cell(r, &(struct db_cell){.type = DB_NUMBER, .number = number});
}

bool db_add_text(struct db_result *r, const char *text, size_t len)
{
	if (!add_cell(r, &(struct db_cell){.type = DB_TEXT, .at = r->text.len, .len = len})) {
		return false;
	}
	policy_text_append(&r->text, text, len);
	return true;
}

void db_result_close(struct db_result *r)
{
	policy_text_close(&r->names);
	policy_text_close(&r->text);
	free(r->cells);
	*r = (struct db_result){0};
}

void db_query_close(struct db_query *q)
{
	for (uint32_t i = 0; i < q->parameter_count; i++) {
		free(q->parameters[i].name);
		free(q->parameters[i].text);
	}
	free(q->parameters);
	free(q->text);
	*q = (struct db_query){0};
}
