#include "config/word.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#include "core/log/jlog_format.h"
#include "core/mail/dkim.h"
#include "core/runtime/clock.h"

READONLY
struct unit {
	const char *name;
	uint64_t factor;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Digits at `*at`, which moves behind them. */
static const char *take_number(const char **at, uint64_t *value)
{
	const char *c = *at;
	*value = 0;
	if (!is_digit(*c)) {
		return "is not a number";
	}
	for (; is_digit(*c); c++) {
		if (__builtin_mul_overflow(*value, UINT64_C(10), value) ||
		    __builtin_add_overflow(*value, (uint64_t)(*c - '0'), value)) {
			return "is too large";
		}
	}
	*at = c;
	return NULL;
}

/* A number and one of `units`, of which the first one goes without saying. */
static const char *number_with_unit(const char *word, const struct unit *units, uint64_t *value)
{
	const char *problem = take_number(&word, value);
	if (problem != NULL) {
		return problem;
	}
	while (*word == ' ') {
		word++;
	}
	const struct unit *unit = units;
	if (*word != '\0') {
		while (unit->name != NULL && strcasecmp(unit->name, word) != 0) {
			unit++;
		}
	}
	if (unit->name == NULL) {
		return "has an unknown unit";
	}
	return __builtin_mul_overflow(*value, unit->factor, value) ? "is too large" : NULL;
}

const char *word_boolean(const char *word, bool *value)
{
	static const char *const names[] = {"false", "true",     "off",     "on", "no",
					    "yes",   "disabled", "enabled", "0",  "1"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcasecmp(word, names[i]) == 0) {
			*value = i % 2 == 1;
			return NULL;
		}
	}
	return "is neither true nor false";
}

const char *word_number(const char *word, uint64_t *value)
{
	const char *problem = take_number(&word, value);
	return problem == NULL && *word != '\0' ? "is not a number" : problem;
}

const char *word_mode(const char *word, uint64_t *value)
{
	*value = 0;
	if (*word == '\0') {
		return "is not an octal number";
	}
	for (; *word != '\0'; word++) {
		if (*word < '0' || *word > '7') {
			return "is not an octal number";
		}
		*value = *value * 8 + (uint64_t)(*word - '0');
		if (*value > 07777) {
			return "is too large";
		}
	}
	return NULL;
}

const char *word_percent(const char *word, uint64_t *value)
{
	const char *problem = take_number(&word, value);
	if (problem != NULL) {
		return problem;
	}
	return *word != '\0' && strcmp(word, "%") != 0 ? "is not a percentage" : NULL;
}

const char *word_size(const char *word, uint64_t *bytes)
{
	static const struct unit units[] = {
		{"b", 1},
		{"k", UINT64_C(1) << 10},
		{"m", UINT64_C(1) << 20},
		{"g", UINT64_C(1) << 30},
		{"t", UINT64_C(1) << 40},
		{"kb", UINT64_C(1) << 10},
		{"mb", UINT64_C(1) << 20},
		{"gb", UINT64_C(1) << 30},
		{"tb", UINT64_C(1) << 40},
		{"kib", UINT64_C(1) << 10},
		{"mib", UINT64_C(1) << 20},
		{"gib", UINT64_C(1) << 30},
		{"tib", UINT64_C(1) << 40},
		{NULL, 0},
	};
	return number_with_unit(word, units, bytes);
}

const char *word_time(const char *word, uint64_t *ns)
{
	static const struct unit units[] = {
		{"s", NS_PER_S},
		{"ns", 1},
		{"us", NS_PER_US},
		{"ms", NS_PER_MS},
		{"m", 60 * NS_PER_S},
		{"h", 3600 * NS_PER_S},
		{"d", 86400 * NS_PER_S},
		{"sec", NS_PER_S},
		{"second", NS_PER_S},
		{"seconds", NS_PER_S},
		{"min", 60 * NS_PER_S},
		{"minute", 60 * NS_PER_S},
		{"minutes", 60 * NS_PER_S},
		{"hour", 3600 * NS_PER_S},
		{"hours", 3600 * NS_PER_S},
		{"day", 86400 * NS_PER_S},
		{"days", 86400 * NS_PER_S},
		{NULL, 0},
	};
	return number_with_unit(word, units, ns);
}

