/*
 * The books and bindings: what a message asks for, which binding may have got it, and that all that
 * is said of it names the same one.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/books_parts.h"
#include "tests/sim/world.h"

static const struct scenario_binding *find(const char *name)
{
	const struct scenario *s = world->scenario;

	for (uint32_t i = 0; i < s->binding_count; i++) {
		if (strcmp(s->bindings[i].name, name) == 0) {
			return &s->bindings[i];
		}
	}
	return NULL;
}

/* Without any but the default one the field is as others are. */
static bool obeyed(void)
{
	return world->scenario != NULL && world->scenario->binding_count > 1;
}

void books_binding_draw(struct book_entry *e)
{
	static const char *const all[] = {"a", "b", "c",      SCENARIO_GROUP, SCENARIO_GROUP,
					  "",  "A", "default"};
	static const char *const forms[] = {"X-Binding: %s\r\n", "x-binding:%s \r\n",
					    "X-BINDING:\r\n\t%s\r\n",
					    "X-Binding: %s\r\nX-Binding: b\r\n"};

	if (world->scenario == NULL || !world_chance(obeyed() ? 600 : 100)) {
		return;
	}
	e->asked = all[world_below(sizeof(all) / sizeof(all[0]))];
	/* A line of blanks may end a header elsewhere: nobody says it. */
	e->field_len = (uint32_t)snprintf(e->head, sizeof(e->head),
					  forms[world_below(sizeof(forms) / sizeof(forms[0])) %
						(e->asked[0] != '\0' ? 4 : 2)],
					  e->asked);
}

uint32_t books_binding_taken(const struct book_entry *e)
{
	return obeyed() ? e->field_len : 0;
}

void books_binding_ordered(struct books *b, uint32_t binding)
{
	b->binding_ordered[binding] = true;
}

/* What it was to be sent by; the default binding, when nobody has said, or nobody knows that. */
static const char *wanted(const struct book_entry *e)
{
	const char *name = e->asked;

	if (e->about != NULL || !obeyed()) {
		return "default";
	}
	if (name == NULL || name[0] == '\0') {
		name = world->scenario->listen_bindings[e->m.durability];
	}
	return name != NULL && (strcmp(name, SCENARIO_GROUP) == 0 || find(name) != NULL)
		       ? name
		       : "default";
}

/* Whether another one of the group was to be preferred all through this life. */
static bool is_passed_over(const struct books *b, const struct scenario_binding *x)
{
	const struct scenario *s = world->scenario;
	bool better = false;

	for (uint32_t i = 0; i < s->binding_count; i++) {
		if (s->bindings[i].grouped && b->binding_ordered[i]) {
			return false;
		}
		better = better || (s->bindings[i].grouped && !s->bindings[i].suspended);
	}
	return x->suspended && better;
}

static void check_choice(const struct books *b, const struct book_entry *e, const char *binding)
{
	const char *name = wanted(e);
	const struct scenario_binding *x;

	if (strcmp(name, SCENARIO_GROUP) != 0) {
		if (strcmp(binding, name) != 0) {
			world_fail("%s is sent by binding %s, not by %s", books_name(e), binding,
				   name);
		}
		return;
	}
	x = find(binding);
	if (x == NULL || !x->grouped) {
		world_fail("%s is sent by binding %s, which is not in the group", books_name(e),
			   binding);
	}
	if (is_passed_over(b, x)) {
		world_fail("%s is sent by binding %s, which is suspended", books_name(e), binding);
	}
}

void books_rebind_ordered(struct books *b, const char *domain)
{
	struct book_domain *d = books_domain(b, domain);

	if (d != NULL) {
		d->rebound = true;
	}
}

static bool may_be_rebound(struct books *b, const struct book_entry *e)
{
	for (uint32_t i = 0; i < e->group_count; i++) {
		const struct book_domain *d = books_domain(b, e->groups[i].domain);

		if (d != NULL && d->rebound) {
			return true;
		}
	}
	return false;
}

void books_binding_check(struct books *b, struct book_entry *e, const char *group,
			 const char *binding, enum event_kind kind)
{
	const struct scenario_binding *x;

	if (world->scenario == NULL) {
		return;
	}
	x = find(binding);
	if (x == NULL || strcmp(group, x->grouped ? SCENARIO_GROUP : "default") != 0) {
		world_fail("%s: a %s says binding %s of group %s", books_name(e),
			   event_kind_name(kind), binding, group);
	}
	if (e->binding == NULL) {
		/* A life may end before its reception is logged. */
		if (kind == EVENT_RECEPTION) {
			check_choice(b, e, binding);
		}
		e->binding = x->name;
	}
	if (strcmp(e->binding, binding) != 0 && !may_be_rebound(b, e)) {
		world_fail("%s: a %s says binding %s, an earlier one %s", books_name(e),
			   event_kind_name(kind), binding, e->binding);
	}
}
