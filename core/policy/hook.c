#include "core/policy/hook.h"

#include "core/runtime/check.h"

static const char *const names[POLICY_HOOKS] = {
	[POLICY_INIT] = "init",
	[POLICY_DEINIT] = "deinit",
	[POLICY_CONNECT] = "validate_connect",
	[POLICY_EHLO] = "validate_ehlo",
	[POLICY_MAILFROM] = "validate_mailfrom",
	[POLICY_RCPTTO] = "validate_rcptto",
	[POLICY_DATA] = "validate_data",
	[POLICY_DATA_SPOOL] = "validate_data_spool",
	[POLICY_EACH_RCPT] = "validate_data_spool_each_rcpt",
	[POLICY_ROUTING_DOMAIN] = "core_config_get_message_routing_domain",
	[POLICY_SET_BINDING] = "validate_set_binding",
	[POLICY_FINAL] = "core_final_validation",
	[POLICY_DELIVERY] = "core_log_delivery_v1",
	[POLICY_TRANSIENT] = "core_log_transient_failure_v1",
	[POLICY_BOUNCE] = "core_log_permanent_failure_v1",
};

const char *policy_hook_name(enum policy_hook hook)
{
	ASSERT(hook < POLICY_HOOKS);
	return names[hook];
}
