# A thin front door; Meson and Ninja do the work.
.PHONY: all build deps run down demo test check faults bench asan tsan fuzz install clean

BUILD ?= build

all: build

# Debian packages that are missing; nothing when all are there.
deps:
	@tools/install-deps

$(BUILD)/build.ninja:
	meson setup $(BUILD)

build: $(BUILD)/build.ninja
	ninja -C $(BUILD)

# Installs what is missing, builds, starts a one-node cluster, runs the demo workload on it.
run: deps build
	tools/demo $(BUILD)/skiff

down:
	$(BUILD)/skiff down

# The same, then every test. Ends with one line: N passed, N failed.
test: deps build
	tools/run-tests

# What needs neither root nor a cluster.
check: build
	tools/run-tests --unit

# 1,000 times kill -9 under load, and a checker of the history; a million streams, watchers that never read (some minutes).
faults: build
	SKIFF_FAULTS=heavy tests/fault/clients_test.py $(BUILD)/tests/integration/kube-apiserver
	tests/fault/disk_test.py $(BUILD)/tests/integration/kube-apiserver
	tests/fault/etcd_test.py $(BUILD)/tests/integration/kube-apiserver
	tests/fault/linearizability.py $(BUILD)/tests/integration/kube-apiserver --runs 1000

bench: build
	tools/run-bench $(BUILD)

# Every fuzz target for FUZZ_SECONDS (600) under ASan and UBSan; needs clang.
fuzz: build-fuzz/build.ninja
	ninja -C build-fuzz
	tools/run-fuzz build-fuzz

build-fuzz/build.ninja:
	CC=clang meson setup build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false

asan: build-asan/build.ninja
	ninja -C build-asan

build-asan/build.ninja:
	meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false

# The rooms with threads, and the API server over them, under ThreadSanitizer.
tsan: build-tsan/build.ninja
	tools/run-tests --tsan

build-tsan/build.ninja:
	meson setup build-tsan -Db_sanitize=thread -Db_lundef=false -Doptimization=1

install: build
	meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) build-asan build-fuzz build-tsan
