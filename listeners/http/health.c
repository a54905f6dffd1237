#include "listeners/http/health.h"

#include <errno.h>
#include <stdlib.h>

#include "core/version.h"
#include "listeners/http/endpoint.h"
#include "listeners/http/http.h"
#include "listeners/http/request.h"

/* Answers {"ok":...,"status":"...",...}. */
static void answer(struct request *r, unsigned status, const char *word, const char *reason)
{
	const struct http *http = r->endpoint->http;
	struct text text = {0};
	json_t *v = value_object();
	char *dump;

	value_set_bool(v, "ok", status == MHD_HTTP_OK);
	value_set_text(v, "status", word);
	if (reason != NULL) {
		value_set_text(v, "reason", reason);
	}
	value_set_text(v, "hostname", http->scheduler->global->hostname);
	value_set_text(v, "version", FLYWHEEL_VERSION);
	value_set_real(v, "uptime_s",
		       (double)(agent_now_ms(&http->scheduler->base) - http->client.started_ms) /
			       1000);
	dump = value_dump(v);
	json_decref(v);
	text_put(&text, dump);
	text_put(&text, "\n");
	free(dump);
	request_answer(r, status, "application/json", &text);
}

void health_live(struct request *r)
{
	answer(r, MHD_HTTP_OK, "live", NULL);
}

/* NULL: mail is accepted. */
static const char *refusal(const struct http *http)
{
	if (http->stopping) {
		return "the program stops";
	}
	switch (scheduler_refuses(http->scheduler)) {
	case 0:
		return NULL;
	case -ENOSPC:
		return "the spool takes no new mail: its disk is full, or fails";
	case -ENOMEM:
		return "the reception budget is used up";
	default:
		return "the program stops";
	}
}

void health_ready(struct request *r)
{
	const char *reason = refusal(r->endpoint->http);

	if (reason == NULL) {
		answer(r, MHD_HTTP_OK, "ready", NULL);
	} else {
		answer(r, MHD_HTTP_SERVICE_UNAVAILABLE, "not ready", reason);
	}
}
