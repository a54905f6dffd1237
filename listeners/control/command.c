#include "listeners/control/command.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mail/idna.h"
#include "core/runtime/check.h"

static void command_help(struct order *o);

const struct command command_table[] = {
	{"summary", "", "the whole program in numbers", 0, 0, false, command_summary},
	{"domain", "NAME [BINDING]",
	 "one domain: what holds its queue and until when, limits, next hops", 1, 2, false,
	 command_domain_show},
	{"domain all", "", "every domain record, one line each, and totals", 0, 0, false,
	 command_domains},
	{"domains", "", "the same as domain all", 0, 0, false, command_domains},
	{"why", "",
	 "why is it not moving? the 20 longest queues: what holds each, and the next try", 0, 0,
	 false, command_why},
	{"why domain", "NAME [BINDING]",
	 "one queue: every limit and condition in its way, who set it, and when it will be empty",
	 1, 2, false, command_why_domain},
	{"why message", "ID", "one message: what each of its deliveries waits for", 1, 1, false,
	 command_why_message},
	{"site", "NAME",
	 "sites of a provider, exchanger, gateway or domain: limits, lanes, next hops", 1, 1, false,
	 command_site_show},
	{"sites", "", "every site, one line each: domains that share connections and limits", 0, 0,
	 false, command_sites},
	{"active", "N", "domains with more than N messages in their active queue", 1, 1, false,
	 command_active},
	{"delayed", "N", "domains with more than N messages in their delayed queue", 1, 1, false,
	 command_delayed},
	{"mailq", "[N] [BINDING | SELECTORS]",
	 "the N longest queues, 20 if not said; with selectors, by how much of them matches", 0,
	 ORDER_WORDS_MAX, false, command_mailq},
	{"find", "SELECTORS [limit N]",
	 "queued mail: id, domain, binding, sender, recipient, header NAME, older, newer, larger, "
	 "attempts, state, text, each with a value (* for anything), or all",
	 1, ORDER_WORDS_MAX, false, command_find},
	{"hold", "SELECTORS [dry_run]", "keep mail out of its queue until it is released", 1,
	 ORDER_WORDS_MAX, true, command_hold},
	{"release", "SELECTORS [dry_run]", "end that", 1, ORDER_WORDS_MAX, true, command_release},
	{"fail", "SELECTORS [quiet] [dry_run]", "fail mail for good; quiet: without bounces", 1,
	 ORDER_WORDS_MAX, true, command_fail},
	{"reroute", "SELECTORS to NAME [dry_run]",
	 "send mail where that of another domain, or to a host, goes", 3, ORDER_WORDS_MAX, true,
	 command_reroute},
	{"rebind", "SELECTORS to BINDING [dry_run]", "send mail by another binding", 3,
	 ORDER_WORDS_MAX, true, command_rebind},
	{"busiest", "[N] [rate|queue|connections]",
	 "the N domains with most mail done in the last minute, 20 if not said, or most queued", 0,
	 2, false, command_busiest},
	{"bindings", "[NAME]", "every binding, or those of a group: what it has queued and sent", 0,
	 1, false, command_bindings},
	{"binding", "NAME", "one binding, with its addresses", 1, 1, false, command_binding_show},
	{"message", "ID [full]", "one queued message: where it is and what it waits for", 1, 2,
	 false, command_message_show},
	{"message fail", "ID [quiet]", "fail a message for good; quiet: without a bounce", 1, 2,
	 true, command_message_fail},
	{"message retry", "ID", "try a message now", 1, 1, true, command_message_retry},
	{"flush domain", "NAME [BINDING]",
	 "try a domain's delayed messages now; all: those of every domain", 1, 2, true,
	 command_domain_flush},
	{"fail domain", "NAME [BINDING] [quiet]",
	 "fail all messages of a domain; quiet: without bounces", 1, ORDER_WORDS_MAX, true,
	 command_domain_fail},
	{"suspend domain", "NAME [BINDING] [for TIME | until MOMENT]",
	 "send nothing to a domain until it is resumed, or until then", 1, 4, true,
	 command_domain_suspend},
	{"resume domain", "NAME [BINDING]", "end a suspension", 1, 2, true, command_domain_resume},
	{"flush binding", "NAME", "try a binding's delayed messages now", 1, 1, true,
	 command_binding_flush},
	{"fail binding", "NAME [quiet]", "fail all messages of a binding; quiet: without bounces",
	 1, ORDER_WORDS_MAX, true, command_binding_fail},
	{"suspend binding", "NAME [for TIME | until MOMENT]",
	 "send nothing by a binding until it is resumed, or until then; its group passes it over",
	 1, 3, true, command_binding_suspend},
	{"resume binding", "NAME", "end that, and suspend_delivery", 1, 1, true,
	 command_binding_resume},
	{"suspensions", "", "what operators suspended: who, since when, until when", 0, 0, false,
	 command_suspensions},
	{"signing_stats", "", "DKIM: what was signed, what was not, and how long it took", 0, 0,
	 false, command_signing_stats},
	{"config reload", "", "load the configuration again, and go on with it", 0, 0, true,
	 command_config_reload},
	{"config status", "", "which generation counts, and which are still in use", 0, 0, false,
	 command_config_status},
	{"dkim reload", "", "read keys of DKIM anew", 0, 0, true, command_dkim_reload},
	{"tls reload", "", "read certificates and keys of listeners anew", 0, 0, true,
	 command_tls_reload},
	{"tlsrpt", "[DOMAIN]", "TLS sessions with mail exchangers, by day, as RFC 8460 reports", 0,
	 1, false, command_tlsrpt},
	{"dig", "NAME TYPE", "what the name service says: A, AAAA, MX, TXT, TLSA or PTR", 2, 2,
	 false, command_dig},
	{"dns_cache stats", "", "what the resolver remembers, and how often that helps", 0, 0,
	 false, command_dns_cache_stats},
	{"dns_cache lookup", "NAME TYPE", "what it remembers of one name; nobody is asked", 2, 2,
	 false, command_dns_cache_lookup},
	{"dns_cache flush", "", "forget all answers, and ask anew", 0, 0, true,
	 command_dns_cache_flush},
	{"trace smtp add",
	 "[direction in|out] [domain NAME] [peer NETWORK] [binding NAME] [listener NAME] "
	 "[sample 1/N] [max N] [bytes SIZE] [for TIME] [content] [file NAME]",
	 "write whole SMTP dialogues of connections that match to a file below log.path", 0,
	 ORDER_WORDS_MAX, true, command_trace_add},
	{"trace smtp remove", "NUMBER", "end a trace, and close its file", 1, 1, true,
	 command_trace_remove},
	{"trace smtp list", "", "traces that run: connections, lines, limits, end", 0, 0, false,
	 command_trace_list},
	{"config get", "[SCOPE] OPTION",
	 "what a scope itself says; SCOPE as in the files: binding \"b\" domain \"x\"", 1,
	 ORDER_WORDS_MAX, false, command_config_get},
	{"config eval", "[SCOPE] OPTION", "what applies there, and the file and line that say so",
	 1, ORDER_WORDS_MAX, false, command_config_eval},
	{"config show", "[SCOPE]", "all that a scope says, and those in it", 0, ORDER_WORDS_MAX,
	 false, command_config_show},
	{"config locate", "OPTION [VALUE] | SCOPE",
	 "every place that sets an option, or something in a scope", 1, ORDER_WORDS_MAX, false,
	 command_config_locate},
	{"config diff", "", "what runs against what the files say, and what the console has set", 0,
	 0, false, command_config_diff},
	{"config set", "[SCOPE] OPTION VALUE",
	 "change an option now, over what the files say, until a restart", 2, ORDER_WORDS_MAX, true,
	 command_config_set},
	{"config unset", "[SCOPE] OPTION", "end that; what a file sets is taken away", 1,
	 ORDER_WORDS_MAX, true, command_config_unset},
	{"config begin", "", "gather changes on this connection", 0, 0, true, command_config_begin},
	{"config commit", "[force]",
	 "they take effect together; force: over what others have changed meanwhile", 0, 1, true,
	 command_config_commit},
	{"config rollback", "", "give them up", 0, 0, true, command_config_rollback},
	{"config writeback", "", "save what the console has set into the files", 0, 0, true,
	 command_config_writeback},
	{"hooks", "", "policy: what scripts were called for, how often, how long; errors", 0, 0,
	 false, command_hooks},
	{"lua eval", "CODE", "run a line of Lua in the console's scheduler", 1, ORDER_WORDS_MAX,
	 true, command_lua_eval},
	{"lua check", "FILE", "whether a script can be compiled", 1, 1, false, command_lua_check},
	{"threads", "", "agents and the threads they run in: load, stalls, rings", 0, 0, false,
	 command_threads},
	{"counters", "[PATTERN]", "all counters, or those that match, such as 'scheduler.*'", 0, 1,
	 false, command_counters},
	{"bounce_stats", "", "recipients that failed, by class: in band, deferred, out of band", 0,
	 0, false, command_bounce_stats},
	{"errors", "", "distinct errors of all agents since the start", 0, 0, false,
	 command_errors},
	{"memory", "", "memory of the process, budgets and pools", 0, 0, false, command_memory},
	{"version", "", "version and process id", 0, 0, false, command_version},
	{"log rotate", "", "put log files aside now, and begin new ones", 0, 0, true,
	 command_log_rotate},
	{"reopen logs", "", "open the log files anew, after a rotation", 0, 0, true,
	 command_reopen_logs},
	{"shutdown", "", "stop the program gracefully", 0, 0, true, command_shutdown},
	{"complete", "domain|binding [PREFIX]",
	 "names that begin so, 100 at most: what the Tab key asks for", 1, 2, false,
	 command_complete},
	{"help", "[COMMAND]", "what commands there are, or one of them", 0, ORDER_WORDS_MAX, false,
	 command_help},
	{.name = NULL},
};

