# `./packaging/dev RECIPE` sets up everything that a recipe needs and runs it; in a shell with .venv, `just RECIPE` does too.
# `./packaging/dev demo` and `run` are `.venv/bin/rt demo` and `run` themselves: a robot wants no process between it and its terminal.

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH", "/usr/bin:/bin")

[private]
default:
    @just --list --unsorted

# An emulated robot with a live table of its motors and sensors; `just demo --seconds 10` ends by itself
[group("run")]
[no-exit-message]
@demo *arguments:
    exec python -m rt demo {{ arguments }}

# The robot of this directory
[group("run")]
[no-exit-message]
@run *arguments:
    exec python -m rt run {{ arguments }}

# Everything: checks, tests, the executable, the system tests against it, and what root may do otherwise as an ordinary user
[group("test")]
test: test-parts test-rest

# What depends on who runs it: files, sockets, limits, processes of others
user_part := "tests/access tests/transport tests/remote tests/buffer/test_arena.py tests/buffer/test_session.py tests/instance tests/serialports tests/test_limits.py tests/system/test_ground.py tests/system/test_commands.py"

# Types and the executable are made by one process each, so that tests have the other core. The first case of each test of a whole
# robot runs against the executable, the others from source: a robot for each in both would take too long.
[parallel]
[private]
test-parts: check build test-others

# A robot waits more than it computes: both parts use two cores better than one.
[parallel]
[private]
test-rest: test-binary (test-user user_part)

workers := env("TEST_WORKERS", "4")

# What has failed next to other tests runs once more alone: a fault of rt is there again, a machine that was too busy is not
pytest := "python -m pytest --numprocesses " + workers + " --dist worksteal"
alone := "SYSTEM_CASES=all python -m pytest --last-failed --last-failed-no-failures none"

# The tests and the examples in the documentation, from source
[group("test")]
test-source *arguments:
    {{ pytest }} {{ arguments }} || {{ alone }} {{ arguments }}

[private]
test-others:
    export SYSTEM_CASES=others; {{ pytest }} || {{ alone }}

# The tests as an ordinary user (nobody), where root runs this
[group("test")]
test-user *arguments:
    TEST_WORKERS=2 SYSTEM_CASES="${SYSTEM_CASES:-first}" ./packaging/as-user test-source {{ arguments }}

# The tests 5 s after the machine has booted, as its clocks say
[group("test")]
test-booted *arguments:
    unshare --time --fork --boottime "$((5 - $(cut -d. -f1 /proc/uptime)))" --monotonic "$((5 - $(cut -d. -f1 /proc/uptime)))" \
        python -m pytest --numprocesses 3 --dist worksteal {{ arguments }}

# The tests that start whole robots, against dist/rt: the first case of each, or all with SYSTEM_CASES=all
[group("test")]
test-binary *arguments:
    export RT_BINARY="$PWD/dist/rt"; {{ pytest }} --numprocesses 5 tests/system {{ arguments }} || {{ alone }} tests/system {{ arguments }}

# Each kind of fault on 16 devices of a robot that drives, so many seconds long, and two minutes of noise at its ports, with figures
[group("test")]
soak seconds="60":
    FAULT_SECONDS={{ seconds }} python -m pytest -o faulthandler_timeout=0 -m system tests/system/test_fault_matrix.py -s
    NOISE_SECONDS=120 python -m pytest -o faulthandler_timeout=0 -m system tests/system/test_noise.py -s

# Every fault of a process while a board moves, so often, with the table of docs/safety.md
[group("test")]
brake rounds="10":
    mkdir -p build && rm -f build/brake.jsonl
    BRAKE_ROUNDS={{ trim_start_match(rounds, "rounds=") }} BRAKE_RESULTS="$PWD/build/brake.jsonl" python -m pytest -o faulthandler_timeout=0 --numprocesses 2 tests/system/test_brake.py
    PYTHONPATH=tests python -P tests/bench/brake_table.py build/brake.jsonl docs/safety.md

# Style, format, types, and which way imports run
[group("test")]
check:
    ruff check
    ruff format --check
    mypy
    lint-imports

# The figures: latencies, start-up, size; written to bench.json too
[group("test")]
bench *arguments:
    python -P tests/bench/run.py {{ arguments }}

# The executable dist/rt
[group("build")]
build:
    PYINSTALLER_CONFIG_DIR="$PWD/build/cache" python -m PyInstaller --noconfirm --log-level ERROR --distpath dist --workpath build packaging/rt.spec
    @ls -sh dist/rt

# The source in its one format, and what can be corrected without thought
[group("build")]
fmt:
    ruff format
    ruff check --fix
