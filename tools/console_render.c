#include "tools/console_render.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KEY_TEXT 128
#define COLUMNS_MAX 32
#define NESTING_MAX 16
#define INDENT 2

static void render_value(const json_t *value, FILE *out, unsigned level);

static void *checked(void *p)
{
	if (p == NULL) {
		fputs("flywheel: out of memory\n", stderr);
		exit(2);
	}
	return p;
}

static char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *text_format(const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0) {
		text = NULL;
	}
	va_end(args);
	return checked(text);
}

/* ---- text ---- */

static bool is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* In characters. */
static size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text != '\0'; text++) {
		width += !is_continuation(*text);
	}
	return width;
}

/* In place: C0, DEL and C1 characters become "?". */
static char *make_harmless(char *text)
{
	char *to = text;

	for (const char *from = text; *from != '\0'; from++) {
		unsigned char c = (unsigned char)*from;

		if (c < 32 || c == 127) {
			*to++ = '?';
		} else if (c == 0xc2 && (unsigned char)from[1] < 0xa0 && from[1] != '\0') {
			*to++ = '?';
			from++;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	return text;
}

static void put_padded(FILE *out, const char *text, size_t width)
{
	size_t own = text_width(text);

	fprintf(out, "%s%*s", text, own < width ? (int)(width - own) : 0, "");
}

/* ---- units ---- */

static const char *const units[] = {"_per_s", "_bytes", "_ms", "_us", "_ns", "_s", "_at"};

static bool ends_with(const char *text, size_t len, const char *end)
{
	size_t end_len = strlen(end);

	return len > end_len && memcmp(text + len - end_len, end, end_len) == 0;
}

/* The unit that a key ends in; empty when there is none. */
static const char *unit_of(const char *key)
{
	size_t len = strlen(key);

	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (ends_with(key, len, units[i])) {
			return units[i];
		}
	}
	return "";
}

void console_key_text(const char *key, char *text, size_t size)
{
	size_t len = strlen(key) - strlen(unit_of(key));
	size_t i;

	for (i = 0; i < len && i + 1 < size; i++) {
		text[i] = key[i] == '_' ? ' ' : key[i];
	}
	text[i] = '\0';
	text[0] = (char)toupper((unsigned char)text[0]);
	make_harmless(text);
}

static char *bytes_text(double bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned i = 0;

	while (bytes >= 1024 && i + 1 < sizeof(names) / sizeof(names[0])) {
		bytes /= 1024;
		i++;
	}
	return text_format(i == 0 ? "%.0f %s" : "%.1f %s", bytes, names[i]);
}

static char *duration_text(double seconds)
{
	unsigned long long s = (unsigned long long)seconds;

	if (seconds < 0) {
		return text_format("%.3g s", seconds);
	}
	if (seconds < 0.001 && seconds > 0) {
		return text_format("%.3g us", seconds * 1e6);
	}
	if (seconds < 1 && seconds > 0) {
		return text_format("%.3g ms", seconds * 1e3);
	}
	if (seconds < 60) {
		return text_format("%.3g s", seconds);
	}
	if (s < 3600) {
		return text_format("%llum %02llus", s / 60, s % 60);
	}
	if (s < 86400) {
		return text_format("%lluh %02llum %02llus", s / 3600, s / 60 % 60, s % 60);
	}
	return text_format("%llud %02lluh %02llum", s / 86400, s / 3600 % 24, s / 60 % 60);
}

static char *number_text(const char *key, const json_t *value)
{
	const char *unit = unit_of(key);
	double number = json_number_value(value);

	if (strcmp(unit, "_bytes") == 0) {
		return bytes_text(number);
	}
	if (strcmp(unit, "_per_s") == 0) {
		return text_format("%.1f/s", number);
	}
	if (strcmp(unit, "_s") == 0) {
		return duration_text(number);
	}
	if (strcmp(unit, "_ms") == 0) {
		return duration_text(number / 1e3);
	}
	if (strcmp(unit, "_us") == 0) {
		return duration_text(number / 1e6);
	}
	if (strcmp(unit, "_ns") == 0) {
		return duration_text(number / 1e9);
	}
	if (json_is_integer(value)) {
		return text_format("%lld", (long long)json_integer_value(value));
	}
	return text_format("%.3f", number);
}

/* "a, b, c" */
static char *list_text(const char *key, const json_t *array)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = checked(open_memstream(&text, &len));

	for (size_t i = 0; i < json_array_size(array); i++) {
		char *item = console_value_text(key, json_array_get(array, i));

		fprintf(f, "%s%s", i != 0 ? ", " : "", item);
		free(item);
	}
	fclose(f);
	return checked(text);
}

