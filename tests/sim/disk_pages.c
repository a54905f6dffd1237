#include <string.h>

#include "tests/sim/disk_node.h"
#include "tests/sim/world.h"

static void grow(struct disk_pages *p, uint64_t end)
{
	uint32_t need = (uint32_t)((end + DISK_PAGE - 1) / DISK_PAGE);
	uint32_t room = p->room == 0 ? 4 : p->room;
	struct disk_page *page;

	if (need <= p->room) {
		return;
	}
	while (room < need) {
		room *= 2;
	}
	page = world_alloc(room * sizeof(*page));
	if (p->room != 0) {
		memcpy(page, p->page, p->room * sizeof(*page));
	}
	world_free(p->page, p->room * sizeof(*page));
	p->page = page;
	p->room = room;
}

static void drop_data(struct disk_page *page)
{
	world_free(page->data, DISK_PAGE);
	page->data = NULL;
}

static void write_page(struct disk_page *page, uint32_t at, const unsigned char *data, uint32_t len)
{
	if (data != NULL) {
		if (page->data == NULL) {
			page->data = world_alloc(DISK_PAGE);
		}
		memcpy(page->data + at, data, len);
	} else if (len == DISK_PAGE) {
		drop_data(page);
	} else if (page->data != NULL) {
		memset(page->data + at, 0, len);
	}
}

/* The part of `len` bytes that is on the page of `offset`. */
static uint32_t part(uint64_t offset, uint64_t len)
{
	uint32_t rest = DISK_PAGE - (uint32_t)(offset % DISK_PAGE);

	return len < rest ? (uint32_t)len : rest;
}

void disk_pages_write(struct disk_pages *p, uint64_t offset, const unsigned char *data,
		      uint64_t len)
{
	grow(p, offset + len);
	while (len > 0) {
		uint32_t n = part(offset, len);

		write_page(&p->page[offset / DISK_PAGE], (uint32_t)(offset % DISK_PAGE), data, n);
		data = data != NULL ? data + n : NULL;
		offset += n;
		len -= n;
	}
}

void disk_pages_read(const struct disk_pages *p, uint64_t offset, unsigned char *out, uint64_t len)
{
	while (len > 0) {
		uint32_t n = part(offset, len);
		uint64_t i = offset / DISK_PAGE;

		if (i < p->room && p->page[i].data != NULL) {
			memcpy(out, p->page[i].data + offset % DISK_PAGE, n);
		} else {
			memset(out, 0, n);
		}
		out += n;
		offset += n;
		len -= n;
	}
}

uint64_t disk_pages_reserve(struct disk_pages *p, uint64_t offset, uint64_t len, uint64_t limit,
			    uint64_t *taken)
{
	uint64_t at = offset;

	*taken = 0;
	grow(p, offset + len);
	while (at < offset + len) {
		struct disk_page *page = &p->page[at / DISK_PAGE];

		if (!page->allocated) {
			if (*taken == limit) {
				break;
			}
			page->allocated = true;
			++*taken;
		}
		at += part(at, offset + len - at);
	}
	return at - offset;
}

uint64_t disk_pages_cut(struct disk_pages *p, uint64_t size)
{
	uint64_t i = size / DISK_PAGE;
	uint32_t in_page = (uint32_t)(size % DISK_PAGE);
	uint64_t freed = 0;

	if (in_page != 0 && i < p->room) {
		write_page(&p->page[i], in_page, NULL, DISK_PAGE - in_page);
		i++;
	}
	for (; i < p->room; i++) {
		drop_data(&p->page[i]);
		freed += p->page[i].allocated;
		p->page[i].allocated = false;
	}
	return freed;
}

void disk_pages_copy(struct disk_pages *p, const struct disk_pages *from)
{
	grow(p, (uint64_t)from->room * DISK_PAGE);
	for (uint32_t i = 0; i < p->room; i++) {
		write_page(&p->page[i], 0, i < from->room ? from->page[i].data : NULL, DISK_PAGE);
	}
}

void disk_pages_copy_part(struct disk_pages *p, const struct disk_pages *from, uint64_t offset,
			  uint64_t len)
{
	grow(p, offset + len);
	while (len > 0) {
		uint32_t n = part(offset, len);
		uint64_t i = offset / DISK_PAGE;
		uint32_t at = (uint32_t)(offset % DISK_PAGE);
		const unsigned char *data = i < from->room ? from->page[i].data : NULL;

		write_page(&p->page[i], at, data != NULL ? data + at : NULL, n);
		offset += n;
		len -= n;
	}
}

uint64_t disk_pages_account(struct disk_pages *p)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < p->room; i++) {
		p->page[i].allocated |= p->page[i].data != NULL;
		count += p->page[i].allocated;
	}
	return count;
}

void disk_pages_free(struct disk_pages *p)
{
	for (uint32_t i = 0; i < p->room; i++) {
		drop_data(&p->page[i]);
	}
	world_free(p->page, p->room * sizeof(*p->page));
	*p = (struct disk_pages){0};
}
