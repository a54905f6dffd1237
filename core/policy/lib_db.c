/*
 * msys.db: queries to the databases of the configuration, on the thread pool. Each scheduler keeps
 * connections of its own, a bounded number for each database; who finds none free waits for one.
 *
 * Start reading at ask().
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/db.h"
#include "core/policy/parts.h"

#define CONNECTIONS_MAX 64
#define WAITING_MAX 10000
/* What was idle for longer is made anew: the other side may have closed it. */
#define IDLE_MAX_MS 30000

SINGLE
struct db_connection {
	void *handle;
	uint64_t idle_since_ms;
};

SINGLE
struct db_source {
	struct db_source *next;
	char *name;
	char *uri;
	const struct db_driver *driver;
	const char *target;
	uint64_t max_rows;
	uint64_t max_connections;
	uint64_t timeout_ms;
	struct db_connection idle[CONNECTIONS_MAX];
	uint32_t idle_count;
	/* Idle ones, those that queries use, and those that are being made. */
	uint32_t open_count;
	struct db_ask *first;
	struct db_ask **last;
	uint32_t waiting;
};

/* One query under way. */
SINGLE
struct db_ask {
	struct policy_wait wait;
	struct policy *policy;
	struct policy_job job;
	struct db_source *source;
	struct db_query query;
	struct db_result result;
	/* NULL: to be made. */
	void *handle;
	uint64_t idle_since_ms;
	bool stale;
	struct db_ask *next;
};

/* ---- sources ---- */

static struct db_source *make_source(struct policy *p, const struct policy_source *s)
{
	struct db_source *x = policy_make(sizeof(*x));

	x->name = policy_copy(s->name, strlen(s->name));
	x->uri = policy_copy(s->uri, strlen(s->uri));
	x->driver = db_driver_of(x->uri, &x->target);
	x->max_rows = s->max_rows;
	x->max_connections =
		s->max_connections < CONNECTIONS_MAX ? s->max_connections : CONNECTIONS_MAX;
	x->timeout_ms = s->timeout_ms;
	x->last = &x->first;
	x->next = p->sources;
	p->sources = x;
	return x;
}

/* NULL: there is none of this name. */
static struct db_source *find_source(struct policy *p, const char *name)
{
	const struct policy_source *s;

	for (struct db_source *x = p->sources; x != NULL; x = x->next) {
		if (strcmp(x->name, name) == 0) {
			return x;
		}
	}
	s = p->ops->source != NULL ? p->ops->source(p->context, name) : NULL;
	return s != NULL ? make_source(p, s) : NULL;
}

void policy_close_sources(struct policy *p)
{
	while (p->sources != NULL) {
		struct db_source *x = p->sources;

		ASSERT(x->idle_count == 0);
		p->sources = x->next;
		free(x->name);
		free(x->uri);
		free(x);
	}
}

/* ---- the end of idle connections ---- */

SINGLE
struct db_closing {
	struct policy_job job;
	struct policy *policy;
	const struct db_driver *driver;
	uint32_t count;
	void *handles[CONNECTIONS_MAX];
};

/* On a thread of the pool. */
static void close_there(struct policy_job *job)
{
	struct db_closing *c = CONTAINER_OF(job, struct db_closing, job);

	while (c->count > 0) {
		c->driver->close(c->handles[--c->count]);
	}
}

static void on_closed(struct policy_job *job, int result)
{
	struct db_closing *c = CONTAINER_OF(job, struct db_closing, job);
	struct policy *p = c->policy;

	if (result != 0) {
		/* Too many tasks wait. */
		p->ops->run(p->context, job);
		return;
	}
	p->outside--;
	free(c);
}

static void close_idle(struct policy *p, struct db_source *s)
{
	struct db_closing *c = policy_make(sizeof(*c));

	c->job = (struct policy_job){.work = close_there, .on_done = on_closed};
	c->policy = p;
	c->driver = s->driver;
	s->open_count -= s->idle_count;
	while (s->idle_count > 0) {
		c->handles[c->count++] = s->idle[--s->idle_count].handle;
	}
	p->outside++;
	p->ops->run(p->context, &c->job);
}

void policy_close_connections(struct policy *p)
{
	for (struct db_source *s = p->sources; s != NULL; s = s->next) {
		if (s->idle_count > 0) {
			close_idle(p, s);
		}
	}
}

/* ---- the query's way ---- */

