/*
 * What all fuzz targets share: taking numbers and pieces off the input, and failing.
 *
 * A dialogue's input is a script: bytes are what a peer sends, FUZZ_ESCAPE and a letter are what
 * else happens. FUZZ_ESCAPE twice stands for the byte itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_ESCAPE 0xff

/* The target: called by libFuzzer with one input after the other. Returns 0, or -1 for an input
 * that is not to become part of the corpus. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program with a finding. */
#define FUZZ_CHECK(condition)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__,           \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct fuzz_input {
	const unsigned char *at;
	size_t left;
};

static inline struct fuzz_input fuzz_input(const uint8_t *data, size_t size)
{
	return (struct fuzz_input){data, size};
}

/* The next byte; 0 at the end. */
static inline unsigned fuzz_byte(struct fuzz_input *in)
{
	if (in->left == 0) {
		return 0;
	}
	in->left--;
	return *in->at++;
}

/* 0 to 65535, from two bytes. */
static inline unsigned fuzz_word(struct fuzz_input *in)
{
	unsigned low = fuzz_byte(in);

	return low | fuzz_byte(in) << 8;
}

/* `len` bytes or what is left, `*got` of them. */
static inline const unsigned char *fuzz_piece(struct fuzz_input *in, size_t len, size_t *got)
{
	const unsigned char *piece = in->at;

	*got = len < in->left ? len : in->left;
	in->at += *got;
	in->left -= *got;
	return piece;
}

/* A copy whose end the address sanitizer watches; the caller's to free. */
static inline unsigned char *fuzz_copy(const void *data, size_t len)
{
	unsigned char *copy = malloc(len > 0 ? len : 1);

	FUZZ_CHECK(copy != NULL);
	if (len > 0) {
		memcpy(copy, data, len);
	}
	return copy;
}

/* A string up to the next line feed or NUL of the input, which is skipped; the caller's to free. */
static inline char *fuzz_string(struct fuzz_input *in)
{
	size_t len = 0;
	char *text;

	while (len < in->left && in->at[len] != '\n' && in->at[len] != '\0') {
		len++;
	}
	text = malloc(len + 1);
	FUZZ_CHECK(text != NULL);
	if (len > 0) {
		memcpy(text, in->at, len);
	}
	text[len] = '\0';
	in->at += len;
	in->left -= len;
	fuzz_byte(in);
	return text;
}

/* One step of a script: `len` bytes of data, or, with `len` 0, an action. */
struct fuzz_step {
	const unsigned char *data;
	size_t len;
	unsigned action;
};

/* False at the end of the script. */
static inline bool fuzz_step(struct fuzz_input *in, struct fuzz_step *step)
{
	const unsigned char *escape;

	*step = (struct fuzz_step){.data = in->at};
	if (in->left == 0) {
		return false;
	}
	if (in->at[0] == FUZZ_ESCAPE) {
		fuzz_byte(in);
		step->action = fuzz_byte(in);
		if (step->action == FUZZ_ESCAPE) {
			step->len = 1;
		}
		return true;
	}
	escape = memchr(in->at, FUZZ_ESCAPE, in->left);
	step->data =
		fuzz_piece(in, escape != NULL ? (size_t)(escape - in->at) : in->left, &step->len);
	return true;
}

/* How input is split into pieces: from a number of the input, another length each time. */
static inline size_t fuzz_split(uint32_t *seed, size_t left)
{
	static const unsigned most[4] = {1, 3, 17, 200};
	size_t len;

	*seed = *seed * 1664525U + 1013904223U;
	len = 1 + (*seed >> 16) % most[*seed >> 30];
	return len < left ? len : left;
}
