/*
 * flywheel-spool check: reads every record, says which are damaged and what that means, and with
 * --repair gives up what cannot be delivered any more.
 *
 * A message whose envelope is damaged belongs to nobody: a start of flywheeld tells of it once,
 * does not queue it, and keeps its segment for as long as the index of that segment speaks of it. A
 * repair writes that index without it. A crash in between is harmless: a damaged index is built
 * anew from the records, and these do not count for records.
 *
 * Start reading at spool_check().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "tools/spool_commands.h"

SINGLE
struct check {
	const struct spool_view *view;
	const char *path;
	/* NULL: only look. */
	const char *repair;
	uint64_t records;
	/* Damaged records, and the kinds of those that are needed. */
	uint64_t damaged;
	uint64_t lost_messages;
	uint64_t lost_bodies;
	uint64_t lost_states;
	uint64_t given_up;
	/* A repair did not succeed. */
	bool failed;
};

static void begin_line(const struct segment *g, const struct index_record *r, const char *what)
{
	char name[SEGMENT_NAME_MAX];
	char id[MESSAGE_ID_TEXT];

	segment_name(g->id, name);
	message_id_format(&r->id, id);
	printf("%s: at %" PRIu64 ": %s %s: ", name, (uint64_t)r->place * RECORD_ALIGN, what, id);
}

static void tell_message(struct check *c, const struct segment *g, const struct index_record *r,
			 const struct spool_piece *p)
{
	begin_line(g, r, "message");
	if (p->state == PIECE_BODY_DAMAGED) {
		c->lost_bodies++;
		printf("%s; it is queued, cannot be sent, and goes back to its sender in the end: ",
		       spool_piece_fault(p));
		spool_put_addresses(stdout, spool_piece_envelope(p));
		putchar('\n');
		return;
	}
	c->lost_messages++;
	printf("%s; whose it is, is not known, it is not queued, and its segment is kept\n",
	       spool_piece_fault(p));
}

/* Only what is needed is worth a line: the rest of a segment goes with it. */
static void tell(struct check *c, const struct segment *g, const struct index_record *r,
		 const struct spool_piece *p)
{
	c->damaged++;
	if (!spool_view_live(c->view, g, r)) {
		return;
	}
	if (r->type == RECORD_MESSAGE) {
		tell_message(c, g, r, p);
		return;
	}
	c->lost_states++;
	begin_line(g, r, "state of message");
	printf("%s; delivery %u begins anew, at once\n", spool_piece_fault(p), r->delivery);
}

/* ---- repair ---- */

static bool is_lost(const struct spool_view *v, const struct segment *g,
		    const struct index_record *r)
{
	struct spool_piece piece;
	bool lost;

	if (r->type != RECORD_MESSAGE || !spool_view_live(v, g, r)) {
		return false;
	}
	spool_view_read(g, r, &piece);
	lost = piece.state == PIECE_DAMAGED;
	spool_piece_release(&piece);
	return lost;
}

/* Keeps the bytes of a message that is given up. 0 or -1. */
static int keep_bytes(const struct check *c, const struct segment *g, const struct index_record *r)
{
	struct spool_piece piece;
	FILE *f = spool_make_file(c->repair, &r->id, ".damaged");

	if (f == NULL) {
		return -1;
	}
	spool_view_read(g, r, &piece);
	fwrite(piece.data, 1, (size_t)piece.len, f);
	spool_piece_release(&piece);
	return spool_close_file(f, c->repair);
}

/* Takes what is lost out of `records`, and keeps its bytes. How many; -1: they cannot be kept. */
static long take_out(const struct check *c, const struct segment *g, struct index_record *records,
		     uint32_t *count)
{
	uint32_t kept = 0;
	long lost = 0;

	for (uint32_t i = 0; i < *count; i++) {
		if (!is_lost(c->view, g, &records[i])) {
			records[kept++] = records[i];
		} else if (keep_bytes(c, g, &records[i]) == 0) {
			lost++;
		} else {
			return -1;
		}
	}
	*count = kept;
	return lost;
}

/* Writes the index of a sealed segment, which is no longer than what is there. 0 or a negative
 * errno. */
