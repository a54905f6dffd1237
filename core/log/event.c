#include "core/log/event.h"

#include <errno.h>
#include <string.h>

#include "core/mail/context.h"
#include "core/runtime/check.h"

#define LENGTH_BYTES 2
#define ALL_TEXTS (EVENT_BIT(EVENT_FIELDS) - 1)

/* Strings that are not there are those of the record before. */
#define FLAG_AGAIN 1U
#define FLAG_PERMANENT 2U
#define FLAG_GRANTED 4U

/* Copied as it is. */
struct event_head {
	/* Of the record. */
	uint32_t len;
	/* Bits of enum event_field: the strings that follow. */
	uint32_t texts;
	uint8_t kind;
	uint8_t flags;
	uint8_t stage;
	uint8_t unused;
	uint32_t retries;
	uint16_t code;
	uint16_t bounce_class;
	uint16_t context_len;
	uint16_t unused_too;
	struct message_id id;
	uint64_t time_ms;
	uint64_t batch;
	uint64_t connection;
	uint64_t size;
	uint64_t queued_ms;
};
_Static_assert(sizeof(struct event_head) == EVENT_HEAD_BYTES, "without holes");
_Static_assert(EVENT_FIELDS < 32, "a bit for each");

static const uint16_t text_max[EVENT_FIELDS] = {
	[EVENT_RECIPIENT... EVENT_REPLY] = EVENT_LONG_MAX,
	[EVENT_DOMAIN... EVENT_USER_STRING] = EVENT_MEDIUM_MAX,
	[EVENT_FEEDBACK_TYPE... EVENT_FIELDS - 1] = EVENT_WORD_MAX,
};

/* The log in whose blocks it travels, and all that want it. */
static const struct {
	const char *name;
	enum log_file log;
	uint32_t logs;
} kinds[EVENT_KINDS] = {
	[EVENT_RECEPTION] = {"reception", LOG_MAIN, 1U << LOG_MAIN},
	[EVENT_DELIVERY] = {"delivery", LOG_MAIN, 1U << LOG_MAIN},
	[EVENT_TRANSIENT] = {"transient_failure", LOG_MAIN, 1U << LOG_MAIN | 1U << LOG_BOUNCE},
	[EVENT_BOUNCE] = {"bounce", LOG_MAIN, 1U << LOG_MAIN | 1U << LOG_BOUNCE},
	[EVENT_OUT_OF_BAND] = {"out_of_band", LOG_BOUNCE, 1U << LOG_BOUNCE},
	[EVENT_FEEDBACK] = {"feedback", LOG_FEEDBACK, 1U << LOG_FEEDBACK},
	[EVENT_REJECTION] = {"rejection", LOG_REJECT, 1U << LOG_REJECT},
	[EVENT_EXPIRATION] = {"expiration", LOG_MAIN, 1U << LOG_MAIN | 1U << LOG_BOUNCE},
	[EVENT_ADMIN_FAILURE] = {"administrative_failure", LOG_MAIN,
				 1U << LOG_MAIN | 1U << LOG_BOUNCE},
	[EVENT_AUTHENTICATION] = {"authentication", LOG_ACCT, 1U << LOG_ACCT},
	[EVENT_HEARTBEAT] = {"heartbeat", LOG_MAIN, 1U << LOG_MAIN | 1U << LOG_BOUNCE},
};

uint32_t event_logs(enum event_kind kind)
{
	return kinds[kind].logs;
}

enum log_file event_log(enum event_kind kind)
{
	return kinds[kind].log;
}

const char *event_kind_name(enum event_kind kind)
{
	return kinds[kind].name;
}

/* Writes the string `which`; returns where the next one goes, or NULL: no room. */
static unsigned char *put_text(const struct event *e, unsigned which, unsigned char *at,
			       const unsigned char *end)
{
	size_t len = strnlen(e->text[which], text_max[which]);
	uint16_t written = (uint16_t)len;

	if ((size_t)(end - at) < LENGTH_BYTES + len + 1) {
		return NULL;
	}
	memcpy(at, &written, LENGTH_BYTES);
	memcpy(at + LENGTH_BYTES, e->text[which], len);
	at += LENGTH_BYTES + len;
	*at = '\0';
	return at + 1;
}

static void put_head(const struct event *e, uint32_t texts, uint8_t flags, uint16_t context_len,
		     size_t len, unsigned char *to)
{
	struct event_head head = {
		.len = (uint32_t)len,
		.texts = texts,
		.kind = (uint8_t)e->kind,
		.flags = (uint8_t)(flags | (e->permanent ? FLAG_PERMANENT : 0) |
				   (e->granted ? FLAG_GRANTED : 0)),
		.stage = (uint8_t)e->stage,
		.retries = e->retries,
		.code = e->code,
		.bounce_class = e->bounce_class,
		.context_len = context_len,
		.id = e->id,
		.time_ms = e->time_ms,
		.batch = e->batch,
		.connection = e->connection,
		.size = e->size,
		.queued_ms = e->queued_ms,
	};

	memcpy(to, &head, sizeof(head));
}