char *console_value_text(const char *key, const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_STRING:
		return make_harmless(checked(strdup(json_string_value(value))));
	case JSON_INTEGER:
	case JSON_REAL:
		return number_text(key, value);
	case JSON_TRUE:
		return text_format("yes");
	case JSON_FALSE:
		return text_format("no");
	case JSON_NULL:
		return text_format("-");
	case JSON_ARRAY:
		return list_text(key, value);
	case JSON_OBJECT:
		break;
	}
	return make_harmless(checked(json_dumps(value, JSON_COMPACT)));
}

/* ---- tables ---- */

struct column {
	const char *key;
	char heading[KEY_TEXT];
	size_t width;
	/* All its values are numbers. */
	bool right;
};

struct table {
	struct column columns[COLUMNS_MAX];
	unsigned column_count;
	const json_t *rows;
	/* Row by row. */
	char **cells;
};

static unsigned column_of(struct table *t, const char *key)
{
	unsigned i = 0;

	while (i < t->column_count && strcmp(t->columns[i].key, key) != 0) {
		i++;
	}
	if (i == t->column_count && i < COLUMNS_MAX) {
		struct column *c = &t->columns[t->column_count++];

		c->key = key;
		c->right = true;
		console_key_text(key, c->heading, sizeof(c->heading));
		c->width = text_width(c->heading);
	}
	return i;
}

/* All keys, in order of their first appearance. */
static void find_columns(struct table *t)
{
	const char *key;
	json_t *value;

	for (size_t i = 0; i < json_array_size(t->rows); i++) {
		json_object_foreach(json_array_get(t->rows, i), key, value)
		{
			unsigned c = column_of(t, key);

			if (c < COLUMNS_MAX && !json_is_number(value) && !json_is_null(value)) {
				t->columns[c].right = false;
			}
		}
	}
}

static void fill_cells(struct table *t)
{
	size_t rows = json_array_size(t->rows);

	t->cells = checked(calloc(rows * t->column_count + 1, sizeof(char *)));
	for (size_t i = 0; i < rows; i++) {
		const json_t *row = json_array_get(t->rows, i);

		for (unsigned c = 0; c < t->column_count; c++) {
			const json_t *value = json_object_get(row, t->columns[c].key);
			char *text = value != NULL ? console_value_text(t->columns[c].key, value)
						   : checked(strdup(""));
			size_t width = text_width(text);

			t->cells[i * t->column_count + c] = text;
			t->columns[c].width =
				width > t->columns[c].width ? width : t->columns[c].width;
		}
	}
}

/* Blanks are written when something comes after them, so that no line ends in them. */
static void put_cell(FILE *out, const struct column *column, const char *text, size_t *blanks)
{
	size_t own = text_width(text);
	size_t pad = column->width - own;

	if (own == 0) {
		*blanks += column->width + 2;
		return;
	}
	*blanks += column->right ? pad : 0;
	fprintf(out, "%*s%s", (int)*blanks, "", text);
	*blanks = 2 + (column->right ? 0 : pad);
}

static void put_headings(FILE *out, const struct table *t, unsigned level)
{
	size_t blanks = level * INDENT;

	for (unsigned c = 0; c < t->column_count; c++) {
		put_cell(out, &t->columns[c], t->columns[c].heading, &blanks);
	}
	putc('\n', out);
}

