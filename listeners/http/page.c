#include "listeners/http/page.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/check.h"

#define BASE64_SIZE(bytes) (((bytes) + 2) / 3 * 4 + 1)

/* The compiler runs in the root of the source; the Makefile knows that this depends on the file. */
__asm__(".section .rodata\n"
	".global http_page\n"
	"http_page:\n"
	".incbin \"listeners/http/page.html\"\n"
	".global http_page_end\n"
	"http_page_end:\n"
	".byte 0\n"
	".text\n");

extern const char http_page[];
extern const char http_page_end[];

const char *page_text(void)
{
	return http_page;
}

size_t page_size(void)
{
	return (size_t)(http_page_end - http_page);
}

/* Of what is between two tags, as base64. */
static void hash_between(const char *begin, const char *end, char *base64)
{
	const char *from = strstr(page_text(), begin);
	const char *to = from != NULL ? strstr(from, end) : NULL;
	unsigned char hash[SHA256_DIGEST_LENGTH];

	ASSERT(to != NULL);
	from += strlen(begin);
	if (EVP_Digest(from, (size_t)(to - from), hash, NULL, EVP_sha256(), NULL) != 1) {
		fatal("no SHA-256");
	}
	EVP_EncodeBlock((unsigned char *)base64, hash, sizeof(hash));
}

void page_policy(char policy[PAGE_POLICY])
{
	char style[BASE64_SIZE(SHA256_DIGEST_LENGTH)];
	char script[BASE64_SIZE(SHA256_DIGEST_LENGTH)];

	hash_between("<style>", "</style>", style);
	hash_between("<script>", "</script>", script);
	snprintf(policy, PAGE_POLICY,
		 "default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; "
		 "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
		 "require-trusted-types-for 'script'; trusted-types 'none'",
		 style, script);
}
