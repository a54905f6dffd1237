/*
 * A lane's idle connections: a list, the one that was used last first, so that those which are too
 * many time out.
 */
#pragma once

#include "core/outbound/connection.h"

BOUND
void lane_add_idle(struct connection *c);
BOUND
void lane_remove_idle(struct connection *c);
