/*
 * msys.audit_series: how often something happened, by key, in windows of time. A key is a text, or
 * an address, which counts for the networks around it as well. The keys of a series are bounded:
 * the one that was added to longest ago goes first. What is counted is this scheduler's.
 *
 * msys.audit: what the program itself counts of clients, on all schedulers.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"
#include "core/runtime/fnv.h"

#define SERIES_MAX 64
#define KEYS_MAX 100000
#define WINDOWS_MAX 1440
#define NAME_BYTES 64
#define KEY_BYTES 256
#define BUCKETS_MIN 64
/* All series together may take this part of the state's memory. */
#define SHARE 2

enum series_type { SERIES_CIDR, SERIES_CIDR_IPV6, SERIES_STRING };

SINGLE
struct audit_item {
	struct audit_item *chain;
	/* In the order in which they were added to. */
	struct audit_item *newer;
	struct audit_item *older;
	uint64_t hash;
	/* Number of the newest window in `counts`. */
	uint64_t window;
	size_t size;
	size_t key_len;
	/* By number of the window, modulo how many there are; the key behind them. */
	double counts[];
};

SINGLE
struct audit_series {
	struct audit_series *next;
	char name[NAME_BYTES];
	enum series_type type;
	double interval_s;
	uint32_t windows;
	struct audit_item **buckets;
	uint32_t bucket_count;
	uint32_t count;
	struct audit_item *newest;
	struct audit_item *oldest;
};

SINGLE
struct audit_key {
	size_t len;
	char bytes[KEY_BYTES];
};

/* ---- items ---- */

/* Memory of the state, which is bounded; of that, so much that the rest is enough for scripts.
 * NULL: there is none. */
static void *take(lua_State *state, size_t size)
{
	struct policy *p = policy_of(state);
	void *context;
	lua_Alloc allocate = lua_getallocf(state, &context);
	void *block;

	if (size > p->limits.memory_bytes / SHARE - p->series_bytes) {
		return NULL;
	}
	block = allocate(context, NULL, 0, size);
	p->series_bytes += block != NULL ? size : 0;
	return block;
}

static void give(lua_State *state, void *block, size_t size)
{
	void *context;
	lua_Alloc allocate = lua_getallocf(state, &context);

	policy_of(state)->series_bytes -= size;
	allocate(context, block, size, 0);
}

static uint64_t hash_of(const struct audit_key *k)
{
	uint64_t h = fnv_bytes(FNV_START, k->bytes, k->len);

	return h ^ h >> 32;
}

static char *key_of(const struct audit_series *s, struct audit_item *i)
{
	return (char *)&i->counts[s->windows];
}

static struct audit_item **place_of(struct audit_series *s, const struct audit_key *k,
				    uint64_t hash)
{
	struct audit_item **at = &s->buckets[hash & (s->bucket_count - 1)];

	while (*at != NULL && ((*at)->hash != hash || (*at)->key_len != k->len ||
			       memcmp(key_of(s, *at), k->bytes, k->len) != 0)) {
		at = &(*at)->chain;
	}
	return at;
}

static void unlink_age(struct audit_series *s, struct audit_item *i)
{
	*(i->newer != NULL ? &i->newer->older : &s->newest) = i->older;
	*(i->older != NULL ? &i->older->newer : &s->oldest) = i->newer;
}

static void link_newest(struct audit_series *s, struct audit_item *i)
{
	i->newer = NULL;
	i->older = s->newest;
	*(i->older != NULL ? &i->older->newer : &s->oldest) = i;
	s->newest = i;
}

static void drop(lua_State *state, struct audit_series *s, struct audit_item *i)
{
	struct audit_item **at = &s->buckets[i->hash & (s->bucket_count - 1)];

	while (*at != i) {
		at = &(*at)->chain;
	}
	*at = i->chain;
	unlink_age(s, i);
	s->count--;
	give(state, i, i->size);
}

