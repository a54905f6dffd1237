/*
 * The mail data of DATA in wire form: where it ends, what is odd about it, and how line ends that
 * are none are made harmless. A body is kept dot-stuffed as received.
 *
 * Only CR LF "." CR LF ends mail data (RFC 5321 section 4.1.1.4), and the start of the data counts
 * as after CR LF. A bare LF or CR is data, but somewhere a server takes it for a line end; a body
 * that has one followed by a dot could end there, and what follows be taken for commands ("SMTP
 * smuggling"). So a body with bare ones is refused (the flags tell) or goes through dot_convert()
 * before it is stored: no stored body holds a CR or LF outside of CR LF, and all are sent as they
 * are.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/runtime/thread_class.h"

/* Bytes of the end, "." CR LF, which follow the message's own CR LF. */
#define DOT_END_BYTES 3
/* More Received fields than this are a mail loop (RFC 5321 section 6.3): 554 5.4.6. */
#define DOT_HOPS_MAX 100

enum dot_flag {
	DOT_BARE_LF = 1,
	DOT_BARE_CR = 2,
	DOT_NUL = 4,
	DOT_8BIT = 8,
	DOT_LONG_LINE = 16,
	/* A line begins with a dot, which was stuffed. */
	DOT_STUFFED = 32,
};

SINGLE
struct dot_scanner {
	/* enum dot_flag */
	uint32_t flags;
	/* Received fields in the header. */
	uint32_t received;
	/* The empty line after the header was seen. */
	bool header_ended;
	/* Private. */
	bool bare_ends_line;
	/* The last byte was a CR; the current line starts after CR LF. */
	bool after_cr;
	bool after_crlf;
	/* First byte of the current line is a dot, not counted in its length. */
	bool line_dotted;
	/* Bytes of "received:" that the current line begins with. */
	uint8_t matched;
	uint32_t line_max;
	uint64_t line_len;
};

/* `line_max`: bytes of a line without CR LF and stuffed dot above which DOT_LONG_LINE is set; RFC
 * 5321 section 4.5.3.1.6 has 998. `bare_ends_line`: count lines and header fields as they will be
 * after dot_convert(). */
SINGLE
void dot_scanner_init(struct dot_scanner *s, uint32_t line_max, bool bare_ends_line);

/*
 * Looks through the next `len` bytes of mail data. Returns how many of them, from the first, belong
 * to the message and are done with. What remains:
 * - `*end` true: "." CR LF (DOT_END_BYTES, to be skipped), then what the client says next;
 * - `*end` false: nothing, or a "." or "." CR at the start of a line, 1 or 2 bytes that cannot be
 *   judged yet: present them again, in front of what arrives next.
 * Flags and counters are of the returned bytes only. The message as a whole is empty or ends in CR
 * LF.
 */
SINGLE
size_t dot_scan(struct dot_scanner *s, const unsigned char *data, size_t len, bool *end);

/* Whether a body with these flags may be stored and sent as it was received. */
static inline bool dot_safe_as_is(uint32_t flags)
{
	return (flags & (DOT_BARE_LF | DOT_BARE_CR)) == 0;
}

SINGLE
struct dot_converter {
	/* Private: how the output's last line started, and what of the input is held back. */
	uint8_t state;
};

SINGLE
void dot_converter_init(struct dot_converter *c);

/*
 * Appends the next `len` bytes of a message, as counted by dot_scan(), to `to`: each bare CR and LF
 * becomes CR LF, and dots are stuffed accordingly. Take the dots out of the output and you have
 * what you get when you take them out of the input and turn each bare CR and LF into CR LF; the
 * output contains no CR LF "." CR LF. Any split into calls gives the same output. Bytes may be held
 * back until the next call; at the end of a message, CR LF or nothing at all, none are.
 */
SINGLE
void dot_convert(struct dot_converter *c, const unsigned char *data, size_t len, struct chain *to,
		 struct pool *buffers);
