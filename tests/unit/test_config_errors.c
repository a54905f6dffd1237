/*
 * Broken configurations: what is said about each, word for word. Every mistake is reported, at its
 * line, with what was expected instead, and nothing is said about what is only its consequence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

struct broken {
	const char *text;
	/* Each line without the "x:" that names the file. */
	const char *errors;
};

static const struct broken syntax[] = {
	{"\nhostname mta1\nnode_id = 1\n",
	 "2: \"hostname\": neither a value nor a scope; expected hostname = VALUE or "
	 "hostname { ... }\n"},
	{"hostname =\nnode_id = 5\n",
	 "1: option \"hostname\": no value; expected a value after =\n"},
	{"hostname =\nspool { }\n", "1: option \"hostname\": no value; expected a value after =\n"},
	{"spool { path = }\n", "1: option \"path\": no value; expected a value after =\n"},
	{"hostname = = x\n", "1: option \"hostname\": no value; expected a value after =\n"},
	{"gateway = \"a\" \"b\"\n", "1: unexpected b; expected the name of an option or scope\n"},
	{"hostname = a;\nnode_id = 99999999\n",
	 "1: unexpected ;; expected the name of an option or scope\n"
	 "2: option \"node_id\": \"99999999\" is too large; expected a number from 0 to "
	 "65535\n"},
	{"\n\n= 5\n", "3: unexpected =; expected the name of an option or scope\n"},
	{"spool {\n  path = \"/x\"\n",
	 "1: scope spool: not closed; expected } before the end of the file\n"},
	{"domain \"a.example\" {\n domain_typo = 1\n",
	 "1: scope domain \"a.example\": not closed; expected } before the end of the "
	 "file\n"
	 "2: option \"domain_typo\": unknown; expected an option of this scope\n"},
	{"\n}\nhostname = \"x y\"\n",
	 "2: unexpected }; expected a scope to be open in this file\n"
	 "3: option \"hostname\": \"x y\" is not a host name; expected a host name such "
	 "as \"mta1.example.com\"\n"},
	{"hostname = \"open\nnode_id = x\n",
	 "1: quoted text is not closed; expected \" on the same line\n"
	 "2: option \"node_id\": \"x\" is not a number; expected a number from 0 to "
	 "65535\n"},
	{"log = 'a\n", "1: quoted text is not closed; expected ' on the same line\n"
		       "1: option \"log\": not an option; expected a scope, log { ... }\n"},
	{"/* never\nclosed\n", "1: comment is not closed; expected */\n"},
	{"relay_hosts = ( 10.0.0.0/8\n",
	 "1: option \"relay_hosts\": list is not closed; expected )\n"},
	{"relay_hosts = ( 10.0.0.0/8\nhostname = x\n}\n",
	 "2: option \"relay_hosts\": unexpected = in a list; expected words, in quotes "
	 "if they have punctuation in them, or )\n"
	 "3: unexpected }; expected a scope to be open in this file\n"},
	{"gateway = ( [::1]:25 )\n",
	 "1: option \"gateway\": unexpected ] in a list; expected words, in quotes if "
	 "they have punctuation in them, or )\n"},
	{"gateway = [::1]:25\nnode_id = -1\n",
	 "1: option \"gateway\": unexpected ] in a dictionary; expected key = value or "
	 "]\n"
	 "2: option \"node_id\": \"-1\" is not a number; expected a number from 0 to "
	 "65535\n"},
	{"spool \"a\" \"b\" { }\n",
	 "1: \"spool\": neither a value nor a scope; expected spool = VALUE or spool { "
	 "... }\n"},
	{"hostname = \"a\001b\"\n\001\n",
	 "1: unexpected byte 0x01; expected text\n"
	 "1: option \"hostname\": \"a?b\" is not a host name; expected a host name such "
	 "as \"mta1.example.com\"\n"
	 "2: unexpected byte 0x01; expected text\n"},
	{"tls_certificate = \"/nowhere\"\nesmtp_listener { listen 127.0.0.1:25 { } }\n",
	 "1: option \"tls_certificate\": cannot be used: certificate \"/nowhere\": No such file or "
	 "directory\n"},
	{"esmtp_listener { listen 127.0.0.1:25 {\nuse_ssl = true\n} }\n",
	 "2: option \"use_ssl\": there is no certificate; expected tls_certificate = \"FILE\"\n"},
	{"esmtp_listener { proxy_protocol = on xclient_hosts = ( 127.0.0.1 )\nlisten 127.0.0.1:25 "
	 "{\nuse_ssl = true\n} }\n",
	 "3: option \"use_ssl\": proxy_protocol is on; expected one of the two, as a proxy's header "
	 "comes before TLS\n"
	 "3: option \"use_ssl\": there is no certificate; expected tls_certificate = \"FILE\"\n"},
	{"tls_certificate a.test {\n}\n",
	 "1: scope tls_certificate \"a.test\": has no file; expected certificate = \"FILE\"\n"},
	{"tls_certificate a.test { certificate = \"/nowhere\" }\n",
	 "1: scope tls_certificate \"a.test\": cannot be used: certificate \"/nowhere\": No such file "
	 "or directory\n"},
	{"tls_certificate \"*.*.test\" { certificate = x }\n",
	 "1: scope tls_certificate \"*.*.test\": its name is not a domain; expected a host such as "
	 "\"mx.example.com\" or \"*.example.com\"\n"},
	{"domain a.example { tls_ca = \"/nowhere\" }\n",
	 "1: option \"tls_ca\": \"/nowhere\" cannot be read as one; expected a file of PEM "
	 "certificates\n"},
	{"{ hostname = x }\n", "1: unexpected {; expected the name of an option or scope\n"},
};

