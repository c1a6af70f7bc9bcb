# Thin front over Meson. Every target first installs what is missing on Debian (tools/setup).
BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= 2

.PHONY: all setup test bench soak coverage demo install clean help

all: setup $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j $(JOBS) --quiet >$(BUILD)/build.log 2>&1 || { cat $(BUILD)/build.log; exit 1; }
	@echo "built $(BUILD)/godwit, $(BUILD)/godwit.so, $(BUILD)/libgodwit.a, $(BUILD)/libgodwit.so"

setup:
	@tools/setup

$(BUILD)/build.ninja: | setup
	@meson setup $(BUILD) --prefix $(PREFIX) -Dtests=false >/dev/null || \
		{ cat $(BUILD)/meson-logs/meson-log.txt; exit 1; }

demo: all
ifeq ($(DB),postgres)
	@tools/with-postgres sh -c '$(BUILD)/godwit demo --db "$$GODWIT_POSTGRES"'
else
	@$(BUILD)/godwit demo
endif

test: setup
	@tools/test-all

soak: setup
	@tools/setup patroni etcd-server etcd-client
	@tools/test-all --soak

coverage: setup
	@tools/setup gcovr
	@tools/coverage

bench: setup
	@bench/run

install: all
	@meson configure $(BUILD) --prefix $(PREFIX) && ninja -C $(BUILD) --quiet >$(BUILD)/build.log
	@meson install -C $(BUILD) --quiet
	@echo "installed under $(DESTDIR)$(PREFIX)"

clean:
	@rm -rf $(BUILD) build-test build-bench build-coverage

help:
	@echo "make          build godwit, godwit.so and libgodwit under $(BUILD)/"
	@echo "make demo     three devices, one server, everything that can go wrong, in under a minute"
	@echo "make demo DB=postgres   the same on a PostgreSQL that it starts and stops itself"
	@echo "make test     static checks, unit, integration and sanitizer builds (about half an hour)"
	@echo "make soak     make test with every mutant, longer kill runs, long fuzzing, failovers by Patroni"
	@echo "make coverage lines and branches of core/ and client/ that unit tests reach"
	@echo "make bench    measure and write bench/RESULTS.md"
	@echo "make install  install under PREFIX (default /usr/local)"
	@echo "make clean    remove what was built"
