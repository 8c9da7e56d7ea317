# `./packaging/dev RECIPE` installs what a recipe needs and runs it. If .venv is active, `just
# RECIPE` also works. `./packaging/dev demo` and `run` start rt directly, so no process is between
# the robot and its terminal.

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH", "/usr/bin:/bin")

[private]
default:
    @just --list --unsorted

# Run an emulated robot; `just demo --seconds 10` ends after 10 s
[group("run")]
[no-exit-message]
@demo *arguments:
    exec python -m rt demo {{ arguments }}

# Run the robot of this directory
[group("run")]
[no-exit-message]
@run *arguments:
    exec python -m rt run {{ arguments }}

# Run all checks and tests, also against the executable and, as root, as an ordinary user
[group("test")]
test: test-parts test-rest

# Tests whose result may depend on the user: files, sockets, limits, processes of other users.
user_part := replace("""
    tests/access tests/transport tests/remote/test_remote_users.py
    tests/remote/test_remote_datagram.py tests/buffer/test_arena.py tests/buffer/test_session.py
    tests/instance tests/serialports tests/test_process_limits.py tests/system/test_ground.py
    tests/system/test_commands.py
""", "\n", " ")

# The type check and the build use one process each, and the tests the other core. The first case of
# each system test runs against the executable, the others run from source, to save time.
[parallel]
[private]
test-parts: check build test-others

# System tests mostly wait, so both parts run at the same time.
[parallel]
[private]
test-rest: test-binary (test-user user_part)

workers := env("TEST_WORKERS", "4")

# A failed test runs once more alone: it fails again if rt is at fault, and passes if the machine
# was too busy.
pytest := "python -m pytest --numprocesses " + workers + " --dist worksteal"
alone := "SYSTEM_CASES=all python -m pytest --last-failed --last-failed-no-failures none"

# Run the tests and the doctests from source
[group("test")]
test-source *arguments:
    {{ pytest }} {{ arguments }} || {{ alone }} {{ arguments }}

# The code that stops motion, and its tests, which take every branch of it. Only they are measured,
# because tracing doubles the processor time of a test. Each Python process that has
# COVERAGE_PROCESS_START measures itself: the workers of pytest, and the brakes that they start.
safety_path := replace("""
    rt/brake/* rt/buffer/lease.py rt/buffer/transaction.py rt/executor/lease.py
    rt/smartdevice/write_guard.py
""", "\n", " ")
safety_tests := replace("""
    tests/brake tests/buffer/test_buffer.py tests/buffer/test_changes.py tests/buffer/test_lease.py
    tests/buffer/test_overwritten.py tests/executor/test_lease_keeper.py
    tests/smartdevice/test_write_guard.py tests/smartdevice/test_write_guard_reasons.py
""", "\n", " ")
begin_measuring := "rm -rf build/coverage; mkdir -p build/coverage; " + \
    "export COVERAGE_PROCESS_START=pyproject.toml"
report_safety := "coverage report --fail-under=100 --include=" + \
    quote(replace_regex(trim(safety_path), " +", ","))

[private]
test-others: test-safety
    export SYSTEM_CASES=others; \
        {{ pytest }} {{ prepend("--ignore=", safety_tests) }} || {{ alone }}

# Run the tests of the safety path, and fail if its branch coverage is below 100 %
[group("test")]
test-safety:
    {{ begin_measuring }}; {{ pytest }} {{ safety_tests }} \
        || {{ alone }} {{ safety_tests }}
    coverage combine --quiet && {{ report_safety }}

# `test` judges the tests: some have time limits that tracing exceeds. Robots of tests/system are
# processes that are not measured.

# Print the branch coverage by package; fails if the safety path is below 100 %
[group("test")]
coverage:
    -{{ begin_measuring }}; {{ pytest }} --ignore=tests/system
    coverage combine --quiet && coverage json --quiet -o build/coverage/report.json
    python packaging/coverage_table.py build/coverage/report.json
    {{ report_safety }}

# As root, run the tests as an ordinary user (nobody)
[group("test")]
test-user *arguments:
    TEST_WORKERS=2 SYSTEM_CASES="${SYSTEM_CASES:-first}" \
        ./packaging/as-user test-source {{ arguments }}

# Run the tests with clocks that say that the machine booted 5 s ago
[group("test")]
test-booted *arguments:
    offset="$((5 - $(cut -d. -f1 /proc/uptime)))"; \
        unshare --time --fork --boottime "$offset" --monotonic "$offset" \
        python -m pytest --numprocesses 3 --dist worksteal {{ arguments }}

# Run the system tests against dist/rt: the first case of each, or all with SYSTEM_CASES=all
[group("test")]
test-binary *arguments:
    export RT_BINARY="$PWD/dist/rt"; {{ pytest }} --numprocesses 5 tests/system {{ arguments }} \
        || {{ alone }} tests/system {{ arguments }}

# Inject each fault into 16 devices of a driving robot for SECONDS each, then noise for 2 minutes
[group("test")]
soak seconds="60":
    FAULT_SECONDS={{ seconds }} python -m pytest -o faulthandler_timeout=0 -m system \
        tests/system/test_fault_matrix.py -s
    NOISE_SECONDS=120 python -m pytest -o faulthandler_timeout=0 -m system \
        tests/system/test_noise.py -s

# Test every process fault ROUNDS times while a board moves, and update the table of docs/safety.md
[group("test")]
brake rounds="10":
    mkdir -p build && rm -f build/brake.jsonl
    BRAKE_ROUNDS={{ trim_start_match(rounds, "rounds=") }} BRAKE_RESULTS="$PWD/build/brake.jsonl" \
        python -m pytest -o faulthandler_timeout=0 --numprocesses 2 tests/system/test_brake.py
    PYTHONPATH=tests python -P tests/bench/brake_table.py build/brake.jsonl docs/safety.md

# Check style, format, types and import contracts
[group("test")]
check:
    ruff check
    ruff format --check
    mypy
    lint-imports

# Measure latencies, start-up, memory and size; also writes bench.json
[group("test")]
bench *arguments:
    python -P tests/bench/run.py {{ arguments }}

# Build the executable dist/rt
[group("build")]
build:
    PYINSTALLER_CONFIG_DIR="$PWD/build/cache" python -m PyInstaller --noconfirm --log-level ERROR \
        --distpath dist --workpath build packaging/rt.spec
    @ls -sh dist/rt

# Format the source and apply automatic fixes
[group("build")]
fmt:
    ruff format
    ruff check --fix
