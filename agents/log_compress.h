/*
 * Compression of a stream of bytes into a file: zstd, or gzip.
 *
 * Used by log_archive.c, on a worker of the thread pool: everything here may block.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/runtime/thread_class.h"

enum log_compress { LOG_COMPRESS_NONE, LOG_COMPRESS_ZSTD, LOG_COMPRESS_GZIP };

struct log_compressor;

/* ".zst", ".gz", or "" when nothing is compressed. */
READONLY
const char *log_compress_suffix(enum log_compress kind);

/* `kind` is not LOG_COMPRESS_NONE. The compressed stream goes to `fd`, which stays the caller's.
 * NULL: out of memory. */
SINGLE
struct log_compressor *log_compressor_create(enum log_compress kind, int fd);

/* Takes `len` more bytes; `end`: there are no more. 0 or a negative errno: then the stream is of no
 * use. */
SINGLE
int log_compressor_write(struct log_compressor *c, const void *data, size_t len, bool end);

/* NULL is ignored. */
SINGLE
void log_compressor_destroy(struct log_compressor *c);