/* Equal, where case does not count and - is _. */
static bool same_choice(const char *a, const char *b)
{
	for (;; a++, b++) {
		char x = *a == '_' ? '-' : *a;
		char y = *b == '_' ? '-' : *b;
		if (x != y && !(is_letter(x) && is_letter(y) && (x | 0x20) == (y | 0x20))) {
			return false;
		}
		if (x == '\0') {
			return true;
		}
	}
}

const char *word_choice(const char *word, const char *const *choices, uint64_t *value)
{
	for (uint64_t i = 0; choices[i] != NULL; i++) {
		if (same_choice(word, choices[i])) {
			*value = i;
			return NULL;
		}
	}
	return "is unknown";
}

const char *word_core(const char *word, int *core)
{
	uint64_t value;
	if (strcmp(word, "-1") == 0) {
		*core = -1;
		return NULL;
	}
	const char *problem = word_number(word, &value);
	if (problem == NULL && value > 1023) {
		problem = "is too large";
	}
	if (problem == NULL) {
		*core = (int)value;
	}
	return problem;
}

/* Labels of letters, digits, - and _. */
static bool is_domain(const char *word, size_t len)
{
	size_t label = 0;
	if (len == 0 || len > 253) {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		char c = word[i];
		if (c == '.') {
			if (label == 0) {
				return false;
			}
			label = 0;
		} else if (is_letter(c) || is_digit(c) || c == '-' || c == '_') {
			label++;
		} else {
			return false;
		}
		if (label > 63) {
			return false;
		}
	}
	return label != 0;
}

/* "[192.0.2.1]", "[::1]", "[IPv6:::1]". */
static bool is_address_literal(const char *word, size_t len)
{
	char inner[INET6_ADDRSTRLEN + sizeof("IPv6:")];
	struct in6_addr address;
	if (len < 2 || word[0] != '[' || word[len - 1] != ']' || len - 2 >= sizeof(inner)) {
		return false;
	}
	memcpy(inner, word + 1, len - 2);
	inner[len - 2] = '\0';
	if (strncasecmp(inner, "IPv6:", 5) == 0) {
		return inet_pton(AF_INET6, inner + 5, &address) == 1;
	}
	return inet_pton(AF_INET, inner, &address) == 1 ||
	       inet_pton(AF_INET6, inner, &address) == 1;
}

const char *word_hostname(const char *word)
{
	size_t len = strlen(word);
	return is_domain(word, len) || is_address_literal(word, len) ? NULL : "is not a host name";
}

const char *word_domain(const char *word)
{
	size_t len = strlen(word);
	if (len > 1 && word[0] == '/' && word[len - 1] == '/') {
		return "is a regular expression, which is not supported";
	}
	return is_domain(word, len) || is_address_literal(word, len) ? NULL : "is not a domain";
}

const char *word_domain_pattern(const char *word)
{
	if (strcmp(word, "*") == 0) {
		return NULL;
	}
	return word_domain(word[0] == '.' ? word + 1 : word);
}

const char *word_field(const char *word)
{
	size_t len = strlen(word);
	for (const char *c = word; *c != '\0'; c++) {
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') {
			return "is not the name of a header field";
		}
	}
	return len > 0 && len < DKIM_NAME_MAX ? NULL : "is empty or too long";
}

const char *word_address(const char *word)
{
	const char *at = strrchr(word, '@');
	if (at == NULL || at == word || at - word > 64) {
		return "is not a mail address";
	}
	for (const char *c = word; c < at; c++) {
		if (*c <= ' ' || strchr("<>()[]\\,;:\"@", *c) != NULL) {
			return "is not a mail address";
		}
	}
	return word_domain(at + 1) == NULL ? NULL : "is not a mail address";
}

