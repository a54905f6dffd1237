/*
 * HTTP listeners and Graphite: sockets with what applies to their clients, tokens, and who is sent
 * metrics.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/build.h"
#include "config/word.h"
#include "core/runtime/check.h"

/* Connections of one listen, where listener_sessions says nothing. */
#define SESSIONS_DEFAULT 1000
#define TOKEN_BYTES_MIN 8
#define TOKEN_BYTES_MAX 1024

/* The first line of the file, without blanks around it. NULL after a report. */
static const char *read_token(struct builder *b, const struct tree_option *option, const char *path)
{
	char line[TOKEN_BYTES_MAX + 2] = "";
	FILE *file = fopen(path, "re");
	if (file == NULL) {
		report_error(b->report, option->value.source,
			     "option \"token_file\": \"%.100s\" cannot be read: %s", path,
			     strerror(errno));
		return NULL;
	}
	if (fgets(line, sizeof(line), file) == NULL) {
		line[0] = '\0';
	}
	fclose(file);
	char *from = line + strspn(line, " \t");
	from[strcspn(from, " \t\r\n")] = '\0';
	return tree_text(&b->config->tree, from, strlen(from));
}

static void check_token(struct builder *b, const struct tree_option *option, const char *token)
{
	size_t len = strlen(token);
	if (len < TOKEN_BYTES_MIN || len > TOKEN_BYTES_MAX) {
		report_error(b->report, option->value.source,
			     "option \"%s\": a token of %zu bytes; expected %d to %d", option->name,
			     len, TOKEN_BYTES_MIN, TOKEN_BYTES_MAX);
		return;
	}
	for (const char *c = token; *c != '\0'; c++) {
		if (*c <= ' ' || *c > '~') {
			report_error(b->report, option->value.source,
				     "option \"%s\": the token has a blank or a byte that is not "
				     "ASCII; expected printable ASCII",
				     option->name);
			return;
		}
	}
}

/* What the scope says counts, whichever way a scope around it says it. */
static void find_token(struct builder *b, const struct tree_scope *scope, struct http_options *http)
{
	const struct tree_option *token = tree_option_find(scope, "token");
	const struct tree_option *file = tree_option_find(scope, "token_file");
	if (token != NULL && file != NULL) {
		report_error(b->report, file->value.source,
			     "option \"token_file\": there is a token, too; expected one of them");
		return;
	}
	if (file != NULL && http->token_file != NULL) {
		http->token = read_token(b, file, http->token_file);
	} else if (token != NULL) {
		http->token_file = NULL;
	}
	if ((token != NULL || file != NULL) && http->token != NULL) {
		check_token(b, file != NULL ? file : token, http->token);
	}
}

void http_check(struct builder *b, const struct tree_scope *scope, struct http_options *http)
{
	const struct tree_option *idle = tree_option_find(scope, "idle_time");
	if (idle != NULL && http->idle_ms % 1000 != 0) {
		report_error(b->report, idle->value.source,
			     "option \"idle_time\": has a part of a second; expected whole ones");
	}
	find_token(b, scope, http);
}

/* Nobody but this machine's users can connect. */
static bool is_local(const struct listen_options *socket)
{
	const struct sockaddr_in *v4 = (const void *)&socket->address;
	const struct sockaddr_in6 *v6 = (const void *)&socket->address;
	if (socket->address.ss_family == AF_INET) {
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	}
	if (socket->address.ss_family == AF_INET6) {
		return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
		       (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
	}
	return true;
}

void http_add_listen(struct builder *b, const struct tree_scope *scope,
		     const struct listen_settings *settings)
{
	struct config *config = b->config;
	struct http_listen *listen = &config->http_listens[config->http_listen_count++];
	listen->options = settings->options;
	listen->http = settings->http;
	if (listen->options.max_connections == 0) {
		listen->options.max_connections = SESSIONS_DEFAULT;
	}
	if (listen->http.token == NULL && !is_local(&listen->options)) {
		report_error(b->report, scope->source,
			     "scope listen \"%.100s\": others than this machine could read there "
			     "whom mail goes to; expected token or token_file, or an address such "
			     "as \"127.0.0.1:8025\"",
			     scope->instance);
	}
}

void graphite_build(struct builder *b, const struct tree_scope *scope)
{
	struct graphite_options *g = &b->config->global.graphite;
	const struct tree_option *option = tree_option_find(scope, "server");
	struct listen_options server = {.name = g->server};
	const struct sockaddr_in *in = (const void *)&server.address;
	const char *problem = "is missing";
	bool said = option != NULL && !tree_option_is_default(option);

	if (g->server != NULL && strcmp(g->server, "none") != 0) {
		problem = word_listen(g->server, &server.address, &server.address_len);
		if (problem == NULL && (server.address.ss_family == AF_UNIX || in->sin_port == 0 ||
					strchr(g->server, '*') != NULL || g->server[0] == ':')) {
			problem = "is not one that can be connected to";
		}
	} else if (said || scope->source.file == SOURCE_DEFAULT.file) {
		g->server = NULL;
		return;
	}
	if (problem != NULL) {
		report_error(b->report, said ? option->value.source : scope->source,
			     "option \"server\": %s; expected an address such as "
			     "\"192.0.2.1:2003\"",
			     problem);
		return;
	}
	g->address = server.address;
	g->address_len = server.address_len;
}

uint32_t config_http_listen_count(const struct config *config)
{
	return config->http_listen_count;
}

const struct listen_options *config_http_listen(const struct config *config, uint32_t index)
{
	ASSERT(index < config->http_listen_count);
	return &config->http_listens[index].options;
}

const struct http_options *config_http(const struct config *config, uint32_t index)
{
	ASSERT(index < config->http_listen_count);
	return &config->http_listens[index].http;
}
