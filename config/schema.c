#include "config/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/schema_rows.h"
#include "config/word.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

static const char *const io_agents[] = {"master", "scheduler", "spool", NULL};
static const char *const service_agents[] = {"wheel", "resolver", NULL};
static const char *const log_agents[] = {"log", NULL};
static const char *const pool_agents[] = {"pool", NULL};
static const char *const scriptlets[] = {"scriptlet", NULL};

const struct schema_scope_row schema_scope_rows[] = {
	{"spool", "where accepted mail is kept", SCOPE_SPOOL, GLOBAL, INSTANCE_NONE, NULL},
	{"log", "what became of each message", SCOPE_LOG, GLOBAL, INSTANCE_NONE, NULL},
	{"custom_logger", "a log of one's own layout", SCOPE_CUSTOM_LOGGER, GLOBAL,
	 INSTANCE_REQUIRED, NULL},
	{"journal", "a journal that logs go to, by its name there", SCOPE_JOURNAL, GLOBAL,
	 INSTANCE_REQUIRED, NULL},
	{"resolver", "who knows where mail goes", SCOPE_RESOLVER, GLOBAL, INSTANCE_NONE, NULL},
	{"mta_sts", "how policies of MTA-STS are fetched", SCOPE_STS, GLOBAL, INSTANCE_NONE, NULL},
	{"scriptlet", "policy in Lua", SCOPE_SCRIPTLET, GLOBAL, INSTANCE_REQUIRED, scriptlets},
	{"script", "one file of policy", SCOPE_SCRIPT, BIT(SCOPE_SCRIPTLET), INSTANCE_REQUIRED,
	 NULL},
	{"datasource", "a database that scripts ask, by its name", SCOPE_DATASOURCE, GLOBAL,
	 INSTANCE_REQUIRED, NULL},
	{"inbound_audit", "what clients do, counted for scripts", SCOPE_INBOUND_AUDIT, GLOBAL,
	 INSTANCE_NONE, NULL},
	{"group", "a thread that agents share", SCOPE_GROUP, GLOBAL, INSTANCE_REQUIRED, NULL},
	{"agent", "agents that do I/O", SCOPE_AGENT, GLOBAL, INSTANCE_REQUIRED, io_agents},
	{"agent", "agents that serve others", SCOPE_SERVICE_AGENT, GLOBAL, INSTANCE_REQUIRED,
	 service_agents},
	{"agent", "the agent that writes the logs", SCOPE_LOG_AGENT, GLOBAL, INSTANCE_REQUIRED,
	 log_agents},
	{"agent", "threads for what may block", SCOPE_POOL_AGENT, GLOBAL, INSTANCE_REQUIRED,
	 pool_agents},
	{"esmtp_listener", "receives mail by SMTP", SCOPE_ESMTP_LISTENER, GLOBAL, INSTANCE_OPTIONAL,
	 NULL},
	{"listen", "one socket to receive mail", SCOPE_ESMTP_LISTEN, BIT(SCOPE_ESMTP_LISTENER),
	 INSTANCE_REQUIRED, NULL},
	{"peer", "clients of one network", SCOPE_ESMTP_PEER, ESMTP, INSTANCE_REQUIRED, NULL},
	{"control_listener", "serves the console", SCOPE_CONTROL_LISTENER, GLOBAL,
	 INSTANCE_OPTIONAL, NULL},
	{"listen", "one socket for consoles", SCOPE_CONTROL_LISTEN, BIT(SCOPE_CONTROL_LISTENER),
	 INSTANCE_REQUIRED, NULL},
	{"http_listener", "serves metrics, health and what the console shows", SCOPE_HTTP_LISTENER,
	 GLOBAL, INSTANCE_OPTIONAL, NULL},
	{"listen", "one socket for HTTP", SCOPE_HTTP_LISTEN, BIT(SCOPE_HTTP_LISTENER),
	 INSTANCE_REQUIRED, NULL},
	{"graphite", "who is sent metrics", SCOPE_GRAPHITE, GLOBAL, INSTANCE_NONE, NULL},
	{"dkim", "signs mail of a domain", SCOPE_DKIM, GLOBAL, INSTANCE_REQUIRED, NULL},
	{"signature", "one more signature, with a key of its own", SCOPE_DKIM_SIGNATURE,
	 BIT(SCOPE_DKIM), INSTANCE_REQUIRED, NULL},
	{"tls_certificate", "a certificate for clients that ask for a name", SCOPE_TLS_CERTIFICATE,
	 GLOBAL, INSTANCE_REQUIRED, NULL},
	{"binding_group", "bindings that share options", SCOPE_BINDING_GROUP, GLOBAL,
	 INSTANCE_REQUIRED, NULL},
	{"binding", "an identity that mail is sent by", SCOPE_BINDING,
	 GLOBAL | BIT(SCOPE_BINDING_GROUP), INSTANCE_REQUIRED, NULL},
	{"provider", "whoever takes mail of many domains", SCOPE_PROVIDER,
	 GLOBAL | BIT(SCOPE_BINDING), INSTANCE_REQUIRED, NULL},
	{"domain", "a destination", SCOPE_DOMAIN,
	 GLOBAL | BIT(SCOPE_BINDING_GROUP) | BIT(SCOPE_BINDING), INSTANCE_REQUIRED, NULL},
};

