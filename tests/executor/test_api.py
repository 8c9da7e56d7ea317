import time

import pytest
import structlog

from rt import catalog
from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import DeviceBufferError, DeviceError, ExecutionError
from rt.executor.api import Field, Gamepad, Robot, RunState, refuse_input
from rt.protocol.datagrams import SILENCE
from rt.protocol.uid import DeviceUID
from rt.team.api import Mode

CATALOG = catalog.load()
MOTOR = int(DeviceUID(12, 1, 1))


@pytest.fixture
def store() -> BufferStore:
    return BufferStore(CATALOG, "", shared=False, lock_timeout=0.01)


@pytest.fixture
def robot(store: BufferStore) -> Robot:
    return Robot(store, {"left_motor": MOTOR})


def plug(store: BufferStore) -> DeviceBuffer:
    buffer = store.get_or_open(MOTOR)
    buffer.valid = True
    return buffer


def test_device_is_addressed_by_name_or_uid(store: BufferStore, robot: Robot) -> None:
    buffer = plug(store)
    buffer.set("enc_pos", 12.5)
    for device in ("left_motor", str(MOTOR), MOTOR):
        assert robot.get(device, "enc_pos") == 12.5
        robot.write(device, "duty_cycle", 0.5)
        assert buffer.get_write() == {"duty_cycle": 0.5}


def test_disconnected_device_reads_as_zeros_and_is_logged_once(
    store: BufferStore, robot: Robot
) -> None:
    with structlog.testing.capture_logs() as logs:
        assert [robot.get("left_motor", "enc_pos") for _ in range(5)] == [0.0] * 5
        robot.write("left_motor", "duty_cycle", 1.0)
        plug(store)
        robot.get("left_motor", "enc_pos")
        plug(store).valid = False
        assert robot.get("left_motor", "enc_pos") == 0.0
    assert [entry["event"] for entry in logs] == [
        "device not connected: it reads as zeros and ignores writes",
        "device connected",
        "device not connected: it reads as zeros and ignores writes",
    ]


def test_unknown_name_mentions_options_newer_than_the_robot(store: BufferStore) -> None:
    calls: list[bool] = []

    def is_outdated() -> bool:
        calls.append(True)
        return True

    robot = Robot(store, {"left_motor": MOTOR}, is_outdated)
    for _ in range(3):
        with pytest.raises(DeviceError, match=r"rt\.toml is newer than the robot"):
            robot.get("claw", "enc_pos")
    assert calls == [True]
    with pytest.raises(DeviceError, match=r"below \[dev_name\]$"):
        Robot(store, {}).get("claw", "enc_pos")


DISCONNECTED = "device not connected: it reads as zeros and ignores writes"
CONNECTED = "device connected"


def events(logs: list[structlog.typing.EventDict]) -> list[tuple[str, str]]:
    return [(entry["log_level"], entry["event"]) for entry in logs]


@pytest.mark.parametrize("seen_before", [False, True])
def test_disconnected_device_is_one_warning_for_any_calls(
    store: BufferStore, robot: Robot, seen_before: bool
) -> None:
    if seen_before:
        plug(store).set("enc_pos", 12.5)
        plug(store).valid = False
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            for device in ("left_motor", str(MOTOR), MOTOR):
                assert robot.get(device, "enc_pos") == 0.0
                robot.write(device, "duty_cycle", 1.0)
    assert events(logs) == [("warning", DISCONNECTED)]


def test_second_disconnect_is_logged_after_a_reconnect(store: BufferStore, robot: Robot) -> None:
    buffer = plug(store)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            buffer.valid = False
            for _ in range(10):
                robot.get("left_motor", "enc_pos")
                robot.write("left_motor", "duty_cycle", 1.0)
            buffer.valid = True
            for _ in range(10):
                robot.get("left_motor", "enc_pos")
    assert events(logs) == [("warning", DISCONNECTED), ("info", CONNECTED)] * 3


def test_unseen_reconnect_is_not_logged(store: BufferStore, robot: Robot) -> None:
    buffer = plug(store)
    buffer.valid = False
    with structlog.testing.capture_logs() as logs:
        robot.get("left_motor", "enc_pos")
        buffer.valid = True
        buffer.valid = False
        robot.get("left_motor", "enc_pos")
    assert events(logs) == [("warning", DISCONNECTED)]


def test_each_disconnected_device_has_its_own_warning(store: BufferStore) -> None:
    switch, other = int(DeviceUID(0, 1, 1)), int(DeviceUID(12, 1, 2))
    robot = Robot(store, {"left_motor": MOTOR, "right_motor": other, "switch": switch})
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            assert robot.get("left_motor", "enc_pos") == robot.get("right_motor", "enc_pos") == 0.0
            assert robot.get("switch", "switch0") is False
    assert [(entry["event"], entry["device"], entry["uid"]) for entry in logs] == [
        (DISCONNECTED, "left_motor", str(MOTOR)),
        (DISCONNECTED, "right_motor", str(other)),
        (DISCONNECTED, "switch", str(switch)),
    ]