/* ---- parsing ---- */

/* Takes the next word off `*at`, NUL-terminated in place. NULL: no more, or, with `*bad` set, a
 * quote that is not closed. */
static char *next_word(char **at, bool *bad)
{
	char *from = *at;
	char *word;
	char *to;
	bool quoted = false;

	while (isblank((unsigned char)*from)) {
		from++;
	}
	if (*from == '\0') {
		return NULL;
	}
	word = from;
	for (to = from; *from != '\0' && (quoted || !isblank((unsigned char)*from)); from++) {
		if (*from == '"') {
			quoted = !quoted;
		} else {
			*to++ = *from;
		}
	}
	*bad = quoted;
	*at = *from != '\0' ? from + 1 : from;
	*to = '\0';
	return quoted ? NULL : word;
}

static bool split_words(struct order *o)
{
	char *at = o->split;
	bool bad = false;
	char *word;

	while ((word = next_word(&at, &bad)) != NULL) {
		if (o->word_count == ORDER_WORDS_MAX) {
			order_fail_usage(o, "a command has at most %d words", ORDER_WORDS_MAX);
			return false;
		}
		o->words[o->word_count++] = word;
	}
	if (bad) {
		order_fail_usage(o, "a double quote is not closed");
		return false;
	}
	if (o->word_count == 0) {
		order_fail_usage(o, "an empty command; \"help\" lists what there is");
		return false;
	}
	return true;
}