static void free_ask(struct db_ask *a)
{
	db_query_close(&a->query);
	db_result_close(&a->result);
	free(a);
}

/* On a thread of the pool. */
static void work(struct policy_job *job)
{
	struct db_ask *a = CONTAINER_OF(job, struct db_ask, job);
	const struct db_driver *driver = a->source->driver;

	if (a->stale) {
		driver->close(a->handle);
		a->handle = NULL;
	}
	if (a->handle == NULL) {
		a->handle = driver->open(a->source->target, a->query.timeout_ms, a->result.why);
	}
	if (a->handle != NULL && !driver->run(a->handle, &a->query, &a->result)) {
		driver->close(a->handle);
		a->handle = NULL;
	}
}

/* An array of rows: by the names of their columns, or by their places; or nil and why not. */
static int push_rows(lua_State *state, void *context)
{
	const struct db_ask *a = context;
	const struct db_result *r = &a->result;

	if (r->why[0] != '\0') {
		lua_pushnil(state);
		lua_pushstring(state, r->why);
		return 2;
	}
	lua_newtable(state);
	for (size_t i = 0; i < r->cell_count; i += r->columns) {
		const char *name = r->names.len > 0 ? r->names.data : NULL;

		lua_newtable(state);
		for (uint32_t n = 0; n < r->columns; n++) {
			const struct db_cell *c = &r->cells[i + n];

			if (name != NULL) {
				lua_pushstring(state, name);
				name += strlen(name) + 1;
			} else {
				lua_pushinteger(state, (lua_Integer)n + 1);
			}
			if (c->type == DB_TEXT) {
				lua_pushlstring(state, c->len > 0 ? r->text.data + c->at : "",
						c->len);
			} else if (c->type == DB_NUMBER) {
				lua_pushnumber(state, c->number);
			} else {
				lua_pushnil(state);
			}
			lua_rawset(state, -3);
		}
		lua_rawseti(state, -2, (int)(i / r->columns) + 1);
	}
	return 1;
}

static void on_asked(struct policy_job *job, int result);

/* There is a connection for it, or room for one. */
static void begin(struct db_ask *a)
{
	struct db_source *s = a->source;

	if (s->idle_count > 0) {
		const struct db_connection *c = &s->idle[--s->idle_count];

		a->handle = c->handle;
		a->idle_since_ms = c->idle_since_ms;
		a->stale = agent_now_ms(a->policy->agent) - c->idle_since_ms > IDLE_MAX_MS;
	} else {
		s->open_count++;
	}
	a->job = (struct policy_job){.work = work, .on_done = on_asked};
	a->policy->ops->run(a->policy->context, &a->job);
}

static void keep(struct db_ask *a)
{
	struct db_source *s = a->source;

	if (a->handle == NULL) {
		s->open_count--;
		return;
	}
	s->idle[s->idle_count++] = (struct db_connection){
		.handle = a->handle,
		.idle_since_ms = a->idle_since_ms,
	};
	a->handle = NULL;
}

static struct db_ask *take_first(struct db_source *s)
{
	struct db_ask *a = s->first;

	s->first = a->next;
	if (s->first == NULL) {
		s->last = &s->first;
	}
	s->waiting--;
	return a;
}

/* The first one for which anybody waits still. */
static void serve_next(struct db_source *s)
{
	while (s->first != NULL) {
		struct db_ask *a = take_first(s);

		if (a->wait.run != NULL) {
			begin(a);
			return;
		}
		a->policy->outside--;
		free_ask(a);
	}
}

static void on_asked(struct policy_job *job, int result)
{
	struct db_ask *a = CONTAINER_OF(job, struct db_ask, job);
	struct policy *p = a->policy;

	p->outside--;
	if (result != 0) {
		snprintf(a->result.why, DB_WHY, "too many tasks wait (pool backlog)");
	} else {
		a->idle_since_ms = agent_now_ms(p->agent);
	}
	keep(a);
	serve_next(a->source);
	if (!p->timers_run) {
		policy_close_connections(p);
	}
	if (a->wait.run != NULL) {
		policy_run_wake(&a->wait, push_rows, a);
	}
	free_ask(a);
}

/* ---- what scripts call ---- */