static void put_row(FILE *out, const struct table *t, size_t row, unsigned level)
{
	size_t blanks = level * INDENT;

	for (unsigned c = 0; c < t->column_count; c++) {
		put_cell(out, &t->columns[c], t->cells[row * t->column_count + c], &blanks);
	}
	putc('\n', out);
}

static void render_table(const json_t *rows, FILE *out, unsigned level)
{
	struct table t = {.rows = rows};
	size_t count = json_array_size(rows);

	find_columns(&t);
	fill_cells(&t);
	put_headings(out, &t, level);
	for (size_t i = 0; i < count; i++) {
		put_row(out, &t, i, level);
	}
	for (size_t i = 0; i < count * t.column_count; i++) {
		free(t.cells[i]);
	}
	free(t.cells);
}

/* ---- objects ---- */

static bool is_rows(const json_t *value)
{
	return json_is_array(value) && json_is_object(json_array_get(value, 0));
}

/* Goes under a heading of its own. */
static bool is_nested(const json_t *value)
{
	return is_rows(value) || json_is_object(value);
}

static bool is_empty(const json_t *value)
{
	return json_is_array(value) && json_array_size(value) == 0;
}

static size_t key_width(const json_t *object)
{
	char text[KEY_TEXT];
	const char *key;
	json_t *value;
	size_t width = 0;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		if (!is_nested(value)) {
			size_t own;

			console_key_text(key, text, sizeof(text));
			own = text_width(text);
			width = own > width ? own : width;
		}
	}
	return width;
}

static void put_line(FILE *out, const char *key, const json_t *value, size_t width, unsigned level)
{
	char heading[KEY_TEXT + 1];
	char *text = is_empty(value) ? checked(strdup("none")) : console_value_text(key, value);

	console_key_text(key, heading, KEY_TEXT);
	strcat(heading, ":");
	fprintf(out, "%*s", (int)level * INDENT, "");
	put_padded(out, heading, text[0] != '\0' ? width + 3 : 0);
	fprintf(out, "%s\n", text);
	free(text);
}

/* Plain values first, then what is nested. */
static void render_object(const json_t *object, FILE *out, unsigned level)
{
	size_t width = key_width(object);
	const char *key;
	json_t *value;
	bool first = true;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		if (!is_nested(value)) {
			put_line(out, key, value, width, level);
			first = false;
		}
	}
	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		char heading[KEY_TEXT];

		if (!is_nested(value)) {
			continue;
		}
		console_key_text(key, heading, sizeof(heading));
		fprintf(out, "%s%*s%s\n", first ? "" : "\n", (int)level * INDENT, "", heading);
		render_value(value, out, level + 1);
		first = false;
	}
}

/* A row has something that does not fit into a cell. */
static bool has_nested(const json_t *rows)
{
	for (size_t i = 0; i < json_array_size(rows); i++) {
		const char *key;
		json_t *value;

		json_object_foreach(json_array_get(rows, i), key, value)
		{
			if (is_nested(value)) {
				return true;
			}
		}
	}
	return false;
}

/* One after the other, as objects. */
static void render_rows(const json_t *rows, FILE *out, unsigned level)
{
	for (size_t i = 0; i < json_array_size(rows); i++) {
		if (i != 0) {
			putc('\n', out);
		}
		render_value(json_array_get(rows, i), out, level);
	}
}

static void render_value(const json_t *value, FILE *out, unsigned level)
{
	char *text;

	if (is_rows(value) && level < NESTING_MAX && has_nested(value)) {
		render_rows(value, out, level);
	} else if (is_rows(value)) {
		render_table(value, out, level);
	} else if (json_is_object(value) && level < NESTING_MAX) {
		render_object(value, out, level);
	} else {
		text = is_empty(value) ? checked(strdup("none")) : console_value_text("", value);
		fprintf(out, "%*s%s\n", (int)level * INDENT, "", text);
		free(text);
	}
}

void console_render(const json_t *result, FILE *out)
{
	render_value(result, out, 0);
}

void console_put(const json_t *result, bool json, FILE *out)
{
	if (json) {
		json_dumpf(result, out, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));
		putc('\n', out);
	} else {
		console_render(result, out);
	}
}
