# What a person does with Coracle. `make demo` and `make test` are all a fresh clone needs.

CARGO ?= cargo

.PHONY: build demo test bench lint targets

# WebAssembly targets for the guests; rustup adds them once.
targets:
	@rustup target add wasm32-wasip1 wasm32-wasip2 >/dev/null 2>&1 || \
	  { echo "cannot add the targets wasm32-wasip1 and wasm32-wasip2; is rustup installed?" >&2; exit 1; }

build: targets
	$(CARGO) build --release --locked

demo: build
	@tests/demo.sh target/release/coracle

test: targets
	$(CARGO) test --locked

bench: targets
	$(CARGO) bench --locked

lint: targets
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