static void drop_all(lua_State *state, struct audit_series *s)
{
	while (s->oldest != NULL) {
		drop(state, s, s->oldest);
	}
}

/* Without memory for it, chains grow longer. */
static void grow(lua_State *state, struct audit_series *s)
{
	uint32_t count = s->bucket_count * 2;
	struct audit_item **wide = take(state, count * sizeof(struct audit_item *));

	if (wide == NULL) {
		return;
	}
	memset(wide, 0, count * sizeof(struct audit_item *));
	for (struct audit_item *i = s->newest; i != NULL; i = i->older) {
		i->chain = wide[i->hash & (count - 1)];
		wide[i->hash & (count - 1)] = i;
	}
	give(state, s->buckets, s->bucket_count * sizeof(struct audit_item *));
	s->buckets = wide;
	s->bucket_count = count;
}

/* A key goes so that there is room for another one of `s`: of `s`, or of the series that has most.
 */
static void make_room(lua_State *state, struct audit_series *s)
{
	for (struct audit_series *other = policy_of(state)->series;
	     s->count < KEYS_MAX && other != NULL; other = other->next) {
		s = other->count > s->count ? other : s;
	}
	if (s->oldest == NULL) {
		luaL_error(state, "not enough memory");
	}
	drop(state, s, s->oldest);
}

static struct audit_item *make_item(lua_State *state, struct audit_series *s,
				    const struct audit_key *k, uint64_t hash)
{
	size_t size = sizeof(struct audit_item) + s->windows * sizeof(double) + k->len;
	struct audit_item *i = s->count < KEYS_MAX ? take(state, size) : NULL;
	struct audit_item **bucket;

	while (i == NULL) {
		make_room(state, s);
		i = take(state, size);
	}
	if (s->count >= s->bucket_count) {
		grow(state, s);
	}
	memset(i, 0, size);
	i->size = size;
	i->hash = hash;
	i->key_len = k->len;
	memcpy(key_of(s, i), k->bytes, k->len);
	bucket = &s->buckets[hash & (s->bucket_count - 1)];
	i->chain = *bucket;
	*bucket = i;
	link_newest(s, i);
	s->count++;
	return i;
}

/* ---- windows ---- */

static uint64_t window_now(lua_State *state, const struct audit_series *s)
{
	return (uint64_t)(policy_now_s(policy_of(state)) / s->interval_s);
}

static void add_to(lua_State *state, struct audit_series *s, const struct audit_key *k,
		   double change)
{
	uint64_t now = window_now(state, s);
	uint64_t hash = hash_of(k);
	struct audit_item *i = *place_of(s, k, hash);

	if (i == NULL) {
		i = make_item(state, s, k, hash);
		i->window = now;
	} else {
		unlink_age(s, i);
		link_newest(s, i);
	}
	/* Those in between had nothing; a clock that goes back adds to the newest. */
	for (uint32_t n = 0; n < s->windows && i->window < now; n++) {
		i->counts[++i->window % s->windows] = 0;
	}
	i->window = now > i->window ? now : i->window;
	i->counts[i->window % s->windows] += change;
}

/* Of the windows from `first` to `last` before this one. */
static double sum_of(lua_State *state, struct audit_series *s, const struct audit_key *k,
		     uint32_t first, uint32_t last)
{
	const struct audit_item *i = *place_of(s, k, hash_of(k));
	uint64_t now = window_now(state, s);
	double sum = 0;

	for (uint32_t back = first; i != NULL && back <= last && back < s->windows; back++) {
		uint64_t window = now > back ? now - back : 0;

		if (window <= i->window && i->window - window < s->windows) {
			sum += i->counts[window % s->windows];
		}
	}
	return sum;
}

/* ---- what scripts call ---- */

static struct audit_series *find(struct policy *p, const char *name)
{
	struct audit_series *s = p->series;

	while (s != NULL && strcmp(s->name, name) != 0) {
		s = s->next;
	}
	return s;
}