static const struct broken names[] = {
	{"memory_bugdet = 5M\n",
	 "1: option \"memory_bugdet\": unknown; expected an option, did you mean "
	 "\"memory_budget\"?\n"},
	{"utterly_foreign = 5M\n",
	 "1: option \"utterly_foreign\": unknown; expected an option of this scope\n"},
	{"domain a.example {\n\tretry_intervall = 5\n}\n",
	 "2: option \"retry_intervall\": unknown; expected an option, did you mean "
	 "\"retry_interval\"?\n"},
	{"domain a.example { hostname = x }\n",
	 "1: option \"hostname\": not possible here; expected it in the global scope, "
	 "esmtp_listener, listen, peer\n"},
	{"spool = \"/var/spool\"\n",
	 "1: option \"spool\": not an option; expected a scope, spool { ... }\n"},
	{"hostname { }\n",
	 "1: scope hostname: not a scope; expected an option, hostname = VALUE\n"},
	{"domian a.example { nonsense = 1 }\n",
	 "1: scope domian \"a.example\": unknown; expected a scope, did you mean "
	 "\"domain\"?\n"},
	{"domain { }\n", "1: scope domain: needs a name; expected domain \"NAME\" { ... }\n"},
	{"spool main { }\n", "1: scope spool \"main\": takes no name; expected spool { ... }\n"},
	{"spool { log { path = 5 } }\n",
	 "1: scope log: not possible here; expected it in the global scope\n"},
	{"agent shceduler { }\n",
	 "1: scope agent \"shceduler\": unknown; expected one of master, scheduler, "
	 "spool, wheel, resolver, log, pool\n"},
	{"agent wheel { backlog = 5 }\n",
	 "1: option \"backlog\": not possible here; expected it in agent pool\n"},
	{"domain \"a b\" { }\n",
	 "1: scope domain \"a b\": its name is not a domain; expected a domain such as "
	 "\"example.com\"\n"},
	{"domain \"/^mx\" { }\n",
	 "1: scope domain \"/^mx\": its name is no regular expression between slashes; "
	 "expected a pattern such as \"/\\.example\\.com$/\"\n"},
	{"binding \"a:b\" { }\n",
	 "1: scope binding \"a:b\": its name is empty or has a space or colon in it; "
	 "expected a name such as \"alpha\"\n"},
};

