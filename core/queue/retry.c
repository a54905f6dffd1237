#include "core/queue/retry.h"

#include "core/runtime/check.h"

uint64_t retry_wait_ms(const struct domain_options *options, uint32_t attempts)
{
	uint64_t wait = options->retry_interval_ms;

	ASSERT(attempts >= 1);
	for (uint32_t i = 1; i < attempts && wait < options->max_retry_interval_ms; i++) {
		wait *= 2;
	}
	return wait < options->max_retry_interval_ms ? wait : options->max_retry_interval_ms;
}

bool retry_expired(const struct domain_options *options, uint64_t received_ms, uint64_t wall_ms)
{
	return wall_ms >= received_ms + options->message_expiration_ms;
}