static int write_index(const struct check *c, const struct segment *g, uint64_t sequence,
		       const struct index_record *records, uint32_t count)
{
	unsigned char head[SEGMENT_INDEX_HEAD];
	struct segment file = *g;
	char path[4096];
	char name[SEGMENT_NAME_MAX];
	int rc;

	segment_name(g->id, name);
	if (snprintf(path, sizeof(path), "%s/%s", c->path, name) >= (int)sizeof(path)) {
		return -ENAMETOOLONG;
	}
	file.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (file.fd < 0) {
		return -errno;
	}
	file.index_count = count;
	file.index_crc = record_crc(0, records, count * sizeof(*records));
	segment_index_head(&file, sequence, head);
	rc = segment_write(&file, g->index_offset, head, sizeof(head));
	rc = rc != 0 ? rc
		     : segment_write(&file, g->index_offset + sizeof(head), records,
				     count * sizeof(*records));
	if (rc == 0 && fdatasync(file.fd) != 0) {
		rc = -errno;
	}
	close(file.fd);
	return rc;
}

static void repair_segment(struct check *c, const struct segment *g)
{
	struct index_record *records;
	uint64_t sequence = 0;
	uint32_t count;
	char name[SEGMENT_NAME_MAX];
	long lost = -1;
	int rc = segment_read_index(g, &records, &count, &sequence);

	segment_name(g->id, name);
	if (rc == 0) {
		lost = take_out(c, g, records, &count);
	}
	if (rc == 0 && lost > 0 && spool_sync_files(c->repair) == 0) {
		rc = write_index(c, g, sequence, records, count);
		lost = rc == 0 ? lost : -1;
	}
	free(records);
	if (rc != 0) {
		fprintf(stderr, "flywheel-spool: %s: %s\n", name, strerror(-rc));
	}
	if (lost <= 0) {
		c->failed = true;
		return;
	}
	c->given_up += (uint64_t)lost;
	printf("%s: %ld messages given up; what can be read of them is in %s\n", name, lost,
	       c->repair);
}

/* ---- all of it ---- */

static void check_segment(struct check *c, const struct segment *g)
{
	struct index_record *records;
	uint64_t lost = c->lost_messages;
	uint32_t count;
	int rc = spool_view_records(g, &records, &count);

	if (rc != 0) {
		fprintf(stderr, "flywheel-spool: segment %08x: %s\n", g->id, strerror(-rc));
		c->failed = true;
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct spool_piece piece;

		spool_view_read(g, &records[i], &piece);
		c->records++;
		if (piece.state != PIECE_WHOLE) {
			tell(c, g, &records[i], &piece);
		}
		spool_piece_release(&piece);
	}
	free(records);
	/* An open one gets an index at the next start, from what can be read. */
	if (c->repair != NULL && c->lost_messages > lost && g->state == SEGMENT_SEALED) {
		repair_segment(c, g);
	}
}

static void summarize(const struct check *c)
{
	const struct spool_recovery *found = &c->view->found;

	printf("%u segments, %" PRIu64 " records, %" PRIu64 " of them damaged\n",
	       c->view->segment_count, c->records, c->damaged);
	printf("%" PRIu64 " messages wait; needed and damaged: %" PRIu64 " messages, %" PRIu64
	       " bodies, %" PRIu64 " states\n",
	       found->messages, c->lost_messages, c->lost_bodies, c->lost_states);
	if (found->segments_scanned > 0 || found->damaged_records > 0) {
		printf("read without an index, as the next start will: %" PRIu64
		       " segments, with %" PRIu64 " damaged records and %" PRIu64
		       " bytes of an unfinished one\n",
		       found->segments_scanned, found->damaged_records, found->torn_bytes);
	}
	if (c->repair == NULL && c->lost_messages > 0) {
		puts("flywheel-spool check --repair DIRECTORY gives up messages that belong to nobody");
	}
	if (c->lost_bodies > 0) {
		puts("flywheel message fail ID returns a message without its body now");
	}
}

int spool_check(const struct spool_view *v, const char *path, const char *repair)
{
	struct check c = {.view = v, .path = path, .repair = repair};

	if (repair != NULL && spool_make_directory(repair) != 0) {
		return SPOOL_EXIT_USAGE;
	}
	for (uint32_t i = 0; i < v->segment_count; i++) {
		if (v->segments[i]->state != SEGMENT_SPARE) {
			check_segment(&c, v->segments[i]);
		}
	}
	summarize(&c);
	if (c.failed || c.lost_messages > c.given_up || c.lost_bodies > 0 || c.lost_states > 0 ||
	    v->found.damaged_records > 0) {
		return SPOOL_EXIT_DAMAGED;
	}
	return SPOOL_EXIT_OK;
}