static struct audit_series *series_at(lua_State *state)
{
	const char *name = luaL_checkstring(state, 1);
	struct audit_series *s = find(policy_of(state), name);

	if (s == NULL) {
		luaL_error(state, "there is no series \"%s\": it is defined by init", name);
	}
	return s;
}

/* define(name, type, seconds, windows[, options]): the same again changes nothing. */
static int define(lua_State *state)
{
	static const char *const types[] = {"cidr", "cidr_ipv6", "string", NULL};
	struct policy *p = policy_of(state);
	size_t len;
	const char *name = luaL_checklstring(state, 1, &len);
	int type = luaL_checkoption(state, 2, NULL, types);
	double interval_s = luaL_checknumber(state, 3);
	int windows = luaL_checkint(state, 4);
	struct audit_series *s;

	luaL_argcheck(state, len > 0 && len < NAME_BYTES, 1, "1 to 63 bytes expected");
	luaL_argcheck(state, interval_s >= 1 && interval_s <= 31536000, 3,
		      "1 second to one year expected");
	luaL_argcheck(state, windows >= 1 && windows <= WINDOWS_MAX, 4, "1 to 1440 expected");
	if (find(p, name) != NULL) {
		return 0;
	}
	if (p->series_count >= SERIES_MAX) {
		return luaL_error(state, "there are %d series already", SERIES_MAX);
	}
	s = take(state, sizeof(*s));
	if (s == NULL) {
		return luaL_error(state, "not enough memory");
	}
	*s = (struct audit_series){.next = p->series,
				   .type = (enum series_type)type,
				   .interval_s = interval_s,
				   .windows = (uint32_t)windows,
				   .bucket_count = BUCKETS_MIN};
	strcpy(s->name, name);
	s->buckets = take(state, BUCKETS_MIN * sizeof(struct audit_item *));
	if (s->buckets == NULL) {
		give(state, s, sizeof(*s));
		return luaL_error(state, "not enough memory");
	}
	memset(s->buckets, 0, BUCKETS_MIN * sizeof(struct audit_item *));
	p->series = s;
	p->series_count++;
	return 0;
}

/* The key of a network: the address, of which `prefix` bits count. */
static void set_network(struct audit_key *k, const struct in6_addr *address, unsigned prefix)
{
	k->len = sizeof(*address) + 1;
	for (unsigned i = 0; i < sizeof(*address); i++) {
		unsigned bits = prefix > 8 * i ? prefix - 8 * i : 0;
		unsigned char byte = address->s6_addr[i];

		k->bytes[i] = (char)(bits >= 8 ? byte : byte & ~(0xffU >> bits));
	}
	k->bytes[sizeof(*address)] = (char)prefix;
}

/* The text of argument `index`: of an accept construct, its peer; of "/MASK", and of nothing, that
 * of the session with the mask behind it. It stays on the stack. */
static const char *address_text(lua_State *state, int index)
{
	struct policy *p = policy_of(state);
	struct policy_subject *s = p->running != NULL ? p->running->subject : NULL;

	if (lua_type(state, index) == LUA_TUSERDATA) {
		s = policy_check_object(state, index, POLICY_ACCEPT);
		lua_pushliteral(state, "");
	} else {
		lua_pushstring(state, luaL_optstring(state, index, ""));
		if (lua_tostring(state, -1)[0] != '/' && lua_tostring(state, -1)[0] != '\0') {
			return lua_tostring(state, -1);
		}
	}
	if (s == NULL || !policy_push_context(state, s, POLICY_CONN, "#peer")) {
		luaL_error(state, "there is no session here whose address it could be");
	}
	lua_insert(state, -2);
	lua_concat(state, 2);
	return lua_tostring(state, -1);
}

