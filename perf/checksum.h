/*
 * CRC-32C in the form that can be continued: start with CHECKSUM_START, feed the pieces, finish.
 */
#pragma once

#include <isa-l/crc.h>
#include <stddef.h>
#include <stdint.h>

#define CHECKSUM_START 0xffffffffU

static inline uint32_t checksum_feed(uint32_t sum, const char *bytes, size_t len)
{
	/* The library only reads, though its prototype does not say so, and counts in int. */
	while (len > 0) {
		int piece = len > 1U << 30 ? 1 << 30 : (int)len;
		sum = crc32_iscsi((unsigned char *)(uintptr_t)bytes, piece, sum);
		bytes += piece;
		len -= (size_t)piece;
	}
	return sum;
}

static inline uint32_t checksum_finish(uint32_t sum)
{
	return ~sum;
}
