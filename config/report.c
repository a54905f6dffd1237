#include "config/report.h"

#include <stdarg.h>
#include <stdlib.h>

#include "core/runtime/check.h"

/* The longest path, and a line's number. */
enum { REPORT_PLACE = 4096 + 16 };

static void keep(struct report *report, struct source source, const char *severity,
		 const char *format, va_list arguments)
{
	if (report->message_count == REPORT_MAX) {
		return;
	}
	char *detail;
	char *text;
	if (vasprintf(&detail, format, arguments) < 0 ||
	    asprintf(&text, "%s%s", severity, detail) < 0) {
		fatal("configuration: out of memory");
	}
	free(detail);
	/* One message is one line, and does nothing to a terminal. */
	for (char *c = text; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f) {
			*c = '?';
		}
	}
	report->messages[report->message_count] = (struct report_message){
		.source = source,
		.number = report->message_count,
		.text = text,
	};
	report->message_count++;
}

void report_error(struct report *report, struct source source, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	keep(report, source, "", format, arguments);
	va_end(arguments);
	report->errors++;
}

void report_warning(struct report *report, struct source source, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	keep(report, source, "warning: ", format, arguments);
	va_end(arguments);
	report->warnings++;
}

static int compare_messages(const void *a, const void *b)
{
	const struct report_message *x = a;
	const struct report_message *y = b;
	if (x->source.file != y->source.file) {
		return x->source.file < y->source.file ? -1 : 1;
	}
	if (x->source.line != y->source.line) {
		return x->source.line < y->source.line ? -1 : 1;
	}
	return x->number < y->number ? -1 : 1;
}

void report_close(struct report *report)
{
	uint32_t more = report->errors + report->warnings - report->message_count;
	qsort(report->messages, report->message_count, sizeof(report->messages[0]),
	      compare_messages);
	for (uint32_t i = 0; i < report->message_count; i++) {
		const struct report_message *m = &report->messages[i];
		char place[REPORT_PLACE];
		fprintf(report->out, "%s: %s\n",
			tree_place_text(report->tree, m->source, place, sizeof(place)), m->text);
		free(m->text);
	}
	if (more != 0) {
		fprintf(report->out, "and %u more errors and warnings\n", more);
	}
	report->message_count = 0;
}
