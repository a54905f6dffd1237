/*
 * What the sanitizers are told in every target.
 */
#include <sanitizer/lsan_interface.h>

/* Objects on a pool's free list are poisoned, and lead to the next one. */
const char *__lsan_default_options(void)
{
	return "use_poisoned=1";
}