static const struct broken values[] = {
	{"memory_budget = 5X\n",
	 "1: option \"memory_budget\": \"5X\" has an unknown unit; expected a size such "
	 "as 16M, from 1M to 1T\n"},
	{"memory_budget = lots\n",
	 "1: option \"memory_budget\": \"lots\" is not a number; expected a size such "
	 "as 16M, from 1M to 1T\n"},
	{"memory_budget = 1K\n",
	 "1: option \"memory_budget\": \"1K\" is too small; expected a size such as "
	 "16M, from 1M to 1T\n"},
	{"memory_budget = 99999999999999999999\n",
	 "1: option \"memory_budget\": \"99999999999999999999\" is too large; expected "
	 "a size such as 16M, from 1M to 1T\n"},
	{"node_id = 65536\n",
	 "1: option \"node_id\": \"65536\" is too large; expected a number from 0 to "
	 "65535\n"},
	{"node_id = 5s\n",
	 "1: option \"node_id\": \"5s\" is not a number; expected a number from 0 to "
	 "65535\n"},
	{"ring_slots = 1000\n",
	 "1: option \"ring_slots\": \"1000\" is not a power of two; expected a power of "
	 "two from 64 to 65536\n"},
	{"stop_timeout = 5 fortnights\n",
	 "1: \"fortnights\": neither a value nor a scope; expected fortnights = VALUE "
	 "or fortnights { ... }\n"},
	{"stop_timeout = \"5 fortnights\"\n",
	 "1: option \"stop_timeout\": \"5 fortnights\" has an unknown unit; expected a "
	 "time such as 30s, from 0 to 366d\n"},
	{"stop_timeout = 1us\n",
	 "1: option \"stop_timeout\": \"1us\" is not a whole number of milliseconds; "
	 "expected a time such as 30s, from 0 to 366d\n"},
	{"journal j {\nsize_limit = 1G\nsegment_size = 103M }\nlog { main = \"jlog:j\" }\n",
	 "3: option \"segment_size\": more than a tenth of size_limit; expected at most 104857K, "
	 "or a larger size_limit\n"},
	{"journal j { segment_size = 5G } log { main = \"jlog:j\" }\n",
	 "1: option \"segment_size\": \"5G\" is too large; expected a size such as 16M, from 4K "
	 "to 2G\n"},
	{"journal j {\nsize_limit = 39K } log { main = \"jlog:j\" }\n",
	 "2: option \"size_limit\": too small; expected at least 40K, or 0 for none\n"},
	{"journal j { subscribers = ( \"a b\" ) } log { main = \"jlog:j\" }\n",
	 "1: option \"subscribers\": \"a b\" has a space or control character; expected names of "
	 "1 to 126 bytes such as ( \"billing\" \"analytics\" )\n"},
	{"journal j { subscribers = ( \"\" ) } log { main = \"jlog:j\" }\n",
	 "1: option \"subscribers\": \"\" is empty; expected names of 1 to 126 bytes such as "
	 "( \"billing\" \"analytics\" )\n"},
	{"journal j { subscribers = ( a b a ) } log { main = \"jlog:j\" }\n",
	 "1: option \"subscribers\": \"a\" is named twice; expected each once\n"},
	{"spool { durability = fast }\n",
	 "1: option \"durability\": \"fast\" is unknown; expected one of synced, "
	 "cached, memory\n"},
	{"suspend_delivery = perhaps\n",
	 "1: option \"suspend_delivery\": \"perhaps\" is neither true nor false; "
	 "expected true or false\n"},
	{"file_mode = 0890\n",
	 "1: option \"file_mode\": \"0890\" is not an octal number; expected an octal "
	 "mode such as 0660\n"},
	{"file_mode = 1777\n",
	 "1: option \"file_mode\": \"1777\" is too large; expected an octal mode such "
	 "as 0660\n"},
	{"spool { compact_below = 95% }\n",
	 "1: option \"compact_below\": \"95%\" is too large; expected a percentage from "
	 "0 to 90\n"},
	{"hostname = \"not a name\"\n",
	 "1: option \"hostname\": \"not a name\" is not a host name; expected a host "
	 "name such as \"mta1.example.com\"\n"},
	{"hostname = ( a b )\n",
	 "1: option \"hostname\": a list is not possible here; expected a host name "
	 "such as \"mta1.example.com\"\n"},
	{"hostname = [ a = b ]\n",
	 "1: option \"hostname\": a dictionary is not possible here; expected a host "
	 "name such as \"mta1.example.com\"\n"},
	{"mailerdaemon = nobody\n",
	 "1: option \"mailerdaemon\": \"nobody\" is not a mail address; expected an "
	 "address such as \"mailer-daemon@example.com\"\n"},
	{"banner = \"\"\n",
	 "1: option \"banner\": \"\" is empty; expected 1 to 200 bytes of text\n"},
	{"relay_hosts = (\n\t10.0.0.0/33\n\t10.1.0.0/8\n\t2001:db8::/129\n\tlocalhost\n)\n",
	 "2: option \"relay_hosts\": \"10.0.0.0/33\" has a prefix that is not 0 to 32; "
	 "expected a list of networks such as ( \"10.0.0.0/8\" \"::1\" )\n"
	 "3: option \"relay_hosts\": \"10.1.0.0/8\" has bits set after its prefix; "
	 "expected a list of networks such as ( \"10.0.0.0/8\" \"::1\" )\n"
	 "4: option \"relay_hosts\": \"2001:db8::/129\" has a prefix that is not 0 to "
	 "128; expected a list of networks such as ( \"10.0.0.0/8\" \"::1\" )\n"
	 "5: option \"relay_hosts\": \"localhost\" is not a network; expected a list of "
	 "networks such as ( \"10.0.0.0/8\" \"::1\" )\n"},
	{"domain \"\342\230\203.x\" { }\nrelay_domains = ( -\303\274.x )\n",
	 "1: scope domain \"\342\230\203.x\": its name is not a domain; expected a domain such as \"example.com\"\n"
	 "2: option \"relay_domains\": \"-\303\274.x\" is not a domain; expected a list of "
	 "domains such as ( \"example.com\" \".example.net\" )\n"},
	{"relay_domains = ( a..b )\n",
	 "1: option \"relay_domains\": \"a..b\" is not a domain; expected a list of "
	 "domains such as ( \"example.com\" \".example.net\" )\n"},
	{"gateway = ::1\n",
	 "1: option \"gateway\": \"::1\" is an IPv6 address without brackets; expected "
	 "next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = ::1:25\n",
	 "1: option \"gateway\": \"::1:25\" is an IPv6 address without brackets; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = \"[::1\"\n",
	 "1: option \"gateway\": \"[::1\" has no closing bracket; expected next hops "
	 "such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = \"[::1]25\"\n",
	 "1: option \"gateway\": \"[::1]25\" has more than a port after its bracket; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = \"[::g]:25\"\n",
	 "1: option \"gateway\": \"[::g]:25\" has no IPv6 address in its brackets; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = a.example:0\n",
	 "1: option \"gateway\": \"a.example:0\" has a port that is not 1 to 65535; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = ( a.example:25 a.example:65536 )\n",
	 "1: option \"gateway\": \"a.example:65536\" has a port that is not 1 to 65535; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = a.example:smtp\n",
	 "1: option \"gateway\": \"a.example:smtp\" has a port that is not 1 to 65535; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = \"a.example:25?weight=5\"\n",
	 "1: option \"gateway\": \"a.example:25?weight=5\" has an unknown parameter; "
	 "expected next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = \"a.example:25?pref=x\"\n",
	 "1: option \"gateway\": \"a.example:25?pref=x\" has a preference that is not 0 "
	 "to 65535; expected next hops such as \"mx.example.com:25?pref=10\" or "
	 "\"[::1]:25\"\n"},
	{"gateway = \"\"\n",
	 "1: option \"gateway\": \"\" has no host name or address; expected next hops "
	 "such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"gateway = ( ( a.example ) )\n",
	 "1: option \"gateway\": a list does not belong in a list here; expected next "
	 "hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\"\n"},
	{"outbound_throttle_messages = 0\n",
	 "1: option \"outbound_throttle_messages\": \"0\" would let nothing pass; "
	 "expected a rate such as 50, 300/min or 100/60, or none\n"},
	{"outbound_throttle_messages = 5/fortnight\n",
	 "1: option \"outbound_throttle_messages\": \"5/fortnight\" has a period that "
	 "is not sec, min, hour, day, or 1 to 31622400 seconds; expected a rate such as "
	 "50, 300/min or 100/60, or none\n"},
	{"outbound_throttle_messages = 5 per second\n",
	 "1: \"per\": neither a value nor a scope; expected per = VALUE or per { ... }\n"},
	{"outbound_throttle_connections = 5per\n",
	 "1: option \"outbound_throttle_connections\": \"5per\" is not a rate; expected "
	 "a rate such as 50, 300/min or 100/60, or none\n"},
	{"max_recipients_per_batch = 129\n",
	 "1: option \"max_recipients_per_batch\": \"129\" is too large; expected a "
	 "number from 1 to 128\n"},
	{"agent scheduler { cores = ( 0 x ) }\n",
	 "1: option \"cores\": \"x\" is not a number; expected a list of core numbers "
	 "such as ( 0 1 )\n"},
	{"esmtp_listener { listen 127.0.0.1 { } }\n",
	 "1: scope listen \"127.0.0.1\": its address names no port; expected "
	 "\"127.0.0.1:25\", \"[::1]:25\", \"*:25\" or a path\n"},
	{"esmtp_listener { listen localhost:25 { } }\n",
	 "1: scope listen \"localhost:25\": its address has no IP address; expected "
	 "\"127.0.0.1:25\", \"[::1]:25\", \"*:25\" or a path\n"},
	{"esmtp_listener { listen 127.0.0.1:70000 { } }\n",
	 "1: scope listen \"127.0.0.1:70000\": its address has a port that is not 0 to "
	 "65535; expected \"127.0.0.1:25\", \"[::1]:25\", \"*:25\" or a path\n"},
	{"esmtp_listener { listen ::1:25 { } }\n",
	 "1: scope listen \"::1:25\": its address is an IPv6 address without brackets; "
	 "expected \"127.0.0.1:25\", \"[::1]:25\", \"*:25\" or a path\n"},
	{"esmtp_listener { peer 10.0.0.1/8 { } }\n",
	 "1: scope peer \"10.0.0.1/8\": its name has bits set after its prefix; "
	 "expected a network such as \"10.0.0.0/8\"\n"},
};

