/*
 * Journals left in any state. The input writes records, batch by batch, reads and checkpoints, and
 * damages files: bits, pieces, ends, whole files. Readers and the next start get the directory.
 *
 * What must hold, whatever was done: what a reader shows ends, and lies in a file as a whole; a
 * repair changes nothing of what readers see, and a second one finds nothing; a writer goes on, and
 * readers see what it wrote. Where the damage is a torn end only, readers see exactly the whole
 * records, before and after. Where there is none, each subscriber gets each record once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_reader.h"
#include "core/log/jlog_recovery.h"
#include "core/log/jlog_subscriber.h"
#include "core/log/jlog_writer.h"
#include "tests/fuzz/fuzz_input.h"

#define SEGMENT_BYTES 300U
#define OPERATIONS_MAX 60
#define RECORDS_MAX 2048
#define RECORD_MAX 64U
#define FILES 24

static char folder[128];
/* What files are called; of segments more than there will be. */
static char names[FILES][16];

struct world {
	struct jlog_writer *writer;
	uint32_t written;
	/* Nothing but the end of the last segment was damaged. */
	bool exact;
	/* Records that are whole, when it is exact. */
	uint32_t whole;
	/* The next that the subscriber is to get. */
	uint32_t next;
};

/* What a reader saw: a sum over all records, in order. */
struct seen {
	uint32_t count;
	uint64_t sum;
	/* The number of the last one. */
	uint32_t last;
};

static void on_event(void *context, enum jlog_event event, const char *text)
{
	(void)context;
	FUZZ_CHECK(text[0] != '\0' && event <= JLOG_TROUBLE);
}

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void remove_files(void)
{
	for (unsigned i = 0; i < FILES; i++) {
		FUZZ_CHECK(unlink(path_of(names[i])) == 0 || errno == ENOENT);
	}
	FUZZ_CHECK(rmdir(folder) == 0 || errno == ENOENT);
}

static void make_names(void)
{
	static const char *const others[] = {"metastore", "cp.61", "cp.62", "new"};
	const char *where = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/flywheel-fuzz-jlog-%ld",
		 where != NULL ? where : "/dev/shm", (long)getpid());
	for (unsigned i = 0; i < 10; i++) {
		jlog_segment_name(i, names[2 * i]);
		jlog_index_name(i, names[2 * i + 1]);
	}
	for (unsigned i = 0; i < 4; i++) {
		strcpy(names[20 + i], others[i]);
	}
	remove_files();
}

/* ---- writing ---- */

static struct jlog_writer *open_writer(void)
{
	static const char *const subscribers[] = {"a"};
	const struct jlog_options options = {
		.path = folder,
		.segment_bytes = SEGMENT_BYTES,
		.safety = JLOG_UNSAFE,
		.subscribers = subscribers,
		.subscriber_count = 1,
		.report = {.say = on_event},
	};
	struct jlog_writer *w = NULL;
	int rc = jlog_writer_open(&w, &options);

	/* A metastore may say that records are compressed. */
	FUZZ_CHECK(rc == 0 || rc == -EPROTONOSUPPORT);
	return w;
}

static size_t make_record(unsigned char *at, uint32_t number, unsigned len)
{
	jlog_put_header(at, (uint32_t)sizeof(number) + len, number);
	memcpy(at + JLOG_HEADER_BYTES, &number, sizeof(number));
	memset(at + JLOG_HEADER_BYTES + sizeof(number), 'r', len);
	return JLOG_HEADER_BYTES + sizeof(number) + len;
}

static void write_batch(struct world *w, unsigned count, unsigned len)
{
	unsigned char batch[16 * (JLOG_HEADER_BYTES + 4 + RECORD_MAX)];
	size_t bytes = 0;

	/* As many segments as there are names for. */
	if (w->writer == NULL || jlog_writer_counts(w->writer)->segments > 7) {
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		bytes += make_record(batch + bytes, w->written++, len);
	}
	FUZZ_CHECK(jlog_writer_write(w->writer, batch, bytes) == (ssize_t)bytes);
	w->whole = w->written;
}

