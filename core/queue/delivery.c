#include "core/queue/delivery.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/text.h"

struct delivery *delivery_create(struct mail_pools *p, struct message *m, uint32_t index)
{
	const struct envelope *e = message_envelope(m);
	struct delivery *d;

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	ASSERT(index < e->delivery_count && index <= UINT16_MAX);
	d = pool_get(&p->deliveries);
	memset(d, 0, sizeof(*d));
	d->magic = DELIVERY_MAGIC;
	d->index = (uint16_t)index;
	d->place = DELIVERY_TRANSIT;
	d->pending = recipient_set_first(envelope_delivery(e, index)->count);
	d->message = m;
	d->urgent = e->priority > 0;
	return d;
}

void delivery_send_on(struct delivery *d, const char *binding, const char *domain)
{
	size_t len = strlen(domain);
	struct delivery_route *r = check_memory(calloc(1, sizeof(*r) + len + 1), "an order");

	ASSERT(d->place == DELIVERY_TRANSIT && !d->sent_on && d->connection == NULL);
	text_copy(r->binding, sizeof(r->binding), binding);
	memcpy(r->domain, domain, len + 1);
	d->route = r;
	d->sent_on = true;
	d->rerouted = true;
}

void delivery_end_route(struct delivery *d)
{
	if (d->sent_on) {
		free(d->route);
		d->route = NULL;
		d->sent_on = false;
	}
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
	delivery_end_route(d);
	delivery_give_up_content(d, p);
	free(d->last_text);
	message_release(d->message, p);
	d->magic = 0;
	pool_put(&p->deliveries, d);
}
