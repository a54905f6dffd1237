#include "listeners/smtp/xclient.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "core/mail/dsn_parameter.h"

static const struct smtp_refusal refuse_syntax = {501, "5.5.4", "Syntax: XCLIENT attribute=value"};
static const struct smtp_refusal refuse_value = {501, "5.5.4", "Bad attribute value"};

/* What the proxy cannot tell: an empty word. */
static bool is_unavailable(const char *word)
{
	return strcasecmp(word, "[UNAVAILABLE]") == 0 || strcasecmp(word, "[TEMPUNAVAIL]") == 0;
}

static bool take_any(struct xclient *x, const char *word)
{
	(void)x;
	(void)word;
	return true;
}

static bool take_address(struct xclient *x, const char *word)
{
	struct in_addr ipv4;

	if (*word == '\0') {
		x->has_address = false;
		return true;
	}
	x->has_address = true;
	if (strncasecmp(word, "IPV6:", 5) == 0) {
		return inet_pton(AF_INET6, word + 5, &x->address) == 1;
	}
	if (inet_pton(AF_INET, word, &ipv4) != 1) {
		return false;
	}
	x->address = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(&x->address.s6_addr[12], &ipv4, sizeof(ipv4));
	return true;
}

static bool take_port(struct xclient *x, const char *word)
{
	uint32_t n = 0;

	x->has_port = *word != '\0';
	for (; *word != '\0'; word++) {
		if (*word < '0' || *word > '9') {
			return false;
		}
		n = n * 10 + (uint32_t)(*word - '0');
		if (n > UINT16_MAX) {
			return false;
		}
	}
	x->port = (uint16_t)n;
	return true;
}

static bool take_protocol(struct xclient *x, const char *word)
{
	(void)x;
	return *word == '\0' || strcasecmp(word, "SMTP") == 0 || strcasecmp(word, "ESMTP") == 0;
}

static bool take_helo(struct xclient *x, const char *word)
{
	x->has_helo = true;
	strcpy(x->helo, word);
	return true;
}

static bool take_login(struct xclient *x, const char *word)
{
	x->has_login = true;
	strcpy(x->login, word);
	return true;
}

static const struct {
	const char *name;
	bool (*take)(struct xclient *x, const char *word);
} attributes[] = {
	{"NAME", take_any},       {"ADDR", take_address}, {"PORT", take_port},
	{"PROTO", take_protocol}, {"HELO", take_helo},    {"LOGIN", take_login},
	{"DESTADDR", take_any},   {"DESTPORT", take_any},
};

/* xtext, at most XCLIENT_WORD_MAX bytes of it once decoded. */
static bool decode(const char *text, size_t len, char word[XCLIENT_WORD_MAX + 1])
{
	char decoded[3 * XCLIENT_WORD_MAX + 1];

	if (len > 3 * XCLIENT_WORD_MAX || !dsn_xtext_valid(text, len) ||
	    dsn_xtext_decode(text, len, decoded) > XCLIENT_WORD_MAX) {
		return false;
	}
	strcpy(word, is_unavailable(decoded) ? "" : decoded);
	return true;
}

static const struct smtp_refusal *take(struct xclient *x, const char *text, size_t len)
{
	const char *equals = memchr(text, '=', len);
	size_t name_len = equals != NULL ? (size_t)(equals - text) : len;
	char word[XCLIENT_WORD_MAX + 1];

	for (size_t i = 0; equals != NULL && i < sizeof(attributes) / sizeof(attributes[0]); i++) {
		if (strlen(attributes[i].name) == name_len &&
		    strncasecmp(attributes[i].name, text, name_len) == 0) {
			return decode(equals + 1, len - name_len - 1, word) &&
					       attributes[i].take(x, word)
				       ? NULL
				       : &refuse_value;
		}
	}
	return &refuse_syntax;
}

int xclient_parse(const char *argument, size_t len, struct xclient *x, struct smtp_refusal *refusal)
{
	const char *end = argument + len;
	const struct smtp_refusal *refused = len == 0 ? &refuse_syntax : NULL;

	*x = (struct xclient){.has_address = false};
	while (argument < end && refused == NULL) {
		const char *space = memchr(argument, ' ', (size_t)(end - argument));
		const char *stop = space != NULL ? space : end;

		if (stop > argument) {
			refused = take(x, argument, (size_t)(stop - argument));
		}
		argument = space != NULL ? space + 1 : end;
	}
	if (refused != NULL) {
		*refusal = *refused;
		return -EINVAL;
	}
	return 0;
}
