# flywheel's one Makefile. `make help` lists the targets.
#
# Sources are found by folder: every .c under core agents listeners spool config belongs to the
# library; programs are named below. A build variant (release, debug, asan, tsan, clang) has its own
# folder of objects, and build/NAME links to the release variant's programs.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VARIANT ?= release
OUT := build/$(VARIANT)
PREFIX ?= /usr/local
# From the second level of make on, what is missing has been installed.
JOBS ?= $(shell nproc)

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
CPPFLAGS := -D_GNU_SOURCE -I. -isystem /usr/include/libxml2
CFLAGS_release := -O2 -g
CFLAGS_debug := -Og -g -DFLYWHEEL_DEBUG
CFLAGS_asan := -O1 -g -DFLYWHEEL_DEBUG -DFLYWHEEL_PORTABLE -fsanitize=address,undefined \
	-fno-sanitize-recover=undefined -fno-omit-frame-pointer
# gcc says that ThreadSanitizer does not model fences; core/runtime/doorbell.h has another way.
CFLAGS_tsan := -O1 -g -DFLYWHEEL_DEBUG -fsanitize=thread -Wno-tsan
CFLAGS_clang := -O2 -g -DFLYWHEEL_DEBUG
# For tests/fuzz: the library as libFuzzer needs it; its main() comes with the targets only.
CFLAGS_fuzz := -O1 -g -DFLYWHEEL_DEBUG -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined -fno-omit-frame-pointer
CC_release := gcc
CC_debug := gcc
CC_asan := gcc
CC_tsan := gcc
CC_clang := clang
CC_fuzz := clang
BUILD_CC := $(CC_$(VARIANT))
CFLAGS := -std=c11 $(WARN) $(CFLAGS_$(VARIANT)) -pthread -MMD -MP
LDFLAGS := $(filter -fsanitize%,$(CFLAGS_$(VARIANT))) -pthread
# The sanitizers bring an allocator of their own.
MALLOC_release := -ljemalloc
MALLOC_debug := -ljemalloc
MALLOC_clang := -ljemalloc
TLS_LIBS := -lssl -lcrypto
LIBS := $(TLS_LIBS) -lcrypt -largon2 -luring -ljansson -lisal -lpcre2-8 -lunbound -lidn2 -lcurl -lluajit-5.1 -lsqlite3 -lhiredis \
	-lxml2 -lzstd -lz -lmicrohttpd -lsystemd -lm \
	$(MALLOC_$(VARIANT))

LIB_DIRS := core agents listeners spool config
LIB_SRC := $(sort $(shell find $(LIB_DIRS) -name '*.c'))
LIB_OBJ := $(LIB_SRC:%.c=$(OUT)/%.o)
LIB := $(OUT)/libflywheel.a