/* The value on top. */
static bool set_value(lua_State *state, struct db_parameter *x)
{
	const char *text;

	switch (lua_type(state, -1)) {
	case LUA_TBOOLEAN:
		x->type = DB_NUMBER;
		x->number = lua_toboolean(state, -1);
		return true;
	case LUA_TNUMBER:
		x->type = DB_NUMBER;
		x->number = lua_tonumber(state, -1);
		return true;
	case LUA_TSTRING:
		text = lua_tolstring(state, -1, &x->len);
		x->type = DB_TEXT;
		x->text = policy_copy(text, x->len);
		return true;
	default:
		return false;
	}
}

/* The table at 3; NULL, or what is wrong with it. */
static const char *take_parameters(lua_State *state, struct db_query *q)
{
	q->parameters = policy_make(DB_PARAMETERS_MAX * sizeof(*q->parameters));
	lua_pushnil(state);
	while (lua_next(state, 3) != 0) {
		struct db_parameter *x = &q->parameters[q->parameter_count];
		size_t len;

		if (q->parameter_count == DB_PARAMETERS_MAX) {
			return "too many parameters";
		}
		if (!set_value(state, x)) {
			return "parameters are text, numbers or booleans";
		}
		if (lua_type(state, -2) == LUA_TSTRING) {
			const char *name = lua_tolstring(state, -2, &len);

			x->name = policy_copy(name, len);
		} else {
			x->index = (int)lua_tointeger(state, -2);
		}
		q->parameter_count++;
		lua_pop(state, 1);
	}
	return NULL;
}

static int refuse(lua_State *state, const char *why)
{
	lua_pushnil(state);
	lua_pushstring(state, why);
	return 2;
}

/* ask(source, query[, parameters]): an array of rows, or nil and why not. */
static int ask(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *name = luaL_checkstring(state, 1);
	size_t len;
	const char *text = luaL_checklstring(state, 2, &len);
	const char *wrong = NULL;
	struct db_source *s;
	struct db_ask *a;

	if (!lua_isnoneornil(state, 3)) {
		luaL_checktype(state, 3, LUA_TTABLE);
	}
	policy_run_check(state, "msys.db");
	s = find_source(p, name);
	if (s == NULL || s->driver == NULL) {
		lua_pushfstring(state, "there is no datasource \"%s\"", name);
		return refuse(state, lua_tostring(state, -1));
	}
	if (s->waiting >= WAITING_MAX) {
		return refuse(state, "too many queries wait for a connection");
	}
	a = policy_make(sizeof(*a));
	a->policy = p;
	a->source = s;
	a->query = (struct db_query){.text = policy_copy(text, len),
				     .max_rows = s->max_rows,
				     .timeout_ms = s->timeout_ms};
	if (lua_istable(state, 3) != 0) {
		wrong = take_parameters(state, &a->query);
	}
	if (wrong != NULL) {
		free_ask(a);
		return refuse(state, wrong);
	}
	p->outside++;
	if (s->idle_count > 0 || s->open_count < s->max_connections) {
		begin(a);
	} else {
		*s->last = a;
		s->last = &a->next;
		s->waiting++;
	}
	return policy_run_wait(state, &a->wait);
}

void policy_open_db(lua_State *state)
{
	/* What has waited cannot raise errors; in Lua it can. */
	static const char text[] =
		"local ask = ...\n"
		"local function fail(options, nothing, why)\n"
		"  if options == nil or options.raise_error ~= false then error(why, 3) end\n"
		"  return nothing, why\n"
		"end\n"
		"return {\n"
		"  query = function(name, text, parameters, options)\n"
		"    local rows, why = ask(name, text, parameters)\n"
		"    if rows == nil then return fail(options, nil, why) end\n"
		"    local i = 0\n"
		"    return function() i = i + 1 return rows[i] end\n"
		"  end,\n"
		"  fetch_row = function(name, text, parameters, options)\n"
		"    local rows, why = ask(name, text, parameters)\n"
		"    if rows == nil then return fail(options, nil, why) end\n"
		"    return rows[1]\n"
		"  end,\n"
		"  execute = function(name, text, parameters, options)\n"
		"    local rows, why = ask(name, text, parameters)\n"
		"    if rows == nil then return fail(options, false, why) end\n"
		"    return true\n"
		"  end,\n"
		"}\n";

	luaL_loadbuffer(state, text, sizeof(text) - 1, "=msys.db");
	lua_pushcfunction(state, ask);
	lua_call(state, 1, 1);
	lua_setfield(state, 1, "db");
	lua_settop(state, 1);
}