@pytest.mark.parametrize(
    ("device", "param", "values"),
    [
        (DeviceUID(0, 1, 1), "switch0", (True, False)),
        (DeviceUID(3, 1, 1), "rotation", (-500, 0)),
        (DeviceUID(11, 1, 1), "id", (0xDEADBEEF, 0)),
        (DeviceUID(12, 1, 1), "enc_pos", (12.5, 0.0)),
    ],
)
def test_disconnected_device_does_not_read_as_its_last_value(
    store: BufferStore, robot: Robot, device: DeviceUID, param: str, values: tuple[object, object]
) -> None:
    uid = int(device)
    value, default = values
    buffer = store.get_or_open(uid)
    buffer.valid = True
    buffer.set(param, value)
    assert robot.get(uid, param) == value
    buffer.valid = False
    found = robot.get(uid, param)
    assert (found, type(found)) == (default, type(default))


def test_write_to_disconnected_device_is_not_sent_later(store: BufferStore, robot: Robot) -> None:
    buffer = plug(store)
    buffer.valid = False
    robot.write("left_motor", "duty_cycle", 1.0)
    buffer.valid = True
    assert buffer.get_write() == {}


def test_mistakes_are_errors_while_the_device_is_disconnected(robot: Robot) -> None:
    with pytest.raises(DeviceError, match=r"did you mean left_motor\?"):
        robot.get("left_moter", "enc_pos")
    with pytest.raises(DeviceError, match="did you mean duty_cycle"):
        robot.write("left_motor", "duty", 1.0)
    with pytest.raises(DeviceBufferError, match="not writeable"):
        robot.write("left_motor", "enc_vel", 1.0)
    with pytest.raises(DeviceBufferError, match="not readable"):
        robot.get("left_motor", "pid_pos_kp")
    with pytest.raises(DeviceError, match="device id 99"):
        robot.get(99 << 72, "x")
    with pytest.raises(TypeError):
        robot.write("left_motor", "duty_cycle", "fast")


def test_gamepad_is_neutral_unless_enabled_and_connected(store: BufferStore) -> None:
    state = RunState()
    gamepad = Gamepad(store, state)
    state.begin(Mode.TELEOP, gamepads=True)
    assert gamepad.get("joystick_left_y") == 0.0
    buffer = store.get_or_open(("gamepad", 0))
    buffer.set_all({"joystick_left_y": 0.5, "button_a": True})
    assert gamepad.get("joystick_left_y") == 0.0
    buffer.valid = True
    assert gamepad.get("joystick_left_y") == 0.5
    assert gamepad.get("button_a") is True
    state.begin(Mode.AUTO, gamepads=False)
    assert gamepad.get("joystick_left_y") == 0.0
    with pytest.raises(DeviceError, match="did you mean button_b"):
        gamepad.get("button_bb")


def test_value_beyond_limits_is_clamped_and_logged_once(store: BufferStore, robot: Robot) -> None:
    buffer = plug(store)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            robot.write("left_motor", "duty_cycle", 5)
    assert buffer.get_write() == {"duty_cycle": 1.0}
    found = [(entry["event"], entry["device"]) for entry in logs]
    assert found == [("duty_cycle ranges from -1 to 1: wrote 1 for 5", "left_motor")]


def test_disconnect_between_check_and_use_reads_as_zeros(
    store: BufferStore, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = plug(store)
    buffer.set("enc_pos", 12.5)
    answers = iter([True, False, True, False])
    buffer.valid = False
    monkeypatch.setattr(type(buffer), "valid", property(lambda _buffer: next(answers)))
    assert robot.get("left_motor", "enc_pos") == 0.0
    robot.write("left_motor", "duty_cycle", 1.0)


def test_silent_gamepad_reads_neutral_although_valid(store: BufferStore) -> None:
    state = RunState()
    gamepad = Gamepad(store, state)
    state.begin(Mode.TELEOP, gamepads=True)
    buffer = store.get_or_open(("gamepad", 0))
    buffer.set_all({"joystick_left_y": 0.5})
    buffer.valid = True
    assert gamepad.get("joystick_left_y") == 0.5
    deadline = time.monotonic() + 10
    while buffer.age <= SILENCE:
        assert time.monotonic() < deadline
    assert gamepad.get("joystick_left_y") == 0.0


def test_input_is_refused_with_a_hint() -> None:
    with pytest.raises(ExecutionError, match="use Gamepad instead"):
        refuse_input("speed? ")


@pytest.mark.parametrize("name", ["mode", "alliance"])
def test_team_code_cannot_set_attributes_of_field(name: str) -> None:
    state = RunState()
    field = Field(state)
    state.begin(Mode.AUTO, gamepads=False)
    with pytest.raises(AttributeError):
        setattr(field, name, "x")
    assert field.mode is Mode.AUTO


def test_team_code_cannot_enable_gamepads_in_autonomous() -> None:
    state = RunState()
    with BufferStore(catalog.load(), "", shared=False) as store:
        gamepad = Gamepad(store, state)
        state.begin(Mode.AUTO, gamepads=False)
        with pytest.raises(AttributeError):
            gamepad.enabled = True  # type: ignore[misc]
        assert not gamepad.enabled
