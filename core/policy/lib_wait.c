/*
 * What waits: msys.sleep, msys.dnsLookup, msys.readfile, msys.http.client. While scripts are loaded
 * files are read at once, and the rest is an error; on a thread of the pool all but names is done
 * in place.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "core/mail/dns.h"
#include "core/policy/parts.h"

#define SLEEP_MAX_S 86400
#define SLEEP_HERE_MAX_S 10
#define FILE_MAX_BYTES (UINT64_C(8) << 20)
#define HTTP_BODY_MAX (UINT64_C(8) << 20)
#define HTTP_TIMEOUT_S 30
#define HTTP_CLASS "http_client"

static int push_nothing(lua_State *state, void *context)
{
	(void)state;
	(void)context;
	return 0;
}

/* ---- sleep ---- */

BOUND
struct sleep {
	struct policy_wait wait;
	struct timer timer;
};

static void abandon_sleep(struct policy_wait *w)
{
	struct sleep *s = CONTAINER_OF(w, struct sleep, wait);

	timer_cancel(&s->timer);
	free(s);
}

static void on_awake(struct timer *t)
{
	struct sleep *s = CONTAINER_OF(t, struct sleep, timer);

	policy_run_wake(&s->wait, push_nothing, NULL);
	free(s);
}

/* On a thread of the pool, which others need, too. */
static void sleep_here(double seconds)
{
	struct timespec t;

	seconds = seconds < SLEEP_HERE_MAX_S ? seconds : SLEEP_HERE_MAX_S;
	t.tv_sec = (time_t)seconds;
	t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
	nanosleep(&t, NULL);
}

static int sleep_for(lua_State *state)
{
	struct policy *p = policy_of(state);
	double seconds = luaL_checknumber(state, 1);
	struct sleep *s;

	luaL_argcheck(state, seconds >= 0 && seconds <= SLEEP_MAX_S, 1,
		      "0 to 86400 seconds expected");
	if (p->blocking) {
		sleep_here(seconds);
		return 0;
	}
	policy_run_check(state, "msys.sleep");
	s = policy_make(sizeof(*s));
	s->wait.abandon = abandon_sleep;
	timer_init(&s->timer, p->agent, on_awake);
	timer_arm(&s->timer, agent_now_ms(p->agent) + (uint64_t)(seconds * 1000) + 1);
	return policy_run_wait(state, &s->wait);
}

/* ---- names ---- */

BOUND
struct name_wait {
	struct policy_wait wait;
	struct policy *policy;
	struct policy_lookup lookup;
	const struct dns_answer *answer;
};

static void push_record(lua_State *state, const struct dns_answer *a, const struct dns_record *r)
{
	char text[INET6_ADDRSTRLEN];

	switch (a->type) {
	case DNS_A:
		lua_pushstring(state, inet_ntop(AF_INET, &r->a, text, sizeof(text)));
		break;
	case DNS_AAAA:
		lua_pushstring(state, inet_ntop(AF_INET6, &r->aaaa, text, sizeof(text)));
		break;
	case DNS_MX:
		lua_newtable(state);
		lua_pushinteger(state, r->mx.preference);
		lua_setfield(state, -2, "preference");
		lua_pushstring(state, r->mx.exchange);
		lua_setfield(state, -2, "exchange");
		break;
	case DNS_TXT:
		lua_pushlstring(state, r->txt.text, r->txt.len);
		break;
	case DNS_PTR:
		lua_pushstring(state, r->ptr);
		break;
	case DNS_TLSA:
		lua_pushlstring(state, (const char *)r->tlsa.data, r->tlsa.len);
		break;
	}
}

/* An array of records; or nil and what the name service says. */
static int push_answer(lua_State *state, void *context)
{
	const struct dns_answer *a = context;

	if (a->status != DNS_FOUND) {
		lua_pushnil(state);
		lua_pushstring(state, dns_status_name(a->status));
		return 2;
	}
	lua_newtable(state);
	for (uint32_t i = 0; i < a->count; i++) {
		push_record(state, a, &a->records[i]);
		lua_rawseti(state, -2, (int)i + 1);
	}
	return 1;
}

