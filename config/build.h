/*
 * From a tree to a generation, in the order build.c says. Each part reports what is impossible and
 * goes on. Private to config/.
 */
#pragma once

#include <netinet/in.h>

#include "config/assign.h"
#include "config/generation.h"
#include "core/runtime/thread_class.h"

/* config_load_from() with other texts in place of those of some files, which are read all the same.
 */
SINGLE
struct config *config_load_texts(const struct config_source *source,
				 const struct tree_file_text *texts, uint32_t text_count,
				 FILE *errors);

/* An empty one, with one reference. In config.c. */
SINGLE
struct config *config_new(void);
/* `to` was loaded from what `from` was. In config.c. */
SINGLE
void config_copy_origin(struct config *to, const struct config *from);
/* Its tree is there: gives it meaning, or NULL after errors, and it is gone. Closes the report. */
SINGLE
struct config *config_finish(struct config *config, struct report *report);

/* Everything. The generation is complete when no error was reported. */
SINGLE
void build_generation(struct config *config, struct report *report);

/* Sockets and what applies to their clients; after the program's own options. In listeners.c. */
SINGLE
void listeners_build(struct builder *builder);

/* Where logs go, and custom loggers; after the program's own options. In logs.c. */
SINGLE
void logs_build(struct builder *builder);

/* How journals are to be; after logs_build(). In journals.c. */
SINGLE
void journals_build(struct builder *builder);

/* Release the compiled formats. */
SINGLE
void logs_free(struct config *config);

/* What a listener or listen of HTTP says of its clients, on top of what is around it: the token is
 * read, and mistakes are reported. In http.c. */
SINGLE
void http_check(struct builder *builder, const struct tree_scope *scope, struct http_options *http);

/* One socket of an HTTP listener. In http.c. */
SINGLE
void http_add_listen(struct builder *builder, const struct tree_scope *scope,
		     const struct listen_settings *settings);

/* Where metrics are sent, from the values of the scope. In http.c. */
SINGLE
void graphite_build(struct builder *builder, const struct tree_scope *scope);

/* DKIM: what to sign with, its keys loaded. In dkim.c. */
SINGLE
void dkim_build(struct builder *builder);

/* Policy: scripts, read and compiled. In scripts.c. */
SINGLE
void scripts_build(struct builder *builder);

/* A word in double quotes; one value in the language. In dump.c. */
READONLY
void dump_quoted(const char *word, FILE *out);
SINGLE
void dump_value(const struct tree_value *value, FILE *out);

/* Release the keys. */
SINGLE
void dkim_free(struct config *config);

/* Certificates by name; before the listeners. In tls.c. */
SINGLE
void tls_build(struct builder *builder);

/* What clients get who see these options, which were read from `scope` and those around it: sets
 * options->tls. In tls.c. */
SINGLE
void tls_build_server(struct builder *builder, const struct tree_scope *scope,
		      struct smtp_options *options);

/* The context of a client that trusts the roots in the file `ca` (NULL: none). NULL, or what is
 * wrong with the file. In tls.c. */
SINGLE
const char *tls_build_client(struct builder *builder, const char *ca, struct tls_context **context);

/* Frees the contexts. In tls.c. */
SINGLE
void tls_free(struct config *config);

/* Bindings, domains, and the options of those without a stanza. In domains.c. */
SINGLE
void domains_build(struct builder *builder);

/* Their names and weights; after the listeners and domains. In bindings.c. */
SINGLE
void bindings_build(struct builder *builder);

/* Release what domains.c holds outside of the arena. */
SINGLE
void domains_free(struct config *config);
