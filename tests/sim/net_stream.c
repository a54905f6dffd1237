#include "tests/sim/net_stream.h"

#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/world.h"

#define BUFFER_FIRST 512U

static void make_room(struct net_stream *s, size_t len)
{
	size_t room = s->room != 0 ? s->room : BUFFER_FIRST;
	char *data;

	if (s->start + s->len + len <= s->room) {
		return;
	}
	if (s->len + len <= s->room / 2) {
		memmove(s->data, s->data + s->start, s->len);
		s->start = 0;
		return;
	}
	while (room < s->len + len) {
		room *= 2;
	}
	data = world_alloc(room);
	if (s->len > 0) {
		memcpy(data, s->data + s->start, s->len);
	}
	world_free(s->data, s->room);
	s->data = data;
	s->room = room;
	s->start = 0;
}

void stream_append(struct net_stream *s, const void *data, size_t len)
{
	ASSERT(len <= stream_window(s));
	make_room(s, len);
	memcpy(s->data + s->start + s->len, data, len);
	s->len += len;
}

static void resolve(struct net_mark *m, bool read)
{
	m->fn(m->context, m->value, read);
	world_free(m, sizeof *m);
}

void stream_take(struct net_stream *s, void *data, size_t len)
{
	ASSERT(len <= s->arrived);
	memcpy(data, s->data + s->start, len);
	s->arrived -= len;
	s->len -= len;
	s->start = s->len > 0 ? s->start + len : 0;
	s->read_total += len;
	while (s->marks != NULL && s->marks->position <= s->read_total) {
		struct net_mark *m = s->marks;

		s->marks = m->next;
		resolve(m, true);
	}
}

void stream_mark(struct net_stream *s, net_mark_fn fn, void *context, uint64_t value)
{
	struct net_mark *m = world_alloc(sizeof *m);
	struct net_mark **at = &s->marks;

	ASSERT(s->len > 0);
	while (*at != NULL) {
		at = &(*at)->next;
	}
	*m = (struct net_mark){s->read_total + s->len, fn, context, value, NULL};
	*at = m;
}

void stream_discard(struct net_stream *s, bool all)
{
	struct net_mark **at = &s->marks;

	if (all) {
		s->arrived = 0;
	}
	s->len = s->arrived;
	while (*at != NULL) {
		struct net_mark *m = *at;

		if (m->position <= s->read_total + s->len) {
			at = &m->next;
			continue;
		}
		*at = m->next;
		resolve(m, false);
	}
}

void stream_free(struct net_stream *s)
{
	ASSERT(s->marks == NULL);
	world_free(s->data, s->room);
}