static void on_answer(struct policy_lookup *q, const struct dns_answer *answer)
{
	struct name_wait *n = CONTAINER_OF(q, struct name_wait, lookup);

	n->policy->outside--;
	if (n->wait.run != NULL) {
		policy_run_wake(&n->wait, push_answer, (void *)(uintptr_t)answer);
	}
	free(n);
}

/* dnsLookup(name[, type]). */
static int dns_lookup(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *name = luaL_checkstring(state, 1);
	const char *type_name = luaL_optstring(state, 2, "A");
	struct name_wait *n;
	enum dns_type type;

	luaL_argcheck(state, dns_type_parse(type_name, &type), 2,
		      "A, AAAA, MX, TXT, TLSA or PTR expected");
	luaL_argcheck(state, name[0] != '\0' && strlen(name) <= POLICY_DOMAIN_MAX, 1,
		      "a name expected");
	policy_run_check(state, "msys.dnsLookup");
	n = policy_make(sizeof(*n));
	n->policy = p;
	n->lookup = (struct policy_lookup){.type = (int)type, .on_answer = on_answer};
	strcpy(n->lookup.name, name);
	p->outside++;
	p->ops->lookup(p->context, &n->lookup);
	return policy_run_wait(state, &n->wait);
}

/* ---- jobs: files, HTTP ---- */

/* One more job for a thread that may block, and what came of it. */
SINGLE
struct job_wait {
	struct policy_wait wait;
	struct policy *policy;
	struct policy_job job;
	/* A file's path, or an address, and what is sent there. */
	char *target;
	char *verb;
	char *sent;
	size_t sent_len;
	struct curl_slist *headers;
	long timeout_s;
	/* Answers; `why` is empty when there is one. */
	struct policy_text text;
	struct policy_text answer_headers;
	long status;
	char why[256];
	/* Of the object that asked, in the registry. */
	int client;
};

static void free_job(struct job_wait *j)
{
	free(j->target);
	free(j->verb);
	free(j->sent);
	curl_slist_free_all(j->headers);
	policy_text_close(&j->text);
	policy_text_close(&j->answer_headers);
	free(j);
}

static struct job_wait *make_job(struct policy *p, const char *target)
{
	struct job_wait *j = policy_make(sizeof(*j));

	j->policy = p;
	j->target = policy_copy(target, strlen(target));
	j->client = LUA_NOREF;
	return j;
}

static int run_job(lua_State *state, struct job_wait *j)
{
	struct policy *p = j->policy;

	p->outside++;
	p->ops->run(p->context, &j->job);
	return policy_run_wait(state, &j->wait);
}

static void read_all(struct job_wait *j)
{
	FILE *f = fopen(j->target, "re");
	char piece[4096];
	size_t n;

	if (f == NULL) {
		snprintf(j->why, sizeof(j->why), "%.160s: %s", j->target, strerror(errno));
		return;
	}
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0 && j->text.len <= FILE_MAX_BYTES) {
		policy_text_append(&j->text, piece, n);
	}
	if (ferror(f) != 0) {
		snprintf(j->why, sizeof(j->why), "%.160s: cannot be read", j->target);
	} else if (j->text.len > FILE_MAX_BYTES) {
		snprintf(j->why, sizeof(j->why), "%.160s: larger than 8M", j->target);
	}
	fclose(f);
}

static void read_work(struct policy_job *job)
{
	read_all(CONTAINER_OF(job, struct job_wait, job));
}

static int push_text(lua_State *state, void *context)
{
	const struct job_wait *j = context;

	if (j->why[0] != '\0') {
		lua_pushnil(state);
		lua_pushstring(state, j->why);
		return 2;
	}
	lua_pushlstring(state, j->text.len > 0 ? j->text.data : "", j->text.len);
	return 1;
}

