/* What several commands of flywheel-spool write: addresses, faults, files. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mail/utf8.h"
#include "tools/spool_commands.h"

/* The length of the character at `text`; 0: it is none, or one that a terminal may obey. */
static size_t harmless(const char *text, size_t len)
{
	unsigned code_point = 0;
	size_t n = utf8_decode(text, len, &code_point);

	return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0) ? 0 : n;
}

void spool_put_text(FILE *f, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		size_t n = harmless(text, len);

		if (n == 0) {
			putc('?', f);
			n = 1;
		} else {
			fwrite(text, 1, n, f);
		}
		text += n;
		len -= n;
	}
}

void spool_put_addresses(FILE *f, const struct envelope *e)
{
	fputs("from <", f);
	spool_put_text(f, envelope_sender(e));
	fputs("> to <", f);
	spool_put_text(f, envelope_address(e, 0));
	putc('>', f);
	if (e->recipient_count > 1) {
		fprintf(f, " and %u more", e->recipient_count - 1);
	}
}

const char *spool_piece_fault(const struct spool_piece *p)
{
	if (p->error != 0) {
		return strerror(-p->error);
	}
	return p->state == PIECE_BODY_DAMAGED ? "the body is damaged" : "damaged";
}

int spool_make_directory(const char *directory)
{
	if (mkdir(directory, 0700) != 0 && errno != EEXIST) {
		fprintf(stderr, "flywheel-spool: %s: %s\n", directory, strerror(errno));
		return -1;
	}
	return 0;
}

FILE *spool_make_file(const char *directory, const struct message_id *id, const char *suffix)
{
	char name[MESSAGE_ID_TEXT + 16];
	char text[MESSAGE_ID_TEXT];
	int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = -1;
	FILE *f;

	message_id_format(id, text);
	snprintf(name, sizeof(name), "%s%s", text, suffix);
	if (dir >= 0) {
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (f == NULL) {
		fprintf(stderr, "flywheel-spool: %s/%s: %s\n", directory, name, strerror(errno));
	}
	if (dir >= 0) {
		close(dir);
	}
	return f;
}

static int say_unwritten(const char *directory, int error)
{
	fprintf(stderr, "flywheel-spool: cannot write to %s: %s\n", directory, strerror(error));
	return -1;
}

int spool_close_file(FILE *f, const char *directory)
{
	bool bad = fflush(f) != 0 || ferror(f);
	int error = errno;

	if (fclose(f) != 0 && !bad) {
		bad = true;
		error = errno;
	}
	return bad ? say_unwritten(directory, error) : 0;
}

int spool_sync_files(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || syncfs(fd) != 0 ? say_unwritten(directory, errno) : 0;

	if (fd >= 0) {
		close(fd);
	}
	return rc;
}