static const struct broken combinations[] = {
	{"datasource d { uri = \"sqlite:\" }\n",
	 "1: datasource \"d\": expected option \"uri\", sqlite:PATH or redis:HOST\n"},
	{"signature s { }\n", "1: scope signature \"s\": not possible here; expected it in dkim\n"},
	{"spool { segment_size = 16M }\n\nmax_message_size = 9M\n",
	 "3: option \"max_message_size\": more than half of the spool's segment_size; "
	 "expected at most 8M\n"},
	{"esmtp_listener { listen :25 {\npeer 10.0.0.0/8 { max_message_size = 1G } } }\n",
	 "2: option \"max_message_size\": more than half of the spool's segment_size; "
	 "expected at most 128M\n"},
	{"reception_budget = 1M max_message_size = 2M\n",
	 "1: option \"max_message_size\": more than the reception_budget; expected at "
	 "most 1M\n"},
	{"agent wheel { group = service }\n",
	 "1: option \"group\": there is no group \"service\"; expected group "
	 "\"service\" { ... } in the global scope\n"},
	{"agent wheel { group = g\nidle = yield core = 2 }\ngroup g { }\n",
	 "2: option \"idle\": the agent runs in group \"g\"; expected it in that group\n"
	 "2: option \"core\": the agent runs in group \"g\"; expected it in that group\n"},
	{"agent scheduler { count = 2\ncores = ( 1 2 3 ) }\n",
	 "2: option \"cores\": has 3 cores for a count of 2; expected one for each "
	 "agent\n"},
	{"agent scheduler { count = 2 core = 1 }\n",
	 "1: option \"core\": is for a count of 1; expected cores = ( ... )\n"},
	{"agent scheduler { cores = ( ) }\n",
	 "1: option \"cores\": has 0 cores for a count of 1; expected one for each "
	 "agent\n"},
	{"agent wheel { count = 2 }\n",
	 "1: option \"count\": 2 is impossible; expected 1, there is only one wheel\n"},
	{"agent master { count = 2 }\n",
	 "1: option \"count\": 2 is impossible; expected 1, there is only one master\n"},
	{"group g { min_park = 2s } agent log { group = g }\n",
	 "1: option \"min_park\": longer than max_park; expected at most max_park\n"},
	{"retry_interval = 1h\nmax_retry_interval = 30m\n",
	 "1: option \"retry_interval\": longer than max_retry_interval; expected at "
	 "most that\n"},
	{"domain a.example {\nmax_retry_interval = 5m }\n",
	 "2: option \"max_retry_interval\": shorter than retry_interval; expected at "
	 "least that\n"},
	{"server_max_file_descriptors = 100\n",
	 "1: option \"server_max_file_descriptors\": less than "
	 "server_max_outbound_connections; expected at least 20000\n"},
	{"server_max_outbound_connections = 90000\n",
	 "1: option \"server_max_outbound_connections\": more than "
	 "server_max_file_descriptors; expected at most 80000\n"},
	{"esmtp_listener { listen 127.0.0.1:25 { } }\n"
	 "control_listener { listen \"[127.0.0.1]:25\" { } }\n",
	 "2: scope listen \"[127.0.0.1]:25\": another listen has the same address; "
	 "expected each address once\n"},
	{"esmtp_listener { listen *:25 { }\nlisten :25 { } }\n",
	 "2: scope listen \":25\": another listen has the same address; expected each "
	 "address once\n"},
	{"binding_group g { binding a { } }\nbinding_group h { binding a { } }\n",
	 "2: scope binding \"a\": is in binding_group \"g\" already; expected each "
	 "binding in one group\n"},
	{"dkim a.example { }\ndkim b.example {\n signature s { } }\n",
	 "1: scope dkim \"a.example\": no key; expected key = \"/PATH\" or signature "
	 "\"SELECTOR\" { key = \"/PATH\" }\n"
	 "3: scope signature \"s\": no key; expected key = \"/PATH\"\n"},
	{"dkim a.example {\nkey = /dev/null }\n",
	 "2: scope dkim \"a.example\": a key without selector; expected selector = \"s1\"\n"
	 "2: option \"key\": \"/dev/null\": No such device; expected a PEM file with an RSA key "
	 "of 1024 to 4096 bits, or an Ed25519 key\n"},
	/* One file is wrong once. */
	{"dkim a.example { selector = s key = /nowhere/x\n signature t { key = /nowhere/x } }\n",
	 "1: option \"key\": \"/nowhere/x\": No such file or directory; expected a PEM file with "
	 "an RSA key of 1024 to 4096 bits, or an Ed25519 key\n"},
	{"dkim \"[192.0.2.1]\" { }\ndkim \"\342\230\203.example\" { }\n",
	 "1: scope dkim \"[192.0.2.1]\": its name is an address; expected a domain such as "
	 "\"example.com\"\n"
	 "2: scope dkim \"\342\230\203.example\": its name is not a host name; expected a domain such "
	 "as \"example.com\"\n"},
};