/* IPv4 is kept as ::ffff:a.b.c.d. */
static void map_ipv4(const struct in_addr *from, struct in6_addr *to)
{
	*to = (struct in6_addr){0};
	to->s6_addr[10] = 0xff;
	to->s6_addr[11] = 0xff;
	memcpy(&to->s6_addr[12], from, sizeof(*from));
}

static bool has_host_bits(const struct cidr *network)
{
	for (unsigned bit = network->prefix; bit < 128; bit++) {
		if ((network->address.s6_addr[bit / 8] >> (7 - bit % 8) & 1) != 0) {
			return true;
		}
	}
	return false;
}

const char *word_cidr(const char *word, struct cidr *network)
{
	char text[INET6_ADDRSTRLEN];
	struct in_addr v4;
	const char *slash = strchrnul(word, '/');
	size_t len = (size_t)(slash - word);
	if (len > 1 && word[0] == '[' && word[len - 1] == ']') {
		word++;
		len -= 2;
	}
	if (len >= sizeof(text)) {
		return "is not a network";
	}
	memcpy(text, word, len);
	text[len] = '\0';

	uint64_t prefix;
	unsigned width = 128;
	if (inet_pton(AF_INET, text, &v4) == 1) {
		map_ipv4(&v4, &network->address);
		width = 32;
	} else if (inet_pton(AF_INET6, text, &network->address) != 1) {
		return "is not a network";
	}
	prefix = width;
	if (*slash == '/' && (word_number(slash + 1, &prefix) != NULL || prefix > width)) {
		return width == 32 ? "has a prefix that is not 0 to 32"
				   : "has a prefix that is not 0 to 128";
	}
	network->prefix = (uint8_t)(128 - width + prefix);
	return has_host_bits(network) ? "has bits set after its prefix" : NULL;
}

const char *word_ip(const char *word, struct in6_addr *address)
{
	struct cidr network;
	if (strchr(word, '/') != NULL || word_cidr(word, &network) != NULL) {
		return "is not an address";
	}
	*address = network.address;
	const unsigned char *v4 = address->s6_addr + 12;
	bool is_v4 = IN6_IS_ADDR_V4MAPPED(address);
	if (is_v4 ? v4[0] == 0 || v4[0] >= 224
		  : IN6_IS_ADDR_UNSPECIFIED(address) || IN6_IS_ADDR_MULTICAST(address)) {
		return "is not the address of a machine";
	}
	return NULL;
}

socklen_t word_socket_address(const struct in6_addr *ip, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (void *)address;
	struct sockaddr_in6 *v6 = (void *)address;
	*address = (struct sockaddr_storage){0};
	if (IN6_IS_ADDR_V4MAPPED(ip)) {
		v4->sin_family = AF_INET;
		memcpy(&v4->sin_addr, ip->s6_addr + 12, sizeof(v4->sin_addr));
		return sizeof(*v4);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_addr = *ip;
	return sizeof(*v6);
}

const char *word_name_server(const char *word)
{
	char text[INET6_ADDRSTRLEN] = "";
	const char *at = strchrnul(word, '@');
	size_t len = (size_t)(at - word);
	struct in6_addr address;
	uint64_t port = 53;

	if (len < sizeof(text)) {
		memcpy(text, word, len);
	}
	if (inet_pton(AF_INET, text, &address) != 1 && inet_pton(AF_INET6, text, &address) != 1) {
		return "is not an address";
	}
	if (*at == '@' && (word_number(at + 1, &port) != NULL || port < 1 || port > UINT16_MAX)) {
		return "has a port that is not 1 to 65535";
	}
	return NULL;
}

const char *word_subscriber(const char *word)
{
	size_t len = strlen(word);

	if (len == 0) {
		return "is empty";
	}
	if (len > JLOG_SUBSCRIBER_MAX) {
		return "is too long";
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)word[i] <= ' ' || word[i] == 127) {
			return "has a space or control character";
		}
	}
	return NULL;
}

