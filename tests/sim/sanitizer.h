/*
 * The compiler's sanitizers, when the program was built with them: what they find becomes the
 * reason why a run failed. Nothing happens in other builds.
 */
#pragma once

/* From here on what ends this process says so in world->failure; its report goes to stderr. */
void sanitizer_watch(void);

/* Memory that nothing points to any more: World_fail()s. */
void sanitizer_check_leaks(void);