static void end_job(struct job_wait *j, int result, policy_push_fn push)
{
	j->policy->outside--;
	if (result != 0) {
		snprintf(j->why, sizeof(j->why), "too many tasks wait (pool backlog)");
	}
	if (j->wait.run != NULL) {
		policy_run_wake(&j->wait, push, j);
	}
	if (j->client != LUA_NOREF) {
		luaL_unref(j->policy->lua, LUA_REGISTRYINDEX, j->client);
	}
	free_job(j);
}

static void on_read(struct policy_job *job, int result)
{
	end_job(CONTAINER_OF(job, struct job_wait, job), result, push_text);
}

/* What is done in place: on a thread of the pool, or while scripts are loaded. */
SINGLE
struct job_here {
	struct job_wait *job;
	policy_push_fn push;
};

static int push_here(lua_State *state)
{
	const struct job_here *h = lua_touserdata(state, 1);

	lua_settop(state, 0);
	return h->push(state, h->job);
}

/* Ahead of the job, which no error of memory may lose: answer_here() needs none but for what came
 * of the job. */
static struct job_here *prepare_here(lua_State *state, policy_push_fn push)
{
	struct job_here *h;

	lua_pushcfunction(state, push_here);
	h = lua_newuserdata(state, sizeof(*h));
	h->push = push;
	return h;
}

/* It is done, and on top of the stack is what was prepared for it: pushes what came of it, and
 * frees it. */
static int answer_here(lua_State *state, struct job_here *h, struct job_wait *j)
{
	int before = lua_gettop(state) - 2;
	int rc;

	h->job = j;
	rc = lua_pcall(state, 1, LUA_MULTRET, 0);
	luaL_unref(state, LUA_REGISTRYINDEX, j->client);
	free_job(j);
	return rc == 0 ? lua_gettop(state) - before : lua_error(state);
}

/* readfile(path): the text, or nil and why not. */
static int readfile(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *path = luaL_checkstring(state, 1);
	struct job_here *here;
	struct job_wait *j;

	if (strncmp(path, "file://", 7) == 0) {
		path += 7;
	}
	if (p->starting || p->blocking) {
		here = prepare_here(state, push_text);
		j = make_job(p, path);
		read_all(j);
		return answer_here(state, here, j);
	}
	policy_run_check(state, "msys.readfile");
	j = make_job(p, path);
	j->job = (struct policy_job){.work = read_work, .on_done = on_read};
	return run_job(state, j);
}

/* ---- HTTP ---- */

static size_t on_body(char *data, size_t size, size_t count, void *context)
{
	struct job_wait *j = context;

	if (j->text.len + size * count > HTTP_BODY_MAX) {
		return 0;
	}
	policy_text_append(&j->text, data, size * count);
	return size * count;
}

static size_t on_header(char *data, size_t size, size_t count, void *context)
{
	struct job_wait *j = context;

	if (j->answer_headers.len + size * count > HTTP_BODY_MAX) {
		return 0;
	}
	policy_text_append(&j->answer_headers, data, size * count);
	return size * count;
}

static void http_work(struct policy_job *job)
{
	struct job_wait *j = CONTAINER_OF(job, struct job_wait, job);
	CURL *c = curl_easy_init();
	CURLcode rc;

	if (c == NULL) {
		snprintf(j->why, sizeof(j->why), "out of memory");
		return;
	}
	curl_easy_setopt(c, CURLOPT_URL, j->target);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, j->timeout_s);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, j->headers);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, j);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, j);
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, j->verb);
	if (j->sent != NULL) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)j->sent_len);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, j->sent);
	}
	/* Its answer tells of a body that does not come. */
	if (strcmp(j->verb, "HEAD") == 0) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	}
	rc = curl_easy_perform(c);
	if (rc != CURLE_OK) {
		snprintf(j->why, sizeof(j->why), "%s", curl_easy_strerror(rc));
	}
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &j->status);
	curl_easy_cleanup(c);
}

