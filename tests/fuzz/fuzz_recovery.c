/*
 * A start of the spool on a directory made from the input: one byte each for an operation and for
 * what it needs. Segments are written as the spool writes them, then, if the input says so, torn,
 * flipped, cut, or forged.
 *
 * Whatever is there: the start ends, its books balance, and the next start finds the same messages.
 * If nothing was damaged, it finds exactly what the operations say is not yet delivered.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/account.h"
#include "spool/segment.h"
#include "spool/spool.h"
#include "spool/store.h"
#include "tests/fuzz/fuzz_input.h"

#define SEGMENTS 8
#define SEGMENT_BYTES (1U << 20)
/* Of it, what records may fill; with its index it is far from full. */
#define FILL_MAX 49152U
/* Of a file. The rest would be zeros, which take time to read. */
#define IMAGE_BYTES 65536U
#define RECORDS_MAX 200
#define MESSAGES 12
#define DELIVERIES 4
#define OPERATIONS_MAX 120

/* ---- what is known of each message, and what is found ---- */

struct model {
	bool written;
	uint32_t deliveries;
	uint32_t segment;
	bool done[DELIVERIES];
	uint16_t attempts[DELIVERIES];
};

struct found {
	struct message_id id;
	uint32_t delivery;
	uint32_t attempts;
};

struct listing {
	struct found items[MESSAGES * DELIVERIES * 2];
	uint32_t count;
};

struct image {
	/* NULL: there is no such file. */
	struct segment *segment;
	unsigned char *data;
	bool closed;
};

struct disk {
	struct image images[SEGMENTS];
	struct image *current;
	struct pool chunks;
	struct mail_pools pools;
	struct model messages[MESSAGES];
	uint64_t sequence;
	/* Nothing was damaged, and all was written in an order that the spool writes in. */
	bool exact;
	uint32_t writers;
};

static char folder[128];

static int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops agent_ops = {.kind = "check", .do_work = no_work};

/* ---- writing segments ---- */

static struct message_id id_of(unsigned message)
{
	return (struct message_id){.high = 0x123456789abc0001, .low = 1 + message};
}

static void image_open(struct disk *d, unsigned number, unsigned generation)
{
	struct image *image = &d->images[number % SEGMENTS];

	if (image->segment != NULL) {
		d->current = image;
		return;
	}
	image->segment = segment_new(number % SEGMENTS, SEGMENT_BYTES);
	image->segment->generation = 1 + generation;
	image->data = calloc(1, IMAGE_BYTES);
	FUZZ_CHECK(image->data != NULL);
	segment_encode_header(image->segment, 0, SEGMENT_DISK_OPEN, image->data);
	d->current = image;
}

static bool can_write(const struct disk *d, size_t bytes)
{
	const struct image *image = d->current;

	return image != NULL && !image->closed && image->segment->end + bytes <= FILL_MAX &&
	       image->segment->index_count < RECORDS_MAX;
}

static struct record_header header_for(struct disk *d, enum record_type type, unsigned message)
{
	return (struct record_header){
		.type = (uint8_t)type,
		.segment = d->current->segment->id,
		.generation = d->current->segment->generation,
		.sequence = ++d->sequence,
		.id = id_of(message),
	};
}

static void write_record(struct disk *d, struct record_encoder *e, const void *head)
{
	struct segment *g = d->current->segment;
	struct index_record r =
		record_describe(&e->header, (uint32_t)(g->end / RECORD_ALIGN), head);

	FUZZ_CHECK(record_encode(e, d->current->data + g->end, (size_t)e->size) == e->size);
	segment_index_add(g, &d->chunks, &r);
	g->end += e->size;
}

static struct envelope *make_envelope(unsigned message, uint32_t deliveries)
{
	struct envelope_builder b;
	struct envelope *e;
	char address[64];