enum { SCOPE_ROW_COUNT = sizeof(schema_scope_rows) / sizeof(schema_scope_rows[0]) };
_Static_assert(SCOPES <= 32, "scopes are bits of a word");

READONLY
struct type_row {
	const char *name;
	const char *unit;
	/* What a value looks like; a range may follow. */
	const char *expectation;
};

static const struct type_row types[TYPES] = {
	[TYPE_BOOLEAN] = {"boolean", "-", "true or false"},
	[TYPE_NUMBER] = {"number", "-", "a number"},
	[TYPE_POWER_OF_TWO] = {"number", "-", "a power of two"},
	[TYPE_PERCENT] = {"number", "percent", "a percentage"},
	[TYPE_MODE] = {"mode", "octal", "an octal mode such as 0660"},
	[TYPE_SIZE] = {"size", "bytes, K, M, G, T", "a size such as 16M,"},
	[TYPE_TIME_MS] = {"time", "seconds, or ms, s, m, h, d", "a time such as 30s,"},
	[TYPE_TIME_NS] = {"time", "seconds, or ns, us, ms, s, m, h, d", "a time such as 50us,"},
	[TYPE_CHOICE] = {"choice", "-", NULL},
	[TYPE_TEXT] = {"text", "-", "text"},
	[TYPE_HOSTNAME] = {"hostname", "-", "a host name such as \"mta1.example.com\""},
	[TYPE_ADDRESS] = {"address", "-", "an address such as \"mailer-daemon@example.com\""},
	[TYPE_CORE] = {"core", "-", "the number of a core, or -1"},
	[TYPE_CORES] = {"cores", "-", "a list of core numbers such as ( 0 1 )"},
	[TYPE_NETWORKS] = {"networks", "-",
			   "a list of networks such as ( \"10.0.0.0/8\" \"::1\" )"},
	[TYPE_DOMAINS] = {"domains", "-",
			  "a list of domains such as ( \"example.com\" \".example.net\" )"},
	[TYPE_NAME_SERVERS] = {"name servers", "-",
			       "a list of name servers such as ( \"192.0.2.1\" \"::1@5353\" )"},
	[TYPE_GATEWAYS] = {"gateways", "-",
			   "next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\""},
	[TYPE_TLS_CA] = {"path", "-", "a file of PEM certificates"},
	[TYPE_THROTTLE] = {"throttle", "per second, or N/sec, N/min, N/hour, N/SECONDS",
			   "a rate such as 50, 300/min or 100/60, or none"},
	[TYPE_FIELDS] = {"fields", "-", "a list of header field names such as ( from subject )"},
	[TYPE_FIELD] = {"field", "-", "the name of a header field such as X-Binding, or \"\""},
	[TYPE_BIND_ADDRESSES] =
		{"addresses", "-",
		 "an address such as \"192.0.2.1\", or one of each family in a list"},
	[TYPE_DESTINATIONS] = {"destinations", "-",
			       "destinations such as ( \"file:mainlog\" \"json:events\" )"},
	[TYPE_DESTINATION] = {"destination", "-", "a destination such as \"file:my.log\""},
	[TYPE_SANITIZERS] = {"rules", "-",
			     "rules such as ( special_characters non_printable \"tr/@/_/\" )"},
	[TYPE_SUBSCRIBERS] = {"names", "-",
			      "names of 1 to 126 bytes such as ( \"billing\" \"analytics\" )"},
	[TYPE_MONITORS] = {"monitors", "-",
			   "monitors of SECONDS,WINDOWS such as ( \"300,6\" \"1800,4\" )"},
	[TYPE_RATE] = {"rate", "per second, or N/sec, N/min, N/hour, N/SECONDS",
		       "a rate such as 10/min or 100/60, or none"},
};