CONSOLE_SRC := $(sort $(wildcard tools/flywheel.c tools/console*.c tools/log_*.c tools/config_*.c))
SPOOL_TOOL_SRC := tools/flywheel-spool.c $(sort $(wildcard tools/spool_*.c))
PERF_SHARED := $(filter-out perf/fw%.c,$(sort $(wildcard perf/*.c)))
# The micro benchmarks call what they measure: linked with the library.
MICRO_SRC := $(sort $(wildcard perf/micro/*.c)) perf/number.c
PROGRAMS := flywheeld flywheel flywheel-spool fwload fwsink fwhostile fwmicro
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT := $(UNIT_SRC:tests/unit/%.c=$(OUT)/unit/%)
SIM_UNIT_SRC := $(sort $(wildcard tests/sim/test_*.c))
SIM_UNIT := $(SIM_UNIT_SRC:tests/sim/%.c=$(OUT)/sim/%)
SIM_SRC := $(filter-out $(SIM_UNIT_SRC),$(sort $(wildcard tests/sim/*.c)))
SIM_OBJ := $(SIM_SRC:%.c=$(OUT)/%.o) $(OUT)/tools/server.o
# The calls that the simulated kernel answers, and those that the books and accounts look at.
SIM_WRAP := $(shell sed -n 's/.* \*\?__wrap_\([a-z_0-9]*\)[^;]*.*/\1/p' tests/sim/kernel_wrap.h \
	tests/sim/books_wrap.h tests/sim/accounts_wrap.h tests/sim/pace_wrap.h tests/sim/resolver_wrap.h)
SIM_LDFLAGS := $(LDFLAGS) $(SIM_WRAP:%=-Wl,--wrap=%)
STRESS_SRC := $(sort $(wildcard tests/stress/stress_*.c))
STRESS := $(STRESS_SRC:tests/stress/%.c=$(OUT)/stress/%)
UNIT_HELP := $(filter-out $(UNIT_SRC),$(sort $(wildcard tests/unit/*.c)))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ := $(FUZZ_SRC:tests/fuzz/%.c=build/fuzz/%)
FUZZ_HELP := $(filter-out $(FUZZ_SRC),$(sort $(wildcard tests/fuzz/*.c)))

C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h')
HEADERS = $(shell git ls-files -co --exclude-standard '*.h')

.PHONY: all help deps run check check-all bench soak mutants tsa format format-check headers \
	compdb install uninstall man clean programs unit flow fuzz fuzz-check fuzz-programs stress \
	kill kill-journals powercut reloads

all: deps
	@$(MAKE) --no-print-directory -j$(JOBS) programs

help:
	@echo 'make run           install what is missing, build, show mail flowing'
	@echo 'make check         install what is missing, build every variant, run every test'
	@echo 'make bench         measure, each figure beside a reference (CASES="name ...", PAIRS=5, QUICK=1)'
	@echo 'make               install what is missing, build all programs into build/'
	@echo 'make unit          unit tests of one variant (VARIANT=release|debug|asan|tsan|clang)'
	@echo 'make flow          flow tests of the release variant (ONLY=name for some)'
	@echo 'make soak          simulated worlds, one seed after the other, until stopped (SEED=n: from there)'
	@echo 'make mutants       shows that the simulator catches planted bugs (MUTANT=name, SEEDS=n)'
	@echo 'make fuzz          names the fuzz targets; TARGET=name fuzzes one (SECONDS=n)'
	@echo 'make fuzz-check    each fuzz target for 20 seconds (FUZZ_SECONDS=n)'
	@echo 'make stress        threads against each other (VARIANT; SECONDS=60 in all)'
	@echo 'make kill          kill -9 under load, again and again (CYCLES=200, SEED=n for the same again)'
	@echo 'make reloads       reload after reload under load, with schedulers that come and go (CYCLES=1000)'
	@echo 'make kill-journals the same while journals are read (CYCLES=100, SEED=n)'
	@echo 'make powercut      power cuts under load (CYCLES=50, FS=ext4|xfs for one, SEED=n)'
	@echo 'make tsa           thread classes, checked by clang'
	@echo 'make headers       every header compiles alone'
	@echo 'make format        clang-format in place; make format-check only looks'
	@echo 'make compdb        compile_commands.json for editors'
	@echo 'make install       programs, systemd unit, manual, example configuration (DESTDIR, PREFIX)'
	@echo 'make uninstall     remove them; configuration, spool and logs stay'
	@echo 'make clean         remove build/'

deps:
	@tools/install-packages.sh

programs: $(PROGRAMS:%=$(OUT)/%)
ifeq ($(VARIANT),release)
	@for p in $(PROGRAMS); do ln -sfn release/$$p build/$$p; done
endif

$(OUT)/%.o: %.c
	@mkdir -p $(@D)
	@$(BUILD_CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# It has a copy of the file in it.
$(OUT)/core/mail/bounce_builtin.o: config/bounce_rules

$(OUT)/listeners/http/page.o: listeners/http/page.html

$(LIB): $(LIB_OBJ)
	@rm -f $@
	@ar rcs $@ $^

# The watchdog names functions in stacks.
$(OUT)/flywheeld: $(OUT)/tools/flywheeld.o $(OUT)/tools/server.o $(LIB)
	@$(BUILD_CC) $(LDFLAGS) -rdynamic $^ $(LIBS) -o $@
$(OUT)/flywheel: $(CONSOLE_SRC:%.c=$(OUT)/%.o) $(LIB)
	@$(BUILD_CC) $(LDFLAGS) $^ -ledit -ljansson -o $@
$(OUT)/flywheel-spool: $(SPOOL_TOOL_SRC:%.c=$(OUT)/%.o) $(LIB)
	@$(BUILD_CC) $(LDFLAGS) $^ $(LIBS) -o $@
$(OUT)/fwload: $(OUT)/perf/fwload.o $(PERF_SHARED:%.c=$(OUT)/%.o)
	@$(BUILD_CC) $(LDFLAGS) $^ -lisal $(TLS_LIBS) -o $@
$(OUT)/fwsink: $(OUT)/perf/fwsink.o $(PERF_SHARED:%.c=$(OUT)/%.o)
	@$(BUILD_CC) $(LDFLAGS) $^ -lisal $(TLS_LIBS) -o $@
$(OUT)/fwhostile: $(OUT)/perf/fwhostile.o $(PERF_SHARED:%.c=$(OUT)/%.o)
	@$(BUILD_CC) $(LDFLAGS) $^ -lisal $(TLS_LIBS) -o $@
$(OUT)/fwmicro: $(MICRO_SRC:%.c=$(OUT)/%.o) $(LIB)
	@$(BUILD_CC) $(LDFLAGS) $^ $(LIBS) -o $@

$(OUT)/unit/%: $(OUT)/tests/unit/%.o $(UNIT_HELP:%.c=$(OUT)/%.o) $(LIB)
	@mkdir -p $(@D)
	@$(BUILD_CC) $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@

$(OUT)/simulate: $(SIM_OBJ) $(LIB)
	@$(BUILD_CC) $(SIM_LDFLAGS) $^ $(LIBS) -o $@
	@[ $(VARIANT) != release ] || ln -sfn release/simulate build/simulate

# The simulator's own parts; the other main() stays away.
$(OUT)/sim/test_%: $(OUT)/tests/sim/test_%.o \
		$(filter-out $(OUT)/tests/sim/simulate.o,$(SIM_OBJ)) $(LIB)
	@mkdir -p $(@D)
	@$(BUILD_CC) $(SIM_LDFLAGS) $^ -lcmocka $(LIBS) -o $@

$(OUT)/fuzz_%: $(OUT)/tests/fuzz/fuzz_%.o $(FUZZ_HELP:%.c=$(OUT)/%.o) $(LIB)
	@$(BUILD_CC) -fsanitize=fuzzer $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@

$(OUT)/stress/%: $(OUT)/tests/stress/%.o $(LIB)
	@mkdir -p $(@D)
	@$(BUILD_CC) $(LDFLAGS) $^ $(LIBS) -o $@

.SECONDARY:

unit-programs: $(UNIT) $(SIM_UNIT)

unit: unit-programs
	@tests/run-unit.sh $(VARIANT) $(UNIT) $(SIM_UNIT)

# They exist in one variant only.
fuzz-programs:
	@$(MAKE) --no-print-directory VARIANT=fuzz $(if $(TARGET),build/fuzz/fuzz_$(TARGET),$(FUZZ))

fuzz:
ifeq ($(TARGET),)
	@echo 'make fuzz TARGET=name [SECONDS=n]; the names are:'
	@printf '    %s\n' $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%)
else
	@$(MAKE) --no-print-directory -j$(JOBS) fuzz-programs
	@tests/fuzz/run.sh $(TARGET) $(SECONDS)
endif

fuzz-check:
	@$(MAKE) --no-print-directory -j$(JOBS) fuzz-programs
	@tests/fuzz/check.sh

stress-programs: $(STRESS)

stress: stress-programs
	@tests/run-stress.sh $(VARIANT) $(or $(SECONDS),60) $(STRESS)

flow:
	@python3 tests/flow/run.py $(if $(ONLY),--only $(ONLY)) $(FLOW)

soak: deps
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/simulate
	@$(OUT)/simulate --soak $(if $(SEED),--seed $(SEED))

mutants: deps
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/simulate
	@OUT='$(OUT)' CC='$(BUILD_CC)' CFLAGS='$(CPPFLAGS) $(CFLAGS)' LDFLAGS='$(SIM_LDFLAGS)' \
		SIM_OBJ='$(SIM_OBJ)' LIB='$(LIB)' LIBS='$(LIBS)' SEEDS='$(SEEDS)' JOBS='$(JOBS)' \
		tests/sim/mutants/run.py $(MUTANT)

# Long forms of test_crash.py and test_powercut.py.
CYCLES_PY := tests/flow/cycles.py $(if $(SEED),--seed $(SEED))
kill: all
	@python3 $(CYCLES_PY) kill --cycles $(or $(CYCLES),200)

# Of test_journal_output.py: flywheeld is killed while it writes journals that are followed.
kill-journals: all
	@FLOW_KILLS=$(or $(CYCLES),100) $(if $(SEED),FLOW_SEED=$(SEED)) \
		python3 tests/flow/run.py --only test_kills_of_flywheeld_tear_no_record

# Of test_reload_load.py: the configuration changes while mail flows, schedulers and all.
reloads: all
	@FLOW_RELOADS=$(or $(CYCLES),1000) python3 tests/flow/run.py --only test_reloads_under_load

# On disks that lose what they had not flushed, and on file systems that are shut down.
powercut: all
	@for fs in $(or $(FS),ext4 xfs); do for disk in volatile loop; do \
		python3 $(CYCLES_PY) powercut --cycles $(or $(CYCLES),50) --fs $$fs --disk $$disk || exit 1; \
	done; done

run: all
	@tools/demo.sh

check:
	@tools/install-packages.sh check
	@$(MAKE) --no-print-directory -j$(JOBS) check-all

check-all:
	@tests/check.sh

# Without the packages that only measuring needs, it measures less and says so.
bench: all
	@tools/install-packages.sh bench || true
	@python3 perf/bench.py $(if $(QUICK),--quick) $(if $(PAIRS),--pairs $(PAIRS)) $(CASES)

tsa:
	@python3 tools/thread-classes.py $(LIB_SRC)

format:
	@clang-format -i $(C_FILES)
format-check:
	@clang-format --dry-run -Werror $(C_FILES)

headers:
	@for h in $(HEADERS); do \
		gcc -std=c11 $(CPPFLAGS) $(WARN) -fsyntax-only -x c -include $$h /dev/null || exit 1; \
	done

compdb:
	@$(MAKE) --no-print-directory -Bnwk VARIANT=debug programs unit-programs stress-programs | \
		tools/compile-commands.py > compile_commands.json

# Pages of the manual; what can be configured is told by flywheeld itself.
MAN_DIR := tools/man
man: $(OUT)/man/flywheel.conf.5

$(OUT)/man/flywheel.conf.5: $(OUT)/flywheeld $(wildcard $(MAN_DIR)/flywheel.conf.5.*)
	@mkdir -p $(@D)
	@$(OUT)/flywheeld --reference | python3 $(MAN_DIR)/flywheel.conf.5.py > $@.new
	@mv $@.new $@

SBIN := $(DESTDIR)$(PREFIX)/sbin
BIN := $(DESTDIR)$(PREFIX)/bin
MAN := $(DESTDIR)$(PREFIX)/share/man
UNITS := $(DESTDIR)$(PREFIX)/lib/systemd/system
UNIT_FILES := flywheel.service flywheel-config-pull.service flywheel-config-pull.timer
SHARE := $(DESTDIR)$(PREFIX)/share/flywheel
ETC := $(DESTDIR)/etc/flywheel

install: all
	@$(MAKE) --no-print-directory man
	install -d $(SBIN) $(BIN) $(MAN)/man1 $(MAN)/man5 $(MAN)/man8 $(UNITS) $(SHARE) $(ETC)
	install -m 755 $(OUT)/flywheeld $(SBIN)/flywheeld
	install -m 755 $(OUT)/flywheel $(BIN)/flywheel
	install -m 755 $(OUT)/flywheel-spool $(SBIN)/flywheel-spool
	install -m 644 $(MAN_DIR)/flywheel.1 $(MAN)/man1/flywheel.1
	install -m 644 $(MAN_DIR)/flywheel-log.1 $(MAN)/man1/flywheel-log.1
	install -m 644 $(MAN_DIR)/flywheel-config.1 $(MAN)/man1/flywheel-config.1
	install -m 644 $(OUT)/man/flywheel.conf.5 $(MAN)/man5/flywheel.conf.5
	install -m 644 $(MAN_DIR)/flywheeld.8 $(MAN)/man8/flywheeld.8
	install -m 644 $(MAN_DIR)/flywheel-spool.8 $(MAN)/man8/flywheel-spool.8
	for unit in $(UNIT_FILES); do \
		sed 's|=/usr/local/|=$(PREFIX)/|' tools/$$unit > $(UNITS)/$$unit && chmod 644 $(UNITS)/$$unit; done
	install -m 644 config/flywheel.conf $(ETC)/flywheel.conf.example
	install -m 644 config/bounce_rules $(ETC)/bounce_rules.example
	install -m 644 config/events.schema.json $(SHARE)/events.schema.json

# What an operator made stays: configuration, spool, logs.
uninstall:
	rm -f $(SBIN)/flywheeld $(SBIN)/flywheel-spool $(BIN)/flywheel $(MAN)/man1/flywheel.1 \
		$(MAN)/man1/flywheel-log.1 $(MAN)/man1/flywheel-config.1 \
		$(MAN)/man5/flywheel.conf.5 $(MAN)/man8/flywheeld.8 $(MAN)/man8/flywheel-spool.8 \
		$(UNIT_FILES:%=$(UNITS)/%) $(ETC)/flywheel.conf.example \
		$(ETC)/bounce_rules.example $(SHARE)/events.schema.json
	@[ ! -d $(SHARE) ] || rmdir --ignore-fail-on-non-empty $(SHARE)
	@[ ! -d $(ETC) ] || rmdir --ignore-fail-on-non-empty $(ETC)

clean:
	rm -rf build compile_commands.json

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
