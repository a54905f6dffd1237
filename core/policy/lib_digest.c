/*
 * digest and hmac, by OpenSSL: digest.sha256(text), hmac.sha256(key, text), in hexadecimal.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "core/policy/parts.h"

static int push_hex(lua_State *state, const unsigned char *data, unsigned len)
{
	char text[2 * EVP_MAX_MD_SIZE + 1];

	for (unsigned i = 0; i < len; i++) {
		snprintf(text + 2 * i, 3, "%02x", data[i]);
	}
	lua_pushlstring(state, text, 2 * (size_t)len);
	return 1;
}

static const EVP_MD *algorithm(lua_State *state)
{
	const char *name = lua_tostring(state, lua_upvalueindex(1));
	const EVP_MD *md = EVP_get_digestbyname(name);

	if (md == NULL) {
		luaL_error(state, "%s is not to be had", name);
	}
	return md;
}

static int digest(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	unsigned char to[EVP_MAX_MD_SIZE];
	unsigned made = 0;

	if (EVP_Digest(text, len, to, &made, algorithm(state), NULL) != 1) {
		return luaL_error(state, "the digest failed");
	}
	return push_hex(state, to, made);
}

static int hmac(lua_State *state)
{
	size_t key_len;
	size_t len;
	const char *key = luaL_checklstring(state, 1, &key_len);
	const char *text = luaL_checklstring(state, 2, &len);
	unsigned char to[EVP_MAX_MD_SIZE];
	unsigned made = 0;

	if (HMAC(algorithm(state), key, (int)key_len, (const unsigned char *)text, len, to,
		 &made) == NULL) {
		return luaL_error(state, "the hmac failed");
	}
	return push_hex(state, to, made);
}

static void open(lua_State *state, const char *library, lua_CFunction f)
{
	static const char *const names[] = {"md5",    "sha1",   "sha224", "sha256",
					    "sha384", "sha512", NULL};

	lua_newtable(state);
	for (const char *const *n = names; *n != NULL; n++) {
		lua_pushstring(state, *n);
		lua_pushcclosure(state, f, 1);
		lua_setfield(state, -2, *n);
	}
	lua_setglobal(state, library);
}

void policy_open_digest(lua_State *state)
{
	open(state, "digest", digest);
	open(state, "hmac", hmac);
}
