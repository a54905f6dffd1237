/*
 * Intrusive list of sessions: O(1) to add and to take out, in order of addition. A link that is in
 * no list points to nothing. Belongs to the listener's scheduler.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/runtime/thread_class.h"

BOUND
struct session_link {
	struct session_link *next;
	struct session_link *prev;
};

/* An empty list is a link that points to itself. */
static inline void session_list_init(struct session_link *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool session_list_empty(const struct session_link *list)
{
	return list->next == list;
}

static inline bool session_linked(const struct session_link *link)
{
	return link->next != NULL;
}

/* At the end. `link` is in no list. */
static inline void session_list_add(struct session_link *list, struct session_link *link)
{
	link->next = list;
	link->prev = list->prev;
	list->prev->next = link;
	list->prev = link;
}

/* Idempotent. */
static inline void session_list_remove(struct session_link *link)
{
	if (session_linked(link)) {
		link->prev->next = link->next;
		link->next->prev = link->prev;
		link->next = NULL;
		link->prev = NULL;
	}
}
