#include "core/runtime/tls_sessions.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/runtime/fnv.h"

/* A key is looked for in so many places from where its hash points. */
#define WAYS 8

_Static_assert((TLS_SESSIONS_MAX & (TLS_SESSIONS_MAX - 1)) == 0, "places are masked hashes");

static struct tls_session_entry *place_of(struct tls_sessions *s, uint64_t hash, unsigned way)
{
	return &s->entries[(hash + way) & (TLS_SESSIONS_MAX - 1)];
}

static void entry_clear(struct tls_sessions *s, struct tls_session_entry *e)
{
	if (e->session != NULL) {
		SSL_SESSION_free(e->session);
		free(e->key);
		*e = (struct tls_session_entry){0};
		s->count--;
	}
}

void tls_sessions_init(struct tls_sessions *s)
{
	*s = (struct tls_sessions){0};
}

/* The same key keeps up to WAYS sessions, for as many connections at a time. */
void tls_sessions_keep(struct tls_sessions *s, const char *key, SSL_SESSION *session)
{
	uint64_t hash = fnv_text(FNV_START, key);
	struct tls_session_entry *victim;
	char *copy = strdup(key);

	if (s->entries == NULL) {
		s->entries = calloc(TLS_SESSIONS_MAX, sizeof *s->entries);
	}
	if (s->entries == NULL || copy == NULL) {
		free(copy);
		SSL_SESSION_free(session);
		return;
	}
	victim = place_of(s, hash, 0);
	for (unsigned way = 1; way < WAYS && victim->session != NULL; way++) {
		struct tls_session_entry *e = place_of(s, hash, way);

		if (e->session == NULL || e->age < victim->age) {
			victim = e;
		}
	}
	entry_clear(s, victim);
	*victim = (struct tls_session_entry){hash, session, ++s->clock, copy};
	s->count++;
}

static bool is_over(const SSL_SESSION *session, long now)
{
	return SSL_SESSION_get_time(session) + SSL_SESSION_get_timeout(session) <= now;
}

/* The newest session of `key`. */
static struct tls_session_entry *find(struct tls_sessions *s, const char *key)
{
	uint64_t hash = fnv_text(FNV_START, key);
	struct tls_session_entry *found = NULL;

	for (unsigned way = 0; way < WAYS; way++) {
		struct tls_session_entry *e = place_of(s, hash, way);

		if (e->session != NULL && e->hash == hash && strcmp(e->key, key) == 0 &&
		    (found == NULL || e->age > found->age)) {
			found = e;
		}
	}
	return found;
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *s, const char *key)
{
	struct tls_session_entry *e = s->entries != NULL ? find(s, key) : NULL;
	SSL_SESSION *session;

	if (e == NULL) {
		return NULL;
	}
	if (is_over(e->session, (long)time(NULL))) {
		entry_clear(s, e);
		return NULL;
	}
	session = e->session;
	SSL_SESSION_up_ref(session);
	if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION) {
		entry_clear(s, e);
	}
	return session;
}

void tls_sessions_close(struct tls_sessions *s)
{
	for (unsigned i = 0; s->entries != NULL && i < TLS_SESSIONS_MAX; i++) {
		entry_clear(s, &s->entries[i]);
	}
	free(s->entries);
	tls_sessions_init(s);
}
