/*
 * `tls reload`: certificates and keys of listeners are read anew (reload.h). Sessions that are open
 * keep what they need.
 */
#include "listeners/control/reload.h"

_Static_assert(RELOAD_WHY >= TLS_WHY, "room for what config_tls_renew() says");

static void *renew(const struct config *config, char why[RELOAD_WHY])
{
	return config_tls_renew(config, why);
}

/* Files are not compared: new contexts are made of them anyway. */
static bool changes(const void *renewal)
{
	(void)renewal;
	return true;
}

static void publish(void *renewal)
{
	config_tls_publish(renewal);
}

static json_t *answer(const void *renewal)
{
	json_t *v = value_object();

	value_set_number(v, "contexts_reloaded", config_tls_renewal_count(renewal));
	return v;
}

static void free_renewal(void *renewal)
{
	config_tls_renewal_free(renewal);
}

void command_tls_reload(struct order *o)
{
	static const struct reload_kind kind = {
		renew, changes, publish, NULL, answer, free_renewal,
	};

	reload_begin(o, &kind);
}