/* true; or nil and why not. What came is the client's. */
static int push_response(lua_State *state, void *context)
{
	const struct job_wait *j = context;

	lua_rawgeti(state, LUA_REGISTRYINDEX, j->client);
	lua_getfenv(state, -1);
	lua_pushinteger(state, (lua_Integer)j->status);
	lua_setfield(state, -2, "status");
	lua_pushlstring(state, j->text.len > 0 ? j->text.data : "", j->text.len);
	lua_setfield(state, -2, "body");
	lua_pushlstring(state, j->answer_headers.len > 0 ? j->answer_headers.data : "",
			j->answer_headers.len);
	lua_setfield(state, -2, "headers");
	lua_pop(state, 2);
	if (j->why[0] != '\0') {
		lua_pushnil(state);
		lua_pushstring(state, j->why);
		return 2;
	}
	lua_pushboolean(state, 1);
	return 1;
}

static void on_response(struct policy_job *job, int result)
{
	end_job(CONTAINER_OF(job, struct job_wait, job), result, push_response);
}

static int http_new(lua_State *state)
{
	lua_newuserdata(state, 1);
	luaL_getmetatable(state, HTTP_CLASS);
	lua_setmetatable(state, -2);
	lua_newtable(state);
	lua_newtable(state);
	lua_setfield(state, -2, "sent_headers");
	lua_pushinteger(state, HTTP_TIMEOUT_S);
	lua_setfield(state, -2, "timeout");
	lua_setfenv(state, -2);
	return 1;
}

static int http_set_header(lua_State *state)
{
	const char *line;

	luaL_checkudata(state, 1, HTTP_CLASS);
	line = luaL_checkstring(state, 2);
	luaL_argcheck(state, strchr(line, ':') != NULL && strpbrk(line, "\r\n") == NULL, 2,
		      "\"Name: value\" expected");
	lua_getfenv(state, 1);
	lua_getfield(state, -1, "sent_headers");
	lua_pushvalue(state, 2);
	lua_rawseti(state, -2, (int)lua_objlen(state, -2) + 1);
	return 0;
}

static int http_set_timeout(lua_State *state)
{
	int seconds = luaL_optint(state, 2, HTTP_TIMEOUT_S);

	luaL_checkudata(state, 1, HTTP_CLASS);
	luaL_argcheck(state, seconds >= 1 && seconds <= 3600, 2, "1 to 3600 seconds expected");
	lua_getfenv(state, 1);
	lua_pushinteger(state, seconds);
	lua_setfield(state, -2, "timeout");
	return 0;
}

/* The client is at index 1, its settings are in its environment. */
static void take_settings(lua_State *state, struct job_wait *j)
{
	int before = lua_gettop(state);

	lua_getfenv(state, 1);
	lua_getfield(state, -1, "timeout");
	j->timeout_s = (long)lua_tointeger(state, -1);
	lua_getfield(state, -2, "sent_headers");
	for (int i = 1; i <= (int)lua_objlen(state, -1); i++) {
		lua_rawgeti(state, -1, i);
		j->headers = curl_slist_append(j->headers, lua_tostring(state, -1));
		lua_pop(state, 1);
	}
	lua_settop(state, before);
}