	envelope_builder_init(&b);
	envelope_set_sender(&b, "sender@example.com", 18);
	for (uint32_t i = 0; i < 2 * deliveries; i++) {
		int len = snprintf(address, sizeof(address), "r%u@d%u.example", i, i / 2);

		envelope_add_recipient(&b, address, (size_t)len);
	}
	e = malloc(envelope_size(&b));
	FUZZ_CHECK(e != NULL);
	envelope_build(&b, e);
	e->id = id_of(message);
	envelope_builder_close(&b);
	return e;
}

static void put_message(struct disk *d, unsigned message, uint32_t deliveries, size_t body_bytes)
{
	struct model *m = &d->messages[message];
	struct envelope *envelope = make_envelope(message, deliveries);
	struct record_encoder e;
	struct record_header h;
	struct chain body = CHAIN_EMPTY;

	if (can_write(d, envelope->size + body_bytes + 128)) {
		for (size_t i = 0; i < body_bytes; i += 8) {
			chain_append(&body, &d->pools.buffers, "a line\r\n", 8);
		}
		envelope->body_bytes = body.len;
		h = header_for(d, RECORD_MESSAGE, message);
		h.delivery = deliveries;
		record_encode_message(&e, &h, envelope, &body);
		write_record(d, &e, NULL);
		d->exact = d->exact && !m->written;
		*m = (struct model){.written = true,
				    .deliveries = deliveries,
				    .segment = d->current->segment->id};
		chain_release(&body, &d->pools.buffers);
	}
	free(envelope);
}

static void put_state(struct disk *d, unsigned message, uint32_t delivery, uint16_t attempts)
{
	struct model *m = &d->messages[message];
	struct record_encoder e;
	struct record_header h;
	struct record_state state = {.due_ms = attempts * 1000U,
				     .pending = {1, 0},
				     .attempts = attempts,
				     .text_bytes = 5};

	if (!can_write(d, 256)) {
		return;
	}
	h = header_for(d, RECORD_STATE, message);
	h.delivery = delivery;
	state.stamp = h.sequence;
	record_encode_state(&e, &h, &state, "later");
	write_record(d, &e, &state);
	if (m->written && delivery < m->deliveries) {
		m->attempts[delivery] = attempts;
	} else {
		d->exact = false;
	}
}

/* `count` 0: all of them. */
static void put_done(struct disk *d, unsigned message, uint32_t delivery, uint16_t count)
{
	struct model *m = &d->messages[message];
	struct record_encoder e;
	struct record_header h;

	if (!can_write(d, 128)) {
		return;
	}
	h = header_for(d, RECORD_DONE, message);
	h.delivery = delivery;
	h.count = count;
	record_encode_done(&e, &h, m->segment);
	write_record(d, &e, &m->segment);
	d->exact = d->exact && m->written;
	for (uint32_t i = 0; i < m->deliveries; i++) {
		if (count == 0 || (i >= delivery && i < delivery + count)) {
			m->done[i] = true;
		}
	}
}

static void seal(struct disk *d)
{
	struct image *image = d->current;
	struct segment *g = image != NULL ? image->segment : NULL;
	uint64_t at;

	if (g == NULL || image->closed || g->index_count == 0) {
		return;
	}
	at = g->index_offset = g->end;
	segment_index_head(g, ++d->sequence, image->data + at);
	at += SEGMENT_INDEX_HEAD;
	for (const struct index_chunk *c = g->chunks; c != NULL; c = c->next) {
		memcpy(image->data + at, c->records, c->count * sizeof(c->records[0]));
		at += c->count * sizeof(c->records[0]);
	}
	segment_encode_header(g, 0, SEGMENT_DISK_SEALED, image->data);
	image->closed = true;
}

/* ---- damage ---- */

static void flip(struct disk *d, unsigned at, unsigned bits)
{
	if (d->current != NULL && bits != 0) {
		d->current->data[at] ^= (unsigned char)bits;
		d->exact = false;
	}
}

static void overwrite(struct disk *d, unsigned at, const unsigned char *piece, size_t len)
{
	if (d->current != NULL) {
		memcpy(d->current->data + at, piece, len);
		d->exact = false;
	}
}