/* ---- damage ---- */

static void flip(struct world *w, unsigned file, unsigned at, unsigned bits)
{
	int fd = open(path_of(names[file % FILES]), O_RDWR | O_CLOEXEC);
	unsigned char octet;

	if (fd < 0) {
		return;
	}
	if (pread(fd, &octet, 1, at) == 1 && bits != 0) {
		octet ^= (unsigned char)bits;
		FUZZ_CHECK(pwrite(fd, &octet, 1, at) == 1);
		w->exact = false;
	}
	close(fd);
}

static void overwrite(struct world *w, unsigned file, unsigned at, const void *piece, size_t len)
{
	int fd = open(path_of(names[file % FILES]), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(pwrite(fd, piece, len, at) == (ssize_t)len);
	close(fd);
	w->exact = false;
}

static void resize(struct world *w, unsigned file, unsigned bytes)
{
	if (truncate(path_of(names[file % FILES]), bytes) == 0) {
		w->exact = false;
	}
}

static void remove_file(struct world *w, unsigned file)
{
	if (unlink(path_of(names[file % FILES])) == 0) {
		w->exact = false;
	}
}

/* The writer was killed while it wrote one more record, and another one goes on. */
static void tear(struct world *w, unsigned len, unsigned cut)
{
	unsigned char record[JLOG_HEADER_BYTES + 4 + RECORD_MAX];
	size_t bytes = make_record(record, w->written, len);
	uint32_t log;
	int directory = jlog_directory_open(folder);
	int fd;

	FUZZ_CHECK(directory >= 0);
	FUZZ_CHECK(jlog_storage_log(directory, &log) == 0 || !w->exact);
	fd = jlog_segment_open(directory, log, O_WRONLY | O_APPEND);
	if (fd >= 0) {
		FUZZ_CHECK(write(fd, record, cut % bytes) == (ssize_t)(cut % bytes));
		close(fd);
	}
	close(directory);
	(void)jlog_writer_close(w->writer);
	w->writer = NULL;
}

static void restart(struct world *w)
{
	(void)jlog_writer_close(w->writer);
	w->writer = open_writer();
	FUZZ_CHECK(w->writer != NULL || !w->exact);
}

/* ---- reading ---- */

static void see(struct seen *s, const struct jlog_record *r)
{
	s->count++;
	FUZZ_CHECK(s->count <= RECORDS_MAX);
	for (uint32_t i = 0; i < r->len; i++) {
		s->sum = s->sum * 31 + r->data[i];
	}
	s->sum = s->sum * 31 + r->len;
	if (r->len >= sizeof(s->last)) {
		memcpy(&s->last, r->data, sizeof(s->last));
	}
}

/* Everything, by a reader that leaves no trace. False: the journal cannot be read. */
static bool read_all(struct seen *s)
{
	struct jlog_reader *r;
	struct jlog_record record;
	struct jlog_id last = {0};
	int rc = jlog_reader_open(&r, folder, NULL);

	*s = (struct seen){0};
	if (rc != 0) {
		FUZZ_CHECK(rc == -EPROTONOSUPPORT || rc == -ENOENT);
		return false;
	}
	while ((rc = jlog_reader_next(r, &record)) == 1) {
		FUZZ_CHECK(jlog_id_compare(last, record.id) < 0);
		last = record.id;
		see(s, &record);
	}
	FUZZ_CHECK(rc == 0);
	jlog_reader_close(r);
	return true;
}

/* The subscriber reads some, and checkpoints. */
static void read_some(struct world *w, unsigned count)
{
	struct jlog_reader *r;
	struct jlog_record record;
	uint32_t number;
	int rc = jlog_reader_open(&r, folder, "a");

	if (rc != 0) {
		FUZZ_CHECK(!w->exact);
		return;
	}
	for (unsigned i = 0; i < count && jlog_reader_next(r, &record) == 1; i++) {
		if (w->exact) {
			FUZZ_CHECK(record.len >= sizeof(number));
			memcpy(&number, record.data, sizeof(number));
			FUZZ_CHECK(number == w->next);
			w->next++;
		}
	}
	rc = jlog_reader_checkpoint(r, jlog_reader_position(r));
	FUZZ_CHECK(rc == 0 || !w->exact);
	jlog_reader_close(r);
}

/* ---- the input ---- */

static void operate(struct world *w, struct fuzz_input *in)
{
	unsigned op = fuzz_byte(in);
	unsigned a = fuzz_byte(in);
	unsigned b = fuzz_byte(in);
	const unsigned char *piece;
	size_t len;

	switch (op % 12) {
	case 0:
	case 1:
	case 2:
		write_batch(w, 1 + a % 16, b % RECORD_MAX);
		break;
	case 3:
		read_some(w, a);
		break;
	case 4:
	case 5:
		tear(w, a % RECORD_MAX, b);
		restart(w);
		break;
	case 6:
		restart(w);
		break;
	case 7:
		flip(w, a, b, fuzz_byte(in));
		break;
	case 8:
		flip(w, a, 256 + b, fuzz_byte(in));
		break;
	case 9:
		piece = fuzz_piece(in, fuzz_byte(in) % 40, &len);
		overwrite(w, a, b * 2, piece, len);
		break;
	case 10:
		resize(w, a, b * 2);
		break;
	default:
		remove_file(w, a);
		break;
	}
}

static struct seen expect_end(const struct world *w)
{
	struct seen seen;

	if (!read_all(&seen)) {
		FUZZ_CHECK(!w->exact);
	}
	return seen;
}

static void check(struct world *w)
{
	struct jlog_recovery found;
	struct seen first;
	struct seen second;
	uint32_t left = w->whole - w->next;
	uint64_t removed;
	int rc;

	if (w->exact) {
		read_some(w, RECORDS_MAX);
		FUZZ_CHECK(w->next == w->whole);
	}
	FUZZ_CHECK(left <= RECORDS_MAX);
	(void)jlog_writer_close(w->writer);
	/* What was damaged in the segment that is written is only passed over when it is closed. */
	w->writer = open_writer();
	if (w->writer == NULL) {
		return;
	}
	first = expect_end(w);
	rc = jlog_repair(folder, &found);
	FUZZ_CHECK(rc == 0);
	second = expect_end(w);
	FUZZ_CHECK(first.count == second.count && first.sum == second.sum);
	FUZZ_CHECK(jlog_repair(folder, &found) == 0);
	FUZZ_CHECK(found.torn_bytes == 0 && found.damaged_bytes == 0 && !found.metastore &&
		   found.checkpoints == 0);
	w->exact = false;
	removed = jlog_writer_counts(w->writer)->removed_segments;
	write_batch(w, 1, 3);
	if (jlog_writer_counts(w->writer)->writes > 0) {
		second = expect_end(w);
		FUZZ_CHECK(second.count > 0 && second.last == w->written - 1);
		/* A checkpoint that was damaged may say that all is read: that goes with its
		 * segment. */
		FUZZ_CHECK(second.count == first.count + 1 ||
			   jlog_writer_counts(w->writer)->removed_segments > removed);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct world w = {.exact = true};

	if (folder[0] == '\0') {
		make_names();
	}
	w.writer = open_writer();
	for (unsigned i = 0; i < OPERATIONS_MAX && in.left > 0; i++) {
		operate(&w, &in);
	}
	check(&w);
	(void)jlog_writer_close(w.writer);
	/* Repairs and misled metastores may have made others. */
	struct jlog_segments list;
	int directory = jlog_directory_open(folder);
	FUZZ_CHECK(directory >= 0 && jlog_segments_list(directory, &list) == 0);
	for (unsigned i = 0; i < list.count; i++) {
		FUZZ_CHECK(jlog_segment_remove(directory, list.items[i].log) == 0);
	}
	jlog_segments_free(&list);
	close(directory);
	remove_files();
	return 0;
}
