#include "agents/sts_fetch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "core/mail/dns.h"
#include "core/runtime/text.h"

/* "https://mta-sts.DOMAIN:65535/.well-known/mta-sts.txt" */
#define URL_MAX (DNS_NAME_TEXT + 64)
#define HTTP_OK 200

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_once(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* What was received. */
struct body {
	char *text;
	size_t len;
	bool too_large;
};

static size_t on_data(char *data, size_t size, size_t count, void *context)
{
	struct body *b = context;
	size_t len = size * count;

	if (len > STS_POLICY_MAX - b->len) {
		b->too_large = true;
		return 0;
	}
	memcpy(b->text + b->len, data, len);
	b->len += len;
	return len;
}

/* Called about once a second, and whenever something has come. */
static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	struct sts_fetch *f = context;

	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return atomic_load_explicit(&f->cancelled, memory_order_relaxed);
}

static void trouble(struct sts_fetch *f, enum sts_trouble what, const char *why)
{
	f->trouble = what;
	text_copy(f->why, sizeof f->why, why);
}

static bool is_certificate_error(CURLcode code)
{
	return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR ||
	       code == CURLE_SSL_INVALIDCERTSTATUS;
}

/* "text/plain", with or without parameters (RFC 8461 section 3.3). */
static bool is_plain_text(const char *type)
{
	static const char plain[] = "text/plain";
	size_t len = sizeof plain - 1;

	return type != NULL && strncasecmp(type, plain, len) == 0 &&
	       strchr("; \t", type[len]) != NULL;
}

/* Everything that curl is told; false when it does not take it. */
static bool set_options(CURL *curl, struct sts_fetch *f, struct body *b, struct curl_slist *at)
{
	const struct sts_options *o = f->options;
	char url[URL_MAX];

	snprintf(url, sizeof url, "https://mta-sts.%s:%u/.well-known/mta-sts.txt", f->domain,
		 o->port);
	return curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_RESOLVE, at) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)o->timeout_ms) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)o->timeout_ms) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) ==
		       CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
	       (o->ca == NULL || curl_easy_setopt(curl, CURLOPT_CAINFO, o->ca) == CURLE_OK) &&
	       curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_WRITEDATA, b) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK &&
	       curl_easy_setopt(curl, CURLOPT_XFERINFODATA, f) == CURLE_OK;
}

static void judge(CURL *curl, CURLcode code, struct sts_fetch *f, const struct body *b)
{
	const char *type = NULL;
	char why[STS_WHY];
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
	if (b->too_large) {
		trouble(f, STS_TROUBLE_FETCH, "the policy is larger than 64 KiB");
	} else if (code != CURLE_OK) {
		trouble(f, is_certificate_error(code) ? STS_TROUBLE_WEBPKI : STS_TROUBLE_FETCH,
			curl_easy_strerror(code));
	} else if (status != HTTP_OK) {
		snprintf(why, sizeof why, "the policy host answered with status %ld", status);
		trouble(f, STS_TROUBLE_FETCH, why);
	} else if (!is_plain_text(type)) {
		trouble(f, STS_TROUBLE_FETCH, "the policy is not text/plain");
	} else {
		f->policy = sts_policy_parse(b->text, b->len, why);
		if (f->policy == NULL) {
			trouble(f, STS_TROUBLE_INVALID, why);
		}
	}
}

void sts_fetch(struct sts_fetch *f)
{
	char address[DNS_NAME_TEXT + STS_ADDRESSES + 32];
	struct body b = {.text = malloc(STS_POLICY_MAX)};
	struct curl_slist *at;
	CURL *curl;

	pthread_once(&once, init_once);
	f->trouble = STS_TROUBLE_NONE;
	f->policy = NULL;
	snprintf(address, sizeof address, "mta-sts.%s:%u:%s", f->domain, f->options->port,
		 f->addresses);
	at = curl_slist_append(NULL, address);
	curl = curl_easy_init();
	if (b.text != NULL && at != NULL && curl != NULL && set_options(curl, f, &b, at)) {
		judge(curl, curl_easy_perform(curl), f, &b);
	} else {
		trouble(f, STS_TROUBLE_FETCH, "out of memory");
	}
	curl_easy_cleanup(curl);
	curl_slist_free_all(at);
	free(b.text);
}