/* What a kernel may leave of a file that was being written: zeros from some place on. */
static void tear(struct disk *d, unsigned at)
{
	if (d->current != NULL) {
		memset(d->current->data + at, 0, IMAGE_BYTES - at);
		d->exact = false;
	}
}

/* An index record or a header that says something else, with its CRC made right again. */
static void forge(struct disk *d, unsigned at, unsigned bits)
{
	struct index_chunk *c = d->current != NULL ? d->current->segment->chunks : NULL;
	struct segment *g;

	if (c == NULL || c->count == 0 || d->current->closed) {
		return;
	}
	g = d->current->segment;
	((unsigned char *)c->records)[at % (c->count * sizeof(c->records[0]))] ^=
		(unsigned char)bits;
	g->index_crc = record_crc(0, c->records, c->count * sizeof(c->records[0]));
	d->exact = false;
	seal(d);
}

static void set_header(struct disk *d, unsigned state)
{
	if (d->current != NULL) {
		segment_encode_header(d->current->segment, 0,
				      (enum segment_disk_state)(1 + state % 3), d->current->data);
		d->exact = false;
	}
}

/* ---- the input ---- */

static void operate(struct disk *d, struct fuzz_input *in)
{
	unsigned op = fuzz_byte(in);
	unsigned a = fuzz_byte(in);
	unsigned b = fuzz_byte(in);
	unsigned message = a % MESSAGES;
	size_t len;
	const unsigned char *piece;

	switch (op % 16) {
	case 0:
	case 1:
		image_open(d, a, b);
		break;
	case 2:
	case 3:
	case 4:
		put_message(d, message, 1 + b % DELIVERIES, (size_t)(b / DELIVERIES) * 64);
		break;
	case 5:
	case 6:
		put_state(d, message, b % DELIVERIES, (uint16_t)(1 + b / DELIVERIES));
		break;
	case 7:
	case 8:
		put_done(d, message, b % DELIVERIES, 1);
		break;
	case 9:
		put_done(d, message, b % DELIVERIES, (uint16_t)(b / DELIVERIES));
		break;
	case 10:
		seal(d);
		break;
	case 11:
		flip(d, (a << 8 | b) % FILL_MAX, fuzz_byte(in));
		break;
	case 12:
		piece = fuzz_piece(in, fuzz_byte(in), &len);
		overwrite(d, (a << 8 | b) % FILL_MAX, piece, len);
		break;
	case 13:
		tear(d, a << 8 | b);
		break;
	case 14:
		forge(d, a << 8 | b, fuzz_byte(in));
		break;
	default:
		set_header(d, a);
		break;
	}
}

static void write_files(const struct disk *d)
{
	char path[192];
	char name[SEGMENT_NAME_MAX];

	for (unsigned i = 0; i < SEGMENTS; i++) {
		const struct image *image = &d->images[i];
		int fd;

		if (image->segment == NULL) {
			continue;
		}
		segment_name(i, name);
		snprintf(path, sizeof(path), "%s/%s", folder, name);
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		FUZZ_CHECK(fd >= 0);
		FUZZ_CHECK(write(fd, image->data, IMAGE_BYTES) == IMAGE_BYTES);
		close(fd);
	}
}

static void remove_files(void)
{
	char path[192];
	char name[SEGMENT_NAME_MAX];

	for (unsigned i = 0; i < SEGMENTS; i++) {
		segment_name(i, name);
		snprintf(path, sizeof(path), "%s/%s", folder, name);
		FUZZ_CHECK(unlink(path) == 0 || errno == ENOENT);
	}
}

/* ---- a start ---- */

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct found));
}

