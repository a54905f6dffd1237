#include "tools/console_pager.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGER "less -FRX"
#define SCREEN_WIDTH 80
#define SCREEN_HEIGHT 24
/* The prompt comes below. */
#define LINES_KEPT 1
/* Of a shell: it has not found the command, or may not run it. */
#define EXIT_NO_COMMAND 126

size_t pager_lines(const char *text, size_t len, size_t columns)
{
	size_t lines = 0;
	size_t width = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n') {
			lines++;
			width = 0;
		} else if (((unsigned char)text[i] & 0xc0) != 0x80) {
			width++;
			if (width > columns) {
				lines++;
				width = 1;
			}
		}
	}
	return lines + (width > 0);
}

static bool fits(const char *text, size_t len)
{
	struct winsize size = {.ws_row = 0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
		size.ws_row = SCREEN_HEIGHT;
		size.ws_col = SCREEN_WIDTH;
	}
	return pager_lines(text, len, size.ws_col) + LINES_KEPT <= size.ws_row;
}

/* False: there is no such pager. ^C is the pager's meanwhile. */
static bool page(const char *pager, const char *text, size_t len)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction saved;
	FILE *out;
	int status;

	fflush(stdout);
	out = popen(pager, "w");
	if (out == NULL) {
		return false;
	}
	sigaction(SIGINT, &ignore, &saved);
	/* Who leaves it before the end breaks the pipe, which is nobody's mistake. */
	fwrite(text, 1, len, out);
	status = pclose(out);
	sigaction(SIGINT, &saved, NULL);
	return !(WIFEXITED(status) && WEXITSTATUS(status) >= EXIT_NO_COMMAND);
}

void pager_show(const char *text, size_t len)
{
	const char *pager = getenv("PAGER");

	pager = pager != NULL ? pager : PAGER;
	if (fits(text, len) || pager[0] == '\0' || !page(pager, text, len)) {
		fwrite(text, 1, len, stdout);
	}
	fflush(stdout);
}
