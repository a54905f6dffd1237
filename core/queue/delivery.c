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

void delivery_destroy(struct delivery *d, struct mail_pools *p)
{
	CHECK_MAGIC(d, DELIVERY_MAGIC);
	chain_release(&d->body, &p->buffers);
	free(d->last_text);
	message_release(d->message, p);
	d->magic = 0;
	pool_put(&p->deliveries, d);
}
