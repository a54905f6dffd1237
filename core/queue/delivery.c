#include "core/queue/delivery.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

struct delivery *delivery_create(struct mail_pools *p, struct message *m, uint32_t index)
{
	const struct envelope *e = message_envelope(m);
	struct delivery *d;

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	ASSERT(index < e->delivery_count);
	d = pool_get(&p->deliveries);
	memset(d, 0, sizeof(*d));
	d->magic = DELIVERY_MAGIC;
	d->index = index;
	d->place = DELIVERY_TRANSIT;
	d->pending = recipient_set_first(envelope_delivery(e, index)->count);
	d->message = m;
	return d;
}

bool delivery_give_up_content(struct delivery *d, struct mail_pools *p)
{
	CHECK_MAGIC(d, DELIVERY_MAGIC);
	if (!d->uses_content) {
		return false;
	}
	d->uses_content = false;
	return message_give_up_content(d->message, p);
}

void delivery_unload(struct delivery *d, struct mail_pools *p)
{
	ASSERT(d->place == DELIVERY_TRANSIT);
	content_release(d->loaded, p);
	d->loaded = NULL;
}

void delivery_destroy(struct delivery *d, struct mail_pools *p)
{
	CHECK_MAGIC(d, DELIVERY_MAGIC);
	delivery_unload(d, p);
	delivery_give_up_content(d, p);
	free(d->last_text);
	message_release(d->message, p);
	d->magic = 0;
	pool_put(&p->deliveries, d);
}
