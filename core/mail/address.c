#include "core/mail/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "core/mail/idna.h"
#include "core/mail/utf8.h"

#define LABEL_MAX 63

/* What may be wrong; the reply depends on whose address it is. */
enum problem {
	PROBLEM_NONE,
	PROBLEM_BRACKETS,
	PROBLEM_ROUTE,
	PROBLEM_EMPTY,
	PROBLEM_LOCAL,
	PROBLEM_LOCAL_LONG,
	PROBLEM_NO_DOMAIN,
	PROBLEM_DOMAIN,
	PROBLEM_DOMAIN_LONG,
	PROBLEM_DOMAIN_IDNA,
	PROBLEM_LITERAL,
	PROBLEM_NOT_ASCII,
	PROBLEM_NOT_UTF8,
	PROBLEMS
};

struct problem_reply {
	int error;
	uint16_t code;
	/* By enum address_role. */
	const char *status[2];
	const char *text[2];
};

static const struct problem_reply replies[PROBLEMS] = {
	[PROBLEM_BRACKETS] = {-EINVAL,
			      501,
			      {"5.1.7", "5.1.3"},
			      {"Sender address must be enclosed in <>",
			       "Recipient address must be enclosed in <>"}},
	[PROBLEM_ROUTE] = {-EINVAL,
			   501,
			   {"5.1.7", "5.1.3"},
			   {"Bad source route in sender address",
			    "Bad source route in recipient address"}},
	[PROBLEM_EMPTY] = {-EINVAL,
			   501,
			   {"5.1.7", "5.1.3"},
			   {"Sender address is empty", "Recipient address is empty"}},
	[PROBLEM_LOCAL] = {-EINVAL,
			   501,
			   {"5.1.7", "5.1.3"},
			   {"Bad local part in sender address",
			    "Bad local part in recipient address"}},
	[PROBLEM_LOCAL_LONG] = {-ENAMETOOLONG,
				501,
				{"5.1.7", "5.1.3"},
				{"Local part of sender address is longer than 64 octets",
				 "Local part of recipient address is longer than 64 octets"}},
	[PROBLEM_NO_DOMAIN] = {-EINVAL,
			       553,
			       {"5.1.7", "5.1.3"},
			       {"Sender address has no domain", "Recipient address has no domain"}},
	[PROBLEM_DOMAIN] = {-EINVAL,
			    501,
			    {"5.1.7", "5.1.3"},
			    {"Bad domain in sender address", "Bad domain in recipient address"}},
	[PROBLEM_DOMAIN_LONG] = {-ENAMETOOLONG,
				 501,
				 {"5.1.7", "5.1.3"},
				 {"Domain of sender address is longer than 255 octets",
				  "Domain of recipient address is longer than 255 octets"}},
	[PROBLEM_DOMAIN_IDNA] = {-EINVAL,
				 553,
				 {"5.1.7", "5.1.3"},
				 {"Domain of sender address is no internationalized name",
				  "Domain of recipient address is no internationalized name"}},
	[PROBLEM_LITERAL] = {-EINVAL,
			     501,
			     {"5.1.7", "5.1.3"},
			     {"Bad address literal in sender address",
			      "Bad address literal in recipient address"}},
	[PROBLEM_NOT_ASCII] = {-EILSEQ,
			       553,
			       {"5.6.7", "5.6.7"},
			       {"Sender address is not ASCII and SMTPUTF8 was not requested",
				"Recipient address is not ASCII and SMTPUTF8 was not requested"}},
	[PROBLEM_NOT_UTF8] = {-EILSEQ,
			      501,
			      {"5.1.7", "5.1.3"},
			      {"Sender address is not valid UTF-8",
			       "Recipient address is not valid UTF-8"}},
};

/* One call of address_parse(): what is left of the path, and the address in the making. */
struct parse {
	const char *at;
	const char *end;
	struct address *address;
};

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_high(char c)
{
	return ((unsigned char)c & 0x80) != 0;
}

