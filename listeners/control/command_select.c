/*
 * Commands that say by selectors which mail they mean: selection.h.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "listeners/control/command.h"
#include "listeners/control/selection.h"

void command_find(struct order *o)
{
	selection_begin(o, SELECTION_FIND, 0);
}

void command_hold(struct order *o)
{
	selection_begin(o, SELECTION_HOLD, 0);
}

void command_release(struct order *o)
{
	selection_begin(o, SELECTION_RELEASE, 0);
}

void command_fail(struct order *o)
{
	selection_begin(o, SELECTION_FAIL, 0);
}

void command_reroute(struct order *o)
{
	selection_begin(o, SELECTION_REROUTE, 0);
}

void command_rebind(struct order *o)
{
	selection_begin(o, SELECTION_REBIND, 0);
}

bool command_fail_selects(struct order *o)
{
	if (o->argument_count < 2 || !select_begins(o->arguments[1])) {
		return false;
	}
	/* The last word of the command's name is the first selector's key. */
	o->arguments--;
	o->argument_count++;
	selection_begin(o, SELECTION_FAIL, 0);
	return true;
}