bool word_cidr_has(const struct cidr *network, const struct in6_addr *address)
{
	unsigned bytes = network->prefix / 8;
	unsigned bits = network->prefix % 8;
	if (memcmp(&network->address, address, bytes) != 0) {
		return false;
	}
	unsigned differ =
		bits == 0 ? 0U
			  : (unsigned)(network->address.s6_addr[bytes] ^ address->s6_addr[bytes]);
	return differ >> (8 - bits) == 0;
}

/* A port at `text`, which ends with it. */
static const char *take_port(const char *text, uint64_t min, uint16_t *port)
{
	uint64_t value;
	if (word_number(text, &value) != NULL || value < min || value > UINT16_MAX) {
		return min == 0 ? "has a port that is not 0 to 65535"
				: "has a port that is not 1 to 65535";
	}
	*port = (uint16_t)value;
	return NULL;
}

/* Split "host:port" or "[v6]:port" at `word`, `len` long; `*port` is at its digits, or NULL. */
static const char *split_port(const char *word, size_t len, const char **host, size_t *host_len,
			      const char **port)
{
	const char *end = word + len;
	const char *colon = NULL;
	*host = word;
	*port = NULL;
	if (len != 0 && word[0] == '[') {
		const char *close = memchr(word, ']', len);
		if (close == NULL) {
			return "has no closing bracket";
		}
		if (close + 1 < end && close[1] != ':') {
			return "has more than a port after its bracket";
		}
		*host = word + 1;
		*host_len = (size_t)(close - word - 1);
		colon = close + 1 < end ? close + 1 : NULL;
	} else {
		colon = memchr(word, ':', len);
		if (colon != NULL && memchr(colon + 1, ':', (size_t)(end - colon - 1)) != NULL) {
			return "is an IPv6 address without brackets";
		}
		*host_len = colon != NULL ? (size_t)(colon - word) : len;
	}
	*port = colon != NULL ? colon + 1 : NULL;
	return NULL;
}

/* "?pref=N" */
static const char *take_preference(const char *query, uint16_t *preference)
{
	uint64_t value;
	if (strncasecmp(query, "?pref=", 6) != 0) {
		return "has an unknown parameter";
	}
	if (word_number(query + 6, &value) != NULL || value > UINT16_MAX) {
		return "has a preference that is not 0 to 65535";
	}
	*preference = (uint16_t)value;
	return NULL;
}

const char *word_gateway(const char *word, struct gateway *gateway, char *host, size_t host_size)
{
	char text[320];
	const char *name;
	const char *port;
	size_t name_len;
	struct in6_addr address;
	size_t len = strcspn(word, "?");
	const char *query = word + len;

	*gateway = (struct gateway){.preference = 10};
	if (len >= sizeof(text)) {
		return "is too long";
	}
	memcpy(text, word, len);
	text[len] = '\0';
	const char *problem = split_port(text, len, &name, &name_len, &port);
	if (problem == NULL && port != NULL) {
		problem = take_port(port, 1, &gateway->port);
	}
	if (problem == NULL && *query != '\0') {
		problem = take_preference(query, &gateway->preference);
	}
	if (problem != NULL) {
		return problem;
	}
	if (name_len >= host_size) {
		return "is too long";
	}
	memcpy(host, name, name_len);
	host[name_len] = '\0';
	if (text[0] == '[') {
		return inet_pton(AF_INET6, host, &address) == 1
			       ? NULL
			       : "has no IPv6 address in its brackets";
	}
	return is_domain(host, name_len) ? NULL : "has no host name or address";
}

