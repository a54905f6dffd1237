/*
 * Events as JSON: one object each, in UTF-8, without line breaks. config/events.schema.json says
 * which keys there are: strings that are empty and numbers that do not apply are left out. An octet
 * that is not part of a UTF-8 character becomes U+FFFD.
 */
#pragma once

#include <stddef.h>

#include "core/log/event.h"
#include "core/mail/bounce_class.h"
#include "core/runtime/thread_class.h"

/* Longest object. What would be longer lacks the end of its longest strings, or its last pairs. */
#define EVENT_JSON_MAX 61440

/* Room that the object of a decoded event needs, at most EVENT_JSON_MAX. */
SINGLE
size_t event_json_room(const struct event *e);

/* Writes the object to `to` of `room` bytes (event_json_room(), or more), without a NUL; returns
 * its length. Classes of bounces are named by `rules`; NULL: by number alone. */
SINGLE
size_t event_json(char *to, size_t room, const struct event *e, const struct bounce_rules *rules);