const struct schema_option *schema_option_find(const char *name, enum schema_scope scope)
{
	const struct schema_option *end = schema_options + schema_option_count();

	for (const struct schema_option *o = schema_options; o < end; o++) {
		if ((o->scopes & BIT(scope)) != 0 && word_same(o->name, name)) {
			return o;
		}
	}
	return NULL;
}

static bool has_word(const char *const *words, const char *word)
{
	for (; words != NULL && *words != NULL; words++) {
		if (strcmp(*words, word) == 0) {
			return true;
		}
	}
	return false;
}

static bool suits(const struct schema_scope_row *row, const char *instance)
{
	switch (row->instance) {
	case INSTANCE_NONE:
		return instance == NULL;
	case INSTANCE_REQUIRED:
		return instance != NULL &&
		       (row->instances == NULL || has_word(row->instances, instance));
	case INSTANCE_OPTIONAL:
		break;
	}
	return true;
}

const struct schema_scope_row *schema_scope_find(const char *name, const char *instance,
						 enum schema_scope parent)
{
	for (size_t i = 0; i < SCOPE_ROW_COUNT; i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if ((row->parents & BIT(parent)) != 0 && word_same(row->name, name) &&
		    suits(row, instance)) {
			return row;
		}
	}
	return NULL;
}

uint32_t schema_scope_row_count(void)
{
	return SCOPE_ROW_COUNT;
}

const char *schema_type_name(enum schema_type type)
{
	return types[type].name;
}

const char *schema_type_unit(enum schema_type type)
{
	return types[type].unit;
}

static void expect_choice(const struct schema_option *option, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "one of");
	for (const char *const *c = option->choices; *c != NULL && used < size; c++) {
		used += (size_t)snprintf(text + used, size - used, "%s %s",
					 c == option->choices ? "" : ",", *c);
	}
}

/* The ends of the range, in the words that the option itself would be written in. */
static void format_limit(const struct schema_option *option, uint64_t limit, char *text,
			 size_t size)
{
	if (option->type == TYPE_SIZE) {
		word_format_size(limit, text, size);
	} else if (option->type == TYPE_TIME_MS) {
		word_format_time(limit * NS_PER_MS, text, size);
	} else if (option->type == TYPE_TIME_NS) {
		word_format_time(limit, text, size);
	} else {
		snprintf(text, size, "%" PRIu64, limit);
	}
}

const char *schema_expectation(const struct schema_option *option, char *text, size_t size)
{
	char min[32];
	char max[32];
	switch (option->type) {
	case TYPE_NUMBER:
	case TYPE_POWER_OF_TWO:
	case TYPE_PERCENT:
	case TYPE_SIZE:
	case TYPE_TIME_MS:
	case TYPE_TIME_NS:
		format_limit(option, option->min, min, sizeof(min));
		format_limit(option, option->max, max, sizeof(max));
		snprintf(text, size, "%s from %s to %s", types[option->type].expectation, min, max);
		break;
	case TYPE_TEXT:
		snprintf(text, size, "1 to %" PRIu64 " bytes of text", option->max);
		break;
	case TYPE_CHOICE:
		expect_choice(option, text, size);
		break;
	default:
		snprintf(text, size, "%s", types[option->type].expectation);
	}
	return text;
}

/* A path has none. */
static bool find_password(const struct schema_option *option, const char *value, size_t *begin,
			  size_t *end)
{
	const char *after = option->password_after;
	const char *from = after != NULL ? strstr(value, after) : NULL;
	const char *to;

	if (from == NULL || from[strlen(after)] == '/') {
		return false;
	}
	from += strlen(after);
	to = strrchr(from, '@');
	*begin = (size_t)(from - value);
	*end = to != NULL ? (size_t)(to - value) : 0;
	return to != NULL;
}

char *schema_mask(const struct schema_option *option, const char *value)
{
	size_t begin = 0;
	size_t end = strlen(value);
	char *mask;

	if (!option->secret && !find_password(option, value, &begin, &end)) {
		return NULL;
	}
	if (asprintf(&mask, "%.*s%s%s", (int)begin, value, option->secret ? "(a secret)" : "***",
		     value + end) < 0) {
		fatal("configuration: out of memory");
	}
	return mask;
}