const char *word_throttle(const char *word, uint64_t *count, uint64_t *period_s)
{
	static const struct unit periods[] = {
		{"s", 1},     {"sec", 1},     {"second", 1}, {"m", 60},
		{"min", 60},  {"minute", 60}, {"h", 3600},   {"hour", 3600},
		{"d", 86400}, {"day", 86400}, {NULL, 0},
	};
	*count = 0;
	*period_s = 1;
	if (strcasecmp(word, "none") == 0) {
		return NULL;
	}
	const char *problem = take_number(&word, count);
	if (problem != NULL) {
		return problem;
	}
	if (*count == 0) {
		return "would let nothing pass";
	}
	if (*word == '\0') {
		return NULL;
	}
	if (*word != '/') {
		return "is not a rate";
	}
	for (const struct unit *p = periods; p->name != NULL; p++) {
		if (strcasecmp(word + 1, p->name) == 0) {
			*period_s = p->factor;
			return NULL;
		}
	}
	if (word_number(word + 1, period_s) != NULL || *period_s == 0 || *period_s > 366 * 86400) {
		return "has a period that is not sec, min, hour, day, or 1 to 31622400 seconds";
	}
	return NULL;
}

static const char *listen_path(const char *word, struct sockaddr_storage *address, socklen_t *len)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t path_len = strlen(word);
	if (path_len >= sizeof(un.sun_path)) {
		return "is too long for a Unix socket";
	}
	memcpy(un.sun_path, word, path_len);
	memcpy(address, &un, sizeof(un));
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_len + 1);
	return NULL;
}

const char *word_listen(const char *word, struct sockaddr_storage *address, socklen_t *len)
{
	char text[INET6_ADDRSTRLEN];
	const char *host;
	const char *port_text;
	size_t host_len;
	uint16_t port = 0;
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

	*address = (struct sockaddr_storage){0};
	if (strchr(word, '/') != NULL) {
		return listen_path(word, address, len);
	}
	const char *problem = split_port(word, strlen(word), &host, &host_len, &port_text);
	if (problem == NULL && port_text == NULL) {
		problem = "names no port";
	}
	if (problem == NULL) {
		problem = take_port(port_text, 0, &port);
	}
	if (problem != NULL) {
		return problem;
	}
	if (host_len >= sizeof(text)) {
		return "has no IP address";
	}
	memcpy(text, host, host_len);
	text[host_len] = '\0';
	if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
		in.sin_port = htons(port);
		memcpy(address, &in, sizeof(in));
		*len = sizeof(in);
		return NULL;
	}
	if (host_len != 0 && strcmp(text, "*") != 0 &&
	    inet_pton(AF_INET6, text, &in6.sin6_addr) != 1) {
		return "has no IP address";
	}
	in6.sin6_port = htons(port);
	memcpy(address, &in6, sizeof(in6));
	*len = sizeof(in6);
	return NULL;
}

const char *word_format_size(uint64_t bytes, char *text, size_t size)
{
	static const char units[] = {'\0', 'K', 'M', 'G', 'T'};
	unsigned unit = 0;
	while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < sizeof(units)) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, size, "%" PRIu64 "%.1s", bytes, &units[unit]);
	return text;
}

const char *word_format_time(uint64_t ns, char *text, size_t size)
{
	static const struct unit units[] = {
		{"d", 86400 * NS_PER_S},
		{"h", 3600 * NS_PER_S},
		{"m", 60 * NS_PER_S},
		{"s", NS_PER_S},
		{"ms", NS_PER_MS},
		{"us", NS_PER_US},
		{"ns", 1},
	};
	const struct unit *unit = units;
	while (unit->factor > 1 && (ns == 0 || ns % unit->factor != 0)) {
		unit++;
	}
	if (ns == 0) {
		snprintf(text, size, "0");
	} else {
		snprintf(text, size, "%" PRIu64 "%s", ns / unit->factor, unit->name);
	}
	return text;
}