static char *errors_of(const char *text, struct config **config)
{
	char *errors;
	size_t size;
	FILE *out = open_memstream(&errors, &size);
	assert_non_null(out);
	*config = config_load_text("x", text, strlen(text), out);
	fclose(out);
	return errors;
}

/* "x:" before each line. */
static void expand(const char *errors, char *out, size_t size)
{
	size_t used = 0;
	*out = '\0';
	while (*errors != '\0') {
		int line = (int)strcspn(errors, "\n") + 1;
		int wrote = snprintf(out + used, size - used, "x:%.*s", line, errors);
		assert_in_range(wrote, 1, size - used - 1);
		used += (size_t)wrote;
		errors += line;
	}
}

static void check_all(const struct broken *cases, size_t count)
{
	char expected[4096];
	size_t wrong = 0;
	for (size_t i = 0; i < count; i++) {
		struct config *config;
		char *errors = errors_of(cases[i].text, &config);
		expand(cases[i].errors, expected, sizeof(expected));
		if (config != NULL || strcmp(errors, expected) != 0) {
			print_error("%s\nsays\n%sinstead of\n%s\n", cases[i].text, errors,
				    expected);
			wrong++;
		}
		if (config != NULL) {
			config_release(config);
		}
		free(errors);
	}
	assert_int_equal(wrong, 0);
}

