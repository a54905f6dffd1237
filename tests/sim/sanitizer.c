#include "tests/sim/sanitizer.h"

#include <stddef.h>
#include <stdio.h>

#include "tests/sim/world.h"

/* Of the sanitizers' libraries; NULL without them. */
__attribute__((weak)) int __lsan_do_recoverable_leak_check(void);
__attribute__((weak)) void __asan_set_error_report_callback(void (*report)(const char *text));
__attribute__((weak)) const char *__asan_get_report_description(void);
__attribute__((weak)) void __ubsan_get_current_report_data(const char **kind, const char **message,
							   const char **file, unsigned *line,
							   unsigned *column, char **address);
/* Called by the library for each report. */
void __ubsan_on_report(void);

static void on_report(const char *text)
{
	(void)text;
	snprintf(world->failure, sizeof world->failure, "the address sanitizer found: %s",
		 __asan_get_report_description != NULL ? __asan_get_report_description() : "");
}

void __ubsan_on_report(void)
{
	const char *kind, *message, *file;
	unsigned line, column;
	char *address;

	__ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
	snprintf(world->failure, sizeof world->failure, "undefined behaviour in %s, line %u: %s",
		 file, line, message);
}

void sanitizer_watch(void)
{
	if (__asan_set_error_report_callback != NULL) {
		__asan_set_error_report_callback(on_report);
	}
}

void sanitizer_check_leaks(void)
{
	if (__lsan_do_recoverable_leak_check != NULL && __lsan_do_recoverable_leak_check() != 0) {
		world_fail("memory leaked; the sanitizer's report says where it was taken");
	}
}
