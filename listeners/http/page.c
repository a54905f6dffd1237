#include "listeners/http/page.h"

/* The compiler runs in the root of the source; the Makefile knows that this depends on the file. */
__asm__(".section .rodata\n"
	".global http_page\n"
	"http_page:\n"
	".incbin \"listeners/http/page.html\"\n"
	".global http_page_end\n"
	"http_page_end:\n"
	".byte 0\n"
	".text\n");

extern const char http_page[];
extern const char http_page_end[];

const char *page_text(void)
{
	return http_page;
}

size_t page_size(void)
{
	return (size_t)(http_page_end - http_page);
}