#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof((cases)[0]))

static void test_load_when_syntax_is_broken(void **state)
{
	(void)state;
	CHECK_ALL(syntax);
}

static void test_load_when_names_are_unknown_or_misplaced(void **state)
{
	(void)state;
	CHECK_ALL(names);
}

static void test_load_when_values_are_wrong(void **state)
{
	(void)state;
	CHECK_ALL(values);
}

static void test_load_when_values_do_not_go_together(void **state)
{
	(void)state;
	CHECK_ALL(combinations);
}

static size_t count_lines(const char *text)
{
	size_t lines = 0;
	for (; *text != '\0'; text++) {
		lines += *text == '\n';
	}
	return lines;
}

static void test_load_when_there_are_too_many_errors(void **state)
{
	char text[16 * 150 + 1] = "";
	struct config *config;
	(void)state;
	for (int i = 0; i < 150; i++) {
		strcat(text, "node_id = none\n");
	}
	char *errors = errors_of(text, &config);
	assert_null(config);
	assert_int_equal(count_lines(errors), 101);
	assert_non_null(strstr(errors, "\nand 50 more errors and warnings\n"));
	assert_memory_equal(errors, "x:1: ", 5);
	free(errors);
}

/* Neither brackets nor braces may take the stack. */
static void test_load_when_nested_too_deep(void **state)
{
	enum { DEPTH = 100000 };
	struct config *config;
	char *text = malloc(DEPTH * 4 + 1);
	(void)state;
	assert_non_null(text);
	for (int i = 0; i < DEPTH; i++) {
		memcpy(text + (size_t)i * 4, "a b{", 4);
	}
	text[DEPTH * 4] = '\0';
	char *errors = errors_of(text, &config);
	assert_null(config);
	assert_non_null(strstr(errors, "x:1: scope a \"b\": nested deeper than 32; expected }\n"));
	free(errors);

	memset(text, '(', DEPTH);
	memcpy(text, "hostname = ", 11);
	text[DEPTH] = '\0';
	errors = errors_of(text, &config);
	assert_null(config);
	assert_non_null(strstr(errors, "x:1: option \"hostname\": unexpected ( in a list"));
	free(errors);
	memset(text, '{', DEPTH);
	errors = errors_of(text, &config);
	assert_null(config);
	free(errors);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load_when_syntax_is_broken),
		cmocka_unit_test(test_load_when_names_are_unknown_or_misplaced),
		cmocka_unit_test(test_load_when_values_are_wrong),
		cmocka_unit_test(test_load_when_values_do_not_go_together),
		cmocka_unit_test(test_load_when_there_are_too_many_errors),
		cmocka_unit_test(test_load_when_nested_too_deep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
