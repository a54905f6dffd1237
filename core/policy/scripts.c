#include "core/policy/scripts.h"

#include <errno.h>
#include <luajit-2.1/lauxlib.h>
#include <luajit-2.1/lua.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

/* Compiles with nothing to lose: the state lives no longer than that. */
SINGLE
struct compilation {
	const char *path;
	const char *text;
	size_t len;
	struct policy_script *script;
};

static int append(lua_State *state, const void *data, size_t len, void *context)
{
	struct policy_script *s = context;
	char *more = realloc(s->code, s->code_len + len);

	(void)state;
	if (more == NULL) {
		return 1;
	}
	s->code = more;
	memcpy(s->code + s->code_len, data, len);
	s->code_len += len;
	return 0;
}

static int compile(lua_State *state)
{
	const struct compilation *c = lua_touserdata(state, 1);

	const char *slash = strrchr(c->path, '/');

	/* As luaL_loadfile() names a file, so that errors say file:line; without its folders, as
	 * Lua would cut them. Text only: bytecode from elsewhere could do anything. */
	lua_pushfstring(state, "@%s", slash != NULL ? slash + 1 : c->path);
	if (luaL_loadbufferx(state, c->text, c->len, lua_tostring(state, -1), "t") != 0) {
		return lua_error(state);
	}
	if (lua_dump(state, append, c->script) != 0) {
		return luaL_error(state, "%s: out of memory", c->path);
	}
	return 0;
}

static int read_file(const char *path, char **text, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *buffer;

	if (f == NULL) {
		return -errno;
	}
	buffer = malloc(POLICY_SCRIPT_MAX + 1);
	if (buffer == NULL) {
		fclose(f);
		return -ENOMEM;
	}
	errno = 0;
	*len = fread(buffer, 1, POLICY_SCRIPT_MAX + 1, f);
	if (ferror(f) != 0 || *len > POLICY_SCRIPT_MAX) {
		int error = ferror(f) != 0 ? (errno != 0 ? -errno : -EIO) : -EFBIG;

		fclose(f);
		free(buffer);
		return error;
	}
	fclose(f);
	*text = buffer;
	return 0;
}

static int compile_text(struct compilation *c, char why[POLICY_WHY])
{
	lua_State *state = luaL_newstate();
	const char *said;
	int rc = -ENOMEM;

	snprintf(why, POLICY_WHY, "%s: out of memory", c->path);
	if (state == NULL) {
		return rc;
	}
	if (lua_cpcall(state, compile, c) == 0) {
		rc = 0;
	} else if ((said = lua_tostring(state, -1)) != NULL) {
		snprintf(why, POLICY_WHY, "%s", said);
		rc = -EINVAL;
	}
	lua_close(state);
	return rc;
}

/* The text, not the bytecode: that of one text may differ from time to time. */
static void digest(struct policy_scripts *s, const char *name, const struct compilation *c)
{
	EVP_MD_CTX *sum = EVP_MD_CTX_new();

	if (sum == NULL || EVP_DigestInit_ex(sum, EVP_sha256(), NULL) != 1 ||
	    EVP_DigestUpdate(sum, s->digest, sizeof(s->digest)) != 1 ||
	    EVP_DigestUpdate(sum, name, strlen(name) + 1) != 1 ||
	    EVP_DigestUpdate(sum, c->path, strlen(c->path) + 1) != 1 ||
	    EVP_DigestUpdate(sum, c->text, c->len) != 1 ||
	    EVP_DigestFinal_ex(sum, s->digest, NULL) != 1) {
		fatal("no digest of a script");
	}
	EVP_MD_CTX_free(sum);
}

int policy_scripts_add(struct policy_scripts *s, const char *name, const char *path,
		       char why[POLICY_WHY])
{
	struct policy_script script = {0};
	struct compilation c = {.path = path, .script = &script};
	struct policy_script *list;
	char *text = NULL;
	int rc = read_file(path, &text, &c.len);

	if (rc != 0) {
		snprintf(why, POLICY_WHY, "%s: %s", path, strerror(-rc));
		return rc;
	}
	c.text = text;
	rc = compile_text(&c, why);
	if (rc == 0) {
		digest(s, name, &c);
	}
	free(text);
	if (rc != 0) {
		free(script.code);
		return rc;
	}
	list = check_memory(reallocarray(s->list, s->count + 1, sizeof(*list)), "scripts");
	script.name = check_memory(strdup(name), "a script's name");
	script.path = check_memory(strdup(path), "a script's name");
	list[s->count++] = script;
	s->list = list;
	return 0;
}

void policy_scripts_close(struct policy_scripts *s)
{
	for (uint32_t i = 0; i < s->count; i++) {
		free(s->list[i].name);
		free(s->list[i].path);
		free(s->list[i].code);
	}
	free(s->list);
	*s = (struct policy_scripts){0};
}