/* How many of `words` the name takes when they begin with it; 0 when they do not. */
static unsigned name_words(const char *name, char *const *words, unsigned count)
{
	unsigned taken = 0;

	while (taken < count) {
		size_t len = strcspn(name, " ");

		if (strlen(words[taken]) != len || strncasecmp(words[taken], name, len) != 0) {
			return 0;
		}
		taken++;
		if (name[len] == '\0') {
			return taken;
		}
		name += len + 1;
	}
	return 0;
}

static const struct command *find(char *const *words, unsigned count, unsigned *taken)
{
	const struct command *best = NULL;

	*taken = 0;
	for (const struct command *c = command_table; c->name != NULL; c++) {
		unsigned n = name_words(c->name, words, count);

		if (n > *taken) {
			best = c;
			*taken = n;
		}
	}
	return best;
}

static void fail_unknown(struct order *o)
{
	const char *word = o->words[0];

	/* The first word may begin commands that have more. */
	for (const struct command *c = command_table; c->name != NULL; c++) {
		size_t len = strcspn(c->name, " ");

		if (strlen(word) == len && strncasecmp(c->name, word, len) == 0) {
			order_fail(o, "unknown command; did you mean \"%s%s%s\"?", c->name,
				   c->syntax[0] != '\0' ? " " : "", c->syntax);
			return;
		}
	}
	order_fail(o, "unknown command \"%.64s\"; \"help\" lists what there is", word);
}