static void list(struct disk *d, struct spool *s, struct listing *l)
{
	struct agent agent;
	struct delivery *delivery;

	agent_init(&agent, &agent_ops, "check", 0);
	memset(l, 0, sizeof(*l));
	for (uint32_t w = 0; w < d->writers; w++) {
		spool_set_writer(s, w, &agent);
		FUZZ_CHECK(store_validate(spool_store(s, w)));
		while ((delivery = spool_next_recovered(s, w, &d->pools)) != NULL) {
			FUZZ_CHECK(l->count < sizeof(l->items) / sizeof(l->items[0]));
			FUZZ_CHECK(!recipient_set_empty(&delivery->pending));
			l->items[l->count++] = (struct found){
				.id = message_envelope(delivery->message)->id,
				.delivery = delivery->index,
				.attempts = delivery->attempts,
			};
			delivery_destroy(delivery, &d->pools);
		}
	}
	qsort(l->items, l->count, sizeof(l->items[0]), compare);
	agent_close(&agent);
}

/* False when the spool could not be opened. */
static bool start(struct disk *d, struct listing *l, struct spool_recovery *found)
{
	struct spool_options options = {
		.path = folder,
		.writers = d->writers,
		.segment_bytes = SEGMENT_BYTES,
		.compact_percent = 50,
		.spare_segments = 2,
	};
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	struct spool *s;

	FUZZ_CHECK(errors != NULL);
	s = spool_open(&options, errors, found);
	fclose(errors);
	FUZZ_CHECK(s != NULL || len > 0);
	if (s != NULL) {
		list(d, s, l);
		spool_close(s);
	}
	if (getenv("FUZZ_VERBOSE") != NULL) {
		fputs(text, stderr);
	}
	free(text);
	return s != NULL;
}

/* ---- what must hold ---- */

static void check_exact(const struct disk *d, const struct listing *l,
			const struct spool_recovery *found)
{
	uint32_t at = 0;

	FUZZ_CHECK(found->damaged_records == 0 && found->torn_bytes == 0);
	for (unsigned i = 0; i < MESSAGES; i++) {
		const struct model *m = &d->messages[i];
		struct message_id id = id_of(i);

		for (uint32_t j = 0; j < m->deliveries; j++) {
			if (m->done[j]) {
				continue;
			}
			FUZZ_CHECK(at < l->count);
			FUZZ_CHECK(memcmp(&l->items[at].id, &id, sizeof(id)) == 0);
			FUZZ_CHECK(l->items[at].delivery == j);
			FUZZ_CHECK(l->items[at].attempts == m->attempts[j]);
			at++;
		}
	}
	FUZZ_CHECK(at == l->count);
}

static void check_starts(struct disk *d)
{
	struct listing first;
	struct listing second;
	struct spool_recovery found;
	struct spool_recovery again;

	if (!start(d, &first, &found)) {
		FUZZ_CHECK(!d->exact);
		return;
	}
	if (d->exact) {
		check_exact(d, &first, &found);
	}
	/* No envelope has more; whoever believes in more takes memory for each. */
	FUZZ_CHECK(found.deliveries <= found.messages * ENVELOPE_RECIPIENTS_MAX);
	FUZZ_CHECK(start(d, &second, &again));
	FUZZ_CHECK(first.count == second.count);
	FUZZ_CHECK(memcmp(first.items, second.items, sizeof(first.items)) == 0);
	FUZZ_CHECK(found.messages == again.messages && found.deliveries == again.deliveries);
}

static void make_folder(void)
{
	const char *where = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/flywheel-fuzz-%ld", where != NULL ? where : "/dev/shm",
		 (long)getpid());
	FUZZ_CHECK(mkdir(folder, 0700) == 0 || errno == EEXIST);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct disk d = {.exact = true};

	if (folder[0] == '\0') {
		make_folder();
	}
	d.writers = 1 + fuzz_byte(&in) % 3;
	pool_init(&d.chunks, "chunks", sizeof(struct index_chunk), 0);
	mail_pools_init(&d.pools);
	for (unsigned i = 0; i < OPERATIONS_MAX && in.left > 0; i++) {
		operate(&d, &in);
	}
	write_files(&d);
	check_starts(&d);
	remove_files();
	for (unsigned i = 0; i < SEGMENTS; i++) {
		if (d.images[i].segment != NULL) {
			segment_free(d.images[i].segment, &d.chunks);
			free(d.images[i].data);
		}
	}
	mail_pools_close(&d.pools);
	pool_close(&d.chunks);
	return 0;
}