/* Those of `texts` that have anything in them, or all of them when an empty one means that. */
static size_t encode(const struct event *e, uint32_t texts, uint8_t flags, unsigned char *to,
		     size_t room)
{
	unsigned char *at = to + EVENT_HEAD_BYTES;
	const unsigned char *end = to + room;
	uint32_t context = flags == 0 ? e->context_len : 0;

	ASSERT(e->kind < EVENT_KINDS && context <= EVENT_CONTEXT_MAX);
	if (room < EVENT_HEAD_BYTES + context) {
		return 0;
	}
	for (uint32_t left = texts; left != 0; left &= left - 1) {
		unsigned which = (unsigned)__builtin_ctz(left);

		at = put_text(e, which, at, end);
		if (at == NULL) {
			return 0;
		}
	}
	if (context != 0) {
		if ((size_t)(end - at) < context) {
			return 0;
		}
		memcpy(at, e->context, context);
		at += context;
	}
	put_head(e, texts, flags, (uint16_t)context, (size_t)(at - to), to);
	return (size_t)(at - to);
}

size_t event_encode(const struct event *e, unsigned char *to, size_t room)
{
	uint32_t texts = 0;

	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		if (e->text[i] != NULL && e->text[i][0] != '\0') {
			texts |= EVENT_BIT(i);
		}
	}
	return encode(e, texts, 0, to, room);
}

size_t event_encode_again(const struct event *e, uint32_t changed, unsigned char *to, size_t room)
{
	ASSERT((changed & ~ALL_TEXTS) == 0);
	for (uint32_t left = changed; left != 0; left &= left - 1) {
		ASSERT(e->text[__builtin_ctz(left)] != NULL);
	}
	return encode(e, changed, FLAG_AGAIN, to, room);
}

/* Reads the string `which` at `at`; returns where the next one is, or NULL: malformed. */
static const unsigned char *take_text(struct event *e, unsigned which, const unsigned char *at,
				      const unsigned char *end)
{
	uint16_t len;

	if ((size_t)(end - at) < LENGTH_BYTES + 1) {
		return NULL;
	}
	memcpy(&len, at, LENGTH_BYTES);
	at += LENGTH_BYTES;
	if (len > text_max[which] || len >= (size_t)(end - at) || at[len] != '\0') {
		return NULL;
	}
	e->text[which] = (const char *)at;
	return at + len + 1;
}

static void take_head(struct event *e, const struct event_head *head)
{
	e->kind = (enum event_kind)head->kind;
	e->stage = (enum smtp_stage)head->stage;
	e->permanent = (head->flags & FLAG_PERMANENT) != 0;
	e->granted = (head->flags & FLAG_GRANTED) != 0;
	e->code = head->code;
	e->bounce_class = head->bounce_class;
	e->retries = head->retries;
	e->time_ms = head->time_ms;
	e->id = head->id;
	e->batch = head->batch;
	e->connection = head->connection;
	e->size = head->size;
	e->queued_ms = head->queued_ms;
}

static int take_context(struct event *e, const unsigned char *at, const unsigned char *end,
			uint32_t len)
{
	if (len != (size_t)(end - at) || len > EVENT_CONTEXT_MAX ||
	    !context_valid((const char *)at, len)) {
		return -EINVAL;
	}
	e->context = len != 0 ? (const char *)at : NULL;
	e->context_len = len;
	return 0;
}

static bool head_valid(const struct event_head *head, size_t len)
{
	return head->len >= EVENT_HEAD_BYTES && head->len <= len && head->len <= EVENT_SIZE_MAX &&
	       head->kind < EVENT_KINDS && head->stage <= SMTP_STAGE_UNKNOWN &&
	       (head->texts & ~ALL_TEXTS) == 0;
}

int event_decode(const unsigned char *from, size_t len, struct event *e)
{
	const unsigned char *at = from + EVENT_HEAD_BYTES;
	const unsigned char *end;
	struct event_head head;

	if (len < EVENT_HEAD_BYTES) {
		return -EINVAL;
	}
	memcpy(&head, from, sizeof(head));
	if (!head_valid(&head, len)) {
		return -EINVAL;
	}
	end = from + head.len;
	if ((head.flags & FLAG_AGAIN) == 0) {
		*e = (struct event){0};
	}
	take_head(e, &head);
	e->record_bytes += head.len;
	for (uint32_t left = head.texts; left != 0; left &= left - 1) {
		at = take_text(e, (unsigned)__builtin_ctz(left), at, end);
		if (at == NULL) {
			return -EINVAL;
		}
	}
	if ((head.flags & FLAG_AGAIN) != 0) {
		return at == end && head.context_len == 0 ? (int)head.len : -EINVAL;
	}
	return take_context(e, at, end, head.context_len) == 0 ? (int)head.len : -EINVAL;
}