/* do_request(verb, address[, data]). */
static int http_do_request(lua_State *state)
{
	static const char *const verbs[] = {"GET", "POST", "PUT", "DELETE", "HEAD", NULL};
	struct policy *p = policy_of(state);
	const char *verb = verbs[luaL_checkoption(state, 2, NULL, verbs)];
	const char *address = luaL_checkstring(state, 3);
	struct job_here *here = NULL;
	struct job_wait *j;
	int client;
	size_t len;
	const char *data = luaL_optlstring(state, 4, NULL, &len);

	luaL_checkudata(state, 1, HTTP_CLASS);
	if (p->blocking) {
		here = prepare_here(state, push_response);
	} else {
		policy_run_check(state, "do_request");
	}
	lua_pushvalue(state, 1);
	client = policy_reference(state);
	j = make_job(p, address);
	j->client = client;
	j->verb = policy_copy(verb, strlen(verb));
	if (data != NULL) {
		j->sent = policy_copy(data, len);
		j->sent_len = len;
	}
	take_settings(state, j);
	if (here != NULL) {
		http_work(&j->job);
		return answer_here(state, here, j);
	}
	j->job = (struct policy_job){.work = http_work, .on_done = on_response};
	return run_job(state, j);
}

static int http_get(lua_State *state, const char *what)
{
	luaL_checkudata(state, 1, HTTP_CLASS);
	lua_getfenv(state, 1);
	lua_getfield(state, -1, what);
	return 1;
}

static int http_get_status(lua_State *state)
{
	return http_get(state, "status");
}

static int http_get_body(lua_State *state)
{
	return http_get(state, "body");
}

static int http_get_headers(lua_State *state)
{
	return http_get(state, "headers");
}

/* The text of headers that argument 2 is, or of the array of their lines. */
static const char *check_headers(lua_State *state, size_t *len)
{
	if (lua_istable(state, 2) != 0) {
		lua_pushliteral(state, "");
		for (int i = 1; i <= (int)lua_objlen(state, 2); i++) {
			lua_rawgeti(state, 2, i);
			luaL_argcheck(state, lua_isstring(state, -1) != 0, 2, "lines expected");
			lua_pushliteral(state, "\r\n");
			lua_concat(state, 3);
		}
		lua_replace(state, 2);
	}
	return luaL_checklstring(state, 2, len);
}

/* parse_headers(headers): a table of values by names, as they are written; those of one name with
 * commas between (RFC 9110, 5.3). Of several answers, one behind the other, the last one counts. */
static int http_parse_headers(lua_State *state)
{
	size_t len;
	const char *text = check_headers(state, &len);
	struct policy_field f = {0};
	const char *next;
	int table;

	while ((next = strstr(text, "\r\n\r\nHTTP/")) != NULL) {
		len -= (size_t)(next + 4 - text);
		text = next + 4;
	}
	lua_newtable(state);
	table = lua_gettop(state);
	while (policy_field_next(text, len, NULL, f.at + f.len, &f)) {
		lua_pushlstring(state, text + f.at, f.value_at - f.at - 1);
		lua_pushvalue(state, -1);
		lua_rawget(state, table);
		if (lua_isnil(state, -1)) {
			lua_pop(state, 1);
			policy_push_field(state, text, &f);
		} else {
			lua_pushliteral(state, ", ");
			policy_push_field(state, text, &f);
			lua_concat(state, 3);
		}
		lua_rawset(state, table);
	}
	return 1;
}

void policy_open_wait(lua_State *state)
{
	static const luaL_Reg msys[] = {
		{"sleep", sleep_for},
		{"dnsLookup", dns_lookup},
		{"readfile", readfile},
		{NULL, NULL},
	};
	static const luaL_Reg client[] = {
		{"set_header", http_set_header},       {"set_timeout", http_set_timeout},
		{"do_request", http_do_request},       {"get_status", http_get_status},
		{"get_body", http_get_body},           {"get_headers", http_get_headers},
		{"parse_headers", http_parse_headers}, {NULL, NULL},
	};
	static const luaL_Reg http[] = {{"new", http_new}, {NULL, NULL}};

	luaL_register(state, NULL, msys);
	policy_class(state, HTTP_CLASS, client);
	lua_newtable(state);
	lua_newtable(state);
	luaL_register(state, NULL, http);
	lua_setfield(state, -2, "client");
	lua_setfield(state, 1, "http");
	lua_settop(state, 1);
}
