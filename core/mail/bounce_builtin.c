#include "core/mail/bounce_builtin.h"

/* The compiler runs in the root of the source; the Makefile knows that this depends on the file. */
__asm__(".section .rodata\n"
	".global bounce_builtin\n"
	"bounce_builtin:\n"
	".incbin \"config/bounce_rules\"\n"
	".global bounce_builtin_end\n"
	"bounce_builtin_end:\n"
	".byte 0\n"
	".text\n");