/* RFC 5322 section 3.2.3, and RFC 6531 section 3.3; well-formedness was checked before. */
static bool is_atext(char c)
{
	return is_alnum(c) || is_high(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static char lower(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* A label without its dots. Inner ones are of letters, digits, hyphens and what is not ASCII. */
static bool label_valid(const char *label, size_t len)
{
	if (len == 0 || len > LABEL_MAX || label[0] == '-' || label[len - 1] == '-') {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if (!is_alnum(label[i]) && label[i] != '-' && !is_high(label[i])) {
			return false;
		}
	}
	return true;
}

static bool text_is_utf8(const char *text, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence(text + i, len - i);

		if (n == 0) {
			return false;
		}
		i += n;
	}
	return true;
}

bool address_domain_valid(const char *domain, size_t len, bool utf8)
{
	const char *end = domain + len;

	if (len > ADDRESS_DOMAIN_MAX ||
	    (utf8 ? !text_is_utf8(domain, len) : idna_needed(domain, len))) {
		return false;
	}
	for (;;) {
		const char *dot = memchr(domain, '.', (size_t)(end - domain));
		const char *stop = dot != NULL ? dot : end;

		if (!label_valid(domain, (size_t)(stop - domain))) {
			return false;
		}
		if (dot == NULL) {
			return true;
		}
		domain = dot + 1;
	}
}

static int literal_parse_ipv4(const char *text, unsigned char ip[16])
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

	memcpy(ip, mapped, sizeof(mapped));
	return inet_pton(AF_INET, text, ip + 12) == 1 ? 0 : -EINVAL;
}

int address_literal_parse(const char *domain, size_t len, unsigned char ip[16])
{
	char text[INET6_ADDRSTRLEN + 8];

	if (len < 2 || len > sizeof(text) || domain[0] != '[' || domain[len - 1] != ']' ||
	    memchr(domain, '\0', len) != NULL) {
		return -EINVAL;
	}
	memcpy(text, domain + 1, len - 2);
	text[len - 2] = '\0';
	if (strncasecmp(text, "IPv6:", 5) == 0) {
		return inet_pton(AF_INET6, text + 5, ip) == 1 ? 0 : -EINVAL;
	}
	return literal_parse_ipv4(text, ip);
}

/* Appends to the address; the lengths were checked, so there is room. */
static void put(struct parse *p, const char *text, size_t len)
{
	memcpy(p->address->text + p->address->len, text, len);
	p->address->len = (uint16_t)(p->address->len + len);
	p->address->text[p->address->len] = '\0';
}

/* Writes the IP address anew, so that equal ones look equal. All in lower case, as domains are. */
static enum problem parse_literal(struct parse *p)
{
	size_t len = (size_t)(p->end - p->at);
	char text[INET6_ADDRSTRLEN];
	unsigned char ip[16];
	bool ipv6 = len > 6 && strncasecmp(p->at, "[IPv6:", 6) == 0;

	if (address_literal_parse(p->at, len, ip) != 0) {
		return PROBLEM_LITERAL;
	}
	inet_ntop(ipv6 ? AF_INET6 : AF_INET, ipv6 ? ip : ip + 12, text, sizeof(text));
	put(p, ipv6 ? "[ipv6:" : "[", ipv6 ? 6 : 1);
	put(p, text, strlen(text));
	put(p, "]", 1);
	p->address->literal = true;
	return PROBLEM_NONE;
}

/* The name by which everybody else knows it. */
static enum problem parse_international(struct parse *p, size_t len)
{
	char ascii[IDNA_MAX];
	size_t n = idna_to_ascii(p->at, len, ascii);

	if (n == 0) {
		return PROBLEM_DOMAIN_IDNA;
	}
	put(p, ascii, n);
	return PROBLEM_NONE;
}

static enum problem parse_domain_name(struct parse *p)
{
	size_t len = (size_t)(p->end - p->at);

	if (len > ADDRESS_DOMAIN_MAX) {
		return PROBLEM_DOMAIN_LONG;
	}
	if (p->address->utf8 && idna_needed(p->at, len)) {
		return parse_international(p, len);
	}
	if (!address_domain_valid(p->at, len, false)) {
		return PROBLEM_DOMAIN;
	}
	for (size_t i = 0; i < len; i++) {
		char c = lower(p->at[i]);

		put(p, &c, 1);
	}
	return PROBLEM_NONE;
}

/* All that is left is the domain. */
static enum problem parse_domain(struct parse *p)
{
	struct address *a = p->address;
	enum problem problem;

	put(p, "@", 1);
	a->domain_offset = a->len;
	if (p->at < p->end && *p->at == '[') {
		problem = parse_literal(p);
	} else {
		problem = parse_domain_name(p);
	}
	a->domain_len = (uint16_t)(a->len - a->domain_offset);
	return problem;
}

/* `@a,@b:` at the start; RFC 5321 appendix C: checked, then forgotten. */
static enum problem parse_route(struct parse *p)
{
	const char *colon;

	if (*p->at != '@') {
		return PROBLEM_NONE;
	}
	colon = memchr(p->at, ':', (size_t)(p->end - p->at));
	if (colon == NULL) {
		return PROBLEM_ROUTE;
	}
	while (p->at < colon) {
		const char *comma = memchr(p->at, ',', (size_t)(colon - p->at));
		const char *stop = comma != NULL ? comma : colon;

		if (*p->at != '@' ||
		    !address_domain_valid(p->at + 1, (size_t)(stop - p->at - 1), true)) {
			return PROBLEM_ROUTE;
		}
		p->at = stop + 1;
	}
	/* After a comma another one has to come. */
	return p->at == colon + 1 ? PROBLEM_NONE : PROBLEM_ROUTE;
}

static bool is_dot_string(const char *text, size_t len)
{
	if (len == 0 || text[0] == '.' || text[len - 1] == '.') {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if (!is_atext(text[i]) && (text[i] != '.' || text[i - 1] == '.')) {
			return false;
		}
	}
	return true;
}

/* Writes the content of a quoted local part in quotes, with as few backslashes as can be. */
static enum problem put_quoted(struct parse *p, const char *content, size_t len)
{
	put(p, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		if (content[i] == '"' || content[i] == '\\') {
			put(p, "\\", 1);
		}
		put(p, &content[i], 1);
		if (p->address->len >= ADDRESS_LOCAL_MAX) {
			return PROBLEM_LOCAL_LONG;
		}
	}
	put(p, "\"", 1);
	return PROBLEM_NONE;
}

/* RFC 5321 section 4.1.2, Quoted-string. `p->at` is at the opening quote. */
static enum problem parse_quoted(struct parse *p)
{
	char content[ADDRESS_LOCAL_MAX];
	size_t len = 0;

	for (p->at++; p->at < p->end && *p->at != '"'; p->at++) {
		if (*p->at == '\\') {
			p->at++;
		}
		if (p->at == p->end || (unsigned char)*p->at < ' ' || *p->at == 127) {
			return PROBLEM_LOCAL;
		}
		if (len == sizeof(content)) {
			return PROBLEM_LOCAL_LONG;
		}
		content[len++] = *p->at;
	}
	if (p->at == p->end) {
		return PROBLEM_LOCAL;
	}
	p->at++;
	if (is_dot_string(content, len)) {
		put(p, content, len);
		return PROBLEM_NONE;
	}
	return put_quoted(p, content, len);
}

static enum problem parse_dot_string(struct parse *p)
{
	const char *start = p->at;
	size_t len;

	while (p->at < p->end && *p->at != '@') {
		p->at++;
	}
	len = (size_t)(p->at - start);
	if (!is_dot_string(start, len)) {
		return PROBLEM_LOCAL;
	}
	if (len > ADDRESS_LOCAL_MAX) {
		return PROBLEM_LOCAL_LONG;
	}
	put(p, start, len);
	return PROBLEM_NONE;
}

static enum problem parse_local(struct parse *p)
{
	enum problem problem = *p->at == '"' ? parse_quoted(p) : parse_dot_string(p);

	p->address->local_len = p->address->len;
	return problem;
}

/* `<postmaster>` needs no domain: RFC 5321 section 4.1.1.3. */
static enum problem parse_no_domain(struct parse *p, enum address_role role)
{
	struct address *a = p->address;

	if (role != ADDRESS_RECIPIENT || strcasecmp(a->text, "postmaster") != 0) {
		return PROBLEM_NO_DOMAIN;
	}
	memcpy(a->text, "postmaster", a->len);
	a->domain_offset = a->len;
	return PROBLEM_NONE;
}

/* What is between the brackets. */
static enum problem parse_path(struct parse *p, enum address_role role)
{
	enum problem problem;

	if (p->at == p->end) {
		return role == ADDRESS_SENDER ? PROBLEM_NONE : PROBLEM_EMPTY;
	}
	problem = parse_route(p);
	if (problem == PROBLEM_NONE) {
		problem = p->at < p->end ? parse_local(p) : PROBLEM_EMPTY;
	}
	if (problem != PROBLEM_NONE) {
		return problem;
	}
	if (p->at == p->end) {
		return parse_no_domain(p, role);
	}
	if (*p->at != '@') {
		return PROBLEM_LOCAL;
	}
	p->at++;
	return parse_domain(p);
}

static enum problem parse(struct address *a, const char *path, size_t len, enum address_role role,
			  bool smtputf8)
{
	struct parse p = {.address = a};

	if (len < 2 || path[0] != '<' || path[len - 1] != '>') {
		return PROBLEM_BRACKETS;
	}
	a->utf8 = idna_needed(path, len);
	if (a->utf8 && !smtputf8) {
		return PROBLEM_NOT_ASCII;
	}
	if (a->utf8 && !text_is_utf8(path, len)) {
		return PROBLEM_NOT_UTF8;
	}
	p.at = path + 1;
	p.end = path + len - 1;
	return parse_path(&p, role);
}

int address_parse(struct address *a, const char *path, size_t len, enum address_role role,
		  bool smtputf8, struct smtp_refusal *refusal)
{
	const struct problem_reply *reply;
	enum problem problem;

	a->len = a->local_len = a->domain_offset = a->domain_len = 0;
	a->literal = a->utf8 = false;
	a->text[0] = '\0';
	problem = parse(a, path, len, role, smtputf8);
	if (problem == PROBLEM_NONE) {
		return 0;
	}
	reply = &replies[problem];
	*refusal = (struct smtp_refusal){
		.code = reply->code,
		.status = reply->status[role],
		.text = reply->text[role],
	};
	return reply->error;
}
