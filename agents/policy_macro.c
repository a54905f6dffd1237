#include "agents/policy_macro.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"
#include "core/log/event_macro.h"
#include "core/mail/context.h"
#include "core/runtime/text.h"

#define TEXTS_MAX 4

_Static_assert(POLICY_EXPANSION_MAX == EVENT_MACRO_LINE_MAX, "the longest line of a log");

/* What the event points to. */
BOUND
struct facts {
	struct event event;
	struct context context;
	char texts[TEXTS_MAX][POLICY_KNOWN_MAX];
	unsigned text_count;
};

/* What is known of the connection; NULL: nothing. */
static const char *known(struct facts *f, struct policy_subject *s, const char *name)
{
	char *scratch = f->texts[f->text_count++ % TEXTS_MAX];
	const char *text =
		s->ops->known != NULL ? s->ops->known(s->owner, POLICY_CONN, name, scratch) : NULL;

	if (text != NULL && text != scratch) {
		text_copy(scratch, POLICY_KNOWN_MAX, text);
	}
	return text != NULL ? scratch : NULL;
}

/* Fields of the header that the format names, by their first value. */
static void add_fields(struct facts *f, struct policy_mail *m, const struct event_macro *macro)
{
	const struct policy_text *header = policy_mail_header(m);
	const char *key;

	for (uint32_t i = 0; (key = event_macro_header(macro, i)) != NULL; i++) {
		struct policy_field field;
		char name[128];
		char *value;

		snprintf(name, sizeof(name), "%.*s", (int)strlen(key) - 1, key);
		if (context_find(f->context.pairs, f->context.len, key) != NULL ||
		    !policy_field_next(header->data, header->len, name, 0, &field)) {
			continue;
		}
		value = check_memory(malloc(field.len), "policy");
		context_add(&f->context, key, value,
			    policy_field_value(header->data, &field, value), CONTEXT_MAX);
		free(value);
	}
}

/* As scheduler_format_number() writes it, behind the scheduler's. */
static uint64_t number_of(const char *text)
{
	const char *dash = strchr(text, '-');

	return dash != NULL ? strtoull(dash + 1, NULL, 16) : 0;
}

static void take_mail(struct facts *f, struct policy_mail *m, const struct event_macro *macro)
{
	const char *at = strrchr(m->recipient, '@');

	if (m->id[0] != '\0') {
		message_id_parse(m->id, &f->event.id);
	}
	f->event.batch = number_of(m->batch);
	f->event.connection = number_of(m->connection);
	f->event.size = m->body != NULL ? m->body->len : 0;
	f->event.text[EVENT_SENDER] = m->sender;
	f->event.text[EVENT_RECIPIENT] = m->recipient;
	f->event.text[EVENT_BINDING] = m->binding;
	f->event.text[EVENT_BINDING_GROUP] =
		m->binding_group[0] != '\0' ? m->binding_group : m->binding;
	f->event.text[EVENT_DOMAIN] = m->routing_domain[0] != '\0' ? m->routing_domain
				      : at != NULL                 ? at + 1
								   : "";
	add_fields(f, m, macro);
	f->event.context = f->context.pairs;
	f->event.context_len = f->context.len;
}

int scheduler_expand_macros(void *context, struct policy_subject *s, const char *format, char *to,
			    char why[POLICY_WHY])
{
	struct scheduler *scheduler = context;
	struct event_macro *m = event_macro_compile(format, why);
	struct event_sanitizer sanitizer;
	struct facts *f;
	size_t len;

	if (m == NULL) {
		return -1;
	}
	f = check_memory(calloc(1, sizeof(*f)), "policy");
	event_sanitizer_init(&sanitizer);
	f->event.kind = EVENT_RECEPTION;
	f->event.time_ms = agent_wall_ms(&scheduler->base);
	if (s != NULL) {
		f->event.text[EVENT_REMOTE_IP] = known(f, s, "#peer");
		f->event.text[EVENT_LOCAL_ADDRESS] = known(f, s, "#listener");
		f->event.text[EVENT_USER] = known(f, s, "auth_user");
	}
	if (s != NULL && s->mail != NULL) {
		take_mail(f, s->mail, m);
	}
	len = event_macro_format(m, &sanitizer, &f->event, scheduler->program->bounce_rules, to,
				 POLICY_EXPANSION_MAX);
	event_macro_free(m);
	free(f);
	return (int)len;
}
