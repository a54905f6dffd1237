#include "core/mail/dkim_author.h"

void dkim_author_init(struct dkim_author *a, char *domain)
{
	*a = (struct dkim_author){.domain = domain};
	domain[0] = '\0';
}

/* What came looked like an address, or a part of one, and was something else. */
static void forget(struct dkim_author *a)
{
	a->in_domain = false;
	a->bad = false;
	a->len = 0;
}

static void keep(struct dkim_author *a, char c)
{
	/* Control characters are in no domain. */
	if (a->len == DKIM_AUTHOR_MAX - 1 || (c >= 0 && c < ' ') || c == 127) {
		a->bad = true;
	} else {
		a->domain[a->len++] = (char)(c >= 'A' && c <= 'Z' ? c | 32 : c);
	}
}

/* A byte in a quoted string or comment. */
static void skip(struct dkim_author *a, char c)
{
	if (a->escaped) {
		a->escaped = false;
	} else if (c == '\\') {
		a->escaped = true;
	} else if (a->quoted) {
		a->quoted = c != '"';
	} else if (c == '(') {
		a->comments++;
	} else if (c == ')') {
		a->comments--;
	}
}

static void take_byte(struct dkim_author *a, char c)
{
	switch (c) {
	case '(':
		a->comments++;
		break;
	case '"':
		a->quoted = true;
		break;
	case '<':
		/* What came before is a name, whatever it looks like. */
		a->angle = true;
		forget(a);
		break;
	case '>':
		a->done = a->angle;
		break;
	case '@':
		forget(a);
		a->in_domain = true;
		break;
	case ':':
		/* Behind a group's name, or a source route. */
		forget(a);
		break;
	case ',':
	case ';':
		a->done = !a->angle && a->len > 0;
		break;
	case ' ':
	case '\r':
	case '\n':
		break;
	default:
		if (a->in_domain) {
			keep(a, c);
		}
	}
}

void dkim_author_take(void *author, const void *data, size_t len)
{
	struct dkim_author *a = author;
	const char *bytes = data;

	for (size_t i = 0; i < len && !a->done; i++) {
		if (!a->value) {
			a->value = bytes[i] == ':';
		} else if (a->quoted || a->comments > 0) {
			skip(a, bytes[i]);
		} else {
			take_byte(a, bytes[i]);
		}
	}
}

bool dkim_author_end(struct dkim_author *a)
{
	if (a->len > 0 && a->domain[a->len - 1] == '.') {
		a->len--;
	}
	a->domain[a->len] = '\0';
	return a->len > 0 && !a->bad;
}