/* The network that argument `index` is, one of those that are counted; its bits of 128. */
static unsigned check_network(lua_State *state, int index, struct in6_addr *address)
{
	const char *text = address_text(state, index);
	const unsigned *networks;
	unsigned prefix;

	if (!policy_read_network(text, address, &prefix)) {
		luaL_error(state, "\"%s\" is not a network such as \"192.0.2.0/24\"", text);
	}
	networks = policy_networks(address);
	for (unsigned i = 0; i < POLICY_NETWORKS; i++) {
		if (networks[i] == prefix) {
			return prefix;
		}
	}
	return (unsigned)luaL_error(state, "a network of %s bits expected",
				    IN6_IS_ADDR_V4MAPPED(address) ? "32, 24, 16 or 8"
								  : "128, 64, 48 or 32");
}

/* The one on top, of the family that the series is about. */
static unsigned check_key_network(lua_State *state, const struct audit_series *s,
				  struct in6_addr *address)
{
	unsigned prefix = check_network(state, 3, address);

	if (IN6_IS_ADDR_V4MAPPED(address) != (s->type == SERIES_CIDR)) {
		luaL_error(state, "an address of %s expected",
			   s->type == SERIES_CIDR ? "IPv4" : "IPv6");
	}
	return prefix;
}

/* A field of the options, pushed; of what is no table, which is the key itself, that. */
static void push_option(lua_State *state, const char *name)
{
	if (lua_istable(state, 2) != 0) {
		lua_getfield(state, 2, name);
	} else if (strcmp(name, "key") == 0) {
		lua_pushvalue(state, 2);
	} else {
		lua_pushnil(state);
	}
}

static double option_number(lua_State *state, const char *name, double fallback)
{
	double value;

	push_option(state, name);
	value = lua_isnil(state, -1) ? fallback : luaL_checknumber(state, -1);
	lua_pop(state, 1);
	return value;
}

static void check_text(lua_State *state, struct audit_key *k)
{
	const char *text = luaL_checklstring(state, -1, &k->len);

	if (k->len == 0 || k->len > KEY_BYTES) {
		luaL_error(state, "a key of 1 to %d bytes expected", KEY_BYTES);
	}
	memcpy(k->bytes, text, k->len);
}

/* add(name[, key | {key = , count = }]) */
static int add(lua_State *state)
{
	struct audit_series *s = series_at(state);
	struct audit_key k;
	struct in6_addr address;
	const unsigned *networks;
	unsigned prefix;
	double change;

	lua_settop(state, 2);
	change = option_number(state, "count", 1);
	push_option(state, "key");
	if (s->type == SERIES_STRING) {
		check_text(state, &k);
		add_to(state, s, &k, change);
		return 0;
	}
	prefix = check_key_network(state, s, &address);
	networks = policy_networks(&address);
	for (unsigned i = 0; i < POLICY_NETWORKS; i++) {
		if (networks[i] <= prefix) {
			set_network(&k, &address, networks[i]);
			add_to(state, s, &k, change);
		}
	}
	return 0;
}

static void check_key(lua_State *state, const struct audit_series *s, struct audit_key *k)
{
	struct in6_addr address;
	unsigned prefix;

	if (s->type == SERIES_STRING) {
		check_text(state, k);
	} else {
		prefix = check_key_network(state, s, &address);
		set_network(k, &address, prefix);
	}
}

/* count(name[, key | {key = , startv = , endv = }]) */
static int count(lua_State *state)
{
	struct audit_series *s = series_at(state);
	struct audit_key k;
	double first;
	double last;

	lua_settop(state, 2);
	first = option_number(state, "startv", 0);
	last = option_number(state, "endv", first);
	if (!(first >= 0 && last >= first && last < s->windows)) {
		return luaL_error(state, "windows 0 to %d expected", (int)s->windows - 1);
	}
	push_option(state, "key");
	check_key(state, s, &k);
	lua_pushnumber(state, sum_of(state, s, &k, (uint32_t)first, (uint32_t)last));
	return 1;
}

