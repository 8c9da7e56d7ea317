"""Programs for each of rt's own checks, with and without findings."""

from support.lint import uid_of

MAIN = "def teleop_main():\n    "
ARM = "class Arm:\n    async def wave(self):\n        pass\n    def rest(self):\n        time.sleep(0.01)\n"

# Number of the check -> programs, each with the text at which the finding begins.
HITS: dict[str, list[tuple[str, str]]] = {
    "RT101": [
        (MAIN + 'Robot.set("motor", "duty_cycle", 1.0)', "Robot.set"),
        (MAIN + "print(Field.time)", "Field.time"),
        (MAIN + "print(Field.alliance == Alliance.RED)", "Alliance.RED"),
        (MAIN + "Gamepad.get_value('button_a')", "Gamepad.get_value"),
        (MAIN + "print(Alliance.blue)", "Alliance.blue"),
    ],
    "RT102": [
        (MAIN + 'Robot.write("motor", "duty_cycle")', "Robot.write"),
        (MAIN + 'Robot.get("motor", "duty_cycle", 1)', "Robot.get"),
        (MAIN + 'Robot.get(device="motor", parameter="duty_cycle")', "Robot.get"),
        (MAIN + 'Robot.get("motor", "duty_cycle", param="enc_pos")', "Robot.get"),
        (MAIN + "Actions.run()", "Actions.run"),
        (MAIN + "print(Field.clock(1))", "Field.clock"),
    ],
    "RT103": [(MAIN + "name = input('who? ')\n    print(name)", "input(")],
    "RT104": [
        (MAIN + "if Field.clock > 3:\n        pass", "Field.clock"),
        (MAIN + "while Gamepad.get:\n        break", "Gamepad.get"),
        (MAIN + "Robot.get", "Robot.get"),
        (MAIN + "print(f'{Field.clock} s')", "Field.clock"),
    ],
    "RT105": [
        (MAIN + "print(Field.alliance == 'BLUE')", "Field.alliance"),
        ("AUTO = 'auto'\n" + MAIN + "print(AUTO != Field.mode)", "AUTO !="),
    ],
    "RT106": [
        (
            "import no_such_module_anywhere\n" + MAIN + "no_such_module_anywhere.drive()",
            "import no",
        ),
        ("from no_such_package.arm import lift\n" + MAIN + "lift()", "from no"),
        (MAIN + "import json, no_such_module_anywhere as arm\n    print(json, arm)", "import json"),
    ],
    "RT107": [
        ("import Gamepad\n" + MAIN + "print(Gamepad.get('button_a'))", "import"),
        ("from Robot import *\n" + MAIN + "Robot.write('motor', 'duty_cycle', 1.0)", "from"),
        ("import robot\n" + MAIN + "pass", "import"),
        ("from gamepad import Gamepad as Pad\n" + MAIN + "print(Pad)", "from"),
        ("from rt import Robot, Gamepad\n" + MAIN + "print(Robot, Gamepad)", "from"),
    ],
    "RT201": [
        (MAIN + 'Robot.write("left_moter", "duty_cycle", 1.0)', '"left_moter"'),
        (
            "r = Robot\nwrite = r.write\n" + MAIN + 'write("left_moter", "duty_cycle", 1.0)',
            '"left_moter"',
        ),
        (f"MOTOR = 'mtor'\n{MAIN}Robot.get(MOTOR, 'duty_cycle')", "MOTOR, "),
        (f"{MAIN}Robot.get({63 << 72}, 'duty_cycle')", f"{63 << 72}"),
        (f"{MAIN}Robot.get(1.5, 'duty_cycle')", "1.5"),
        (f"{MAIN}Robot.get(device='mtor', param='duty_cycle')", "'mtor'"),
    ],
    "RT202": [
        (MAIN + 'Robot.write("motor", "duty_cycl", 1.0)', '"duty_cycl"'),
        (MAIN + 'Robot.get("bumper", "duty_cycle")', '"duty_cycle"'),
        ("SIDE = '_c'\n" + MAIN + "Robot.get('koala', 'duty_cycle' + SIDE)", "'duty_cycle' + SIDE"),
        (f"{MAIN}Robot.get('{uid_of('polar-bear')}', 'switch0')", "'switch0'"),
        ('for each in ("motor", "arm"):\n    print(Robot.get(each, "duty_cycl"))', '"duty_cycl"'),
    ],
    "RT203": [(MAIN + 'Robot.write("motor", "enc_vel", 1.0)', '"enc_vel"')],
    "RT204": [(MAIN + 'Robot.get("motor", "pid_pos_kp")', '"pid_pos_kp"')],
    "RT205": [
        (MAIN + 'Robot.write("motor", "duty_cycle", "fast")', '"fast"'),
        (MAIN + 'Robot.write("motor", "duty_cycle", None)', "None"),
        (MAIN + 'Robot.write("motor", "duty_cycle", [0.5])', "[0.5]"),
        (MAIN + 'Robot.write("flag", "led1", 2)', "2"),
        (MAIN + 'Robot.write("koala", "drive_mode_a", 1.5)', "1.5"),
    ],
    "RT206": [
        (MAIN + 'Robot.write("motor", "duty_cycle", 1.5)', "1.5"),
        (MAIN + 'Robot.write("motor", "duty_cycle", -2)', "-2"),
        (f"FULL = 1.0\n{MAIN}Robot.write('motor', 'duty_cycle', FULL * 2)", "FULL * 2"),
        (MAIN + 'Robot.write("koala", "drive_mode_a", 256)', "256"),
    ],
    "RT207": [(MAIN + 'Gamepad.get("joystick_left")', '"joystick_left"')],
    "RT208": [
        (MAIN + 'Gamepad.get("button_a", 4)', "4"),
        (MAIN + 'Gamepad.get("button_a", gamepad=-1)', "-1"),
    ],
    "RT209": [("speed = -Gamepad.get('joystick_left_y')\n" + MAIN + "print(speed)", "Gamepad.get")],
    "RT301": [
        ("async def wave():\n    pass\n" + MAIN + "wave()", "wave()"),
        (
            "async def wave():\n    pass\nasync def both():\n    wave()\n"
            + MAIN
            + "Actions.run(both)",
            "wave()\ndef",
        ),
        (ARM + "    def both(self):\n        self.wave()\n" + MAIN + "Arm().both()", "self.wave()"),
        (
            "from dataclasses import dataclass\n@dataclass\n"
            + ARM
            + "arm = Arm()\n"
            + MAIN
            + "arm.wave()",
            "arm.wave()",
        ),
    ],
    "RT302": [
        ("async def wave():\n    pass\n" + MAIN + "Actions.run(wave())", "wave())"),
        (ARM + "arm = Arm()\n" + MAIN + "Actions.run(arm.wave())", "arm.wave())"),
    ],
    "RT303": [
        ("def wave():\n    pass\n" + MAIN + "Actions.run(wave)", "wave)"),
        (MAIN + 'Actions.run("wave")', '"wave"'),
        (MAIN + "Actions.run(lambda: None)", "lambda"),
        ("async def wave():\n    yield\n" + MAIN + "Actions.run(wave)", "wave)"),
    ],
    "RT304": [
        ("async def wave():\n    Actions.sleep(1)\n" + MAIN + "Actions.run(wave)", "Actions.sleep"),
        (MAIN + "Actions.sleep(1)", "Actions.sleep"),
    ],
    "RT305": [
        (
            "async def wave():\n    await Robot.get('motor', 'duty_cycle')\n"
            + MAIN
            + "Actions.run(wave)",
            "await",
        ),
        (
            "def lift():\n    pass\nasync def wave():\n    await lift()\n"
            + MAIN
            + "Actions.run(wave)",
            "await",
        ),
        (
            "import time\nasync def wave():\n    await time.sleep(1)\n"
            + MAIN
            + "Actions.run(wave)",
            "await",
        ),
        ("async def wave():\n    await Actions.run(wave)\n" + MAIN + "Actions.run(wave)", "await"),
    ],
    "RT306": [
        ("async def wave(angle):\n    print(angle)\n" + MAIN + "Actions.run(wave)", "Actions.run"),
        ("async def wave():\n    pass\n" + MAIN + "Actions.run(wave, 1)", "Actions.run"),
        (ARM + "arm = Arm()\n" + MAIN + "Actions.run(arm.wave, 1)", "Actions.run"),
    ],
    "RT307": [
        (
            "import asyncio\nasync def wave():\n    await asyncio.sleep(1)\n"
            + MAIN
            + "Actions.run(wave)",
            "asyncio.sleep",
        ),
        (
            "from asyncio import sleep\nasync def wave():\n    await sleep(1)\n"
            + MAIN
            + "Actions.run(wave)",
            "sleep(1)",
        ),
    ],
    "RT401": [
        ("import time\n" + MAIN + "time.sleep(0.01)", "time.sleep(0"),
        ("from time import sleep as nap\ndef rest():\n    nap(0.01)\n" + MAIN + "rest()", "nap(0"),
        (f"import time\n{ARM}arm = Arm()\n{MAIN}arm.rest()", "time.sleep(0"),
        (
            "import time\ndef deep():\n    time.sleep(0.01)\ndef rest():\n    deep()\n"
            + MAIN
            + "rest()",
            "time.sleep(0",
        ),
    ],
    "RT402": [
        ("import time\n" + MAIN + "time.sleep(0.05)", "time.sleep(0"),
        (
            "import time as t\nREST = 2\ndef teleop_setup():\n    t.sleep(REST)\n" + MAIN + "pass",
            "t.sleep(REST)",
        ),
    ],
    "RT403": [
        (
            "import time\nasync def wave():\n    time.sleep(0.1)\n" + MAIN + "Actions.run(wave)",
            "time.sleep(0",
        )
    ],
    "RT404": [
        (MAIN + "while True:\n        Robot.get('motor', 'duty_cycle')", "while"),
        (MAIN + "while 1:\n        for each in []:\n            break", "while"),
        (
            "import itertools\n" + MAIN + "for each in itertools.count():\n        print(each)",
            "for each",
        ),
        (
            "def drive():\n    while True:\n        pass\ndef autonomous_main():\n    drive()",
            "while",
        ),
    ],
    "RT405": [
        (
            "async def wave():\n    while True:\n        print(1)\n" + MAIN + "Actions.run(wave)",
            "while",
        )
    ],
    "RT406": [
        (
            MAIN
            + "while Robot.get('motor', 'enc_pos') < 1e6:\n        Robot.write('motor', 'duty_cycle', 0.1)",
            "while",
        ),
        ("def autonomous_setup():\n    while not Gamepad.get('button_a'):\n        pass", "while"),
        ("def wait():\n    while Field.clock() < 3:\n        pass\n" + MAIN + "wait()", "while"),
        (
            "async def wave():\n    pass\n"
            + MAIN
            + "while Actions.is_running(wave):\n        pass",
            "while",
        ),
        (
            MAIN + "while True:\n        if Robot.get('bumper', 'switch0'):\n            break",
            "while",
        ),
        (
            "async def wave():\n    while Field.clock() < 3:\n        pass\n"
            + MAIN
            + "Actions.run(wave)",
            "while",
        ),
    ],
    "RT501": [("def teleop_setup():\n    pass", "def"), ("print(1)", "print"), ("", "")],
    "RT502": [
        ("async def teleop_main():\n    pass", "async"),
        ("async def autonomous_setup():\n    pass\n" + MAIN + "pass", "async"),
    ],
    "RT503": [
        ("def teleop_main(speed):\n    print(speed)", "def"),
        ("def teleop_main(*, fast):\n    print(fast)", "def"),
    ],
    "RT504": [("def teleop_main():\n    print(1)\n    yield", "def")],
    "RT505": [
        ("def telop_main():\n    pass", "def"),
        ("def auto_main():\n    pass\n" + MAIN + "pass", "def"),
    ],
}

