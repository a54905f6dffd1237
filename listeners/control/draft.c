#include "listeners/control/draft.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

struct draft *draft_create(struct config *base)
{
	struct draft *draft =
		check_memory(calloc(1, sizeof(*draft)), "changes of the configuration");

	draft->base = config_hold(base);
	return draft;
}

void draft_free(struct draft *draft)
{
	if (draft != NULL) {
		overlay_free(&draft->changes);
		config_release(draft->base);
		free(draft);
	}
}

/* A value, and who set it. */
struct told {
	char *value;
	char *origin;
};

static void keep(void *context, const struct config_setting *setting)
{
	struct told *told = context;

	told->value = check_memory(strdup(setting->value), "changes of the configuration");
	told->origin = check_memory(strdup(setting->origin), "changes of the configuration");
}

static struct told ask(const struct config *config, const struct overlay_change *change)
{
	struct told told = {NULL, NULL};

	(void)config_get(config, &change->scope, change->option, keep, &told);
	return told;
}

static void told_free(struct told *told)
{
	free(told->value);
	free(told->origin);
}

static void tell_conflict(const struct overlay_change *c, const struct config *base,
			  const struct config *running, FILE *errors)
{
	struct told then = ask(base, c);
	struct told now = ask(running, c);
	char scope[CONFIG_SCOPE_TEXT];

	fprintf(errors, "%s %s would be overwritten: it is %s%s%s now, and was %s\n",
		config_scope_text(&c->scope, scope, sizeof(scope)), c->option,
		now.value != NULL ? now.value : "not set", now.value != NULL ? ", " : "",
		now.value != NULL ? now.origin : "", then.value != NULL ? then.value : "not set");
	told_free(&then);
	told_free(&now);
}

unsigned draft_conflicts(const struct draft *draft, const struct config *running, FILE *errors)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < draft->changes.count; i++) {
		const struct overlay_change *c = &draft->changes.changes[i];

		/* Each option is told once. */
		if (overlay_find(&draft->changes, &c->scope, c->option) == c &&
		    !config_same_setting(draft->base, running, &c->scope, c->option)) {
			count++;
			tell_conflict(c, draft->base, running, errors);
		}
	}
	return count;
}
