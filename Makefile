# SPDX-License-Identifier: MPL-2.0

CARGO ?= cargo
DESTDIR ?=
# Where GStreamer looks for plugins: asked of pkg-config, and only when it is needed.
PLUGINDIR ?= $(shell pkg-config --variable=pluginsdir gstreamer-1.0)
export CARGO_TARGET_DIR ?= $(CURDIR)/target
RELEASE = $(CARGO_TARGET_DIR)/release
PLUGIN = $(RELEASE)/libgstrtmp2server.so
FUZZ_SECONDS ?= 600
SOAK_SECONDS ?= 1800

CFLAGS ?= -O2 -g
C_EXAMPLES = $(patsubst examples/%.c,$(RELEASE)/examples/c/%,$(wildcard examples/*.c))

.PHONY: help setup build demo check test bench soak fuzz deb compat book examples install uninstall clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and testing need and is not there yet
	scripts/setup.sh test

build: ## Build the plugin into target/release
	$(CARGO) build --release --locked

demo: ## Install what is missing, build, record a generated stream, print what was captured
	scripts/setup.sh demo
	$(MAKE) --no-print-directory build
	scripts/demo.py

check: ## Run the quick checks: format, layers, lints, documentation, packaging, dependencies
	scripts/setup.sh test
	scripts/test.sh format format-fuzz layering shellcheck links clippy check-fuzz doc package features dependencies

test: ## Install what is missing, then run every check and every test
	scripts/setup.sh test
	scripts/test.sh

bench: ## Measure the element against tcpserversrc, nginx-rtmp and SRS
	scripts/setup.sh test
	$(CARGO) bench --locked --bench element

soak: ## Cut a publisher off at random for SOAK_SECONDS (1800), and say how memory went
	scripts/setup.sh test
	$(CARGO) build --release --locked --lib
	RTMP2SERVER_TEST_SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --release --locked --test integration -- --exact --nocapture \
		soak::a_publisher_cut_off_at_random_leaks_nothing

fuzz: ## Fuzz each target for FUZZ_SECONDS (600)
	scripts/setup.sh build
	scripts/fuzz.sh $(FUZZ_SECONDS)

deb: ## Make the Debian packages, in target/deb
	scripts/setup.sh deb
	scripts/make_deb.sh

compat: deb ## Install the packages on a fresh Debian SUITE (bookworm, trixie, sid) in a folder, and test them there
	$(CARGO) test --release --locked --test integration --no-run
	scripts/compat.sh $(SUITE)

book: ## Render README.md and docs as a book, in target/book
	scripts/setup.sh book
	scripts/book.py

examples: $(C_EXAMPLES) ## Build the C and Rust examples, and the programs
	$(CARGO) build --release --locked --workspace --lib --bins --examples

$(RELEASE)/examples/c/%: examples/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -Wall -Wextra -Werror -o $@ $< $$(pkg-config --cflags --libs gstreamer-1.0) $(LDFLAGS)

install: ## Install the plugin where GStreamer finds it (PLUGINDIR, DESTDIR)
	@test -f $(PLUGIN) || { echo "run make build first" >&2; exit 1; }
	install -D -m 755 $(PLUGIN) $(DESTDIR)$(PLUGINDIR)/libgstrtmp2server.so

uninstall: ## Remove the installed plugin
	rm -f $(DESTDIR)$(PLUGINDIR)/libgstrtmp2server.so

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf fuzz/target build
