/*
 * The tap of a stream: it takes the place of the owner's receive callback, and passes on.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/stream.h"

#define NOTE_MAX 512

static void tapped_received(struct stream *s, const unsigned char *data, int result)
{
	stream_received_fn owner_received = s->tap->owner_received;

	if (result > 0) {
		s->tap->ops->received(s->tap, data, (size_t)result);
	} else if (result == 0 || result == -ECONNABORTED) {
		stream_note(s, "the peer closed its side");
	} else if (result != -ECANCELED) {
		stream_note(s, "the connection is lost: %s", strerror(-result));
	}
	owner_received(s, data, result);
}

void stream_tap_on(struct stream *s, struct stream_tap *t)
{
	ASSERT(s->tap == NULL);
	t->owner_received = s->on_received;
	s->on_received = tapped_received;
	s->tap = t;
	s->direct = false;
}

void stream_tap_off(struct stream *s)
{
	ASSERT(s->tap != NULL);
	s->on_received = s->tap->owner_received;
	s->tap = NULL;
	s->direct = s->tls == NULL;
}

void stream_note(struct stream *s, const char *format, ...)
{
	char text[NOTE_MAX];
	va_list args;

	if (s->tap == NULL) {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	s->tap->ops->note(s->tap, text);
}

void stream_note_secured(struct stream *s, int result)
{
	struct tls_agreed agreed;

	if (result != 0) {
		stream_note(s, "TLS handshake failed: %s", stream_why(s));
		return;
	}
	agreed = stream_agreed(s);
	stream_note(s, "TLS: %s, %s, certificate of the peer: %s%s", agreed.version, agreed.cipher,
		    agreed.verification, agreed.resumed ? ", resumed" : "");
}
