#include "listeners/smtp/auth_limit.h"

#include <string.h>

#include "core/runtime/fnv.h"

#define MS_PER_S 1000

static struct in6_addr client_of(const struct in6_addr *peer)
{
	struct in6_addr client = *peer;

	if (!IN6_IS_ADDR_V4MAPPED(peer)) {
		memset(&client.s6_addr[8], 0, 8);
	}
	return client;
}

static struct auth_failures *row_of(struct auth_limit *l, const struct in6_addr *client)
{
	uint64_t hash = fnv_bytes(FNV_START, client->s6_addr, sizeof(client->s6_addr));

	return l->places[(hash ^ hash >> 32) % AUTH_LIMIT_ROWS];
}

static struct auth_failures *find(struct auth_limit *l, const struct in6_addr *client)
{
	struct auth_failures *row = row_of(l, client);

	for (unsigned i = 0; i < AUTH_LIMIT_ROW; i++) {
		if (row[i].count > 0 && memcmp(&row[i].peer, client, sizeof(*client)) == 0) {
			return &row[i];
		}
	}
	return NULL;
}

/* A free place, or that of the client whose period began first. */
static struct auth_failures *make_place(struct auth_limit *l, const struct in6_addr *client)
{
	struct auth_failures *row = row_of(l, client);
	struct auth_failures *place = &row[0];

	for (unsigned i = 0; i < AUTH_LIMIT_ROW && place->count > 0; i++) {
		if (row[i].count == 0 || row[i].began_ms < place->began_ms) {
			place = &row[i];
		}
	}
	return place;
}

bool auth_limit_take(struct auth_limit *l, const struct in6_addr *peer, struct rate rate,
		     uint64_t now_ms)
{
	struct in6_addr client = client_of(peer);
	struct auth_failures *f = find(l, &client);

	if (rate.count == 0) {
		return true;
	}
	if (f == NULL) {
		f = make_place(l, &client);
		*f = (struct auth_failures){.peer = client, .began_ms = now_ms};
	} else if (now_ms - f->began_ms >= (uint64_t)rate.period_s * MS_PER_S) {
		f->began_ms = now_ms;
		f->count = 0;
	}
	if (f->count >= rate.count) {
		return false;
	}
	f->count++;
	return true;
}

void auth_limit_return(struct auth_limit *l, const struct in6_addr *peer)
{
	struct in6_addr client = client_of(peer);
	struct auth_failures *f = find(l, &client);

	if (f != NULL) {
		f->count--;
	}
}
