#include "agents/log_compress.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <zlib.h>
#include <zstd.h>

#include "core/runtime/check.h"

#define OUT_SIZE 131072
#define ZSTD_LEVEL 3
#define GZIP_LEVEL 6
/* zlib: the largest window, and a gzip header. */
#define GZIP_WINDOW (15 + 16)
#define GZIP_MEMORY 8

SINGLE
struct log_compressor {
	enum log_compress kind;
	int fd;
	ZSTD_CCtx *zstd;
	z_stream gzip;
	char out[OUT_SIZE];
};

const char *log_compress_suffix(enum log_compress kind)
{
	static const char *const suffixes[] = {
		[LOG_COMPRESS_NONE] = "",
		[LOG_COMPRESS_ZSTD] = ".zst",
		[LOG_COMPRESS_GZIP] = ".gz",
	};

	return suffixes[kind];
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static bool zstd_open(struct log_compressor *c)
{
	c->zstd = ZSTD_createCCtx();
	if (c->zstd == NULL) {
		return false;
	}
	ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
	ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_checksumFlag, 1);
	return true;
}

struct log_compressor *log_compressor_create(enum log_compress kind, int fd)
{
	struct log_compressor *c = calloc(1, sizeof(*c));
	bool opened;

	ASSERT(kind != LOG_COMPRESS_NONE);
	if (c == NULL) {
		return NULL;
	}
	c->kind = kind;
	c->fd = fd;
	opened = kind == LOG_COMPRESS_ZSTD
			 ? zstd_open(c)
			 : deflateInit2(&c->gzip, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY,
					Z_DEFAULT_STRATEGY) == Z_OK;
	if (!opened) {
		free(c);
		return NULL;
	}
	return c;
}

static int zstd_write(struct log_compressor *c, const void *data, size_t len, bool end)
{
	ZSTD_inBuffer in = {.src = data, .size = len};
	size_t rest;
	int rc;

	do {
		ZSTD_outBuffer out = {.dst = c->out, .size = OUT_SIZE};

		rest = ZSTD_compressStream2(c->zstd, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(rest)) {
			return -ENOMEM;
		}
		rc = write_all(c->fd, c->out, out.pos);
	} while (rc == 0 && (in.pos < in.size || (end && rest != 0)));
	return rc;
}

static int gzip_write(struct log_compressor *c, const void *data, size_t len, bool end)
{
	int rc;

	ASSERT(len <= UINT32_MAX);
	/* zlib takes what it only reads as not constant. */
	c->gzip.next_in = (Bytef *)(uintptr_t)data;
	c->gzip.avail_in = (uInt)len;
	do {
		c->gzip.next_out = (Bytef *)c->out;
		c->gzip.avail_out = OUT_SIZE;
		deflate(&c->gzip, end ? Z_FINISH : Z_NO_FLUSH);
		rc = write_all(c->fd, c->out, OUT_SIZE - c->gzip.avail_out);
	} while (rc == 0 && c->gzip.avail_out == 0);
	return rc;
}

int log_compressor_write(struct log_compressor *c, const void *data, size_t len, bool end)
{
	return c->kind == LOG_COMPRESS_ZSTD ? zstd_write(c, data, len, end)
					    : gzip_write(c, data, len, end);
}

void log_compressor_destroy(struct log_compressor *c)
{
	if (c == NULL) {
		return;
	}
	if (c->kind == LOG_COMPRESS_ZSTD) {
		ZSTD_freeCCtx(c->zstd);
	} else {
		deflateEnd(&c->gzip);
	}
	free(c);
}