void command_fail_usage(struct order *o)
{
	const struct command *c = o->command;

	order_fail_usage(o, "usage: %s%s%s", c->name, c->syntax[0] != '\0' ? " " : "", c->syntax);
}

bool command_parse(struct order *o)
{
	unsigned taken;

	if (!split_words(o)) {
		return false;
	}
	o->command = find(o->words, o->word_count, &taken);
	if (o->command == NULL && command_is_policy(o)) {
		return true;
	}
	if (o->command == NULL) {
		fail_unknown(o);
		return false;
	}
	o->arguments = o->words + taken;
	o->argument_count = o->word_count - taken;
	if (o->argument_count < o->command->arguments_min ||
	    o->argument_count > o->command->arguments_max) {
		command_fail_usage(o);
		return false;
	}
	return true;
}

bool command_changes(const struct order *o)
{
	/* Nobody knows what a script does. */
	return o->command == NULL || o->command->changes;
}

void command_run(struct order *o)
{
	if (o->command == NULL) {
		command_policy(o);
	} else {
		o->command->run(o);
	}
}

/* ---- arguments ---- */

bool command_number(struct order *o, unsigned index)
{
	const char *text = o->arguments[index];
	char *end;

	o->number = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end != '\0' || strlen(text) > 18) {
		order_fail_usage(o, "\"%.64s\" is not a whole number", text);
		return false;
	}
	return true;
}

bool command_domain(struct order *o, unsigned index)
{
	char *name = o->arguments[index];
	size_t len = strlen(name);

	if (len > 0 && name[len - 1] == '.') {
		name[--len] = '\0';
	}
	for (char *c = name; *c != '\0'; c++) {
		if (*c >= 'A' && *c <= 'Z') {
			*c = (char)(*c - 'A' + 'a');
		}
	}
	if (idna_needed(name, len)) {
		len = idna_to_ascii(name, len, o->ascii_domain);
		o->arguments[index] = o->ascii_domain;
	}
	if (len == 0 || len > 255 || strpbrk(name, "@ \t") != NULL) {
		order_fail_usage(o, "\"%.64s\" is not a domain name", name);
		return false;
	}
	return true;
}

bool command_message_id(struct order *o, unsigned index)
{
	const char *text = o->arguments[index];

	if (message_id_parse(text, &o->id) != 0) {
		order_fail_usage(o,
				 "\"%.64s\" is not a message id: those have %d letters and "
				 "digits, as in the second field of mainlog",
				 text, MESSAGE_ID_TEXT - 1);
		return false;
	}
	return true;
}

bool command_flag(struct order *o, unsigned index, const char *word)
{
	o->flag = index < o->argument_count && strcasecmp(o->arguments[index], word) == 0;
	if (index < o->argument_count && !o->flag) {
		command_fail_usage(o);
		return false;
	}
	return true;
}

/* ---- help ---- */

static json_t *describe(const struct command *c)
{
	json_t *row = value_object();

	value_set_text(row, "command", c->name);
	value_set_text(row, "arguments", c->syntax);
	value_set_text(row, "what_it_does", c->help);
	return row;
}

static void command_help(struct order *o)
{
	json_t *rows = value_array();
	unsigned taken;
	const struct command *only = find(o->arguments, o->argument_count, &taken);

	if (only != NULL && taken == o->argument_count) {
		json_decref(rows);
		order_answer(o, describe(only));
		return;
	}
	for (const struct command *c = command_table; c->name != NULL; c++) {
		if (o->argument_count == 0 ||
		    strcasestr(c->name, o->arguments[o->argument_count - 1]) != NULL) {
			value_append(rows, describe(c));
		}
	}
	if (json_array_size(rows) == 0) {
		json_decref(rows);
		order_fail(o, "no command \"%.64s\"; \"help\" lists what there is",
			   o->arguments[0]);
		return;
	}
	order_answer(o, rows);
}
