/*
 * The policy of runs in which mail passes a script.
 */
#include "tests/sim/scenario.h"

/* Every hook, some of which wait; nothing that would change a message. */
const char scenario_script[] =
	"local m, n = {}, 0\n"
	"local function pass(seconds)\n"
	"  n = n + 1\n"
	"  if n % 7 == 0 then msys.sleep(n % 11 * seconds) end\n"
	"  if n % 13 == 0 and again ~= n then again = n return msys.core.VALIDATE_AGAIN end\n"
	"  return msys.core.VALIDATE_CONT\n"
	"end\n"
	"function m:validate_connect(ac, vctx) return pass(0.01) end\n"
	"function m:validate_ehlo(str, ac, vctx) return pass(0.01) end\n"
	"function m:validate_mailfrom(str, ac, vctx) return pass(0.01) end\n"
	"function m:validate_rcptto(msg, str, ac, vctx) return pass(0.001) end\n"
	"function m:validate_data(msg, ac, vctx)\n"
	"  msg:context_set(msys.core.ECMESS_CTX_MESS, 'sim', msg:mailfrom())\n"
	"  assert(#msg:header('Received') > 0 and #msg:raw() >= #msg:body())\n"
	"  return pass(0.1)\n"
	"end\n"
	"function m:validate_data_spool_each_rcpt(msg, ac, vctx) return pass(0.0001) end\n"
	"function m:validate_set_binding(msg) return pass(0.0001) end\n"
	"function m:core_final_validation(msg, ac, vctx) return pass(0.0001) end\n"
	"function m:core_log_delivery_v1(msg, note, code) assert(msg:rcptto()) pass(0.1) end\n"
	"function m:core_log_permanent_failure_v1(msg, note, code) pass(0.1) end\n"
	"function m:core_log_transient_failure_v1(msg, note, code) pass(0.1) end\n"
	"msys.registerModule('sim', m)\n";