LAST = {"2", "4", "wave()"}
"""For these texts, the finding is at the last occurrence in the program."""

MISSES: dict[str, list[str]] = {
    "RT101": [
        "class Robot:\n    @staticmethod\n    def set():\n        pass\n" + MAIN + "Robot.set()",
        MAIN
        + "print(Field.mode, Field.alliance == Alliance.BLUE, Alliance(1).name, Alliance.__members__)",
    ],
    "RT102": [
        MAIN + 'Robot.write(device="motor", param="duty_cycle", value=1.0)',
        MAIN + 'where = ("motor", "duty_cycle")\n    Robot.write(*where, 1.0)',
        MAIN + 'where = {"device": "motor"}\n    Robot.get(param="duty_cycle", **where)',
    ],
    "RT103": ["def input(prompt):\n    return prompt\n" + MAIN + "input('x')"],
    "RT104": [
        MAIN
        + "read = Robot.get\n    print(read('motor', 'duty_cycle'), Robot.get if Field.clock() else Robot.write)",
        MAIN + "print(print is Robot.get, Robot.get in [print])",
        MAIN + "print(sorted('ab', key=Gamepad.get), Field.mode, f'{Field.alliance}')",
    ],
    "RT105": [
        MAIN
        + "print(Field.alliance == Alliance.BLUE, Field.mode.name == 'AUTO', Field.mode in ('x',))",
        "class Field:\n    mode = 'x'\n" + MAIN + "print(Field.mode == 'x')",
    ],
    "RT106": [
        "import json\nimport xml.dom\nfrom trio import sleep\n"
        + MAIN
        + "print(json, xml.dom, sleep)",
        "from . import arm\n" + MAIN + "arm.lift()",
        "try:\n    import no_such_module_anywhere as arm\nexcept ImportError:\n    arm = None\n"
        + MAIN
        + "print(arm)",
    ],
    "RT107": [
        "import json\nfrom rt import __version__\n" + MAIN + "print(json, __version__)",
        "try:\n    import Gamepad\nexcept ImportError:\n    pass\n" + MAIN + "pass",
        "from . import robot\n" + MAIN + "print(robot)",
    ],
    "RT201": [
        MAIN + 'Robot.write("left_motor", "duty_cycle", 1.0)',
        f"{MAIN}Robot.get({uid_of('polar-bear')}, 'duty_cycle')",
        "MOTOR = 'no'\nMOTOR = 'motor'\n" + MAIN + "Robot.get(MOTOR, 'duty_cycle')",
        "def drive(MOTOR):\n    Robot.get(MOTOR, 'duty_cycle')\nMOTOR = 'no'\n"
        + MAIN
        + "drive('motor')",
        "MOTOR = 'no'\ndef teleop_setup():\n    global MOTOR\n    MOTOR = 'motor'\n"
        + MAIN
        + "Robot.get(MOTOR, 'enc_pos')",
        "for MOTOR in ('motor', 'arm'):\n    print(MOTOR)\n"
        + MAIN
        + "Robot.get(MOTOR, 'duty_cycle')",
        MAIN + "Robot.get(f'm{Field.clock():.0f}', 'duty_cycle')",
        "MOTOR = 'no'\nglobals()['MOTOR'] = 'motor'\n" + MAIN + "Robot.get(MOTOR, 'duty_cycle')",
        "MOTOR = 'no'\nexec('MOTOR = \"motor\"')\n" + MAIN + "Robot.get(MOTOR, 'duty_cycle')",
        "r = Robot\nr = Field\n" + MAIN + "r.get('no', 'duty_cycle')",
    ],
    "RT202": [
        MAIN + 'Robot.write("motor", "duty_cycle", 1.0)',
        'print([Robot.get(each, "switch0") for each in "ab"])',
    ],
    "RT203": [MAIN + 'Robot.write("motor", "enc_pos", 1.0)'],
    "RT204": [MAIN + 'Robot.get("motor", "enc_vel")'],
    "RT205": [
        MAIN + 'Robot.write("motor", "duty_cycle", 1)',
        MAIN + 'Robot.write("motor", "duty_cycle", True)',
        MAIN + 'Robot.write("flag", "led1", 1)',
        MAIN + 'Robot.write("motor", "duty_cycle", Gamepad.get("joystick_left_y"))',
    ],
    "RT206": [
        MAIN + 'Robot.write("motor", "duty_cycle", -1.0)',
        MAIN + 'Robot.write("motor", "pid_pos_setpoint", -1000.5)',
        MAIN + 'Robot.write("motor", "duty_cycle", 3 / 3)',
        MAIN + 'Robot.write("motor", "duty_cycle", 1 / 0)',
    ],
    "RT207": [
        MAIN + 'Gamepad.get("joystick_left_x")',
        "def pressed(name):\n    return Gamepad.get(name)",
    ],
    "RT208": [MAIN + 'Gamepad.get("button_a", 3)', MAIN + 'Gamepad.get("button_a", gamepad=0)'],
    "RT209": ["speed = lambda: Gamepad.get('joystick_left_y')\n" + MAIN + "print(speed())"],
    "RT301": [
        "async def wave():\n    await wave()\n" + MAIN + "Actions.run(wave)",
        "def once(f):\n    return lambda: Actions.run(f)\n@once\nasync def wave():\n    pass\n"
        + MAIN
        + "wave()",
        "async def wave():\n    pass\ndef wave():\n    pass\n" + MAIN + "wave()",
        ARM
        + "class Other(Arm):\n    def wave(self):\n        pass\narm = Arm()\n"
        + MAIN
        + "arm.wave()",
        ARM + "arm = Arm()\narm.wave = print\n" + MAIN + "arm.wave()",
        ARM + "arm = Arm()\nsetattr(arm, 'wave', print)\n" + MAIN + "arm.wave()",
        ARM.replace("class Arm", "class Arm(Base)") + "arm = Arm()\n" + MAIN + "arm.wave()",
        "@register\n" + ARM + "arm = Arm()\n" + MAIN + "arm.wave()",
        ARM
        + "    @staticmethod\n    def both(self):\n        self.wave()\n"
        + MAIN
        + "Arm.both(Arm())",
    ],
    "RT302": [
        "def pick():\n    return wave\nasync def wave():\n    pass\n" + MAIN + "Actions.run(pick())"
    ],
    "RT303": [
        "async def wave():\n    pass\n" + MAIN + "Actions.run(wave)",
        MAIN + "Actions.run(unknown.wave)",
    ],
    "RT304": ["async def wave():\n    await Actions.sleep(1)\n" + MAIN + "Actions.run(wave)"],
    "RT305": [
        "async def lift():\n    pass\ndef both():\n    return lift()\nasync def wave():\n    await lift()\n    await both()\n"
        + MAIN
        + "Actions.run(wave)"
    ],
    "RT306": [
        "async def wave(angle, speed=1):\n    print(angle, speed)\n"
        + MAIN
        + "Actions.run(wave, 1)\n    Actions.run(wave, 1, 2)",
        "async def wave(*angles):\n    print(angles)\n"
        + MAIN
        + "Actions.run(wave)\n    Actions.run(wave, 1, 2, 3)",
        "async def wave(angle):\n    print(angle)\n" + MAIN + "Actions.run(wave, *[1])",
    ],
    "RT307": [
        "import trio\nasync def wave():\n    await trio.sleep(1)\n" + MAIN + "Actions.run(wave)"
    ],
    "RT401": [
        "import time\ndef rest():\n    time.sleep(0.01)\n" + MAIN + "pass",
        "import time\ndef teleop_setup():\n    time.sleep(0.1)\n" + MAIN + "pass",
        "class time:\n    sleep = print\n" + MAIN + "time.sleep(1)",
    ],
    "RT402": ["import time\ndef teleop_setup():\n    time.sleep(0.5)\n" + MAIN + "pass"],
    "RT403": ["async def wave():\n    await Actions.sleep(0.1)\n" + MAIN + "Actions.run(wave)"],
    "RT404": [
        MAIN + "while True:\n        if Field.clock() > 1:\n            break",
        MAIN
        + "while True:\n        for each in []:\n            pass\n        else:\n            break",
        MAIN + "while True:\n        return",
        MAIN + "while True:\n        raise ValueError",
        "import sys\n" + MAIN + "while True:\n        sys.exit()",
        MAIN + "while Field.clock() < 1:\n        pass",
        "def forever():\n    while True:\n        pass\n" + MAIN + "print(forever)",
        "import itertools\n"
        + MAIN
        + "for each in itertools.count():\n        if each > 3:\n            return",
        MAIN
        + "try:\n        while True:\n            print(waiting.pop())\n    except IndexError:\n        pass",
        "import threading\ndef camera_main():\n    while True:\n        print(1)\n"
        "threading.Thread(target=camera_main).start()\n" + MAIN + "pass",
    ],
    "RT405": [
        "async def wave():\n    while True:\n        await Actions.sleep(1)\n"
        + MAIN
        + "Actions.run(wave)"
    ],
    "RT406": [
        MAIN
        + "if Robot.get('motor', 'enc_pos') < 1e6:\n        Robot.write('motor', 'duty_cycle', 0.1)",
        MAIN + "began = Field.clock()\n    while Field.clock() - began < 0.001:\n        pass",
        MAIN
        + "tries = 3\n    while tries and Robot.get('motor', 'enc_pos') < 1:\n        tries -= 1",
        MAIN + "tries = 3\n    while tries:\n        tries -= Robot.get('motor', 'enc_pos') < 1",
        MAIN
        + "while True:\n        if Robot.get('bumper', 'switch0'):\n            print(1)\n        break",
        "async def wave():\n    while Field.clock() < 3:\n        await Actions.sleep(0.1)\n"
        + MAIN
        + "Actions.run(wave)",
        "def wait():\n    while Field.clock() < 3:\n        pass\n" + MAIN + "print(wait)",
    ],
    "RT501": [
        MAIN + "pass",
        "from drive import *",
        "import drive\nteleop_main = drive.main",
        "async def drive():\n    pass\ndef start():\n    Actions.run(drive)\ndef teleop_setup():\n    start()",
        "def telop_main():\n    pass",
    ],
    "RT502": [
        MAIN + "pass",
        "async def arm_setup():\n    pass\n" + MAIN + "Actions.run(arm_setup)",
    ],
    "RT503": ["def teleop_main(speed=1, *rest, **more):\n    print(speed, rest, more)"],
    "RT504": [
        "def teleop_main():\n    def numbers():\n        yield 1\n    print(list(numbers()))"
    ],
    "RT505": [
        "def teleop_main2():\n    pass\n",
        "def autonomous_main():\n    pass\ndef autonomous_setup():\n    pass\n" + MAIN + "pass",
        "def autonomous_move():\n    pass\n" + MAIN + "pass",
        "def telop_main():\n    pass\n\n\ntelop_main()",
        "def teleoperate():\n    pass\n" + MAIN + "pass",
    ],
}
