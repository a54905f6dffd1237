#include "perf/micro/body.h"

#include <string.h>

#include "perf/random.h"

#define LINE_LONGEST 76
#define LINE_SHORTEST 20

static const char header[] =
	"Received: from client.example (client.example [192.0.2.7])\r\n"
	"\tby relay.example with ESMTP id 4711; Tue, 1 Jul 2025 12:00:00 +0000\r\n"
	"From: News <news@sender.example>\r\n"
	"To: someone@receiver.example\r\n"
	"Subject: What is new this week\r\n"
	"Message-Id: <4711@sender.example>\r\n"
	"MIME-Version: 1.0\r\n"
	"Content-Type: text/plain; charset=us-ascii\r\n"
	"\r\n";

/* One line of `len` bytes, its end counted. */
static void line_fill(unsigned char *line, size_t len, uint64_t *seed)
{
	for (size_t i = 0; i < len - 2; i++) {
		line[i] = (unsigned char)('a' + random_below(seed, 26));
	}
	if (len >= 4 && random_below(seed, 16) == 0) {
		memcpy(line, "..", 2);
	}
	memcpy(line + len - 2, "\r\n", 2);
}

void body_fill(unsigned char *body, size_t len)
{
	uint64_t seed = 4711;
	size_t at = sizeof(header) - 1;

	memcpy(body, header, at);
	while (at < len) {
		size_t n = LINE_SHORTEST + random_below(&seed, LINE_LONGEST + 3 - LINE_SHORTEST);

		/* What would be left must be a line, too. */
		if (len - at < n + LINE_SHORTEST) {
			n = len - at;
		}
		line_fill(body + at, n, &seed);
		at += n;
	}
}