/* remove_item(name[, key]): without a key all of them. */
static int remove_item(lua_State *state)
{
	struct audit_series *s = series_at(state);
	struct audit_item *i;
	struct audit_key k;

	lua_settop(state, 2);
	if (lua_isnil(state, 2)) {
		drop_all(state, s);
		return 0;
	}
	push_option(state, "key");
	check_key(state, s, &k);
	i = *place_of(s, &k, hash_of(&k));
	if (i != NULL) {
		drop(state, s, i);
	}
	return 0;
}

/* ---- what the program counts ---- */

/* "300,6": a monitor of inbound_audit. */
static void check_monitor(lua_State *state, struct policy_events *asked)
{
	const char *text = luaL_checkstring(state, 1);

	luaL_argcheck(state, sscanf(text, "%u,%u", &asked->interval_s, &asked->windows) == 2, 1,
		      "a monitor such as \"300,6\" expected");
}

/* (monitor[, cidr | {cidr = , startv = , endv = }]) */
static int count_events(lua_State *state, enum policy_event event)
{
	struct policy *p = policy_of(state);
	struct policy_events asked = {.event = event};
	double first;
	double last;
	int64_t sum;

	check_monitor(state, &asked);
	lua_settop(state, 2);
	first = option_number(state, "startv", 0);
	last = option_number(state, "endv", first);
	if (!(first >= 0 && last >= first && last <= asked.windows)) {
		return luaL_error(state, "windows 0 to %d expected", (int)asked.windows);
	}
	asked.first = (uint32_t)first;
	asked.last = (uint32_t)last;
	if (lua_istable(state, 2) != 0) {
		lua_getfield(state, 2, "cidr");
	} else {
		lua_pushvalue(state, 2);
	}
	asked.prefix = check_network(state, 3, &asked.address);
	sum = p->ops->events != NULL ? p->ops->events(p->context, &asked) : -1;
	if (sum < 0) {
		return luaL_error(state, "inbound_audit has no monitor \"%s\"",
				  lua_tostring(state, 1));
	}
	lua_pushnumber(state, (lua_Number)sum);
	return 1;
}

static int connections(lua_State *state)
{
	return count_events(state, POLICY_CONNECTION);
}

static int receptions(lua_State *state)
{
	return count_events(state, POLICY_RECEPTION);
}

static int rejections(lua_State *state)
{
	return count_events(state, POLICY_REJECTION);
}

int policy_push_sessions(lua_State *state, int index)
{
	struct policy *p = policy_of(state);
	const char *service = luaL_optstring(state, index + 1, "SMTP");
	struct in6_addr client;
	unsigned prefix = check_network(state, index, &client);
	int64_t count = p->ops->sessions != NULL
				? p->ops->sessions(p->context, service, &client, prefix)
				: -1;

	if (count < 0) {
		return luaL_error(state, "there is no service \"%s\"", service);
	}
	lua_pushnumber(state, (lua_Number)count);
	return 1;
}

/* inbound_session_count([cidr[, service]]) */
static int inbound_session_count(lua_State *state)
{
	return policy_push_sessions(state, 1);
}

void policy_close_series(struct policy *p)
{
	while (p->series != NULL) {
		struct audit_series *s = p->series;

		p->series = s->next;
		drop_all(p->lua, s);
		give(p->lua, s->buckets, s->bucket_count * sizeof(struct audit_item *));
		give(p->lua, s, sizeof(*s));
	}
}

void policy_open_audit(lua_State *state)
{
	static const luaL_Reg series[] = {{"define", define},
					  {"add", add},
					  {"count", count},
					  {"remove_item", remove_item},
					  {NULL, NULL}};
	static const luaL_Reg audit[] = {{"connections", connections},
					 {"receptions", receptions},
					 {"rejections", rejections},
					 {"inbound_session_count", inbound_session_count},
					 {NULL, NULL}};

	lua_newtable(state);
	luaL_register(state, NULL, audit);
	lua_setfield(state, 1, "audit");
	lua_newtable(state);
	luaL_register(state, NULL, series);
	lua_setfield(state, 1, "audit_series");
	lua_settop(state, 1);
}
